"""The nearest context points of every query: who they are, where they lie, how much they count."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparsefield.nn.local_attention import local_attention
from sparsefield.nn.neighbours import nearest
from sparsefield.nn.ordering import point_order, reorder

# Distances below this many mean spacings count as this: where it matters, points coincide.
_CLOSEST = 0.01


@dataclass(frozen=True)
class Neighbourhood:
    """K neighbours of each query, with lengths in units of the mean spacing of the context.

    Attributes:
        index: Which context points (B, L, K).
        hidden: Which of them do not exist (B, L, K), or None where all do.
        geometry: Offset, distance, squared distance and logarithm of the distance
            (B, L, K, P + 3).
    """

    index: Tensor
    hidden: Tensor | None
    geometry: Tensor

    def gather(self, values: Tensor) -> Tensor:
        """Return the values (B, L, K, C) of the neighbours from those of the context (B, M, C)."""
        return take_neighbours(values, self.index)

    def hide(self, score: Tensor) -> Tensor:
        """Set the scores (B, L, K, ...) of neighbours that do not exist to minus infinity."""
        if self.hidden is None:
            return score
        hidden = self.hidden.reshape(*self.hidden.shape, *[1] * (score.ndim - self.hidden.ndim))
        return score.masked_fill(hidden, float("-inf"))

    def closest(self, count: int) -> "Neighbourhood":
        """Return the neighbourhood of the `count` nearest of these neighbours."""
        hidden = None if self.hidden is None else self.hidden[:, :, :count]
        return Neighbourhood(self.index[:, :, :count], hidden, self.geometry[:, :, :count])

    def without_first(self) -> "Neighbourhood":
        """Return the neighbourhood without the nearest neighbour, which may be a point itself."""
        hidden = None if self.hidden is None else self.hidden[:, :, 1:]
        return Neighbourhood(self.index[:, :, 1:], hidden, self.geometry[:, :, 1:])

    def weights(self, power: float) -> Tensor:
        """Return weights (B, L, K) that fall with a power of the distance and sum to 1."""
        return self.hide(-power * self.geometry[..., -1]).softmax(dim=-1)

    def interpolate(self, values: Tensor, power: float = 4.0) -> Tensor:
        """Interpolate context values (B, M, C) at the queries (B, L, C) by inverse distances.

        References:
            A two-dimensional interpolation function for irregularly-spaced data (Shepard, 1968).
        """
        return (self.weights(power)[..., None] * self.gather(values)).sum(dim=2)


def take_neighbours(values: Tensor, index: Tensor) -> Tensor:
    """Take values (B, M, C) at indices (B, L, K): (B, L, K, C)."""
    flat = index.flatten(1)[..., None].expand(-1, -1, values.shape[-1])
    return values.gather(1, flat).unflatten(1, index.shape[1:])


def mean_spacing(valid: Tensor, dims: int) -> Tensor:
    """Return the spacing (B, 1, 1) of as many points spread evenly over [-1, 1]^P."""
    return 2 * valid.sum(1).float().pow(-1 / dims)[:, None, None]


def find_neighbourhood(
    coords: Tensor,
    context_coords: Tensor,
    valid: Tensor,
    count: int,
    radius: float = math.inf,
) -> Neighbourhood:
    """Find the `count` nearest valid context points (B, M, P) of each query (B, L, P).

    Of points equally far away, as on a grid, those that come first in raster order are taken, so
    that the order in which they were given does not matter. Points beyond `radius` do not count,
    but for the nearest one.
    """
    with torch.autocast(coords.device.type, enabled=False):
        order = point_order("raster", context_coords)
        index, reached = nearest(
            coords, reorder(context_coords, order), valid.gather(1, order), count
        )
        index = order.gather(1, index.flatten(1)).view_as(index)
        where = take_neighbours(context_coords, index)
        offset = (where - coords[:, :, None]) / mean_spacing(valid, coords.shape[-1])[..., None]
        squared = offset.square().sum(-1, keepdim=True)
        if radius < math.inf:
            limit = (radius / mean_spacing(valid, coords.shape[-1])).square()
            reached[..., 1:] &= squared[..., 1:, 0] <= limit
        distance = squared.clamp_min(_CLOSEST**2).sqrt()
        geometry = torch.cat([offset, distance, squared, distance.log()], dim=-1)
        return Neighbourhood(index, None if bool(reached.all()) else ~reached, geometry)


class LocalAttention(nn.Module):
    r"""Attention of each query to its neighbourhood, with a learned bias of the geometry.

    .. math:: \mathrm{softmax}_k\big(q\cdot k_k/\sqrt{E} + w_h\cdot g_k\big)\, v_k

    where g are the features of `Neighbourhood.geometry`. Each head starts as a Gaussian of the
    offset, :math:`-|\Delta - \mu_h|^2/2`: one head in four centred, the others looking one mean
    spacing away in directions spread around the point.

    Args:
        width: Channels D; divisible by `heads`.
        heads: Attention heads h.
        dims: Coordinate dimensions P.

    Raises:
        ValueError: `width` is not divisible by `heads`.
    """

    def __init__(self, width: int, heads: int, dims: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.heads = heads
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        gaussian = torch.zeros(dims + 3, heads)
        gaussian[:dims] = _directions(heads, dims).T
        gaussian[dims + 1] = -0.5
        self.bias = nn.Parameter(gaussian)

    def forward(self, x: Tensor, context: Tensor, hood: Neighbourhood) -> Tensor:
        """Attend from x (B, L, D) to its neighbours in context (B, M, D)."""
        q = self.query(x).unflatten(-1, (self.heads, -1))
        k, v = self.key_value(context).unflatten(-1, (2, self.heads, -1)).unbind(2)
        with torch.autocast(x.device.type, enabled=False):
            bias = hood.hide(hood.geometry @ self.bias.float())
            y = local_attention(q, k, v, bias, hood.index)
        return self.out(y.flatten(-2))


class PairEmbedding(nn.Module):
    """Embed what a neighbourhood looks like: a weighted sum of functions of geometry and value.

    Args:
        channels: Channels C of the values.
        dims: Coordinate dimensions P.
        width: Channels D of the result.
        hidden: Channels of the function of a pair.
        count: Nearest neighbours that are looked at.
    """

    def __init__(
        self, channels: int, dims: int, width: int, hidden: int = 64, count: int = 12
    ) -> None:
        super().__init__()
        self.count = count
        self.pair = nn.Sequential(nn.Linear(dims + 3 + channels, hidden), nn.ReLU())
        self.out = nn.Linear(hidden, width)

    def forward(self, values: Tensor, hood: Neighbourhood) -> Tensor:
        """Embed the neighbours' values, taken from the context (B, M, C), as tokens (B, L, D)."""
        hood = hood.closest(self.count)
        pairs = self.pair(torch.cat([hood.geometry, hood.gather(values)], dim=-1))
        weights = hood.weights(power=1.0)[..., None].to(pairs.dtype)
        return self.out((weights * pairs).sum(dim=2))


def _directions(heads: int, dims: int) -> Tensor:
    """Return (heads, P) offsets: a quarter of them zero, the rest unit vectors spread out."""
    centred = max(1, heads // 4)
    if dims == 2:
        angle = 2 * math.pi * torch.arange(heads - centred) / max(1, heads - centred)
        around = torch.stack([angle.sin(), angle.cos()], dim=-1)
    else:
        generator = torch.Generator().manual_seed(0)
        around = torch.randn(heads - centred, dims, generator=generator)
        around = around / around.norm(dim=-1, keepdim=True)
    return torch.cat([torch.zeros(centred, dims), around])
