import numpy as np
import pytest
import torch

from sparsefield.core import errors
from sparsefield.data.observation import Observation

B, M, P, C = 2, 63, 3, 5


def random_observation(count=M, batch=()):
    return Observation(torch.rand(*batch, count, P), torch.rand(*batch, count, C))


@pytest.mark.parametrize("batch", [(), (B,)])
def test_sizes_are_read_off_the_arrays(batch):
    obs = random_observation(batch=batch)
    assert (obs.count, obs.dims, obs.channels) == (M, P, C)
    assert obs.valid.shape == (*batch, M) and obs.valid.all()


def test_numbers_keep_the_digits_they_have():
    obs = Observation(np.zeros((1, 1)), [[1e5 + 1e-3]])
    assert obs.values.item() == 1e5 + 1e-3
    assert Observation(torch.zeros(2, 1), np.ones((2, 1), np.uint8)).values.dtype == torch.float32
    assert Observation(torch.zeros(2, 1).half(), [[1], [2]]).coords.dtype == torch.float16


@pytest.mark.parametrize(
    ("coords", "values", "valid", "message"),
    [
        ((M,), (M, C), None, r"coords: expected shape \(M, P\) or \(B, M, P\).*got \(63,\)"),
        ((M, P), (M - 1, C), None, r"values: expected shape \(63, C\).*got \(62, 5\)"),
        ((M, P), (M,), None, r"values: expected shape \(63, C\).*got \(63,\)"),
        ((B, M, P), (M, C), None, r"values: expected shape \(2, 63, C\).*got \(63, 5\)"),
        ((0, P), (0, C), None, "at least one point"),
        ((M, P), (M, C), (M, 1), r"valid: expected shape \(63,\).*got \(63, 1\)"),
    ],
)
def test_wrong_shapes_name_what_was_expected_and_given(coords, values, valid, message):
    mask = None if valid is None else torch.ones(valid, dtype=torch.bool)
    with pytest.raises(errors.InputError, match=message):
        Observation(torch.zeros(coords), torch.zeros(values), valid=mask)


def test_nan_is_rejected_with_its_count():
    values = np.zeros((204, 1))
    values[[3, 50, 80]] = np.nan
    with pytest.raises(errors.InputError, match=r"3 of 204 values are NaN.*valid="):
        Observation(np.zeros((204, 2)), values)


def test_infinite_coordinates_are_rejected():
    coords = torch.zeros(M, P)
    coords[0, 1] = torch.inf
    with pytest.raises(errors.InputError, match="1 of 189 coords are NaN or infinite"):
        Observation(coords, torch.zeros(M, C))


def test_rows_that_are_not_valid_may_hold_anything_and_become_zero():
    values = torch.ones(M, C)
    values[4] = torch.nan
    valid = torch.arange(M) != 4
    obs = Observation(torch.ones(M, P), values, valid=valid)
    assert (obs.values[4] == 0).all() and (obs.coords[4] == 0).all()
    assert (obs.values[valid] == 1).all()


def test_stack_pads_to_the_longest_with_zeros_that_are_not_valid():
    short, long = random_observation(4), random_observation(9)
    batch = Observation.stack([short, long])
    assert batch.coords.shape == (2, 9, P)
    assert batch.valid.sum(dim=1).tolist() == [4, 9]
    torch.testing.assert_close(batch.values[0, :4], short.values)
    assert (batch.values[0, 4:] == 0).all()


def test_stack_refuses_batches_and_mixed_channels():
    with pytest.raises(errors.InputError, match="without a batch axis"):
        Observation.stack([random_observation(batch=(B,))])
    other = Observation(torch.zeros(3, P), torch.zeros(3, C + 1))
    with pytest.raises(errors.InputError, match="equal dims, channels and grid"):
        Observation.stack([random_observation(), other])


def test_padding_to_fewer_rows_is_an_error():
    with pytest.raises(errors.InputError, match="cannot pad 63 observations to 5"):
        random_observation().pad(5)


def test_repeat_lists_draws_first():
    obs = random_observation(batch=(B,))
    draws = obs.repeat(4).values.unflatten(0, (4, B))
    torch.testing.assert_close(draws, obs.values.expand(4, B, M, C))


