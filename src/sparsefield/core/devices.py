"""Where to compute, and in which precision."""

import torch

from sparsefield.core.errors import InputError


def choose_device(name: str) -> torch.device:
    """Return a device by name; auto is cuda where there is one.

    Raises:
        InputError: There is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {name} is not usable here: {reason}") from error


def autocast_type(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the autocast type: bfloat16 where the hardware multiplies in it, or None."""
    if precision == "auto":
        fast = (
            torch.cuda.is_bf16_supported()
            if device.type == "cuda"
            else device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        )
        precision = "bfloat16" if fast else "float32"
    return torch.bfloat16 if precision == "bfloat16" else None
