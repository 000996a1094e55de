"""Train the image model: first the trunk, which predicts the mean, then the flow around it.

    python experiments/train_images.py RUN --data FOLDER --until 70 --decay 0.35
    python experiments/train_images.py RUN --data FOLDER --stage flow --until 20 --decay 0.3
    python experiments/train_images.py RUN --bundle FILE.safetensors [--start FILE]

FOLDER holds `cifar10` and `tiny_imagenet` in the Hugging Face layout, and `cifar10_lossless`,
whose first 500 images are only looked at, for the curve. Times are minutes of one thread. A run
that was stopped goes on from its last minute: RUN/log.jsonl keeps the curve of score against
images seen and processor time. `--start FILE` begins with the weights of a bundled file.
`experiments/gpu/train_images.py` trains the same on a GPU.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from sparsefield.data.damage import draw_damage
from sparsefield.data.dataset import open_dataset
from sparsefield.data.grids import cell_centres
from sparsefield.data.masks import observed_indices
from sparsefield.data.normalize import Normalizer
from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Query
from sparsefield.inference.checkpoint import ModelSpec, load_checkpoint, read_spec, save_checkpoint
from sparsefield.models.unet import Condition, UNetHybrid

SHIFT = 7.0  # of the flow's times towards the data, as `ModelSpec.time_shift`
HELD_OUT = 500  # images at the end of each set that are not trained on
SETTINGS = {"cells": True}
LOSS_FLOOR = 0.01  # mean squared errors that count as equal, in variances of the values
BIG, FINE, GREY = 0.15, 0.08, 0.06  # shares of batches of 64 x 64, of finer targets, of greys


class Photographs:
    """Random crops of two data sets in one of eight orientations, at many scales."""

    def __init__(self, folder: Path) -> None:
        self.rng = np.random.default_rng()  # `train` seeds it by the images seen
        self.small = open_dataset(folder / "cifar10", "train").values[:-HELD_OUT]
        self.large = open_dataset(folder / "tiny_imagenet", "train").values[:-HELD_OUT]

    def crop(self, side: int) -> np.ndarray:
        """Return a picture (side, side, 3) from 0 to 255."""
        kind = self.rng.random()
        if side == 32 and kind < 0.48:
            picture = self._any(self.small)
        elif side == 32 and kind < 0.75:
            picture = self._any(self.large).reshape(32, 2, 32, 2, 3).mean((1, 3))
        elif kind < (0.5 if side == 64 else 0.85):
            picture = self._enlarged(side)
        else:
            picture = self._part(side)
        return self._turned(picture.astype(np.float32))

    def wholes(self, count: int) -> Tensor:
        """Return pictures (B, 3, 64, 64) in [-1, 1]."""
        pictures = [self._any(self.large).astype(np.float32) for _ in range(count)]
        return _normalised([self._turned(picture) for picture in pictures])

    def batch(self, side: int, count: int) -> tuple[Tensor, Tensor]:
        """Return pictures (B, 3, H, W) in [-1, 1] and which pixels are seen (B, 1, H, W)."""
        pictures = _normalised([self.crop(side) for _ in range(count)])
        if self.rng.random() < GREY:
            pictures = pictures.mean(1, keepdim=True).expand(-1, 3, -1, -1).contiguous()
        return pictures, self.masks(side, count)

    def masks(self, side: int, count: int) -> Tensor:
        """Return which pixels of some pictures are seen (B, 1, H, W)."""
        seen = [draw_damage(self.rng, (side, side)) for _ in range(count)]
        return torch.from_numpy(np.stack(seen))[:, None].float()

    def _any(self, pictures: np.ndarray) -> np.ndarray:
        return pictures[self.rng.integers(len(pictures))]

    def _part(self, side: int) -> np.ndarray:
        top, left = self.rng.integers(0, 64 - side + 1, 2)
        return self._any(self.large)[top : top + side, left : left + side]

    def _enlarged(self, side: int) -> np.ndarray:
        small = math.ceil(side / self.rng.uniform(1, 2.5))
        how = Image.Resampling.BICUBIC if self.rng.random() < 0.7 else Image.Resampling.LANCZOS
        return np.asarray(Image.fromarray(self._part(small)).resize((side, side), how))

    def _turned(self, picture: np.ndarray) -> np.ndarray:
        turn = self.rng.integers(8)
        picture = picture[::-1] if turn & 1 else picture
        picture = picture[:, ::-1] if turn & 2 else picture
        return np.ascontiguousarray(picture.transpose(1, 0, 2) if turn & 4 else picture)


def _normalised(pictures: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 127.5 - 1


def points(pictures: Tensor) -> Tensor:
    """Return pictures (B, C, H, W) as points (B, L, C)."""
    return pictures.flatten(2).transpose(1, 2)


def centres(pictures: Tensor) -> Tensor:
    """Return the coordinates (B, L, 2) of the pixels."""
    here = cell_centres(pictures.shape[-2:], device=pictures.device)
    return here.expand(len(pictures), -1, -1)


def mean_loss(model: UNetHybrid, data: Photographs, size: int) -> tuple[Tensor, int]:
    """Return the loss at the centres of the cells, most of all of those that are missing."""
    side, count = (64, size // 4) if data.rng.random() < BIG else (32, size)
    pictures, seen = data.batch(side, count)
    weight = points(1 - 0.98 * seen)
    return _trunk_loss(model, (pictures, seen), centres(pictures), points(pictures), weight), count


def fine_loss(model: UNetHybrid, data: Photographs, size: int) -> tuple[Tensor, int]:
    """Return the loss between the centres: of means over cells as observed, or over finer ones."""
    pictures = data.wholes(size)
    scale = int(data.rng.choice([2, 2, 4]))
    coarse = F.avg_pool2d(pictures, scale)
    if data.rng.random() < 0.5:
        target, cell, places = pictures, 1 / scale, centres(pictures)[0]
    else:
        target, cell = F.avg_pool2d(pictures, scale, 1), 1.0
        line = -1 + (2.0 * torch.arange(target.shape[-1], device=target.device) + scale) / 64
        places = torch.cartesian_prod(line, line)
    pick = torch.from_numpy(data.rng.choice(len(places), 1024, replace=False)).to(places.device)
    at, truth = places[pick].expand(size, -1, -1), points(target)[:, pick]
    seen = data.masks(coarse.shape[-1], size)
    weight = torch.ones_like(truth[..., :1])
    return _trunk_loss(model, (coarse, seen), at, truth, weight, cell), size


def _trunk_loss(
    model: UNetHybrid,
    given: tuple[Tensor, Tensor],
    at: Tensor,
    truth: Tensor,
    weight: Tensor,
    cell: float = 1.0,
) -> Tensor:
    """Return the logarithm of each picture's error, and the likelihood of its size."""
    with torch.autocast(at.device.type, torch.bfloat16):
        encoded = model.interpolator.encode(*given)
        mean, size = model.interpolator(encoded, at, at.new_full((len(at),), cell))
    left, size = (mean - truth) / encoded.std, size / encoded.std
    error = (left.square().mean(-1, keepdim=True) * weight).sum((1, 2)) / weight.sum((1, 2))
    surprise = (left.detach() / size).square().clamp_max(400) / 2 + size.log()
    likelihood = (surprise * weight).sum() / weight.sum() / truth.shape[-1]
    return torch.log(error + LOSS_FLOOR).mean() + likelihood