def test_batched_adds_the_axis_once():
    batch = random_observation().batched()
    assert batch.values.shape == (1, M, C)
    assert batch.batched() is batch


def test_to_changes_the_floating_type_only():
    obs = random_observation().to(dtype=torch.float64)
    assert (obs.coords.dtype, obs.valid.dtype) == (torch.float64, torch.bool)


def test_an_observation_without_a_measurement_is_refused():
    with pytest.raises(errors.InputError, match="no row is a measurement"):
        Observation(torch.zeros(3, 2), torch.zeros(3, 1), valid=torch.zeros(3, dtype=torch.bool))


def test_a_stack_and_its_items_carry_noise_and_grid():
    one = Observation(torch.rand(4, P), torch.rand(4, C), noise=0.5, grid=(3, 4, 5))
    two = Observation(torch.rand(7, P), torch.rand(7, C), grid=(3, 4, 5))
    batch = Observation.stack([one, two]).to(dtype=torch.float64)
    assert batch.grid == (3, 4, 5)
    assert (batch.noise[0, :4] == 0.5).all()
    assert (batch.noise[0, 4:] == 0).all() and (batch.noise[1] == 0).all()
    assert batch.repeat(3).noise.shape == (6, 7, C)
    for given, item in ((one, batch.item(0)), (two, batch.item(1))):
        torch.testing.assert_close(item.values.float(), given.values)
        assert item.count == given.count and item.grid == (3, 4, 5)
    assert one.batched().noise.shape == (1, 4, C)
    with pytest.raises(errors.InputError, match="takes one set out of a batch"):
        one.item(0)
    with pytest.raises(errors.InputError, match="equal dims, channels and grid"):
        Observation.stack([one, Observation(one.coords, one.values)])


@pytest.mark.parametrize("shape", [(), (M,), (M, 1), (1, C), (M, C)])
def test_noise_is_one_number_or_one_per_row_or_channel(shape):
    sigma = torch.rand(shape) + 0.5
    obs = Observation(torch.zeros(M, P), torch.zeros(M, C), sigma)
    full = sigma[:, None] if shape == (M,) else sigma
    assert torch.equal(obs.noise, full.expand(M, C))


def test_no_noise_at_all_is_exact():
    assert Observation(torch.zeros(2, 1), torch.zeros(2, 1), 0.0).noise is None


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (-0.1, "finite number of at least 0, not -0.1"),
        (np.full(M, np.nan), "finite number of at least 0, not nan"),
        (np.ones(C), r"shape \(63,\) for one per row.*\(1, 5\) for one per channel, got \(5,\)"),
        (1j, "noise: real numbers are needed, not complex"),
    ],
)
def test_noise_that_is_no_standard_deviation_is_refused(noise, message):
    with pytest.raises(errors.InputError, match=message):
        Observation(torch.zeros(M, P), torch.zeros(M, C), noise)


@pytest.mark.parametrize("grid", [(4,), (4, 5, 0), (4, 5, 2.5)])
def test_a_grid_has_whole_cells_along_each_axis(grid):
    with pytest.raises(errors.InputError, match="grid: expected 3 whole numbers"):
        Observation(torch.zeros(M, P), torch.zeros(M, C), grid=grid)


def test_points_outside_are_refused_and_rounding_is_not():
    with pytest.raises(errors.InputError, match=r"1 of 2 points lie outside.*at \(-7, 49\)"):
        Observation([[0.0, 0.5], [-7.0, 49.0]], [[1.0], [2.0]])
    edge = Observation([[1 + 1e-7], [-1 - 1e-7]], [[1.0], [2.0]])
    assert edge.coords.tolist() == [[1.0], [-1.0]]
    Observation([[0.0], [9.0]], [[1.0], [2.0]], valid=[True, False])


