"""The state of a run: optimiser, average, and its copy on disk."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from sparsefield.core.errors import InputError
from sparsefield.training.config import OptimizerConfig, config_from_dict
from sparsefield.training.loop import learning_rate
from sparsefield.training.state import TrainState, fingerprint

KEYS = ("weight", "bias")


def make_state(width=3, freeze=(), **settings):
    flow = nn.Module()
    flow.backbone = nn.ModuleDict({"a": nn.Linear(width, 4), "b": nn.Linear(width, 2)})
    return TrainState(flow, OptimizerConfig(**settings), freeze)


def step(state, parts=("a",), rate=0.1):
    """One update by gradients that only some layers receive."""
    x = torch.ones(1, state.flow.backbone["a"].in_features)
    sum(state.flow.backbone[part](x).square().sum() for part in parts).backward()
    return state.update(rate)


def tensors(state):
    return {name: tensor.clone() for name, tensor in state.tensors().items()}


def test_average_follows_its_closed_form():
    state = make_state(ema=0.5)
    expected = state.flow.backbone["a"].weight.detach().clone()
    for n in range(1, 25):
        step(state)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * state.flow.backbone["a"].weight.detach()
        torch.testing.assert_close(state.average.backbone["a"].weight, expected)


def test_gradients_are_clipped_to_the_norm_and_reported_unclipped():
    state = make_state(clip=1e-3)
    applied = {}
    state.optimizers[0].register_step_pre_hook(
        lambda *args: applied.update(
            {n: w.grad.clone() for n, w in state.trained.items() if w.grad is not None}
        )
    )
    reported = step(state)
    norm = math.sqrt(sum(g.square().sum().item() for g in applied.values()))
    assert norm == pytest.approx(1e-3, rel=1e-3)
    assert reported > 1e-2


def test_only_matrices_decay():
    state = make_state(weight_decay=0.5)
    before = tensors(state)
    for weight in state.trained.values():
        weight.grad = torch.zeros_like(weight)
    state.update(0.1)
    layer = state.flow.backbone["a"]
    torch.testing.assert_close(layer.weight, before["weights.backbone.a.weight"] * 0.95)
    assert torch.equal(layer.bias, before["weights.backbone.a.bias"])


def test_frozen_weights_stay():
    state = make_state(freeze=("b",))
    before = tensors(state)
    step(state, parts=("a",))
    for key in KEYS:
        name = f"weights.backbone.b.{key}"
        assert torch.equal(tensors(state)[name], before[name])
        assert not torch.equal(
            tensors(state)[f"weights.backbone.a.{key}"], before[f"weights.backbone.a.{key}"]
        )


@pytest.mark.parametrize("steps", [0, 3])
def test_state_survives_the_disk_bit_for_bit_even_where_no_gradient_came(tmp_path, steps):
    state = make_state()
    for _ in range(steps):
        step(state, parts=("a",))
    state.best = 0.1 + 0.2
    state.save(tmp_path / "state")
    other = make_state()
    other.load(tmp_path / "state")
    assert (other.step, other.best) == (steps, state.best)
    for continued in (state, other):
        step(continued, parts=("a", "b"))
    saved, loaded = tensors(state), tensors(other)
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)


def test_state_of_another_model_is_refused(tmp_path):
    make_state(width=3).save(tmp_path / "state")
    with pytest.raises(InputError, match="belongs to another model; choose another --run") as e:
        make_state(width=5).load(tmp_path / "state")
    assert "\n" not in str(e.value)


def test_damaged_state_says_what_to_do(tmp_path):
    path = tmp_path / "state"
    make_state().save(path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="is damaged.*delete it to start again"):
        make_state().load(path)


@pytest.mark.parametrize("key", ["step", "best", "cpu_seconds", "origin", "losses", "environment"])
@pytest.mark.parametrize("text", ["", "x", "nan", "1" * 5000, "[]", "[" * 100_000, "-1e999"])
def test_damaged_numbers_of_a_state_say_what_to_do(tmp_path, key, text):
    path = tmp_path / "state"
    state = make_state()
    state.save(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, metadata | {key: text})
    try:
        make_state().load(path)
    except InputError as error:
        assert "is damaged" in str(error)
        assert "\n" not in str(error)
    else:
        assert key == "best", "which alone may be infinite"
        assert text in ("1" * 5000, "-1e999")


@pytest.mark.parametrize("rounds", [60, pytest.param(3000, marks=pytest.mark.slow)])
def test_a_damaged_state_never_changes_a_weight_half_way(tmp_path, rounds):
    path = tmp_path / "state"
    make_state().save(path)
    whole, rng = path.read_bytes(), np.random.default_rng(rounds)
    for _ in range(rounds):
        content = bytearray(whole)
        at = int(rng.integers(len(content) if rng.random() < 0.5 else 1500))
        content[at % len(content)] ^= 1 << int(rng.integers(8))
        path.write_bytes(content[: at or None] if rng.random() < 0.2 else content)
        state = make_state()
        before = tensors(state)
        try:
            state.load(path)
        except InputError as error:
            assert "\n" not in str(error)
            assert all(torch.equal(before[name], now) for name, now in tensors(state).items())


def test_a_gradient_that_is_not_finite_moves_nothing():
    state = make_state()
    before = tensors(state)
    for weight in state.trained.values():
        weight.grad = torch.full_like(weight, float("inf"))
    assert not math.isfinite(state.update(0.1))
    assert state.step == 0
    assert all(torch.equal(before[name], now) for name, now in tensors(state).items())


def test_fields_are_told_apart_by_values_types_and_shapes():
    a = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    others = [a.reshape(2, 4, 3), a.astype(np.float64), a + (a == 7), a[:, ::-1]]
    assert fingerprint([a]) == fingerprint([a.copy()])
    assert fingerprint([np.asfortranarray(a)]) == fingerprint([a])
    assert len({fingerprint([x]) for x in [a, *others]}) == 5
    assert fingerprint([a, a]) != fingerprint([a])


def test_learning_rate_rises_linearly_and_falls_along_half_a_cosine():
    config = config_from_dict({"model": {"name": "v1"}, "optimizer": {"lr": 2.0, "warmup": 10}})
    rates = [learning_rate(config, step, 110) for step in range(110)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == pytest.approx(2.0)
    assert rates[60] == pytest.approx(1.0)
    assert rates[109] == pytest.approx(2.0 * (1 + math.cos(math.pi * 99 / 100)) / 2)
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_warmup_takes_no_more_than_half_of_a_short_run():
    config = config_from_dict({"model": {"name": "v1"}, "optimizer": {"lr": 2.0, "warmup": 500}})
    rates = [learning_rate(config, step, 8) for step in range(8)]
    assert max(rates) == rates[4] == pytest.approx(2.0)
    assert learning_rate(config, 0, 1) == pytest.approx(2.0)
