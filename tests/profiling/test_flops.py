"""Counted costs, against what can be counted by hand."""

import pytest
from tests.models.test_models import TINY

from sparsefield.models import MODELS
from sparsefield.profiling.flops import flops_per_point


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_cost_that_grows_with_its_width(name):
    settings = {"channels": 3, "dims": 2, **TINY[name]}
    twice = {"widths": "16,24"} if name == "unet" else {"width": 2 * settings["width"]}
    wider = {**settings, **twice}
    narrow, wide = flops_per_point(name, **settings), flops_per_point(name, **wider)
    assert narrow < wide < 5 * narrow


def test_attention_costs_what_its_equation_says():
    """Two transformers that differ in one layer differ by that layer."""
    width, tokens = 32, 256 + 51
    one, two = (
        flops_per_point("transformer", width=width, layers=layers, heads=4, features=8)
        for layers in (1, 2)
    )
    linear = 2 * tokens * (4 * width**2 + 8 * width**2)
    attention = 2 * 2 * tokens**2 * width
    assert (two - one) * 256 == pytest.approx(linear + attention)


def test_a_scan_costs_what_its_recurrence_says():
    settings = {"width": 32, "heads": 4, "features": 8, "layers": 1}
    small, large = (flops_per_point("v1", state=state, **settings) for state in (4, 8))
    tokens, inner = 256 + 51, 64
    scan = 7 * 4 * tokens * inner
    projection = 2 * tokens * inner * 2 * 4
    assert (large - small) * 256 == pytest.approx(scan + projection)
