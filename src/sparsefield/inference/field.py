"""A reconstructed field: the result of everything above the flow."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.core.files import dump_json
from sparsefield.core.words import counted
from sparsefield.data.formats import need_handler
from sparsefield.data.formats.netcdf import to_dataset
from sparsefield.data.frame import Frame
from sparsefield.data.observation import Observation
from sparsefield.data.query import Grid, Points
from sparsefield.nn.mixture import Mixture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Quantiles that are computed unless told otherwise: a 90 % interval, quartiles, the median.
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


class Provenance(NamedTuple):
    """How a field was made.

    Attributes:
        model: Name of the model.
        nfe: Evaluations of the network per point, those of all samples and of recalibration
            together.
        seconds: Wall-clock time in seconds.
        sampler: What made the samples, or None without samples.
        seed: Seed of the samples, or None without samples.
        inflation: Factor by which recalibration scaled the samples' deviations from the mean.
    """

    model: str = ""
    nfe: int = 0
    seconds: float = 0.0
    sampler: str | None = None
    seed: int | None = None
    inflation: float = 1.0


UNKNOWN = Provenance()


@dataclass(frozen=True, repr=False, eq=False)
class Field:
    """A reconstructed field in physical units.

    Attributes:
        mean: Posterior mean (L, C).
        at: The grid or the points.
        obs: The observations, coords (M, P) and values (M, C).
        std: Standard deviation (L, C), of the samples or as the model states it; None for fewer
            than two samples of a model that states none.
        samples: Posterior samples (S, L, C), or None.
        made: How it was made.
        marginal: Distribution of the value at each point (L, C), of a model that states it.
        field_std: Standard deviation (L, C) of the noise-free field, of a model that tells it from
            that of a new value, which `std` then is.
    """

    mean: Tensor
    at: Grid | Points
    obs: Observation
    _: KW_ONLY
    std: Tensor | None = None
    samples: Tensor | None = None
    made: Provenance = UNKNOWN
    marginal: Mixture | None = field(init=False, default=None)
    field_std: Tensor | None = field(init=False, default=None)

    def __repr__(self) -> str:
        """Say what was reconstructed, without the numbers."""
        count = 0 if self.samples is None else len(self.samples)
        return (
            f"Field({self.at}, {counted(self.mean.shape[-1], 'channel')}, "
            f"{counted(count, 'sample')}, from {counted(self.obs.count, 'observation')}, "
            f"nfe={self.nfe}, seconds={self.seconds:.2f})"
        )

    @property
    def coords(self) -> Tensor:
        """Coordinates of the points (L, P) in [-1, 1]."""
        return self.at.coords

    @property
    def frame(self) -> Frame | None:
        """Frame of the observations: units, bounds and distances."""
        return self.obs.frame

    @property
    def physical(self) -> np.ndarray:
        """Coordinates of the points (L, P) in the units of the frame, if there is one."""
        return self.coords.numpy() if self.frame is None else self.at.physical

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Cells along each axis, or None for free points."""
        return self.at.shape

    @property
    def nfe(self) -> int:
        """Evaluations of the network per point, all samples together."""
        return self.made.nfe

    @property
    def seconds(self) -> float:
        """Wall-clock time in seconds."""
        return self.made.seconds

    @property
    def inflation(self) -> float:
        """Factor by which recalibration scaled the samples' deviations from the mean."""
        return self.made.inflation

    @property
    def spread(self) -> float:
        """Another name of `inflation`."""
        return self.inflation

    @property
    def estimate(self) -> Tensor:
        """The field (L, C) that the evaluations were spent on.

        It is the posterior mean where there are no samples, and else the mean of the samples.
        """
        return self.mean if self.samples is None else self.samples.mean(0)

    def stating(self, marginal: Mixture, field_std: Tensor) -> "Field":
        """Return the field with the distribution at each point, as its model states it.

        Args:
            marginal: Distribution of a new value at each point (L, C).
            field_std: Standard deviation of the noise-free field (L, C).
        """
        other = replace(self, std=marginal.std.to(self.mean.dtype))
        object.__setattr__(other, "marginal", marginal)
        object.__setattr__(other, "field_std", field_std)
        return other

    def quantiles(self, levels: Sequence[float] = LEVELS) -> Tensor:
        """Return quantiles (Q, L, C) at every point: as the model states them, or of the samples.

        Of samples, level q is the sample of rank `q (S + 1)`, between neighbouring ranks by linear
        interpolation and the outermost sample beyond them: a share q of truths lies below it where
        samples are calibrated. Levels below `1 / (S + 1)` or above `S / (S + 1)` take more
        samples: a 90 % interval takes 19.

        Args:
            levels: Q numbers between 0 and 1.

        Raises:
            InputError: The model states none and there are no samples, or a level is out of range.

        References:
            Sample quantiles in statistical packages (Hyndman & Fan, 1996), definition 6.
        """
        if not all(0 <= level <= 1 for level in levels):
            raise InputError(f"quantiles take levels from 0 to 1, not {list(levels)}")
        if self.marginal is not None:
            found = [self.marginal.quantile(level) for level in levels]
            return torch.stack(found).to(self.mean.dtype)
        if self.samples is None:
            raise InputError("quantiles are those of samples; ask for samples")
        ranked = np.quantile(self.samples.double().numpy(), list(levels), 0, method="weibull")
        return torch.from_numpy(ranked).float()

    def on_grid(self, values: Tensor | None = None) -> np.ndarray:
        """Lay values out as an array (..., *shape, C).

        Args:
            values: Values (..., L, C) of this field; the mean if None.

        Raises:
            InputError: The points were not given as a grid.
        """
        if self.shape is None:
            raise InputError("these points form no grid; ask for the field at a Grid")
        values = self.mean if values is None else values
        return values.reshape(*values.shape[:-2], *self.shape, values.shape[-1]).numpy()

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what there is to write, laid out on the grid if there is one.

        Returns:
            `mean`, and `coords` in the units of the frame. With samples, or of a model that states
            them, also `samples`, `std`, `quantiles` and their `levels`: those of 0.05, 0.25, 0.5,
            0.75 and 0.95 that the number of samples allows. `made` is how it was made, as JSON.
            `channels` and `channel_units` are what the observations say of their values. A frame
            adds `names` and `units` of its axes, and what was observed: `stations` (M, P) and
            `readings` (M, C).
        """
        count = 0 if self.samples is None else len(self.samples)
        stated = self.marginal is not None
        levels = [level for level in LEVELS if stated or 1 <= level * (count + 1) <= count]
        parts = {
            "mean": self.mean,
            "std": self.std,
            "samples": self.samples,
            "coords": torch.from_numpy(self.physical),
            "quantiles": self.quantiles(levels) if levels else None,
        }
        found = {name: self._laid_out(part) for name, part in parts.items() if part is not None}
        if levels:
            found["levels"] = np.array(levels)
        return found | self._labels()

    def _labels(self) -> dict[str, np.ndarray]:
        """Return what the numbers are, and how they were made."""
        made = {name: value for name, value in self.made._asdict().items() if value}
        found: dict[str, Any] = {"made": dump_json(made)}
        if self.obs.quantities:
            found["channels"], found["channel_units"] = zip(*self.obs.quantities, strict=True)
        if self.frame is not None:
            seen = self.obs.valid
            found |= {"names": self.frame.names, "units": self.frame.units}
            found |= {"stations": self.obs.physical()[seen], "readings": self.obs.values[seen]}
        return {name: np.asarray(each) for name, each in found.items()}

    def save(self, path: str | Path) -> None:
        """Write the field in the format of the suffix.

        `.npz`, `.nc` and `.zarr` keep all of it, `.csv` and `.parquet` a row for each point, and
        `.png` its mean, as an image or, in units, as a map.

        Raises:
            InputError: The suffix is another one, a package is missing, free points are to be an
                image, or the file cannot be written.
        """
        path = Path(path)
        need_handler(path, "field").load()(path, self.arrays())

    def plot(self) -> "Figure":
        """Return a figure of the observations, the mean, one sample and the standard deviation.

        Raises:
            InputError: The points form no grid, or matplotlib is not installed.
        """
        from sparsefield.figures.field import plot_field

        sample = None if self.samples is None else self.samples[0]
        return plot_field(self.obs, self.shape, self.mean, sample=sample, std=self.std)

    def to_xarray(self) -> Any:
        """Return an xarray Dataset with mean, std, samples and quantiles, and how it was made.

        With a frame the axes have its names, units and physical coordinates, and one channel
        needs no axis of its own.

        Raises:
            InputError: xarray is not installed.
        """
        return to_dataset(self.arrays())

    def _laid_out(self, values: Tensor) -> np.ndarray:
        return values.numpy() if self.shape is None else self.on_grid(values)
