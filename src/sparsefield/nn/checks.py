"""What every layer with kernels of its own demands of its tensors."""

from collections.abc import Mapping

from torch import Tensor

from sparsefield.core.errors import InputError


def check_tensors(what: str, tensors: Mapping[str, Tensor | None]) -> None:
    """Check that tensors are real, floating-point and on one device: that of the first.

    Kernels read memory by address, and torch's dispatcher picks a kernel by one of the tensors.

    Args:
        what: What takes the tensors, for the message.
        tensors: The tensors by name; None where an optional one is absent.

    Raises:
        InputError: A tensor has another type, or is on another device.
    """
    given = {name: x for name, x in tensors.items() if x is not None}
    first, device = next((name, x.device) for name, x in given.items())
    for name, x in given.items():
        if not x.dtype.is_floating_point:
            raise InputError(
                f"{what} takes real floating-point numbers, but {name} is {x.dtype}; convert it"
            )
        if x.device != device:
            raise InputError(
                f"{what} takes tensors on one device, but {name} is on {x.device} and {first} on "
                f"{device}; move one of them with .to(device)"
            )
