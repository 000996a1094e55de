"""The layers that Mamba-GINR autoencoders are built from."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsefield.nn.attention import merge_heads, split_heads
from sparsefield.nn.feedforward import FeedForward
from sparsefield.nn.fourier import fourier_features
from sparsefield.nn.mamba import MambaBlock


class Residual(nn.Module):
    """Add to x what a module makes of the normalised x.

    Args:
        width: Channels D.
        inner: The module.
    """

    def __init__(self, width: int, inner: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Update x (..., D)."""
        return x + self.inner(self.norm(x))


class GatedFeedForward(nn.Module):
    r"""An MLP whose hidden channels are gated, :math:`W (\mathrm{GELU}(U x) \odot V x)`.

    References:
        GLU Variants Improve Transformer (Shazeer, 2020), Eq. 6.

    Args:
        width: Channels D of input and output.
        hidden: Channels between the maps.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 2 * hidden)
        self.out = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., D) to (..., D)."""
        gate, value = self.expand(x).chunk(2, dim=-1)
        return self.out(F.gelu(gate) * value)


class AveragedMamba(nn.Module):
    """Two Mamba blocks, one reading forwards and one backwards, averaged.

    Args:
        width: Channels D.
        state: State size N per channel.
    """

    def __init__(self, width: int, state: int) -> None:
        super().__init__()
        self.ahead, self.behind = MambaBlock(width, state), MambaBlock(width, state)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Update x (B, L, D); tokens that `valid` (B, L) excludes come last and are inert."""
        return (self.ahead(x, False, valid) + self.behind(x, True, valid)) / 2


class MixerLayer(nn.Module):
    """A mixer of tokens, followed by a residual MLP.

    Args:
        width: Channels D.
        mixer: Module that updates tokens (B, L, D), given which are valid.
    """

    def __init__(self, width: int, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer = mixer
        self.feedforward = Residual(width, FeedForward(width, 4 * width))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Update x (B, L, D)."""
        return self.feedforward(self.mixer(x, valid))


class PlaceAttention(nn.Module):
    r"""Attention to tokens that have a place, of which near ones count more.

    .. math:: \mathrm{softmax}(q k^\top / \sqrt{E} - s\, \|x - y\|^2)\, v

    x is where the query is and y where the token is, both in P dimensions; s is learned for each
    head. What the squared distance adds to a logit is bilinear in (x, 1) and (y, |y|²) up to a
    term in x alone, which the softmax ignores: the distances enter as more channels of queries and
    keys, and no (L, K) bias is ever formed.

    References:
        Locality-Aware Generalizable Implicit Neural Representation (Lee et al., 2023),
        section 3.2, for the attention of coordinates to tokens.

    Args:
        width: Channels of the queries and of the result.
        token_width: Channels of the tokens.
        heads: Attention heads.
        head_width: Channels E of a head.
        scale: Initial s, per squared coordinate unit.
    """

    def __init__(
        self, width: int, token_width: int, heads: int, head_width: int, scale: float = 10.0
    ) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, heads * head_width)
        self.key_value = nn.Linear(token_width, 2 * heads * head_width)
        self.out = nn.Linear(heads * head_width, width)
        self.log_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(scale)))

    def forward(self, x: Tensor, places: Tensor, tokens: Tensor, locations: Tensor) -> Tensor:
        """Attend from x (B, L, .) at `places` (B, L, P) to tokens (B, K, .) at (K, P)."""
        q = split_heads(self.query(x), self.heads)
        k, v = (split_heads(y, self.heads) for y in self.key_value(tokens).chunk(2, dim=-1))
        with torch.autocast(x.device.type, enabled=False):
            mixed = self._attend(q.float(), k.float(), v.float(), places, locations)
        return self.out(merge_heads(mixed))

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, places: Tensor, locations: Tensor
    ) -> Tensor:
        """Attend in single precision, which differences of distances need."""
        extra = places.shape[-1] + 1
        near = torch.cat([2 * places, -torch.ones_like(places[..., :1])], dim=-1)
        near = self.log_scale.exp() * near[:, None]
        far = torch.cat([locations, locations.square().sum(-1, keepdim=True)], dim=-1)
        q = torch.cat([q / math.sqrt(q.shape[-1]), near], dim=-1)
        k = torch.cat([k, far.expand(*k.shape[:3], -1)], dim=-1)
        # Fused kernels want values as wide as keys.
        mixed = F.scaled_dot_product_attention(q, k, F.pad(v, (0, extra)), scale=1.0)
        return mixed[..., :-extra]


class GaussianFourier(nn.Module):
    r"""Fourier features with learned frequencies, Gaussian at first, that stay within a band.

    .. math:: \gamma(x) = [\sin(2\pi F x), \cos(2\pi F x)], \qquad \|F_i\| \le f_\mathrm{max}

    F is drawn once, by a generator of its own, with standard deviation f_max / 2.

    References:
        Fourier Features Let Networks Learn High Frequency Functions (Tancik et al., 2020), Eq. 5.

    Args:
        dims: Coordinate dimensions P.
        count: Frequencies; the output has 2 * count channels.
        max_frequency: Band limit f_max, in cycles per coordinate unit.
        seed: Seed of the generator.
    """

    def __init__(self, dims: int, count: int, max_frequency: float, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        draw = torch.randn(count, dims, generator=generator)
        self.frequencies = nn.Parameter(draw * max_frequency / 2)
        self.max_frequency = max_frequency
        self.out_features = 2 * count

    def limited(self) -> Tensor:
        """Return the frequencies (count, P), those beyond the band moved to its edge."""
        norm = self.frequencies.norm(dim=1, keepdim=True)
        return self.frequencies * (self.max_frequency / norm).clamp_max(1)

    def forward(self, coords: Tensor) -> Tensor:
        """Map coordinates (..., P) to features (..., 2 * count) in [-1, 1]."""
        return fourier_features(coords, self.limited())