FOREIGN = {
    "reversed": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "strided": lambda a: np.repeat(a, 2, axis=0)[::2],
    "fortran": np.asfortranarray,
    "big-endian": lambda a: a.astype(">f8"),
    "long double": lambda a: a.astype(np.longdouble),
    "read-only": lambda a: np.frombuffer(a.tobytes()).reshape(a.shape),
    "unaligned": lambda a: np.frombuffer(b" " + a.tobytes(), offset=1).reshape(a.shape),
    "list": np.ndarray.tolist,
    "unmasked": np.ma.MaskedArray,
}


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.filterwarnings("error")
def test_an_array_s_layout_makes_no_difference(foreign):
    rng = np.random.default_rng(0)
    arrays = rng.uniform(-1, 1, (M, P)), rng.normal(size=(M, C)), rng.uniform(1, 2, (M, C))
    plain, other = Observation(*arrays), Observation(*map(foreign, arrays))
    for name in ("coords", "values", "noise"):
        assert torch.equal(getattr(plain, name), getattr(other, name))


@pytest.mark.parametrize("kind", ["?", "i1", "u2", ">i4", "u8", "f2", ">f4"])
def test_every_type_of_real_number_is_taken(kind):
    values = np.array([[0], [1]]).astype(kind)
    assert Observation([[0.0], [0.5]], values).values.tolist() == [[0.0], [1.0]]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([[1 + 2j], [3]]), "complex numbers"),
        (torch.tensor([[1 + 2j], [3]]), "complex numbers"),
        (np.array([[1], [None]], dtype=object), "Python objects"),
        (np.array([["a"], ["b"]]), "text"),
        (np.array([["2020-01-01"], ["2020-01-02"]], dtype="M8[D]"), "dates"),
        (np.zeros((2, 1), dtype=[("a", float)]), "records"),
        ([[1.0], [2.0, 3.0]], "differ in length"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_no_array_of_real_numbers_is_refused(values, words):
    with pytest.raises(errors.InputError, match=f"values.*{words}") as error:
        Observation([[0.0], [0.5]], values)
    assert "\n" not in str(error.value)


def test_masked_rows_were_not_observed():
    coords, values = np.random.default_rng(0).uniform(-1, 1, (2, M, P))
    hidden = np.zeros((M, P), bool)
    hidden[[3, 8]] = True
    values[8] = np.nan
    obs = Observation(coords, np.ma.MaskedArray(values, hidden), noise=np.arange(1.0, M + 1))
    kept = ~hidden[:, 0]
    assert obs.valid.all() and obs.count == M - 2
    assert np.array_equal(obs.coords, coords[kept])
    assert np.array_equal(obs.values, values[kept])
    assert np.array_equal(obs.noise[:, 0], np.arange(1.0, M + 1)[kept])
    place = np.zeros((M, P), bool)
    place[5, 1] = True
    assert Observation(np.ma.MaskedArray(coords, place), coords).count == M - 1


def test_masked_rows_of_a_batch_are_not_valid():
    values = np.ma.zeros((B, M, C))
    values[1, 7] = np.ma.masked
    obs = Observation(np.zeros((B, M, P)), values)
    assert obs.valid.sum(1).tolist() == [M, M - 1] and not obs.valid[1, 7]


def test_rows_masked_in_part_are_refused():
    values = np.ma.zeros((M, C))
    values[7, 2] = np.ma.masked
    with pytest.raises(errors.InputError, match="1 of 63 rows are masked in some channels only"):
        Observation(np.zeros((M, P)), values)
    values[:-1, 2] = np.ma.masked
    with pytest.raises(errors.InputError, match="observe each channel by itself"):
        Observation(np.zeros((M, P)), values)
    values[:] = np.ma.masked
    with pytest.raises(errors.InputError, match="no row is a measurement"):
        Observation(np.zeros((M, P)), values)


def test_n_readings_are_their_mean_with_an_error_smaller_by_the_root_of_n():
    coords = torch.tensor([[0.5, 0.0], [-0.5, 0.0], [0.5, 0.0], [0.5, 0.0]])
    readings = torch.tensor([[1.0], [7.0], [2.0], [6.0]])
    merged = Observation(coords, readings, 0.3, grid=(4, 5)).merged()
    assert merged.coords.tolist() == [[0.5, 0.0], [-0.5, 0.0]]
    torch.testing.assert_close(merged.values, torch.tensor([[3.0], [7.0]]))
    torch.testing.assert_close(merged.noise, torch.tensor([[0.3 / 3**0.5], [0.3]]))
    assert merged.grid == (4, 5)


def test_merged_readings_minimise_the_weighted_squared_error():
    rng = np.random.default_rng(0)
    readings, sigma = rng.normal(size=(9, C)), rng.uniform(0.5, 2, (9, C))
    merged = Observation(np.zeros((9, P)), readings, sigma).merged()
    # Generalised least squares of a constant: (X' W X)^-1 X' W y and its covariance.
    for c in range(C):
        precision = np.diag(sigma[:, c] ** -2.0)
        variance = 1 / precision.sum()
        assert merged.values[0, c].item() == pytest.approx(
            variance * (precision @ readings)[:, c].sum()
        )
        assert merged.noise[0, c].item() == pytest.approx(variance**0.5)


def test_merging_in_any_order_and_in_parts_is_the_same():
    rng = np.random.default_rng(1)
    coords, readings = rng.choice([-0.5, 0.0, 0.5], (40, 1)), rng.normal(size=(40, C))
    sigma = rng.uniform(0.5, 2, 40)
    whole = Observation(coords, readings, sigma).merged()
    parts = [
        Observation(coords[s], readings[s], sigma[s]).merged() for s in (slice(17), slice(17, 40))
    ]
    joined = [
        torch.cat([getattr(p, name) for p in parts]) for name in ("coords", "values", "noise")
    ]
    again = Observation(*joined).merged()
    assert torch.equal(again.coords, whole.coords)
    torch.testing.assert_close(again.values, whole.values)
    torch.testing.assert_close(again.noise, whole.noise)


def test_an_exact_reading_outweighs_the_others():
    merged = Observation(np.zeros((3, 1)), [[1.0], [5.0], [9.0]], [0.5, 0.0, 0.5]).merged()
    assert merged.values.tolist() == [[5.0]]
    assert merged.noise is None or (merged.noise == 0).all()


def test_equal_exact_readings_collapse_to_the_last_bit():
    coords = [[0.1], [0.3], [0.1], [0.1 + 1e-9]]
    merged = Observation(coords, [[0.7], [0.1], [0.7], [0.7]]).merged()
    assert merged.coords.tolist() == [[0.1], [0.3]]
    assert merged.values.tolist() == [[0.7], [0.1]]
    assert merged.noise is None


def test_exact_readings_that_differ_are_refused_with_their_rows():
    coords = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.3, 0.4], [0.5, 0.6]])
    readings = np.array([[1.0], [2.0], [3.0], [2.5], [3.0]])
    with pytest.raises(errors.InputError) as error:
        Observation(coords, readings).merged()
    for words in ("1 of 3 places", "rows 1 and 3", "(0.3, 0.4)", "2 and 2.5", "state a noise"):
        assert words in str(error.value)


