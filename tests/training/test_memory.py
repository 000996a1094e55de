"""Settings that change memory and not results."""

import copy

import pytest
import torch
from tests.models.test_models import TINY
from torch.autograd.graph import saved_tensors_hooks

from sparsefield.core.errors import InputError
from sparsefield.data.grids import cell_centres
from sparsefield.data.normalize import Normalizer
from sparsefield.data.observation import Observation
from sparsefield.data.query import Grid
from sparsefield.flow.backbone import Query
from sparsefield.flow.flow import Flow
from sparsefield.flow.objectives import flow_matching_loss
from sparsefield.inference.checkpoint import ModelSpec
from sparsefield.inference.model import Model
from sparsefield.models import MODELS, build_model
from sparsefield.nn.recompute import recompute_blocks

B, M, C, SHAPE = 2, 11, 3, (6, 8)


def flow_of(name):
    return Flow(build_model(name, channels=C, dims=2, **TINY[name]), "data")


def gradients(flow, dtype=None):
    """Return the loss, the gradients and the bytes kept for the backward."""
    generator = torch.Generator().manual_seed(0)
    coords = cell_centres(SHAPE).expand(B, -1, -1)
    x_0, x_1 = (torch.randn(B, 48, C, generator=generator) for _ in range(2))
    obs = Observation(coords[:, ::4], x_1[:, ::4])
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            t = torch.full((B,), 0.4)
            loss = flow_matching_loss(flow, x_0, x_1, t, Query(coords, obs)).sum()
        size = sum(kept.values())
        loss.backward()
    return loss.detach(), {n: w.grad for n, w in flow.named_parameters()}, size


@pytest.mark.parametrize("name", MODELS)
def test_recomputing_changes_memory_and_not_a_bit_of_the_gradients(name):
    flow = flow_of(name)
    thrifty = copy.deepcopy(flow)
    recompute_blocks(thrifty)
    (loss, grads, size), (same, others, less) = gradients(flow), gradients(thrifty)
    assert torch.equal(loss, same)
    for weight, grad in grads.items():
        assert (grad is None) == (others[weight] is None)
        assert grad is None or torch.equal(grad, others[weight]), weight
    assert less < size


@pytest.mark.parametrize("name", MODELS)
def test_mixed_precision_keeps_less_and_changes_little(name):
    flow = flow_of(name)
    (loss, _, size), (rounded, grads, less) = (
        gradients(copy.deepcopy(flow), dtype) for dtype in (None, torch.bfloat16)
    )
    torch.testing.assert_close(rounded, loss, rtol=0.05, atol=0.05)
    assert all(grad is None or grad.dtype == torch.float32 for grad in grads.values())
    assert less < size


def model_of(name):
    settings = {"channels": C, "dims": 2, **TINY[name]}
    spec = ModelSpec(name, settings, "data", 1.0, Normalizer.unit_range(C), SHAPE)
    flow = spec.build().eval()
    with torch.no_grad():
        for weight in flow.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return Model(name, flow, spec)


def observe():
    return Observation(torch.rand(M, 2) * 2 - 1, torch.rand(M, C))


@pytest.mark.parametrize("name", [n for n, m in MODELS.items() if m.claims.query_invariant])
def test_a_mean_in_chunks_is_the_same_mean(name):
    model, obs = model_of(name), observe()
    posteriors = (model.condition(obs, chunk=chunk) for chunk in (None, 7))
    whole, parts = (posterior.mean(Grid(*SHAPE)).mean for posterior in posteriors)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [n for n, m in MODELS.items() if not m.claims.query_invariant])
def test_chunks_are_refused_where_points_see_each_other(name):
    with pytest.raises(InputError, match="in chunks"):
        model_of(name).condition(observe(), chunk=7)
