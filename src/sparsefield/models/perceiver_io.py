"""The baseline: Perceiver IO, whose latents read everything and are read by the queries."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Backbone, Claims, Query
from sparsefield.models.decoder import CrossReadout
from sparsefield.models.nearby import NearbyTokens
from sparsefield.nn.fourier import TimeEmbedding
from sparsefield.nn.perceiver import PerceiverIteration
from sparsefield.nn.tokens import PointTokens


class Prepared(NamedTuple):
    """What does not depend on noisy values and time.

    Attributes:
        observed: Tokens of the observations (B, M, D).
        near: What is near the queries (B, L, D), or None if they do not look.
    """

    observed: Tensor
    near: Tensor | None


class PerceiverIO(Backbone):
    """Latents attend to observations and noisy queries, then to each other; queries read them.

    The latents see the noisy values of the queries too, so that each can affect all others.

    References:
        Perceiver IO: A General Architecture for Structured Inputs & Outputs (Jaegle et al.,
        2022), section 3.

    Args:
        channels: Channels C of the values.
        dims: Coordinate dimensions P.
        width: Channels D of a token and of a latent.
        latents: Number of latents.
        iterations: Perceiver iterations of the latents.
        heads: Attention heads.
        features: Fourier frequencies.
        near: Nearest observations that every token knows from the start, see `NearbyTokens`.
    """

    claims = Claims(query_invariant=False, order_invariant=True, linear_cost=True)

    def __init__(
        self,
        channels: int = 3,
        dims: int = 2,
        width: int = 512,
        latents: int = 512,
        iterations: int = 6,
        heads: int = 8,
        features: int = 256,
        near: int = 0,
    ) -> None:
        super().__init__()
        self.observation_tokens = PointTokens(dims, channels, width, features)
        self.query_tokens = PointTokens(dims, channels, width, features)
        self.near = NearbyTokens(dims, channels, width, near) if near else None
        self.time = TimeEmbedding(width)
        self.latents = nn.Parameter(0.02 * torch.randn(latents, width))
        self.iterations = nn.ModuleList(
            PerceiverIteration(width, heads, expand=4) for _ in range(iterations)
        )
        self.readout = CrossReadout(width, heads, channels)

    def silence(self) -> None:
        """See `Backbone.silence`."""
        self.readout.decoder.silence()

    def encode(self, obs: Observation) -> Tensor:
        """Embed the observations."""
        tokens = self.observation_tokens(obs.coords, obs.values)
        return tokens if self.near is None else tokens + self.near.at_observations(obs)

    def prepare(self, query: Query, encoded: Tensor | None = None) -> Prepared:
        """Look around the queries."""
        near = None if self.near is None else self.near.at_queries(query.coords, query.obs)
        return Prepared(self.encode(query.obs) if encoded is None else encoded, near)

    def forward(
        self, x_t: Tensor, t: Tensor, query: Query, prepared: Prepared | None = None
    ) -> Tensor:
        """See `Backbone.forward`."""
        time = self.time(t)[:, None]
        observed, near = self.prepare(query) if prepared is None else prepared
        observed = observed + time
        queries = self.query_tokens(query.coords, x_t) + time
        if near is not None:
            queries = queries + near
        inputs = torch.cat([observed, queries], dim=1)
        every = torch.ones_like(query.coords[..., 0], dtype=torch.bool)
        valid = torch.cat([query.obs.valid, every], dim=1)
        latents = self.latents + time
        for iteration in self.iterations:
            latents = iteration(latents, inputs, valid)
        return self.readout(queries, latents)
