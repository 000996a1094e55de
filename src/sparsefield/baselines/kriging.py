"""Ordinary kriging, its covariance fitted by restricted maximum likelihood."""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular
from scipy.spatial import cKDTree

from sparsefield.baselines.points import Points, Prediction, in_own_units
from sparsefield.data.gaussian import KERNELS, GaussianField, query_blocks
from sparsefield.data.likelihood import fit_gaussian_field

# Up to so many points one factor serves every query; beyond, each has its neighbourhood.
DENSE_POINTS = 3000
# Points of a neighbourhood.
NEIGHBOURS = 64
# Up to so many points the likelihood takes them all; beyond, a part of them.
FIT_POINTS = 1500
# Neighbourhoods that are solved at a time.
AT_ONCE = 256
NO_VARIANCE = "one measurement says nothing on the variability: no standard deviation"


@in_own_units
def kriging(points: Points) -> Prediction:
    """Predict by ordinary kriging with a nugget and a Matern covariance.

    Its smoothness is 1/2, 3/2 or 5/2, whichever is likeliest. Channels share the correlation,
    unless errors are stated, which differ by channel. `std` is that of the exact value at a new
    point, which includes the nugget but not the error that a new measurement would have.

    Reference: Cressie, Statistics for Spatial Data (1993), section 3.2; Stein, Interpolation of
    Spatial Data (1999), section 6.4.
    """
    if len(points.coords) == 1:
        mean = np.broadcast_to(points.values, (len(points.query), points.values.shape[1]))
        unknown = np.full_like(mean, np.nan)
        return Prediction(mean, unknown, field_std=unknown, note=NO_VARIANCE)
    if points.noise is None:
        return _krige(points)
    channels = [_krige(points.channel(c)) for c in range(points.values.shape[1])]
    mean, std, field_std = (
        np.hstack([getattr(each, name) for each in channels])
        for name in ("mean", "std", "field_std")
    )
    return Prediction(mean, std, field_std=field_std)


def _krige(points: Points) -> Prediction:
    """Fit and predict channels that share the covariance."""
    noise = None if points.noise is None else points.noise[:, 0]
    part = fitted_part(points.coords)
    field = fit_gaussian_field(
        points.coords[part], points.values[part], None if noise is None else noise[part]
    )
    mean, field_std = ordinary_kriging(field, points)
    return Prediction(
        mean, np.hypot(field_std, np.sqrt(field.nugget * field.variance)), 0, field_std
    )


