"""Deterministic masks: which points of item `index` are observed, and which are targets.

A mask depends on (seed, split, index) and nothing else: not on the batch, the number of workers
or the items before it.
"""

import hashlib
import math
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

from sparsefield.core.errors import InputError, unknown_name

SPLIT_CODES = {"train": 0, "validation": 1, "test": 2, "all": 3}

Target = Literal["disjoint", "all"]


def observed_count(n: int, density: float) -> int:
    """Return the number of observed points, `m = max(1, floor(density n))`.

    Args:
        n: Number of points, at least 1.
        density: Observed fraction, in (0, 1].

    Returns:
        `m`, between 1 and `n`.

    Raises:
        InputError: There is no point, or the density is outside (0, 1].
    """
    if n < 1:
        raise InputError(f"a mask needs at least one point, got {n}")
    if not 0 < density <= 1:
        raise InputError(f"density must be in (0, 1], got {density}")
    # 0.29 * 100 is 28.999999999999996 in binary, and 29 is meant.
    return max(1, math.floor(density * n + 1e-9))


def permutation(n: int, seed: int, split: str, index: int) -> np.ndarray:
    """Return the random order of the points of one item: a prefix of it is the mask.

    Args:
        n: Number of points, at least 1.
        seed: Seed of the whole evaluation, at least 0.
        split: "train", "validation", "test" or "all".
        index: Number of the item in its split, at least 0.

    Returns:
        Permutation of `0 ... n - 1`, shape (n,), int64.

    Raises:
        InputError: The split is unknown, there is no point, or seed or index is negative.
    """
    if n < 1:
        raise InputError(f"a mask needs at least one point, got {n}")
    if split not in SPLIT_CODES:
        raise unknown_name("split", split, list(SPLIT_CODES))
    if seed < 0 or index < 0:
        raise InputError(f"seed and index of a mask are at least 0, got {seed} and {index}")
    return np.random.default_rng([seed, SPLIT_CODES[split], index]).permutation(n)


def observed_indices(n: int, density: float, seed: int, split: str, index: int) -> np.ndarray:
    """Return the indices of the observed points of one item, shape (m,).

    Masks of one item are nested: a lower density observes a subset of a higher one.
    Arguments are those of `observed_count` and `permutation`.
    """
    return permutation(n, seed, split, index)[: observed_count(n, density)]


def known_first(order: Tensor, known: Tensor) -> Tensor:
    """Return orders of points (B, L) with the known ones in front, otherwise unchanged.

    Args:
        order: Numbers of the points in order, shape (B, L).
        known: Which points are known, bool, shape (B, L).
    """
    last = (~known).gather(1, order).int()
    return order.gather(1, last.argsort(dim=1, stable=True))


def target_indices(
    n: int, density: float, seed: int, split: str, index: int, target: Target = "all"
) -> np.ndarray:
    """Return the indices of the points that supervise one item.

    Args:
        n: Number of points.
        density: Observed fraction, in (0, 1].
        seed: Seed of the whole evaluation.
        split: "train", "validation", "test" or "all".
        index: Number of the item in its split.
        target: "all" points, or "disjoint": as many again as are observed (or what is left), none
            of them observed.

    Returns:
        Point indices, shape (n,) for "all" and (min(m, n - m),) for "disjoint".

    Raises:
        InputError: The target is unknown, or no point is left for a disjoint one.
    """
    if target == "all":
        return np.arange(n)
    if target != "disjoint":
        raise unknown_name("target", target, ["all", "disjoint"])
    count = observed_count(n, density)
    if count == n:
        raise InputError(f"density {density} observes all {n} points: none is left as a target")
    return permutation(n, seed, split, index)[count : 2 * count]


class MaskCheck(NamedTuple):
    """One verified property of the masks: its name, the verdict and what was seen."""

    name: str
    passed: bool
    detail: str


