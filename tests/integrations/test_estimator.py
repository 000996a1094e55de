"""The scikit-learn estimator: the contract, and what it says of fields."""

import pickle
import warnings

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import sparsefield as sf
from sparsefield.core.errors import InputError
from sparsefield.data.gaussian import GaussianField
from sparsefield.integrations.estimator import DimensionWarning

ORIGIN, EXTENT = 500_000.0, 40_000.0  # metres, as of a map's projection


def smooth(coords):
    x = (coords - ORIGIN) / EXTENT
    return 280 + 5 * np.sin(3 * x[:, 0]) * np.cos(2 * x[:, -1])


def stations(count=60, dims=2, seed=0):
    rng = np.random.default_rng(seed)
    coords = ORIGIN + EXTENT * rng.random((count, dims))
    return coords, smooth(coords)


@pytest.fixture(autouse=True)
def _one_thread():
    """Spare the many small products the company of a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@parametrize_with_checks([sf.SparseFieldRegressor()])
@pytest.mark.filterwarnings("ignore::sparsefield.integrations.estimator.DimensionWarning")
def test_it_keeps_the_contract_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("model", ["universal", "kriging"])
def test_a_smooth_field_is_found_between_stations_in_the_users_units(model, dims):
    coords, values = stations(70, dims)
    query, truth = stations(40, dims, seed=1)
    est = sf.SparseFieldRegressor(model).fit(coords, values)
    mean, std = est.predict(query, return_std=True)
    assert mean.shape == std.shape == (40,) and (std > 0).all()
    assert est.score(query, truth) > 0.9
    assert (np.abs(mean - truth) < 4 * std).mean() > 0.9


def test_several_fields_are_predicted_one_by_one():
    coords, values = stations(30)
    pair = np.column_stack([values, -3 * values + 7])
    query = coords[:5] + 1000.0
    est = sf.SparseFieldRegressor().fit(coords, pair)
    mean, std = est.predict(query, return_std=True)
    alone = sf.SparseFieldRegressor().fit(coords, pair[:, 1]).predict(query)
    assert mean.shape == std.shape == (5, 2)
    np.testing.assert_allclose(mean[:, 1], alone)


def test_it_works_in_a_pipeline_a_search_and_cross_validation_with_frames():
    pandas = pytest.importorskip("pandas")
    coords, values = stations(40)
    X = pandas.DataFrame(coords, columns=["easting", "northing"])
    y = pandas.Series(values, name="t2m")
    pipe = make_pipeline(StandardScaler(), sf.SparseFieldRegressor())
    folds = KFold(4, shuffle=True, random_state=0)
    assert cross_val_score(pipe, X, y, cv=folds).min() > 0.7
    search = GridSearchCV(pipe, {"sparsefieldregressor__model": ["nearest", "kriging"]}, cv=folds)
    assert search.fit(X, y).best_params_ == {"sparsefieldregressor__model": "kriging"}
    est = sf.SparseFieldRegressor().fit(X, y)
    assert list(est.feature_names_in_) == ["easting", "northing"]
    with pytest.raises(ValueError, match="feature names"):
        est.predict(X.rename(columns={"easting": "east"}))


@pytest.mark.parametrize("model", ["universal", "kriging"])
@pytest.mark.parametrize("noise", [None, 0.4])
def test_a_weight_is_a_number_of_readings(model, noise):
    coords, values = stations(25)
    weight = np.random.default_rng(1).integers(0, 4, 25)
    query = stations(10, seed=2)[0]
    weighted = sf.SparseFieldRegressor(model).fit(
        coords, values, noise=noise, sample_weight=weight
    )
    repeated = sf.SparseFieldRegressor(model).fit(
        coords.repeat(weight, 0), values.repeat(weight), noise=noise
    )
    found = (est.predict(query, return_std=True) for est in (weighted, repeated))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("model", ["universal", "kriging"])
def test_a_reading_with_a_large_error_counts_for_little(model):
    coords, values = stations(50)
    noise = np.full(50, 0.05)
    wrong = values.copy()
    wrong[7] += 30
    noise[7] = 60
    est = sf.SparseFieldRegressor(model)
    at = coords[7:8]
    stated = est.fit(coords, wrong, noise=noise).predict(at)
    trusted = est.fit(coords, wrong, noise=0.05).predict(at)
    assert abs(stated - values[7]) < 1 < abs(trusted - values[7])


def test_samples_of_kriging_have_the_closed_forms_mean_and_covariance():
    rng = np.random.default_rng(0)
    truth = GaussianField(0.6, 2.0, 0.05, 3.0)
    coords, query = rng.random((80, 2)), rng.random((4, 2))
    values = truth.sample(coords, 1, rng)[0] + np.sqrt(0.1) * rng.standard_normal(80)
    est = sf.SparseFieldRegressor("kriging").fit(coords, values)
    samples = est.sample_y(query, 20_000, random_state=1)
    mean, std = est.predict(query, return_std=True)
    assert samples.shape == (4, 20_000)
    np.testing.assert_allclose(samples.mean(1), mean, atol=4 * std.max() / 20_000**0.5)
    np.testing.assert_allclose(samples.std(1), std, rtol=0.03)
    np.testing.assert_array_equal(samples, est.sample_y(query, 20_000, random_state=1))
    smooth_est = sf.SparseFieldRegressor("kriging").fit(*stations(12))
    near = ORIGIN + EXTENT * np.array([[0.5, 0.5], [0.5, 0.51], [0.1, 0.9]])
    correlation = np.corrcoef(smooth_est.sample_y(near, 2000))
    assert correlation[0, 1] > 0.95 and abs(correlation[0, 2]) < 0.5


def test_samples_of_the_universal_model_are_joint_and_agree_with_its_deviation():
    query = ORIGIN + EXTENT * np.array([[0.5, 0.5], [0.5, 0.51], [0.1, 0.9]])
    est = sf.SparseFieldRegressor().fit(*stations(12))
    mean, std = est.predict(query, return_std=True)
    samples = est.sample_y(query, 1000, random_state=3)
    np.testing.assert_allclose(samples.mean(1), mean, atol=0.2 * std.max())
    np.testing.assert_allclose(samples.std(1), std, rtol=0.2)
    correlation = np.corrcoef(samples)
    assert correlation[0, 1] > max(0.8, abs(correlation[0, 2]))
    other = est.sample_y(query, 1000, random_state=4)
    assert abs(samples - other).max() > 0


def test_more_than_three_features_are_kriged_and_said_so():
    rng = np.random.default_rng(0)
    X = rng.random((40, 5))
    with pytest.warns(DimensionWarning, match="1 to 3 dimensions, not 5; kriging"):
        est = sf.SparseFieldRegressor().fit(X, X @ np.arange(5))
    assert est.method_ == "kriging"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sf.SparseFieldRegressor("kriging").fit(X, X @ np.arange(5))
        sf.SparseFieldRegressor().fit(X[:, :3], X @ np.arange(5))


def test_a_fitted_estimator_is_copied_and_kept_small():
    coords, values = stations(30)
    est = sf.SparseFieldRegressor().fit(coords, values)
    kept = pickle.dumps(est)
    assert len(kept) < 20_000  # the weights stay where they are
    np.testing.assert_array_equal(pickle.loads(kept).predict(coords), est.predict(coords))
    assert clone(est).get_params() == est.get_params()


@pytest.mark.parametrize(
    ("coords", "values", "options", "message"),
    [
        (np.ones((5, 2)), np.ones(5), {}, "3 different places at least are needed, got 1"),
        (stations(2)[0], stations(2)[1], {}, "minimum of 3"),
        ([[0], [1], [1], [2]], [0, 1, 2, 3], {"noise": 0}, "exact readings that differ"),
        (*stations(5), {"noise": -1}, "at least 0"),
        (*stations(5), {"noise": np.ones(4)}, "got shape"),
        (*stations(5), {"sample_weight": np.zeros(5)}, "zero"),
        (*stations(5), {"sample_weight": -np.ones(5)}, "[Nn]egative"),
    ],
)
def test_bad_input_is_said_in_a_line(coords, values, options, message):
    with pytest.raises(ValueError, match=message):
        sf.SparseFieldRegressor().fit(coords, values, **options)


def test_what_a_method_cannot_do_is_said():
    coords, values = stations(10)
    est = sf.SparseFieldRegressor("nearest").fit(coords, values)
    with pytest.raises(InputError, match="no standard deviation"):
        est.predict(coords, return_std=True)
    with pytest.raises(InputError, match="no samples"):
        est.sample_y(coords)
    with pytest.raises(InputError, match="unknown model 'krigin'.*kriging"):
        sf.SparseFieldRegressor("krigin").fit(coords, values)


@pytest.mark.parametrize("model", ["universal", "kriging"])
def test_a_constant_field_stays_constant(model):
    coords, _ = stations(10)
    est = sf.SparseFieldRegressor(model).fit(coords, np.full(10, 4.0))
    np.testing.assert_allclose(est.predict(coords + 50), 4.0, rtol=1e-6)
