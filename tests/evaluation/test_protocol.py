"""The protocol: a perfect oracle, and items that do not know of each other."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from sparsefield.data.dataset import FieldDataset
from sparsefield.data.masks import observed_indices
from sparsefield.evaluation.protocol import (
    Protocol,
    evaluate_mean,
    evaluate_samples,
    make_task,
    score,
    tasks,
)
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
    (task,) = tasks(fields, PROTOCOL)
    scores = score(task.truth, task)
    assert (scores["psnr"] == np.inf).all()
    assert (scores["psnr_missing"] == np.inf).all()
    np.testing.assert_allclose(scores["ssim"], 1)
    assert (scores["mse"] == 0).all()
    assert (scores["mae"] == 0).all()


def test_perfect_oracle_scores_perfectly_through_the_whole_path(fields):
    scores, _ = evaluate_mean(make_model(fields), fields, PROTOCOL)
    assert (scores["psnr"] > 120).all()
    np.testing.assert_allclose(scores["ssim"], 1, atol=1e-6)
    drawn, _, nfe = evaluate_samples(make_model(fields), fields, PROTOCOL, 3, "heun", 4)
    assert nfe == 7
    assert (drawn["psnr"] > 100).all()
    scale = float(fields.normalizer.scale[0])
    np.testing.assert_allclose(drawn["crps"], 0, atol=1e-5 * scale)


@pytest.mark.parametrize("size", [1, 2])
def test_score_of_a_field_does_not_depend_on_batches(fields, size):
    model = make_model(fields, error=0.3)
    split = dataclasses.replace(PROTOCOL, batch_size=size)
    whole, parts = (evaluate_mean(model, fields, p)[0] for p in (PROTOCOL, split))
    draws = (evaluate_samples(model, fields, p, 2, "euler", 3)[0] for p in (PROTOCOL, split))
    for a, b in ((whole, parts), tuple(draws)):
        assert a.keys() == b.keys()
        for name in a:
            assert len(a[name]) == N
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5, err_msg=name)


def test_score_of_a_field_does_not_depend_on_the_fields_after_it(fields):
    model = make_model(fields, error=0.3)
    every = evaluate_mean(model, fields, PROTOCOL)[0]
    first = evaluate_mean(model, fields.subset([0, 1]), PROTOCOL)[0]
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
    alone = make_task(fields, PROTOCOL, [1]).noise(model, 1, 2)
    assert torch.equal(task.noise(model, 1, 2)[1], alone[0])
    assert not torch.equal(task.noise(model, 0), task.noise(model, 1))
    assert not torch.equal(task.noise(model, 0), task.noise(model, 0, 1))
