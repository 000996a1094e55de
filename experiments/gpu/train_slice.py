"""Train presets on a machine that is lent for minutes: a slice per call, resumed by the next.

    python experiments/gpu/train_slice.py OUT PRESET ... [key=value ...] --minutes 8 --data D ...

Runs live in OUT/runs and resume there. After the slice, OUT/weights holds the best weights so far
of every preset in bfloat16, in parts below 16 MiB, and OUT/metrics its log;

    python experiments/gpu/train_slice.py OUT --join PRESET

puts the parts together again as OUT/PRESET.safetensors. Needs torch, numba, numpy, scipy, pillow,
pyarrow and safetensors, and PYTHONPATH=src.
"""

import argparse
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from sparsefield.core.errors import InputError
from sparsefield.inference.checkpoint import load_checkpoint, read_spec, save_checkpoint
from sparsefield.training.config import load_config
from sparsefield.training.loop import Progress, Stopped, train
from sparsefield.training.run import Run

PART_BYTES = 15 * 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", metavar="PRESET|key=value")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--data", nargs="+", default=[])
    parser.add_argument("--join", metavar="PRESET")
    options = parser.parse_intermixed_args()
    try:
        if options.join:
            print(join_parts(options.out, options.join))
        else:
            settings = [name for name in options.names if "=" in name]
            settings.append(f"data.paths={options.data}")
            presets = [name for name in options.names if "=" not in name]
            train_all(options.out, presets, settings, 60 * options.minutes)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def train_all(out: Path, presets: list[str], settings: list[str], seconds: float) -> None:
    """Go on with the first preset that is not finished, then the next, until time is up."""
    deadline = time.monotonic() + seconds
    for preset in presets:
        run = Run(out / "runs" / Path(preset).stem)
        config = load_config(preset, settings)
        try:
            train(config, run, lambda progress: _stop_after(deadline, progress))
        except Stopped:
            print(f"{run.name}: time is up", flush=True)
        else:
            print(f"{run.name}: finished", flush=True)
        export(run, out)
        if time.monotonic() > deadline:
            return


def _stop_after(deadline: float, progress: Progress) -> None:
    """Stop as a signal would, so that the state is saved."""
    if progress.step % 100 == 0:
        rate = f"{progress.images_per_second:.0f} images/s"
        print(f"step {progress.step} of {progress.steps}, loss {progress.loss:.4f}, {rate}")
    if time.monotonic() > deadline:
        os.kill(os.getpid(), signal.SIGTERM)


def export(run: Run, out: Path) -> None:
    """Copy the log and write the best weights in parts, once there are any."""
    for folder in ("metrics", "weights"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    if run.metrics_file.is_file():
        shutil.copy(run.metrics_file, out / "metrics" / f"{run.name}.jsonl")
    if not run.best.is_file():
        return
    flow, spec = load_checkpoint(run.best)
    for stale in (out / "weights").glob(f"{run.name}-*.safetensors"):
        stale.unlink()
    for number, part in enumerate(split(flow.backbone.state_dict())):
        path = out / "weights" / f"{run.name}-{number:03d}.safetensors"
        save_checkpoint(path, spec, part, torch.bfloat16)


def split(weights: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Divide weights into parts that stay below the limit in bfloat16, tensors whole."""
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, weight in weights.items():
        size += 2 * weight.numel()
        if size > PART_BYTES and parts[-1]:
            parts.append({})
            size = 2 * weight.numel()
        parts[-1][name] = weight
    return parts


def join_parts(out: Path, name: str) -> Path:
    """Write the checkpoint whose parts lie in OUT/weights.

    Raises:
        InputError: There are no parts.
    """
    from safetensors.torch import load_file

    parts = sorted((out / "weights").glob(f"{name}-*.safetensors"))
    if not parts:
        raise InputError(f"no parts of {name} in {out / 'weights'}")
    weights = {key: tensor for part in parts for key, tensor in load_file(part).items()}
    target = out / f"{name}.safetensors"
    save_checkpoint(target, read_spec(parts[0]), weights)
    return target


if __name__ == "__main__":
    sys.exit(main())
