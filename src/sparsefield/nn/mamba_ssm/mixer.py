"""The Mamba layer with the constructor, the parameter names and the cache of mamba_ssm."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsefield.core.errors import InputError
from sparsefield.nn.convolution import causal_convolution
from sparsefield.nn.mamba import inverse_softplus
from sparsefield.nn.mamba_ssm.convolution import last_tokens
from sparsefield.nn.scan import selective_scan


@dataclass
class InferenceParams:
    """What layers keep from token to token while a sequence is generated.

    Attributes:
        max_seqlen: Tokens at most.
        max_batch_size: Sequences side by side.
        seqlen_offset: Tokens that the layers have seen; the caller counts them.
        key_value_memory_dict: Convolution state and scan state by `layer_idx`.
    """

    max_seqlen: int
    max_batch_size: int
    seqlen_offset: int = 0
    key_value_memory_dict: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


class Mamba(nn.Module):
    r"""A drop-in for mamba_ssm's layer of this name: state dicts load both ways.

    .. math::
        [u, z] = W_\mathrm{in} x, \quad u \leftarrow \mathrm{SiLU}(\mathrm{conv}(u)), \quad
        [\delta, B, C] = W_x u, \quad
        y = W_\mathrm{out}\, \mathrm{scan}(u, W_\delta \delta + b_\delta, A, B, C, D, z)

    References:
        Mamba: Linear-Time Sequence Modeling with Selective State Spaces (Gu & Dao, 2023),
        https://arxiv.org/abs/2312.00752; https://github.com/state-spaces/mamba

    Args:
        d_model: Channels of input and output.
        d_state: States N per inner channel.
        d_conv: Taps of the causal convolution.
        expand: Inner channels per outer channel.
        dt_rank: Rank of the step-size map; "auto" is ceil(d_model / 16).
        dt_min: Smallest step at initialisation, in tokens.
        dt_max: Largest step at initialisation, in tokens.
        dt_init: Weights of the step-size map at initialisation: all the same, or uniform.
        dt_scale: Factor on these weights.
        dt_init_floor: No step is smaller at initialisation.
        conv_bias: Let the convolution have a bias.
        bias: Let the projections in and out have one.
        use_fast_path: Accepted and without effect: the scan picks its backend by the device.
        layer_idx: Key of this layer's states in `InferenceParams`.
        device: Device of the parameters.
        dtype: Type of the parameters, but for A_log and D, which are float32 at least.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | Literal["auto"] = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: Literal["random", "constant"] = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        use_fast_path: bool = True,
        layer_idx: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        inner = int(expand * d_model)
        self.d_model, self.d_state, self.d_conv, self.expand = d_model, d_state, d_conv, expand
        self.d_inner, self.layer_idx, self.use_fast_path = inner, layer_idx, use_fast_path
        self.dt_rank = math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=bias, **place)
        self.conv1d = nn.Conv1d(
            inner, inner, d_conv, padding=d_conv - 1, groups=inner, bias=conv_bias, **place
        )
        self.x_proj = nn.Linear(inner, self.dt_rank + 2 * d_state, bias=False, **place)
        self.dt_proj = nn.Linear(self.dt_rank, inner, bias=True, **place)
        wide = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
        rates = torch.arange(1, d_state + 1, device=device, dtype=wide)
        self.A_log = nn.Parameter(rates.log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner, device=device, dtype=wide))
        self.out_proj = nn.Linear(inner, d_model, bias=bias, **place)
        self._mark()
        self._init_weights(dt_init, dt_scale)
        self._init_steps(dt_min, dt_max, dt_init_floor)

    def _mark(self) -> None:
        """Tell optimisers and initialisers, as mamba_ssm does, what to leave alone."""
        self.A_log._no_weight_decay = self.D._no_weight_decay = True  # type: ignore[attr-defined]
        self.dt_proj.bias._no_reinit = True  # type: ignore[attr-defined]

    @torch.no_grad()
    def _init_weights(self, dt_init: str, dt_scale: float) -> None:
        size = dt_scale * self.dt_rank**-0.5
        if dt_init == "constant":
            self.dt_proj.weight.fill_(size)
        elif dt_init == "random":
            self.dt_proj.weight.uniform_(-size, size)
        else:
            raise InputError(f"unknown dt_init '{dt_init}'; choose random or constant")

    @torch.no_grad()
    def _init_steps(self, low: float, high: float, floor: float) -> None:
        """Let the steps begin log-uniform in [low, high]."""
        share = torch.rand(self.d_inner, device=self.D.device, dtype=self.D.dtype)
        step = torch.exp(share * math.log(high / low) + math.log(low)).clamp_min(floor)
        self.dt_proj.bias.copy_(inverse_softplus(step))

    def forward(
        self, hidden_states: Tensor, inference_params: InferenceParams | None = None
    ) -> Tensor:
        """Mix hidden_states (B, L, D) causally; with a cache, go on from the tokens it has seen.

        Args:
            hidden_states: Tokens, (B, L, D).
            inference_params: Cache, of mamba_ssm's class or ours. At `seqlen_offset` 0 it is
                filled; later it is read first, and then brought up to date.

        Returns:
            The mixed tokens, (B, L, D).
        """
        if inference_params is None:
            return self._mix(hidden_states)[0]
        states = self._cached_states(inference_params, len(hidden_states))
        if inference_params.seqlen_offset == 0:
            for state in states:
                state.zero_()
        return self._mix_on(hidden_states, *states)

    def step(
        self, hidden_states: Tensor, conv_state: Tensor, ssm_state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mix the next token and update the states in place.

        Args:
            hidden_states: The token, (B, 1, D).
            conv_state: The last inputs of the convolution, (B, d_inner, d_conv).
            ssm_state: State of the scan, (B, d_inner, d_state).

        Returns:
            The mixed token, (B, 1, D), and both states.

        Raises:
            InputError: There is more than one token.
        """
        if hidden_states.shape[1] != 1:
            raise InputError(f"step takes one token at a time, not {hidden_states.shape[1]}")
        return self._mix_on(hidden_states, conv_state, ssm_state), conv_state, ssm_state

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **_: Any
    ) -> tuple[Tensor, Tensor]:
        """Return zero states, (B, d_inner, d_conv) and (B, d_inner, d_state); no length counts."""
        weight = self.conv1d.weight
        conv = weight.new_zeros(batch_size, self.d_inner, self.d_conv, dtype=dtype)
        return conv, weight.new_zeros(batch_size, self.d_inner, self.d_state, dtype=dtype)

    def _cached_states(self, params: InferenceParams, items: int) -> tuple[Tensor, Tensor]:
        if self.layer_idx is None:
            raise InputError("a Mamba layer needs its layer_idx to find its states in a cache")
        cache = params.key_value_memory_dict
        if self.layer_idx not in cache:
            cache[self.layer_idx] = self.allocate_inference_cache(items, params.max_seqlen)
        return cache[self.layer_idx]

    def _mix_on(self, hidden: Tensor, conv_state: Tensor, ssm_state: Tensor) -> Tensor:
        """Mix tokens that follow those the states have seen; update the states in place."""
        y, u, last = self._mix(hidden, conv_state[..., 1:].transpose(1, 2), ssm_state)
        conv_state.copy_(last_tokens(u.transpose(1, 2), self.d_conv, conv_state))
        ssm_state.copy_(last)
        return y

    def _mix(
        self, hidden: Tensor, before: Tensor | None = None, h0: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mixed tokens, the inputs of the convolution (B, L, d_inner), the state."""
        inputs, z = self.in_proj(hidden).chunk(2, dim=-1)
        weight, bias = self.conv1d.weight[:, 0].T, self.conv1d.bias
        u = F.silu(causal_convolution(inputs, weight, bias, before=before))
        sizes = [self.dt_rank, self.d_state, self.d_state]
        step, B, C = self.x_proj(u).split(sizes, dim=-1)
        y, state = selective_scan(
            u,
            F.linear(step, self.dt_proj.weight.to(step)),
            -self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)).exp(),
            B,
            C,
            self.D,
            z,
            self.dt_proj.bias,
            h0,
            return_state=True,
        )
        return self.out_proj(y), inputs, state
