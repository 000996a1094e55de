"""Local implicit diffusion: points look at what is near them, and nowhere else."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Backbone, Claims
from sparsefield.models.decoder import PointDecoder
from sparsefield.nn.feedforward import FeedForward
from sparsefield.nn.film import AdaptiveNorm
from sparsefield.nn.fourier import TimeEmbedding
from sparsefield.nn.neighbourhood import LocalAttention, Neighbourhood, find_neighbourhood
from sparsefield.nn.tokens import PointTokens


class Surroundings(NamedTuple):
    """The neighbours of every query, the same at every step of a sampler."""

    observations: Neighbourhood
    queries: Neighbourhood


class LocalDiffusion(Backbone):
    """Layers of attention to near observations and near queries, modulated by time.

    A point sees its nearest `neighbours` of either kind, as far as they lie within `radius`, and
    always the nearest one; memory is linear in the points.

    Args:
        channels: Channels C of the values.
        dims: Coordinate dimensions P.
        width: Channels D of a token.
        layers: Layers.
        heads: Attention heads.
        neighbours: Points of each kind that a point attends to, at most.
        radius: How far a point sees, in coordinate units.
        features: Fourier frequencies.
    """

    claims = Claims(query_invariant=False, order_invariant=True, linear_cost=True)

    def __init__(
        self,
        channels: int = 3,
        dims: int = 2,
        width: int = 512,
        layers: int = 4,
        heads: int = 8,
        neighbours: int = 32,
        radius: float = 0.6,
        features: int = 256,
    ) -> None:
        super().__init__()
        self.neighbours, self.radius = neighbours, radius
        self.observation_tokens = PointTokens(dims, channels, width, features)
        self.query_tokens = PointTokens(dims, channels, width, features)
        self.time = TimeEmbedding(width)
        self.context_norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(LocalLayer(width, heads, dims) for _ in range(layers))
        self.decoder = PointDecoder(width, channels)

    def prepare(
        self, coords: Tensor, obs: Observation, cell: Tensor | None = None
    ) -> Surroundings:
        """Find the neighbours of the queries among observations and among themselves."""
        every = torch.ones_like(coords[..., 0], dtype=torch.bool)
        near = (
            find_neighbourhood(coords, context, valid, self.neighbours, self.radius)
            for context, valid in ((obs.coords, obs.valid), (coords, every))
        )
        return Surroundings(*near)

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        coords: Tensor,
        obs: Observation,
        prepared: Surroundings | None = None,
        cell: Tensor | None = None,
    ) -> Tensor:
        """See `Backbone.forward`."""
        near = self.prepare(coords, obs) if prepared is None else prepared
        time = self.time(t)
        context = self.context_norm(self.observation_tokens(obs.coords, obs.values))
        x = self.query_tokens(coords, x_t)
        for layer in self.layers:
            x = layer(x, context, time, near)
        return self.decoder(x)


class LocalLayer(nn.Module):
    """Local attention to observations, local attention among queries, perceptron; each residual.

    Args:
        width: Channels D; divisible by `heads`.
        heads: Attention heads.
        dims: Coordinate dimensions P.
    """

    def __init__(self, width: int, heads: int, dims: int) -> None:
        super().__init__()
        self.cross_norm, self.self_norm, self.mlp_norm = (
            AdaptiveNorm(width, width) for _ in range(3)
        )
        self.cross = LocalAttention(width, heads, dims)
        self.self_attention = LocalAttention(width, heads, dims)
        self.feedforward = FeedForward(width, 4 * width)

    def forward(self, x: Tensor, context: Tensor, time: Tensor, near: Surroundings) -> Tensor:
        """Update queries x (B, L, D) from observations (B, M, D) at a time (B, D)."""
        x = x + self.cross(self.cross_norm(x, time), context, near.observations)
        y = self.self_norm(x, time)
        x = x + self.self_attention(y, y, near.queries)
        return x + self.feedforward(self.mlp_norm(x, time))
