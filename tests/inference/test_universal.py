"""The bundled interpolator through the face that all models share."""

import numpy as np
import pytest
import torch

import sparsefield as sf
from sparsefield.core.errors import InputError
from sparsefield.inference.loading import load

COUNT = {1: 12, 2: 20, 3: 25}


@pytest.fixture(scope="module")
def model():
    return load("universal")


def observed(dims=2, channels=1, noise=None, seed=0):
    rng = np.random.default_rng(seed)
    coords = rng.uniform(-1, 1, (COUNT[dims], dims))
    values = np.sin(3 * coords).sum(1, keepdims=True) + 0.2 * rng.standard_normal((len(coords), 1))
    scales = 10.0 ** np.arange(channels)
    return sf.Observation(coords, 5 + values * scales, noise=noise)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_one_evaluation_gives_mean_deviation_and_quantiles(model, dims):
    grid = sf.Grid(*(5, 4, 3)[:dims])
    field = model.condition(observed(dims, channels=2)).mean(grid)
    cells = len(grid)
    assert field.mean.shape == field.std.shape == field.field_std.shape == (cells, 2)
    assert field.nfe == 1
    low, middle, high = field.quantiles((0.05, 0.5, 0.95))
    assert (low < middle).all()
    assert (middle < high).all()
    assert (field.field_std <= field.std).all()
    assert field.arrays()["quantiles"].shape == (5, *grid.shape, 2)


def test_channels_are_treated_one_by_one(model):
    both, at = observed(channels=2), sf.Grid(4, 3)
    together = model.condition(both).mean(at)
    alone = model.condition(sf.Observation(both.coords, both.values[:, 1:])).mean(at)
    torch.testing.assert_close(together.mean[:, 1:], alone.mean)
    torch.testing.assert_close(together.std[:, 1:], alone.std)


TRANSECT = np.linspace(-0.8, 0.7, 9)
LINE = np.column_stack([TRANSECT, 0.3 - 0.5 * TRANSECT])
SHEET = np.column_stack([np.repeat(LINE, 2, 0), np.tile([-0.4, 0.6], 9)])


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (LINE, "all 9 observations lie on one line"),
        (np.column_stack([LINE, 0.2 * TRANSECT]), "all 9 observations lie on one line"),
        (SHEET, "all 18 observations lie in one plane"),
        (np.zeros((4, 2)), "all 4 observations lie at one place"),
    ],
)
def test_a_map_beside_a_line_or_a_plane_is_refused_and_points_are_answered(model, places, words):
    """Nothing measured tells of what is beside them; of what is on them it does."""
    posterior = model.condition(sf.Observation(places, np.sin(places[:, :1])))
    grid = sf.Grid(*(6, 5, 4)[: places.shape[1]])
    for ask in (lambda: posterior.mean(grid), posterior.mean, lambda: posterior.sample(grid, 2)):
        with pytest.raises(InputError, match=words) as error:
            ask()
    assert "--at" in str(error.value) and "\n" not in str(error.value)
    field = posterior.mean(sf.Points(places + 1e-3))
    assert torch.isfinite(field.mean).all()


def test_a_transect_along_an_axis_is_asked_along_itself(model):
    """A grid of one row along it is no map, and neither is any grid in one dimension."""
    lat, lon = np.full(9, 52.0), np.linspace(-5, 1, 9)
    frame = sf.Frame(("lat", "lon"), (51.0, -6.0), (53.0, 2.0))
    obs = sf.Observation.at(np.column_stack([lat, lon]), np.sin(lon)[:, None], frame=frame)
    row = sf.Grid.like({"lat": [52.0], "lon": np.linspace(-4.5, 0.5, 6)})
    field = model.condition(obs).mean(row)
    np.testing.assert_allclose(field.mean[:, 0], np.sin(row.axes[1]), atol=0.1)
    with pytest.raises(InputError, match="on one line"):
        model.condition(obs).mean(sf.Grid.like({"lat": [52.0, 52.5], "lon": [0.0, 1.0]}))
    one = model.condition(sf.Observation(LINE[:, :1], np.sin(LINE[:, :1])))
    assert one.mean(sf.Grid(7)).mean.shape == (7, 1)


