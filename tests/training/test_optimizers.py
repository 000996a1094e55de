"""Muon beside AdamW, and the symmetries of a batch."""

import torch

from sparsefield.data.grids import cell_centres
from sparsefield.flow.flow import Flow
from sparsefield.models import build_model
from sparsefield.nn.unet import MatrixConv
from sparsefield.training.batches import _draw_symmetry
from sparsefield.training.config import OptimizerConfig
from sparsefield.training.state import TrainState


def make_state():
    torch.manual_seed(0)
    backbone = build_model("v1", width=8, layers=2, state=2, heads=2, features=3)
    return TrainState(Flow(backbone), OptimizerConfig(name="muon", lr=1e-2))


def step(state):
    generator = torch.Generator().manual_seed(state.step)
    for weight in state.trained.values():
        weight.grad = torch.randn(weight.shape, generator=generator)
    state.update(1e-2)


def test_muon_takes_hidden_matrices_and_resumes_bit_for_bit(tmp_path):
    state = make_state()
    adam, muon = state.optimizers
    taken = [w for group in muon.param_groups for w in group["params"]]
    left = [w for group in adam.param_groups for w in group["params"]]
    assert len(taken) + len(left) == len(state.trained)
    assert taken and all(w.ndim == 2 for w in taken)
    step(state)
    state.save(tmp_path / "state.safetensors")
    other = make_state()
    other.load(tmp_path / "state.safetensors")
    for each in (state, other):
        step(each)
    for name, weight in state.trained.items():
        assert torch.equal(weight, other.trained[name]), name


def test_muon_takes_hidden_convolutions_but_for_the_first_and_the_last():
    backbone = build_model(
        "unet", widths="4,6", blocks="1,1", flow_widths="4,6", flow_blocks="1,1"
    )
    flow = Flow(backbone)
    state = TrainState(flow, OptimizerConfig(name="muon", lr=1e-2))
    taken = {id(w) for group in state.optimizers[1].param_groups for w in group["params"]}
    convolutions = [part.weight for part in flow.modules() if type(part) is MatrixConv]
    assert [id(w) in taken for w in convolutions] == [False] + [True] * (len(convolutions) - 2) + [
        False
    ]


def test_all_eight_symmetries_of_a_square_are_drawn_and_a_rectangle_keeps_its_axes():
    generator = torch.Generator().manual_seed(0)
    turn = _draw_symmetry("all", 400, 2, generator)
    for shape, count in (((3, 3), 8), ((3, 5), 4)):
        grid = cell_centres(shape).expand(400, -1, -1)
        moved = turn(grid, shape)
        assert len({tuple(each.flatten().tolist()) for each in moved}) == count
        for each in moved[:8]:
            there = {tuple(p) for p in (each.round(decimals=3) + 0.0).tolist()}
            assert there == {tuple(p) for p in (grid[0].round(decimals=3) + 0.0).tolist()}
