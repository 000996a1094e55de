"""Public functions take and return the shapes that their docstrings name.

jaxtyping binds each name of an axis to the size that a call shows first, beartype compares all
others with it. Every axis has a size of its own, so that no two can be mistaken.
"""

import inspect
from types import FunctionType

import numpy as np
import pytest
import torch
from beartype import beartype
from jaxtyping import Bool, Float, Float64, Int64, TypeCheckError, jaxtyped
from torch import Tensor

from sparsefield import metrics
from sparsefield.baselines.registry import available_baselines, reconstruct_baseline
from sparsefield.data.normalize import Normalizer
from sparsefield.data.observation import Observation
from sparsefield.data.query import Grid, Points
from sparsefield.flow.flow import Flow
from sparsefield.inference.checkpoint import ModelSpec
from sparsefield.inference.model import Model
from sparsefield.metrics import spectrum
from sparsefield.models import build_model
from sparsefield.nn.local_attention import local_attention
from sparsefield.nn.neighbours import nearest
from sparsefield.nn.scan import selective_scan
from sparsefield.samplers import SAMPLERS, build_sampler
from sparsefield.testing.samplers import gaussian_sample

SIZES = [
    {"B": 2, "L": 5, "M": 7, "P": 1, "C": 3, "S": 4, "D": 6, "N": 8, "H": 9, "E": 10, "n": 16},
    {"B": 3, "L": 13, "M": 11, "P": 2, "C": 1, "S": 5, "D": 8, "N": 4, "H": 7, "E": 6, "n": 24},
]
both_sizes = pytest.mark.parametrize("sizes", SIZES, ids=["small", "large"])


def shaped(function, result, **arguments):
    """Return a copy of a function whose annotations have shapes, which every call is held to."""
    copy = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__annotations__ = {**function.__annotations__, **arguments, "return": result}
    return jaxtyped(typechecker=beartype)(copy)


def random(axes, sizes):
    """Return normal numbers with the named axes."""
    return torch.randn([sizes[axis] for axis in axes.split()])


def test_a_wrong_shape_is_noticed():
    """What this file relies on."""

    def turned(x: Tensor) -> Tensor:
        return x.mT

    x = torch.randn(3, 4)
    shaped(turned, Float[Tensor, "b a"], x=Float[Tensor, "a b"])(x)
    with pytest.raises(TypeCheckError):
        shaped(turned, Float[Tensor, "a b"], x=Float[Tensor, "a b"])(x)


# Shapes of the arguments of metrics, by their names: the same in all of them.
FIELDS = {name: "B L C" for name in ("prediction", "truth", "values", "mean", "std")}
AXES = {**FIELDS, "samples": "S B L C", "where": "B L"}
IMAGES = {"ssim", "residual_energy"}
NUMBERS = {"level": 0.5, "count": 2}
RESULTS = {
    "covers": Bool[Tensor, "B L C"],
    "covers_gaussian": Bool[Tensor, "B L C"],
    "rank_histogram": Float64[Tensor, "B S+1"],
}
# Those that take no fields.
OF_ITEMS = {"bootstrap_interval", "reachable_level"}


def argument(name, metric, sizes):
    """Return an argument of a metric, and its type."""
    if name == "where":
        return torch.ones(sizes["B"], sizes["L"], dtype=torch.bool), Bool[Tensor, "B L"] | None
    if metric in IMAGES:
        return random("B n n C", sizes), Float[Tensor, "B n n C"]
    return random(AXES[name], sizes).abs(), Float[Tensor, AXES[name]] | None


@both_sizes
@pytest.mark.parametrize("name", [name for name in metrics.__all__ if name not in OF_ITEMS])
def test_a_metric_returns_one_value_per_item(name, sizes):
    metric = getattr(metrics, name)
    given = [each for each in inspect.signature(metric).parameters if each in AXES]
    values = {each: argument(each, name, sizes) for each in given}
    numbers = {n: v for n, v in NUMBERS.items() if n in inspect.signature(metric).parameters}
    types = {each: kind for each, (_, kind) in values.items()}
    checked = shaped(metric, RESULTS.get(name, Float[Tensor, "B"]), **types)
    checked(**{each: value for each, (value, _) in values.items()}, **numbers)


