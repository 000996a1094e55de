"""Optimal interpolation: a Gaussian field whose mean and covariance were learnt from examples."""

import math
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparsefield.core.errors import InputError
from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Backbone, Claims, Climate, Query

# Points this close to the centre of a cell, in cells, lie on it.
ON_CENTRE = 1e-4
# Least standard deviation, normalised, that neighbouring points do not share.
LEAST_RESIDUAL = 1e-3


class Latent(NamedTuple):
    """What the observations say of the latent vector.

    Attributes:
        mean: Its posterior mean (B, R).
        seen: Whitened features of the observations (B, M C, R): its covariance is that of the
            prior, less `seen^T seen`.
        scale: Variance (B,) of the field against that of the examples.
    """

    mean: Tensor
    seen: Tensor
    scale: Tensor


class Located(NamedTuple):
    """The posterior at the queries.

    Attributes:
        mean: Posterior mean (B, L C).
        features: Features at the queries (B, L C, R); one item for all where they share places.
        residual: Variance (B, L C) that points do not share.
        latent: See `Latent`.
    """

    mean: Tensor
    features: Tensor
    residual: Tensor
    latent: Latent


class OptimalInterpolation(Backbone):
    r"""The exact denoiser of a Gaussian field with a learnt mean and covariance.

    .. math:: f(x) = m(x) + \Phi(x)^T z + \sqrt{d(x)}\, \epsilon, \qquad z \sim N(0, s^2 I)

    The climatology m and the features Φ are known on the cells of a grid, and multilinear between
    their centres. Given observations the posterior is Gaussian, in closed form. So is the
    denoiser: noisy values are observations too, with the variance of the noise. The scale s² is
    that of the observations at hand, drawn towards 1 as if `freedom` more had been seen:
    :math:`s^2 = (\nu + r^T K^{-1} r) / (\nu + M)`.

    `sparsefield.training.fitting` learns it; no gradient does.

    References:
        Objective Analysis of Meteorological Fields (Gandin, 1963).
        Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), equation 2.25.

    Args:
        channels: Channels C of the values.
        dims: Coordinate dimensions P.
        cells: The grid, as "33x49"; eight cells along each axis if empty.
        rank: Number of features R.
        hours: Hours of the day of which the climatology is known, 1 or 24.
        freedom: How many observations the examples' scale counts as.
    """

    claims = Claims(query_invariant=True, order_invariant=True, linear_cost=True)
    climatology: Tensor

    def __init__(
        self,
        channels: int = 1,
        dims: int = 2,
        cells: str = "",
        rank: int = 8,
        hours: int = 1,
        freedom: float = 20.0,
    ) -> None:
        super().__init__()
        self.channels, self.freedom = channels, freedom
        self.shape = _parse_cells(cells, dims)
        size = math.prod(self.shape)
        self.mean = nn.Parameter(torch.zeros(size, channels))
        self.features = nn.Parameter(torch.randn(size, channels, rank) / math.sqrt(rank))
        self.residual = nn.Parameter(torch.full((size, channels), 0.1))
        self.register_buffer("climatology", torch.zeros(hours, size, channels))

    def climate(self) -> Climate:
        """Return the climatology of the training days and the deviation of each cell."""
        features, residual = self.features.detach().double(), self.residual.detach().double()
        std = (features.square().sum(-1) + residual.square()).sqrt()
        return Climate(self.climatology.double().cpu(), std.cpu())

    def encode(self, obs: Observation) -> Latent:
        """Solve for the latent vector; padded rows say nothing."""
        features, mean, residual = self._at(obs.coords.double())
        valid = obs.valid[..., None].expand(-1, -1, self.channels).flatten(1)
        features = features * valid[..., None]
        error = (obs.values.double().flatten(1) - mean) * valid
        noise = torch.where(valid, residual, 1.0)
        factor = torch.linalg.cholesky(
            features @ features.transpose(1, 2) + torch.diag_embed(noise)
        )
        white = torch.linalg.solve_triangular(factor, error[..., None], upper=False)
        seen = torch.linalg.solve_triangular(factor, features, upper=False)
        latent = (seen.transpose(1, 2) @ white)[..., 0]
        surprise = white.square().sum((1, 2))
        scale = (surprise + self.freedom) / (valid.sum(1) + self.freedom)
        return Latent(latent, seen, scale)

    def prepare(self, query: Query, encoded: Latent | None = None) -> Located:
        """Evaluate the posterior mean at the queries."""
        latent = self.encode(query.obs) if encoded is None else encoded
        same = query.coords.stride(0) == 0
        coords = query.coords[:1] if same else query.coords
        features, mean, residual = self._at(coords.double())
        found = mean + (features @ latent.mean[..., None])[..., 0]
        count = len(query.coords)
        features, residual = (
            x.expand(count, *x.shape[1:]) if same else x for x in (features, residual)
        )
        return Located(found.expand(count, -1), features, residual, latent)

    def forward(
        self, x_t: Tensor, t: Tensor, query: Query, prepared: Located | None = None
    ) -> Tensor:
        """Predict the data x_1, exactly for noise that is white at the queries."""
        here = self.prepare(query) if prepared is None else prepared
        mean = here.mean.expand(len(x_t), -1)
        if not bool(t.any()):
            return mean.unflatten(1, x_t.shape[1:]).to(x_t.dtype)
        time = t[:, None].double().clamp_min(1e-9)
        noise = ((1 - time) / time).square()
        pull = noise * self._solve(x_t.double().flatten(1) / time - mean, noise, here)
        found = x_t.double().flatten(1) / time - pull
        found = torch.where(t[:, None] > 0, found, mean)
        return found.unflatten(1, x_t.shape[1:]).to(x_t.dtype)

    def _solve(self, error: Tensor, noise: Tensor, here: Located) -> Tensor:
        """Return `(C + noise I)^-1 error` for the posterior covariance C at the queries.

        What items have in common, as samples of one field have, is computed once.
        """
        one = here.latent.seen.stride(0) == 0 and here.features.stride(0) == 0
        one = one and bool((noise == noise[:1]).all())
        rows = slice(1) if one else slice(None)
        seen, features = here.latent.seen[rows], here.features[rows].float()
        scale = here.latent.scale[rows][:, None]
        own = scale * here.residual[rows] + noise[rows]
        eye = torch.eye(seen.shape[-1], dtype=seen.dtype, device=seen.device)
        root = torch.linalg.cholesky(eye * (1 + 1e-9) - seen.transpose(1, 2) @ seen)
        basis = features @ (root * scale[..., None].sqrt()).float()
        weighted = basis / own[..., None].float()
        inner = eye + (weighted.transpose(1, 2) @ basis).double()
        first = error / own
        right = (basis.transpose(1, 2).double() @ first[..., None])[..., 0]
        left = torch.cholesky_solve(right[..., None], torch.linalg.cholesky(inner))
        return first - (basis.double() @ left)[..., 0] / own

    def _at(self, coords: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return features (B, L C, R), mean and residual variance (B, L C) at points (B, L, P)."""
        index, weight = _corners(coords, self.shape)
        parts = (self.features, self.mean[..., None], self.residual[..., None])
        features, mean, residual = (_blend(part.double(), index, weight) for part in parts)
        variance = residual.square().clamp_min(LEAST_RESIDUAL**2)
        return features.flatten(1, 2), mean.flatten(1), variance.flatten(1)


def _blend(values: Tensor, index: list[Tensor], weight: list[Tensor]) -> Tensor:
    """Return weighted means (B, L, C, F) of the cells' values (N, C, F)."""
    parts = [w[..., None, None] * values[i] for i, w in zip(index, weight, strict=True)]
    return torch.stack(parts).sum(0)


def _corners(coords: Tensor, shape: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the cells around points (B, L, P), and their multilinear weights, each (B, L)."""
    sizes = torch.tensor(shape, device=coords.device)
    place = (coords + 1) / 2 * sizes - 0.5
    nearest = place.round()
    place = torch.where((place - nearest).abs() < ON_CENTRE, nearest, place)
    place = place.clamp_min(0).minimum((sizes - 1).to(place))
    low = place.floor().long().minimum((sizes - 2).clamp_min(0))
    share = place - low
    index, weight = [], []
    for corner in product((0, 1), repeat=len(shape)):
        step = torch.tensor(corner, device=coords.device)
        cell = (low + step).minimum(sizes - 1)
        flat = cell[..., 0]
        for axis in range(1, len(shape)):
            flat = flat * shape[axis] + cell[..., axis]
        index.append(flat)
        weight.append(torch.where(step == 1, share, 1 - share).prod(-1))
    return index, weight


def _parse_cells(cells: str, dims: int) -> tuple[int, ...]:
    try:
        shape = (
            tuple(int(n) for n in cells.split("x")) if cells else (8 if dims < 3 else 4,) * dims
        )
    except ValueError as error:
        raise InputError(f"cells is a grid as 33x49, not '{cells}'") from error
    if len(shape) != dims or not all(0 < n < 2**14 for n in shape) or math.prod(shape) > 2**20:
        raise InputError(f"cells is a grid of {dims} axes as 33x49, not '{cells}'")
    return shape
