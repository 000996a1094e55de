"""The prior: kinds, layouts and items."""

import numpy as np
import pytest

from sparsefield.data.prior import gaussian, layouts, structured
from sparsefield.data.prior.grids import Grids
from sparsefield.data.prior.items import Prior
from sparsefield.data.prior.kinds import random_rotation

KINDS = [kind for _, kind in (*gaussian.KINDS, *structured.KINDS)]


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_is_finite_and_varies(kind, axes):
    points = np.random.default_rng(0).uniform(-1, 1, (50, axes))
    values = [kind(np.random.default_rng(seed), points) for seed in range(8)]
    assert all(value.shape == (50,) and np.isfinite(value).all() for value in values)
    assert np.std(np.stack(values)) > 0.01


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("layout", [x for _, x in layouts.LAYOUTS], ids=lambda x: x.__name__)
def test_every_layout_gives_as_many_points_as_asked_for(layout, axes):
    points = layout(np.random.default_rng(1), 17, axes)
    assert points.shape == (17, axes)
    assert np.isfinite(points).all()


@pytest.mark.parametrize("smoothness", [0.5, 1.5, np.inf])
def test_random_waves_have_the_covariance_of_the_field(smoothness):
    points = np.array([[0.0, 0.0], [0.5, 0.0], [0.0, 1.5]])
    rng = np.random.default_rng(2)
    draws = np.stack([gaussian._waves(rng, points, 1.0, smoothness) for _ in range(3000)])
    distance = np.array([0.5, 1.5])
    scaled = np.sqrt(3) * distance
    expected = {
        0.5: np.exp(-distance),
        1.5: (1 + scaled) * np.exp(-scaled),
        np.inf: np.exp(-(distance**2) / 2),
    }[smoothness]
    found = np.cov(draws.T)
    np.testing.assert_allclose(np.diag(found), 1, atol=0.12)
    np.testing.assert_allclose(found[0, 1:], expected, atol=0.08)


def test_rotations_are_orthogonal():
    for axes in (1, 2, 3):
        turn = random_rotation(np.random.default_rng(3), axes)
        np.testing.assert_allclose(turn @ turn.T, np.eye(axes), atol=1e-12)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_items_are_a_function_of_the_seed(axes):
    first, second = (Prior().draw(np.random.default_rng(4), 9, 6, axes) for _ in range(2))
    np.testing.assert_array_equal(first.values, second.values)
    np.testing.assert_array_equal(first.target, second.target)
    assert first.coords.shape == (9, axes)
    assert first.query.shape == (6, axes)


def test_items_have_noise_of_every_size_stated_or_not():
    rng = np.random.default_rng(5)
    items = [Prior().draw(rng, 12, 40, 2) for _ in range(200)]
    stated = [item for item in items if item.noise is not None]
    assert 20 < len(stated) < 70
    assert all((item.noise > 0).all() for item in stated)
    share = [np.std(i.target - i.clean) / np.std(i.clean) for i in items if i.noise is None]
    assert np.quantile(share, 0.15) == 0
    assert np.quantile(share, 0.9) > 1


def test_queries_of_a_place_lie_together():
    item = Prior().draw(np.random.default_rng(6), 400, 16, 2, local=True)
    spread = np.ptp(item.query, axis=0).max() / np.ptp(item.coords, axis=0).max()
    assert len(item.values) == 400
    assert spread < 0.8


def test_windows_of_grids_interpolate_and_keep_holes():
    ramp = np.add.outer(np.arange(40.0), 2 * np.arange(60.0))
    points = np.random.default_rng(7).uniform(-1, 1, (300, 2))
    values = Grids([ramp])(np.random.default_rng(8), points)
    inside = np.isfinite(values)
    design = np.column_stack([np.ones(300), points])[inside]
    residual = np.linalg.lstsq(design, values[inside], rcond=None)[1]
    assert inside.mean() > 0.9
    assert residual.sum() < 1e-6
    ramp[:, :30] = np.nan
    holes = [Grids([ramp])(np.random.default_rng(seed), points) for seed in range(5)]
    assert 0 < np.isfinite(holes).mean() < 1
    assert np.isnan(Grids([ramp])(np.random.default_rng(0), np.zeros((4, 3)))).all()
