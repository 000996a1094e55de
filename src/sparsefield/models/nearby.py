"""Tokens that know the nearest observations from the start."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsefield.data.observation import Observation
from sparsefield.nn.neighbourhood import Neighbourhood, find_neighbourhood


class NearbyTokens(nn.Module):
    """Embed where the nearest observations of a point lie, and what was measured there.

    An MLP reads their offsets and distances, in mean spacings, and their values relative to a
    value of the point itself: all neighbours at once, the nearest first.

    Args:
        dims: Coordinate dimensions P.
        channels: Channels C of the values.
        width: Channels D of a token.
        count: Neighbours K, at least 1.
    """

    def __init__(self, dims: int, channels: int, width: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.mlp = nn.Sequential(
            nn.Linear(count * (dims + 4 + channels), 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
        )
        self.own = nn.Linear(channels, width, bias=False)

    def at_queries(self, coords: Tensor, obs: Observation) -> Tensor:
        """Embed the neighbours of queries (B, L, P), relative to their average: (B, L, D)."""
        hood = find_neighbourhood(coords, obs.coords, obs.valid, self.count)
        return self._embed(hood, obs.values, hood.interpolate(obs.values))

    def at_observations(self, obs: Observation) -> Tensor:
        """Embed the other observations near each one, relative to its value: (B, M, D)."""
        hood = find_neighbourhood(obs.coords, obs.coords, obs.valid, self.count + 1)
        return self._embed(hood.without_first(), obs.values, obs.values)

    def _embed(self, hood: Neighbourhood, values: Tensor, own: Tensor) -> Tensor:
        around = hood.gather(values) - own[:, :, None]
        exists = torch.ones_like(around[..., :1])
        if hood.hidden is not None:
            exists = exists.masked_fill(hood.hidden[..., None], 0.0)
        pairs = torch.cat([exists, exists * hood.geometry, exists * around], dim=-1)
        missing = self.count - pairs.shape[2]
        return self.mlp(F.pad(pairs, (0, 0, 0, missing)).flatten(2)) + self.own(own)
