"""For photographs: a U-Net on the observed grid for the mean, a smaller one for the samples."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsefield.core.errors import InputError
from sparsefield.data.grids import cell_centres, finer_shape
from sparsefield.data.observation import Observation
from sparsefield.data.raster import cubic_at, is_grid, mean_in_cells
from sparsefield.flow.backbone import Backbone, Claims, Query
from sparsefield.models.residual import estimate_residual
from sparsefield.nn.fill import fill_by_averaging
from sparsefield.nn.fourier import TimeEmbedding
from sparsefield.nn.unet import MatrixConv, UNet, on_multiple

# Side of the largest images that the trunk is trained on, and the distance from all observations,
# in cells, beyond which larger ones are looked at on a coarser grid first.
TRAINED_SIDE, REACH = 64, 8
# Sides in cells of the windows over which observations are counted.
WINDOWS = (1, 3, 7, 15, 31)


class Encoded(NamedTuple):
    """What the trunk makes of the observations alone, on the grid of their cells.

    Attributes:
        features: Features (B, D, H, W).
        reaching: Features that also see what a coarser grid says of the middle of wide holes.
        support: How many observations lie near, at several scales, and the contrast (B, 6, H, W).
        guess: First guess (B, C, H, W), standardised.
        weight: 1 in observed cells, 0 elsewhere (B, 1, H, W).
        centre: Mean of the observed values (B, 1, C).
        std: Standard deviation of the observed values (B, 1, 1).
    """

    features: Tensor
    reaching: Tensor
    support: Tensor
    guess: Tensor
    weight: Tensor
    centre: Tensor
    std: Tensor


class Condition(NamedTuple):
    """What the observations say about the queries; the same at every step of a sampler.

    Attributes:
        mean: Posterior mean (B, L, C), normalised.
        size: Standard deviation of the residual around it (B, L, C).
        encoded: What it was read from.
    """

    mean: Tensor
    size: Tensor
    encoded: Encoded


class GridInterpolator(nn.Module):
    """Predict a field from the values in some cells of a grid, at the centres and between.

    Values are standardised by their own mean and standard deviation. A U-Net reads them beside
    the mask and a first guess, and gives features to every cell. Elsewhere features are
    interpolated by cubic convolution; an MLP turns features, phase within the cell and size of
    the query's cell into a correction of the guess, and another into how far off it is.

    Args:
        channels: Channels C of the values.
        widths: Channels of the U-Net on each grid.
        blocks: Residual blocks of the U-Net on each grid.
        hidden: Channels of the MLPs.
    """

    def __init__(
        self, channels: int, widths: Sequence[int], blocks: Sequence[int], hidden: int = 64
    ) -> None:
        super().__init__()
        self.trunk = UNet(2 * channels + 1, widths, blocks)
        place = 5  # sine and cosine of the phase along two axes, and the size of the cell
        self.hidden = nn.Linear(widths[0] + place, hidden)
        self.head = nn.Linear(hidden, channels)
        self.size_hidden = nn.Linear(widths[0] + len(WINDOWS) + 1 + place, hidden)
        self.size_head = nn.Linear(hidden, channels)
        for head in (self.head, self.size_head):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def encode(self, values: Tensor, weight: Tensor) -> Encoded:
        """Encode values (B, C, H, W) with weights (B, 1, H, W), 0 where nothing was observed."""
        features, guess, centre, std = self._look(values, weight)
        reaching = features
        if (whole := self._reach(values, weight)) is not None:
            reaching, guess = self._look(*whole, (centre, std))[:2]
        support = _support(guess, weight)
        places = centre[:, None, :, 0, 0], std[:, 0]
        return Encoded(features, reaching, support, guess, weight, *places)

    def _look(
        self, values: Tensor, weight: Tensor, scale: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return features and guess of standardised values, their centre and scale."""
        centre, std = scale or _scale(values, weight)
        seen = (values - centre) / std * weight
        guess = fill_by_averaging(seen, weight)
        features = on_multiple(self.trunk, torch.cat([seen, weight, guess], dim=1)).float()
        return features, guess, centre, std

    def _reach(self, values: Tensor, weight: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return values with the middle of wide holes put in from a grid half as fine, if any.

        The U-Net has been trained on small images. In a larger one it knows too little of what
        lies farther from all observations than it has seen; a coarser grid brings it near.
        """
        if min(weight.shape[-2:]) <= TRAINED_SIDE:
            return None
        far = F.max_pool2d(weight, 2 * REACH + 1, 1, REACH) == 0
        if not bool(far.any()):
            return None
        share = F.avg_pool2d(weight, 2, ceil_mode=True)
        means = F.avg_pool2d(values * weight, 2, ceil_mode=True) / share.clamp_min(1e-8)
        coarse = self.encode(means, (share > 0).to(weight))
        shape = share.shape[-2:]
        centres = cell_centres(shape, device=share.device).expand(len(share), -1, -1)
        mean, _ = self(coarse, centres, share.new_ones(len(share)))
        field = mean.transpose(1, 2).unflatten(2, shape)
        fine = F.interpolate(field, scale_factor=2, mode="bilinear", align_corners=False)
        height, width = weight.shape[-2:]
        fine = fine[..., :height, :width]
        return torch.where(far, fine, values), torch.where(far, 1.0, weight)

    def forward(self, encoded: Encoded, coords: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the residual, both (B, L, C).

        Args:
            encoded: What `encode` returned.
            coords: Points (B, L, 2).
            side: Side of the queries' cells (B,) in observed cells.
        """
        known = torch.cat(
            [encoded.features, encoded.reaching, encoded.support, encoded.guess], dim=1
        )
        if is_grid(coords, known.shape[-2:]):
            found, phase = known.flatten(2).transpose(1, 2), torch.zeros_like(coords)
        else:
            found, phase = cubic_at(known, coords)
        place, parts = _place(phase, side), (encoded.features, encoded.reaching, encoded.support)
        sizes = [*(part.shape[1] for part in parts), encoded.guess.shape[1]]
        features, reaching, support, guess = found.split(sizes, -1)
        read = torch.cat([reaching, place], dim=-1)
        mean = guess + self.head(F.relu(self.hidden(read))).float()
        # What is learnt of the size leaves the features to the mean.
        read = torch.cat([features, support, place], dim=-1).detach()
        size = self.size_head(F.relu(self.size_hidden(read))).float()
        size = (size - 1.5).clamp(-8, 2).exp()
        return encoded.centre + encoded.std * mean, encoded.std * size


def _support(guess: Tensor, weight: Tensor) -> Tensor:
    """Return logarithms of the share of observed cells in windows, and of the contrast.

    Args:
        guess: First guess (B, C, H, W), standardised.
        weight: 1 in observed cells (B, 1, H, W).
    """

    def average(x: Tensor, side: int) -> Tensor:
        return F.avg_pool2d(x, side, 1, side // 2, count_include_pad=False)

    shares = [average(weight, side) for side in WINDOWS]
    variance = average(guess.square(), 5) - average(guess, 5).square()
    contrast = variance.mean(1, keepdim=True).clamp_min(0).sqrt()
    return torch.cat([(x + 0.003).log() for x in (*shares, contrast + 0.01)], dim=1)


def _scale(values: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean (B, C, 1, 1) and standard deviation (B, 1, 1, 1) of the observed values."""
    count = weight.sum((2, 3), keepdim=True)
    centre = (values * weight).sum((2, 3), keepdim=True) / count
    variance = ((values - centre).square() * weight).sum((2, 3), keepdim=True) / count
    return centre, (variance.mean(1, keepdim=True) + 1e-3).sqrt()


def _place(phase: Tensor, side: Tensor) -> Tensor:
    """Return what tells where in a cell queries lie and how large theirs are (B, L, 5).

    Args:
        phase: Offset from the centre of the cell in cells (B, L, 2).
        side: Side of the queries' cells (B,) in observed cells.
    """
    angle = 2 * math.pi * phase
    cells = side.log2()[:, None, None].expand(-1, phase.shape[1], 1)
    return torch.cat([angle.sin(), angle.cos() - 1, cells], dim=-1)


class UNetHybrid(Backbone):
    r"""A U-Net predicts the posterior mean, a smaller one denoises the residual around it.

    Observations are averaged in the cells of a grid: the observed one, or else one with at least
    as many cells as there are observations. The mean m comes from `GridInterpolator` and is a
    function of the coordinates. So is the size s of what it misses. For t > 0 a U-Net on the grid
    predicts the data as

    .. math::
        \hat x_1 = m + \frac{t s^2}{t^2 s^2 + (1 - t)^2}\,(x_t - t m)
        + s \sqrt{c (1 - c)}\, F, \qquad c = \frac{t^2 s^2}{t^2 s^2 + (1 - t)^2},

    the Wiener estimate for a residual of size s plus a learned correction F of unit size.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
        section 5, for scaling the input and output of a denoiser.

    Args:
        channels: Channels C of the values.
        dims: Coordinate dimensions; 2.
        widths: Channels of the trunk on each grid, the finest first, separated by commas.
        blocks: Residual blocks of the trunk on each grid, separated by commas.
        flow_widths: As `widths`, of the U-Net that denoises.
        flow_blocks: As `blocks`, of the U-Net that denoises.
        cells: The size of the queries' cells is read; only training at several sizes gives it a
            meaning.
        side: Least cells along each axis of the grid for observations that name none.
    """

    claims = Claims(
        query_invariant=True, order_invariant=True, linear_cost=True, samples_on_grid=True
    )

    def __init__(
        self,
        channels: int = 3,
        dims: int = 2,
        widths: str = "32,64,128,192,192",
        blocks: str = "1,2,2,2,1",
        flow_widths: str = "32,48,64",
        flow_blocks: str = "1,1,2",
        cells: bool = False,
        side: int = 32,
    ) -> None:
        super().__init__()
        if dims != 2:
            raise InputError(f"a U-Net works on images, in 2 dimensions, not in {dims}")
        self.side = side
        self.interpolator = GridInterpolator(channels, _numbers(widths), _numbers(blocks))
        self.denoiser = GridDenoiser(
            channels, _numbers(widths)[0], _numbers(flow_widths), _numbers(flow_blocks)
        )
        self.claims = replace(self.claims, resolution_aware=cells)

    def encode(self, obs: Observation) -> Encoded:
        """Average the observations in cells and read them; features and guess on their grid."""
        shape = obs.grid or finer_shape((self.side, self.side), obs.count)
        values, weight = mean_in_cells(obs.coords, obs.values, obs.valid, shape)
        return self.interpolator.encode(values, weight)

    def prepare(self, query: Query, encoded: Encoded | None = None) -> Condition:
        """Predict the posterior mean at the queries and how far off it is."""
        encoded = self.encode(query.obs) if encoded is None else encoded
        side = query.cell if self.claims.resolution_aware else None
        side = query.coords.new_ones(len(query.coords)) if side is None else side
        mean, size = self.interpolator(encoded, query.coords, side)
        return Condition(mean, size, encoded)

    def forward(
        self, x_t: Tensor, t: Tensor, query: Query, prepared: Condition | None = None
    ) -> Tensor:
        """Predict the data x_1; see `Backbone.forward`."""
        if prepared is None:
            prepared = self.prepare(query)
        if not bool(t.any()):
            return prepared.mean
        known = estimate_residual(x_t, t, prepared.mean, prepared.size)
        seen = torch.cat([known.noisy, known.gain], dim=-1)
        correction = self.denoiser(seen, t, query.coords, prepared.encoded)
        return known.data + known.unit * correction


class GridDenoiser(nn.Module):
    """A U-Net on the grid of the observations that corrects a noisy residual.

    Args:
        channels: Channels C of the values.
        features: Channels of the features that the trunk gives every cell.
        widths: Channels on each grid.
        blocks: Residual blocks on each grid.
    """

    def __init__(
        self, channels: int, features: int, widths: Sequence[int], blocks: Sequence[int]
    ) -> None:
        super().__init__()
        self.time = TimeEmbedding(64)
        self.net = UNet(2 * channels + 2 + features, widths, blocks, modulated=64)
        self.head = MatrixConv(widths[0], channels, 1)
        nn.init.zeros_(self.head.weight)

    def forward(self, seen: Tensor, t: Tensor, coords: Tensor, encoded: Encoded) -> Tensor:
        """Return corrections (B, L, C) of scaled residuals and gains (B, L, 2 C) at times t."""
        shape = encoded.guess.shape[-2:]
        on_cells = is_grid(coords, shape)
        if on_cells:
            field = seen.transpose(1, 2).unflatten(2, shape)
            known = torch.ones_like(encoded.weight)
        else:
            valid = torch.ones_like(coords[..., 0], dtype=torch.bool)
            field, known = mean_in_cells(coords, seen, valid, shape)
        x = torch.cat([field, known, encoded.weight, encoded.features], dim=1)
        x = on_multiple(self.net, x, self.time(t))
        correction = self.head(x).float()
        if on_cells:
            return correction.flatten(2).transpose(1, 2)
        return cubic_at(correction, coords)[0]


def _numbers(text: str) -> list[int]:
    """Read whole numbers separated by commas."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"expected whole numbers separated by commas, not '{text}'") from error
