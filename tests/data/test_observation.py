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


def test_arrays_and_lists_become_float32():
    obs = Observation(np.zeros((2, 1)), [[1], [2]])
    assert obs.coords.dtype == obs.values.dtype == torch.float32
    assert Observation(torch.zeros(2, 1).double(), [[1], [2]]).coords.dtype == torch.float64


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
        Observation(torch.zeros(coords), torch.zeros(values), mask)


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
    obs = Observation(torch.ones(M, P), values, valid)
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
    with pytest.raises(errors.InputError, match="equal dims and channels"):
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
        Observation(torch.zeros(3, 2), torch.zeros(3, 1), torch.zeros(3, dtype=torch.bool))
