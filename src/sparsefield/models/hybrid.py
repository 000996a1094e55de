"""The flagship: local attention for the mean, a Mamba on a space-filling curve for the samples."""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Backbone, Claims, Query
from sparsefield.models.residual import estimate_residual
from sparsefield.nn.feedforward import FeedForward
from sparsefield.nn.film import AdaptiveNorm
from sparsefield.nn.fourier import TimeEmbedding
from sparsefield.nn.mamba import MambaMixer
from sparsefield.nn.neighbourhood import (
    LocalAttention,
    Neighbourhood,
    PairEmbedding,
    find_neighbourhood,
    mean_spacing,
)
from sparsefield.nn.ordering import inverse_order, point_order, reorder
from sparsefield.nn.tokens import PointTokens


class Encoded(NamedTuple):
    """What the local attention makes of the observations alone.

    Attributes:
        values: Standardised values (B, M, C), 0 in padding.
        tokens: Tokens of the observations (B, M, D), which know their neighbourhood.
        centre: Mean of the observed values (B, 1, C).
        std: Standard deviation of the observed values (B, 1, 1).
        level: Mean, and logarithms of standard deviation and spacing (B, 1, C + 2).
    """

    values: Tensor
    tokens: Tensor
    centre: Tensor
    std: Tensor
    level: Tensor


class Condition(NamedTuple):
    """What the observations say about the queries; the same at every step of a sampler.

    Attributes:
        mean: Posterior mean (B, L, C), normalised.
        features: What it was read from (B, L, D).
        std: Standard deviation of the observed values (B, 1, 1).
        curves: Orders (B, L) of the queries along the space-filling curves.
    """

    mean: Tensor
    features: Tensor
    std: Tensor
    curves: tuple[Tensor, Tensor]


class LocalMambaHybrid(Backbone):
    r"""Local attention predicts the posterior mean, a Mamba denoises the residual around it.

    The mean m comes from `LocalInterpolator` and is query-invariant. For t > 0 a Mamba along
    space-filling curves through the queries predicts the data as

    .. math::
        \hat x_1 = m + \frac{t s^2}{t^2 s^2 + (1 - t)^2}\,(x_t - t m)
        + s \sqrt{c (1 - c)}\, F, \qquad c = \frac{t^2 s^2}{t^2 s^2 + (1 - t)^2},

    the Wiener estimate for a residual of size s plus a learned correction F of unit size. At
    t = 0 it is the mean, exactly; the mean is learnt there and nowhere else.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
        section 5, for scaling the input and output of a denoiser.

    Args:
        channels: Channels C of the values.
        dims: Coordinate dimensions P.
        width: Channels D of the local attention.
        encoder_layers: Attention layers over the observations.
        decoder_layers: Attention layers from queries to observations.
        heads: Attention heads.
        neighbours: Observations K that a point attends to.
        features: Fourier frequencies of the coordinates.
        flow_width: Channels of the Mamba over the queries.
        flow_layers: Mamba layers over the queries.
        state: State size N per channel.
        residual_scale: Typical size of the residual, in standard deviations of the
            observations.
        order: Space-filling curve that the Mamba follows.
        cells: Read the size of the queries' cells; only training at several sizes gives it
            a meaning.
    """

    claims = Claims(query_invariant=True, order_invariant=True, linear_cost=True)

    def __init__(
        self,
        channels: int = 3,
        dims: int = 2,
        width: int = 128,
        encoder_layers: int = 4,
        decoder_layers: int = 2,
        heads: int = 8,
        neighbours: int = 16,
        features: int = 32,
        flow_width: int = 96,
        flow_layers: int = 8,
        state: int = 8,
        residual_scale: float = 0.3,
        order: str = "hilbert",
        cells: bool = False,
    ) -> None:
        super().__init__()
        self.residual_scale = residual_scale
        self.order = order
        self.interpolator = LocalInterpolator(
            channels,
            dims,
            width,
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers,
            heads=heads,
            neighbours=neighbours,
            features=features,
            cells=cells,
        )
        self.denoiser = ResidualDenoiser(channels, width, flow_width, flow_layers, state)
        self.claims = replace(self.claims, resolution_aware=cells)

    def encode(self, obs: Observation) -> Encoded:
        """Encode the observations."""
        return self.interpolator.encode(obs)

    def prepare(self, query: Query, encoded: Encoded | None = None) -> Condition:
        """Predict the posterior mean at the queries, and what the denoiser needs."""
        coords = query.coords
        curves = (point_order(self.order, coords), point_order(self.order, coords.flip(-1)))
        encoded = self.encode(query.obs) if encoded is None else encoded
        mean, features = self.interpolator(query, encoded)
        return Condition(mean, features, encoded.std, curves)

    def forward(
        self, x_t: Tensor, t: Tensor, query: Query, prepared: Condition | None = None
    ) -> Tensor:
        """Predict the data x_1; see `Backbone.forward`."""
        if not bool(t.any()):
            if prepared is None:
                return self.interpolator(query, self.encode(query.obs))[0]
            return prepared.mean
        if prepared is None:
            with torch.no_grad():
                prepared = self.prepare(query)
        scale = self.residual_scale * prepared.std
        known = estimate_residual(x_t, t, prepared.mean, scale)
        correction = self.denoiser(known.noisy, known.gain[:, 0, 0], prepared)
        return known.data + known.unit * correction


