"""Score an image model beside baselines at many densities and for many kinds of damage.

    python experiments/images.py --model photographs --data FOLDER --json results/images.json \
        --page docs/results/images.md --pictures docs/results/images/damage

FOLDER holds `cifar10_lossless` and `tiny_imagenet`. Every score is kept as soon as it is known: a
run that was stopped goes on. Kinds of damage fall on photographs of scikit-image at their native
size, the same for every method: PSNR on the missing pixels, SSIM of the whole, seconds.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from sparsefield.core.files import write_text
from sparsefield.data.damage import boxes, rows
from sparsefield.data.dataset import FieldDataset, open_dataset
from sparsefield.data.formats.images import decode_image
from sparsefield.data.grids import cell_centres
from sparsefield.data.observation import Observation
from sparsefield.data.query import Grid
from sparsefield.evaluation.methods import evaluate_baselines, evaluate_mean
from sparsefield.evaluation.serialise import tidy
from sparsefield.evaluation.task import Protocol
from sparsefield.inference.model import Model, load
from sparsefield.metrics.error import ssim
from sparsefield.metrics.statistics import estimate

DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.6)
SETS = {"cifar10_lossless": None, "tiny_imagenet": (32, 32)}
BASELINES = ("nearest", "linear", "cubic", "tps", "kriging", "biharmonic")
PHOTOGRAPHS = (
    "astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "camera.png"
)  # fmt: skip
SHOWN = (
    ("astronaut.png", "discs of 40 pixels"),
    ("astronaut.png", "text"),
    ("chelsea.png", "random 80 % missing"),
)
SCORES = ("psnr", "psnr_missing", "ssim")


def random_pixels(density: float) -> Callable[..., np.ndarray]:
    """Return a damage that leaves pixels at random."""
    return lambda rng, shape: rng.random(shape) < density


def discs(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Lose ten discs of 40 pixels across."""
    seen = np.ones(shape, bool)
    y, x = np.ogrid[: shape[0], : shape[1]]
    for _ in range(10):
        top, left = rng.uniform(20, shape[0] - 20), rng.uniform(20, shape[1] - 20)
        seen &= (y - top) ** 2 + (x - left) ** 2 > 20**2
    return seen


def _drawn(shape: tuple[int, int], draw: Callable[[ImageDraw.ImageDraw], None]) -> np.ndarray:
    picture = Image.new("L", shape[::-1], 255)
    draw(ImageDraw.Draw(picture))
    return np.asarray(picture) > 127


def scratches(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Lose twenty scratches of three pixels in width."""

    def draw(pen: ImageDraw.ImageDraw) -> None:
        for _ in range(20):
            ends = rng.uniform(0, 1, (2, 2)) * (shape[1], shape[0])
            pen.line([tuple(map(float, end)) for end in ends], fill=0, width=3)

    return _drawn(shape, draw)


def text(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Lose what lies under lines of text of 24 pixels."""

    def draw(pen: ImageDraw.ImageDraw) -> None:
        for top in range(10, shape[0], 56):
            words = " ".join("".join(rng.choice(list("abcdefgnopstu"), 6)) for _ in range(12))
            pen.text((4, top), words, fill=0, font=ImageFont.load_default(24))

    return _drawn(shape, draw)


DAMAGE: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "random 50 % missing": random_pixels(0.5),
    "random 80 % missing": random_pixels(0.2),
    "random 95 % missing": random_pixels(0.05),
    "scratches": scratches,
    "text": text,
    "rows or columns": rows,
    "boxes": boxes,
    "discs of 40 pixels": discs,
}


def by_model(model: Model) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return what fills an image (H, W, 3) of which some pixels are seen (H, W)."""

    def fill(image: np.ndarray, seen: np.ndarray) -> np.ndarray:
        coords = cell_centres(seen.shape).view(*seen.shape, 2)[torch.from_numpy(seen)]
        obs = Observation(coords, image[seen], grid=seen.shape)
        mean = model.condition(obs).mean(Grid(*seen.shape)).mean
        return mean.view(image.shape).numpy()

    return fill


def by_biharmonic(image: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Solve the biharmonic equation in the holes."""
    from skimage.restoration import inpaint_biharmonic

    filled = inpaint_biharmonic(np.where(seen[..., None], image, 0), ~seen, channel_axis=-1)
    return np.clip(filled, 0, 1)


