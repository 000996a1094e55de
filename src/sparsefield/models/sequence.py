"""Backbones that read observations and queries as one sequence: V1, V2, the transformer."""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparsefield.core.errors import unknown_name
from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Backbone, Query
from sparsefield.models.decoder import Readout
from sparsefield.models.nearby import NearbyTokens
from sparsefield.nn.fourier import TimeEmbedding
from sparsefield.nn.ordering import grouped_order, inverse_order, reorder, traversals
from sparsefield.nn.tokens import PointTokens

LAYOUTS = ("grouped", "joint")
STEPS = ("learned", "distance")
# Distance between two tokens at which a step scaled by distance is as learned: a cell of 32.
STEP_UNIT = 2 / 32
SMALLEST_GAP = 1e-3  # in units: points may coincide


class Traversal(NamedTuple):
    """How the points of observations and queries are read along one point order.

    Attributes:
        order: Which point comes at each place of the sequence (B, M + L).
        rank: At which place each point comes (B, M + L).
        valid: Which places hold no padding (B, M + L), or None where none does.
        gaps: Distance of each point from the one before (B, M + L), or None if it is not used.
    """

    order: Tensor
    rank: Tensor
    valid: Tensor | None
    gaps: Tensor | None


class Arrangement(NamedTuple):
    """What the mixing of observations and queries needs, the same at every step of a sampler.

    Attributes:
        observed: Tokens of the observations (B, M, D), before the time is added.
        traversals: Each traversal of the points.
        near: What is near the queries (B, L, D), or None if they do not look.
    """

    observed: Tensor
    traversals: list[Traversal]
    near: Tensor | None


class SequenceMixer(nn.Module):
    """Embed observations and queries, and mix them as one sequence along a point order.

    Padding comes last, where it is inert. Several traversals are mixed one by one, with the same
    weights, and averaged.

    Args:
        mixer: Module that maps tokens (B, M + L, D), an optional validity (B, M + L) and the
            optional distances of tokens from those before them (B, M + L) to (B, M + L, D).
        channels: Channels C of the values.
        dims: Coordinate dimensions P.
        width: Channels D of a token.
        features: Fourier frequencies.
        order: Name of the point order, a key of ORDERS or TRAVERSALS.
        layout: "grouped", observations before queries, each along the order; or "joint", all
            points along it, so that neighbours in space meet.
        step: "learned" from the token alone, or also proportional to the "distance" from the
            token before, so that the density of points does not change the dynamics.
        near: Nearest observations that every token knows from the start, see `NearbyTokens`.

    Raises:
        InputError: The order, layout or step is unknown.
    """

    def __init__(
        self,
        mixer: nn.Module,
        channels: int,
        dims: int,
        width: int,
        features: int,
        order: str = "given",
        layout: str = "grouped",
        step: str = "learned",
        near: int = 0,
    ) -> None:
        super().__init__()
        for kind, name, known in (("layout", layout, LAYOUTS), ("step", step, STEPS)):
            if name not in known:
                raise unknown_name(kind, name, list(known))
        self.orders = traversals(order)
        self.layout, self.step = layout, step
        self.observation_tokens = PointTokens(dims, channels, width, features)
        self.query_tokens = PointTokens(dims, channels, width, features)
        self.near = NearbyTokens(dims, channels, width, near) if near else None
        self.time = TimeEmbedding(width)
        self.mixer = mixer

    def encode(self, obs: Observation) -> Tensor:
        """Embed the observations as tokens (B, M, D)."""
        tokens = self.observation_tokens(obs.coords, obs.values)
        return tokens if self.near is None else tokens + self.near.at_observations(obs)

    def prepare(self, query: Query, observed: Tensor) -> Arrangement:
        """Arrange embedded observations (B, M, D) and the queries along the point orders."""
        points = torch.cat([query.obs.coords, query.coords], dim=1)
        group = self._group(query)
        along = [self._traverse(name, points, group) for name in self.orders]
        near = None if self.near is None else self.near.at_queries(query.coords, query.obs)
        return Arrangement(observed, along, near)

    def forward(
        self, x_t: Tensor, t: Tensor, query: Query, arranged: Arrangement
    ) -> tuple[Tensor, Tensor]:
        """Return the mixed tokens of observations (B, M, D) and of queries (B, L, D)."""
        count = arranged.observed.shape[1]
        queries = self.query_tokens(query.coords, x_t)
        if arranged.near is not None:
            queries = queries + arranged.near
        tokens = torch.cat([arranged.observed, queries], dim=1)
        tokens = tokens + self.time(t)[:, None]
        mixed = [self._mix(tokens, along) for along in arranged.traversals]
        tokens = mixed[0] if len(mixed) == 1 else torch.stack(mixed).mean(0)
        return tokens[:, :count], tokens[:, count:]

    def _group(self, query: Query) -> Tensor:
        """Return what comes first (B, M + L): 0 before 1 before padding, 2."""
        queries = torch.full_like(query.coords[..., 0], self.layout == "grouped", dtype=torch.long)
        return torch.cat([torch.where(query.obs.valid, 0, 2), queries], dim=1)

    def _traverse(self, name: str, points: Tensor, group: Tensor) -> Traversal:
        """Arrange points (B, M + L, P) of groups (B, M + L) along a point order."""
        order = grouped_order(name, points, group)
        padded = bool((group == 2).any())
        valid = group.gather(1, order) < 2 if padded else None
        gaps = _gaps(reorder(points, order), valid) if self.step == "distance" else None
        return Traversal(order, inverse_order(order), valid, gaps)

    def _mix(self, tokens: Tensor, along: Traversal) -> Tensor:
        """Mix tokens (B, M + L, D) along one traversal of their points."""
        mixed = self.mixer(reorder(tokens, along.order), along.valid, along.gaps)
        return reorder(mixed, along.rank)


def _gaps(points: Tensor, valid: Tensor | None) -> Tensor:
    """Return the distance (B, L) of every point (B, L, P) from the one before, in step units.

    It is 1 at either end of the valid points (B, L), from which nothing comes.
    """
    distance = points.diff(dim=1).norm(dim=-1) / STEP_UNIT
    gaps = torch.cat([torch.ones_like(distance[:, :1]), distance], 1).clamp_min(SMALLEST_GAP)
    return gaps if valid is None else gaps.where(valid, 1.0)


class SequenceBackbone(Backbone):
    """A sequence mixer, and a readout of the queries against the observations.

    Args:
        sequence: What mixes observations and queries.
        readout: Maps queries (B, L, D), observations (B, M, D) and their validity (B, M) to
            the prediction (B, L, C).
    """

    def __init__(self, sequence: SequenceMixer, readout: Readout) -> None:
        super().__init__()
        self.sequence, self.readout = sequence, readout
        if "given" in sequence.orders:
            self.claims = replace(self.claims, order_invariant=False)

    def silence(self) -> None:
        """See `Backbone.silence`."""
        self.readout.decoder.silence()

    def encode(self, obs: Observation) -> Tensor:
        """Embed the observations."""
        return self.sequence.encode(obs)

    def prepare(self, query: Query, encoded: Tensor | None = None) -> Arrangement:
        """Arrange observations and queries along the point orders."""
        observed = self.encode(query.obs) if encoded is None else encoded
        return self.sequence.prepare(query, observed)

    def forward(
        self, x_t: Tensor, t: Tensor, query: Query, prepared: Arrangement | None = None
    ) -> Tensor:
        """See `Backbone.forward`."""
        arranged = self.prepare(query) if prepared is None else prepared
        observed, queries = self.sequence(x_t, t, query, arranged)
        return self.readout(queries, observed, query.obs.valid)
