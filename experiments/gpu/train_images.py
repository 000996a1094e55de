"""Train the image model on a GPU, pictures and masks in its memory.

    python experiments/gpu/train_images.py RUN --data FOLDER --until 7 --decay 0.5

takes the options of `experiments/train_images.py`, which also bundles the result; minutes are
by the clock. Needs PYTHONPATH=src.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

import train_images as images

from sparsefield.data.damage import draw_damage

MASKS = {32: 240_000, 64: 60_000, 16: 30_000}
JOBS = 15
RATIOS = 4  # of enlargement in a batch


class Resident(images.Photographs):
    """The same pictures and masks in the same shares, made where they lie.

    Args:
        folder: Folder of the data sets.
        seed: Source of randomness.
        device: Where everything lies.
        masks: Masks that are drawn beforehand, by the side of the picture.
    """

    def __init__(self, folder: Path, seed: int, device: str, masks: dict[int, int]) -> None:
        super().__init__(folder)
        self.small, self.large = (_on(device, x) for x in (self.small, self.large))
        self.known = {side: _draw(side, n, seed).to(device) for side, n in masks.items()}

    def batch(self, side: int, count: int) -> tuple[Tensor, Tensor]:
        """Return pictures (B, 3, H, W) in [-1, 1] and which pixels are seen (B, 1, H, W)."""
        shares = (0.48, 0.27, 0.1, 0.15) if side == 32 else (0, 0, 0.5, 0.5)
        small, halved, enlarged, part = self.rng.multinomial(count, shares)
        halves = F.avg_pool2d(self._parts(64, halved), 2) if halved else self._parts(32, 0)
        kinds = [self._some(self.small, small)] if small else []
        kinds += [halves, *(self._enlarged(side, n) for n in _split(enlarged))]
        pictures = self._turned(
            torch.cat([k for k in [*kinds, self._parts(side, part)] if len(k)])
        )
        if self.rng.random() < images.GREY:
            pictures = pictures.mean(1, keepdim=True).expand(-1, 3, -1, -1).contiguous()
        return pictures / 127.5 - 1, self.masks(side, count)

    def wholes(self, count: int) -> Tensor:
        """Return pictures (B, 3, 64, 64) in [-1, 1]."""
        return self._turned(self._parts(64, count)) / 127.5 - 1

    def masks(self, side: int, count: int) -> Tensor:
        """Return which pixels of some pictures are seen (B, 1, H, W)."""
        known = self.known[side]
        index = torch.randint(len(known), (count,), device=known.device)
        return self._turned(known[index][:, None].float())

    def _some(self, pictures: Tensor, count: int) -> Tensor:
        index = torch.randint(len(pictures), (count,), device=pictures.device)
        return pictures[index].float()

    def _parts(self, side: int, count: int) -> Tensor:
        """Return squares (B, 3, side, side) of large pictures."""
        where = {"device": self.large.device}
        index = torch.randint(len(self.large), (count, 1, 1), **where)
        corner = torch.randint(0, 65 - side, (2, count, 1, 1), **where)
        line = torch.arange(side, **where)
        rows, columns = corner[0] + line[:, None], corner[1] + line
        return self.large.movedim(1, -1)[index, rows, columns].movedim(-1, 1).float()

    def _enlarged(self, side: int, count: int) -> Tensor:
        small = int(np.ceil(side / self.rng.uniform(1, 2.5)))
        part = self._parts(small, count)
        large = F.interpolate(part, (side, side), mode="bicubic", antialias=True)
        return large.round().clamp(0, 255)

    def _turned(self, x: Tensor) -> Tensor:
        """Return each of (B, C, S, S) in one of eight orientations."""
        turn = torch.randint(8, (len(x), 1, 1, 1), device=x.device)
        x = torch.where(turn & 1 > 0, x.flip(2), x)
        x = torch.where(turn & 2 > 0, x.flip(3), x)
        return torch.where(turn & 4 > 0, x.transpose(2, 3), x)


def _split(count: int) -> list[int]:
    return [len(part) for part in np.array_split(np.arange(count), RATIOS) if len(part)]


def _on(device: str, pictures: np.ndarray) -> Tensor:
    """Return pictures (N, H, W, 3) as (N, 3, H, W)."""
    return torch.from_numpy(pictures).movedim(-1, 1).contiguous().to(device)


def _draw(side: int, count: int, seed: int) -> Tensor:
    """Return masks (N, side, side)."""
    each = -(-count // JOBS)
    with ProcessPoolExecutor(JOBS) as pool:
        parts = pool.map(
            _draw_some, [side] * JOBS, [each] * JOBS, [[seed, i] for i in range(JOBS)]
        )
        return torch.from_numpy(np.concatenate(list(parts)))


def _draw_some(side: int, count: int, seed: list[int]) -> np.ndarray:
    rng = np.random.default_rng([*seed, side])
    return np.stack([draw_damage(rng, (side, side)) for _ in range(count)])


def main() -> None:
    """Read the options and train."""
    parser = images.make_parser()
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    options.run.mkdir(parents=True, exist_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    masks = MASKS if options.device != "cpu" else {side: 300 for side in MASKS}
    data = Resident(options.data, options.seed, options.device, masks)
    print(f"{len(data.small)} small and {len(data.large)} large pictures", flush=True)
    images.train(options, data, options.device)


if __name__ == "__main__":
    main()
