"""What functions with kernels of their own demand: one device, real numbers, shapes that fit."""

import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.nn.local_attention import local_attention
from sparsefield.nn.mamba import MambaMixer
from sparsefield.nn.neighbours import nearest
from sparsefield.nn.scan import selective_scan

B, L, D, N, M, H, E, K = 2, 7, 3, 5, 11, 2, 16, 4


def scan_inputs():
    shapes = {"u": (B, L, D), "delta": (B, L, D), "A": (D, N), "B": (B, L, N), "C": (B, L, N)}
    shapes |= {"D": (D,), "z": (B, L, D), "delta_bias": (D,), "h0": (B, D, N)}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def attention_inputs():
    shapes = {"q": (B, L, H, E), "k": (B, M, H, E), "v": (B, M, H, E), "bias": (B, L, K, H)}
    floats = {name: torch.randn(shape) for name, shape in shapes.items()}
    return floats | {"index": torch.randint(M, (B, L, K))}


def nearest_inputs():
    coords, context = torch.rand(B, L, 2), torch.rand(B, M, 2)
    valid = torch.ones(B, M, dtype=torch.bool)
    return {"coords": coords, "context_coords": context, "valid": valid, "k": 3}


CASES = {
    "scan": (selective_scan, scan_inputs),
    "attention": (local_attention, attention_inputs),
    "nearest": (nearest, nearest_inputs),
}
ARGUMENTS = [
    (case, name)
    for case, (_, make) in CASES.items()
    for name, x in make().items()
    if isinstance(x, torch.Tensor)
]
FLOATS = [(c, n) for c, n in ARGUMENTS if CASES[c][1]()[n].is_floating_point()]


def call(case, **changes):
    function, make = CASES[case]
    return function(**(make() | changes))


@pytest.mark.parametrize(("case", "name"), ARGUMENTS)
def test_a_tensor_on_another_device_is_refused(case, name):
    """Torch's dispatcher takes a "meta" tensor as the sign to compute shapes alone."""
    elsewhere = CASES[case][1]()[name].to("meta")
    with pytest.raises(InputError, match=r"meta.*cpu|cpu.*meta") as error:
        call(case, **{name: elsewhere})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64, torch.bool])
@pytest.mark.parametrize(("case", "name"), FLOATS)
def test_what_is_not_a_real_floating_point_number_is_refused(case, name, dtype):
    changed = CASES[case][1]()[name].to(dtype)
    with pytest.raises(InputError, match=rf"\b{name} is {dtype}"):
        call(case, **{name: changed})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(("case", "name"), [pair for pair in FLOATS if pair[1] not in ("u", "q")])
def test_other_floating_types_mean_their_value_in_that_of_the_first(case, name, dtype):
    rounded = CASES[case][1]()[name].to(dtype)
    inputs = CASES[case][1]() | {name: rounded.float()}
    function = CASES[case][0]
    expected, got = function(**inputs), function(**inputs | {name: rounded})
    for a, b in zip(*(x if isinstance(x, tuple) else (x,) for x in (expected, got)), strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("case", "name"), ARGUMENTS)
def test_a_batch_that_is_shorter_than_the_others_is_refused(case, name):
    shorter = CASES[case][1]()[name][:-1]
    with pytest.raises(InputError, match=r"shape|fit"):
        call(case, **{name: shorter})


@pytest.mark.parametrize("index", [-1, M])
@pytest.mark.parametrize("backend", ["cpu", "gather"])
def test_a_neighbour_that_is_none_of_the_keys_is_refused(backend, index):
    wrong = attention_inputs()["index"].index_fill(1, torch.tensor([2]), index)
    with pytest.raises(InputError, match=f"not one of the {M} keys"):
        call("attention", index=wrong, backend=backend)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_neighbours_are_whole_numbers(dtype):
    with pytest.raises(InputError, match=f"index.*not {dtype}"):
        call("attention", index=attention_inputs()["index"].to(dtype))


def test_valid_is_a_mask():
    with pytest.raises(InputError, match=r"valid must be bool.*int64"):
        call("nearest", valid=torch.ones(B, M, dtype=torch.int64))


@pytest.mark.parametrize("x", [torch.zeros(1, 5, 6, device="meta"), torch.zeros(1, 5, 6) + 1j])
def test_a_mamba_layer_takes_real_tensors_on_its_own_device(x):
    with pytest.raises((InputError, RuntimeError)):
        MambaMixer(6, 4)(x)


def test_fresh_memory_is_poisoned_in_these_tests():
    assert torch.empty(3).isnan().all() and torch.ones(3).new_empty(2).isnan().all()
