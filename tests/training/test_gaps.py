"""Training on fields with land, on days, and on points that no field was ever known of."""

import numpy as np
import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.data.dataset import FieldDataset
from sparsefield.data.observation import Observation
from sparsefield.data.query import Points
from sparsefield.data.series import Series
from sparsefield.evaluation.task import Protocol, make_task
from sparsefield.flow.backbone import Query
from sparsefield.flow.objectives import flow_matching_loss
from sparsefield.inference.model import load
from sparsefield.training.batches import TrainingBatches
from sparsefield.training.config import config_from_dict
from sparsefield.training.data import follow_data, open_training_data
from sparsefield.training.loop import Trainer, train
from sparsefield.training.run import Run

N, SHAPE, POINTS = 12, (5, 6), 30
LAND = [0, 7, 8, 29]
TINY = {"name": "transformer", "width": 8, "layers": 1, "heads": 2, "features": 3}


def config(**data):
    model = {"model": TINY, "batch_size": 4, "epochs": 1, "precision": "float32", "device": "cpu"}
    return config_from_dict(model | {"optimizer": {"warmup": 2}, "data": data})


@pytest.fixture
def sea():
    """Fields in which every value names its field and cell; land is missing."""
    values = np.arange(N * POINTS, dtype=np.float32).reshape(N, POINTS)
    values[:, LAND] = np.nan
    return FieldDataset(values.reshape(N, *SHAPE, 1))


def cells(fields, values):
    return (fields.normalizer.invert(values.double())[..., 0].round().long()) % POINTS


@pytest.mark.parametrize("masks", ["fresh", "fixed"])
@pytest.mark.parametrize("target", ["all", "disjoint"])
def test_land_is_neither_observed_nor_a_target(sea, masks, target):
    draw = TrainingBatches(sea, config(masks=masks, target=target, density=[0.2, 0.4]))
    for step in range(9):
        batch = draw(step)
        assert batch.obs.valid.all()
        assert not set(cells(sea, batch.obs.values).unique().tolist()) & set(LAND)
        scored = cells(sea, batch.x_1)[batch.known]
        assert not set(scored.tolist()) & set(LAND)
        assert (batch.known.sum(1) >= batch.obs.count * (target == "disjoint")).all()
        if target == "all":
            assert (batch.known.sum(1) == POINTS - len(LAND)).all()


def test_the_density_is_a_share_of_the_cells_that_have_a_value(sea):
    batch = TrainingBatches(sea, config(density=[0.5, 0.5]))(0)
    assert batch.obs.count == (POINTS - len(LAND)) // 2


def test_land_does_not_change_the_loss(sea, tmp_path):
    """The gradient of a step is the same whatever would be written on land."""
    batch = TrainingBatches(sea, config())(0)
    torch.manual_seed(0)
    flow = config().spec(sea.normalizer, SHAPE).build()
    losses = []
    for filler in (0.0, 1e3):
        x_1 = torch.where(batch.known[..., None], batch.x_1, filler)
        query = Query(batch.coords, batch.obs, batch.cell)
        t = torch.zeros(4)
        losses.append(flow_matching_loss(flow, batch.x_0, x_1, t, query, batch.known))
    torch.testing.assert_close(*losses)
    assert (losses[0] > 0).all()


def test_scores_ignore_land(sea):
    task = make_task(sea, Protocol(density=0.3), range(3))
    assert not task.missing[:, LAND].any()
    assert (task.missing.sum(1) + task.obs.valid.sum(1) == POINTS - len(LAND)).all()
    assert task.truth.isfinite().all()


