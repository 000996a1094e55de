"""Fourier features of coordinates and of time."""

import math

import torch
from torch import Tensor, nn


def fourier_features(coords: Tensor, frequencies: Tensor) -> Tensor:
    """Map coordinates (..., P) to sines and cosines (..., 2 F) at frequencies (F, P) per unit."""
    with torch.autocast(coords.device.type, enabled=False):
        angle = 2 * math.pi * coords.float() @ frequencies.float().T
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class FourierFeatures(nn.Module):
    r"""Random Fourier features of coordinates, limited to frequencies that the grid can carry.

    .. math:: \gamma(x) = [\sin(2\pi F x), \cos(2\pi F x)]

    The rows of F are drawn uniformly from the ball of radius `max_frequency` by a generator of
    their own, so that two models of one size share their features. A grid of n cells over
    [-1, 1] carries frequencies up to n/4 cycles per unit.

    References:
        Fourier Features Let Networks Learn High Frequency Functions (Tancik et al., 2020), Eq. 5.

    Args:
        dims: Coordinate dimensions P.
        count: Frequencies; the output has 2 * count channels.
        max_frequency: Radius of the ball, in cycles per coordinate unit.
    """

    frequencies: Tensor

    def __init__(self, dims: int, count: int, max_frequency: float = 8.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        direction = torch.randn(count, dims, generator=generator)
        radius = torch.rand(count, 1, generator=generator) ** (1 / dims)
        frequencies = max_frequency * radius * direction / direction.norm(dim=1, keepdim=True)
        self.register_buffer("frequencies", frequencies)
        self.out_features = 2 * count

    def forward(self, coords: Tensor) -> Tensor:
        """Map coordinates (..., P) to features (..., 2 * count) in [-1, 1]."""
        return fourier_features(coords, self.frequencies)


class TimeEmbedding(nn.Module):
    """Sinusoids of 1000 t, followed by a two-layer MLP.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), Appendix B.

    Args:
        width: Output channels; even.
    """

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        frequencies = torch.exp(-math.log(10_000.0) * torch.arange(half) / half)
        self.register_buffer("frequencies", frequencies)
        self.mlp = nn.Sequential(nn.Linear(2 * half, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """Map times (B,) in [0, 1] to embeddings (B, width)."""
        angle = 1000.0 * t.float()[:, None] * self.frequencies.float()
        return self.mlp(torch.cat([angle.sin(), angle.cos()], dim=-1))
