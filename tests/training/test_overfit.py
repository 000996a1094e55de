"""The small presets learn one photograph by heart, noise path included."""

import numpy as np
import pytest
import torch
from skimage.data import coffee

from sparsefield.data.dataset import open_dataset
from sparsefield.data.masks import observed_indices
from sparsefield.data.observation import Observation
from sparsefield.inference.model import load
from sparsefield.models import MODELS
from sparsefield.samplers import Heun
from sparsefield.training.config import load_config
from sparsefield.training.loop import train
from sparsefield.training.run import Run

CORNER = (32, 224)


def photograph(size):
    """Return a crop of a coffee cup (size, size, 3), each cell the mean of 2 x 2 pixels."""
    rows, columns = (slice(start, start + 2 * size) for start in CORNER)
    cells = coffee()[rows, columns].reshape(size, 2, size, 2, 3).mean(axis=(1, 3))
    return cells.astype(np.uint8)


# Side of the image, steps and learning rate that a model needs for 35 dB; others get OTHERS.
BUDGETS = {
    "v1": (16, 300, 2e-3),
    "v2": (16, 300, 2e-3),
    "transformer": (16, 500, 2e-3),
    "hybrid": (16, 900, 2e-3),
    "local": (16, 600, 1e-3),
    "perceiver_io": (16, 1200, 1e-3),
}
OTHERS = (16, 1200, 1e-3)
SPARSE = [name for name, kind in MODELS.items() if not kind.claims.autoencoder]


def cases():
    """Yield every sparse model with its budget, and larger images for two of them."""
    yield from ((name, *BUDGETS.get(name, OTHERS)) for name in SPARSE)
    yield from ((name, 32, 600, 2e-3) for name in ("v1", "v2"))


def overfit(preset, size, steps, rate, folder, more=()):
    """Train on copies of one image for one epoch, with further settings."""
    batch_size = 8
    copies = np.repeat(photograph(size)[None], steps * batch_size + 1, axis=0)
    np.save(folder / "copies.npy", copies)
    overrides = [
        f"data.paths={folder / 'copies.npy'}",
        f"data.size=[{size}, {size}]",
        "data.validation=1",
        "data.flip=false",
        "flow.mean_fraction=0.1",
        f"optimizer.lr={rate}",
        "optimizer.warmup=20",
        f"batch_size={batch_size}",
        "epochs=1",
        "device=cpu",
        *more,
    ]
    train(load_config(preset, overrides), Run(folder / "run"))
    return load(folder / "run" / "latest.safetensors"), open_dataset(folder / "copies.npy")


def sampled_psnr(model, copies, size):
    """Return the PSNR of two samples given 20 % of the pixels."""
    truth = copies.batch([0])[0]
    seen = observed_indices(size * size, 0.2, 0, "test", 0)
    obs = Observation(copies.coords[seen], truth[seen])
    field = model.condition(obs).sample(None, 2, sampler=Heun(10))
    return -10 * torch.log10((field.samples - truth).square().mean(dim=(1, 2)))


@pytest.fixture
def _one_thread():
    """Two threads wait for each other at every step of a network as small as this."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_one_thread")
def test_a_small_image_is_learnt_in_seconds(tmp_path):
    """Samples come near it only if the network hears the noise: without, they have 16 dB."""
    narrow = ("model.width=48", "model.layers=2", "model.heads=4")
    quick = ("optimizer.ema=0.95", "optimizer.warmup=5", "precision=float32")
    model, copies = overfit("transformer-small", 6, 400, 5e-3, tmp_path, (*narrow, *quick))
    psnr = sampled_psnr(model, copies, 6)
    assert psnr.min() >= 24, f"psnr of the samples: {psnr.tolist()} dB"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "size", "steps", "rate"), list(cases()))
def test_one_image_is_learnt_to_35_decibels_through_the_heun_sampler(
    name, size, steps, rate, tmp_path
):
    psnr = sampled_psnr(*overfit(f"{name}-small", size, steps, rate, tmp_path), size)
    assert psnr.min() >= 35, f"psnr of the samples: {psnr.tolist()} dB"
