"""The sequence that the Mamba backbones read: observations, then queries, then padding."""

import torch
from torch import Tensor, nn

from sparsefield.fields.observation import Observation
from sparsefield.nn.fourier import TimeEmbedding
from sparsefield.nn.ordering import grouped_order, inverse_order, reorder
from sparsefield.nn.tokens import PointTokens


class SequenceMixer(nn.Module):
    """Embed observations and queries, and mix them as one sequence along a point order.

    Observations and queries each follow the order; padding comes last, where it is inert.

    Args:
        mixer: Module that maps (B, M + L, D) and an optional validity (B, M + L) to (B, M + L, D).
        channels: Channels C of the values.
        dims: Coordinate dimensions P.
        width: Channels D of a token.
        features: Fourier frequencies.
        order: Name of the point order.
    """

    def __init__(
        self, mixer: nn.Module, channels: int, dims: int, width: int, features: int, order: str
    ) -> None:
        super().__init__()
        self.order = order
        self.observation_tokens = PointTokens(dims, channels, width, features)
        self.query_tokens = PointTokens(dims, channels, width, features)
        self.time = TimeEmbedding(width)
        self.mixer = mixer

    def forward(
        self, x_t: Tensor, t: Tensor, coords: Tensor, obs: Observation
    ) -> tuple[Tensor, Tensor]:
        """Return the mixed tokens of observations (B, M, D) and of queries (B, L, D)."""
        observed = self.observation_tokens(obs.coords, obs.values)
        tokens = torch.cat([observed, self.query_tokens(coords, x_t)], dim=1)
        tokens = tokens + self.time(t)[:, None]
        queries = torch.ones_like(coords[..., 0], dtype=torch.long)
        group = torch.cat([torch.where(obs.valid, 0, 2), queries], dim=1)
        order = grouped_order(self.order, torch.cat([obs.coords, coords], dim=1), group)
        valid = None if bool(obs.valid.all()) else group.gather(1, order) < 2
        tokens = reorder(self.mixer(reorder(tokens, order), valid), inverse_order(order))
        return tokens[:, : observed.shape[1]], tokens[:, observed.shape[1] :]
