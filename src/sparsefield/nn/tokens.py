"""Points with values as tokens."""

import torch
from torch import Tensor, nn

from sparsefield.nn.fourier import FourierFeatures


class PointTokens(nn.Module):
    """Embed points by the Fourier features of their coordinates and by their values.

    Args:
        dims: Coordinate dimensions P.
        channels: Channels C of the values.
        width: Channels D of a token.
        features: Fourier frequencies.
        max_frequency: Highest frequency, in cycles per coordinate unit.
    """

    def __init__(
        self, dims: int, channels: int, width: int, features: int, max_frequency: float = 8.0
    ) -> None:
        super().__init__()
        self.fourier = FourierFeatures(dims, features, max_frequency)
        self.project = nn.Linear(self.fourier.out_features + channels, width)

    def forward(self, coords: Tensor, values: Tensor) -> Tensor:
        """Embed points at coords (B, L, P) with values (B, L, C) as tokens (B, L, D)."""
        return self.project(torch.cat([self.fourier(coords), values], dim=-1))
