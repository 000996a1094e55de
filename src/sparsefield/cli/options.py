"""Options that several commands share, with one name and one help text each."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

RunName = Annotated[
    Positional[str], arg(metavar="RUN", help="Folder of the run, or its name below runs/.")
]
ModelName = Annotated[
    str, arg(metavar="NAME|PATH", help="A bundled model, a run folder or a checkpoint.")
]
Size = Annotated[tuple[int, ...] | None, arg(metavar="H W")]
Density = Annotated[float, arg(metavar="D", help="Observed fraction of the points, in (0, 1].")]
Seed = Annotated[int, arg(metavar="N", help="Seed of masks and noise, at least 0.")]
Samples = Annotated[
    int, arg(metavar="S", help="Draws from the posterior; their spread is the uncertainty.")
]
# That of sparsefield.samplers, which takes long to import.
DEFAULT_SAMPLER = "deis:grid=late"
_SAMPLER = "NAME[:KEY=VALUE,...]"
_SAMPLERS = "euler, heun, ab2, deis, sde, ddim or dopri5, with settings as in sde:temperature=2"
SamplerName = Annotated[
    str, arg(metavar=_SAMPLER, help=f"Sampler that makes the draws: {_SAMPLERS}.")
]
SamplerNames = Annotated[
    tuple[str, ...],
    arg(
        metavar=_SAMPLER,
        help=f"Sampler that makes the draws: {_SAMPLERS}, ddim:eta=1 or heun:grid=late. Several "
        "are compared, without baselines, at the evaluations that the first takes.",
    ),
]
Steps = Annotated[int, arg(metavar="N", help="Steps of the sampler.")]
Split = Annotated[
    str, arg(metavar="NAME", help="train, validation or test: part of the data, and its masks.")
]
Limit = Annotated[int | None, arg(metavar="N", help="Use the first N fields only.")]
Device = Annotated[str, arg(metavar="NAME", help="cpu, cuda, or auto: cuda where there is one.")]
JsonFile = Annotated[Path | None, arg(metavar="FILE", help="Write the result as JSON.")]
Chunk = Annotated[
    int | None,
    arg(metavar="N", help="Points of the mean computed at a time; by default memory is bounded."),
]
