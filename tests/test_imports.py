"""The one-way order of imports, and an `import sparsefield` that costs nothing."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import sparsefield

PACKAGE = Path(sparsefield.__file__).parent

# A part may import from lower rows and from itself, never from its own row or above.
LAYERS = [
    {"core"},
    {"data", "nn", "metrics"},
    {"figures", "flow"},
    {"models", "samplers"},
    {"inference", "baselines"},
    {"evaluation", "integrations"},
    {"training", "xarray"},
    {"profiling"},
    {"testing"},
    {"web"},
    {"cli"},
    {"__main__"},
]
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
HEAVY = {"torch", "numpy", "scipy", "numba", "pyarrow", "PIL", "matplotlib", "skimage"}

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def module_name(path):
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


def is_typing_only(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imported(nodes, deep):
    """Yield the modules that statements import; those inside functions only if `deep`."""
    for node in nodes:
        if is_typing_only(node):
            yield from imported(node.orelse, deep)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module
            if node.module == "sparsefield":
                yield from (f"sparsefield.{alias.name}" for alias in node.names)
        elif deep or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imported(ast.iter_child_nodes(node), deep)


def part_of(module):
    """Return the part of the package that a module belongs to, or None outside the package."""
    first, *rest = module.split(".")
    return rest[0] if first == "sparsefield" and rest else None


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_downwards(path):
    own = part_of(module_name(path))
    assert own in RANK, f"give '{own}' its place in LAYERS"
    for module in imported(ast.parse(path.read_text()).body, deep=True):
        other = part_of(module)
        if other in RANK and other != own:
            assert RANK[other] < RANK[own], f"{path} imports {module}, which lies above"


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("cli/**/*.py")), ids=module_name)
def test_commands_import_nothing_heavy_before_they_run(path):
    modules = set(imported(ast.parse(path.read_text()).body, deep=False))
    assert not {module.split(".")[0] for module in modules} & HEAVY
    assert {part_of(module) for module in modules} <= {None, "cli", "core"}


def test_public_names_resolve_and_are_declared_for_type_checkers():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    typed = {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
    names = set(sparsefield.__all__) - {"__version__"}
    assert names <= typed
    for name in names:
        assert getattr(sparsefield, name) is not None
        assert name in dir(sparsefield)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = sparsefield.nonsense


def face():
    """Yield every public callable by its name: functions, classes and their public methods."""
    for name in sparsefield.__all__:
        found = getattr(sparsefield, name)
        if name == "samplers":
            yield from ((f"samplers.{n}", getattr(found, n)) for n in found.__all__)
        elif inspect.isclass(found):
            yield name, found
            methods = inspect.getmembers(found, inspect.isroutine)
            yield from ((f"{name}.{n}", method) for n, method in methods if not n.startswith("_"))
        elif callable(found):
            yield name, found


FACE = {name: found for name, found in face() if callable(found) and not isinstance(found, dict)}


def test_the_public_face_is_what_the_design_says():
    wanted = ["load", "Model.condition", "Posterior.mean", "Posterior.sample", "Posterior.within"]
    wanted += ["Posterior.recalibrated", "Grid", "Points", "Observation", "reconstruct"]
    wanted += ["Field.quantiles", "Field.on_grid", "Field.plot", "Field.save", "Field.to_xarray"]
    wanted += [f"samplers.{name}" for name in ("Heun", "Euler", "AdamsBashforth", "Exponential")]
    wanted += [f"samplers.{name}" for name in ("SDE", "DDIM", "DormandPrince")]
    assert set(wanted) <= set(FACE)


@pytest.mark.parametrize("name", FACE)
def test_no_public_function_has_more_than_six_parameters_or_three_by_position(name):
    try:
        parameters = inspect.signature(FACE[name]).parameters.values()
    except ValueError:
        pytest.skip("a class without a signature of its own")
    own = [p for p in parameters if p.name not in ("self", "cls")]
    assert len(own) <= 6, f"{name} takes {len(own)} parameters"
    by_position = [p for p in own if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    assert len(by_position) <= 3, f"{name} takes {len(by_position)} parameters by position"


def test_import_is_light():
    code = "import sparsefield, sys; print(*sys.modules)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert not HEAVY & set(child.stdout.split())
