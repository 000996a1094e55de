"""Super-resolution: what is observed and asked for, perfect oracles, fields that stay apart."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from sparsefield.core.errors import InputError
from sparsefield.data.dataset import FieldDataset
from sparsefield.data.masks import observed_indices
from sparsefield.data.synthetic import wave_images
from sparsefield.evaluation import superres
from sparsefield.evaluation.predictors import ModelMean, SamplingConfig
from sparsefield.evaluation.run import Result
from sparsefield.evaluation.scorers import score_field
from sparsefield.evaluation.serialise import flatten
from sparsefield.evaluation.superres import (
    BICUBIC,
    BICUBIC_CONSISTENT,
    Enlargement,
    SizeResult,
    choose_scattered_baselines,
    enlarge,
    evaluate_fine_baselines,
    evaluate_size,
    open_enlargements,
    spectra,
    superres_report,
)
from sparsefield.evaluation.task import Protocol
from sparsefield.flow.backbone import Backbone, Claims
from sparsefield.flow.flow import Flow
from sparsefield.inference.checkpoint import ModelSpec
from sparsefield.inference.model import Model

N, SIDE, C = 4, 8, 3
PROTOCOL = Protocol(density=0.3, seed=3)
NO_SAMPLES = SamplingConfig()


class Oracle(Backbone):
    """Recognises a field by what is observed and predicts it at any of its sizes."""

    claims = Claims(query_invariant=True, order_invariant=True, linear_cost=True)

    def __init__(self, enlargement, error=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        grids = (enlargement.coarse, enlargement.fine)
        scale = enlargement.fine.normalizer
        self.truth = {grid.points: scale.apply(grid.batch(range(N))) for grid in grids}
        self.coords, self.error = enlargement.coarse.coords, error

    def forward(self, x_t, t, query, prepared=None):
        coords, obs = query.coords, query.obs
        rows = torch.cdist(obs.coords, self.coords.expand(len(obs.coords), -1, -1)).argmin(-1)
        seen = self.truth[SIDE**2][:, rows]  # (N, B, M, C)
        field = (seen - obs.values).square().sum((2, 3)).argmin(0)
        return self.truth[coords.shape[1]][field] + self.error * x_t


def make_enlargement(factor):
    values = np.random.default_rng(0).random((N, SIDE * factor, SIDE * factor, C), np.float32)
    fine = FieldDataset(values)
    return Enlargement(fine.resized((SIDE, SIDE)), fine, PROTOCOL)


def make_model(enlargement, error=0.0):
    spec = ModelSpec("v1", {}, "data", 1.0, enlargement.fine.normalizer, (SIDE, SIDE))
    return Model("oracle", Flow(Oracle(enlargement, error), "data"), spec)


def test_coarse_cells_are_observed_and_fine_ones_asked_for():
    enlargement = make_enlargement(2)
    task = enlargement.task([3, 1])
    means = task.truth.reshape(2, SIDE, 2, SIDE, 2, C).mean((2, 4)).flatten(1, 2)
    for row, item in enumerate([3, 1]):
        seen = observed_indices(SIDE**2, 0.3, 3, "validation", item)
        torch.testing.assert_close(task.obs.values[row], means[row, seen])
        assert torch.equal(task.obs.coords[row], enlargement.coarse.coords[seen])
    assert task.shape == (16, 16)
    assert torch.equal(task.coords[0], enlargement.fine.coords)


@pytest.mark.parametrize("factor", [2, 3])
def test_missing_are_the_fine_cells_outside_observed_coarse_ones(factor):
    enlargement = make_enlargement(factor)
    task = enlargement.task([2])
    offset = (task.coords[0][:, None] - task.obs.coords[0]).abs().amax(-1).amin(1)
    assert torch.equal(task.missing[0], offset > 1 / SIDE)
    assert int((~task.missing).sum()) == task.obs.count * factor**2


def test_truth_itself_scores_perfectly():
    enlargement = make_enlargement(3)
    task = enlargement.task(range(N))
    scores = score_field(task.truth, task)
    assert (scores["psnr"] == np.inf).all()
    assert (scores["psnr_missing"] == np.inf).all()
    np.testing.assert_allclose(scores["ssim"], 1)


def test_perfect_oracle_scores_perfectly_through_the_whole_path():
    enlargement = make_enlargement(2)
    model = make_model(enlargement)
    result = evaluate_size(model, enlargement, SamplingConfig(2, "heun", 3))
    assert (result.mean.scores["psnr"] > 120).all()
    assert (result.samples.scores["psnr"] > 100).all()
    np.testing.assert_allclose(result.mean.scores["ssim"], 1, atol=1e-6)
    assert result.nfe == 1 + 2 * 5
    report = flatten(result.report())
    assert report["detail"]["mean"] == pytest.approx(1)
    assert report["artefact"]["mean"] == pytest.approx(report["artefact"]["truth"])
    low, high = report["artefact_excess"]["mean"]["artefact_ci"]
    assert abs(low) < 1e-3 > abs(high)
    assert report["baselines"][BICUBIC]["psnr"] < 30
    behind = report["differences"][BICUBIC]
    assert behind["psnr"] == pytest.approx(
        report["baselines"][BICUBIC]["psnr"] - report["mean"]["psnr"]
    )
    assert behind["psnr_ci"][0] <= behind["psnr"] <= behind["psnr_ci"][1] < 0


def test_a_smooth_truth_has_no_detail_to_compare_with():
    enlargement = Enlargement(wave_images(2, 32), wave_images(2, 64), PROTOCOL)
    task = enlargement.task([0, 1])
    truth = spectra(task.truth, task)
    report = flatten(SizeResult(32, truth, Result(truth)).report())
    assert "detail" not in report
    assert report["artefact"]["mean"] > 0


def test_where_centres_coincide_the_coarse_value_stays():
    enlargement = make_enlargement(3)
    task = enlargement.task([0])
    offset = (task.coords[0][:, None] - task.obs.coords[0]).abs().amax(-1).amin(1)
    shared = offset < 1e-5
    assert int(shared.sum()) == task.obs.count
    model = make_model(enlargement)
    mean = ModelMean(model)(task).mean
    wrong = (mean - task.truth)[0].abs().amax(-1) > 1e-4
    assert torch.equal(wrong, shared)


def test_scores_of_a_field_depend_neither_on_batches_nor_on_other_fields(monkeypatch):
    enlargement = make_enlargement(2)
    first = Enlargement(
        *(x.subset([0, 1]) for x in (enlargement.coarse, enlargement.fine)), PROTOCOL
    )
    model, config = make_model(enlargement, error=0.3), SamplingConfig(2, "euler", 2)
    whole = evaluate_size(model, enlargement, config)
    monkeypatch.setattr(superres, "POINTS_AT_ONCE", 1)
    parts = [evaluate_size(model, x, config) for x in (enlargement, first)]
    for part in parts:
        for found, expected in ((part.mean, whole.mean), (part.samples, whole.samples)):
            assert found.scores.keys() == expected.scores.keys()
            for name, values in found.scores.items():
                others = expected.scores[name][: len(values)]
                np.testing.assert_allclose(values, others, rtol=1e-4)


def test_samples_can_be_limited_to_the_first_fields():
    enlargement = make_enlargement(2)
    config = SamplingConfig(2, "euler", 2, limit=3)
    result = evaluate_size(make_model(enlargement, 0.1), enlargement, config)
    assert len(result.samples.scores["crps"]) == result.report().samples.sampling.n == 3


def test_baselines_interpolate_the_same_points():
    enlargement = make_enlargement(2)
    scores = evaluate_fine_baselines(enlargement, ["nearest", "kriging"], processes=1)
    task = enlargement.task([1])
    nearest = torch.cdist(task.coords[0].double(), task.obs.coords[0].double()).argmin(1)
    expected = score_field(task.obs.values[:, nearest], task)
    assert scores["nearest"].scores["mae"][1] == pytest.approx(expected["mae"][0], rel=0.1)  # ties
    assert scores["kriging"].scores["crps"].shape == (N,)


def test_baselines_that_need_the_observations_cells_are_refused():
    assert "biharmonic" not in choose_scattered_baselines("all")
    assert choose_scattered_baselines("none") == []
    with pytest.raises(InputError, match=r"biharmonic fills .* choose from .*tps"):
        choose_scattered_baselines("tps,biharmonic")


def test_enlarging_keeps_what_is_linear_and_does_nothing_to_the_same_size():
    ramp = torch.linspace(0, 1, 10).expand(10, 10).reshape(1, 100, 1)
    fine = enlarge(ramp, 10, 30).reshape(30, 30)
    step = fine[:, 7:23].diff(dim=1)
    torch.testing.assert_close(step, torch.full_like(step, 1 / 27), atol=1e-6, rtol=0)
    torch.testing.assert_close(fine[1::3, 1::3].reshape(1, 100, 1), ramp)
    torch.testing.assert_close(enlarge(ramp, 10, 10), ramp)


def test_a_report_is_json_with_everything_by_size():
    enlargement = make_enlargement(2)
    model = make_model(enlargement, 0.1)
    result = evaluate_size(model, enlargement, NO_SAMPLES)
    result.baselines |= evaluate_fine_baselines(enlargement, ["nearest"], processes=1)
    report = json.loads(json.dumps(flatten(superres_report(model, enlargement, {16: result}))))
    assert {"model", "data", "n", "density", "seed", "device", "commit"} <= report.keys()
    part = report["sizes"]["16"]
    assert part["baselines"].keys() == {BICUBIC, BICUBIC_CONSISTENT, "nearest"}
    assert part["spectrum"].keys() == {"truth", "mean", BICUBIC, BICUBIC_CONSISTENT, "nearest"}
    assert part["artefact"].keys() == part["spectrum"].keys()
    for name, excess in part["artefact_excess"].items():
        expected = part["artefact"][name] - part["artefact"]["truth"]
        assert excess["artefact"] == pytest.approx(expected)
        assert excess["artefact_ci"][0] <= expected <= excess["artefact_ci"][1]
    assert len(part["spectrum"]["truth"]) == 8
    low, high = part["mean"]["psnr_ci"]
    assert low <= part["mean"]["psnr"] <= high
    assert "samples" not in part


def test_constant_fields_have_no_energy_to_compare_with():
    fine = FieldDataset(np.full((N, 16, 16, C), 7, np.uint8))
    enlargement = Enlargement(fine.resized((SIDE, SIDE)), fine, PROTOCOL)
    result = flatten(evaluate_size(make_model(enlargement), enlargement, NO_SAMPLES).report())
    assert "detail" not in result
    assert json.dumps(result)


@pytest.mark.parametrize("data", ["analytic", "photographs"])
def test_every_size_shows_the_same_fields(data):
    every = open_enlargements(data, [64, 96], PROTOCOL, limit=2)
    assert [x.size for x in every] == [64, 96]
    tolerance = 1e-6 if data == "analytic" else 1.01 / 255  # rounded to bytes twice
    for enlargement in every:
        assert (len(enlargement), enlargement.value_range) == (2, 1.0)
        means = enlargement.fine.resized((32, 32)).batch(range(2))
        torch.testing.assert_close(
            means, enlargement.coarse.batch(range(2)), atol=tolerance, rtol=0
        )


def test_a_data_set_is_averaged_to_its_sizes(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (3, 128, 128, C), dtype=np.uint8)
    np.save(tmp_path / "large.npy", values)
    every = open_enlargements(str(tmp_path / "large.npy"), [64, 128], PROTOCOL)
    assert [x.fine.shape for x in every] == [(64, 64), (128, 128)]
    assert every[0].coarse.shape == (32, 32)
    with pytest.raises(InputError, match=r"128 x 128 cells; for 96 x 96 .* multiple of 96"):
        open_enlargements(str(tmp_path / "large.npy"), [96], PROTOCOL)


@pytest.mark.parametrize(
    ("data", "size", "words"),
    [
        ("analytic", 32, "multiples of 32 above it; 32 is none"),
        ("analytic", 80, "multiples of 32 above it; 80 is none"),
        ("photographs", 288, "up to 256 x 256 cells, not 288 x 288"),
    ],
)
def test_sizes_without_truth_are_refused(data, size, words):
    with pytest.raises(InputError, match=words):
        open_enlargements(data, [64, size], PROTOCOL)
