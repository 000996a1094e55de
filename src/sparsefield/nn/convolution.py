"""The short causal convolution before a selective scan."""

import torch
import torch.nn.functional as F
from torch import Tensor


def causal_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    reverse: bool = False,
    before: Tensor | None = None,
    segments: Tensor | None = None,
) -> Tensor:
    r"""Convolve each channel with its past tokens; a sum of shifts beats conv1d on processors.

    .. math:: y_k = b + \sum_{i=0}^{W-1} w_i\, x_{k - (W - 1) + i}

    Args:
        x: Tokens, (B, L, D).
        weight: One filter per channel, oldest token first, (W, D).
        bias: Added to every token, (D,).
        reverse: Convolve with the tokens that follow.
        before: The W - 1 tokens before the first, (B, W - 1, D); zero if absent.
        segments: Number of the sequence that a token belongs to, (B, L); tokens of others count
            as zero. One sequence if absent.

    Returns:
        y, (B, L, D), in the type of x.
    """
    taps, length = weight.shape[0], x.shape[1]
    weight = weight.to(x.dtype)
    if before is not None:
        padded = torch.cat([before.to(x.dtype), x], dim=1)
    elif reverse:
        padded, weight = F.pad(x, (0, 0, 0, taps - 1)), weight.flip(0)
    else:
        padded = F.pad(x, (0, 0, taps - 1, 0))
    shifts = [padded[:, tap : tap + length] for tap in range(taps)]
    if segments is not None:
        lags = range(taps - 1, -1, -1)
        seen = [_same_segment(segments, lag)[..., None] for lag in lags]
        shifts = [shift * own for shift, own in zip(shifts, seen, strict=True)]
    y = shifts[0] * weight[0]
    y = y if bias is None else bias.to(x.dtype) + y
    for shift, tap in zip(shifts[1:], weight[1:], strict=True):
        y = torch.addcmul(y, shift, tap)
    return y


def _same_segment(segments: Tensor, lag: int) -> Tensor:
    """Tell whether a token belongs to the same sequence as the one `lag` before it, (B, L)."""
    lag = min(lag, segments.shape[1])
    return F.pad(segments[:, lag:] == segments[:, : segments.shape[1] - lag], (lag, 0))
