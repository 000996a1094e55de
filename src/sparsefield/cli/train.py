"""sparsefield train: train a model here or in the background."""

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

if TYPE_CHECKING:
    from sparsefield.training.config import TrainConfig
    from sparsefield.training.run import Run

# A background run that is still alive this long after its claim has built model and optimiser.
SETTLE_SECONDS = 2.0


def command(
    preset: Annotated[Positional[str], arg(metavar="PRESET")],
    overrides: Annotated[Positional[tuple[str, ...]], arg(metavar="[KEY=VALUE ...]")] = (),
    data: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="D")] = (),
    run: Annotated[Path | None, arg(metavar="DIR")] = None,
    detach: bool = False,
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
    """
    from sparsefield.training.config import load_config
    from sparsefield.training.run import RUNS, Run

    config = load_config(preset, overrides)
    if data:
        config = replace(config, data=replace(config.data, paths=data))
    home = Run(run or RUNS / Path(preset).stem)
    if home.exists() and Status(home).finished:
        home.write_config(config)
        print(f"{home.folder} is finished: {config.length}{_best(home)}")
        return 0
    if detach:
        again = [preset, *overrides, "--run", str(home.folder)]
        return _train_in_background(home, [*again, *(x for d in data for x in ("--data", d))])
    return _train_here(home, config)


def _train_here(run: "Run", config: "TrainConfig") -> int:
    from sparsefield.training.loop import Stopped, train

    print(_banner(run, config), flush=True)
    try:
        with show_training() as report:
            train(config, run, report)
    except Stopped:
        print(f"saved at step {Status(run).saved_step}; the same command resumes", flush=True)
    else:
        print(f"finished{_best(run)}; weights in {run.best}", flush=True)
    return 0


def _train_in_background(run: "Run", arguments: list[str]) -> int:
    """Start the same command in a session of its own, and wait until it trains or fails."""
    if run.pid() is not None:
        raise InputError(f"process {run.pid()} is already training in {run.folder}")
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
        print(output.splitlines()[-1] if output else "no output", file=sys.stderr)
        return child.returncode
    name = run.folder
    print(f"process {child.pid} trains in {name}; log in {run.log_file}")
    print(f"'sparsefield monitor {name}' shows it, 'sparsefield stop {name}' ends it")
    return 0


def _settles(run: "Run", child: "subprocess.Popen[bytes]") -> bool:
    """Wait until a background process has claimed the run and goes on, or has ended."""
    while child.poll() is None and not (run.exists() and run.pid() == child.pid):
        time.sleep(0.05)
    try:
        child.wait(SETTLE_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False


def _banner(run: "Run", config: "TrainConfig") -> str:
    import torch

    from sparsefield.core.devices import autocast_type, choose_device

    device = choose_device(config.device)
    kind = str(autocast_type(config.precision, device) or torch.float32).removeprefix("torch.")
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    settings = " ".join(f"{key}={value}" for key, value in config.model.items() if key != "name")
    return (
        f"model {config.model['name']} {settings}".rstrip()
        + f"\n{config.length} in batches of {config.batch_size}, seed {config.seed}; "
        f"{device.type} in {kind}{threads}; folder {run.folder}"
    )


def _best(run: "Run") -> str:
    psnr = Status(run).best_psnr
    return "" if psnr is None else f", best validation PSNR {psnr:.2f} dB"
