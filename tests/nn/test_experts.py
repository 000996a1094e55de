"""The expert bank against brute force."""

import numpy as np
import pytest
import torch

from sparsefield.nn.experts import groups
from sparsefield.nn.experts.groups import (
    GROUPS,
    Problem,
    ask_experts,
    isotropic_bank,
    isotropic_numbers,
)
from sparsefield.nn.experts.kernels import JITTER
from sparsefield.nn.experts.kriging import Seen, predict, solve, stretch, stretch_direction

COUNT, QUERIES = 21, 5


def observed(axes=2, seed=0):
    rng = np.random.default_rng(seed)
    coords, query = rng.standard_normal((COUNT, axes)), rng.standard_normal((QUERIES, axes))
    noise = np.exp(0.5 * rng.standard_normal(COUNT))
    return Seen(coords, rng.standard_normal(COUNT), noise), query


def covariance(bank, number, a, b):
    """Return the field's covariance (N, M) of one expert, written out."""
    scaled = bank.rate[number] * np.linalg.norm(a[:, None] - b[None], axis=-1)
    polynomial = 1 + bank.linear[number] * scaled + bank.square[number] * scaled**2
    return (1 - bank.nugget[number]) * polynomial * np.exp(-scaled)


def krige(matrix, cross, prior, values):
    """Return mean and variance of ordinary kriging, by the textbook's bordered system."""
    count = len(values)
    border = np.ones((count + 1, count + 1))
    border[:count, :count], border[count, count] = matrix, 0
    weights = np.linalg.solve(border, np.append(cross, 1))
    return weights[:count] @ values, prior - weights @ np.append(cross, 1)


@pytest.mark.parametrize("number", [0, 37, 89])
@pytest.mark.parametrize("trend", [0.0, 3.0])
def test_an_expert_is_ordinary_kriging(number, trend):
    seen, query = observed()
    bank = isotropic_bank()
    systems = solve(bank, seen, trend)
    mean, var = predict(bank, systems, seen.coords, query, trend)
    noise = bank.nugget[number] * seen.noise + JITTER
    matrix = covariance(bank, number, seen.coords, seen.coords) + np.diag(noise)
    matrix += trend * seen.coords @ seen.coords.T
    for q, at in enumerate(query):
        cross = covariance(bank, number, seen.coords, at[None])[:, 0] + trend * seen.coords @ at
        prior = 1 - bank.nugget[number] + trend * at @ at
        expected = krige(matrix, cross, prior, seen.values)
        assert mean[number, q] == pytest.approx(expected[0], rel=1e-6, abs=1e-6)
        spread = systems.variance[number] * expected[1]
        assert var[number, q] == pytest.approx(spread, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("number", [3, 50, 88])
def test_leaving_out_in_closed_form_is_leaving_out(number):
    seen, _ = observed()
    bank = isotropic_bank()
    systems = solve(bank, seen)
    matrix = covariance(bank, number, seen.coords, seen.coords)
    matrix += np.diag(bank.nugget[number] * seen.noise + JITTER)
    for i in (0, 8, COUNT - 1):
        rest = np.arange(COUNT) != i
        expected = krige(
            matrix[np.ix_(rest, rest)], matrix[rest, i], matrix[i, i], seen.values[rest]
        )
        assert systems.left_mean[number, i] == pytest.approx(expected[0], rel=1e-5)
        spread = systems.variance[number] * expected[1]
        assert systems.left_var[number, i] == pytest.approx(spread, rel=1e-5)


def test_evidence_is_the_restricted_likelihood():
    """Against the density of contrasts, which no constant mean changes."""
    seen, _ = observed()
    bank = isotropic_bank()
    systems = solve(bank, seen)
    contrasts = np.linalg.qr(np.column_stack([np.ones(COUNT), np.eye(COUNT)[:, 1:]]))[0][:, 1:]
    found = []
    for number in (5, 40, 80):
        matrix = covariance(bank, number, seen.coords, seen.coords)
        matrix += np.diag(bank.nugget[number] * seen.noise + JITTER)
        small = contrasts.T @ matrix @ contrasts
        misfit = contrasts.T @ seen.values
        variance = misfit @ np.linalg.solve(small, misfit) / (COUNT - 1)
        density = -((COUNT - 1) * np.log(variance) + np.linalg.slogdet(small)[1]) / 2
        found.append(density - systems.evidence[number])
    assert np.ptp(found) < 1e-6


@pytest.mark.parametrize("axes", [2, 3])
def test_the_stretch_is_the_slope_of_the_evidence(axes):
    seen, _ = observed(axes)
    bank = isotropic_bank().take(np.array([37]))
    gradient = np.zeros((axes, axes))

    def evidence(metric):
        return solve(bank, seen._replace(coords=seen.coords @ np.linalg.cholesky(metric)))[5][0]

    for i in range(axes):
        for j in range(axes):
            step = np.zeros((axes, axes))
            step[i, j] += 5e-6
            step[j, i] += 5e-6
            rise = evidence(np.eye(axes) + step) - evidence(np.eye(axes) - step)
            gradient[i, j] = rise / 2e-5
    gradient -= np.trace(gradient) / axes * np.eye(axes)
    span = np.ptp(np.linalg.eigvalsh(gradient))
    found = stretch_direction(bank, solve(bank, seen), seen.coords)
    np.testing.assert_allclose(found, gradient / span, atol=1e-5)
    assert np.linalg.cond(stretch(found, 4.5)) == pytest.approx(4.5)


def problem(seen, query, padding=0):
    """Return a batch of one, padded by invalid observations."""

    def pad(x, fill=0.0):
        width = [(0, padding)] + [(0, 0)] * (x.ndim - 1)
        return torch.from_numpy(np.pad(x, width, constant_values=fill))[None]

    valid = pad(np.ones(len(seen.values))) > 0
    parts = (
        pad(seen.coords, 7.0),
        pad(seen.values, 9.0),
        valid,
        pad(seen.noise),
    )
    query_noise = torch.ones(1, dtype=torch.float64)
    return Problem(*parts, torch.from_numpy(np.ascontiguousarray(query))[None], query_noise)


def close(a, b):
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-5)