@both_sizes
def test_spectra(sizes):
    power = shaped(
        spectrum.power_spectrum, Float64[Tensor, "B n n"], images=Float[Tensor, "B n n C"]
    )(random("B n n C", sizes))
    of_power = {"power": Float64[Tensor, "B n n"]}
    shaped(spectrum.radial_spectrum, Float64[Tensor, "B n//2"], **of_power)(power)
    shaped(spectrum.lattice_energy, Float64[Tensor, "B 2"], **of_power)(power, sizes["n"] // 2)


SCAN = {
    "u": "B L D",
    "delta": "B L D",
    "A": "D N",
    "B": "B L N",
    "C": "B L N",
    "D": "D",
    "z": "B L D",
    "delta_bias": "D",
    "h0": "B D N",
}


@both_sizes
@pytest.mark.parametrize("backend", ["naive", "chunked", "cpu"])
def test_the_scan_and_its_gradients(backend, sizes):
    types = {name: Float[Tensor, axes] for name, axes in SCAN.items()}
    inputs = {name: random(axes, sizes) for name, axes in SCAN.items()}
    inputs["A"] = -inputs["A"].abs()
    for each in inputs.values():
        each.requires_grad_()
    result = tuple[Float[Tensor, "B L D"], Float[Tensor, "B D N"]]
    y, state = shaped(selective_scan, result, **types)(
        **inputs, return_state=True, backend=backend
    )
    (y.sum() + state.sum()).backward()
    assert all(each.grad.shape == each.shape for each in inputs.values())


@both_sizes
def test_attention_to_neighbours(sizes):
    types = {"coords": "B L P", "context_coords": "B M P"}
    find = shaped(
        nearest,
        tuple[Int64[Tensor, "B L K"], Bool[Tensor, "B L K"]],
        **{name: Float[Tensor, axes] for name, axes in types.items()},
        valid=Bool[Tensor, "B M"],
    )
    valid = torch.ones(sizes["B"], sizes["M"], dtype=torch.bool)
    index, _ = find(random("B L P", sizes), random("B M P", sizes), valid, k=4)
    types = {"q": "B L H E", "k": "B M H E", "v": "B M H E", "bias": "B L K H"}
    attend = shaped(
        local_attention,
        Float[Tensor, "B L H E"],
        **{name: Float[Tensor, axes] for name, axes in types.items()},
        index=Int64[Tensor, "B L K"],
    )
    attend(**{name: random(axes, sizes | {"K": 4}) for name, axes in types.items()}, index=index)


def observed(sizes):
    """Return observations of one field, with noise."""
    coords = 2 * torch.rand(sizes["M"], sizes["P"]) - 1
    return Observation(coords, random("M C", sizes), noise=0.1 + torch.rand(sizes["M"]))


@both_sizes
def test_observations(sizes):
    obs = observed(sizes)
    batch = Observation.stack([obs] * sizes["B"])
    with jaxtyped("context"):
        assert isinstance(obs.coords, Float[Tensor, "M P"])
        assert isinstance(obs.values, Float[Tensor, "M C"])
        assert isinstance(obs.valid, Bool[Tensor, "M"])
        assert isinstance(obs.noise, Float[Tensor, "M C"])
        assert isinstance(batch.coords, Float[Tensor, "B M P"])
        assert isinstance(batch.values, Float[Tensor, "B M C"])
        assert isinstance(batch.valid, Bool[Tensor, "B M"])
        assert isinstance(batch.noise, Float[Tensor, "B M C"])
        assert isinstance(batch.item(0).coords, Float[Tensor, "M P"])
        assert isinstance(obs.batched().noise, Float[Tensor, "1 M C"])
        assert isinstance(batch.repeat(2).values, Float[Tensor, "2*B M C"])
        assert isinstance(obs.pad(obs.count + 6).coords, Float[Tensor, "M+6 P"])
        assert isinstance(obs.merged().noise, Float[Tensor, "M C"])


def queries(sizes):
    """Return a grid of cells that differ in number along each axis, and free points."""
    grid = Grid(*range(3, 3 + sizes["P"]))
    return grid, Points(2 * torch.rand(sizes["L"], sizes["P"]) - 1)


@both_sizes
def test_a_posteriors_fields(sizes):
    settings = {"width": 24, "layers": 1, "heads": 4, "neighbours": 4, "features": 5}
    backbone = build_model("local", channels=sizes["C"], dims=sizes["P"], **settings)
    normalizer = Normalizer((0.5,) * sizes["C"], (2.0,) * sizes["C"])
    spec = ModelSpec("local", settings, "data", 1.0, normalizer, (6,) * sizes["P"])
    posterior = Model("local", Flow(backbone, "data"), spec).condition(observed(sizes))
    for at in queries(sizes):
        field = posterior.sample(at, n=sizes["S"], sampler=build_sampler("heun", 1))
        with jaxtyped("context"):
            assert isinstance(at.coords, Float[Tensor, "L P"])
            assert isinstance(field.coords, Float[Tensor, "L P"])
            assert isinstance(posterior.mean(at).mean, Float[Tensor, "L C"])
            assert isinstance(field.mean, Float[Tensor, "L C"])
            assert isinstance(field.std, Float[Tensor, "L C"])
            assert isinstance(field.estimate, Float[Tensor, "L C"])
            assert isinstance(field.samples, Float[Tensor, "S L C"])
            assert isinstance(field.quantiles((0.25, 0.75)), Float[Tensor, "2 L C"])
        assert len(at) == len(field.mean)
        assert field.samples.shape == (sizes["S"], len(at), sizes["C"])


@both_sizes
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_keeps_the_shape_of_its_noise(name, sizes):
    noise = random("B L C", sizes)
    sampler = build_sampler(name, 2) if not SAMPLERS[name].adaptive else build_sampler(name)
    result, _ = gaussian_sample(sampler, lambda step: noise.double())
    with jaxtyped("context"):
        assert isinstance(noise, Float[Tensor, "B L C"])
        assert isinstance(result.values, Float64[Tensor, "B L C"])


@both_sizes
def test_baselines(sizes):
    rng, arrays = np.random.default_rng(0), np.ndarray
    coords, query = (rng.uniform(-1, 1, (sizes[n], sizes["P"])) for n in ("M", "L"))
    values = rng.normal(size=(sizes["M"], sizes["C"]))
    for name in available_baselines(sizes["P"], on_grid=False):
        found = reconstruct_baseline(name, coords, values, query)
        with jaxtyped("context"):
            assert isinstance(coords, Float[arrays, "M P"])
            assert isinstance(values, Float[arrays, "M C"])
            assert isinstance(query, Float[arrays, "L P"])
            assert isinstance(found.mean, Float[arrays, "L C"])
            assert found.std is None or isinstance(found.std, Float[arrays, "L C"])
