"""Which baselines run."""

from importlib.util import find_spec

from sparsefield.baselines.registry import BASELINES, available_baselines
from sparsefield.core.errors import InputError, unknown_name


def choose_baselines(names: str, dims: int, *, on_grid: bool = True) -> list[str]:
    """Return the baselines that "all", "none" or a list "tps,kriging" stands for.

    Args:
        names: What the user asked for.
        dims: Number of coordinate dimensions P.
        on_grid: Whether queries are a whole grid that contains the observed points.

    Raises:
        InputError: A name is unknown or cannot run here.
    """
    if names == "none":
        return []
    if names == "all":
        return available_baselines(dims, on_grid)
    chosen = [name.strip() for name in names.split(",")]
    known = available_baselines(dims, on_grid, peers=True)
    for name in chosen:
        if name not in BASELINES:
            raise unknown_name("baseline", name, [*BASELINES, "all", "none"])
        if name not in known:
            needs = BASELINES[name].requires
            without = f" without {needs}" if needs and not find_spec(needs) else ""
            raise InputError(f"{name} cannot run here{without}; there are {', '.join(known)}")
    return chosen
