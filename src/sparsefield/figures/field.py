"""Figures of reconstructed fields."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.core.words import counted
from sparsefield.data.observation import Observation
from sparsefield.figures.panels import Panel, decibels, lay_out, show_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_field(
    obs: Observation,
    shape: tuple[int, ...] | None,
    mean: Tensor,
    *,
    sample: Tensor | None = None,
    std: Tensor | None = None,
) -> "Figure":
    """Return a figure of what was observed, the mean, one sample and the standard deviation.

    Args:
        obs: Observations (M, P), (M, C).
        shape: Cells along each axis of the grid of L cells.
        mean: Posterior mean (L, C).
        sample: A posterior sample (L, C).
        std: Standard deviation (L, C).

    Raises:
        InputError: The points form no grid, or matplotlib is not installed.
    """
    if shape is None:
        raise InputError("free points have no picture; ask for the field at a Grid")
    panels = {
        "observed": Panel(observed_picture(obs, shape), f"{counted(obs.count, 'point')}"),
        "mean": Panel(lay_out(mean, shape)),
    }
    if sample is not None:
        panels["one sample"] = Panel(lay_out(sample, shape))
    if std is not None:
        panels["standard deviation"] = deviation_panel(std, shape)
    return show_rows([list(panels.values())], list(panels))


class DemoRow(NamedTuple):
    """One picture of the demo.

    Attributes:
        name: What to call it.
        truth: True picture (H, W, C).
        obs: What was observed of it.
        baseline: The picture by a classical method (H, W, C).
        mean: Posterior mean (H W, C).
        sample: A posterior sample (H W, C).
        std: Standard deviation (H W, C).
    """

    name: str
    truth: np.ndarray
    obs: Observation
    baseline: np.ndarray
    mean: Tensor
    sample: Tensor
    std: Tensor


def plot_demo(rows: Sequence[DemoRow], baseline_title: str) -> "Figure":
    """Return a figure of truth, observations, baseline, mean, sample and standard deviation.

    Args:
        rows: The pictures, one a row.
        baseline_title: What to call the classical method.

    Raises:
        InputError: matplotlib is not installed.
    """
    titles = ["truth", "observed", baseline_title, "mean", "one sample", "standard deviation"]
    return show_rows([_demo_panels(row) for row in rows], titles)


def _demo_panels(row: DemoRow) -> list[Panel]:
    shape = row.truth.shape[:2]
    mean, sample = lay_out(row.mean, shape), lay_out(row.sample, shape)
    return [
        Panel(row.truth, row.name),
        Panel(
            observed_picture(row.obs, shape), f"{row.obs.count / len(row.mean):.0%} of the pixels"
        ),
        Panel(row.baseline, decibels(row.baseline, row.truth)),
        Panel(mean, decibels(mean, row.truth)),
        Panel(sample, decibels(sample, row.truth)),
        deviation_panel(row.std, shape),
    ]


def deviation_panel(std: Tensor, shape: tuple[int, ...]) -> Panel:
    """Return the standard deviation (L, C), averaged over channels."""
    values = lay_out(std, shape).mean(axis=-1, keepdims=True)
    return Panel(values, f"0 to {values.max():.2g}", "deviation")


def observed_picture(obs: Observation, shape: tuple[int, ...]) -> np.ndarray:
    """Return the observations as a picture, on the grid that they come from if there is one.

    Cells are as wide as the least distance between observations along an axis, but no smaller
    than those of the reconstruction: pixels of a coarse image stay visible in a fine one.
    """
    coords = obs.coords[obs.valid].numpy()
    widths = [_spacing(x) * n / 2 for x, n in zip(coords.T, shape, strict=True)]
    cells = tuple(round(n / max(1.0, min(widths))) for n in shape)
    cell = np.floor((coords + 1) / 2 * cells).astype(int).clip(0, np.array(cells) - 1)
    picture = np.full((*cells, obs.channels), np.nan, np.float32)
    picture[tuple(cell.T)] = obs.values[obs.valid].numpy()
    return lay_out(torch.from_numpy(picture.reshape(-1, obs.channels)), cells)


def _spacing(positions: np.ndarray) -> float:
    """Return the least distance between different positions along an axis, 0 if all are one."""
    gaps = np.diff(np.unique(positions.round(5)))
    return float(gaps.min()) if gaps.size else 0.0
