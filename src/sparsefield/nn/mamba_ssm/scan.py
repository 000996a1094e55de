"""The selective scan with channels first, and with groups or constants for B and C."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.nn.checks import check_tensors
from sparsefield.nn.scan import selective_scan


class _Sequences(NamedTuple):
    """The arguments of a scan by channel; B and C are (D, N) or (B, G, N, L)."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    bias: Tensor | None
    h0: Tensor | None
    softplus: bool


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Run Mamba's recurrence along sequences of channels, as mamba_ssm's function of this name.

    With steps s = delta + delta_bias, or their softplus, for every channel d and state n

    .. math::
        h_k = e^{s_k A} h_{k-1} + s_k B_k u_k, \qquad
        y_k = \Big(\sum_n C_k h_k + D u_k\Big)\, \mathrm{silu}(z_k)

    All inputs that are tensors have gradients, through the last state as well.

    References:
        Mamba: Linear-Time Sequence Modeling with Selective State Spaces (Gu & Dao, 2023),
        https://arxiv.org/abs/2312.00752; https://github.com/state-spaces/mamba

    Args:
        u: Input, (B, D, L).
        delta: Step sizes, (B, D, L).
        A: Rates of the states, real, (D, N).
        B: Input weights: (B, N, L) for all channels, (B, G, N, L) for G groups of neighbouring
            channels, or (D, N) if they never change.
        C: Output weights, in one of the same three shapes.
        D: Weights of the skip connection, (D,).
        z: Gate, (B, D, L).
        delta_bias: Added to delta, (D,).
        delta_softplus: Make the steps positive by a softplus.
        return_last_state: Also return the state after the last token.

    Returns:
        y, (B, D, L), in the type of u; if asked for, also the last state, (B, D, N).

    Raises:
        InputError: Shapes do not fit, or a tensor is complex, integer or on another device.
    """
    x = _Sequences(u, delta, A, B, C, D, z, delta_bias, None, delta_softplus)
    y, state = scan_by_channel(x)
    return (y, state) if return_last_state else y


def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
) -> Tensor:
    """Take one step of the recurrence of `selective_scan_fn` and update the state in place.

    Args:
        state: State before the token, (B, D, N); afterwards that after it.
        x: Input, (B, D).
        dt: Step sizes, (B, D).
        A: Rates of the states, (D, N).
        B: Input weights, (B, N) or (B, G, N).
        C: Output weights, (B, N) or (B, G, N).
        D: Weights of the skip connection, (D,).
        z: Gate, (B, D).
        dt_bias: Added to dt, (D,).
        dt_softplus: Make the steps positive by a softplus.

    Returns:
        y, (B, D), in the type of x.

    Raises:
        InputError: As for `selective_scan_fn`.
    """
    x, dt, B, C = (t[..., None] for t in (x, dt, B, C))
    z = None if z is None else z[..., None]
    y, last = scan_by_channel(_Sequences(x, dt, A, B, C, D, z, dt_bias, state, dt_softplus))
    state.copy_(last)
    return y[..., 0]


def scan_by_channel(x: _Sequences) -> tuple[Tensor, Tensor]:
    """Return y (B, D, L) and the last state (B, D, N), one group of channels after the other."""
    x = x._replace(B=_grouped(x.B), C=_grouped(x.C))
    groups = _check_shapes(x)
    if groups == 1:
        return _scan_group(x)
    parts = [_scan_group(_group(x, i, groups)) for i in range(groups)]
    y, states = zip(*parts, strict=True)
    return torch.cat(y, dim=1), torch.cat(states, dim=1)


def _grouped(weights: Tensor) -> Tensor:
    """Return weights that all channels share, (B, N, L), as those of one group."""
    return weights[:, None] if weights.ndim == 3 else weights


def _check_shapes(x: _Sequences) -> int:
    """Return the number of groups; raise InputError for a shape that u and A do not allow."""
    check_tensors("selective_scan_fn", dict(zip(x._fields[:9], x[:9], strict=True)))
    if x.u.ndim != 3 or x.A.ndim != 2 or 0 in x.u.shape:
        raise InputError(
            "selective_scan_fn needs u of shape (B, D, L), none of them 0, and A of shape "
            f"(D, N), not {tuple(x.u.shape)} and {tuple(x.A.shape)}"
        )
    (items, width, length), states = x.u.shape, x.A.shape[1]
    groups = max((t.shape[1] for t in (x.B, x.C) if t.ndim == 4), default=1)
    if groups == 0 or width % groups:
        raise InputError(f"the {width} channels of u cannot be cut into {groups} groups of B or C")
    constant, sequence = (width, states), (items, width, length)
    varying: set[tuple[int, ...]] = {(items, n, states, length) for n in (1, groups)} | {constant}
    expected: dict[str, set[tuple[int, ...]]] = {
        "delta": {sequence},
        "A": {constant},
        "B": varying,
        "C": varying,
        "D": {(width,)},
        "z": {sequence},
        "bias": {(width,)},
        "h0": {(items, width, states)},
    }
    for name, shapes in expected.items():
        value: Tensor | None = getattr(x, name)
        if value is not None and tuple(value.shape) not in shapes:
            raise InputError(
                f"argument {_NAMES.get(name, name)} of selective_scan_fn has shape "
                f"{tuple(value.shape)}; with u of shape {sequence}, which is (B, D, L), and "
                f"{states} states it must be {' or '.join(map(str, sorted(shapes)))}"
            )
    return groups


_NAMES = {"bias": "delta_bias", "h0": "state"}


def _group(x: _Sequences, index: int, groups: int) -> _Sequences:
    """Return the part of the scan that belongs to one group of neighbouring channels."""

    def weights(w: Tensor) -> Tensor:
        return w.chunk(groups)[index] if w.ndim == 2 else w[:, [index if w.shape[1] > 1 else 0]]

    def rows(t: Tensor | None, dim: int) -> Tensor | None:
        return None if t is None else t.chunk(groups, dim)[index]

    u, delta, z, h0 = (rows(t, 1) for t in (x.u, x.delta, x.z, x.h0))
    A, D, bias = (rows(t, 0) for t in (x.A, x.D, x.bias))
    assert u is not None and delta is not None and A is not None
    return _Sequences(u, delta, A, weights(x.B), weights(x.C), D, z, bias, h0, x.softplus)


def _scan_group(x: _Sequences) -> tuple[Tensor, Tensor]:
    """Return y and the last state of channels that share their B and C."""
    if x.B.ndim == 2 or x.C.ndim == 2:
        return _scan_by_state(x)
    y, state = selective_scan(
        x.u.transpose(1, 2),
        x.delta.transpose(1, 2),
        x.A,
        x.B[:, 0].transpose(1, 2),
        x.C[:, 0].transpose(1, 2),
        x.D,
        None if x.z is None else x.z.transpose(1, 2),
        x.bias,
        x.h0,
        softplus=x.softplus,
        return_state=True,
    )
    return y.transpose(1, 2), state


def _scan_by_state(x: _Sequences) -> tuple[Tensor, Tensor]:
    """Return y and the last state where B or C is a constant of every channel and state.

    The recurrence is linear: a state that is driven by u alone, times B, is the state. So each
    state is scanned by itself, and constants are multiplied afterwards.
    """
    assert x.h0 is None
    wide = torch.promote_types(x.u.dtype, torch.float32)
    u, z = x.u.to(wide), x.z
    y, states = torch.zeros_like(u), []
    for n in range(x.A.shape[1]):
        into, out = (_weight(w, n, u) for w in (x.B, x.C))
        gain_in, gain_out = (w[:, n] if w.ndim == 2 else None for w in (x.B, x.C))
        alone = _Sequences(
            u, x.delta, x.A[:, n : n + 1], into, out, None, None, x.bias, None, x.softplus
        )
        response, state = _scan_group(alone)
        y = y + _times(_times(response, gain_in), gain_out)
        states.append(_times(state, gain_in))
    y = y if x.D is None else y + x.D.to(y)[:, None] * u
    y = y if z is None else y * F.silu(z.to(y))
    return y.to(x.u.dtype), torch.cat(states, dim=2)


def _weight(weights: Tensor, n: int, u: Tensor) -> Tensor:
    """Return state n's weights in time, (B, 1, 1, L): one if they are constants."""
    if weights.ndim == 4:
        return weights[:, :, n : n + 1]
    return u.new_ones(()).expand(len(u), 1, 1, u.shape[2])


def _times(x: Tensor, gain: Tensor | None) -> Tensor:
    """Return x (B, D, *) times a constant of every channel (D,)."""
    return x if gain is None else x * gain.to(x)[:, None]
