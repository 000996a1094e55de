"""The contracts of the `triton` scan, by its kernels on a GPU, else in Triton's interpreter.

Whether Triton interprets is decided when it is imported. Without a GPU the tests therefore run in
a process of their own, which one test starts: no other test ever sees an interpreting Triton.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.nn import scan as scan_package
from sparsefield.nn.scan import ScanInputs, selective_scan
from sparsefield.nn.scan.reference.naive import scan_naive
from sparsefield.nn.scan.triton import operator as triton

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
BY_TOKEN = ("u", "delta", "B", "C", "z")


@pytest.mark.skipif(DEVICE == "cuda", reason="the tests below run here, on the GPU")
@pytest.mark.skipif(INTERPRETED, reason="this is the process that interprets")
@pytest.mark.parametrize(
    "marks", ["not slow and not gpu", pytest.param("slow and not gpu", marks=pytest.mark.slow)]
)
def test_all_contracts_in_the_interpreter(marks):
    options = ["-q", "-p", "no:cacheprovider", "-m", marks]
    command = [sys.executable, "-m", "pytest", *options, __file__]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment = {k: v for k, v in environment.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def make_inputs(batch=1, length=19, width=5, states=2, seed=0):
    """Return random float64 inputs by name."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(DEVICE)

    return {
        "u": normal(batch, length, width),
        "delta": normal(batch, length, width) - 1,
        "A": -torch.exp(normal(width, states)),
        "B": normal(batch, length, states),
        "C": normal(batch, length, states),
        "D": normal(width),
        "z": normal(batch, length, width),
        "delta_bias": normal(width),
        "h0": normal(batch, width, states),
    }


def run(inputs, backend="triton", dtype=torch.float32, **options):
    """Return y, the last state and the gradient of every input, by name, in float64."""
    leaves = {name: x.detach().to(dtype).requires_grad_() for name, x in inputs.items()}
    y, state = selective_scan(**leaves, return_state=True, backend=backend, **options)
    generator = torch.Generator().manual_seed(1)
    loss = 0.0
    for x in (y, state):
        weight = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        loss = loss + (x.double() * weight.to(DEVICE)).sum()
    loss.backward()
    results = {"y": y, "state": state} | {f"d{name}": x.grad for name, x in leaves.items()}
    return {name: x.detach().double() for name, x in results.items()}


def assert_close(actual, expected, tolerance):
    """Compare by the largest error relative to the largest value."""
    for name, value in expected.items():
        error = (actual[name] - value).abs().max() / value.abs().max().clamp(min=1e-30)
        assert error <= tolerance, f"{name}: relative error {error:.1e}"


def assert_right(inputs, tolerance=3e-6, **options):
    """Compare everything with the loop in float64."""
    expected = run(inputs, "naive", torch.float64, **options)
    assert_close(run(inputs, **options), expected, tolerance)


