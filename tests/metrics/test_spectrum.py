"""Spectra: energy is conserved, and a grid is found by the strength it has."""

import math

import numpy as np
import pytest
import torch

from sparsefield.metrics.spectrum import lattice_energy, power_spectrum, radial_spectrum

LATTICE = 32


def noise(count, n, channels=2, size=0.1):
    generator = torch.Generator().manual_seed(0)
    return size * torch.randn(count, n, n, channels, generator=generator, dtype=torch.float64)


def wave(n, frequency, axis=0):
    """Return a wave of amplitude 1 along an axis, shape (n, n, 1), at cell centres' numbers."""
    along = torch.cos(2 * math.pi * frequency * torch.arange(n, dtype=torch.float64) / n)
    return (along[:, None] if axis == 0 else along[None]).expand(n, n)[..., None]


def artefact(images):
    found, expected = lattice_energy(power_spectrum(images), LATTICE).mean(0)
    return float(found / expected)


def test_power_sums_up_to_the_variance():
    power = power_spectrum(noise(50, 24))
    assert power.shape == (50, 24, 24)
    assert float(power.sum((1, 2)).mean()) == pytest.approx(0.01, rel=0.03)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_wave_has_its_energy_at_its_frequency_whatever_the_level(axis):
    (energy,) = radial_spectrum(power_spectrum(7 + 0.3 * wave(30, 9, axis)[None]))
    assert energy.shape == (15,)
    assert int(energy.argmax()) == 9 - 1
    assert float(energy[7:10].sum() / energy.sum()) > 0.999
    assert float(energy.sum()) == pytest.approx(0.3**2 / 2, rel=0.01)


def test_an_item_s_spectrum_does_not_depend_on_the_others():
    images = noise(3, 20)
    together = radial_spectrum(power_spectrum(images))
    alone = radial_spectrum(power_spectrum(images[1:2]))
    torch.testing.assert_close(together[1:2], alone)


@pytest.mark.parametrize("n", [64, 96, 128])
def test_white_noise_has_no_grid(n):
    assert artefact(noise(60, n)) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("n", [64, 96])
def test_natural_spectra_have_no_grid(n):
    """Noise whose power falls as f^-3, cut out of a larger field so that borders do not match."""
    spectrum = torch.fft.fft2(noise(60, 2 * n, 1).squeeze(-1))
    along = torch.fft.fftfreq(2 * n, 1 / (2 * n), dtype=torch.float64)
    radius = torch.hypot(along[:, None], along).clamp_min(1)
    fields = torch.fft.ifft2(spectrum * radius**-1.5).real[:, :n, :n, None]
    assert 0.5 < artefact(fields) < 1.3


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("amplitude", [0.01, 0.05])
@pytest.mark.parametrize(("n", "gain"), [(64, 4 / 27), (96, 1 / 36)])
def test_a_grid_is_found_by_its_strength(n, gain, amplitude, axis):
    """A wave of amplitude a on noise of variance v adds `gain a^2 n^2 / v` to the score.

    It has a^2 / 9 at two of 8 frequencies; 4 a^2 / 9 at one of 3 where it is the highest.
    """
    images = noise(60, n) + amplitude * wave(n, LATTICE, axis)
    expected = 1 + gain * amplitude**2 * n**2 / 0.1**2
    assert artefact(images) == pytest.approx(expected, rel=0.2)


def test_a_pattern_in_every_coarse_cell_is_a_grid_and_one_beside_it_is_not():
    images = noise(20, 96)
    comb = images.clone()
    comb[:, 1::3, 1::3] += 0.1  # as where coarse values are put in at shared centres
    assert artefact(comb) > 3
    assert artefact(images + 0.1 * wave(96, 20)) == pytest.approx(artefact(images), rel=0.01)


def test_harmonics_count():
    images = noise(20, 128) + 0.05 * wave(128, 2 * LATTICE)
    assert artefact(images) > 3


def test_numpy_agrees_on_one_frequency():
    images = noise(1, 16, 1)
    values = images[0, ..., 0].numpy()
    hann = np.hanning(17)[:16]
    window = np.outer(hann, hann)
    row, column = np.meshgrid(np.arange(16), np.arange(16), indexing="ij")
    phase = np.exp(-2j * np.pi * (3 * row + 5 * column) / 16)
    total = (window * (values - values.mean()) * phase).sum()
    expected = abs(total) ** 2 / (256 * (window**2).sum())
    assert float(power_spectrum(images)[0, 3, 5]) == pytest.approx(expected)
