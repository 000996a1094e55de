"""sparsefield train: train a model here or in the background."""

import contextlib
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, UseAppendAction, arg

from sparsefield.cli.progress import show_training
from sparsefield.cli.status import Status
from sparsefield.core.errors import InputError
from sparsefield.core.words import counted

if TYPE_CHECKING:
    from sparsefield.training.config import TrainConfig
    from sparsefield.training.run import Run

# A background run that is still alive this long after it began does not fail in its first steps.
SETTLE_SECONDS = 1.0


def command(
    preset: Annotated[Positional[str], arg(metavar="PRESET")],
    overrides: Annotated[Positional[tuple[str, ...]], arg(metavar="[KEY=VALUE ...]")] = (),
    data: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="D")] = (),
    run: Annotated[Path | None, arg(metavar="DIR")] = None,
    detach: bool = False,
    allow_changes: bool = False,
) -> int:
    """Train a model; the same command again resumes.

    Ctrl-C or 'sparsefield stop' saves the state first. The run folder holds config.json,
    metrics.jsonl, the best and the latest weights, those of some epochs, and figures.

    Args:
        preset: A preset ('sparsefield models' lists them) or a TOML file.
        overrides: Settings in place of the preset's, for example optimizer.lr=3e-4 or epochs=20.
        data: Training data, see 'sparsefield evaluate --help'; repeat for several sets.
        run: Folder of the run; runs/PRESET by default.
        detach: Train in the background and log to train.log in the run folder.
        allow_changes: Go on from the saved state with another learning rate, masks or the like.
            Without it, only changes that leave the run the same, or make it longer, are allowed.
    """
    from sparsefield.core.launch import refuse_several
    from sparsefield.training.changes import FLAG, find_changes
    from sparsefield.training.config import follow_run, load_config
    from sparsefield.training.parallel import quiet_followers
    from sparsefield.training.run import RUNS, Run

    config = load_config(preset, overrides)
    if data:
        config = replace(config, data=replace(config.data, paths=data))
    home = Run(run or RUNS / Path(preset).stem)
    with quiet_followers():
        if home.exists() and Status(home).finished:
            recorded = home.read_config()
            if not find_changes(recorded, follow_run(config, recorded)):
                print(f"{home.folder} is finished: {config.length}{_best(home)}")
                return 0
        if not detach:
            return _train_here(home, config, allow_changes)
    refuse_several("--detach trains")
    again = [preset, *overrides, "--run", str(home.folder), *[FLAG] * allow_changes]
    return _train_in_background(home, [*again, *(x for d in data for x in ("--data", d))])


def _train_here(run: "Run", config: "TrainConfig", allow_changes: bool) -> int:
    from sparsefield.training.loop import Stopped, train

    print(_banner(run, config), flush=True)
    try:
        with show_training() as report:
            train(config, run, report, allow_changes=allow_changes, notify=_say)
    except Stopped:
        print(f"saved at step {Status(run).saved_step}; the same command resumes", flush=True)
    else:
        print(f"finished{_best(run)}; weights in {_weights(run)}", flush=True)
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _train_in_background(run: "Run", arguments: list[str]) -> int:
    """Start the same command in a session of its own, and wait until it trains or fails."""
    if run.owner() is not None:
        raise InputError(f"process {run.pid()} is already training in {run.folder}")
    new = not run.log_file.exists()
    run.folder.mkdir(parents=True, exist_ok=True)
    with run.log_file.open("a") as log:
        start = log.tell()
        child = subprocess.Popen(
            [sys.executable, "-m", "sparsefield.cli", "train", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    if not _settles(run, child):
        with run.log_file.open() as log:
            log.seek(start)
            output = log.read().strip()
        if child.returncode == 0:
            print(output)
            return 0
        if new and not run.exists():  # a start that was refused leaves nothing
            run.log_file.unlink()
            with contextlib.suppress(OSError):
                run.folder.rmdir()
        print(output.splitlines()[-1] if output else "no output", file=sys.stderr)
        return child.returncode
    name = run.folder
    print(f"process {child.pid} trains in {name}; log in {run.log_file}")
    print(f"'sparsefield monitor {name}' shows it, 'sparsefield stop {name}' ends it")
    return 0


def _settles(run: "Run", child: "subprocess.Popen[bytes]") -> bool:
    """Wait until a background process has begun, past all that is refused, or has ended."""
    while child.poll() is None and not _has_begun(run, child.pid):
        time.sleep(0.05)
    try:
        child.wait(SETTLE_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False


def _has_begun(run: "Run", pid: int) -> bool:
    starts = run.read_history() if run.pid() == pid else []
    return bool(starts) and starts[-1].get("pid") == pid


def _banner(run: "Run", config: "TrainConfig") -> str:
    import torch

    from sparsefield.core.devices import autocast_type, choose_device

    device = choose_device(config.device)
    kind = str(autocast_type(config.precision, device) or torch.float32).removeprefix("torch.")
    threads = f", {counted(torch.get_num_threads(), 'thread')}" if device.type == "cpu" else ""
    settings = " ".join(f"{key}={value}" for key, value in config.model.items() if key != "name")
    return (
        f"model {config.model['name']} {settings}".rstrip()
        + f"\n{config.length} in batches of {config.batch_size}, seed {config.seed}; "
        f"{device.type} in {kind}{threads}; folder {run.folder}"
    )


def _weights(run: "Run") -> Path:
    return next(path for path in (run.best, run.latest, run.resume_file) if path.is_file())


def _best(run: "Run") -> str:
    psnr = Status(run).best_psnr
    return "" if psnr is None else f", best validation PSNR {psnr:.2f} dB"