class TestKernels:
    """Needs kernels that can run here."""

    __test__ = INTERPRETED or DEVICE == "cuda"

    @pytest.mark.parametrize(
        ("batch", "length", "states"),
        [
            (1, 1, 1),
            (3, 1, 2),
            (2, 37, 1),
            pytest.param(3, 63, 1, marks=pytest.mark.slow),
            pytest.param(1, 257, 1, marks=pytest.mark.slow),
        ],
    )
    def test_output_state_and_gradients_equal_the_loop_in_float64(self, batch, length, states):
        assert_right(make_inputs(batch, length, states=states))

    @pytest.mark.parametrize(("width", "states"), [(37, 5), (3, 16), (64, 1)])
    def test_every_width_and_number_of_states_is_right(self, width, states):
        assert_right(make_inputs(1, 5, width, states))

    @pytest.mark.slow
    @pytest.mark.gpu
    @pytest.mark.parametrize("batch", [1, 3])
    def test_long_sequences_accumulate_no_error(self, batch):
        assert_right(make_inputs(batch, 4096, 37, 16), 2e-5)

    @pytest.mark.gpu
    def test_so_many_items_that_nothing_is_cut(self):
        assert_right(make_inputs(triton.ENOUGH, 40))

    @pytest.mark.parametrize("reverse", [False, True])
    def test_a_sequence_in_one_segment(self, reverse, monkeypatch):
        monkeypatch.setattr(triton, "ENOUGH", 1)
        assert_right(make_inputs(2, 20, states=1), reverse=reverse)

    @pytest.mark.slow
    def test_more_segments_than_one_tile_of_the_chain(self, monkeypatch):
        monkeypatch.setattr(triton, "SHORTEST", 1)
        inputs = make_inputs(1, 280, 3, 1)
        exact, last = scan_naive(ScanInputs(**inputs, reverse=False))
        inputs = {name: x.float() for name, x in inputs.items()}
        y, state = selective_scan(**inputs, return_state=True, backend="triton")
        assert_close({"y": y, "state": state}, {"y": exact, "state": last}, 3e-6)

    def test_partial_sums_in_slices(self, monkeypatch):
        monkeypatch.setattr(triton, "SLICE", 1)
        monkeypatch.setattr(triton, "SHORTEST", 1)
        assert_right(make_inputs(1, 40, 34, 1))

    def test_reverse_is_flip_scan_flip(self, monkeypatch):
        monkeypatch.setattr(triton, "SHORTEST", 1)
        inputs = make_inputs(1, 20)
        flipped = {name: x.flip(1) if name in BY_TOKEN else x for name, x in inputs.items()}
        expected, actual = run(flipped), run(inputs, reverse=True)
        assert torch.equal(actual["y"], expected["y"].flip(1))
        assert torch.equal(actual["state"], expected["state"])
        assert_close(actual, run(inputs, "naive", torch.float64, reverse=True), 3e-6)

    def test_steps_without_softplus_may_have_any_sign(self, monkeypatch):
        monkeypatch.setattr(triton, "SHORTEST", 1)
        inputs = make_inputs(1, 20)
        inputs["delta"] = 0.1 * (inputs["delta"] + 1)
        assert (inputs["delta"] + inputs["delta_bias"]).min() < 0
        assert_right(inputs, 1e-5, softplus=False)

    @pytest.mark.parametrize("absent", ["D", "z", "delta_bias", "h0", "all"])
    def test_optional_inputs_may_be_absent(self, absent):
        names = {"D", "z", "delta_bias", "h0"} if absent == "all" else {absent}
        inputs = make_inputs(1, 5)
        assert_right({name: x for name, x in inputs.items() if name not in names})

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_inputs_have_a_float32_state(self, dtype):
        inputs = {name: x.to(dtype).double() for name, x in make_inputs(2, 5).items()}
        expected = run(inputs, "naive", torch.float64)
        actual = run(inputs, dtype=dtype)
        assert_close(actual, expected, 2 * torch.finfo(dtype).eps)
        assert_close({"state": actual["state"]}, {"state": expected["state"]}, 3e-6)

    def test_types_may_differ_between_inputs(self):
        inputs = {name: x.float() for name, x in make_inputs().items()}
        inputs["u"], inputs["z"] = inputs["u"].bfloat16(), inputs["z"].double()
        leaves = {name: x.requires_grad_() for name, x in inputs.items()}
        y, state = selective_scan(**leaves, return_state=True, backend="triton")
        y.sum().backward()
        assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
        assert all(x.grad.dtype == x.dtype for x in leaves.values())

    @pytest.mark.parametrize("shift", [1e4, -12])
    def test_extreme_steps_neither_overflow_nor_lose_digits(self, shift, monkeypatch):
        monkeypatch.setattr(triton, "SHORTEST", 1)
        inputs = make_inputs(states=1)
        inputs["delta"] = inputs["delta"] + shift
        actual = run(inputs)
        assert all(x.isfinite().all() for x in actual.values())
        assert_close(actual, run(inputs, "naive", torch.float64), 3e-6)

    @pytest.mark.parametrize("reverse", [False, True])
    def test_no_output_depends_on_a_later_token(self, reverse, monkeypatch):
        monkeypatch.setattr(triton, "SHORTEST", 1)
        inputs = {name: x.float() for name, x in make_inputs(1, 40).items()}
        before = selective_scan(**inputs, reverse=reverse, backend="triton")
        changed = dict(inputs) | {name: inputs[name].clone() for name in BY_TOKEN}
        for name in BY_TOKEN:
            changed[name][:, 20] += 1
        after = selective_scan(**changed, reverse=reverse, backend="triton")
        same, moved = (slice(21, None), slice(21)) if reverse else (slice(20), slice(20, None))
        assert torch.equal(before[:, same], after[:, same])
        assert (before[:, moved] != after[:, moved]).any(dim=(0, 2)).all()

    def test_a_state_handed_on_continues_the_sequence(self):
        inputs = {name: x.float() for name, x in make_inputs(1, 40).items()}
        parts = [
            inputs | {n: inputs[n][:, s] for n in BY_TOKEN} for s in (slice(23), slice(23, 40))
        ]
        y, state = selective_scan(**inputs, return_state=True, backend="triton")
        first, middle = selective_scan(**parts[0], return_state=True, backend="triton")
        parts[1]["h0"] = middle
        second, last = selective_scan(**parts[1], return_state=True, backend="triton")
        torch.testing.assert_close(torch.cat([first, second], 1), y, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(last, state, rtol=1e-5, atol=1e-5)

    def test_strides_do_not_matter(self):
        inputs = {name: x.float() for name, x in make_inputs(2, 5).items()}
        strided = dict(inputs)
        strided["u"] = inputs["u"].transpose(1, 2).contiguous().transpose(1, 2)
        both = torch.cat([inputs["delta"], inputs["z"]], -1)
        strided["delta"], strided["z"] = both.chunk(2, -1)
        strided["B"] = inputs["B"].transpose(0, 1).contiguous().transpose(0, 1)
        strided["C"] = torch.stack([inputs["C"]] * 2, -1)[..., 0]
        strided["A"] = inputs["A"].T.contiguous().T
        strided["h0"] = inputs["h0"].expand(2, 2, -1, -1)[1]
        expected, actual = run_strided(inputs), run_strided(strided)
        for name, value in expected.items():
            assert torch.equal(actual[name], value), name

    def test_a_gradient_that_repeats(self):
        """The gradient of a sum has strides of zero."""
        leaves = {name: x.float().requires_grad_() for name, x in make_inputs().items()}
        selective_scan(**leaves, backend="triton").sum().backward()
        exact = {name: x.requires_grad_() for name, x in make_inputs().items()}
        selective_scan(**exact, backend="naive").sum().backward()
        for name, x in exact.items():
            torch.testing.assert_close(leaves[name].grad.double(), x.grad, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("poison", [float("nan"), float("inf")])
    @pytest.mark.parametrize("name", ["u", "delta", "B", "C", "z", "A", "D", "delta_bias", "h0"])
    def test_a_nan_or_infinity_reaches_the_output(self, name, poison):
        inputs = {key: x.float() for key, x in make_inputs(1, 3, states=1).items()}
        if name == "A" and poison == float("inf"):
            poison = float("nan")  # an infinitely fast decay is a legitimate zero
        inputs[name][(0,) * inputs[name].ndim] = poison
        assert not selective_scan(**inputs, backend="triton").isfinite().all()

    def test_uninitialised_memory_is_never_read(self, monkeypatch):
        """With every new tensor full of NaN, the results are the same bits."""
        monkeypatch.setattr(triton, "SHORTEST", 1)
        inputs = make_inputs(states=1)
        expected = run(inputs)
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = True
        try:
            actual = run(inputs)
        finally:
            torch.use_deterministic_algorithms(False)
        assert all(torch.equal(actual[name], value) for name, value in expected.items())

    def test_no_gradient_is_kept_for_without_one(self):
        inputs = {name: x.float() for name, x in make_inputs().items()}
        y, state = selective_scan(**inputs, return_state=True, backend="triton")
        expected, last = scan_naive(ScanInputs(**inputs, reverse=False))
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(state, last, rtol=1e-5, atol=1e-5)

    @pytest.mark.slow
    def test_compile_without_graph_breaks(self):
        leaves = [
            {name: x.float().requires_grad_() for name, x in make_inputs().items()}
            for _ in range(2)
        ]
        compiled = torch.compile(_loss, fullgraph=True, backend="aot_eager")
        for function, inputs in zip((_loss, compiled), leaves, strict=True):
            function(inputs).backward()
        for name in leaves[0]:
            torch.testing.assert_close(leaves[1][name].grad, leaves[0][name].grad)

    @pytest.mark.slow
    def test_the_operator_passes_torchs_own_checks(self):
        inputs = {name: x.float().requires_grad_() for name, x in make_inputs(1, 3).items()}
        args = [inputs[name] for name in ("u", "delta", "A", "B", "C", "D", "z")]
        args += [inputs[name] for name in ("delta_bias", "h0")]
        torch.library.opcheck(
            torch.ops.sparsefield.selective_scan_triton.default, (True, *args, False, True)
        )


def run_strided(inputs):
    """Return y and all gradients of inputs that keep their strides."""
    leaves = {name: x.detach().requires_grad_() for name, x in inputs.items()}
    y = selective_scan(**leaves, backend="triton")
    grads = torch.autograd.grad((y * y).sum(), list(leaves.values()))
    return {"y": y.detach()} | dict(zip(leaves, grads, strict=True))


def _loss(inputs):
    y, state = selective_scan(**inputs, return_state=True, backend="triton")
    return y.sin().sum() + state.sum()


class _NoKernels:
    """Kernels that do nothing, whatever their name."""

    INTERPRETED = True

    def __getattr__(self, name):
        return self

    def __getitem__(self, grid):
        return lambda **arguments: None


@pytest.mark.parametrize(("gated", "limit"), [(False, 4), (True, 5)])
def test_memory_is_what_the_page_says(gated, limit, monkeypatch):
    """In sizes of u, all gradients included; the states of all tokens would be 16 times."""
    monkeypatch.setattr(triton, "INSTALLED", True)
    monkeypatch.setattr(triton, "_kernels", _NoKernels)
    batch, length, width, states = 1, 32768, 512, 16
    shapes = {"u": (batch, length, width), "delta": (batch, length, width), "A": (width, states)}
    shapes |= {"B": (batch, length, states), "C": (batch, length, states)}
    shapes |= {"z": (batch, length, width)} if gated else {}
    leaves = {name: torch.empty(shape).requires_grad_() for name, shape in shapes.items()}
    with torch.profiler.profile(profile_memory=True) as profile:
        selective_scan(**leaves, backend="triton").sum().backward()
    events = profile.profiler.kineto_results.events()
    changes = torch.tensor([event.nbytes() for event in events if event.name() == "[memory]"])
    peak = changes.cumsum(0).max().item() / leaves["u"].nbytes
    assert limit - 1 < peak <= limit


def test_float64_is_refused_with_the_alternative():
    with pytest.raises(InputError, match=r"float64.*chunked"):
        selective_scan(**make_inputs(), backend="triton")


def test_other_devices_are_refused_with_the_reason():
    meta = {name: x.to("meta", torch.float32) for name, x in make_inputs().items()}
    with pytest.raises(InputError, match=r"CUDA.*meta"):
        selective_scan(**meta, backend="triton")


@pytest.mark.skipif(INTERPRETED, reason="the interpreter runs on the processor")
def test_the_processor_is_refused_unless_triton_interprets():
    inputs = {name: x.to("cpu", torch.float32) for name, x in make_inputs().items()}
    with pytest.raises(InputError, match=r"CUDA.*TRITON_INTERPRET"):
        selective_scan(**inputs, backend="triton")


def test_a_missing_triton_is_named(monkeypatch):
    monkeypatch.setattr(triton, "INSTALLED", False)
    inputs = {name: x.float() for name, x in make_inputs().items()}
    with pytest.raises(InputError, match="not installed"):
        selective_scan(**inputs, backend="triton")


@pytest.mark.parametrize(("installed", "expected"), [(True, "triton"), (False, "chunked")])
def test_auto_takes_triton_on_a_gpu_where_it_is_installed(installed, expected, monkeypatch):
    monkeypatch.setattr(triton, "INSTALLED", installed)
    on_gpu = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)
    backend, reason = scan_package._pick(SimpleNamespace(u=on_gpu))
    assert backend == expected
    assert ("not installed" in reason) == (not installed)