def by_opencv(how: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return one of OpenCV's inpainters, with its usual radius of 3 pixels."""

    def fill(image: np.ndarray, seen: np.ndarray) -> np.ndarray:
        import cv2

        flag = {"Telea": cv2.INPAINT_TELEA, "Navier-Stokes": cv2.INPAINT_NS}[how]
        whole = np.rint(255 * np.where(seen[..., None], image, 0)).astype(np.uint8)
        return cv2.inpaint(whole, (~seen).astype(np.uint8), 3, flag) / 255

    return fill


def score_fill(image: np.ndarray, seen: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Return PSNR on the missing pixels and SSIM of the whole."""
    found = np.where(seen[..., None], image, found)
    error = np.square(found - image)[~seen].mean()
    pair = (torch.from_numpy(x[None].astype(np.float64)) for x in (found, image))
    return {"psnr": float(-10 * np.log10(error)), "ssim": float(ssim(*pair)[0])}


def _photograph(name: str) -> np.ndarray:
    """Return a photograph of scikit-image as bytes (H, W, 3)."""
    import skimage

    return decode_image(Path(skimage.__file__).parent / "data" / name, name)


class Results:
    """Scores by part, case and method, kept in a file as soon as they are known."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found = json.loads(path.read_text()) if path.exists() else {}

    def need(self, *keys: str, make: Callable[[], dict]) -> dict:
        """Return what was found before, or find it now."""
        place = self.found
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        if place.get(keys[-1]) is None:
            place[keys[-1]] = make()
            write_text(self.path, tidy(self.found) + "\n")
            print(*keys, place[keys[-1]].get("seconds", ""), flush=True)
        return place[keys[-1]]

    def forget(self, model: str) -> None:
        """Drop the scores of a model, and all of the cases that are shown as pictures."""
        for cases in self.found.get("damage", {}).values():
            for methods in cases.values():
                methods[model] = None
        for name, kind in SHOWN:
            shown = self.found.get("damage", {}).get(kind, {}).get(name, {})
            shown.update(dict.fromkeys(shown))
        for densities in self.found.get("densities", {}).values():
            for methods in densities.values():
                methods[model] = None


def score_densities(results: Results, model: Model, folder: Path, limit: int) -> None:
    """Score model and baselines on small images at all densities."""
    for name, size in SETS.items():
        fields = open_dataset(folder / name, "validation", limit, size=size)
        for density in DENSITIES:
            for method in (model.name, *BASELINES):
                results.need(
                    "densities", name, f"{density:g}", method,
                    make=lambda m=method, d=density, f=fields: _small(model, f, d, m),
                )  # fmt: skip


def _small(model: Model, fields: FieldDataset, density: float, method: str) -> dict:
    protocol, start = Protocol(density), time.perf_counter()
    if method == model.name:
        scores = evaluate_mean(model, fields, protocol).scores
    else:
        scores = evaluate_baselines(fields, protocol, [method], processes=1)[method].scores
    seconds = time.perf_counter() - start
    kept = {score: np.round(scores[score], 4).tolist() for score in SCORES}
    return {**kept, "seconds": round(seconds / len(fields), 5)}


def score_damage(results: Results, model: Model, pictures: Path | None) -> None:
    """Score model and inpainters on damaged photographs."""
    methods = {
        model.name: by_model(model),
        "biharmonic": by_biharmonic,
        "OpenCV Telea": by_opencv("Telea"),
        "OpenCV Navier-Stokes": by_opencv("Navier-Stokes"),
    }
    for number, name in enumerate(PHOTOGRAPHS):
        image = _photograph(name).astype(np.float64) / 255
        for kind, damage in DAMAGE.items():
            seen = damage(np.random.default_rng([number, len(kind)]), image.shape[:2])
            kept = {}
            for method, fill in methods.items():
                make = partial(_timed, fill, image, seen, kept, method)
                results.need("damage", kind, name, method, make=make)
            if pictures and (name, kind) in SHOWN and len(kept) == len(methods):
                save_strip(pictures / strip_name(name, kind), image, seen, kept)


def _timed(
    fill: Callable[[np.ndarray, np.ndarray], np.ndarray],
    image: np.ndarray,
    seen: np.ndarray,
    kept: dict[str, np.ndarray],
    method: str,
) -> dict[str, float]:
    """Fill an image, keep the result under the name of the method, and score it."""
    start = time.perf_counter()
    kept[method] = fill(image.astype(np.float32), seen)
    seconds = time.perf_counter() - start
    return score_fill(image, seen, kept[method]) | {"seconds": round(seconds, 2)}


def strip_name(photograph: str, kind: str) -> str:
    """Return the name of a picture."""
    return f"{Path(photograph).stem}-{kind.split(' %')[0]}.png".replace(" ", "-")


def save_strip(
    path: Path, image: np.ndarray, seen: np.ndarray, found: dict[str, np.ndarray]
) -> None:
    """Write what was seen, what the methods made of it, and the truth, side by side."""
    top, left = (max(0, (n - 256) // 2) for n in image.shape[:2])
    part = (slice(top, top + 256), slice(left, left + 256))
    panels = [np.where(seen[..., None], image, 0.5), *found.values(), image]
    panels = [np.where(seen[..., None], image, x) if n else x for n, x in enumerate(panels)]
    strip = np.concatenate([panel[part] for panel in panels], axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.rint(255 * np.clip(strip, 0, 1)).astype(np.uint8))
    picture.quantize(128).save(path, optimize=True)


def write_page(found: dict, model: str, page: Path) -> None:
    """Write the tables."""
    parts = [HEAD.format(model=model)]
    for name, cases in found.get("densities", {}).items():
        parts += [f"\n## {name}, 32 x 32\n", *_density_table(cases, model)]
    if "damage" in found:
        parts += ["\n## Photographs at native size\n", *_damage_table(found["damage"], model)]
        parts += [
            f"\n![{kind}: seen, {model}, biharmonic, OpenCV's two, truth]"
            f"(images/damage/{strip_name(name, kind)})"
            for name, kind in SHOWN
        ]
    write_text(page, "\n".join(parts) + "\n")


HEAD = """# Images

Made by `python experiments/images.py --model {model} --data FOLDER --limit 100
--json results/images.json --page docs/results/images.md`. Device: CPU, one thread, beside other
work. Masks are of seed 0. Intervals are 95 % bootstrap intervals over images, paired where two
methods are compared."""


def _density_table(cases: dict, model: str) -> list[str]:
    lines = [
        "PSNR in dB / SSIM of the whole image. The last column is the gain in PSNR over the best",
        "baseline.\n",
        f"| observed | {' | '.join(next(iter(cases.values())))} | gain |",
        "|---" * (len(next(iter(cases.values()))) + 2) + "|",
    ]
    for density, methods in cases.items():
        cells = [f"{np.mean(x['psnr']):.2f} / {np.mean(x['ssim']):.3f}" for x in methods.values()]
        others = {name: x for name, x in methods.items() if name != model}
        best = max(others, key=lambda name: np.mean(others[name]["psnr"]))
        gain = np.array(methods[model]["psnr"]) - np.array(others[best]["psnr"])
        lines.append(
            f"| {100 * float(density):g} % | {' | '.join(cells)} | {_signed(gain)} ({best}) |"
        )
    return lines


def _damage_table(kinds: dict, model: str) -> list[str]:
    methods = list(next(iter(next(iter(kinds.values())).values())))
    lines = [
        f"PSNR in dB on the missing pixels / SSIM of the whole / seconds, means of "
        f"{len(PHOTOGRAPHS)} photographs.\nThe last columns are the gains over the best other "
        "method.\n",
        f"| damage | {' | '.join(methods)} | gain, dB | gain, SSIM |",
        "|---" * (len(methods) + 3) + "|",
    ]
    for kind, photographs in kinds.items():
        table = {
            method: {
                score: np.array([row[method][score] for row in photographs.values()])
                for score in ("psnr", "ssim", "seconds")
            }
            for method in methods
        }
        cells = [
            f"{x['psnr'].mean():.2f} / {x['ssim'].mean():.3f} / {x['seconds'].mean():.1f}"
            for x in table.values()
        ]
        gains = []
        for score, digits in (("psnr", 2), ("ssim", 3)):
            best = max((table[name][score] for name in methods if name != model), key=np.mean)
            gains.append(_signed(table[model][score] - best, digits))
        lines.append(f"| {kind} | {' | '.join(cells)} | {' | '.join(gains)} |")
    return lines


def _signed(gain: np.ndarray, digits: int = 2) -> str:
    found = estimate(gain)
    return f"{found.value:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="photographs")
    parser.add_argument("--data", type=Path, help="without it, photographs alone")
    parser.add_argument("--limit", type=int, default=200, help="small images of each set")
    parser.add_argument("--json", type=Path, default=Path("results/images.json"))
    parser.add_argument("--again", action="store_true", help="score the model anew")
    parser.add_argument("--page", type=Path)
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    results, model = Results(options.json), load(options.model)
    if options.again:
        results.forget(model.name)
    score_damage(results, model, options.pictures)
    if options.data:
        score_densities(results, model, options.data, options.limit)
    if options.page:
        write_page(results.found, model.name, options.page)


if __name__ == "__main__":
    main()
