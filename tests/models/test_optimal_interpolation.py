"""Optimal interpolation against the Gaussian posterior, and what fitting learns."""

import numpy as np
import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.data.dataset import FieldDataset
from sparsefield.data.grids import cell_centres
from sparsefield.data.observation import Observation
from sparsefield.data.query import Grid, Points
from sparsefield.evaluation.serialise import flatten
from sparsefield.evaluation.series import choose_series_baselines, evaluate_series
from sparsefield.evaluation.task import Protocol
from sparsefield.flow.backbone import Query
from sparsefield.inference.model import load
from sparsefield.models import build_model
from sparsefield.models.optimal_interpolation import LEAST_RESIDUAL
from sparsefield.testing import check_backbone
from sparsefield.training.config import load_config
from sparsefield.training.fitting import gaspari_cohn
from sparsefield.training.loop import train
from sparsefield.training.run import Run

SHAPE, RANK, M = (4, 5), 6, 7


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    model = build_model(
        "optimal_interpolation", channels=1, dims=2, cells="4x5", rank=RANK, freedom=1e6
    )
    with torch.no_grad():
        model.mean.normal_()
        model.residual.uniform_(0.2, 0.4)
    return model.requires_grad_(False)


def prior(model):
    """Return mean (L,) and covariance (L, L) on the grid."""
    features = model.features[:, 0].double()
    own = model.residual[:, 0].double().square().clamp_min(LEAST_RESIDUAL**2)
    return model.mean[:, 0].double(), features @ features.T + torch.diag(own)


def conditioned(mean, covariance, seen, values, noise):
    """Return mean and covariance of a Gaussian vector given some entries with noise."""
    inner = covariance[seen][:, seen] + torch.diag(noise)
    gain = torch.linalg.solve(inner, covariance[seen]).T
    return mean + gain @ (values - mean[seen]), covariance - gain @ covariance[seen]


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_it_keeps_the_contract_of_backbones(dims):
    check_backbone(build_model("optimal_interpolation", channels=2, dims=dims), 2, dims)


def test_mean_and_denoiser_are_those_of_the_gaussian_posterior(backbone):
    """The denoiser conditions on noisy values too, with the variance of their noise."""
    coords = cell_centres(SHAPE)
    seen, rest = torch.arange(0, 20, 3), torch.tensor([i for i in range(20) if i % 3])
    obs = Observation(coords[seen][None], torch.randn(1, len(seen), 1))
    mean, covariance = prior(backbone)
    # What points do not share is not known at them either: a new value has its own.
    shared = backbone.features[:, 0].double() @ backbone.features[:, 0].double().T
    own = covariance.diagonal() - shared.diagonal()
    m, c = conditioned(mean, shared, seen, obs.values[0, :, 0].double(), own[seen])
    query = Query(coords[rest][None], obs)
    x_t, t = torch.randn(1, len(rest), 1), 0.4
    told = backbone(x_t, torch.zeros(1), query)[0, :, 0]
    torch.testing.assert_close(told.double(), m[rest], atol=1e-3, rtol=1e-3)
    full = c[rest][:, rest] + torch.diag(own[rest])
    noise = torch.full((len(rest),), ((1 - t) / t) ** 2).double()
    every = torch.arange(len(rest))
    expected, _ = conditioned(m[rest], full, every, x_t[0, :, 0].double() / t, noise)
    told = backbone(x_t, torch.tensor([t]), query)[0, :, 0]
    torch.testing.assert_close(told.double(), expected, atol=2e-3, rtol=2e-3)


def test_between_centres_the_field_is_linear(backbone):
    a, b = cell_centres(SHAPE)[[6, 7]]
    obs = Observation(cell_centres(SHAPE)[[0, 12]][None], torch.ones(1, 2, 1))
    points = torch.stack([a, b, (3 * a + b) / 4])[None]
    first, second, between = backbone(torch.zeros(1, 3, 1), torch.zeros(1), Query(points, obs))[0]
    torch.testing.assert_close(between, 0.75 * first + 0.25 * second, atol=1e-5, rtol=1e-5)


