"""Ways in which parts of an image go missing: which pixels remain."""

from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Damage = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]

# Densities that `uniform` leaves: mostly about a fifth, else anything.
USUAL, DENSITIES = (0.12, 0.3), (0.01, 0.8)
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?"


def draw_damage(
    rng: np.random.Generator, shape: tuple[int, int], kinds: dict[str, float] | None = None
) -> np.ndarray:
    """Return which pixels (H, W) an image of random damage still has; at least three.

    Args:
        rng: Source of randomness.
        shape: Height and width.
        kinds: Relative frequency of each key of DAMAGES; `SHARES` by default.
    """
    shares = SHARES if kinds is None else kinds
    frequency = np.array(list(shares.values()), float)
    kind = list(shares)[rng.choice(len(shares), p=frequency / frequency.sum())]
    seen = DAMAGES[kind](rng, shape)
    if seen.all():
        seen = uniform(rng, shape)
    if seen.sum() < 3:
        seen.flat[rng.choice(seen.size, 3, replace=False)] = True
    return seen


def uniform(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Leave pixels chosen independently, of a random density."""
    low, high = USUAL if rng.random() < 0.65 else DENSITIES
    density = np.exp(rng.uniform(np.log(low), np.log(high)))
    return np.asarray(rng.random(shape, dtype=np.float32) < density)


def clustered(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Leave pixels of a density that varies over the image, from one side to all."""
    rows, columns = _axes(shape)
    wave = np.zeros(shape, np.float32)
    for _ in range(3):
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        frequency = rng.uniform(0.3, 2) * 2 * np.pi
        wave += np.sin(frequency * (np.cos(angle) * rows + np.sin(angle) * columns) + phase)
    chance = rng.uniform(0.05, 0.6) * np.exp(rng.uniform(0.5, 2) * wave - 1)
    return np.asarray(rng.random(shape, dtype=np.float32) < chance)


def discs(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Lose one to ten discs."""
    picture, pen = _canvas(shape)
    for _ in range(rng.integers(1, 11)):
        radius = min(shape) * np.exp(rng.uniform(np.log(0.02), np.log(0.3)))
        y, x = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=0)
    return _seen(picture)


def boxes(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Lose one to six boxes."""
    seen = np.ones(shape, bool)
    for _ in range(rng.integers(1, 7)):
        height, width = (max(1, int(n * np.exp(rng.uniform(-3.2, -0.7)))) for n in shape)
        y, x = (rng.integers(0, n) for n in shape)
        seen[y : y + height, x : x + width] = False
    return seen


def strokes(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Lose one to twelve scratches of a pixel or more in width."""
    picture, pen = _canvas(shape)
    for _ in range(rng.integers(1, 13)):
        corners = rng.integers(2, 5)
        path = np.stack([rng.uniform(0, shape[1], corners), rng.uniform(0, shape[0], corners)], 1)
        widest = max(2, min(shape) // 8)
        width = int(np.exp(rng.uniform(0, np.log(widest))))
        pen.line([(float(x), float(y)) for x, y in path], fill=0, width=width)
    return _seen(picture)


def text(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Lose what lies under one to four lines of text."""
    picture, pen = _canvas(shape)
    size = int(np.exp(rng.uniform(np.log(8), np.log(max(10, min(shape) / 2)))))
    for _ in range(rng.integers(1, 5)):
        words = "".join(rng.choice(list(LETTERS), rng.integers(2, 16)))
        at = (float(rng.uniform(-size, shape[1] * 0.7)), float(rng.uniform(-4, shape[0] - 4)))
        pen.text(at, words, fill=0, font=_font(size))
    return _seen(picture)


def rows(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Lose rows or columns, singly or in bands."""
    axis = int(rng.integers(2))
    lost = rng.random(shape[axis]) < np.exp(rng.uniform(np.log(0.03), np.log(0.7)))
    lost = np.repeat(lost, rng.integers(1, 4))[: shape[axis]]
    lost[rng.integers(shape[axis])] = True
    line = ~lost
    return np.broadcast_to(line[:, None] if axis == 0 else line, shape).copy()


def lattice(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Leave every second to fifth pixel along each axis."""
    step, (y, x) = int(rng.integers(2, 6)), rng.integers(0, 5, 2)
    seen = np.zeros(shape, bool)
    seen[y % step :: step, x % step :: step] = True
    return seen


def half_plane(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Lose all on one side of a line."""
    down, right = _axes(shape)
    angle = rng.uniform(0, 2 * np.pi)
    side = np.cos(angle) * (down - 0.5) + np.sin(angle) * (right - 0.5)
    return np.asarray(side < rng.uniform(-0.3, 0.5))


DAMAGES: dict[str, Damage] = {
    "uniform": uniform,
    "clustered": clustered,
    "discs": discs,
    "boxes": boxes,
    "strokes": strokes,
    "text": text,
    "rows": rows,
    "lattice": lattice,
    "half_plane": half_plane,
}

SHARES = {
    "uniform": 24.0,
    "clustered": 1.0,
    "discs": 1.5,
    "boxes": 1.0,
    "strokes": 1.5,
    "text": 1.5,
    "rows": 1.0,
    "lattice": 0.3,
    "half_plane": 0.3,
}


def _axes(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return positions in (0, 1) of rows (H, 1) and columns (1, W)."""
    down, right = ((np.arange(n, dtype=np.float32) + 0.5) / n for n in shape)
    return down[:, None], right[None]


def _canvas(shape: tuple[int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("L", (shape[1], shape[0]), 255)
    return picture, ImageDraw.Draw(picture)


def _seen(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture) > 127


@cache
def _font(size: int) -> "ImageFont.FreeTypeFont | ImageFont.ImageFont":
    return ImageFont.load_default(size)
