"""What all figures are made of: panels, pictures and the file they are written to.

Figures know arrays only. The functions return them and never show them; matplotlib is an optional
extra. Fields of three channels in [0, 1] are shown as colours, others by their first channel. What
was not observed is light grey, and all pictures of a field share their limits.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.core.files import write_atomically
from sparsefield.metrics import psnr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNKNOWN = (0.88, 0.88, 0.88)
PANEL_INCHES = 1.55
DPI = 130


class Panel(NamedTuple):
    """One picture of a figure.

    Attributes:
        values: Picture (H, W, C); NaN where it is unknown.
        caption: Text below it.
        kind: A field, or the standard deviation of one.
    """

    values: np.ndarray
    caption: str = ""
    kind: Literal["field", "deviation"] = "field"


class Scene(NamedTuple):
    """Fields of which some points are observed.

    Attributes:
        shape: Cells along each axis of the grid of L cells.
        items: Numbers of the B fields in their data set.
        truth: Fields (B, L, C).
        observed: Which points are observed (B, L).
        value_range: Range that PSNR refers to.
    """

    shape: tuple[int, ...]
    items: Sequence[int]
    truth: Tensor
    observed: Tensor
    value_range: float = 1.0

    def picture(self, row: int) -> np.ndarray:
        """Return the truth of a row as a picture (H, W, C)."""
        return lay_out(self.truth[row], self.shape)

    def observed_picture(self, row: int) -> np.ndarray:
        """Return what is observed of a row as a picture (H, W, C), NaN elsewhere."""
        return lay_out(masked(self.truth[row], self.observed[row]), self.shape)

    def decibels(self, picture: np.ndarray, row: int) -> str:
        """Return the PSNR of a picture (H, W, C) of a row as a caption."""
        return decibels(picture, self.picture(row), self.value_range)


def new_figure(rows: int, columns: int) -> tuple["Figure", np.ndarray]:
    """Return an empty figure and its panels (rows, columns).

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("figures need matplotlib: install sparsefield[plot]") from error
    size = (PANEL_INCHES * columns, (PANEL_INCHES + 0.15) * rows + 0.25)
    figure = Figure(figsize=size)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.05, hspace=0, wspace=0)
    return figure, figure.subplots(rows, columns, squeeze=False)


def show_rows(rows: Sequence[Sequence[Panel]], titles: Sequence[str]) -> "Figure":
    """Return a figure of rows of panels; the fields of a row share their limits."""
    figure, grid = new_figure(len(rows), len(titles))
    for axes, panels in zip(grid, rows, strict=True):
        limits = shared_limits([panel.values for panel in panels if panel.kind == "field"])
        for place, panel in zip(axes, panels, strict=True):
            show_panel(place, panel, limits)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=9)
    return figure


def shared_limits(pictures: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the least and the largest known value of some pictures."""
    return float(min(map(np.nanmin, pictures))), float(max(map(np.nanmax, pictures)))


def show_panel(axes: "Axes", panel: Panel, limits: tuple[float, float]) -> None:
    """Show a picture whose values lie within `limits`."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_xlabel(panel.caption, fontsize=8, labelpad=2)
    if panel.kind == "deviation":
        axes.imshow(panel.values[..., 0], cmap="magma", vmin=0)
    elif panel.values.shape[-1] == 3 and limits[0] >= 0 and limits[1] <= 1:
        axes.imshow(np.where(np.isnan(panel.values), UNKNOWN, panel.values))
    else:
        axes.set_facecolor(UNKNOWN)
        axes.imshow(panel.values[..., 0], cmap="viridis", vmin=limits[0], vmax=limits[1])


def lay_out(values: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """Return values (L, C) as a picture (H, W, C): a strip in 1-D, middle slices from 3-D on."""
    picture = values.reshape(*shape, -1).numpy()
    while picture.ndim > 3:
        picture = picture[len(picture) // 2]
    return picture[None] if picture.ndim == 2 else picture


def masked(values: Tensor, where: Tensor) -> Tensor:
    """Return values (L, C) with NaN except `where` (L,)."""
    return values.masked_fill(~where[:, None], torch.nan)


def decibels(picture: np.ndarray, truth: np.ndarray, value_range: float = 1.0) -> str:
    """Return the PSNR of a picture (H, W, C) as a caption."""
    prediction, target = (torch.from_numpy(x).flatten(0, 1)[None] for x in (picture, truth))
    return f"{psnr(prediction, target, data_range=value_range).item():.1f} dB"


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as a PNG, whole or not at all.

    Raises:
        InputError: The file cannot be written.
    """
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=DPI))
