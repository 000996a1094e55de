"""sparsefield masks verify: check the masks of the evaluation protocol."""

from typing import Annotated, Literal

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from sparsefield.cli import options
from sparsefield.core.errors import unknown_name


def command(
    action: Annotated[Positional[Literal["verify"]], arg(metavar="verify")],
    items: Annotated[int, arg(metavar="N")] = 500,
    points: Annotated[int, arg(metavar="N")] = 1024,
    density: options.Density = 0.2,
    seed: options.Seed = 0,
    split: options.Split = "validation",
) -> int:
    """Verify that masks are deterministic, disjoint from targets and cover the grid evenly.

    The exit code is 1 if a check fails.

    Args:
        action: What to do with the masks.
        items: Number of items.
        points: Points of an item, 1024 for 32 x 32.
    """
    from sparsefield.data.masks import SPLIT_CODES, MaskSet, verify_masks

    if split not in SPLIT_CODES:
        raise unknown_name("split", split, list(SPLIT_CODES))
    checks = verify_masks(MaskSet(points, density, seed, split, items))
    table = Table("check", "result", "seen", box=None)
    for check in checks:
        verdict = "[green]pass[/green]" if check.passed else "[red]FAIL[/red]"
        table.add_row(check.name, verdict, check.detail)
    Console().print(table)
    broken = [check.name for check in checks if not check.passed]
    if broken:
        Console(stderr=True).print(f"sparsefield: masks are broken: {', '.join(broken)}")
    return 1 if broken else 0
