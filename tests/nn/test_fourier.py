"""Fourier features."""

import pytest
import torch

from sparsefield.nn.fourier import FourierFeatures, TimeEmbedding

B, L = 2, 63


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_frequencies_fill_the_ball_that_the_grid_can_carry(dims):
    frequencies = FourierFeatures(dims, 4000, max_frequency=8.0).frequencies
    radius = frequencies.norm(dim=1)
    assert radius.max() <= 8 * (1 + 1e-6)
    inner = (radius < 4).float().mean().item()
    assert inner == pytest.approx(0.5**dims, abs=0.03)


def test_features_are_sines_and_cosines_of_the_phase():
    layer, coords = FourierFeatures(3, 7), torch.rand(B, L, 3) * 2 - 1
    features = layer(coords)
    assert features.shape == (B, L, layer.out_features) == (B, L, 14)
    torch.testing.assert_close(
        features[..., :7].square() + features[..., 7:].square(), torch.ones(B, L, 7)
    )
    angle = 2 * torch.pi * (coords[1, 5] @ layer.frequencies.T)
    torch.testing.assert_close(features[1, 5, :7], angle.sin(), atol=1e-4, rtol=1e-4)


def test_features_ignore_the_global_seed():
    first = FourierFeatures(2, 16).frequencies
    torch.manual_seed(1)
    assert torch.equal(first, FourierFeatures(2, 16).frequencies)


def test_phases_keep_float32_under_autocast():
    layer, coords = FourierFeatures(2, 16), torch.rand(B, L, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(coords), layer(coords.float()))
        assert layer(coords).dtype == torch.float32


def test_time_embedding_tells_close_times_apart():
    embed = TimeEmbedding(12)
    early, late = embed(torch.tensor([0.500, 0.501]))
    assert early.shape == (12,)
    assert not torch.allclose(early, late, atol=1e-3)
