"""Check the `triton` scan on a CUDA machine against the loop in float64, then time it.

    PYTHONPATH=src python experiments/gpu/check_scan.py OUT

prints one line per check and per timing, writes OUT/scan_gpu.json, and exits with 1 if a check
fails. Times are medians of 20 by CUDA events, memory is the peak that PyTorch allocated on top of
the inputs. The bound is the time that the forward's traffic (u, delta, z, B, C and y) takes at the
bandwidth of a large copy on the same device.
"""

import gc
import json
import statistics
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from sparsefield.nn.scan import selective_scan

CHECKS = [  # batch, length, width, states
    (1, 1, 37, 5),
    (3, 63, 37, 5),
    (1, 100, 33, 16),
    (3, 257, 70, 16),
    (2, 408, 512, 16),
    (1, 4096, 40, 16),
    (1, 16384, 16, 4),
    (1200, 20, 5, 3),
]
TIMINGS = [(8, 408, 512, 16), (1, 2048, 512, 16), (1, 16384, 256, 16), (1, 65536, 256, 16)]
LENGTHS = [256, 1024, 4096, 16384, 65536]
WIDTH, STATES, HEADS = 256, 16, 8
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}
REPEATS = 20


def make_inputs(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> dict[str, Any]:
    """Return random inputs by name, rounded to the type."""
    batch, length, width, states = shape
    generator = torch.Generator("cuda").manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, device="cuda", dtype=torch.float32)

    inputs = {
        "u": normal(batch, length, width),
        "delta": normal(batch, length, width) - 1,
        "A": -torch.exp(normal(width, states)),
        "B": normal(batch, length, states),
        "C": normal(batch, length, states),
        "D": normal(width),
        "z": normal(batch, length, width),
        "delta_bias": normal(width),
        "h0": normal(batch, width, states),
    }
    return {name: x.to(dtype) for name, x in inputs.items()}


def run(inputs: dict[str, Any], backend: str, dtype: torch.dtype, reverse: bool) -> dict[str, Any]:
    """Return y, the last state and all gradients of a random loss, by name, in float64."""
    leaves = {name: x.to(dtype, copy=True).requires_grad_() for name, x in inputs.items()}
    y, state = selective_scan(**leaves, reverse=reverse, return_state=True, backend=backend)
    generator = torch.Generator("cuda").manual_seed(1)
    loss = torch.zeros((), device="cuda", dtype=torch.float64)
    for x in (y, state):
        weight = torch.randn(x.shape, generator=generator, device="cuda", dtype=torch.float64)
        loss = loss + (x.double() * weight).sum()
    loss.backward()
    results = {"y": y, "state": state} | {f"d{name}": x.grad for name, x in leaves.items()}
    return {name: x.detach().double() for name, x in results.items()}


def check(
    shape: tuple[int, ...], dtype: torch.dtype, reverse: bool, optional: bool
) -> dict[str, Any]:
    """Compare with the loop in float64 on the same rounded inputs, and with a second run."""
    inputs = make_inputs(shape, dtype)
    if not optional:
        inputs = {name: inputs[name] for name in ("u", "delta", "A", "B", "C")}
    expected = run(inputs, "naive", torch.float64, reverse)
    actual, again = (run(inputs, "triton", dtype, reverse) for _ in range(2))
    errors = {
        name: ((actual[name] - x).abs().max() / x.abs().max().clamp(min=1e-30)).item()
        for name, x in expected.items()
    }
    worst = max(errors, key=lambda name: errors[name])
    same = all(torch.equal(actual[name], again[name]) for name in actual)
    row = {
        "shape": shape,
        "dtype": str(dtype),
        "reverse": reverse,
        "optional": optional,
        "worst": worst,
        "error": errors[worst],
        "deterministic": same,
        # written so that a NaN fails
        "ok": all(error <= TOLERANCE[dtype] for error in errors.values()) and same,
    }
    print(
        f"{'ok  ' if row['ok'] else 'FAIL'} {shape} {dtype} reverse={reverse} "
        f"optional={optional}: worst {worst} {errors[worst]:.1e}, deterministic={same}",
        flush=True,
    )
    return row


def check_all() -> list[dict[str, Any]]:
    """Run every check; an exception is a failed one."""
    cases = [(shape, torch.float32, False, True) for shape in CHECKS]
    cases += [(shape, torch.float32, True, True) for shape in CHECKS[1:5]]
    cases += [(shape, torch.float32, False, False) for shape in CHECKS[1:4]]
    cases += [(CHECKS[3], dtype, False, True) for dtype in (torch.bfloat16, torch.float16)]
    rows = []
    for case in cases:
        try:
            rows.append(check(*case))
        except Exception as error:  # every case is to be seen, whatever one of them does
            print(f"FAIL {case}: {type(error).__name__}: {error}", flush=True)
            rows.append({"shape": case[0], "ok": False, "error": str(error)})
    return rows


def milliseconds(function: Callable[[], object]) -> float:
    """Return the median time of a call on the device, after three to warm up."""
    for _ in range(3):
        function()
    times = []
    for _ in range(REPEATS):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop))
    return statistics.median(times)


