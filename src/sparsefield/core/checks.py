"""Checks of numbers that arrive from files and networks."""

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