def test_all_readings_in_one_place_are_one_or_refused():
    merged = Observation(np.zeros((5, 2)), np.ones((5, 1))).merged()
    assert (merged.count, merged.values.item()) == (1, 1.0)
    with pytest.raises(errors.InputError, match="exact readings that differ"):
        Observation(np.zeros((2, 2)), [[1.0], [1.0 + 1e-9]]).merged()


def test_places_that_follow_each_other_densely_do_not_all_become_one():
    coords = np.linspace(0, 1e-4, 1001)[:, None]
    merged = Observation(coords, coords * 1e4, noise=0.1).merged()
    assert 30 < merged.count < 200
    gaps = np.diff(np.sort(merged.coords[:, 0]))
    assert gaps.min() > 1e-6


def test_without_repeats_the_observation_is_the_same_object():
    single, batch = random_observation(), random_observation(batch=(B,))
    assert single.merged() is single and batch.merged() is batch
    one = random_observation(count=1)
    assert one.merged() is one


def test_each_item_of_a_batch_is_merged_by_itself():
    coords = torch.tensor([[[0.0], [0.0], [0.5]], [[0.0], [0.2], [0.5]]])
    merged = Observation(coords, torch.ones(2, 3, 1)).merged()
    assert merged.valid.sum(1).tolist() == [2, 3]