def test_padding_changes_nothing():
    seen, query = observed()
    plain, padded = ask_experts(problem(seen, query)), ask_experts(problem(seen, query, 4))
    close(plain.mean, padded.mean)
    close(plain.left_var[:, :COUNT], padded.left_var[:, :COUNT])


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_forecasts_keep_turned_shifted_zoomed_and_reordered_fields(axes):
    seen, query = observed(axes)
    said = ask_experts(problem(seen, query))
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.standard_normal((axes, axes)))[0]
    moved = seen._replace(coords=5.5 + 30 * seen.coords @ turn)
    close(said[:6], ask_experts(problem(moved, 5.5 + 30 * query @ turn))[:6])
    order = rng.permutation(COUNT)
    mixed = ask_experts(problem(Seen(*(x[order] for x in seen)), query))
    close((said.mean, said.var, said.evidence), (mixed.mean, mixed.var, mixed.evidence))
    close((said.left_mean[:, order],), (mixed.left_mean,))


@pytest.mark.parametrize("axes", [1, 2])
def test_rounding_does_not_choose_among_equal_experts(axes):
    """Three far points look alike to all short ranges; zooms and moves change the last bits."""
    rng = np.random.default_rng(0)
    coords, query = rng.random((3, axes)), rng.random((QUERIES, axes))
    seen = Seen(coords, np.array([-1.2, 0.1, 1.1]), np.ones(3))
    said = ask_experts(problem(seen, query))
    for shift, zoom in ((300, 1e3), (-7.7, 0.013), (0.1, -3.0), (1e4, 77.0)):
        moved = seen._replace(coords=shift + zoom * coords)
        close(said[:6], ask_experts(problem(moved, shift + zoom * query))[:6])


def test_forecasts_keep_negated_values():
    seen, query = observed()
    said = ask_experts(problem(seen, query))
    negated = ask_experts(problem(seen._replace(values=-seen.values), query))
    close((said.mean, said.var), (-negated.mean, negated.var))


def test_without_noise_an_expert_returns_the_measurements():
    seen, _ = observed()
    bank = isotropic_bank()
    bank = bank.take(np.flatnonzero((bank.nugget == bank.nugget.min()) & (bank.square == 0)))
    mean, _ = predict(bank, solve(bank, seen), seen.coords, seen.coords)
    np.testing.assert_allclose(mean, np.broadcast_to(seen.values, mean.shape), atol=5e-3)


def test_repeated_measurements_count_as_their_mean_of_less_noise():
    """Two measurements at one place are one of half the noise variance."""
    seen, query = observed()
    twice = Seen(*(np.concatenate([x, x[:3]]) for x in seen))
    twice.values[-3:] += 0.4
    once = Seen(*(x.copy() for x in seen))
    once.values[:3] += 0.2
    once.noise[:3] /= 2
    bank = isotropic_bank().take(np.array([40]))
    means = [predict(bank, solve(bank, given), given.coords, query)[0] for given in (twice, once)]
    np.testing.assert_allclose(means[0], means[1], atol=1e-6)


def test_groups_cover_every_expert_once():
    numbers = isotropic_numbers()
    assert sorted(numbers.ravel()) == list(range(len(isotropic_bank().rate)))
    nuggets = isotropic_bank().nugget[numbers]
    assert all(set(row) in [set(pair) for pair in groups.NUGGETS] for row in nuggets)
    assert len(numbers) + 1 + len(groups.RATIOS) == GROUPS
