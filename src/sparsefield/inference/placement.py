"""Where to measure next: the places that most reduce the expected variance of a field."""

import math
from typing import NamedTuple

import numpy as np
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.core.words import counted
from sparsefield.inference.field import Field

# Fewer samples say next to nothing on a covariance.
FEWEST_SAMPLES = 10


class Placement(NamedTuple):
    """Places to measure, best first.

    Attributes:
        rows: Which points of the field they are (K,).
        coords: Their coordinates (K, P), as those of the field.
        std: Root of the field's expected mean variance, before and after each new measurement
            (K + 1,), in the units of the values.
    """

    rows: np.ndarray
    coords: Tensor
    std: np.ndarray


def place(
    field: Field,
    k: int,
    *,
    candidates: np.ndarray | None = None,
    targets: np.ndarray | None = None,
    noise: float = 0.0,
) -> Placement:
    r"""Choose the next places to measure, one after the other.

    Each is the one that most reduces the sum of the field's variances (A-optimality), given those
    before it. With the covariance :math:`\Sigma` of joint samples and the error :math:`\tau` of a
    new measurement, one at j reduces it by

    .. math:: \sum_i \frac{\Sigma_{ij}^2}{\Sigma_{jj} + \tau^2}.

    For a Gaussian posterior this does not depend on what will be measured; of others it is the
    best linear reduction.

    References:
        Near-optimal sensor placements in Gaussian processes (Krause et al., 2008).
        Active learning with statistical models (Cohn et al., 1996).

    Args:
        field: A field of one channel with joint samples, at least 10; some hundred are enough.
        k: How many places, at least 1.
        candidates: Which of its points may be measured (L,), bool; all by default.
        targets: Which of its points matter (L,), bool; all by default.
        noise: Standard deviation of a new measurement's error, at least 0, in the unit of the
            values, where the samples are of the noise-free field.

    Raises:
        InputError: There are too few samples or candidates, there are several channels, a mask
            does not fit, or the noise is negative.
    """
    samples, may, matters = _checked(field, k, candidates, targets)
    if noise < 0:
        raise InputError(f"noise must be at least 0, not {noise}")
    root = (samples - samples.mean(0)) / math.sqrt(len(samples) - 1)
    rows, variances = greedy(root, k, may, matters, noise=noise, dof=len(samples) - 1)
    return Placement(rows, field.coords[rows], np.sqrt(variances))


def greedy(
    root: np.ndarray,
    k: int,
    candidates: np.ndarray,
    targets: np.ndarray,
    *,
    noise: float = 0.0,
    dof: float = math.inf,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the places (K,) that most reduce the mean variance, and that variance (K + 1,).

    Args:
        root: Root (S, L) of the covariance, `root.T @ root`.
        k: How many places.
        candidates: Which may be chosen (L,), bool.
        targets: Which matter (L,), bool.
        noise: Standard deviation of a measurement's error.
        dof: Degrees of freedom of a covariance that was estimated; each place takes one.
    """
    root, left = root.copy(), candidates.copy()
    chosen = np.empty(k, int)
    variances = [float((root[:, targets] ** 2).sum(0).mean())]
    for step in range(k):
        gain = _gains(root, targets, noise, dof - step)
        best = int(np.argmax(np.where(left, gain, -np.inf)))
        root = _measured(root, best, noise)
        chosen[step], left[best] = best, False
        variances.append(float((root[:, targets] ** 2).sum(0).mean()))
    return chosen, np.array(variances)


def _gains(root: np.ndarray, targets: np.ndarray, noise: float, dof: float) -> np.ndarray:
    r"""Return by how much a measurement at each point reduces the sum of variances (L,).

    Of a covariance estimated from Gaussian samples, squared entries are too large by chance,
    :math:`E\,\hat c_{ij}^2 = c_{ij}^2 + (c_{ij}^2 + v_i v_j) / \nu`, which would favour a large
    variance over a wide reach where measurements have errors; this is taken out.
    """
    variance = (root**2).sum(0)
    wanted = root[:, targets]
    squares = np.einsum("sl,sl->l", root, (wanted @ wanted.T) @ root)
    if math.isfinite(dof):
        squares = squares - variance * variance[targets].sum() / dof
        squares = squares / (1 + 1 / dof - 2 / dof**2)
    total = variance + noise**2
    return np.divide(squares, total, out=np.zeros_like(total), where=total > 0)


def _measured(root: np.ndarray, row: int, noise: float) -> np.ndarray:
    r"""Return the root of the covariance given a measurement at a point.

    With the column :math:`d` of the root, :math:`(I - \gamma d d^T)^2 = I - d d^T / (d^T d +
    \tau^2)` for :math:`\gamma = (1 - \tau / \sqrt{d^T d + \tau^2}) / d^T d`.
    """
    column = root[:, row]
    variance = float(column @ column)
    if variance == 0:
        return root
    step = (1 - noise / math.sqrt(variance + noise**2)) / variance
    return root - np.outer(step * column, column @ root)


def _checked(
    field: Field, k: int, candidates: np.ndarray | None, targets: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return samples (S, L) and masks (L,)."""
    if field.samples is None or len(field.samples) < FEWEST_SAMPLES:
        raise InputError(
            f"placement takes joint samples, {FEWEST_SAMPLES} at least and better 200: "
            "posterior.sample(at, 200)"
        )
    if field.samples.shape[-1] != 1:
        raise InputError(f"placement takes one channel, not {field.samples.shape[-1]}")
    samples = field.samples[..., 0].double().cpu().numpy()
    may, matters = (_mask(mask, samples.shape[1]) for mask in (candidates, targets))
    if not 1 <= k <= min(int(may.sum()), len(samples) - 2):
        raise InputError(
            f"{counted(k, 'place')} cannot be chosen of "
            f"{counted(int(may.sum()), 'candidate')} with {counted(len(samples), 'sample')}"
        )
    if not matters.any():
        raise InputError("no point matters: targets are all False")
    return samples, may, matters


def _mask(mask: np.ndarray | None, count: int) -> np.ndarray:
    if mask is None:
        return np.ones(count, bool)
    found = np.asarray(mask, bool).reshape(-1)
    if len(found) != count:
        raise InputError(f"a mask of {len(found)} entries does not fit a field of {count} points")
    return found
