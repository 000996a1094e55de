"""The layer and functions with mamba_ssm's names, against loops over numbers in float64."""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sparsefield.core.errors import InputError
from sparsefield.nn.mamba_ssm import (
    InferenceParams,
    Mamba,
    causal_conv1d_fn,
    causal_conv1d_update,
    selective_scan_fn,
    selective_state_update,
)

ITEMS, WIDTH, STATES, LENGTH = 2, 6, 3, 7
WEIGHTS = {
    "shared": (ITEMS, STATES, LENGTH),
    "one group": (ITEMS, 1, STATES, LENGTH),
    "groups": (ITEMS, 2, STATES, LENGTH),
    "constant": (WIDTH, STATES),
}


def softplus(x):
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def silu(x):
    return x / (1 + math.exp(-x))


def weight(w, item, channel, state, token):
    """Return one weight of any of the three shapes of B and C."""
    if w.ndim == 2:
        return w[channel, state]
    if w.ndim == 3:
        return w[item, state, token]
    return w[item, channel * w.shape[1] // WIDTH, state, token]


def scan_in_loops(u, delta, A, B, C, D=None, z=None, bias=None, softplus_steps=False):
    """The recurrence, one number at a time."""
    y, last = np.zeros(u.shape), np.zeros((len(u), *A.shape))
    for i, d in itertools.product(range(u.shape[0]), range(u.shape[1])):
        h = [0.0] * A.shape[1]
        for k in range(u.shape[2]):
            s = delta[i, d, k] + (0.0 if bias is None else bias[d])
            s = softplus(s) if softplus_steps else s
            out = 0.0 if D is None else D[d] * u[i, d, k]
            for n in range(A.shape[1]):
                push = s * weight(B, i, d, n, k) * u[i, d, k]
                h[n] = math.exp(s * A[d, n]) * h[n] + push
                out += weight(C, i, d, n, k) * h[n]
            y[i, d, k] = out if z is None else out * silu(z[i, d, k])
        last[i, d] = h
    return y, last


def make_inputs(B="shared", C="shared", seed=0):
    random = np.random.default_rng(seed)
    sequence = (ITEMS, WIDTH, LENGTH)
    shapes = {"u": sequence, "delta": sequence, "B": WEIGHTS[B], "C": WEIGHTS[C], "z": sequence}
    inputs = {name: random.standard_normal(shape) for name, shape in shapes.items()}
    inputs["A"] = -np.exp(random.standard_normal((WIDTH, STATES)))
    return inputs | {name: random.standard_normal(WIDTH) for name in ("D", "delta_bias")}


def as_tensors(inputs, dtype=torch.float64):
    return {name: torch.tensor(x, dtype=dtype) for name, x in inputs.items()}


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize(("B", "C"), itertools.product(WEIGHTS, WEIGHTS))
def test_every_shape_of_weights_follows_the_recurrence(B, C, plus):
    x = make_inputs(B, C)
    arrays = {name: x[name] for name in ("u", "delta", "A", "B", "C", "D", "z")}
    y, last = scan_in_loops(**arrays, bias=x["delta_bias"], softplus_steps=plus)
    options = {"delta_softplus": plus, "return_last_state": True}
    for dtype, tolerance in [(torch.float64, 1e-12), (torch.float32, 2e-5)]:
        actual = selective_scan_fn(**as_tensors(x, dtype), **options)
        assert actual[0].dtype == dtype
        for found, expected in zip(actual, (y, last), strict=True):
            wanted = torch.tensor(expected, dtype=dtype)
            torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("absent", ["D", "z", "delta_bias", "all"])
@pytest.mark.parametrize("weights", ["groups", "constant"])
def test_optional_inputs_may_be_absent(weights, absent):
    x = make_inputs(weights, weights)
    for name in ("D", "z", "delta_bias") if absent == "all" else (absent,):
        x[name] = None
    given = [x[name] for name in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")]
    expected, _ = scan_in_loops(*given)
    y = selective_scan_fn(*(None if v is None else torch.tensor(v) for v in given))
    torch.testing.assert_close(y, torch.tensor(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_gradients_are_those_of_finite_differences(weights):
    x = as_tensors(make_inputs(weights, "shared"))
    names = list(x)
    leaves = [t.requires_grad_() for t in x.values()]

    def scan(*args):
        options = {"delta_softplus": True, "return_last_state": True}
        return selective_scan_fn(**dict(zip(names, args, strict=True)), **options)

    assert torch.autograd.gradcheck(scan, leaves)


def test_bfloat16_is_rounded_once_at_the_end():
    x = as_tensors(make_inputs("constant", "constant"), torch.bfloat16)
    exact = selective_scan_fn(**{k: v.double() for k, v in x.items()}, delta_softplus=True)
    y = selective_scan_fn(**x, delta_softplus=True)
    assert y.dtype == torch.bfloat16
    error = (y.double() - exact).abs().max() / exact.abs().max()
    assert error <= 2 * torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize("name", ["delta", "A", "B", "C", "D", "z", "delta_bias"])
def test_a_wrong_shape_is_named(name):
    x = as_tensors(make_inputs())
    x[name] = x[name][..., :-1]
    with pytest.raises(InputError, match=name if name != "A" else "B"):
        selective_scan_fn(**x)


def test_complex_rates_and_odd_groups_are_refused():
    x = as_tensors(make_inputs())
    with pytest.raises(InputError, match="A is torch.complex128"):
        selective_scan_fn(**x | {"A": x["A"].cdouble()})
    with pytest.raises(InputError, match="6 channels of u cannot be cut into 4 groups"):
        selective_scan_fn(**x | {"B": torch.ones(ITEMS, 4, STATES, LENGTH)})


@pytest.mark.parametrize("weights", ["shared", "groups"])
def test_one_step_after_another_is_the_scan(weights):
    x = as_tensors(make_inputs(weights, weights))
    options = {"delta_softplus": True, "return_last_state": True}
    expected, last = selective_scan_fn(**x, **options)
    state = torch.zeros(ITEMS, WIDTH, STATES, dtype=torch.float64)
    for k in range(LENGTH):
        u, delta, B, C, z = (x[name][..., k] for name in ("u", "delta", "B", "C", "z"))
        y = selective_state_update(
            state, u, delta, x["A"], B, C, x["D"], z, x["delta_bias"], dt_softplus=True
        )
        torch.testing.assert_close(y, expected[..., k])
    torch.testing.assert_close(state, last)


TAPS = 4


def convolve_in_loops(x, w, bias, segments=None, before=None):
    y = np.zeros(x.shape)
    for i, d, k in np.ndindex(*x.shape):
        y[i, d, k] = bias[d]
        for lag in range(TAPS):
            if k - lag >= 0 and (segments is None or segments[i, k - lag] == segments[i, k]):
                y[i, d, k] += w[d, TAPS - 1 - lag] * x[i, d, k - lag]
            elif k - lag < 0 and before is not None:
                y[i, d, k] += w[d, TAPS - 1 - lag] * before[i, d, k - lag]
    return y


def make_convolution(length=LENGTH):
    random = np.random.default_rng(1)
    shapes = [(ITEMS, WIDTH, length), (WIDTH, TAPS), (WIDTH,), (ITEMS, WIDTH, TAPS - 1)]
    return [random.standard_normal(shape) for shape in shapes]


@pytest.mark.parametrize("length", [1, 2, LENGTH])
@pytest.mark.parametrize("case", ["plain", "segments", "before"])
def test_convolution_follows_its_sum(case, length):
    x, w, bias, before = make_convolution(length)
    segments = np.array([[0, 0, 1, 1, 1, 2, 0], [3, 3, 3, 3, 3, 3, 7]])[:, :length]
    extra = {"segments": segments} if case == "segments" else {}
    extra = {"before": before} if case == "before" else extra
    expected = torch.tensor(convolve_in_loops(x, w, bias, **extra))
    options = {"seq_idx": torch.tensor(segments)} if case == "segments" else {}
    options = {"initial_states": torch.tensor(before)} if case == "before" else options
    args = [torch.tensor(t) for t in (x, w, bias)]
    torch.testing.assert_close(causal_conv1d_fn(*args, **options), expected)
    for name in ("silu", "swish"):
        y = causal_conv1d_fn(*args, **options, activation=name)
        torch.testing.assert_close(y, expected * torch.sigmoid(expected))


def test_convolution_has_gradients():
    leaves = [torch.tensor(t, requires_grad=True) for t in make_convolution()[:3]]
    assert torch.autograd.gradcheck(lambda *a: causal_conv1d_fn(*a, activation="silu"), leaves)


@pytest.mark.parametrize("cut", [1, 2, 5])
def test_final_states_continue_the_convolution(cut):
    x, w, bias = (torch.tensor(t) for t in make_convolution()[:3])
    whole = causal_conv1d_fn(x, w, bias)
    memory = torch.zeros(ITEMS, WIDTH, TAPS - 1, dtype=torch.float64)
    first, state = causal_conv1d_fn(
        x[..., :cut], w, bias, return_final_states=True, final_states_out=memory
    )
    assert state is memory
    second = causal_conv1d_fn(x[..., cut:], w, bias, initial_states=state)
    torch.testing.assert_close(torch.cat([first, second], -1), whole)


@pytest.mark.parametrize("size", [TAPS - 1, TAPS, TAPS + 2])
def test_one_token_after_another_is_the_convolution(size):
    x, w, bias = (torch.tensor(t) for t in make_convolution()[:3])
    whole = causal_conv1d_fn(x, w, bias, activation="silu")
    state = torch.zeros(ITEMS, WIDTH, size, dtype=torch.float64)
    pieces = [causal_conv1d_update(x[..., k], state, w, bias, "silu") for k in range(3)]
    rest = causal_conv1d_update(x[..., 3:], state, w, bias, "silu")
    torch.testing.assert_close(torch.cat([torch.stack(pieces, -1), rest], -1), whole)


def test_convolution_refuses_what_it_cannot_do():
    x, w, bias, before = (torch.tensor(t) for t in make_convolution())
    segments = torch.zeros(ITEMS, LENGTH, dtype=torch.int32)
    with pytest.raises(InputError, match="gelu"):
        causal_conv1d_fn(x, w, bias, activation="gelu")
    with pytest.raises(InputError, match="not both"):
        causal_conv1d_fn(x, w, bias, segments, before)
    with pytest.raises(InputError, match="seq_idx"):
        causal_conv1d_fn(x, w, bias, segments[:, 1:])
    with pytest.raises(InputError, match="initial_states"):
        causal_conv1d_fn(x, w, bias, initial_states=before[..., 1:])
    with pytest.raises(InputError, match="weight"):
        causal_conv1d_fn(x, w[1:], bias)
    with pytest.raises(InputError, match="bias"):
        causal_conv1d_fn(x, w, bias[1:])


MODEL, EXPAND, RANK = 5, 3, 2
INNER = EXPAND * MODEL
SIZES = {"d_model": MODEL, "d_state": STATES, "d_conv": TAPS, "expand": EXPAND, "dt_rank": RANK}
# The parameters of mamba_ssm's layer, as its state dicts have them.
NAMED = {
    "A_log": (INNER, STATES),
    "D": (INNER,),
    "in_proj.weight": (2 * INNER, MODEL),
    "conv1d.weight": (INNER, 1, TAPS),
    "conv1d.bias": (INNER,),
    "x_proj.weight": (RANK + 2 * STATES, INNER),
    "dt_proj.weight": (INNER, RANK),
    "dt_proj.bias": (INNER,),
    "out_proj.weight": (MODEL, INNER),
}


def named_weights(dtype=torch.float64):
    """A state dict under mamba_ssm's names, with numbers that nothing of ours made."""
    random = np.random.default_rng(2)
    made = {name: random.standard_normal(shape) for name, shape in NAMED.items()}
    return {name: torch.tensor(0.5 * x, dtype=dtype) for name, x in made.items()}


def layer_in_loops(weights, x):
    """The layer from its state dict, on NumPy and the loops above."""
    w = {name: t.double().numpy() for name, t in weights.items()}
    u, z = np.split(x @ w["in_proj.weight"].T, 2, axis=-1)
    u = convolve_in_loops(u.transpose(0, 2, 1), w["conv1d.weight"][:, 0], w["conv1d.bias"])
    u = np.vectorize(silu)(u)
    delta, B, C = np.split(u.transpose(0, 2, 1) @ w["x_proj.weight"].T, [RANK, RANK + STATES], -1)
    y, _ = scan_in_loops(
        u,
        (delta @ w["dt_proj.weight"].T).transpose(0, 2, 1),
        -np.exp(w["A_log"]),
        B.transpose(0, 2, 1),
        C.transpose(0, 2, 1),
        w["D"],
        z.transpose(0, 2, 1),
        w["dt_proj.bias"],
        softplus_steps=True,
    )
    return y.transpose(0, 2, 1) @ w["out_proj.weight"].T


def tokens(dtype=torch.float64):
    random = np.random.default_rng(3)
    return torch.tensor(random.standard_normal((ITEMS, LENGTH, MODEL)), dtype=dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_a_state_dict_of_mamba_ssm_loads_and_gives_its_numbers(dtype, tolerance):
    layer, weights = Mamba(**SIZES, dtype=dtype), named_weights(dtype)
    layer.load_state_dict(weights, strict=True)
    expected = torch.tensor(layer_in_loops(weights, tokens().numpy()), dtype=dtype)
    torch.testing.assert_close(layer(tokens(dtype)), expected, rtol=tolerance, atol=tolerance)


def test_our_state_dict_has_the_names_and_shapes_of_mamba_ssm():
    ours = Mamba(**SIZES).state_dict()
    assert {name: tuple(x.shape) for name, x in ours.items()} == NAMED
    with_bias = Mamba(**SIZES, bias=True, conv_bias=False).state_dict()
    more = {"in_proj.bias": (2 * INNER,), "out_proj.bias": (MODEL,)}
    expected = {k: v for k, v in (NAMED | more).items() if k != "conv1d.bias"}
    assert {name: tuple(x.shape) for name, x in with_bias.items()} == expected


def test_defaults_are_those_of_mamba_ssm():
    layer = Mamba(48)
    assert (layer.d_inner, layer.d_state, layer.d_conv, layer.dt_rank) == (96, 16, 4, 3)
    steps = nn.functional.softplus(layer.dt_proj.bias)
    assert steps.min() >= 1e-3 * 0.999 and steps.max() <= 1e-1 * 1.001
    torch.testing.assert_close(layer.A_log.exp()[7], torch.arange(1.0, 17.0))
    assert layer.dt_proj.weight.abs().max() <= 3**-0.5
    assert (Mamba(48, dt_init="constant", dt_scale=2.0).dt_proj.weight == 2 * 3**-0.5).all()
    with pytest.raises(InputError, match="zeros"):
        Mamba(48, dt_init="zeros")


def test_optimisers_are_told_what_not_to_decay():
    layer = Mamba(**SIZES)
    kept = {n for n, p in layer.named_parameters() if getattr(p, "_no_weight_decay", False)}
    assert kept == {"A_log", "D"}
    assert layer.dt_proj.bias._no_reinit


def test_half_precision_keeps_rates_in_float32():
    layer = Mamba(**SIZES, dtype=torch.bfloat16)
    assert layer.A_log.dtype == layer.D.dtype == torch.float32
    layer.load_state_dict(named_weights())
    y = layer(tokens(torch.bfloat16))
    assert y.dtype == torch.bfloat16
    expected = torch.tensor(layer_in_loops(layer.state_dict(), tokens().numpy()))
    assert (y.double() - expected).abs().max() < 0.03 * expected.abs().max()


def test_every_parameter_has_a_gradient():
    layer = Mamba(**SIZES)
    layer(tokens(torch.float32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())


def test_tokens_one_by_one_are_the_sequence():
    layer = Mamba(**SIZES, dtype=torch.float64)
    layer.load_state_dict(named_weights())
    x, expected = tokens(), layer(tokens())
    states = layer.allocate_inference_cache(ITEMS, LENGTH)
    assert [tuple(s.shape) for s in states] == [(ITEMS, INNER, TAPS), (ITEMS, INNER, STATES)]
    with torch.no_grad():
        outputs = [layer.step(x[:, k : k + 1], *states)[0] for k in range(LENGTH)]
    torch.testing.assert_close(torch.cat(outputs, 1), expected)
    with pytest.raises(InputError, match="one token"):
        layer.step(x, *states)


@pytest.mark.parametrize("prompt", [1, 2, 5])
def test_a_cache_goes_on_where_the_prompt_ended(prompt):
    layer = Mamba(**SIZES, layer_idx=3, dtype=torch.float64)
    layer.load_state_dict(named_weights())
    x, expected = tokens(), layer(tokens())
    cache = InferenceParams(max_seqlen=LENGTH, max_batch_size=ITEMS)
    with torch.no_grad():
        for _ in range(2):  # a second prompt starts over
            cache.seqlen_offset = 0
            outputs = [layer(x[:, :prompt], inference_params=cache)]
            for k in range(prompt, LENGTH):
                cache.seqlen_offset = k
                outputs.append(layer(x[:, k : k + 1], inference_params=cache))
            torch.testing.assert_close(torch.cat(outputs, 1), expected)
    assert list(cache.key_value_memory_dict) == [3]
    with pytest.raises(InputError, match="layer_idx"):
        Mamba(**SIZES)(tokens(torch.float32), cache)


def test_autocast_to_bfloat16_stays_close():
    layer, x = Mamba(**SIZES), tokens(torch.float32)
    layer.load_state_dict(named_weights(torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert (y - layer(x)).abs().max() < 0.03 * layer(x).abs().max()


def test_the_guide_runs_as_written():
    page = Path(__file__).parents[2] / "docs" / "scan.md"
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 4
    names = {}
    for block in blocks:
        exec(compile(block, page.name, "exec"), names)
