"""Scattered measurements of a field."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sparsefield.core.errors import InputError

ArrayLike = Tensor | np.ndarray | Sequence[Any]


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Observation:
    """M measured points of a field, or a batch of B such sets padded to one length.

    Args:
        coords: positions in [-1, 1], shape (M, P) or (B, M, P).
        values: measured values, shape (M, C) or (B, M, C).
        valid: which rows are measurements and which are padding, bool, shape (M,) or (B, M);
            all are if it is not given. Rows that are not valid may hold anything, and become 0.

    Floating-point tensors keep their type; arrays and sequences become float32.

    Raises:
        InputError: if shapes disagree, there is no row, or a valid row is NaN or infinite.
    """

    coords: Tensor
    values: Tensor
    valid: Tensor

    def __init__(
        self, coords: ArrayLike, values: ArrayLike, valid: ArrayLike | None = None
    ) -> None:
        """Convert to tensors, check, and zero the rows that are not valid."""
        coords, values = _floating(coords), _floating(values)
        _check_points(coords, values)
        mask = _mask(valid, coords)
        if not mask.any(dim=-1).all():
            raise InputError("valid: no row is a measurement; at least one is needed")
        _check_finite("coords", coords, mask)
        _check_finite("values", values, mask)
        self._assign(
            coords.masked_fill(~mask[..., None], 0), values.masked_fill(~mask[..., None], 0), mask
        )

    def __repr__(self) -> str:
        """Say what was observed, without the numbers."""
        sets = f"{len(self.coords)} x " if self.coords.ndim == 3 else ""
        return f"Observation({sets}{self.count} points, {self.dims}-D, {self.channels} channels)"

    def _assign(self, coords: Tensor, values: Tensor, valid: Tensor) -> None:
        for name, tensor in (("coords", coords), ("values", values), ("valid", valid)):
            object.__setattr__(self, name, tensor)

    @classmethod
    def _checked(cls, coords: Tensor, values: Tensor, valid: Tensor) -> "Observation":
        """Return an observation of tensors that come from a checked one."""
        new = cls.__new__(cls)
        new._assign(coords, values, valid)
        return new

    @staticmethod
    def stack(observations: Sequence["Observation"]) -> "Observation":
        """Return one batch of single observations, padded to the longest.

        Args:
            observations: B observations without a batch axis, with the same P and C.

        Returns:
            The batch, with coords of shape (B, M, P).

        Raises:
            InputError: if one has a batch axis, or P or C differ.
        """
        kinds = {(obs.coords.ndim, obs.dims, obs.channels) for obs in observations}
        if len(kinds) != 1 or next(iter(kinds))[0] != 2:
            raise InputError(
                "stack needs observations without a batch axis and with equal dims and channels, "
                f"got (axes, dims, channels) {sorted(kinds)}"
            )
        longest = max(obs.count for obs in observations)
        padded = [obs.pad(longest) for obs in observations]
        return Observation._checked(
            torch.stack([obs.coords for obs in padded]),
            torch.stack([obs.values for obs in padded]),
            torch.stack([obs.valid for obs in padded]),
        )

    @property
    def count(self) -> int:
        """Number of rows M, padding included."""
        return self.coords.shape[-2]

    @property
    def dims(self) -> int:
        """Number of coordinate dimensions P."""
        return self.coords.shape[-1]

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return self.values.shape[-1]

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Observation":
        """Return it on another device or with another floating type."""
        return self._checked(
            self.coords.to(device=device, dtype=dtype),
            self.values.to(device=device, dtype=dtype),
            self.valid.to(device=device),
        )

    def batched(self) -> "Observation":
        """Return it with a batch axis, shape (1, M, ...) where there was none."""
        if self.coords.ndim == 3:
            return self
        return self._checked(self.coords[None], self.values[None], self.valid[None])

    def pad(self, count: int) -> "Observation":
        """Return it with zero rows, which are not valid, appended up to `count` rows."""
        extra = count - self.count
        if extra < 0:
            raise InputError(f"cannot pad {self.count} observations to {count}")
        return self._checked(
            F.pad(self.coords, (0, 0, 0, extra)),
            F.pad(self.values, (0, 0, 0, extra)),
            F.pad(self.valid, (0, extra)),
        )

    def repeat(self, draws: int) -> "Observation":
        """Return the batch repeated for S draws, shape (S B, M, ...), draw by draw.

        `unflatten(0, (S, B))` on a result separates the draws again.
        """
        batch = self.batched()
        return self._checked(
            batch.coords.repeat(draws, 1, 1),
            batch.values.repeat(draws, 1, 1),
            batch.valid.repeat(draws, 1),
        )


def _floating(data: ArrayLike) -> Tensor:
    if isinstance(data, Tensor):
        return data if data.is_floating_point() else data.float()
    return torch.as_tensor(np.asarray(data), dtype=torch.float32)


def _mask(valid: ArrayLike | None, coords: Tensor) -> Tensor:
    """Return the validity of each row as a bool tensor beside the coordinates."""
    if valid is None:
        return torch.ones(coords.shape[:-1], dtype=torch.bool, device=coords.device)
    mask = torch.as_tensor(valid, dtype=torch.bool, device=coords.device)
    if mask.shape != coords.shape[:-1]:
        raise InputError(
            f"valid: expected shape {tuple(coords.shape[:-1])} for coords of shape "
            f"{tuple(coords.shape)}, got {tuple(mask.shape)}"
        )
    return mask


def _check_points(coords: Tensor, values: Tensor) -> None:
    if coords.ndim not in (2, 3) or 0 in coords.shape[-2:]:
        raise InputError(
            "coords: expected shape (M, P) or (B, M, P) with at least one point and dimension, "
            f"got {tuple(coords.shape)}"
        )
    if values.shape[:-1] != coords.shape[:-1] or values.shape[-1] == 0:
        expected = ", ".join(map(str, (*coords.shape[:-1], "C")))
        raise InputError(
            f"values: expected shape ({expected}) for coords of shape {tuple(coords.shape)}, "
            f"got {tuple(values.shape)}"
        )


def _check_finite(name: str, data: Tensor, valid: Tensor) -> None:
    bad = ~data.isfinite() & valid[..., None]
    if not bad.any():
        return
    rows, total = int(bad.any(dim=-1).sum()), int(valid.sum())
    kind = "NaN" if data[bad].isnan().all() else "NaN or infinite"
    raise InputError(
        f"{int(bad.sum())} of {total * data.shape[-1]} {name} are {kind} (in {rows} of {total} "
        "rows); drop those rows or mark them invalid with valid="
    )
