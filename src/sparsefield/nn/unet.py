"""A convolutional U-Net of normalised residual blocks."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MatrixConv(nn.Module):
    """A convolution with `same` padding whose weight is kept as the matrix that it is.

    Optimisers that work on matrices, as Muon does, then take it as it stands.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        kernel: Side of the square kernel, odd.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.kernel = kernel
        fan_in = inputs * kernel * kernel
        self.weight = nn.Parameter(torch.randn(outputs, fan_in) * (2 / fan_in) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W)."""
        weight = self.weight.unflatten(1, (-1, self.kernel, self.kernel))
        return F.conv2d(x, weight.to(x.dtype), self.bias.to(x.dtype), padding=self.kernel // 2)


class ResidualBlock(nn.Module):
    """Two convolutions of normalised cells, added to their input; starts as the identity.

    Args:
        width: Channels.
        modulated: Channels of a vector that scales and shifts what lies between the convolutions.
    """

    def __init__(self, width: int, modulated: int = 0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first, self.second = MatrixConv(width, width), MatrixConv(width, width)
        nn.init.zeros_(self.second.weight)
        self.modulation = nn.Linear(modulated, 2 * width) if modulated else None

    def forward(self, x: Tensor, vector: Tensor | None = None) -> Tensor:
        """Update (B, width, H, W), given vectors (B, modulated) if there are such."""
        inner = self.first(per_cell(self.norm, x))
        if self.modulation is not None and vector is not None:
            scale, shift = self.modulation(vector)[..., None, None].chunk(2, dim=1)
            inner = inner * (1 + scale) + shift
        return x + self.second(F.relu(inner))


class UNet(nn.Module):
    """Residual blocks on grids of ever fewer cells and back, with skips that are added.

    Args:
        inputs: Channels in.
        widths: Channels on each grid, the finest first; each next has half as many cells an axis.
        blocks: Residual blocks on each grid, on the way down and again on the way up.
        modulated: Channels of a vector that modulates every block, such as an embedded time.
    """

    def __init__(
        self, inputs: int, widths: Sequence[int], blocks: Sequence[int], modulated: int = 0
    ) -> None:
        super().__init__()
        steps = list(pairwise(widths))
        self.multiple = 2 ** len(steps)
        self.stem = MatrixConv(inputs, widths[0])

        def level(index: int) -> nn.ModuleList:
            return nn.ModuleList(
                ResidualBlock(widths[index], modulated) for _ in range(blocks[index])
            )

        self.down = nn.ModuleList(level(i) for i in range(len(widths)))
        self.up = nn.ModuleList(level(i) for i in range(len(steps)))
        self.shrink = nn.ModuleList(MatrixConv(4 * fine, coarse, 1) for fine, coarse in steps)
        self.norm = nn.LayerNorm(widths[0])  # of each cell: what reads it needs a known scale
        self.grow = nn.ModuleList(MatrixConv(coarse, 4 * fine, 1) for fine, coarse in steps)

    def forward(self, x: Tensor, vector: Tensor | None = None) -> Tensor:
        """Map (B, inputs, H, W) to (B, widths[0], H, W); H and W are divisible by `multiple`."""
        x, skips = self.stem(x), []
        for index, level in enumerate(self.down):
            x = _through(level, x, vector)
            if index < len(self.shrink):
                skips.append(x)
                x = self.shrink[index](F.pixel_unshuffle(x, 2))
        for index in reversed(range(len(self.grow))):
            x = skips[index] + F.pixel_shuffle(self.grow[index](x), 2)
            x = _through(self.up[index], x, vector)
        return per_cell(self.norm, x)


def per_cell(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Normalise the channels of every cell of (B, C, H, W)."""
    return norm(x.movedim(1, -1)).movedim(-1, 1)


def _through(blocks: nn.Module, x: Tensor, vector: Tensor | None) -> Tensor:
    for block in cast(Iterable[nn.Module], blocks):
        x = block(x, vector)
    return x


def on_multiple(net: UNet, x: Tensor, vector: Tensor | None = None) -> Tensor:
    """Run a U-Net on a grid of any size (B, C, H, W), which a mirror continues where it must."""
    height, width = x.shape[-2:]
    for axis in (2, 3):
        x = _mirrored(x, axis, -x.shape[axis] % net.multiple)
    return net(x, vector)[..., :height, :width]


def _mirrored(x: Tensor, axis: int, more: int) -> Tensor:
    while more:
        step = min(more, x.shape[axis])
        mirror = x.narrow(axis, x.shape[axis] - step, step).flip(axis)
        x, more = torch.cat([x, mirror], axis), more - step
    return x
