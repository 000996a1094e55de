"""Which file a path is."""

import os
from collections.abc import Iterable
from pathlib import Path

from sparsefield.core.errors import InputError


def refuse_overwriting(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse outputs that would replace an input, by whatever name or link.

    Args:
        outputs: Files that are to be written.
        inputs: Files that are to be read, and folders of files that are.

    Raises:
        InputError: An output is an input, or a file that exists below one.
    """
    inputs = list(inputs)
    for output in outputs:
        for source in inputs:
            if _same_file(output, source) or _lies_below(output, source):
                raise InputError(
                    f"cannot write {output}: it is the input {source}, which would be lost; "
                    "choose another name"
                )


def _same_file(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):  # one of them does not exist
        return False


def _lies_below(path: Path, folder: Path) -> bool:
    try:
        return path.is_file() and path.resolve().is_relative_to(folder.resolve(strict=True))
    except (OSError, ValueError):
        return False
