import threading

import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.nn.local_attention import BACKENDS, local_attention

SHAPES = {  # B, L, M, H, E, K
    "small": (2, 63, 21, 3, 16, 5),
    "more neighbours than keys": (2, 63, 9, 2, 16, 17),
    "width 20": (2, 63, 21, 3, 20, 16),
    "width 5": (3, 7, 11, 1, 5, 3),
    "width 32, many neighbours": (1, 65, 90, 2, 32, 70),
    "one item in parts": (1, 1031, 50, 2, 16, 9),
}


def make_inputs(shape, seed=0):
    B, L, M, H, E, K = shape
    generator = torch.Generator().manual_seed(seed)
    q, k, v, dy = (
        torch.randn(B, n, H, E, generator=generator, dtype=torch.float64) for n in (L, M, M, L)
    )
    bias = torch.randn(B, L, K, H, generator=generator, dtype=torch.float64)
    bias.masked_fill_(torch.rand(B, L, K, 1, generator=generator) < 0.2, -torch.inf)
    index = torch.randint(M, (B, L, K), generator=generator)
    return (q, k, v, bias), index, dy


def attend(inputs, index, dy, backend, dtype=torch.float32):
    """Return the output and the gradients of q, k, v and bias."""
    leaves = [x.to(dtype, copy=True).requires_grad_() for x in inputs]
    y = local_attention(*leaves, index, backend=backend)
    y.backward(dy.to(y.dtype))
    return [y.detach(), *(x.grad for x in leaves)]


def definition(q, k, v, bias, index):
    """The sum over neighbours, one query and head at a time."""
    y = torch.zeros_like(q)
    for b, n, h in torch.cartesian_prod(*(torch.arange(s) for s in q.shape[:3])).tolist():
        keys, values = k[b, index[b, n], h], v[b, index[b, n], h]
        scores = keys @ q[b, n, h] / q.shape[-1] ** 0.5 + bias[b, n, :, h]
        if scores.max() > -torch.inf:
            y[b, n, h] = scores.softmax(0) @ values
    return y