def flow_loss(model: UNetHybrid, data: Photographs, size: int) -> tuple[Tensor, int]:
    """Return the error of the denoiser's correction and the likelihood of the mean's error."""
    side, count = (64, size // 4) if data.rng.random() < BIG else (32, size)
    pictures, seen = data.batch(side, count)
    kind = pictures.device.type
    with torch.no_grad(), torch.autocast(kind, torch.bfloat16):
        encoded = model.interpolator.encode(pictures, seen)
    mean, scale = model.interpolator(encoded, centres(pictures), pictures.new_ones(count))
    condition = Condition(mean.detach(), scale.detach(), encoded)
    missing, truth = points(1 - seen), points(pictures)
    surprise = ((truth - mean) / scale).square().clamp_max(400) / 2 + scale.log()
    likelihood = (surprise * (missing + 0.02)).sum() / missing.sum() / truth.shape[-1]
    steps = torch.arange(count, device=pictures.device)
    u = (steps + float(data.rng.random())) / count * 0.998 + 0.001
    t = SHIFT * u / (1 + (SHIFT - 1) * u)
    time_of = t[:, None, None]
    state = time_of * truth + (1 - time_of) * torch.randn_like(truth)
    query = Query(centres(pictures), Observation(truth[:, :1, :2], truth[:, :1]))
    with torch.autocast(kind, torch.bfloat16):
        found = model(state, t, query, condition)
    signal, noise = (time_of * condition.size).square(), (1 - time_of).square()
    unit = condition.size * (noise / (signal + noise)).sqrt()
    error = ((found - truth) / unit).square().clamp_max(25)
    return (error * missing).sum() / missing.sum() / truth.shape[-1] + likelihood, count


class Run:
    """Weights, their average, and optimisers, which go on where they were stopped."""

    def __init__(
        self, folder: Path, stage: str, lr: float, matrix_lr: float, device: str = "cpu"
    ) -> None:
        self.folder, self.stage = folder, stage
        self.model = UNetHybrid(**SETTINGS).to(device, memory_format=torch.channels_last)
        part = self.model.interpolator if stage == "trunk" else self.model.denoiser
        self.model.requires_grad_(False)
        size = nn.ModuleList(
            [self.model.interpolator.size_hidden, self.model.interpolator.size_head]
        )
        for trained in (part, size):
            trained.requires_grad_(True)
        matrices = [w for name, w in part.named_parameters() if _is_inner(name, w)]
        known = {id(weight) for weight in matrices}
        both = dict.fromkeys([*part.parameters(), *size.parameters()])
        rest = [weight for weight in both if id(weight) not in known]
        self.trained = matrices + rest
        self.optimisers = [
            torch.optim.Muon(matrices, matrix_lr, weight_decay=0.01, adjust_lr_fn="original"),
            torch.optim.AdamW(rest, lr, betas=(0.9, 0.98), weight_decay=0),
        ]
        self.average = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.images = self.step = 0
        self.seconds = 0.0
        if (state := folder / f"{stage}.pt").exists():
            self._load(torch.load(state, device, weights_only=True))
        elif (trunk := folder / "trunk.pt").exists():
            self.average = torch.load(trunk, device, weights_only=True)["average"]
            self.model.load_state_dict(self.average)

    def start_from(self, path: Path) -> None:
        """Begin with the weights of a checkpoint."""
        flow, _ = load_checkpoint(path)
        self.model.load_state_dict(flow.backbone.state_dict())
        self.average = {k: v.clone() for k, v in self.model.state_dict().items()}

    def advance(self, loss: Tensor, images: int, factor: float) -> None:
        """Take one step."""
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.trained, 5.0)
        if not torch.isfinite(norm):
            return
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group.setdefault("full_lr", group["lr"]) * factor
            optimiser.step()
        self.step, self.images = self.step + 1, self.images + images
        keep = min(0.999, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            live = list(self.model.state_dict().values())
            torch._foreach_lerp_(list(self.average.values()), live, 1 - keep)

    def save(self) -> None:
        """Write all that a later start needs."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "counts": (self.images, self.step, self.seconds),
        }
        unfinished = self.folder / f"{self.stage}.tmp"
        torch.save(state, unfinished)
        os.replace(unfinished, self.folder / f"{self.stage}.pt")

    def _load(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.images, self.step, self.seconds = state["counts"]


def _is_inner(name: str, weight: Tensor) -> bool:
    """Say whether a weight is a matrix between features, which Muon takes."""
    inside = "trunk" in name or "net" in name
    return weight.ndim == 2 and inside and "stem" not in name and "modulation" not in name


@torch.no_grad()
def score(model: UNetHybrid, average: dict[str, Tensor], folder: Path) -> dict[str, float]:
    """Return the mean PSNR of 500 images at three densities, with averaged weights."""
    device = next(iter(average.values())).device
    looked_at = UNetHybrid(**SETTINGS).to(device, memory_format=torch.channels_last)
    looked_at.load_state_dict(average)
    known = open_dataset(folder / "cifar10_lossless", limit=500).values
    pictures = _normalised(list(known)).to(device)
    found = {}
    for density in (0.05, 0.2, 0.5):
        seen = torch.zeros(len(pictures), 1024)
        for item in range(len(pictures)):
            seen[item, observed_indices(1024, density, 0, "validation", item)] = 1
        seen = seen.view(-1, 1, 32, 32).to(device)
        encoded = looked_at.interpolator.encode(pictures, seen)
        ones = pictures.new_ones(len(pictures))
        mean, _ = looked_at.interpolator(encoded, centres(pictures), ones)
        guess = mean.transpose(1, 2).reshape(pictures.shape).clamp(-1, 1)
        error = ((torch.where(seen > 0, pictures, guess) - pictures) / 2).square()
        psnr = -10 * torch.log10(error.mean((1, 2, 3)))
        found[f"psnr_{density:g}"] = round(float(psnr.mean()), 3)
    return found


def train(options: argparse.Namespace, data: Photographs, device: str = "cpu") -> None:
    """Train a stage until its minutes are spent, of one thread or, on a GPU, of the clock.

    Args:
        options: Those of the command.
        data: Where batches come from, on the device.
        device: Where the network lies.
    """
    run = Run(options.run, options.stage, options.lr, options.matrix_lr, device)
    if options.start and not run.step:
        run.start_from(options.start)
    if device != "cpu":
        for net in (run.model.interpolator.trunk, run.model.denoiser.net):
            net.compile(dynamic=False)
    data.rng = np.random.default_rng([options.seed, run.images])
    torch.manual_seed(options.seed * 1_000_003 + run.images)
    clock = time.process_time if device == "cpu" else time.monotonic
    budget, spent, mark, noted = 60 * options.until, run.seconds, clock(), run.seconds
    loss_of = {"trunk": mean_loss, "flow": flow_loss}[options.stage]
    average_loss = 0.0
    while run.seconds < budget:
        left = 1 - run.seconds / budget
        factor = min(1, run.step / 200 + 0.01, left / options.decay if options.decay else 1)
        fine = options.stage == "trunk" and data.rng.random() < FINE
        loss, images = (fine_loss if fine else loss_of)(run.model, data, options.batch)
        run.advance(loss, images, factor)
        average_loss += 0.02 * (float(loss.detach()) - average_loss)
        run.seconds = spent + clock() - mark
        if run.seconds - noted > 60 or run.seconds >= budget:
            noted = run.seconds
            line = {"stage": options.stage, "minutes": round(run.seconds / 60, 2)}
            line |= {"images": run.images, "steps": run.step, "loss": round(average_loss, 4)}
            if options.stage == "trunk":
                line |= score(run.model, run.average, options.data)
            with (options.run / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
            run.save()


def bundle(folder: Path, path: Path, start: Path | None) -> None:
    """Write the averaged weights of both stages with their curve, after that of the start."""
    stage = "flow" if (folder / "flow.pt").exists() else "trunk"
    state = torch.load(folder / f"{stage}.pt", "cpu", weights_only=True)
    curve = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    last = {line["stage"]: line for line in curve}
    stages = [_stage(line) for line in last.values()]
    before = read_spec(start).card if start else {}
    card = {
        "training": [*before.get("training", []), *stages],
        "curve": [*before.get("curve", []), *curve],
    }
    spec = ModelSpec(
        "unet", SETTINGS, "data", SHIFT, Normalizer.unit_range(3), (32, 32), card=card
    )
    save_checkpoint(path, spec, state["average"], torch.bfloat16)


def _stage(line: dict) -> dict:
    """Return the last line of a stage as model cards describe training."""
    trunk = line["stage"] == "trunk"
    settings = {
        "flow": {"mean_fraction": float(trunk)},
        "data": {"scales": [1, 2, 4] if trunk else [1]},
        "optimizer": {"lr": "0.006 (Muon) and 0.0006 (AdamW)"},
    }
    return {
        "data": ["cifar10", "tiny_imagenet"],
        "settings": settings,
        "steps": line["steps"],
        "images": line["images"],
        "seconds": round(60 * line["minutes"]),
    }


def make_parser() -> argparse.ArgumentParser:
    """Return the options of a training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--stage", choices=["trunk", "flow"], default="trunk")
    parser.add_argument("--start", type=Path, help="a checkpoint whose weights come first")
    parser.add_argument("--until", type=float, default=60, help="minutes of one thread in all")
    parser.add_argument("--decay", type=float, default=0.3, help="share of them that cools down")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--matrix-lr", type=float, default=6e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bundle", type=Path)
    return parser


def main() -> None:
    """Read the options and run."""
    options = make_parser().parse_args()
    if options.bundle:
        return bundle(options.run, options.bundle, options.start)
    torch.set_num_threads(1)
    options.run.mkdir(parents=True, exist_ok=True)
    return train(options, Photographs(options.data))


if __name__ == "__main__":
    main()
