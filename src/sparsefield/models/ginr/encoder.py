"""The encoder of Mamba-GINR: patches and position tokens in one sequence."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparsefield.data.grids import cell_centres
from sparsefield.data.observation import Observation
from sparsefield.models.ginr.patches import PATCH, Patches, cut_patches
from sparsefield.nn.ordering import grouped_order, inverse_order, point_order, reorder
from sparsefield.nn.tokens import PointTokens


class Code(NamedTuple):
    """What an autoencoder keeps of a field.

    Attributes:
        tokens: Position tokens (B, K, D).
        spacing: Size of a cell of the observed grid along each axis (B, 1, P).
    """

    tokens: Tensor
    spacing: Tensor


class PatchEncoder(nn.Module):
    """Encode observations into K position tokens, whatever the number of their patches.

    Position tokens are learned. Each has a fixed location, the K locations being equidistant on
    the curve along which the patches are read, so that at the size for which K equals the number
    of patches the two kinds alternate. Patches without an observation are left out; position
    tokens always stay, and where they are.

    References:
        Locality-Aware Generalizable Implicit Neural Representation (Lee et al., 2023),
        section 3.1, for tokens beside those of the data that become the code.
        Mamba: Linear-Time Sequence Modeling with Selective State Spaces (Gu & Dao, 2023).

    Args:
        channels: Channels C of the values.
        dims: Coordinate dimensions P.
        width: Channels D of a token.
        positions: Position tokens K.
        sequence: Layers over all tokens; they take tokens (B, L, D) and which are valid (B, L).
        latent: Layers over the position tokens alone.
        cells: Cells per axis of the grid for observations that fill none of their own.
        max_frequency: Highest frequency of the cells, in cycles per coordinate unit.
        order: Curve along which patches are read.
        interleave: Place position tokens among the patches, else behind them.
    """

    locations: Tensor

    def __init__(
        self,
        channels: int,
        dims: int,
        width: int,
        *,
        positions: int,
        sequence: Sequence[nn.Module],
        latent: Sequence[nn.Module] = (),
        cells: int = 32,
        max_frequency: float = 8.0,
        order: str = "hilbert",
        interleave: bool = True,
    ) -> None:
        super().__init__()
        self.cells, self.order, self.interleave = cells, order, interleave
        # Centres of patches carry only the frequencies that a grid of patches does.
        frequency, features = max_frequency / PATCH, -(-width // 2)
        inputs = PATCH**dims * (channels + 1)
        self.embed = PointTokens(dims, inputs, width, features, frequency)
        self.register_buffer("locations", curve_points(order, positions, dims))
        # Position tokens start as the sinusoids that tell patches where they are, small: what
        # they take from the patches must not drown in them.
        angle = 2 * math.pi * self.locations @ self.embed.fourier.frequencies.T
        sinusoids = torch.cat([angle.sin(), angle.cos()], dim=-1)
        self.tokens = nn.Parameter(0.1 * sinusoids[:, :width])
        self.sequence, self.latent = nn.ModuleList(sequence), nn.ModuleList(latent)
        self.norm = nn.LayerNorm(width)

    def forward(self, obs: Observation) -> Code:
        """Encode batched observations."""
        patches = cut_patches(obs, self.cells)
        order, rank, valid = self._arrange(patches)
        embedded = self.embed(patches.centres, patches.values)
        tokens = self.tokens.to(embedded.dtype).expand(len(embedded), -1, -1)
        x = reorder(torch.cat([embedded, tokens], dim=1), order)
        for layer in self.sequence:
            x = layer(x, valid)
        x = reorder(x, rank)
        for layer in self.latent:
            x = layer(x)
        return Code(self.norm(x), patches.spacing)

    def _arrange(self, patches: Patches) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the order (B, L) of patches and position tokens, and where the latter end up.

        Patches without an observation come last and are cut off, as far as the fullest item
        allows; the third result marks what remains of them, None if nothing does.
        """
        batch, count = patches.valid.shape
        locations = self.locations.expand(batch, -1, -1)
        places = torch.cat([patches.centres, locations], dim=1)
        kind = torch.full_like(locations[..., 0], 0 if self.interleave else 1, dtype=torch.long)
        group = torch.cat([torch.where(patches.valid, 0, 2), kind], dim=1)
        order = grouped_order(self.order, places, group)
        rank = inverse_order(order)[:, count:]
        used = patches.valid.sum(1)
        order = order[:, : int(used.max()) + len(self.locations)]
        whole = bool((used == used[0]).all())
        return order, rank, None if whole else group.gather(1, order) < 2


def curve_points(order: str, count: int, dims: int) -> Tensor:
    """Return `count` points (K, P), equidistant along a curve through [-1, 1]^P."""
    side = 1
    while side**dims < count:
        side *= 2
    grid = cell_centres((side,) * dims)
    along = grid[point_order(order, grid[None])[0]]
    return along[((torch.arange(count) + 0.5) * (len(grid) / count)).long()]