def test_gaps_that_differ_from_day_to_day_leave_each_its_share(sea):
    values = sea.values.copy()
    values[3, :4] = np.nan
    axes = tuple(np.arange(n, dtype=float) for n in SHAPE)
    ragged = FieldDataset(values, series=Series(axes, ("y", "x"), ("", "")))
    task = make_task(ragged, Protocol(density=0.5), [3, 4])
    few = int(ragged.known[3].sum())
    assert task.obs.valid.sum(1).tolist() == [few // 2, 13]
    batch = next(
        b
        for b in map(TrainingBatches(ragged, config(density=[0.5, 0.5])), range(9))
        if not b.obs.valid.all()
    )
    assert batch.obs.valid.sum(1).min() == few // 2
    assert batch.known.sum(1).min() == few


def test_the_last_whole_days_are_held_out(tmp_path):
    xarray = pytest.importorskip("xarray")
    hours = np.datetime64("2019-03-01T00") + np.arange(24 * 10, step=3).astype("timedelta64[h]")
    values = np.random.default_rng(0).random((len(hours), *SHAPE), np.float32)
    data = xarray.Dataset({"t": (("time", "y", "x"), values)}, {"time": hours})
    data.to_netcdf(tmp_path / "a.nc")
    found = open_training_data(config(paths=[str(tmp_path / "a.nc")]))
    assert set(found.training.series.times.astype("datetime64[D]").astype(str)) == {
        f"2019-03-{day:02}" for day in range(1, 9)
    }
    assert len(found.validation) == 16
    assert follow_data(config(), found).data.flip is False


def test_a_run_over_land_trains_and_validates(sea, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "_plot", lambda self, model, epoch: None)
    np.save(tmp_path / "a.npy", sea.values)
    train(config(paths=[str(tmp_path / "a.npy")]), Run(tmp_path / "run"))
    (line,) = Run(tmp_path / "run").read_metrics()
    assert np.isfinite([line["loss"], line["val_psnr"], line["val_psnr_missing"]]).all()


@pytest.fixture
def days(tmp_path):
    """A table of 30 days with 10 to 14 stations each, at places that change."""
    rng, rows = np.random.default_rng(0), ["day,lat,lon,t"]
    for day in range(30):
        for _ in range(rng.integers(10, 15)):
            lat, lon = rng.uniform(-1, 1, 2)
            rows.append(f"{day},{lat:.4f},{lon:.4f},{3 * lat + lon:.6f}")
    (tmp_path / "days.csv").write_text("\n".join(rows))
    return tmp_path / "days.csv"


def test_a_part_of_each_day_is_held_back_as_targets(days):
    """Values stay with their places: t = 3 lat + lon, whose extremes are those of the domain."""
    settings = config(paths=[str(days)], density=[0.5, 0.8], target="disjoint")
    data = open_training_data(settings)
    draw = TrainingBatches(data.training, settings)
    rows = np.loadtxt(days, delimiter=",", skiprows=1)[:, 1:]
    low, high = rows[:, :2].min(0), rows[:, :2].max(0)
    for step in range(5):
        batch = draw(step)
        seen = (batch.obs.coords, batch.obs.values, batch.obs.valid)
        for coords, values, counted in (seen, (batch.coords, batch.x_1, batch.known)):
            lat, lon = ((coords[counted].numpy() + 1) / 2 * (high - low) + low).T
            told = data.training.normalizer.invert(values[counted])[:, 0].numpy()
            np.testing.assert_allclose(told, 3 * lat + lon, atol=1e-3)
        apart = torch.cdist(batch.coords, batch.obs.coords).masked_fill(
            ~(batch.known[:, :, None] & batch.obs.valid[:, None]), torch.inf
        )
        assert apart.min() > 0, "what is asked for was observed"


def test_a_run_on_points_alone_gives_a_model_that_predicts(days, tmp_path):
    settings = config(paths=[str(days)], density=[0.5, 0.8], target="disjoint")
    train(settings, Run(tmp_path / "run"))
    (line,) = Run(tmp_path / "run").read_metrics()
    assert np.isfinite([line["loss"], line["val_psnr_missing"]]).all()
    model = load(tmp_path / "run" / "latest.safetensors")
    assert model.spec.shape == (8, 8), "about four cells for each of twelve points"
    obs = Observation([[0.0, 0.5], [0.1, -0.5]], [[1.0], [2.0]])
    assert model.condition(obs).mean(Points([[0.3, 0.2]])).mean.isfinite().all()


def test_settings_that_take_a_grid_are_refused_without_one(days, sea):
    data = open_training_data(config(paths=[str(days)]))
    with pytest.raises(InputError, match=r"data.window.*days\.csv has none"):
        TrainingBatches(data.training, config(window=2))
    with pytest.raises(InputError, match=r"some without a value; set data.scales=\[1\]"):
        TrainingBatches(sea, config(scales=[1, 2]))
