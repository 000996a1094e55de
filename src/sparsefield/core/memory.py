"""How much memory something may take, asked before any of it is allocated."""

import os
from functools import cache
from pathlib import Path

from sparsefield.core.errors import InputError

# Environment variable with the largest size, such as 6G; half of the machine's memory if unset.
VARIABLE = "SPARSEFIELD_MEMORY"

# What a file may expand to without question, and beyond that the most per byte that it holds.
# Deflate makes 1,000 bytes of one at best, and pixels or fields that say anything a few.
ALWAYS_ALLOWED = 2**28
LARGEST_EXPANSION = 200

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# Where the kernel says what a container may use (cgroups 2 and 1).
_CONTAINER_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_UNKNOWN_MEMORY = 8 * 2**30


def memory_limit() -> int:
    """Return the bytes that one thing may take: half of the machine's memory.

    The environment variable SPARSEFIELD_MEMORY overrides it.

    Raises:
        InputError: The variable is no size.
    """
    text = os.environ.get(VARIABLE, "")
    return _parse_size(text) if text else machine_memory() // 2


@cache
def machine_memory() -> int:
    """Return the bytes of memory that this process may use on this machine or container."""
    found = [_UNKNOWN_MEMORY]
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _CONTAINER_LIMITS:
        try:
            found.append(int(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):  # no container, or one without a limit
            continue
    return min(size for size in found if size > 0)


def check_memory(needed: int, what: str, stored: int | None = None) -> None:
    """Refuse what would take more memory than allowed, before it is allocated.

    Args:
        needed: Bytes that it would take.
        what: What the message calls it.
        stored: Bytes of the file that it comes from. More than 200 times as much is refused
            above 256 MiB, unless SPARSEFIELD_MEMORY is set.

    Raises:
        InputError: It would take too much.
    """
    limit = memory_limit()
    advice = f"if that is right, set {VARIABLE}={_round_up(needed)} to allow it"
    if needed > limit:
        raise InputError(
            f"{what} would take {show_size(needed)} of memory, more than the limit of "
            f"{show_size(limit)}; {advice}"
        )
    if stored is None or VARIABLE in os.environ or needed <= ALWAYS_ALLOWED:
        return
    if needed > LARGEST_EXPANSION * max(stored, 1):
        raise InputError(
            f"{what} would expand from {show_size(stored)} to {show_size(needed)}; {advice}"
        )


def reconstruction_bytes(points: int, dims: int, channels: int, samples: int = 0) -> int:
    """Return about how many bytes the result of a reconstruction takes while it is made.

    Args:
        points: Points L that are asked for.
        dims: Dimensions of their coordinates.
        channels: Channels of the field.
        samples: Posterior samples S.
    """
    coordinates = 28 * dims  # in double precision axis by axis and stacked, then in single
    mean = 16 * channels  # noise, normalised and physical values, and a copy to write
    sampled = (8 + 8 * samples) * channels if samples else 0  # the same, and deviations
    return points * (coordinates + mean + sampled)


def show_size(size: int) -> str:
    """Return a number of bytes in words, such as 1.5 GiB."""
    number, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{number:.4g} {unit}"


def _parse_size(text: str) -> int:
    number = text.strip().upper().removesuffix("B").removesuffix("I")
    unit = number[-1:] if number[-1:] in _UNITS else ""
    try:
        size = int(float(number.removesuffix(unit)) * _UNITS[unit])
    except (ValueError, OverflowError):
        size = 0
    if size < 1:
        raise InputError(f"{VARIABLE}={text} is no size; write for example {VARIABLE}=6G")
    return size


def _round_up(size: int) -> str:
    """Return a size at or above this one as SPARSEFIELD_MEMORY takes it."""
    return f"{-(-size // _UNITS['G'])}G"
