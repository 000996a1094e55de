"""The decoders of Mamba-GINR: position tokens and coordinates in, values out."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsefield.models.ginr.layers import (
    GatedFeedForward,
    GaussianFourier,
    PlaceAttention,
    Residual,
)
from sparsefield.nn.feedforward import FeedForward
from sparsefield.nn.fourier import FourierFeatures

# Channels of an attention head of the multi-band decoder.
HEAD_WIDTH = 64


class ResidualDecoder(nn.Module):
    r"""Read a modulation m from the tokens, then decode it beside the coordinate's features.

    .. math::
        m = \mathrm{attend}(\mathrm{ReLU}(W_q \gamma(x)), x), \qquad
        y = W_y\, r_n(\cdots r_1(\mathrm{ReLU}(W [\gamma(x), m])))

    with residual MLPs r.

    References:
        Locality-Aware Generalizable Implicit Neural Representation (Lee et al., 2023),
        section 3.2, for the modulation.

    Args:
        channels: Channels C of the values.
        dims: Coordinate dimensions P.
        token_width: Channels of the tokens.
        hidden: Channels of the hidden layers.
        blocks: Residual MLPs.
        features: Fourier frequencies.
        max_frequency: Highest of them, in cycles per coordinate unit.
        scale: Initial weight of squared distances, see `PlaceAttention`.
    """

    def __init__(
        self,
        channels: int,
        dims: int,
        token_width: int,
        *,
        hidden: int,
        blocks: int,
        features: int,
        max_frequency: float,
        scale: float,
    ) -> None:
        super().__init__()
        self.fourier = FourierFeatures(dims, features, max_frequency)
        self.query = nn.Linear(2 * features, hidden)
        self.attention = PlaceAttention(hidden, token_width, 1, hidden, scale)
        self.join = nn.Linear(2 * features + hidden, hidden)
        self.blocks = nn.Sequential(
            *(
                Residual(hidden, FeedForward(hidden, hidden, activation=nn.ReLU))
                for _ in range(blocks)
            )
        )
        self.head = nn.Linear(hidden, channels)

    def forward(self, coords: Tensor, places: Tensor, tokens: Tensor, locations: Tensor) -> Tensor:
        """Decode at coords (B, L, P), with tokens (B, K, D) at (K, P) read at `places`."""
        query = F.relu(self.query(self.fourier(places)))
        modulation = self.attention(query, places, tokens, locations)
        x = F.relu(self.join(torch.cat([self.fourier(coords), modulation], dim=-1)))
        return self.head(self.blocks(x))


class MultiBandDecoder(nn.Module):
    r"""Decode one modulation m through frequency bands, from coarse to fine, and add them up.

    .. math::
        h_l = f_l\big(\mathrm{ReLU}(b_l(\gamma_l(x)) + m_l(m) + W_l \gamma_l(x)) + h_{l-1}\big),
        \qquad y = \sum_l W'_l h_l

    where b, m and f are branches, see `branch`; f does nothing in the first band. Without blocks
    it is a light decoder, with them one that spends most of the weights of a model.

    References:
        Locality-Aware Generalizable Implicit Neural Representation (Lee et al., 2023),
        section 3.2, for bands and modulation.
        SCENT: Robust Spatiotemporal Learning for Continuous Scientific Data via Scalable
        Conditioned Neural Fields (Park et al., 2025), for the blocks.

    Args:
        channels: Channels C of the values.
        dims: Coordinate dimensions P.
        token_width: Channels of the tokens.
        hidden: Channels of the hidden layers.
        blocks: Gated MLPs in each branch; half as many between bands.
        heads: Attention heads.
        features: Fourier frequencies of a band.
        max_frequency: Highest of the finest band, in cycles per coordinate unit.
        scale: Initial weight of squared distances, see `PlaceAttention`.
    """

    def __init__(
        self,
        channels: int,
        dims: int,
        token_width: int,
        *,
        hidden: int,
        blocks: int,
        heads: int,
        features: int,
        max_frequency: float,
        scale: float,
    ) -> None:
        super().__init__()
        self.fourier = GaussianFourier(dims, features, max_frequency / 2)
        self.query = nn.Linear(2 * features, hidden)
        self.attention = PlaceAttention(hidden, token_width, heads, HEAD_WIDTH, scale)
        limits = (max_frequency / 4, max_frequency)
        self.bands = nn.ModuleList(
            GaussianFourier(dims, features, limit, seed=1 + index)
            for index, limit in enumerate(limits)
        )

        def branches(width: int, depth: int, count: int = len(limits)) -> nn.ModuleList:
            return nn.ModuleList(branch(width, hidden, depth) for _ in range(count))

        self.band_branches = branches(2 * features, blocks)
        self.modulation_branches = branches(hidden, blocks)
        self.cascade = branches(hidden, blocks // 2, len(limits) - 1)
        self.skips = nn.ModuleList(nn.Linear(2 * features, hidden) for _ in limits)
        self.heads = nn.ModuleList(nn.Linear(hidden, channels) for _ in limits)

    def forward(self, coords: Tensor, places: Tensor, tokens: Tensor, locations: Tensor) -> Tensor:
        """Decode at coords (B, L, P), with tokens (B, K, D) at (K, P) read at `places`."""
        query = F.relu(self.query(self.fourier(places)))
        modulation = self.attention(query, places, tokens, locations)
        x = self._band(0, coords, modulation)
        y = self.heads[0](x)
        for index, cascade in enumerate(self.cascade, start=1):
            x = cascade(self._band(index, coords, modulation) + x)
            y = y + self.heads[index](x)
        return y

    def _band(self, index: int, coords: Tensor, modulation: Tensor) -> Tensor:
        """Return the modulated features (B, L, hidden) of a band."""
        features = self.bands[index](coords)
        banded = self.band_branches[index](features) + self.skips[index](features)
        return F.relu(banded + self.modulation_branches[index](modulation))


def branch(width: int, hidden: int, blocks: int) -> nn.Sequential:
    """Return a linear map from `width` to `hidden` channels, ReLU, and gated MLPs."""
    gated = (Residual(hidden, GatedFeedForward(hidden, 4 * hidden)) for _ in range(blocks))
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), *gated)
