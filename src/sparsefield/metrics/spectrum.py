"""How a field's energy is spread over frequencies, and whether a grid shows through.

Frequencies are in cycles per image. Images are square, shape (B, n, n, C).
"""

import torch
from torch import Tensor

# Distances, in cycles per image, at which the surroundings of a frequency are taken: the window
# spreads a pure wave over one cycle to either side.
BESIDE = (2, 3, 4)


def power_spectrum(images: Tensor) -> Tensor:
    """Return the power at every frequency, averaged over channels.

    `P(f) = |sum_x w(x) (u(x) - mean u) exp(-2 pi i f x / n)|^2 / (n^2 sum_x w(x)^2)` with a Hann
    window `w`, without which the jump from one border to the opposite one would hide all that is
    fine. Over all frequencies it sums up to the variance, exactly so in expectation for white
    noise; a wave of amplitude `a` has `a^2 / 9` at either of its two frequencies.

    Reference: Harris, On the use of windows for harmonic analysis with the discrete Fourier
    transform (1978).

    Args:
        images: Values, shape (B, n, n, C).

    Returns:
        Power, float64, shape (B, n, n), frequencies ordered as `torch.fft.fftfreq` does.
    """
    values = images.double().movedim(-1, 1)
    hann = torch.hann_window(values.shape[-1], dtype=torch.float64)
    window = hann[:, None] * hann
    centred = values - values.mean(dim=(-2, -1), keepdim=True)
    power = torch.fft.fft2(window * centred).abs().square()
    return power.mean(dim=1) / (window.numel() * window.square().sum())


def radial_spectrum(power: Tensor) -> Tensor:
    """Return the energy in rings of frequencies.

    `E(k) = sum of P(f) over k - 1/2 <= |f| < k + 1/2`, for k from 1 to n/2; the corners beyond the
    highest frequency along an axis are left out.

    Args:
        power: What `power_spectrum` returned, shape (B, n, n).

    Returns:
        Energy per ring, shape (B, n // 2).
    """
    n = power.shape[-1]
    along = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    ring = (torch.hypot(along[:, None], along) + 0.5).long().flatten()
    energy = power.new_zeros(len(power), n).index_add(1, ring, power.flatten(1))
    return energy[:, 1 : n // 2 + 1]


def lattice_energy(power: Tensor, lattice: int) -> Tensor:
    """Return the energy at the frequencies of a coarser grid, and what is expected there.

    Whatever repeats from cell to cell of a grid of `m` cells per axis has its energy at the
    frequencies `(m i, m j)`, other than 0: the grid's own and its harmonics, up to the highest
    that n cells show. What is expected there is the mean of the frequencies 2, 3 and 4 cycles
    beside, along the axes on which the frequency is not 0: a field without artefacts is as likely
    to have energy at a multiple of `m` as near it. The ratio of the two, each averaged over
    fields, is the artefact score: about 1 without artefacts.

    Args:
        power: What `power_spectrum` returned, shape (B, n, n).
        lattice: Cells of the coarser grid per axis, `m`, a proper divisor of n of at least 8.

    Returns:
        Energy at those frequencies, and energy expected there, shape (B, 2).
    """
    n = power.shape[-1]
    harmonics = range(0, n, lattice)
    found, expected = [], []
    for i, j in ((i, j) for i in harmonics for j in harmonics if i or j):
        shifts = [sign * distance for distance in BESIDE for sign in (-1, 1)]
        beside = [((i + d) % n, j) for d in shifts if i] + [(i, (j + d) % n) for d in shifts if j]
        rows, columns = zip(*beside, strict=True)
        found.append(power[:, i, j])
        expected.append(power[:, list(rows), list(columns)].mean(dim=1))
    return torch.stack([torch.stack(part).sum(dim=0) for part in (found, expected)], dim=1)
