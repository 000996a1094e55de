"""Backbones that read observations and queries as one sequence: V1, V2, the transformer."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sparsefield.core.errors import unknown_name
from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Backbone
from sparsefield.nn.fourier import TimeEmbedding
from sparsefield.nn.ordering import grouped_order, inverse_order, reorder, traversals
from sparsefield.nn.tokens import PointTokens

LAYOUTS = ("grouped", "joint")
STEPS = ("learned", "distance")
# Distance between two tokens at which a step scaled by distance is as learned: a cell of 32.
STEP_UNIT = 2 / 32
SMALLEST_GAP = 1e-3  # in units: points may coincide


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
    ) -> None:
        super().__init__()
        for kind, name, known in (("layout", layout, LAYOUTS), ("step", step, STEPS)):
            if name not in known:
                raise unknown_name(kind, name, list(known))
        self.orders = traversals(order)
        self.layout, self.step = layout, step
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
        points = torch.cat([obs.coords, coords], dim=1)
        rank = self._rank(obs, coords)
        mixed = [self._mix(tokens, points, rank, order) for order in self.orders]
        tokens = mixed[0] if len(mixed) == 1 else torch.stack(mixed).mean(0)
        return tokens[:, : observed.shape[1]], tokens[:, observed.shape[1] :]

    def _rank(self, obs: Observation, coords: Tensor) -> Tensor:
        """Return what comes first (B, M + L): 0 before 1 before padding, 2."""
        queries = torch.full_like(coords[..., 0], self.layout == "grouped", dtype=torch.long)
        return torch.cat([torch.where(obs.valid, 0, 2), queries], dim=1)

    def _mix(self, tokens: Tensor, points: Tensor, rank: Tensor, name: str) -> Tensor:
        """Mix tokens (B, M + L, D) along one traversal of their points."""
        order = grouped_order(name, points, rank)
        padded = bool((rank == 2).any())
        valid = rank.gather(1, order) < 2 if padded else None
        gaps = _gaps(reorder(points, order), valid) if self.step == "distance" else None
        return reorder(self.mixer(reorder(tokens, order), valid, gaps), inverse_order(order))


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

    def __init__(self, sequence: SequenceMixer, readout: nn.Module) -> None:
        super().__init__()
        self.sequence, self.readout = sequence, readout
        if "given" in sequence.orders:
            self.claims = replace(self.claims, order_invariant=False)

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        coords: Tensor,
        obs: Observation,
        prepared: Any = None,
        cell: Tensor | None = None,
    ) -> Tensor:
        """See `Backbone.forward`."""
        observed, queries = self.sequence(x_t, t, coords, obs)
        return self.readout(queries, observed, obs.valid)
