"""Attention, plain and local."""

import math

import pytest
import torch

from sparsefield.nn.attention import Attention

B, L, M, P, D, HEADS = 2, 11, 7, 3, 24, 3


def spoil(context, valid):
    """Return the context with garbage wherever it is not valid."""
    return torch.where(valid[..., None], context, torch.full_like(context, 1e3))


def reference(layer, x, context):
    """The formula of the docstring, one head at a time."""
    q, (k, v) = layer.query(x), layer.key_value(context).chunk(2, dim=-1)
    heads = [
        torch.softmax(qh @ kh.mT / math.sqrt(D / HEADS), dim=-1) @ vh
        for qh, kh, vh in zip(*(y.chunk(HEADS, dim=-1) for y in (q, k, v)), strict=True)
    ]
    return layer.out(torch.cat(heads, dim=-1))


@pytest.fixture
def plain():
    return Attention(D, HEADS)


def test_attention_follows_its_formula(plain):
    x, context = torch.randn(B, L, D), torch.randn(B, M, D)
    torch.testing.assert_close(plain(x, context), reference(plain, x, context))


def test_masked_context_is_as_good_as_absent(plain):
    x, context = torch.randn(B, L, D), torch.randn(B, M, D)
    valid = torch.arange(M).expand(B, -1) < 4
    masked = plain(x, spoil(context, valid), valid)
    torch.testing.assert_close(masked, plain(x, context[:, :4]))


def test_mask_of_valid_points_changes_nothing(plain):
    x, context = torch.randn(B, L, D), torch.randn(B, M, D)
    everything = torch.ones(B, M, dtype=torch.bool)
    assert torch.equal(plain(x, context, everything), plain(x, context))


def test_width_must_divide_into_heads():
    with pytest.raises(ValueError, match="24 is not divisible by 5"):
        Attention(24, 5)
