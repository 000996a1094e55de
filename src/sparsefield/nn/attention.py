"""Attention between sets of points."""

import torch.nn.functional as F
from torch import Tensor, nn


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Reshape (B, L, D) to (B, heads, L, D / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """Reshape (B, heads, L, E) to (B, L, heads * E)."""
    return x.transpose(1, 2).flatten(-2)


def key_mask(valid: Tensor | None) -> Tensor | None:
    """Return the mask (B, 1, 1, M) that hides invalid keys, or None if there are none.

    A mask costs the fused kernels their speed, so a fully valid batch goes without one.
    """
    if valid is None or bool(valid.all()):
        return None
    return valid[:, None, None, :]


class Attention(nn.Module):
    r"""Multi-head attention of queries to a context (to themselves, if the context is the input).

    .. math:: \mathrm{softmax}(q k^\top / \sqrt{D/h})\, v

    References:
        Attention Is All You Need (Vaswani et al., 2017), Eq. 1.

    Args:
        width: Channels D; divisible by `heads`.
        heads: Attention heads h.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor, valid: Tensor | None = None) -> Tensor:
        """Attend from x (B, L, D) to context (B, M, D), of which `valid` (B, M) entries count."""
        q = split_heads(self.query(x), self.heads)
        k, v = (split_heads(y, self.heads) for y in self.key_value(context).chunk(2, dim=-1))
        return self.out(merge_heads(F.scaled_dot_product_attention(q, k, v, key_mask(valid))))
