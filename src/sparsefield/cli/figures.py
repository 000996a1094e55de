"""What commands that write figures share."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sparsefield.core.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_figure(path: Path | None) -> None:
    """Refuse a file for --figure that could not be written once the figure is made.

    Raises:
        InputError: Its suffix is not .png, or matplotlib is not installed.
    """
    if path is None:
        return
    if path.suffix != ".png":
        raise InputError(f"cannot write {path}: the suffix must be .png")
    need_matplotlib("--figure")


def need_matplotlib(option: str) -> None:
    """Raise InputError if an option cannot be had because matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise InputError(f"{option} needs matplotlib: install sparsefield[plot]")


def write_figure(figure: "Figure", path: Path) -> None:
    """Write a figure and say where it is."""
    from sparsefield.figures.panels import save_figure

    save_figure(figure, path)
    print(path)
