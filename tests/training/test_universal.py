"""Training of the universal interpolator."""

import math

import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.data.prior.items import Prior
from sparsefield.models.universal import UniversalInterpolator
from sparsefield.training import universal_batches
from sparsefield.training.universal import (
    UniversalConfig,
    UniversalState,
    losses,
    rate_factor,
    train_universal,
)
from sparsefield.training.universal_batches import UniversalBatches


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Make small batches, on one thread: gradients of looked-up biases add up in any order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(universal_batches, "SIZES", (8, 16))
    monkeypatch.setattr(universal_batches, "SHARES", (0.5, 0.5))
    yield
    torch.set_num_threads(threads)


def run(folder, steps, reports):
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    model = UniversalInterpolator(width=16, heads=2, encoder_layers=1, decoder_layers=1)
    config = UniversalConfig(steps=steps, window=3, repeats=2, warmup=2)
    batches = UniversalBatches(Prior(), 3, queries=8)
    return train_universal(config, batches, folder, model, lambda r, s: reports.append(r))


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path):
    whole = run(tmp_path / "a", 10, [])
    run(tmp_path / "b", 4, [])
    resumed = run(tmp_path / "b", 10, reports := [])
    assert resumed.step == 10
    assert [report.step for report in reports] == [6, 10]
    pairs = zip(whole._tensors().items(), resumed._tensors().values(), strict=True)
    assert all(torch.equal(x, y) for (_, x), y in pairs)


def test_batches_are_a_function_of_seed_and_step():
    first, second = (UniversalBatches(Prior(), 1, queries=8)[5] for _ in range(2))
    assert torch.equal(first.features.asked, second.features.asked)
    assert torch.equal(first.target, second.target)


def test_training_improves_the_score(tmp_path):
    state = run(tmp_path / "a", 60, [])
    held_out = [UniversalBatches(Prior(), 99, queries=32)[i] for i in range(6)]
    start = UniversalInterpolator()

    def total(model):
        with torch.no_grad():
            return sum(float(losses(model(b.features), b).total()) for b in held_out)

    assert total(state.average) < total(start)


def test_a_state_of_another_model_is_refused(tmp_path):
    run(tmp_path / "a", 2, [])
    other = UniversalState(UniversalInterpolator(width=24, heads=2), UniversalConfig())
    with pytest.raises(InputError, match="another model"):
        other.load(tmp_path / "a" / "state.safetensors")
    (tmp_path / "a" / "state.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match="damaged"):
        other.load(tmp_path / "a" / "state.safetensors")


def test_rates_warm_up_and_decay():
    config = UniversalConfig(steps=100, warmup=10, decay=20)
    assert rate_factor(config, 0) == pytest.approx(0.1)
    assert rate_factor(config, 50) == 1
    assert rate_factor(config, 90) == pytest.approx(0.5)
    assert math.isclose(rate_factor(UniversalConfig(steps=100), 99), 1)
