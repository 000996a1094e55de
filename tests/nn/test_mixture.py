"""Mixtures of Gaussians against quadrature and against one Gaussian."""

import math

import pytest
import torch

from sparsefield.nn.mixture import Mixture


def mixture():
    log_weight = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]).double().log()
    loc = torch.tensor([[-1.0, 0.2, 2.0], [3.0, 3.1, 5.0]]).double()
    scale = torch.tensor([[0.3, 1.0, 0.5], [0.1, 0.7, 2.0]]).double()
    return Mixture(log_weight, loc, scale)


GRID = torch.linspace(-20, 30, 400_001, dtype=torch.float64)
STEP = float(GRID[1] - GRID[0])


def on_grid(item):
    return Mixture(*(x[item].expand(len(GRID), -1) for x in mixture()))


@pytest.mark.parametrize("item", [0, 1])
def test_moments_and_density_agree_with_quadrature(item):
    density = on_grid(item).log_prob(GRID).exp()
    mean = float((GRID * density).sum() * STEP)
    std = math.sqrt(float(((GRID - mean) ** 2 * density).sum() * STEP))
    assert float(density.sum() * STEP) == pytest.approx(1)
    assert float(mixture().mean[item]) == pytest.approx(mean)
    assert float(mixture().std[item]) == pytest.approx(std)


@pytest.mark.parametrize("value", [-2.0, 0.3, 4.0])
def test_crps_agrees_with_quadrature(value):
    for item in (0, 1):
        cdf = on_grid(item).cdf(GRID)
        expected = float(((cdf - (value <= GRID).double()) ** 2).sum() * STEP)
        found = mixture().crps(torch.full((2,), value).double())[item]
        assert float(found) == pytest.approx(expected, rel=1e-3)


def test_quantiles_invert_the_distribution_function():
    for level in (1e-6, 0.05, 0.5, 0.95, 1 - 1e-6):
        found = mixture().cdf(mixture().quantile(level))
        torch.testing.assert_close(
            found, torch.full((2,), level, dtype=torch.float64), atol=1e-9, rtol=1e-9
        )


def test_affine_and_blur_act_on_moments():
    shift, factor = torch.tensor([2.0, -1.0]).double(), torch.tensor([3.0, 0.5]).double()
    moved = mixture().affine(shift, factor)
    torch.testing.assert_close(moved.mean, shift + factor * mixture().mean)
    torch.testing.assert_close(moved.std, factor * mixture().std)
    blurred = mixture().blur(factor)
    torch.testing.assert_close(blurred.std, (mixture().std.square() + factor**2).sqrt())