@pytest.mark.parametrize("shape", [SHAPES["small"], SHAPES["width 5"]])
def test_gather_follows_the_definition(shape):
    inputs, index, _ = make_inputs(shape)
    y = local_attention(*inputs, index, backend="gather")
    torch.testing.assert_close(y, definition(*inputs, index), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_output_and_gradients_match_float64(backend, shape):
    arguments = make_inputs(shape)
    expected = attend(*arguments, "gather", torch.float64)
    for got, want in zip(attend(*arguments, backend), expected, strict=True):
        assert got.dtype == torch.float32 and got.shape == want.shape
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_query_that_sees_nothing_gets_zero_and_no_gradient(backend):
    inputs, index, dy = make_inputs(SHAPES["small"])
    inputs[3][:, 4] = -torch.inf
    y, dq, dk, dv, dbias = attend(inputs, index, dy, backend)
    assert not y[:, 4].any() and not dq[:, 4].any() and not dbias[:, 4].any()
    assert all(x.isfinite().all() for x in (y, dq, dk, dv, dbias))
    inputs[3][:] = -torch.inf
    assert not any(x.any() for x in attend(inputs, index, dy, backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_neighbours_at_all(backend):
    (q, k, v, bias), index, dy = make_inputs(SHAPES["small"])
    inputs = (q, k[:, :0], v[:, :0], bias[:, :, :0])
    y, dq, *_ = attend(inputs, index[:, :, :0], dy, backend)
    assert not y.any() and not dq.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_hidden_neighbours_do_not_matter(backend):
    inputs, index, dy = make_inputs(SHAPES["small"])
    expected = attend(inputs, index, dy, backend)
    hidden = torch.isneginf(inputs[3][..., 0])
    others = torch.where(hidden, (index + 1) % 21, index)
    for got, want in zip(attend(inputs, others, dy, backend), expected, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_scores_do_not_overflow(backend):
    (q, k, v, bias), index, dy = make_inputs(SHAPES["small"])
    inputs = (30 * q, 30 * k, v, bias)
    expected = attend(inputs, index, dy, "gather", torch.float64)
    for got, want in zip(attend(inputs, index, dy, backend), expected, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=2e-3, atol=2e-2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_is_not_hidden(backend):
    inputs, index, _ = make_inputs(SHAPES["small"])
    q, k, v, bias = (x.float() for x in inputs)
    q[0, 3, 1, 0] = torch.nan
    y = local_attention(q, k, v, bias, index, backend=backend)
    assert y[0, 3, 1].isnan().all()
    assert y.isnan().sum() == y.shape[-1]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_keeps_its_type_and_sums_in_float32(backend, dtype):
    inputs, index, dy = make_inputs(SHAPES["small"])
    rounded = [x.to(dtype).double() for x in inputs]
    expected = attend(rounded, index, dy.to(dtype), "gather", torch.float64)
    for got, want in zip(attend(inputs, index, dy, backend, dtype), expected, strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got, want.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_inputs(backend):
    (q, k, v, bias), index, dy = make_inputs(SHAPES["small"])
    expected = attend((q, k, v, bias), index, dy, backend)
    q = q.transpose(1, 2).contiguous().transpose(1, 2)
    k, v = torch.cat([k, v], dim=-1).chunk(2, dim=-1)
    index = index.repeat_interleave(2, dim=-1)[..., ::2].int()
    for got, want in zip(attend((q, k, v, bias), index, dy, backend), expected, strict=True):
        torch.testing.assert_close(got, want)


def test_a_shared_bias_gets_the_sum_of_its_gradients():
    (q, k, v, bias), index, dy = make_inputs(SHAPES["small"])
    shared = bias[:1, :, :, :1].float().requires_grad_()
    q, k, v = (x.float() for x in (q, k, v))
    local_attention(q, k, v, shared.expand(bias.shape), index).backward(dy.float())
    every = attend((q, k, v, shared.detach().expand(bias.shape)), index, dy, "gather")[-1]
    torch.testing.assert_close(shared.grad, every.sum((0, 3), keepdim=True))


@pytest.mark.parametrize("name", ["small", "one item in parts"])
def test_bits_do_not_depend_on_run_or_threads(name):
    arguments = make_inputs(SHAPES[name])
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2, 5):
            torch.set_num_threads(threads)
            results.append(attend(*arguments, "cpu"))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_concurrent_callers():
    arguments = [make_inputs(SHAPES["small"], seed) for seed in range(4)]
    expected = [attend(*a, "cpu") for a in arguments]
    results = [None] * 4

    def call(i):
        results[i] = attend(*arguments[i], "cpu")

    threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for got, want in zip(results, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_an_item_does_not_depend_on_its_batch():
    inputs, index, dy = make_inputs((5, 700, 21, 2, 16, 6))
    whole = attend(inputs, index, dy, "cpu")
    alone = attend([x[3:4] for x in inputs], index[3:4], dy[3:4], "cpu")
    assert torch.equal(whole[0][3:4], alone[0])
    for a, b in zip(whole, alone, strict=True):
        torch.testing.assert_close(a[3:4], b)


def test_custom_operator_is_registered_completely():
    inputs, index, _ = make_inputs((2, 7, 5, 2, 16, 3))
    leaves = [x.float().requires_grad_() for x in inputs]
    torch.library.opcheck(torch.ops.sparsefield.local_attention.default, (*leaves, index))


def test_auto_takes_the_backend_that_can():
    inputs, index, _ = make_inputs(SHAPES["small"])
    assert local_attention(*inputs, index).dtype == torch.float64
    fused = [x.float() for x in inputs]
    assert torch.equal(
        local_attention(*fused, index), local_attention(*fused, index, backend="cpu")
    )


def test_errors_say_what_to_do():
    inputs, index, _ = make_inputs(SHAPES["small"])
    with pytest.raises(InputError, match="gather"):
        local_attention(*inputs, index, backend="best")
    with pytest.raises(InputError, match="float64"):
        local_attention(*inputs, index, backend="cpu")
    index[1, 2, 3] = 21
    with pytest.raises(InputError, match="21 keys"):
        local_attention(*(x.float() for x in inputs), index, backend="cpu")
    with pytest.raises(InputError, match="do not fit"):
        q, k, v, bias = (x.float() for x in inputs)
        local_attention(q, k, v, bias[:, :, 1:], index, backend="cpu")