def peak_bytes(function: Callable[[], object]) -> int:
    """Return how much memory a call takes at most, on top of what there is."""
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def copy_bandwidth() -> float:
    """Return bytes per second, read plus written, of a copy of one GiB."""
    source = torch.empty(2**28, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / (1e-3 * milliseconds(lambda: target.copy_(source)))


def measure(
    name: str, forward: Callable[[], torch.Tensor], leaves: list[torch.Tensor]
) -> dict[str, Any]:
    """Time a forward without gradients, and with the backward of the sum of its output."""

    @torch.no_grad()
    def infer() -> None:
        forward()

    def train() -> None:
        torch.autograd.grad(forward().sum(), leaves)

    try:
        return {
            "contestant": name,
            "forward_ms": milliseconds(infer),
            "forward_backward_ms": milliseconds(train),
            "forward_peak_bytes": peak_bytes(infer),
            "forward_backward_peak_bytes": peak_bytes(train),
        }
    except Exception as error:  # a contestant that cannot run is a result, not an end
        torch.cuda.empty_cache()
        return {"contestant": name, "refused": f"{type(error).__name__}: {error}"[:300]}


def scan_call(
    shape: tuple[int, ...], dtype: torch.dtype, backend: str
) -> tuple[Callable[[], torch.Tensor], list[torch.Tensor]]:
    """Return a scan with skip connection, gate and bias, and its leaves."""
    inputs = make_inputs(shape, dtype)
    del inputs["h0"]
    for name in ("A", "D", "delta_bias"):
        inputs[name] = inputs[name].float()
    leaves = {name: x.requires_grad_() for name, x in inputs.items()}
    return lambda: selective_scan(**leaves, backend=backend), list(leaves.values())


def bound_ms(shape: tuple[int, ...], dtype: torch.dtype, bandwidth: float) -> float:
    """Return the least time of a forward: u, delta, z, B, C read, y written."""
    batch, length, width, states = shape
    return 1e3 * batch * length * (4 * width + 2 * states) * dtype.itemsize / bandwidth


def report(row: dict[str, Any]) -> dict[str, Any]:
    """Print a timing in one line."""
    head = f"{row['shape']} {row['dtype']} {row['contestant']}"
    if "refused" in row:
        print(f"{head}: refused, {row['refused']}", flush=True)
    else:
        print(
            f"{head}: forward {row['forward_ms']:.3f} ms, + backward "
            f"{row['forward_backward_ms']:.3f} ms, peak "
            f"{row['forward_backward_peak_bytes'] / row['u_bytes']:.2f} sizes of u",
            flush=True,
        )
    return row


def time_scans(bandwidth: float) -> list[dict[str, Any]]:
    """Time the backends against each other and against the bandwidth of the device."""
    contestants = ["triton", "chunked"] + ["mamba_ssm"] * (find_spec("mamba_ssm") is not None)
    rows = []
    for shape in TIMINGS:
        for dtype in (torch.float32, torch.bfloat16):
            for backend in contestants:
                row = measure(backend, *scan_call(shape, dtype, backend))
                row |= {"shape": shape, "dtype": str(dtype)}
                row["u_bytes"] = shape[0] * shape[1] * shape[2] * dtype.itemsize
                row["bound_ms"] = bound_ms(shape, dtype, bandwidth)
                rows.append(report(row))
            print(f"{shape} {dtype} bound of a forward: {rows[-1]['bound_ms']:.3f} ms")
    return rows


def attention_call(
    length: int, dtype: torch.dtype
) -> tuple[Callable[[], torch.Tensor], list[torch.Tensor]]:
    """Return attention of the same width over the same tokens, and its leaves."""
    size = (1, HEADS, length, WIDTH // HEADS)
    leaves = [torch.randn(size, device="cuda", dtype=dtype).requires_grad_() for _ in range(3)]
    return lambda: F.scaled_dot_product_attention(*leaves), leaves


def compare_with_attention() -> list[dict[str, Any]]:
    """Time one scan and one attention, each without its projections, by length."""
    rows = []
    for length in LENGTHS:
        shape = (1, length, WIDTH, STATES)
        for dtype in (torch.bfloat16, torch.float32):
            calls = {
                "triton": scan_call(shape, dtype, "triton"),
                "attention": attention_call(length, dtype),
            }
            for name, (forward, leaves) in calls.items():
                row = measure(name, forward, leaves) | {"shape": shape, "dtype": str(dtype)}
                row["u_bytes"] = length * WIDTH * dtype.itemsize
                rows.append(report(row))
    return rows


def main() -> int:
    """Check, time, and write the results."""
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    if not torch.cuda.is_available():
        print("check_scan.py needs a CUDA device, and PyTorch sees none")
        return 1
    checks = check_all()
    bandwidth = copy_bandwidth()
    print(f"copy: {bandwidth / 1e12:.2f} TB/s read + written", flush=True)
    result = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "repeats": REPEATS,
        "copy_bytes_per_second": bandwidth,
        "checks": checks,
        "scans": time_scans(bandwidth),
        "attention": compare_with_attention(),
    }
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    (target / "scan_gpu.json").write_text(json.dumps(result, indent=1) + "\n")
    failed = sum(not row["ok"] for row in checks)
    print(f"{len(checks) - failed} of {len(checks)} checks passed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
