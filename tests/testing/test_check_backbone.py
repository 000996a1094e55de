"""The contract of backbones finds what it says it finds."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from sparsefield.flow.backbone import Backbone, Claims
from sparsefield.testing import check_backbone

C = 3


class Plain(Backbone):
    """Adds to the mean of the observations what an MLP makes of place, noisy value and time."""

    claims = Claims(query_invariant=False, order_invariant=True, linear_cost=True)

    def __init__(self):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 + C + 1, 8), nn.GELU(), nn.Linear(8, C))

    def encode(self, obs):
        weight = obs.valid[..., None].float()
        return (obs.values * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)

    def forward(self, x_t, t, query, prepared=None):
        mean = self.prepare(query) if prepared is None else prepared
        time = t[:, None, None].expand(*x_t.shape[:2], 1)
        return mean + self.mlp(torch.cat([query.coords, x_t, time], -1))


class Narrow(Plain):
    def forward(self, *args):
        return super().forward(*args)[..., :1]


class Idle(Plain):
    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(2, 2)


class CountsPadding(Plain):
    def encode(self, obs):
        return obs.values.mean(1, keepdim=True)


class Random(Plain):
    def forward(self, *args):
        return super().forward(*args) + 0.01 * torch.randn(1)


class Stale(Plain):
    def prepare(self, query, encoded=None):
        return 0.9 * super().prepare(query, encoded)

    def forward(self, x_t, t, query, prepared=None):
        return super().forward(
            x_t, t, query, self.encode(query.obs) if prepared is None else prepared
        )


class Unbatched(Plain):
    def encode(self, obs):
        return super().encode(obs).transpose(0, 1)

    def forward(self, x_t, t, query, prepared=None):
        mean = self.encode(query.obs) if prepared is None else prepared
        return super().forward(x_t, t, query, mean.transpose(0, 1))


class Mixed(Plain):
    def forward(self, x_t, *args):
        return super().forward(x_t, *args) + 0.1 * x_t.mean(0, keepdim=True)


class Blind(Plain):
    def forward(self, x_t, *args):
        return super().forward(torch.zeros_like(x_t), *args)


class Timeless(Plain):
    def forward(self, x_t, t, *args):
        return super().forward(x_t, torch.zeros_like(t), *args)


class Deaf(Plain):
    def encode(self, obs):
        return torch.zeros_like(obs.values[:, :1])


class OverQueries(Plain):
    claims = replace(Plain.claims, query_invariant=True)


class FirstCounts(Plain):
    def encode(self, obs):
        return super().encode(obs) + obs.values[:, :1]


class Uneven(Plain):
    def forward(self, *args):
        prediction = super().forward(*args)
        return prediction * torch.linspace(1, 2, prediction.shape[1])[:, None]


class NoCells(Plain):
    claims = replace(Plain.claims, resolution_aware=True)


class HiddenCells(Plain):
    def forward(self, x_t, t, query, prepared=None):
        size = 0 if query.cell is None else query.cell.log2()[:, None, None]
        return super().forward(x_t, t, query, prepared) + size


class Code(Plain):
    claims = replace(Plain.claims, autoencoder=True)


def test_a_good_backbone_passes_and_stays_as_it_is():
    backbone, state = Plain(), torch.get_rng_state()
    before = [weight.clone() for weight in backbone.parameters()]
    check_backbone(backbone, C)
    assert all(torch.equal(a, b) for a, b in zip(before, backbone.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert backbone.training


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (Narrow, "has shape"),
        (Idle, "the weight unused.weight gets no gradient"),
        (CountsPadding, "not valid change the prediction"),
        (Random, "two equal calls disagree"),
        (Stale, "what `prepare` returns changes"),
        (Unbatched, "a batch axis is missing"),
        (Mixed, "depends on the other items"),
        (Blind, "no velocity can be learnt"),
        (Timeless, "does not depend on the time"),
        (Deaf, "does not depend on the observed values"),
        (OverQueries, "`query_invariant` does not hold"),
        (FirstCounts, "order of the observations matters"),
        (Uneven, "order of the queries matters"),
        (NoCells, "`resolution_aware` does not hold"),
        (HiddenCells, "claim `resolution_aware`"),
        (Code, "an autoencoder reads noisy values"),
        (nn.Identity, "Identity is no Backbone"),
    ],
)
def test_what_is_broken_is_named(kind, sentence):
    with pytest.raises(AssertionError) as error:
        check_backbone(kind(), C)
    assert sentence in str(error.value)
