"""What an evaluation of a backbone costs, counted while it runs."""

from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sparsefield.data.grids import cell_centres
from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Query
from sparsefield.models import build_model

CELLS, DENSITY = 16, 0.2


def flops_per_point(name: str, **settings: Any) -> float:
    """Count floating-point operations of one evaluation, per query.

    A multiplication and an addition are two; functions of single numbers do not count. Queries
    are a grid of 16 x 16, of which a fifth is observed.

    Args:
        name: Key of MODELS.
        settings: Settings of the model.

    Raises:
        InputError: The name or a setting is unknown.
    """
    with torch.device("meta"):
        backbone = build_model(name, **settings)
    backbone = backbone.to_empty(device="cpu").eval()  # operations do not depend on the weights
    coords = cell_centres((CELLS, CELLS))[None]
    values = torch.zeros(1, CELLS**2, 3)
    seen = torch.randperm(CELLS**2, generator=torch.Generator().manual_seed(0))
    seen = seen[: int(DENSITY * CELLS**2)]
    obs = Observation(coords[:, seen], values[:, seen])
    counter = FlopCounterMode(display=False, custom_mapping=_CUSTOM)
    # the plain attention is made of products that the counter knows
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        backbone(values, torch.full((1,), 0.5), Query(coords, obs))
    return counter.get_total_flops() / CELLS**2


def _scan_flops(save: bool, u: Any, delta: Any, A: Any, *others: Any, **kwargs: Any) -> int:
    """Per state: s A and its exponential, (s u) B, a h +, and C h +; per channel D u and z."""
    items, length, width = u
    return items * length * width * (7 * A[1] + 4)


def _attention_flops(q: Any, k: Any, v: Any, bias: Any, index: Any, **kwargs: Any) -> int:
    """Scores and sums over the neighbours: two products of the width each."""
    items, length, heads, width = q
    return 4 * items * length * index[2] * heads * width


_CUSTOM: dict[Any, Any] = {
    torch.ops.sparsefield.selective_scan: _scan_flops,
    torch.ops.sparsefield.local_attention: _attention_flops,
}
