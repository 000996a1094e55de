"""Options that several commands share, with one name and one help text each."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from sparsefield.data.dataset import FieldDataset
    from sparsefield.evaluation.predictors import SamplingConfig
    from sparsefield.evaluation.task import Protocol

RunName = Annotated[
    Positional[str], arg(metavar="RUN", help="Folder of the run, or its name below runs/.")
]
ModelName = Annotated[
    str, arg(metavar="NAME|PATH", help="A bundled model, a run folder or a checkpoint.")
]
Size = Annotated[
    tuple[int, ...] | None,
    arg(metavar="H W", help="Grid to which fields are area-averaged; their own by default."),
]
Density = Annotated[float, arg(metavar="D", help="Observed fraction of the points, in (0, 1].")]
Seed = Annotated[int, arg(metavar="N", help="Seed of masks and noise, at least 0.")]
Samples = Annotated[
    int,
    arg(metavar="S", help="Posterior samples; their standard deviation is the uncertainty."),
]
# That of sparsefield.samplers, which takes long to import.
DEFAULT_SAMPLER = "deis:grid=late"
_SAMPLER = "NAME[:KEY=VALUE,...]"
_SAMPLERS = "euler, heun, ab2, deis, sde, ddim or dopri5, with settings as in sde:temperature=2"
SamplerName = Annotated[
    str, arg(metavar=_SAMPLER, help=f"Sampler that makes the samples: {_SAMPLERS}.")
]
SamplerNames = Annotated[
    tuple[str, ...],
    arg(
        metavar=_SAMPLER,
        help=f"Sampler that makes the samples: {_SAMPLERS}, ddim:eta=1 or heun:grid=late. Several "
        "are compared, without baselines, at the evaluations that the first takes.",
    ),
]
Steps = Annotated[int, arg(metavar="N", help="Steps of the sampler, at least 1.")]
Split = Annotated[
    str,
    arg(metavar="NAME", help="Part of the data, and its masks: train, validation, test or all."),
]
Channels = Annotated[
    Literal["auto", "last", "none"],
    arg(
        metavar="auto|last|none",
        help="Whether the last axis of an array holds channels; by default one of up to 4 entries "
        "does, and a longer one is refused.",
    ),
]
Period = Annotated[
    tuple[str, ...],
    arg(
        metavar="FIRST LAST",
        help="First and last time of fields in NetCDF, as 2019-03-18 2019-03-21; all by default.",
    ),
]
Values = Annotated[
    tuple[str, ...],
    arg(
        metavar="NAME",
        help="Variables of NetCDF that are channels, on the same axes; default: all.",
    ),
]
Limit = Annotated[int | None, arg(metavar="N", help="Use only the first N fields.")]
Baselines = Annotated[
    str,
    arg(
        metavar="all|none|NAMES",
        help="Baselines: all, none, or names with commas between, such as tps,kriging.",
    ),
]
Device = Annotated[str, arg(metavar="NAME", help="cpu, cuda, or auto: cuda where there is one.")]
JsonFile = Annotated[Path | None, arg(metavar="FILE", help="Write the result as JSON.")]
Chunk = Annotated[
    int | None,
    arg(metavar="N", help="Points of the mean computed at a time; by default memory is bounded."),
]


@dataclass(frozen=True)
class Masks:
    """What is scored, and what is observed of it.

    Attributes:
        data: Data set, see 'sparsefield evaluate --help'.
    """

    data: Annotated[str, arg(metavar="D")]
    split: Split = "validation"
    limit: Limit = None
    density: Density = 0.2
    seed: Seed = 0
    channels: Channels = "auto"

    def protocol(self) -> "Protocol":
        """Return the protocol of masks and noise."""
        from sparsefield.evaluation.task import Protocol

        return Protocol(self.density, self.seed, self.split)


@dataclass(frozen=True)
class Scoring(Masks):
    """`Masks` on the grid of the data, or on a coarser one."""

    size: Size = None
    period: Period = ()
    values: Values = ()

    def open(self) -> "FieldDataset":
        """Open the data set."""
        from sparsefield.data.dataset import Selection, open_selection

        select = Selection(
            self.split,
            self.limit,
            self.size,
            self.channels,
            values=self.values,
            period=self.period,
        )
        return open_selection(self.data, select)


@dataclass(frozen=True)
class Sampling:
    """How posterior samples are made."""

    samples: Samples = 0
    sampler: SamplerName = DEFAULT_SAMPLER
    steps: Steps = 10

    def config(self, limit: int | None = None) -> "SamplingConfig":
        """Return the checked configuration of the first `limit` items' samples."""
        from sparsefield.evaluation.predictors import SamplingConfig

        config = SamplingConfig(self.samples, self.sampler, self.steps, limit)
        config.check()
        return config


@dataclass(frozen=True)
class SeveralSamplers:
    """How posterior samples are made, by one sampler or by several that are compared."""

    samples: Samples = 0
    sampler: SamplerNames = (DEFAULT_SAMPLER,)
    steps: Steps = 10

    def first(self) -> Sampling:
        """Return the first sampler alone."""
        return Sampling(self.samples, self.sampler[0], self.steps)


NO_SAMPLES, NO_SAMPLES_OF_SEVERAL = Sampling(), SeveralSamplers()
# Their fields stand among the options of the command.
ScoringOptions = Annotated[Scoring, arg(name="")]
MaskOptions = Annotated[Masks, arg(name="")]
SamplingOptions = Annotated[Sampling, arg(name="")]
SeveralSamplersOptions = Annotated[SeveralSamplers, arg(name="")]


def renew_words(command: str, arguments: Sequence[str]) -> list[str]:
    """Return arguments with the words of one release before replaced, and warn of them."""
    if command not in ("evaluate", "compare", "superres"):
        return list(arguments)
    renewed = [_renew(argument) for argument in arguments]
    if command == "evaluate" and renewed[:1] == ["floors"]:
        renewed[0] = "baselines"
    for old, new in zip(arguments, renewed, strict=True):
        if old != new:
            print(f"sparsefield: warning: '{old}' is now called '{new}'", file=sys.stderr)
    return renewed


def _renew(argument: str) -> str:
    option, equals, value = argument.partition("=")
    return f"--baselines{equals}{value}" if option == "--floors" else argument
