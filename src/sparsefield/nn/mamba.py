"""The Mamba layer: a selective state-space model between a convolution and a gate."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsefield.nn.convolution import causal_convolution
from sparsefield.nn.feedforward import FeedForward
from sparsefield.nn.scan import selective_scan


class MambaMixer(nn.Module):
    r"""Selective state-space mixing of a sequence, without normalisation or residual.

    .. math::
        [u, z] = W_\mathrm{in} x, \quad u \leftarrow \mathrm{SiLU}(\mathrm{conv}(u)), \quad
        [\delta, B, C] = W_x u, \quad
        y = W_\mathrm{out}\, \mathrm{scan}(u, W_\delta \delta, A, B, C, D, z)

    Step size, input and output map depend on the input; A is negative real and learned.

    References:
        Mamba: Linear-Time Sequence Modeling with Selective State Spaces (Gu & Dao, 2023),
        Algorithm 2 and section 3.4.

    Args:
        width: Channels D of input and output.
        state: State size N per channel.
        conv: Length of the causal depth-wise convolution, in tokens.
        expand: Inner channels per outer channel.
        rank: Rank of the step-size map; ceil(width / 16) if None.
        backend: Scan backend, see `selective_scan`.
    """

    def __init__(
        self,
        width: int,
        state: int = 16,
        conv: int = 4,
        expand: int = 2,
        rank: int | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        inner = expand * width
        self.state = state
        self.rank = rank or math.ceil(width / 16)
        self.backend = backend
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv_weight = nn.Parameter(torch.empty(conv, inner).uniform_(-1, 1) / conv**0.5)
        self.conv_bias = nn.Parameter(torch.zeros(inner))
        self.x_proj = nn.Linear(inner, self.rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner, bias=False)
        self.dt_bias = nn.Parameter(_initial_step_bias(inner))
        self.A_log = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)
        nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)

    def forward(
        self,
        x: Tensor,
        reverse: bool = False,
        valid: Tensor | None = None,
        gaps: Tensor | None = None,
    ) -> Tensor:
        """Mix x (B, L, D) causally from first to last token, or from last to first.

        Tokens that `valid` (B, L) excludes must come last; they leave the others unchanged.
        With `gaps` (B, L), the distance of every token from the one before, positive, steps are
        as long as learned times the gap that is crossed.
        """
        u, z = self.in_proj(x).chunk(2, dim=-1)
        u = _silence(u, valid)
        u = F.silu(causal_convolution(u, self.conv_weight, self.conv_bias, reverse=reverse))
        u = _silence(u, valid)
        sizes = [self.rank, self.state, self.state]
        step, B, C = self.x_proj(u).split(sizes, dim=-1)
        delta: Tensor = self.dt_proj(step)
        bias: Tensor | None = self.dt_bias.float()
        if gaps is not None:
            crossed = torch.cat([gaps[:, 1:], gaps[:, :1]], dim=1) if reverse else gaps
            delta, bias = _stretch(delta + self.dt_bias.float(), crossed), None
        y = selective_scan(
            u,
            delta,
            -self.A_log.float().exp(),
            B,
            C,
            D=self.D.float(),
            z=z,
            delta_bias=bias,
            reverse=reverse,
            backend=self.backend,
        )
        return self.out_proj(y)


def _silence(u: Tensor, valid: Tensor | None) -> Tensor:
    """Zero invalid tokens: a zero input leaves a zero state at zero."""
    return u if valid is None else u * valid[..., None].to(u.dtype)


def _stretch(delta: Tensor, gaps: Tensor) -> Tensor:
    """Return the delta (B, L, D) whose softplus is that of the given one times gaps (B, L)."""
    with torch.autocast(delta.device.type, enabled=False):
        step = (F.softplus(delta.float()) * gaps[..., None].float()).clamp_min(1e-12)
        return inverse_softplus(step)


def inverse_softplus(step: Tensor) -> Tensor:
    """Return the number whose softplus is the positive one that is given."""
    return step + torch.log(-torch.expm1(-step))


def _initial_step_bias(inner: int, low: float = 1e-3, high: float = 1e-1) -> Tensor:
    """Return biases whose softplus is log-uniform in [low, high] tokens."""
    step = torch.exp(torch.rand(inner) * math.log(high / low) + math.log(low))
    return inverse_softplus(step)


class MambaBlock(nn.Module):
    """A pre-norm residual Mamba layer, followed by a pre-norm MLP if `hidden` is set.

    Args:
        width: Channels D.
        state: State size N per channel.
        hidden: Hidden channels of the MLP; none if 0.
    """

    def __init__(self, width: int, state: int = 16, hidden: int = 0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mixer = MambaMixer(width, state)
        self.feedforward = (
            nn.Sequential(nn.LayerNorm(width), FeedForward(width, hidden)) if hidden else None
        )

    def forward(
        self,
        x: Tensor,
        reverse: bool = False,
        valid: Tensor | None = None,
        gaps: Tensor | None = None,
    ) -> Tensor:
        """Update x (B, L, D) with what lies before each token, or after it if `reverse`."""
        x = x + self.mixer(self.norm(x), reverse, valid, gaps)
        return x if self.feedforward is None else x + self.feedforward(x)


class MambaStack(nn.Module):
    """Mamba blocks in sequence, all reading in one direction.

    Args:
        width: Channels D.
        depth: Blocks.
        state: State size N per channel.
        hidden: Hidden channels of each block's MLP; none if 0.
        reverse: Read from last to first.
    """

    def __init__(
        self, width: int, depth: int, state: int = 16, hidden: int = 0, reverse: bool = False
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(MambaBlock(width, state, hidden) for _ in range(depth))
        self.reverse = reverse

    def forward(
        self, x: Tensor, valid: Tensor | None = None, gaps: Tensor | None = None
    ) -> Tensor:
        """Update x (B, L, D); tokens that `valid` (B, L) excludes come last and are inert.

        For `gaps` (B, L), see `MambaMixer`.
        """
        for block in self.blocks:
            x = block(x, self.reverse, valid, gaps)
        return x


class BidirectionalMamba(nn.Module):
    """Two stacks of Mamba blocks, one reading forwards and one backwards, joined by a linear map.

    Args:
        width: Channels D.
        depth: Blocks per direction.
        state: State size N per channel.
        hidden: Hidden channels of each block's MLP; none if 0.
    """

    def __init__(self, width: int, depth: int, state: int = 16, hidden: int = 0) -> None:
        super().__init__()
        self.ahead = MambaStack(width, depth, state, hidden)
        self.behind = MambaStack(width, depth, state, hidden, reverse=True)
        self.join = nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, width))

    def forward(
        self, x: Tensor, valid: Tensor | None = None, gaps: Tensor | None = None
    ) -> Tensor:
        """Return x (B, L, D) plus what each token learns from both directions."""
        both = torch.cat([self.ahead(x, valid, gaps), self.behind(x, valid, gaps)], dim=-1)
        return x + self.join(both)
