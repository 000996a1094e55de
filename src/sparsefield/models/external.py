"""Backbones of other packages, named `module:Class`.

To import a module is to run its code, so a name in a file must not be enough: a checkpoint comes
from anywhere. A module is imported when the user named it: in a preset or an override of a
training run, in the environment variable SPARSEFIELD_MODULES (names with commas between them), or
by importing it before.
"""

import importlib
import os
import re
import sys
from typing import Any

from sparsefield.core.errors import InputError
from sparsefield.flow.backbone import Backbone

VARIABLE = "SPARSEFIELD_MODULES"
_NAME = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")
_trusted: set[str] = set()


def trust(name: Any) -> None:
    """Let a backbone `module:Class` be imported from now on; other names are left alone."""
    found = _NAME.fullmatch(name) if isinstance(name, str) else None
    if found is not None:
        _trusted.add(found[1])


def is_trusted(name: str) -> bool:
    """Tell whether the user named the module of a class, or has imported it.

    Raises:
        InputError: The name is not of the form `module:Class`.
    """
    module = _split(name)[0]
    named = os.environ.get(VARIABLE, "").split(",")
    return module in sys.modules or module in _trusted or module in map(str.strip, named)


def find_external(name: str) -> type[Backbone]:
    """Return the class `module:Class`, importing the module if the user named it.

    Raises:
        InputError: The module is not trusted or cannot be imported, or holds no such backbone.
    """
    module, label = _split(name)
    if not is_trusted(name):
        raise InputError(
            f"model {name} is the code of module '{module}', which nobody imported; if you trust "
            f"it, import it first or set {VARIABLE}={module}"
        )
    kind = getattr(_import(module, name), label, None)
    if kind is None:
        raise InputError(f"model {name}: module '{module}' has no class '{label}'")
    if not (isinstance(kind, type) and issubclass(kind, Backbone)):
        raise InputError(f"model {name} is no subclass of sparsefield.flow.backbone.Backbone")
    return kind


def _split(name: str) -> tuple[str, str]:
    found = _NAME.fullmatch(name)
    if found is None:
        raise InputError(f"model '{name[:100]}' is not of the form module:Class")
    return found[1], found[2]


def _import(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            f"model {name}: there is no module '{error.name}'; is its folder on PYTHONPATH?"
        ) from error
    except Exception as error:  # whatever the code of a stranger may raise
        raise InputError(
            f"model {name}: importing '{module}' failed with {type(error).__name__}: {error}"
        ) from error
