"""Where to measure next: against the closed form of a Gaussian field."""

import numpy as np
import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.data.gaussian import GaussianField
from sparsefield.data.observation import Observation
from sparsefield.data.query import Grid
from sparsefield.inference.field import Field
from sparsefield.inference.placement import greedy, place

TRUTH = GaussianField(0.7, 1.0, 0.0)
SEEN = np.array([[-0.8, -0.7], [-0.5, 0.2], [0.1, -0.6], [0.3, 0.1], [-0.9, 0.9]])
GRID = Grid(9, 7)
CELLS = GRID.coords.double().numpy()
ALL = np.ones(len(CELLS), bool)


def variance_after(rows, noise):
    """Mean posterior variance once these cells are measured too, by solving the whole system."""
    at = np.concatenate([SEEN, CELLS[rows]])
    errors = np.concatenate([np.full(len(SEEN), 1e-6), np.full(len(rows), noise)])
    matrix = TRUTH.correlation(at, at) + np.diag(errors**2)
    cross = TRUTH.correlation(at, CELLS)
    return float((1 - (cross * np.linalg.solve(matrix, cross)).sum(0)).mean())


def root():
    covariance = TRUTH.posterior_covariance(SEEN, CELLS, np.full(len(SEEN), 1e-6))
    scales, axes = np.linalg.eigh(covariance)
    return (axes * np.sqrt(scales.clip(0))).T


def field(samples):
    values = torch.from_numpy(samples)[..., None]
    obs = Observation(SEEN, np.zeros((len(SEEN), 1)))
    return Field(values.mean(0), GRID, obs, samples=values)


@pytest.mark.parametrize("noise", [1e-3, 0.5])
def test_every_choice_is_the_best_of_the_closed_form_and_so_is_its_variance(noise):
    rows, variances = greedy(root(), 4, ALL, ALL, noise=noise)
    for step in range(5):
        assert variances[step] == pytest.approx(variance_after(rows[:step], noise), rel=1e-4)
    for step in range(4):
        left = [r for r in range(len(CELLS)) if r not in rows[:step]]
        after = [variance_after([*rows[:step], r], noise) for r in left]
        assert variances[step + 1] == pytest.approx(min(after), rel=1e-4)


def test_samples_choose_nearly_as_well_as_the_covariance():
    exact = greedy(root(), 3, ALL, ALL)[1]
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((300, len(CELLS))) @ root()
    found = place(field(samples), 3)
    reduced = exact[0] - variance_after(found.rows, 1e-6)
    assert reduced > 0.85 * (exact[0] - exact[-1])
    assert found.std[0] == pytest.approx(exact[0] ** 0.5, rel=0.1)
    assert (np.diff(found.std) < 0).all()
    np.testing.assert_array_equal(found.coords, GRID.coords[found.rows])
    # It is better than what luck and the greatest variance choose.
    random = np.mean([variance_after(rng.permutation(63)[:3], 1e-6) for _ in range(50)])
    widest = np.argsort(-(root() ** 2).sum(0))[:3]
    assert variance_after(found.rows, 1e-6) < min(random, variance_after(widest, 1e-6))


def test_chance_does_not_favour_a_large_variance_that_tells_of_nothing_else():
    rng = np.random.default_rng(0)
    common = rng.standard_normal((60, 1)) * np.ones(40)
    alone = 2.5 * rng.standard_normal((60, 400))
    samples = np.concatenate([common + 0.1 * rng.standard_normal((60, 40)), alone], 1)
    mask = np.zeros(440, bool)
    picks = []
    for dof in (59, np.inf):
        mask[[0, 40]] = True
        deviation = (samples - samples.mean(0)) / 59**0.5
        rows, _ = greedy(deviation, 1, mask, np.ones(440, bool), noise=2.0, dof=dof)
        picks.append(int(rows[0]))
    assert picks == [0, 40]


def test_only_candidates_are_chosen_and_only_targets_matter():
    left, lower = CELLS[:, 0] < 0, CELLS[:, 1] < -0.5
    samples = np.random.default_rng(0).standard_normal((200, len(CELLS))) @ root()
    assert left[place(field(samples), 3, candidates=left).rows].all()
    near = place(field(samples), 1, targets=lower & ~left)
    assert abs(CELLS[near.rows[0]] - [0.6, -0.8]).max() < 0.6


@pytest.mark.parametrize(
    ("samples", "k", "options", "message"),
    [
        (5, 2, {}, "10 at least"),
        (20, 0, {}, "0 places"),
        (20, 3, {"candidates": np.arange(63) < 2}, "of 2 candidates"),
        (20, 2, {"candidates": np.ones(5, bool)}, "5 entries"),
        (20, 2, {"targets": np.zeros(63, bool)}, "no point matters"),
        (20, 2, {"noise": -1.0}, "at least 0"),
    ],
)
def test_bad_input_is_said_in_a_line(samples, k, options, message):
    values = np.random.default_rng(0).standard_normal((samples, 63))
    with pytest.raises(InputError, match=message):
        place(field(values), k, **options)