class MaskSet(NamedTuple):
    """The masks of items `0 ... items - 1` of one split, as one evaluation uses them.

    Attributes:
        n: Points of each item, at least 1.
        density: Observed fraction, in (0, 1].
        seed: Seed of the whole evaluation, at least 0.
        split: "train", "validation", "test" or "all".
        items: Number of items, at least 1.
    """

    n: int = 1024
    density: float = 0.2
    seed: int = 0
    split: str = "validation"
    items: int = 500

    def observed(self, index: int) -> np.ndarray:
        """Return the observed points of one item."""
        return observed_indices(self.n, self.density, self.seed, self.split, index)

    def targets(self, index: int) -> np.ndarray:
        """Return the disjoint target points of one item."""
        return target_indices(self.n, self.density, self.seed, self.split, index, "disjoint")

    def digest(self, order: Iterable[int] | None = None) -> str:
        """Return one hash of all masks, made in the given order of items."""
        masks = {index: self.observed(index) for index in order or range(self.items)}
        joined = b"".join(masks[index].astype("<i8").tobytes() for index in sorted(masks))
        return hashlib.sha256(joined).hexdigest()[:16]


def verify_masks(masks: MaskSet | None = None) -> list[MaskCheck]:
    """Verify what an evaluation relies on: determinism, disjointness and coverage of its masks.

    Args:
        masks: The set to verify; the default is the evaluation protocol's.

    Returns:
        One result per property, each with the reason in words.

    Raises:
        InputError: There are no items, no points, or none left to predict.
    """
    masks = masks or MaskSet()
    if masks.items < 1:
        raise InputError(f"masks of at least one item are needed to verify any, got {masks.items}")
    masks.targets(0)
    return [check(masks) for check in _CHECKS]


def _check_process(masks: MaskSet) -> MaskCheck:
    code = f"from sparsefield.data.masks import MaskSet; print(MaskSet(*{tuple(masks)}).digest())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    here, there = masks.digest(), child.stdout.strip() or child.stderr.strip()[-200:]
    detail = f"hash here {here}, in another process {there}"
    return MaskCheck("same in another process", here == there, detail)


def _check_order(masks: MaskSet) -> MaskCheck:
    forward, backward = masks.digest(), masks.digest(reversed(range(masks.items)))
    detail = f"hash of items in order {forward}, in reverse {backward}"
    return MaskCheck("same in any order", forward == backward, detail)


def _check_disjoint(masks: MaskSet) -> MaskCheck:
    shared = [
        index
        for index in range(masks.items)
        if np.intersect1d(masks.observed(index), masks.targets(index)).size
    ]
    detail = f"{len(shared)} of {masks.items} items have a target point that is observed"
    return MaskCheck("targets disjoint from observations", not shared, detail)


def _check_count(masks: MaskSet) -> MaskCheck:
    expected = observed_count(masks.n, masks.density)
    wrong = [
        index
        for index in range(masks.items)
        if len(np.unique(masks.observed(index))) != expected
        or not np.isin(masks.observed(index), np.arange(masks.n)).all()
    ]
    detail = f"{len(wrong)} of {masks.items} items lack {expected} distinct points of {masks.n}"
    return MaskCheck("exact count", not wrong, detail)


def _check_coverage(masks: MaskSet) -> MaskCheck:
    """Compare how often each point is observed with chance, by a chi-square statistic.

    For independent uniform masks `sum_k (c_k - E)^2 / (E (1 - m/n))` has mean `n` and standard
    deviation of about `sqrt(2 n)`; five of those are tolerated on either side.
    """
    observed = np.concatenate([masks.observed(index) for index in range(masks.items)])
    counts = np.bincount(observed % masks.n, minlength=masks.n)
    rate = observed_count(masks.n, masks.density) / masks.n
    expected = masks.items * rate
    chi2 = float(((counts - expected) ** 2).sum() / (expected * (1 - rate)))
    deviation = (chi2 - masks.n) / math.sqrt(2 * masks.n)
    detail = (
        f"points are observed {counts.min()} to {counts.max()} times (mean {expected:.1f}); "
        f"{abs(deviation):.1f} standard deviations from uniform chance, 5 are tolerated"
    )
    return MaskCheck("uniform coverage", abs(deviation) < 5, detail)


_CHECKS: tuple[Callable[[MaskSet], MaskCheck], ...] = (
    _check_process,
    _check_order,
    _check_disjoint,
    _check_count,
    _check_coverage,
)
