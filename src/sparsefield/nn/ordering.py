"""Orders in which a state-space model reads points: given, raster, Morton, Hilbert."""

from collections.abc import Callable

import torch
from torch import Tensor

from sparsefield.core.errors import unknown_name


def quantise(coords: Tensor, bits: int) -> Tensor:
    """Map coordinates (..., P) in [-1, 1] to integers (..., P) in [0, 2**bits)."""
    cells = 2**bits
    return ((coords.double() + 1) / 2 * cells).floor().long().clamp(0, cells - 1)


def interleave(cells: Tensor, bits: int) -> Tensor:
    """Interleave the bits of integers (..., P), most significant first, into one code (...)."""
    code = torch.zeros_like(cells[..., 0])
    for bit in reversed(range(bits)):
        for axis in range(cells.shape[-1]):
            code = (code << 1) | ((cells[..., axis] >> bit) & 1)
    return code


def morton_code(coords: Tensor) -> Tensor:
    """Return the position (...) of coordinates (..., P) on the Morton (Z-order) curve."""
    bits = _bits(coords.shape[-1])
    return interleave(quantise(coords, bits), bits)


def hilbert_code(coords: Tensor) -> Tensor:
    """Return the position (...) of coordinates (..., P) on the Hilbert curve, in any dimension.

    References:
        Programming the Hilbert curve (Skilling, 2004), AxestoTranspose.
    """
    bits = _bits(coords.shape[-1])
    return interleave(_hilbert_transpose(quantise(coords, bits), bits), bits)


def _hilbert_transpose(cells: Tensor, bits: int) -> Tensor:
    axes = list(cells.unbind(-1))
    for bit in reversed(range(1, bits)):
        low = (1 << bit) - 1
        for i in range(len(axes)):
            swap = (axes[0] ^ axes[i]) & low
            inverted = ((axes[i] >> bit) & 1).bool()
            other = torch.where(inverted, axes[i], axes[i] ^ swap)
            axes[0] = axes[0] ^ torch.where(inverted, low, swap)
            if i:
                axes[i] = other
    for i in range(1, len(axes)):
        axes[i] = axes[i] ^ axes[i - 1]
    correction = torch.zeros_like(axes[0])
    for bit in reversed(range(1, bits)):
        correction = torch.where(
            ((axes[-1] >> bit) & 1).bool(), correction ^ ((1 << bit) - 1), correction
        )
    return torch.stack([axis ^ correction for axis in axes], dim=-1)


def raster_code(coords: Tensor) -> Tensor:
    """Return the rank (...) of coordinates (..., P) in row-major order, first axis slowest."""
    bits = _bits(coords.shape[-1])
    cells = quantise(coords, bits)
    code = torch.zeros_like(cells[..., 0])
    for axis in range(cells.shape[-1]):
        code = (code << bits) | cells[..., axis]
    return code


def _bits(dims: int) -> int:
    """Return the bits per axis that fit a signed 64-bit code; 16 resolve a 65,536-cell axis."""
    return min(16, 62 // dims)


def given_code(coords: Tensor) -> Tensor:
    """Return the position (...) at which the points were given."""
    return torch.arange(coords.shape[-2], device=coords.device).expand(coords.shape[:-1])


ORDERS: dict[str, Callable[[Tensor], Tensor]] = {
    "given": given_code,
    "raster": raster_code,
    "morton": morton_code,
    "hilbert": hilbert_code,
    "hilbert_transposed": lambda coords: hilbert_code(coords.flip(-1)),
}
# Several orders that are read one by one and averaged.
TRAVERSALS: dict[str, tuple[str, ...]] = {"multi": ("hilbert", "hilbert_transposed")}


def traversals(name: str) -> tuple[str, ...]:
    """Return the orders that a name stands for: itself, or those that are averaged.

    Raises:
        InputError: The name is in neither ORDERS nor TRAVERSALS.
    """
    if name in ORDERS:
        return (name,)
    if name not in TRAVERSALS:
        raise unknown_name("point order", name, [*ORDERS, *TRAVERSALS])
    return TRAVERSALS[name]


def point_order(name: str, coords: Tensor) -> Tensor:
    """Return the indices (B, L) that sort points (B, L, P) along the curve `name`; stable.

    Raises:
        InputError: The name is not in ORDERS.
    """
    if name not in ORDERS:
        raise unknown_name("point order", name, list(ORDERS))
    return ORDERS[name](coords).argsort(dim=-1, stable=True)


def grouped_order(name: str, coords: Tensor, group: Tensor) -> Tensor:
    """Return the indices (B, L) that sort points by `group` (B, L), then along the curve."""
    order = point_order(name, coords)
    return order.gather(1, group.gather(1, order).argsort(dim=-1, stable=True))


def reorder(x: Tensor, order: Tensor) -> Tensor:
    """Take points of x (B, L, D) in the order (B, L)."""
    return x.gather(1, order[..., None].expand(-1, -1, x.shape[-1]))


def inverse_order(order: Tensor) -> Tensor:
    """Return the permutation (B, L) that undoes an order (B, L)."""
    return order.argsort(dim=-1)