def test_the_taper_falls_from_one_to_zero():
    r = np.linspace(0, 3, 301)
    taper = gaspari_cohn(r)
    assert taper[0] == 1 and (taper[r >= 2] == pytest.approx(0, abs=1e-12))
    assert (np.diff(taper) <= 1e-12).all()
    assert taper[100] == pytest.approx(5 / 24), "its value at half of its support"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on 10 days of 24 smooth fields with one cell of land, and the file."""
    xarray = pytest.importorskip("xarray")
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("oi")
    hours = np.datetime64("2019-03-01T00") + np.arange(240).astype("timedelta64[h]")
    y, x = np.meshgrid(np.linspace(0, 1, 6), np.linspace(0, 1, 8), indexing="ij")
    modes = np.stack([np.sin(3 * x), np.cos(4 * y), x * y])
    daily = np.sin(2 * np.pi * np.arange(240) / 24)[:, None, None] * x
    values = 280 + daily + np.einsum("nk,kyx->nyx", rng.normal(size=(240, 3)), modes)
    values += 0.05 * rng.normal(size=values.shape)
    values[:, 2, 3] = np.nan
    coords = {"time": hours, "lat": 50.0 + np.arange(6), "lon": np.arange(8.0)}
    data = xarray.Dataset({"t2m": (("time", "lat", "lon"), values, {"units": "K"})}, coords)
    data.to_netcdf(folder / "a.nc")
    overrides = [f"data.paths={folder / 'a.nc'}", "model.rank=12", "data.density=[0.1, 0.3]"]
    train(load_config("optimal_interpolation", overrides), Run(folder / "run"))
    return folder


def test_a_fitted_model_beats_kriging_of_anomalies_and_covers(run):
    from sparsefield.data.dataset import open_dataset

    model, fields = load(run / "run"), open_dataset(run / "a.nc").subset(range(0, 240, 15))
    names = choose_series_baselines("nearest,anomaly_kriging", model)
    found = evaluate_series(model, fields, Protocol(density=0.2), samples=19, names=names)
    for stations in (found.moving, found.fixed):
        less = stations.differences["anomaly_kriging"]
        assert less["rmse"].high < 0 and less["crps"].value < 0
        assert stations.predictive["coverage90"].value > 0.85
    assert found.unit == "K" and found.days == 10
    assert model.flow.backbone.climatology.shape == (24, 48, 1)


def test_the_climate_is_the_mean_and_the_deviation_of_the_fields(run):
    """Of ten days, some of the daily course counts as deviation from a climatology."""
    xarray, model = pytest.importorskip("xarray"), load(run / "run")
    with xarray.open_dataset(run / "a.nc") as data:
        values = data.t2m.values.reshape(-1, 24, 48)
    climate, normalizer = model.flow.backbone.climate(), model.spec.normalizer
    mean, known = normalizer.invert(climate.mean)[..., 0].numpy(), np.isfinite(values[0, 0])
    assert np.abs(mean - values.mean(0))[:, known].mean() < 0.3
    std = climate.std[:, 0].numpy() * float(normalizer.scale[0])
    low, high = (values - mean).std((0, 1)), values.std((0, 1))
    assert (0.9 * low <= std)[known].all() and (std <= 1.1 * high)[known].all()
    assert load("default").flow.backbone.climate() is None


def test_hours_of_one_day_tell_nothing_of_other_days(run):
    from sparsefield.data.dataset import open_dataset

    model, fields = load(run / "run"), open_dataset(run / "a.nc").subset(range(25, 30))
    found = evaluate_series(model, fields, Protocol(density=0.2), samples=2, names=["nearest"])
    assert found.days == 1
    for stations in map(flatten, (found.moving, found.fixed)):
        rows = (stations["mean"], stations["baselines"]["nearest"], stations["predictive"])
        for row in (*rows, stations["differences"]["nearest"]):
            numbers = {name for name in row if f"{name}_ci" in row}
            assert numbers and all(row[name] is not None for name in numbers)
            assert all(row[f"{name}_ci"] == [None, None] for name in numbers)


def test_anomalies_of_even_spread_krig_the_same_in_standard_deviations(run):
    from sparsefield.data.dataset import open_dataset

    model, fields = load(run / "run"), open_dataset(run / "a.nc").subset(range(0, 240, 80))
    assert "standardised_anomaly_kriging" in choose_series_baselines("all", model)
    model.flow.backbone.features[:] = 0
    model.flow.backbone.residual[:] = 0.5
    names = ("anomaly_kriging", "standardised_anomaly_kriging")
    found = evaluate_series(model, fields, Protocol(density=0.3), samples=2, names=names)
    plain, unit = (found.fixed.baselines[name].estimates for name in names)
    for score in ("rmse", "crps", "coverage90"):
        assert unit[score].value == pytest.approx(plain[score].value, rel=1e-3)


def test_samples_vary_as_much_as_the_closed_form_says(run):
    model = load(run / "run")
    obs = Observation([[0.0, 0.1], [-0.7, 0.6], [0.5, -0.6]], [[281.0], [280.0], [279.5]])
    field = model.condition(obs).sample(Grid(6, 8), 300)
    backbone = model.flow.backbone
    given = Observation(obs.coords, model.spec.normalizer.apply(obs.values)).batched()
    here = backbone.prepare(Query(Grid(6, 8).coords[None], given))
    seen, features = here.latent.seen[0], here.features[0]
    inner = torch.eye(features.shape[1]).double() - seen.T @ seen
    variance = (features @ inner * features).sum(-1) + here.residual[0]
    std = (here.latent.scale[0] * variance).sqrt() * model.spec.normalizer.scale[0]
    torch.testing.assert_close(field.std[:, 0].double(), std, rtol=0.25, atol=0.02)


def test_what_cannot_be_fitted_is_refused(tmp_path):
    (tmp_path / "days.csv").write_text("day,lat,lon,t\n" + "1,0,1,2\n1,1,0,3\n2,0,0,1\n2,1,1,4\n")
    config = load_config("optimal_interpolation", [f"data.paths={tmp_path / 'days.csv'}"])
    with pytest.raises(InputError, match="learns from fields on a grid"):
        train(config, Run(tmp_path / "run"))
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((6, 80, 90, 1), np.float32))
    config = load_config("optimal_interpolation", [f"data.paths={tmp_path / 'a.npy'}"])
    with pytest.raises(InputError, match=r"7,200 values.*data\.size"):
        train(config, Run(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_bundled_model_of_era5_predicts_anywhere():
    model = load("era5-t2m-uk")
    obs = Observation([[0.0, 0.0], [0.5, 0.5]], [[280.0], [284.0]])
    field = model.condition(obs).sample(Points([[0.0, 0.0], [0.51, 0.5], [-0.9, 0.2]]), 20)
    assert field.mean[0, 0] == 280 and abs(float(field.mean[1, 0]) - 284) < 0.5
    assert 0 == field.std[0, 0] < field.std[1, 0] < field.std[2, 0]


def test_gaps_in_time_are_filled_by_the_mean_of_their_cell():
    from sparsefield.data.series import Series
    from sparsefield.training.fitting import _filled

    values = np.arange(24, dtype=np.float32).reshape(4, 2, 3, 1)
    values[0, 0, 0], values[:, 1, 2] = np.nan, np.nan
    axes = (np.arange(2.0), np.arange(3.0))
    fields = FieldDataset(values, series=Series(axes, ("y", "x"), ("", "")))
    filled = _filled(fields, fields.normalizer)
    assert filled[0, 0, 0] == pytest.approx(filled[1:, 0, 0].mean())
    assert np.isfinite(filled).all()
    assert (filled[:, 5, 0] == filled[:, 4, 0]).all() or (filled[:, 5] == filled[:, 2]).all()


def test_degrees_are_those_of_the_grid_that_was_learnt(run):
    model = load(run / "run")
    assert (model.frame.low, model.frame.high) == ((49.5, -0.5), (55.5, 7.5))
    lon_lat, values = np.array([[0.0, 50.0], [7.0, 52.5], [3.0, 55.0]]), [[281.0], [280], [279.5]]
    unit = Observation([[-5 / 6, -7 / 8], [0.0, 7 / 8], [5 / 6, -1 / 8]], values)
    obs = Observation.at(lon_lat, values, names=("lon", "lat"))
    told, expected = (model.condition(each).mean(Grid(6, 8)) for each in (obs, unit))
    torch.testing.assert_close(told.mean, expected.mean, atol=1e-4, rtol=0)
    assert told.frame.names == ("lat", "lon") and told.physical[1].tolist() == [50.0, 1.0]


@pytest.mark.parametrize(
    ("places", "names", "unit", "words"),
    [
        ([[50, 1], [61, 2]], ("lat", "lon"), "K", "outside the domain.* lat from 49.5 to 55.5"),
        ([[50, 1], [51, 2]], ("lat", "lon"), "°C", "takes values in K; t2m is in °C: convert"),
        ([[5, 1], [6, 2]], ("x", "y"), "K", "has the axes lat, lon, and the observations x, y"),
    ],
)
def test_what_lies_elsewhere_or_is_in_another_unit_is_one_line(run, places, names, unit, words):
    obs = Observation.at(places, [[280.0], [281.0]], names=names).labelled(("t2m", unit))
    with pytest.raises(InputError, match=words) as error:
        load(run / "run").condition(obs)
    assert "\n" not in str(error.value) and "model '" in str(error.value)