def fitted_part(coords: np.ndarray) -> np.ndarray:
    """Return the indices of at most `FIT_POINTS` points, from which a covariance can be told.

    They are random points, for what goes on over long distances, and the nearest neighbour of
    each, for what goes on over short ones.
    """
    if len(coords) <= FIT_POINTS:
        return np.arange(len(coords))
    chosen = np.random.default_rng(0).permutation(len(coords))[: FIT_POINTS // 2]
    neighbours = cKDTree(coords).query(coords[chosen], 2)[1][:, 1]
    return np.unique(np.concatenate([chosen, neighbours]))


def ordinary_kriging(field: GaussianField, points: Points) -> tuple[np.ndarray, np.ndarray]:
    r"""Return mean and standard deviation of a field of unknown mean given measurements.

    With the measurements' covariance :math:`\Sigma`, the cross-covariance :math:`c` and the mean
    :math:`m = 1^T \Sigma^{-1} y / 1^T \Sigma^{-1} 1`,

    .. math:: \hat f = m + c^T \Sigma^{-1} (y - m), \qquad
        s^2 = k(0) - c^T \Sigma^{-1} c
        + \frac{(1 - 1^T \Sigma^{-1} c)^2}{1^T \Sigma^{-1} 1}.

    More than `DENSE_POINTS` points cost too much; each query then sees its nearest `NEIGHBOURS`.

    Args:
        field: Covariance; its mean is not used.
        points: Measurements and queries; errors, where stated, are those of the first channel.

    Returns:
        Mean and standard deviation of the field without nugget and error, each (L, C).
    """
    noise = None if points.noise is None else points.noise[:, 0]
    if len(points.coords) > DENSE_POINTS:
        return _krige_locally(field, points, noise)
    unit, errors = _unit(field, noise)
    factor = unit.factor(points.coords, errors)
    data = np.column_stack([np.ones(len(points.coords)), points.values])
    white = solve_triangular(factor, data, lower=True)
    ones, residual = white[:, :1], white[:, 1:]
    information = (ones**2).sum()
    constant = (ones * residual).sum(axis=0) / information
    residual = residual - ones * constant
    means, variances = [], []
    for block in query_blocks(points.query, len(points.coords)):
        cross = solve_triangular(factor, field.correlation(points.coords, block), lower=True)
        means.append(constant + cross.T @ residual)
        drift = (1 - cross.T @ ones[:, 0]) ** 2 / information
        variances.append(1 - np.einsum("ml,ml->l", cross, cross) + drift)
    return np.concatenate(means), _deviation(np.concatenate(variances), field)


def _unit(
    field: GaussianField, noise: np.ndarray | None
) -> tuple[GaussianField, np.ndarray | None]:
    """Return the field with variance 1 and the errors in units of its deviation."""
    unit = replace(field, variance=1.0, mean=0.0)
    return unit, None if noise is None else noise / math.sqrt(float(np.ravel(field.variance)[0]))


def _deviation(variance: np.ndarray, field: GaussianField) -> np.ndarray:
    """Return standard deviations (L, C) of variances (L,) in units of each channel's."""
    return np.sqrt(np.maximum(variance, 0))[:, None] * np.sqrt(field.variance)


class _Neighbourhoods(NamedTuple):
    """Points that predict each of Q queries.

    Attributes:
        within: Distances between the neighbours (Q, k, k).
        across: Distances from neighbours to query (Q, k).
        data: Ones and values of the neighbours (Q, k, 1 + C).
        errors: Error variance of the neighbours (Q, k).
    """

    within: np.ndarray
    across: np.ndarray
    data: np.ndarray
    errors: np.ndarray

    @classmethod
    def of(
        cls, points: Points, index: np.ndarray, query: np.ndarray, noise: np.ndarray | None
    ) -> "_Neighbourhoods":
        """Gather the neighbours with the given indices (Q, k)."""
        near = points.coords[index]
        within = np.linalg.norm(near[:, :, None] - near[:, None], axis=-1)
        across = np.linalg.norm(near - query[:, None], axis=-1)
        values = points.values[index]
        data = np.concatenate([np.ones((*index.shape, 1)), values], axis=-1)
        return cls(within, across, data, 0.0 * across if noise is None else noise[index] ** 2)

    def krige(self, kernel: str, length: float, nugget: float) -> tuple[np.ndarray, np.ndarray]:
        """Return means (Q, C) and variances (Q,) of the field, in units of its variance."""
        matrix = KERNELS[kernel](self.within / length)
        diagonal = np.arange(matrix.shape[1])
        matrix[:, diagonal, diagonal] += nugget + self.errors
        cross = KERNELS[kernel](self.across / length)
        solved = np.linalg.solve(matrix, np.concatenate([cross[..., None], self.data], axis=-1))
        gain, ones, data = solved[..., 0], solved[..., 1], solved[..., 2:]
        information = ones.sum(axis=1)
        drift = 1 - gain.sum(axis=1)
        mean = np.einsum("qk,qkc->qc", cross, data) + (drift / information)[:, None] * data.sum(
            axis=1
        )
        return mean, 1 - (cross * gain).sum(axis=1) + drift**2 / information


def _krige_locally(
    field: GaussianField, points: Points, noise: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    _, errors = _unit(field, noise)
    tree = cKDTree(points.coords)
    means, variances = [], []
    for block in np.array_split(points.query, math.ceil(len(points.query) / AT_ONCE)):
        index = tree.query(block, min(NEIGHBOURS, len(points.coords)))[1]
        near = _Neighbourhoods.of(points, index, block, errors)
        mean, variance = near.krige(field.kernel, field.length, field.nugget)
        means.append(mean)
        variances.append(variance)
    return np.concatenate(means), _deviation(np.concatenate(variances), field)
