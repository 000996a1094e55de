"""Tasks and the loop over them: a perfect oracle, and items that do not know of each other."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from sparsefield.data.dataset import FieldDataset
from sparsefield.data.masks import observed_indices
from sparsefield.evaluation.methods import evaluate_mean, evaluate_samples
from sparsefield.evaluation.predictors import ModelMean, SamplingConfig, start_noise, truth
from sparsefield.evaluation.run import run
from sparsefield.evaluation.scorers import score_field, score_mean
from sparsefield.evaluation.task import Protocol, grid_tasks, make_task
from sparsefield.flow.backbone import Backbone, Claims
from sparsefield.flow.flow import Flow
from sparsefield.inference.checkpoint import ModelSpec
from sparsefield.inference.model import Model

N, SHAPE, C = 5, (8, 9), 3
PROTOCOL = Protocol(density=0.3, seed=3)


class Oracle(Backbone):
    """Recognises a field by its observations and predicts it, off by `error` times its noise."""

    claims = Claims(query_invariant=True, order_invariant=True, linear_cost=True)

    def __init__(self, fields, error=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.truth = fields.normalizer.apply(fields.batch(range(len(fields))))
        self.coords = fields.coords
        self.error = error

    def forward(self, x_t, t, query, prepared=None):
        obs = query.obs
        rows = torch.cdist(obs.coords, self.coords.expand(len(obs.coords), -1, -1)).argmin(-1)
        candidates = self.truth[:, rows]  # (N, B, M, C)
        field = (candidates - obs.values).square().sum((2, 3)).argmin(0)
        return self.truth[field] + self.error * x_t


@pytest.fixture(params=["uint8", "float32"])
def fields(request):
    values = np.random.default_rng(0).integers(0, 256, (N, *SHAPE, C), dtype=np.uint8)
    scale = 1 if request.param == "uint8" else np.float32(0.37)
    return FieldDataset((values * scale).astype(request.param))


def make_model(fields, error=0.0):
    spec = ModelSpec("v1", {}, "data", 1.0, fields.normalizer, SHAPE)
    return Model("oracle", Flow(Oracle(fields, error), "data"), spec)


def test_truth_itself_scores_perfectly(fields):
    scores = run(grid_tasks(fields, PROTOCOL), {"truth": truth}, [score_mean])["truth"].scores
    assert len(scores["psnr"]) == N
    assert (scores["psnr"] == np.inf).all()
    assert (scores["psnr_missing"] == np.inf).all()
    np.testing.assert_allclose(scores["ssim"], 1)
    assert (scores["mse"] == 0).all()
    assert (scores["mae"] == 0).all()


def test_perfect_oracle_scores_perfectly_through_the_whole_path(fields):
    scores = evaluate_mean(make_model(fields), fields, PROTOCOL).scores
    assert (scores["psnr"] > 120).all()
    np.testing.assert_allclose(scores["ssim"], 1, atol=1e-6)
    config = SamplingConfig(3, "heun", 4)
    sampled = evaluate_samples(make_model(fields), fields, PROTOCOL, config=config)
    assert sampled.nfe == 3 * 7
    assert (sampled.scores["psnr"] > 100).all()
    scale = float(fields.normalizer.scale[0])
    np.testing.assert_allclose(sampled.scores["crps"], 0, atol=1e-5 * scale)


@pytest.mark.parametrize("size", [1, 2])
def test_score_of_a_field_does_not_depend_on_batches(fields, size):
    model = make_model(fields, error=0.3)
    split = dataclasses.replace(PROTOCOL, batch_size=size)
    means = [evaluate_mean(model, fields, p).scores for p in (PROTOCOL, split)]
    config = SamplingConfig(2, "euler", 3)
    samples = [evaluate_samples(model, fields, p, config=config).scores for p in (PROTOCOL, split)]
    for a, b in (means, samples):
        assert a.keys() == b.keys()
        for name in a:
            assert len(a[name]) == N
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5, err_msg=name)


def test_score_of_a_field_does_not_depend_on_the_fields_after_it(fields):
    model = make_model(fields, error=0.3)
    every = evaluate_mean(model, fields, PROTOCOL).scores
    first = evaluate_mean(model, fields.subset([0, 1]), PROTOCOL).scores
    for name in every:
        np.testing.assert_allclose(every[name][:2], first[name], rtol=1e-5, err_msg=name)


def test_task_observes_what_the_masks_say(fields):
    task = make_task(fields, PROTOCOL, [4, 1])
    for row, item in enumerate([4, 1]):
        index = observed_indices(72, 0.3, 3, "validation", item)
        assert torch.equal(task.obs.values[row], fields.batch([item])[0, index])
        assert torch.equal(task.obs.coords[row], fields.coords[index])
        assert not task.missing[row, index].any()
        assert task.missing[row].sum() == 72 - len(index)
    model = make_model(fields, error=0.3)
    alone = start_noise(model, make_task(fields, PROTOCOL, [1]), 1, 2)
    assert torch.equal(start_noise(model, task, 1, 2)[1], alone[0])
    first = start_noise(model, task, 0)
    assert not torch.equal(first, start_noise(model, task, 1))
    assert not torch.equal(first, start_noise(model, task, 0, 1))


def test_all_predictors_and_scorers_of_a_run_stand_side_by_side(fields):
    def largest_error(prediction, task):
        return {"largest": (prediction.mean - task.truth).abs().amax((1, 2)).numpy()}

    model, done = make_model(fields, error=0.3), []
    predictors = {"mean": ModelMean(model), "truth": truth}
    tasks = grid_tasks(fields, PROTOCOL, limit=3, batch_size=2)
    results = run(tasks, predictors, [score_mean, largest_error], progress=done.append)
    assert done == [2, 1]
    assert results.keys() == predictors.keys()
    assert (results["truth"].scores["largest"] == 0).all()
    mean = results["mean"]
    assert (mean.scores["largest"] > 0).all()
    assert (mean.scores["mae"] < mean.scores["largest"]).all()
    assert (mean.nfe, results["truth"].nfe) == (1, 0)
    assert mean.seconds > results["truth"].seconds >= 0


def test_grids_of_four_axes_are_scored():
    values = np.random.default_rng(0).random((2, 7, 8, 7, 9, 1), np.float32)
    task = make_task(FieldDataset(values), PROTOCOL, [0, 1])
    scores = score_field(task.truth, task)
    np.testing.assert_allclose(scores["ssim"], 1)
    assert (scores["mse"] == 0).all()
