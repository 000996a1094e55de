"""The figure that a training run writes now and then."""

from typing import TYPE_CHECKING

from torch import Tensor

from sparsefield.figures.panels import Panel, Scene, lay_out, masked, show_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = ["truth", "observed", "targets", "predicted targets", "full field"]


def plot_training(scene: Scene, targets: Tensor, predicted: Tensor) -> "Figure":
    """Return a figure of truth, observations, targets, predicted targets and the full field.

    Args:
        scene: Validation fields.
        targets: Which points are supervised (B, L).
        predicted: Predicted fields (B, L, C).

    Raises:
        InputError: matplotlib is not installed.
    """
    rows = range(len(predicted))
    return show_rows([_panels(scene, row, targets[row], predicted[row]) for row in rows], TITLES)


def _panels(scene: Scene, row: int, target: Tensor, predicted: Tensor) -> list[Panel]:
    whole = lay_out(predicted, scene.shape)
    return [
        Panel(scene.picture(row)),
        Panel(scene.observed_picture(row)),
        Panel(lay_out(masked(scene.truth[row], target), scene.shape)),
        Panel(lay_out(masked(predicted, target), scene.shape)),
        Panel(whole, scene.decibels(whole, row)),
    ]
