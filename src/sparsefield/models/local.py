"""Local implicit diffusion: points look at what is near them, and nowhere else."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Backbone, Claims, Query
from sparsefield.models.decoder import PointDecoder
from sparsefield.models.nearby import NearbyTokens
from sparsefield.nn.feedforward import FeedForward
from sparsefield.nn.film import AdaptiveNorm
from sparsefield.nn.fourier import TimeEmbedding
from sparsefield.nn.neighbourhood import LocalAttention, Neighbourhood, find_neighbourhood
from sparsefield.nn.tokens import PointTokens


class Surroundings(NamedTuple):
    """What a query is surrounded by, the same at every step of a sampler.

    Attributes:
        context: Tokens of the observations (B, M, D).
        observations: The nearest observations of every query.
        queries: The nearest other queries of every query.
        known: What is near the queries (B, L, D), or None if their tokens do not say it.
    """

    context: Tensor
    observations: Neighbourhood
    queries: Neighbourhood
    known: Tensor | None


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
        near: Nearest observations that every token knows from the start, see `NearbyTokens`.
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
        near: int = 0,
    ) -> None:
        super().__init__()
        self.neighbours, self.radius = neighbours, radius
        self.observation_tokens = PointTokens(dims, channels, width, features)
        self.query_tokens = PointTokens(dims, channels, width, features)
        self.near = NearbyTokens(dims, channels, width, near) if near else None
        self.time = TimeEmbedding(width)
        self.context_norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(LocalLayer(width, heads, dims) for _ in range(layers))
        self.decoder = PointDecoder(width, channels)

    def silence(self) -> None:
        """See `Backbone.silence`."""
        self.decoder.silence()

    def encode(self, obs: Observation) -> Tensor:
        """Embed the observations."""
        tokens = self.observation_tokens(obs.coords, obs.values)
        if self.near is not None:
            tokens = tokens + self.near.at_observations(obs)
        return self.context_norm(tokens)

    def prepare(self, query: Query, encoded: Tensor | None = None) -> Surroundings:
        """Find the neighbours of the queries among observations and among themselves."""
        coords, obs = query.coords, query.obs
        every = torch.ones_like(coords[..., 0], dtype=torch.bool)
        near, beside = (
            find_neighbourhood(coords, context, valid, self.neighbours, self.radius)
            for context, valid in ((obs.coords, obs.valid), (coords, every))
        )
        context = self.encode(obs) if encoded is None else encoded
        known = None if self.near is None else self.near.at_queries(coords, obs)
        return Surroundings(context, near, beside, known)

    def forward(
        self, x_t: Tensor, t: Tensor, query: Query, prepared: Surroundings | None = None
    ) -> Tensor:
        """See `Backbone.forward`."""
        near = self.prepare(query) if prepared is None else prepared
        time = self.time(t)
        x = self.query_tokens(query.coords, x_t)
        if near.known is not None:
            x = x + near.known
        for layer in self.layers:
            x = layer(x, time, near)
        return self.decoder(x)


class LocalLayer(nn.Module):
    """Local attention to observations, local attention among queries, an MLP; each residual.

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

    def forward(self, x: Tensor, time: Tensor, near: Surroundings) -> Tensor:
        """Update queries x (B, L, D) from their surroundings at a time (B, D)."""
        x = x + self.cross(self.cross_norm(x, time), near.context, near.observations)
        y = self.self_norm(x, time)
        x = x + self.self_attention(y, y, near.queries)
        return x + self.feedforward(self.mlp_norm(x, time))
