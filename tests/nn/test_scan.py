"""The contracts of `selective_scan`, for every backend that can run here."""

import logging
import multiprocessing
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from unittest import mock

import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.nn import scan as scan_package
from sparsefield.nn.scan import BACKENDS, ScanInputs, selective_scan
from sparsefield.nn.scan.cpu import operator as cpu
from sparsefield.nn.scan.cpu.threads import finish, run_in_threads, take_range
from sparsefield.nn.scan.mamba_ssm import call_kernel
from sparsefield.nn.scan.reference.naive import scan_naive

RUNNABLE = sorted(BACKENDS.keys() - {"mamba_ssm", "triton"})
GENERAL = [name for name in RUNNABLE if name != "einsum"]
EVERY_TOKEN = ("delta", "B", "C")


def make_inputs(backend, batch=2, length=63, width=37, states=5, seed=0, gated=True):
    """Return random float64 inputs by name, constant along the sequence for 'einsum'."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = {
        "u": normal(batch, length, width),
        "delta": normal(batch, length, width) - 1,
        "A": -torch.exp(normal(width, states)),
        "B": normal(batch, length, states),
        "C": normal(batch, length, states),
        "D": normal(width),
        "delta_bias": normal(width),
        "h0": normal(batch, width, states),
    }
    if gated:
        inputs["z"] = normal(batch, length, width)
    if backend == "einsum":
        inputs |= {name: inputs[name][:1, :1].expand_as(inputs[name]) for name in EVERY_TOKEN}
    return inputs


def run(inputs, backend, dtype=torch.float32, **options):
    """Return y, the last state and the gradient of every input, by name, in float64.

    An input that is constant along the sequence is one leaf, whatever its length.
    """
    leaves = {name: leaf(x).to(dtype).requires_grad_() for name, x in inputs.items()}
    args = {name: x.expand_as(inputs[name]) for name, x in leaves.items()}
    y, state = selective_scan(**args, return_state=True, backend=backend, **options)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in (y, state)]
    loss = sum((x.double() * w).sum() for x, w in zip((y, state), weights, strict=True))
    loss.backward()
    results = {"y": y, "state": state} | {f"d{name}": x.grad for name, x in leaves.items()}
    return {name: x.detach().double() for name, x in results.items()}


def leaf(x):
    """Return the part of an expanded tensor that has memory of its own."""
    return x[tuple(slice(1) if stride == 0 else slice(None) for stride in x.stride())].detach()


def assert_close(actual, expected, tolerance):
    """Compare by the largest error relative to the largest value."""
    for name, value in expected.items():
        error = (actual[name] - value).abs().max() / value.abs().max().clamp(min=1e-30)
        assert error <= tolerance, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("length", [1, 63, 100, 257])
@pytest.mark.parametrize("backend", RUNNABLE)
def test_output_state_and_gradients_equal_the_loop_in_float64(backend, length, batch):
    inputs = make_inputs(backend, batch, length)
    expected = run(inputs, "naive", torch.float64)
    assert_close(run(inputs, backend), expected, 3e-6)


@pytest.mark.parametrize("backend", GENERAL)
def test_long_sequences_accumulate_no_error(backend):
    inputs = make_inputs(backend, batch=1, length=4096, width=3, states=2)
    assert_close(run(inputs, backend), run(inputs, "naive", torch.float64), 2e-5)


@pytest.mark.parametrize("width", [1, 16, 32, 33, 129, 160])
def test_every_width_is_right(width):
    """Widths below, at and above the block and the group of blocks that share a sum."""
    inputs = make_inputs("cpu", width=width, length=35)
    assert_close(run(inputs, "cpu"), run(inputs, "naive", torch.float64), 3e-6)


@pytest.mark.parametrize("backend", RUNNABLE)
def test_optional_inputs_may_be_absent(backend):
    inputs = make_inputs(backend, gated=False)
    inputs = {name: inputs[name] for name in ("u", "delta", "A", "B", "C")}
    assert_close(run(inputs, backend), run(inputs, "naive", torch.float64), 3e-6)


@pytest.mark.parametrize("backend", sorted({*RUNNABLE} - {"cpu"}))
def test_float64_stays_float64(backend):
    inputs = make_inputs(backend)
    expected = run(inputs, "naive", torch.float64)
    assert_close(run(inputs, backend, torch.float64), expected, 1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", RUNNABLE)
def test_half_precision_inputs_have_a_float32_state(backend, dtype):
    """The error is that of rounding the results once: nothing in between is rounded."""
    inputs = make_inputs(backend)
    inputs = {name: leaf(x).to(dtype).double().expand_as(x) for name, x in inputs.items()}
    expected = run(inputs, "naive", torch.float64)
    actual = run(inputs, backend, dtype)
    assert_close(actual, expected, 2 * torch.finfo(dtype).eps)
    assert_close({"state": actual["state"]}, {"state": expected["state"]}, 3e-6)


@pytest.mark.parametrize("backend", RUNNABLE)
def test_types_may_differ_between_inputs(backend):
    inputs = {name: x.float() for name, x in make_inputs(backend).items()}
    inputs["u"] = inputs["u"].bfloat16()
    y, state = selective_scan(**inputs, return_state=True, backend=backend)
    assert y.dtype == torch.bfloat16
    assert state.dtype == torch.float32


@pytest.mark.parametrize("backend", RUNNABLE)
def test_large_steps_neither_overflow_nor_lose_the_last_token(backend):
    inputs = make_inputs(backend)
    inputs["delta"] = (leaf(inputs["delta"]) + 1e4).expand_as(inputs["delta"])
    expected = run(inputs, "naive", torch.float64)
    actual = run(inputs, backend)
    assert all(x.isfinite().all() for x in actual.values())
    assert_close(actual, expected, 3e-6)


@pytest.mark.parametrize("backend", RUNNABLE)
def test_tiny_steps_keep_their_digits(backend):
    inputs = make_inputs(backend)
    inputs["delta"] = (leaf(inputs["delta"]) - 12).expand_as(inputs["delta"])
    assert_close(run(inputs, backend), run(inputs, "naive", torch.float64), 3e-6)


@pytest.mark.parametrize("backend", RUNNABLE)
def test_reverse_is_flip_scan_flip(backend):
    inputs = make_inputs(backend)
    by_token = {"u", "delta", "B", "C", "z"}
    flipped = {name: x.flip(1) if name in by_token else x for name, x in inputs.items()}
    if backend == "einsum":
        flipped |= {name: inputs[name] for name in EVERY_TOKEN}
    expected = run(flipped, backend)
    actual = run(inputs, backend, reverse=True)
    torch.testing.assert_close(actual["y"], expected["y"].flip(1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(actual["state"], expected["state"], rtol=1e-6, atol=1e-6)
    reference = run(inputs, "naive", torch.float64, reverse=True)
    assert_close(actual, reference, 3e-6)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("backend", GENERAL)
def test_no_output_depends_on_a_later_token(backend, reverse):
    inputs = {name: x.float() for name, x in make_inputs(backend).items()}
    before = selective_scan(**inputs, reverse=reverse, backend=backend)
    changed = inputs | {name: inputs[name].clone() for name in ("u", "delta", "B", "C", "z")}
    for name in ("u", "delta", "B", "C", "z"):
        changed[name][:, 40] += 1
    after = selective_scan(**changed, reverse=reverse, backend=backend)
    untouched, touched = (slice(41, None), slice(41)) if reverse else (slice(40), slice(40, None))
    assert torch.equal(before[:, untouched], after[:, untouched])
    assert (before[:, touched] != after[:, touched]).any(dim=(0, 2)).all()


@pytest.mark.parametrize("backend", GENERAL)
def test_a_state_handed_on_continues_the_sequence(backend):
    inputs = {name: x.float() for name, x in make_inputs(backend).items()}
    by_token = ("u", "delta", "B", "C", "z")
    parts = [inputs | {n: inputs[n][:, s] for n in by_token} for s in (slice(29), slice(29, None))]
    y, state = selective_scan(**inputs, return_state=True, backend=backend)
    first, middle = selective_scan(**parts[0], return_state=True, backend=backend)
    parts[1]["h0"] = middle
    second, last = selective_scan(**parts[1], return_state=True, backend=backend)
    torch.testing.assert_close(torch.cat([first, second], 1), y, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(last, state, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", GENERAL)
def test_strides_do_not_matter(backend):
    inputs = {name: x.float() for name, x in make_inputs(backend).items()}
    strided = dict(inputs)
    strided["u"] = inputs["u"].transpose(1, 2).contiguous().transpose(1, 2)
    both = torch.cat([inputs["delta"], inputs["z"]], -1)
    strided["delta"], strided["z"] = both.chunk(2, -1)
    strided["B"] = inputs["B"].transpose(0, 1).contiguous().transpose(0, 1)
    strided["C"] = torch.stack([inputs["C"]] * 2, -1)[..., 0]
    strided["A"] = inputs["A"].T.contiguous().T
    strided["h0"] = inputs["h0"].expand(2, 2, -1, -1)[1]
    expected, actual = run(inputs, backend), run(strided, backend)
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-6, atol=1e-6)
    y = selective_scan(**strided, backend=backend)
    torch.testing.assert_close(y.double(), expected["y"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["u", "delta", "B", "C", "z", "A", "D", "delta_bias", "h0"])
@pytest.mark.parametrize("backend", RUNNABLE)
def test_a_nan_or_infinity_reaches_the_output(backend, name, poison):
    inputs = {key: x.float() for key, x in make_inputs(backend, batch=1).items()}
    if name == "A" and poison == float("inf"):
        poison = float("nan")  # an infinitely fast decay is a legitimate zero
    if backend == "einsum" and name in EVERY_TOKEN:
        inputs[name] = inputs[name][:1, :1].clone().fill_(poison).expand_as(inputs[name])
    else:
        inputs[name] = inputs[name].clone()
        inputs[name][(0,) * inputs[name].ndim] = poison
    if backend == "einsum" and name in EVERY_TOKEN and poison != poison:
        with pytest.raises(InputError, match="same"):
            selective_scan(**inputs, backend=backend)
    else:
        assert not selective_scan(**inputs, backend=backend).isfinite().all()


def test_uninitialised_memory_is_never_read():
    """With every new tensor full of NaN, the results are the same bits."""
    inputs = make_inputs("cpu", length=35)
    expected = run(inputs, "cpu")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        actual = run(inputs, "cpu")
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(actual[name], value) for name, value in expected.items())


def test_cpu_is_deterministic_and_independent_of_the_batch():
    inputs = make_inputs("cpu", batch=3, length=100, width=160)
    first, second = run(inputs, "cpu"), run(inputs, "cpu")
    assert all(torch.equal(first[name], second[name]) for name in first)
    shared = {"A", "D", "delta_bias"}
    single = {name: x if name in shared else x[1:2] for name, x in inputs.items()}
    y = selective_scan(**{name: x.float() for name, x in single.items()}, backend="cpu")
    assert torch.equal(y.double(), first["y"][1:2])


def test_concurrent_calls_do_not_disturb_each_other():
    cases = [make_inputs("cpu", length=40 + i, width=64 + i, seed=i) for i in range(8)]
    expected = [run(inputs, "cpu") for inputs in cases]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            actual = list(pool.map(lambda inputs: run(inputs, "cpu"), cases))
            for a, e in zip(actual, expected, strict=True):
                assert all(torch.equal(a[name], e[name]) for name in e)


def _child(inputs, queue):
    torch.set_num_threads(1)  # torch's own threads do not survive a fork: DataLoader does the same
    y = selective_scan(**inputs, backend="cpu")
    ranges = []
    with mock.patch.object(torch, "get_num_threads", return_value=3):
        run_in_threads(_note_ranges, 3, ranges)
    queue.put((float(y.double().sum()), len(ranges)))


def _note_ranges(queue, ranges):
    start, stop = take_range(queue)
    while start < stop:
        ranges.append((start, stop))
        finish(queue, stop - start)
        start, stop = take_range(queue)


def _float_inputs():
    return {name: x.float() for name, x in make_inputs("cpu", width=160).items()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_child_can_scan():
    inputs = _float_inputs()
    expected = float(selective_scan(**inputs, backend="cpu").double().sum())
    run_in_threads(_note_ranges, 2, [])
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_child, args=(inputs, queue), daemon=True)
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert queue.get() == (expected, 3)


@contextmanager
def torch_threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def test_no_bit_depends_on_the_number_of_threads():
    """Over several segments of partial sums and several groups of blocks."""
    inputs = make_inputs("cpu", batch=1, length=300, width=290, states=16)
    with torch_threads(1):
        expected = run(inputs, "cpu")
    for threads in (2, 3, 7):
        with torch_threads(threads):
            actual = run(inputs, "cpu")
        assert all(torch.equal(actual[name], value) for name, value in expected.items())


@pytest.mark.parametrize("reverse", [False, True])
def test_partial_sums_of_many_segments_add_up(reverse, monkeypatch):
    monkeypatch.setattr(cpu, "PARTIAL_SUMS", 1)
    inputs = make_inputs("cpu", length=100, width=70)
    expected = run(inputs, "naive", torch.float64, reverse=reverse)
    assert_close(run(inputs, "cpu", reverse=reverse), expected, 3e-6)


def _loss(inputs, backend):
    y, state = selective_scan(**inputs, return_state=True, backend=backend)
    return y.sin().sum() + state.sum()


def test_compile_without_graph_breaks():
    leaves = [{name: x.requires_grad_() for name, x in _float_inputs().items()} for _ in range(2)]
    compiled = torch.compile(_loss, fullgraph=True, backend="aot_eager")
    for function, inputs in zip((_loss, compiled), leaves, strict=True):
        function(inputs, "auto").backward()
    for name in leaves[0]:
        torch.testing.assert_close(leaves[1][name].grad, leaves[0][name].grad)


class _Scan(torch.nn.Module):
    def forward(self, u, delta, A, B, C):
        return selective_scan(u, delta, A, B, C)


def test_export_keeps_the_operator():
    inputs = _float_inputs()
    args = tuple(inputs[name] for name in ("u", "delta", "A", "B", "C"))
    length = torch.export.Dim("length", min=2, max=4096)
    by_token = {1: length}
    program = torch.export.export(
        _Scan(), args, dynamic_shapes=(by_token, by_token, None, by_token, by_token)
    )
    assert "sparsefield.selective_scan" in str(program.graph)
    longer = tuple(torch.cat([x, x], 1) if x.ndim == 3 else x for x in args)
    torch.testing.assert_close(program.module()(*longer), _Scan()(*longer))


def test_the_operator_passes_torchs_own_checks():
    inputs = _float_inputs()
    args = [inputs[name].requires_grad_() for name in ("u", "delta", "A", "B", "C", "D", "z")]
    optional = [inputs[name].requires_grad_() for name in ("delta_bias", "h0")]
    torch.library.opcheck(
        torch.ops.sparsefield.selective_scan.default, (True, *args, *optional, False, True)
    )


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("shape", [(4, 300, 256), (1, 1100, 256), (1, 4096, 128)])
def test_memory_is_at_most_four_times_the_input(shape, gated):
    """All gradients of u, delta and z included; the states of all tokens would be 16 times."""
    inputs = make_inputs("cpu", *shape, states=16, gated=gated)
    leaves = {name: x.float().requires_grad_() for name, x in inputs.items()}
    selective_scan(**leaves, backend="cpu")  # compiles
    with torch.profiler.profile(profile_memory=True) as profile:
        selective_scan(**leaves, backend="cpu").sum().backward()
    events = profile.profiler.kineto_results.events()
    changes = torch.tensor([event.nbytes() for event in events if event.name() == "[memory]"])
    results = 3 if gated else 2
    size, scratch = leaves["u"].nbytes, 2**20
    assert results * size < changes.cumsum(0).max().item() <= 4 * size + scratch


def test_einsum_refuses_input_dependent_parameters():
    inputs = make_inputs("chunked")
    with pytest.raises(InputError, match="same delta at every token"):
        selective_scan(**inputs, backend="einsum")


def test_einsum_refuses_unreasonable_memory_and_says_how_much():
    inputs = make_inputs("einsum", batch=1, length=8192, width=16, states=1)
    with pytest.raises(InputError, match=r"8\.0 GiB"):
        selective_scan(**inputs, backend="einsum")


def test_cpu_refuses_float64_and_other_devices_with_the_reason():
    with pytest.raises(InputError, match="float64"):
        selective_scan(**make_inputs("cpu"), backend="cpu")
    meta = {name: x.to("meta", torch.float32) for name, x in make_inputs("cpu").items()}
    with pytest.raises(InputError, match="meta"):
        selective_scan(**meta, backend="cpu")


def test_unknown_backends_are_answered_with_the_choices():
    with pytest.raises(InputError, match=r"chunked.*cpu.*naive"):
        selective_scan(**make_inputs("cpu"), backend="cuda")


@pytest.mark.parametrize("name", ["delta", "A", "B", "C", "D", "z", "delta_bias", "h0"])
def test_a_wrong_shape_is_named(name):
    inputs = make_inputs("cpu")
    inputs[name] = inputs[name][..., :-1] if name != "A" else inputs[name][:-1]
    with pytest.raises(InputError, match=rf"argument {name} "):
        selective_scan(**inputs)


def test_auto_says_once_what_it_picked_and_why(caplog):
    scan_package._announce_once.cache_clear()
    with caplog.at_level(logging.INFO, logger=scan_package.__name__):
        for dtype in (torch.float32, torch.float64):
            inputs = {name: x.to(dtype) for name, x in make_inputs("cpu").items()}
            for _ in range(2):
                y = selective_scan(**inputs)
            assert torch.equal(y, selective_scan(**inputs, backend=_picked(dtype)))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "'cpu'" in messages[0]
    assert "float64" in messages[1]


def _picked(dtype):
    return "cpu" if dtype == torch.float32 else "chunked"


def test_mamba_ssm_says_why_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    with pytest.raises(InputError, match=r"not available.*mamba_ssm"):
        selective_scan(**make_inputs("cpu"), backend="mamba_ssm")


def test_mamba_ssm_needs_a_gpu(monkeypatch):
    interface = ModuleType("mamba_ssm.ops.selective_scan_interface")
    interface.selective_scan_fn = None
    for name in ("mamba_ssm", "mamba_ssm.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    with pytest.raises(InputError, match="CUDA"):
        selective_scan(**make_inputs("cpu"), backend="mamba_ssm")


def _kernel_by_channel(u, delta, A, B, C, D=None, z=None, delta_bias=None, **options):
    """Stand in for the package's kernel: the same signature and layout, by the loop."""
    assert options == {"delta_softplus": True, "return_last_state": True}
    sequences = [x for x in (u, delta, B, C, z) if x is not None]
    assert all(x.is_contiguous() and x.dtype == u.dtype for x in sequences)
    assert all(x.dtype == torch.float32 for x in (A, D, delta_bias) if x is not None)
    by_token = [None if x is None else x.transpose(1, 2) for x in (u, delta, B, C, z)]
    u, delta, B, C, z = by_token
    y, state = scan_naive(ScanInputs(u, delta, A, B, C, D, z, delta_bias, None, False))
    return y.transpose(1, 2), state


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_mamba_ssm_gets_its_own_layout_and_gives_ours(gated, reverse):
    inputs = make_inputs("cpu", gated=gated)
    inputs = {name: x.float() for name, x in inputs.items()} | {"h0": None}
    if not gated:
        inputs |= {"D": None, "delta_bias": None}
    arguments = ScanInputs(**{"z": None, **inputs}, reverse=reverse)
    y, state = call_kernel(_kernel_by_channel, arguments)
    expected_y, expected_state = scan_naive(arguments)
    torch.testing.assert_close(y, expected_y)
    torch.testing.assert_close(state, expected_state)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("backend", RUNNABLE)
def test_steps_without_softplus_may_have_any_sign(backend, reverse):
    inputs = make_inputs(backend, length=41)
    inputs["delta"] = (0.05 * (leaf(inputs["delta"]) + 1)).expand_as(inputs["delta"])
    inputs["delta_bias"] = 0.02 * inputs["delta_bias"]
    options = {"softplus": False, "reverse": reverse}
    expected = run(inputs, "naive", torch.float64, **options)
    assert (inputs["delta"] + inputs["delta_bias"]).min() < 0
    assert_close(run(inputs, backend, **options), expected, 3e-6)


@pytest.mark.parametrize("backend", RUNNABLE)
def test_no_softplus_is_the_inverse_softplus_of_positive_steps(backend):
    inputs = make_inputs(backend)
    steps = torch.nn.functional.softplus(inputs["delta"] + inputs["delta_bias"])
    plain = inputs | {"delta": steps, "delta_bias": None}
    args = [{k: None if x is None else x.float() for k, x in d.items()} for d in (inputs, plain)]
    expected = selective_scan(**args[0], backend=backend)
    actual = selective_scan(**args[1], softplus=False, backend=backend)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
