"""Checks of numbers that arrive from files and networks."""

import numpy as np
from torch import Tensor

from sparsefield.core.errors import InputError


def check_finite(what: str, values: Tensor, advice: str = "") -> Tensor:
    """Return the values if all of them are finite.

    Args:
        what: What they are, the subject of the error, in the plural.
        values: Numbers of any shape.
        advice: What to do if they are not.

    Raises:
        InputError: Some are NaN or infinite.
    """
    if not values.is_floating_point() or bool(values.isfinite().all()):
        return values
    bad = int(values.numel() - values.isfinite().sum())
    message = f"{what} are not finite: {bad:,} of {values.numel():,} are NaN or infinite"
    raise InputError(f"{message}; {advice}" if advice else message)


def refuse_empty_channels(missing: np.ndarray, name: str) -> None:
    """Refuse values of several channels of which one holds no number at all.

    Args:
        missing: Which values are masked, NaN or infinite, (..., C).
        name: What an error message calls the values.

    Raises:
        InputError: A channel is missing everywhere.
    """
    channels = missing.shape[-1]
    empty = np.flatnonzero(missing.reshape(-1, channels).all(axis=0))
    if channels > 1 and empty.size:
        numbers = ", ".join(str(channel + 1) for channel in empty)
        raise InputError(
            f"{name}: nothing is known of channel {numbers} of {channels}, which is masked, NaN "
            "or infinite everywhere; leave it out"
        )


def partly_missing(missing: np.ndarray) -> np.ndarray:
    """Return the numbers of the rows of which some channels are missing and others are not.

    Args:
        missing: Which values are masked or NaN (M, C).
    """
    return np.flatnonzero(missing.any(axis=1) & ~missing.all(axis=1))