class LocalInterpolator(nn.Module):
    """Predict a field at any points from the nearest observations.

    Observations are standardised by their own mean and standard deviation, and encoded by layers
    of local attention. Queries read them, never each other, and add a learned residual to an
    inverse-distance interpolation. Lengths are measured in mean spacings of the observations: a
    shift, a rescaling of the values or a zoom of the coordinates moves the prediction along, up
    to what the network reads from the level, the scale and the place themselves.

    Args:
        channels: Channels C of the values.
        dims: Coordinate dimensions P.
        width: Channels D; divisible by `heads`.
        encoder_layers: Attention layers over the observations.
        decoder_layers: Attention layers from queries to observations.
        heads: Attention heads.
        neighbours: Observations K that a point attends to.
        features: Fourier frequencies.
        cells: Read the size of the queries' cells.
    """

    def __init__(
        self,
        channels: int,
        dims: int,
        width: int,
        *,
        encoder_layers: int,
        decoder_layers: int,
        heads: int,
        neighbours: int,
        features: int,
        cells: bool,
    ) -> None:
        super().__init__()
        self.neighbours = neighbours
        level = channels + 2  # mean per channel, standard deviation, spacing
        self.observation_tokens = PointTokens(dims, channels + level, width, features)
        self.query_tokens = PointTokens(dims, channels + 1 + level, width, features)
        self.observation_pairs = PairEmbedding(channels, dims, width)
        self.query_pairs = PairEmbedding(channels, dims, width)

        def blocks(count: int) -> nn.ModuleList:
            return nn.ModuleList(LocalAttentionBlock(width, heads, dims) for _ in range(count))

        self.encoder, self.decoder = blocks(encoder_layers), blocks(decoder_layers)
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.head = nn.Linear(width, channels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.cell_token: nn.Linear | None = None
        if cells:  # starts as the model that does not read them
            self.cell_token = nn.Linear(1, width, bias=False)
            nn.init.zeros_(self.cell_token.weight)

    def encode(self, obs: Observation) -> Encoded:
        """Standardise the observations and encode them as tokens that know their neighbourhood."""
        centre, std, level = _level(obs)
        values = (obs.values - centre) / std * obs.valid[..., None]
        near = find_neighbourhood(obs.coords, obs.coords, obs.valid, self.neighbours)
        x = self.observation_tokens(obs.coords, _append(values, level))
        x = x + self.observation_pairs(values, near)
        for block in self.encoder:
            x = block(x, None, near)
        return Encoded(values, self.encoder_norm(x), centre, std, level)

    def forward(self, query: Query, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """Return the mean (B, L, C) at the queries, and the features (B, L, D) it is read from."""
        coords, obs = query.coords, query.obs
        near = find_neighbourhood(coords, obs.coords, obs.valid, self.neighbours)
        guess = near.interpolate(encoded.values)
        closest = near.geometry[:, :, 0, -1:]
        known = _append(torch.cat([guess, closest], -1), encoded.level)
        x = self.query_tokens(coords, known) + self.query_pairs(encoded.values, near)
        if self.cell_token is not None:
            side = torch.ones_like(encoded.std[:, 0, 0]) if query.cell is None else query.cell
            x = x + self.cell_token(side.log2()[:, None, None])
        for block in self.decoder:
            x = block(x, encoded.tokens, near)
        x = self.decoder_norm(x)
        return encoded.centre + encoded.std * (guess + self.head(x).float()), x


class LocalAttentionBlock(nn.Module):
    """Pre-norm local attention and an MLP, each residual.

    Args:
        width: Channels D; divisible by `heads`.
        heads: Attention heads.
        dims: Coordinate dimensions P.
    """

    def __init__(self, width: int, heads: int, dims: int) -> None:
        super().__init__()
        self.norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = LocalAttention(width, heads, dims)
        self.feedforward = FeedForward(width, 4 * width, activation=nn.ReLU)

    def forward(self, x: Tensor, context: Tensor | None, near: Neighbourhood) -> Tensor:
        """Update points x (B, L, D) from a normalised context (B, M, D), or from each other."""
        y = self.norm(x)
        x = x + self.attention(y, y if context is None else context, near)
        return x + self.feedforward(self.mlp_norm(x))


class ResidualDenoiser(nn.Module):
    """Mamba layers along curves through the queries, conditioned on their features.

    Layers alternate between reading forwards and backwards, and every two layers between the
    curve and its transpose: neighbours in space that lie far apart on one are close on the other.

    Args:
        channels: Channels C of the values.
        condition_width: Channels of the features of each query.
        width: Channels D of the layers.
        layers: Number of layers.
        state: State size N per channel.
    """

    def __init__(
        self, channels: int, condition_width: int, width: int, layers: int, state: int
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(channels + condition_width, width)
        self.time = TimeEmbedding(width)
        self.norms = nn.ModuleList(AdaptiveNorm(width, width) for _ in range(layers))
        self.mixers = nn.ModuleList(MambaMixer(width, state) for _ in range(layers))
        self.head = nn.Sequential(nn.LayerNorm(width), FeedForward(width, 2 * width, out=channels))

    def forward(self, noisy: Tensor, gain: Tensor, condition: Condition) -> Tensor:
        """Estimate the correction (B, L, C) from the scaled residual (B, L, C) and gain (B,)."""
        x = self.embed(torch.cat([noisy, condition.features], dim=-1))
        time = self.time(gain)
        here = None  # the curve along which x lies now
        for index, (norm, mixer) in enumerate(zip(self.norms, self.mixers, strict=True)):
            curve = condition.curves[index // 2 % 2]
            if curve is not here:
                x = reorder(x, curve if here is None else inverse_order(here).gather(1, curve))
                here = curve
            x = x + mixer(norm(x, time), reverse=index % 2 == 1)
        x = x if here is None else reorder(x, inverse_order(here))
        return self.head(x).float()


def _level(obs: Observation) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean (B, 1, C) and standard deviation (B, 1, 1) of the valid values, and the level.

    The level (B, 1, C + 2) holds both and the spacing.
    """
    weight = obs.valid[..., None].to(obs.values.dtype)
    count = weight.sum(1, keepdim=True)
    centre = (obs.values * weight).sum(1, keepdim=True) / count
    variance = ((obs.values - centre).square() * weight).sum(1, keepdim=True) / count
    std = (variance.mean(-1, keepdim=True) + 1e-3).sqrt()
    spacing = mean_spacing(obs.valid, obs.dims)
    return centre, std, torch.cat([centre, std.log(), spacing.log()], dim=-1)


def _append(values: Tensor, level: Tensor) -> Tensor:
    """Give every point (B, L, C) the level (B, 1, C + 2) of its field."""
    return torch.cat([values, level.expand(-1, values.shape[1], -1)], dim=-1)