@pytest.mark.parametrize("noise", [None, 0.1])
def test_marginals_of_samples_are_those_stated(model, noise):
    count = 1500
    field = model.condition(observed(noise=noise)).sample(sf.Grid(3, 2), count, seed=1)
    error = (field.samples.mean(0) - field.mean) / field.std
    assert float(error.abs().max()) < 4 / count**0.5
    for level in (0.1, 0.5, 0.9):
        below = (field.samples < field.quantiles([level])).float().mean(0)
        assert float((below - level).abs().max()) < 2 / count**0.5


def test_samples_are_joint_and_functions_of_the_position(model):
    """Near points go together, far ones do not; asking for others changes nothing."""
    posterior = model.condition(observed(noise=0.01))
    where = [[0.9, 0.9], [0.9, 0.92], [-0.9, -0.9]]
    samples = posterior.sample(sf.Points(where), 400, seed=2).samples[..., 0]
    correlation = torch.corrcoef(samples.T)
    assert float(correlation[0, 1]) > 0.6
    assert abs(float(correlation[0, 2])) < 0.4
    alone = posterior.sample(sf.Points(where[1:2]), 2, seed=2).samples[..., 0]
    torch.testing.assert_close(alone[:, 0], samples[:2, 1], rtol=1e-5, atol=1e-5)


def test_exact_values_are_kept_where_the_error_is_stated_as_tiny(model):
    obs = observed(noise=1e-9)
    field = model.condition(obs).sample(sf.Points(obs.coords), 3)
    torch.testing.assert_close(field.mean, obs.values, atol=2e-2, rtol=0)
    torch.testing.assert_close(
        field.samples, obs.values.expand(3, -1, -1), atol=0.2, rtol=0, check_dtype=False
    )


def test_readings_of_one_place_may_differ(model):
    """They are evidence of an unknown error, not a contradiction."""
    obs = observed()
    twice = sf.Observation(obs.coords.repeat(2, 1), torch.cat([obs.values, obs.values + 0.3]))
    field = model.condition(twice).mean(sf.Points(obs.coords))
    assert (field.std > 0.1).all()


def test_reconstruct_takes_it_by_name():
    field = sf.reconstruct("universal", observed(), sf.Grid(4, 4), samples=2)
    assert field.samples.shape == (2, 16, 1)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda p: p.mean(sf.Grid(4)), "2 dimensions"),
        (lambda p: p.mean(sf.Grid(4, 4, native=True)), "native"),
        (lambda p: p.sample(sf.Grid(4, 4), 0), "at least 1"),
        (lambda p: p.sample(sf.Grid(4, 4), 1, sampler=sf.samplers.Heun(4)), "no flow"),
    ],
)
def test_what_it_cannot_do_is_refused(model, ask, message):
    posterior = model.condition(observed())
    with pytest.raises(InputError, match=message):
        ask(posterior)


def test_commands_for_flows_say_that_it_is_none():
    from sparsefield.inference.model import load as load_flow

    with pytest.raises(InputError, match="interpolator"):
        load_flow("universal")


def test_a_damaged_bundled_file_is_refused(tmp_path, monkeypatch):
    from sparsefield.inference import checkpoint, interpolator

    source = checkpoint.bundled_interpolators()["universal"]
    copy = tmp_path / source.name
    copy.write_bytes(source.read_bytes()[:-1] + b"x")
    (tmp_path / checkpoint.SUMS).write_text((source.parent / checkpoint.SUMS).read_text())
    monkeypatch.setattr(interpolator, "INTERPOLATORS", tmp_path)
    with pytest.raises(InputError, match="not the file that was bundled"):
        interpolator.load_interpolator(copy)
