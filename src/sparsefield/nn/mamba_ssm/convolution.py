"""The causal convolution with channels first."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.nn.checks import check_tensors
from sparsefield.nn.convolution import causal_convolution

Activation = Literal["silu", "swish"]


def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: Activation | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Convolve each channel with its own past, as causal_conv1d's function of this name.

    References:
        https://github.com/Dao-AILab/causal-conv1d

    Args:
        x: Input, (B, D, L).
        weight: One filter per channel, oldest token first, (D, W).
        bias: Added to every token, (D,).
        seq_idx: Number of the sequence that a token belongs to, integers, (B, L); no sequence
            sees another.
        initial_states: The W - 1 tokens before the first, (B, D, W - 1); zero if absent.
        return_final_states: Also return what `initial_states` of the next call must be.
        final_states_out: Memory for these, (B, D, W - 1).
        activation: Applied to the result: "silu", also called "swish", or none.

    Returns:
        y, (B, D, L), in the type of x; if asked for, also the final states, (B, D, W - 1).

    Raises:
        InputError: Shapes do not fit, the activation is unknown, `seq_idx` comes with states, or
            a tensor is complex, integer or on another device.
    """
    _check(x, weight, bias, activation)
    _check_states(x, weight, initial_states=initial_states, final_states_out=final_states_out)
    if seq_idx is not None and (initial_states is not None or return_final_states):
        raise InputError("causal_conv1d_fn takes seq_idx or states, not both")
    if seq_idx is not None and seq_idx.shape != (x.shape[0], x.shape[2]):
        raise InputError(
            f"argument seq_idx of causal_conv1d_fn has shape {tuple(seq_idx.shape)}; with x of "
            f"shape {tuple(x.shape)} it must be {(x.shape[0], x.shape[2])}"
        )
    y = causal_convolution(
        x.transpose(1, 2),
        weight.T,
        bias,
        before=None if initial_states is None else initial_states.transpose(1, 2),
        segments=seq_idx,
    ).transpose(1, 2)
    y = y if activation is None else F.silu(y)
    if not return_final_states:
        return y
    final = last_tokens(x, weight.shape[1] - 1, initial_states)
    return y, final if final_states_out is None else final_states_out.copy_(final)


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: Activation | None = None,
) -> Tensor:
    """Convolve the next token or tokens and update the state in place.

    Args:
        x: Input, (B, D) for one token or (B, D, L).
        conv_state: The last tokens, at least W - 1, latest last, (B, D, S).
        weight: One filter per channel, oldest token first, (D, W).
        bias: Added to every token, (D,).
        activation: Applied to the result: "silu", also called "swish", or none.

    Returns:
        y, in the shape and type of x.

    Raises:
        InputError: As for `causal_conv1d_fn`.
    """
    tokens = x[..., None] if x.ndim == 2 else x
    _check(tokens, weight, bias, activation)
    past, size = weight.shape[1] - 1, conv_state.shape[-1]
    if conv_state.shape[:-1] != tokens.shape[:-1] or size < past:
        raise InputError(
            f"argument conv_state of causal_conv1d_update has shape {tuple(conv_state.shape)}; "
            f"it must be {tuple(tokens.shape[:-1])} and at least {past} tokens"
        )
    before = conv_state[..., size - past :]
    y = causal_conv1d_fn(tokens, weight, bias, initial_states=before, activation=activation)
    assert isinstance(y, Tensor)
    conv_state.copy_(last_tokens(tokens, size, conv_state))
    return y[..., 0] if x.ndim == 2 else y


def last_tokens(x: Tensor, count: int, before: Tensor | None = None) -> Tensor:
    """Return the last tokens of (B, D, L), continued to the past by `before` and then by zero."""
    x = x if before is None else torch.cat([before.to(x), x], dim=2)
    length = x.shape[2]
    return F.pad(x, (count - length, 0)) if length < count else x[..., length - count :]


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> None:
    """Raise InputError for what the convolution cannot take."""
    check_tensors("causal_conv1d_fn", {"x": x, "weight": weight, "bias": bias})
    if activation not in (None, "silu", "swish"):
        raise InputError(f"unknown activation '{activation}'; choose silu, swish or None")
    if x.ndim != 3 or weight.ndim != 2 or weight.shape[0] != x.shape[1] or not weight.shape[1]:
        raise InputError(
            f"causal_conv1d_fn needs x of shape (B, D, L) and weight of shape (D, W), "
            f"not {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != x.shape[1:2]:
        raise InputError(
            f"argument bias of causal_conv1d_fn has shape {tuple(bias.shape)}; "
            f"with {x.shape[1]} channels it must be {tuple(x.shape[1:2])}"
        )


def _check_states(x: Tensor, weight: Tensor, **states: Tensor | None) -> None:
    """Raise InputError for states that are not (B, D, W - 1)."""
    expected = (*x.shape[:2], weight.shape[1] - 1)
    for name, value in states.items():
        if value is not None and value.shape != expected:
            raise InputError(
                f"argument {name} of causal_conv1d_fn has shape {tuple(value.shape)}; with x of "
                f"shape {tuple(x.shape)} and {weight.shape[1]} taps it must be {expected}"
            )
