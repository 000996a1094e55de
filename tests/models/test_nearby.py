"""Tokens that know the nearest observations keep every promise of their backbone."""

import pytest
import torch

from sparsefield.data.observation import Observation
from sparsefield.models import build_model
from sparsefield.models.nearby import NearbyTokens
from sparsefield.testing import check_backbone

B, M, L, C = 2, 13, 7, 3
SMALL = {"width": 16, "heads": 2, "features": 5, "near": 4}


@pytest.mark.parametrize("dims", [1, 3])
@pytest.mark.parametrize("name", ["v1", "v2", "local", "perceiver_io", "transformer"])
def test_backbones_that_look_around_keep_their_claims(name, dims):
    torch.manual_seed(0)
    check_backbone(build_model(name, channels=C, dims=dims, **SMALL), C, dims)


def test_only_the_nearest_observations_are_read():
    torch.manual_seed(0)
    tokens = NearbyTokens(2, C, 8, count=3)
    coords = torch.rand(B, M, 2) * 2 - 1
    values, query = torch.randn(B, M, C), torch.rand(B, L, 2) * 2 - 1
    before = tokens.at_queries(query, Observation(coords, values))
    changed = values.clone()
    changed[:, 5] += 1
    after = tokens.at_queries(query, Observation(coords, changed))
    near = torch.cdist(query, coords).argsort(-1)[..., :3]
    assert torch.equal((after != before).any(-1), (near == 5).any(-1))
