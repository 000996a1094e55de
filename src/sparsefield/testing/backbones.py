"""What every backbone promises, as checks."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsefield.data.grids import cell_centres
from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Backbone, Claims, Query, repeat_item
from sparsefield.flow.flow import Flow

# Items, observations of each, and how far equal predictions may be apart.
B, M, TOLERANCE = 2, 17, 1e-5
SHAPES = {1: (63,), 2: (7, 9), 3: (3, 4, 5), 4: (2, 3, 4, 3)}


@dataclass(frozen=True)
class Case:
    """A backbone whose weights are all different from zero, and something to predict.

    Attributes:
        backbone: The backbone, in evaluation mode.
        x_t: Noisy values (B, L, C).
        query: Queries on a grid, and observations away from its points.
        shape: The grid.
    """

    backbone: Backbone
    x_t: Tensor
    query: Query
    shape: tuple[int, ...]

    @property
    def claims(self) -> Claims:
        """What the backbone promises."""
        return self.backbone.claims

    def predict(self, t: float, query: Query | None = None, x_t: Tensor | None = None) -> Tensor:
        """Return the prediction (B, L, C) at one time for all items."""
        x_t, query = self.x_t if x_t is None else x_t, query or self.query
        return self.backbone(x_t, torch.full((len(x_t),), t), query)

    def rows(self, index: Tensor | slice) -> Observation:
        """Return some of the observations of each item."""
        return Observation(self.query.obs.coords[:, index], self.query.obs.values[:, index])


def check_backbone(backbone: Backbone, channels: int = 3, dims: int = 2, *, seed: int = 0) -> None:
    """Check that a backbone keeps the contract of `Backbone`, and all that it claims.

    The checks use a copy of the backbone with random numbers added to its weights, because a
    weight that starts at zero could hide a fault. A small backbone is checked within a second. The
    claims `linear_cost` and `samples_on_grid` are not tested.

    Args:
        backbone: The backbone, on the CPU.
        channels: Channels C of the values that it takes.
        dims: Coordinate dimensions P, from 1 to 4.
        seed: Seed of weights and data.

    Raises:
        AssertionError: The contract is broken; the message says how.
    """
    assert isinstance(backbone, Backbone), f"{type(backbone).__name__} is no Backbone"
    assert isinstance(getattr(backbone, "claims", None), Claims), "a backbone states its claims"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        case = _case(backbone, channels, SHAPES[dims])
        for check in CHECKS:
            with torch.enable_grad():
                check(case)


def _case(backbone: Backbone, channels: int, shape: tuple[int, ...]) -> Case:
    opened = copy.deepcopy(backbone).eval().requires_grad_(True)
    with torch.no_grad():
        for weight in opened.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return Case(opened, *_inputs(shape, channels), shape)


def _inputs(shape: tuple[int, ...], channels: int) -> tuple[Tensor, Query]:
    coords = cell_centres(shape).expand(B, -1, -1)
    obs = Observation(torch.rand(B, M, len(shape)) * 2 - 1, torch.randn(B, M, channels))
    return torch.randn(B, coords.shape[1], channels), Query(coords, obs)


def _same(actual: Tensor, expected: Tensor) -> bool:
    if actual.shape != expected.shape:
        return False
    return torch.allclose(actual, expected, atol=TOLERANCE, rtol=TOLERANCE)


def _check_shape(case: Case) -> None:
    finer = tuple(n + 1 for n in case.shape)
    one = (case.x_t[:, :1], Query(case.query.coords[:, :1], case.query.obs))
    for x_t, query in ((case.x_t, case.query), _inputs(finer, case.x_t.shape[-1]), one):
        prediction = case.backbone(x_t, torch.tensor([0.0, 0.7]), query)
        assert prediction.shape == x_t.shape, (
            f"the prediction at queries {tuple(x_t.shape)} has shape {tuple(prediction.shape)}"
        )
        assert prediction.isfinite().all(), "the prediction is not finite"


def _check_gradients(case: Case) -> None:
    trained = copy.deepcopy(case.backbone).train()
    predictions = [trained(case.x_t, torch.full((B,), t), case.query) for t in (0.0, 0.6)]
    torch.stack(predictions).square().sum().backward()
    for name, weight in trained.named_parameters():
        assert weight.grad is not None, f"the weight {name} gets no gradient: it does nothing"
        assert weight.grad.isfinite().all(), f"the gradient of {name} is not finite"


def _check_padding(case: Case) -> None:
    for t in (0.0, 0.7):
        expected = case.predict(t)
        for filler in (0.0, 0.37):
            padded = case.query.obs.pad(M + 6)
            for rows in (padded.coords, padded.values):
                rows[~padded.valid] = filler
            query = case.query._replace(obs=padded)
            assert _same(case.predict(t, query), expected), (
                "rows of observations that are not valid change the prediction"
            )


def _check_sets_of_different_size(case: Case) -> None:
    obs = case.query.obs
    sets = [Observation(obs.coords[0], obs.values[0]), Observation(*_first(obs, 1, 4))]
    together = case.predict(0.7, case.query._replace(obs=Observation.stack(sets)))
    alone = Query(case.query.coords[1:], sets[1].batched())
    assert _same(together[1:], case.predict(0.7, alone, case.x_t[1:])), (
        "an item with fewer observations is predicted differently in a batch than alone"
    )


def _first(obs: Observation, item: int, count: int) -> tuple[Tensor, Tensor]:
    return obs.coords[item, :count], obs.values[item, :count]


def _check_single_observation(case: Case) -> None:
    for t in (0.0, 0.7):
        query = case.query._replace(obs=case.rows(slice(1)))
        assert case.predict(t, query).isfinite().all(), "one observation alone is not enough"


def _check_repeated_calls(case: Case) -> None:
    assert torch.equal(case.predict(0.7), case.predict(0.7)), "two equal calls disagree"


def _check_stages(case: Case) -> None:
    backbone, query = case.backbone, case.query
    encoded = backbone.encode(query.obs)
    for t in (0.0, 0.7):
        times, expected = torch.full((B,), t), case.predict(t)
        for given in ((query,), (query, encoded)):
            actual = backbone(case.x_t, times, query, backbone.prepare(*given))
            assert _same(actual, expected), "what `prepare` returns changes the prediction"


def _check_repeated_items(case: Case) -> None:
    one = Query(case.query.coords[:1], Observation(*_first(case.query.obs, 0, M)).batched())
    prepared = case.backbone.prepare(one, case.backbone.encode(one.obs))
    both, many = repeat_item(one, B), repeat_item(prepared, B)
    wanted = "one item's result of `encode` and `prepare` does not serve for several: a batch axis"
    try:
        actual = case.backbone(case.x_t, torch.full((B,), 0.7), both, many)
    except RuntimeError as error:
        raise AssertionError(f"{wanted} is missing: {error}") from error
    assert _same(actual, case.predict(0.7, both)), f"{wanted} is missing"


def _check_items(case: Case) -> None:
    t = torch.tensor([0.2, 0.7])
    both = case.backbone(case.x_t, t, case.query)
    alone = Query(case.query.coords[1:], Observation(*_first(case.query.obs, 1, M)).batched())
    assert _same(both[1:], case.backbone(case.x_t[1:], t[1:], alone)), (
        "an item of a batch depends on the other items"
    )


def _check_noisy_values(case: Case) -> None:
    x_t = case.x_t.clone().requires_grad_()
    if case.claims.autoencoder:
        expected = case.predict(0.5)
        assert _same(case.predict(0.5, x_t=-x_t), expected), "an autoencoder reads noisy values"
        return
    prediction = case.predict(0.5, x_t=x_t)
    for point in (0, x_t.shape[1] // 2, x_t.shape[1] - 1):
        target = prediction[1, point].sum()
        (slope,) = torch.autograd.grad(target, x_t, retain_graph=True, materialize_grads=True)
        assert (slope[1, point].abs() > 1e-6).all(), (
            "the noisy value of a point does not reach the prediction at it, so that no velocity "
            "can be learnt"
        )
        assert (slope[0] == 0).all(), "noisy values reach another item"


def _check_time(case: Case) -> None:
    change = (case.predict(0.5) - case.predict(0.6)).abs().max()
    if case.claims.autoencoder:
        assert change == 0, "an autoencoder reads the time"
    else:
        assert change > 1e-3, "the prediction does not depend on the time"


def _check_observations(case: Case) -> None:
    obs = Observation(case.query.obs.coords, case.query.obs.values + 1)
    change = (case.predict(0.5) - case.predict(0.5, case.query._replace(obs=obs))).abs().max()
    assert change > 1e-3, "the prediction does not depend on the observed values"


def _check_query_invariance(case: Case) -> None:
    if not case.claims.query_invariant:
        return

    def mean(chosen: Tensor) -> Tensor:
        query = case.query._replace(coords=case.query.coords[:, chosen])
        return case.predict(0.0, query, case.x_t[:, chosen])

    count = case.x_t.shape[1]
    points, expected = torch.arange(count), case.predict(0.0)
    wanted = "the claim `query_invariant` does not hold: the mean at a point depends on "
    for chosen in (torch.randperm(count), points[5:6], points[: count // 3]):
        assert _same(mean(chosen), expected[:, chosen]), wanted + "the other queries"
    assert _same(mean(points.repeat(2))[:, :count], expected), wanted + "repeated queries"
    assert _same(case.predict(0.0, x_t=torch.randn_like(case.x_t)), expected), (
        wanted + "the source noise"
    )


def _check_order_invariance(case: Case) -> None:
    if not case.claims.order_invariant:
        return
    rows, points = torch.randperm(M), torch.randperm(case.x_t.shape[1])
    for t in (0.0, 0.7):
        expected = case.predict(t)
        shuffled = case.query._replace(obs=case.rows(rows))
        assert _same(case.predict(t, shuffled), expected), (
            "the claim `order_invariant` does not hold: the order of the observations matters"
        )
        shuffled = case.query._replace(coords=case.query.coords[:, points])
        assert _same(case.predict(t, shuffled, case.x_t[:, points]), expected[:, points]), (
            "the claim `order_invariant` does not hold: the order of the queries matters"
        )


def _check_resolution(case: Case) -> None:
    for t in (0.0, 0.6):
        same, half = (case.query._replace(cell=torch.full((B,), x)) for x in (1.0, 0.5))
        assert _same(case.predict(t, same), case.predict(t)), "a cell of 1 is not that of None"
        change = (case.predict(t, half) - case.predict(t)).abs().max()
        if case.claims.resolution_aware:
            assert change > 1e-4, (
                "the claim `resolution_aware` does not hold: the size of cells does not matter"
            )
        else:
            assert change == 0, "the size of cells matters: claim `resolution_aware`"


def _check_flow(case: Case) -> None:
    flow = Flow(case.backbone, "data", time_shift=3.0)
    velocity = flow.velocity(case.x_t, torch.full((B,), 0.5), case.query)
    mean = flow.posterior_mean(case.x_t, case.query)
    assert velocity.shape == mean.shape == case.x_t.shape, "the backbone does not carry a flow"


# Each relies on those before it.
CHECKS: tuple[Callable[[Case], None], ...] = (
    _check_shape,
    _check_repeated_calls,
    _check_gradients,
    _check_items,
    _check_stages,
    _check_repeated_items,
    _check_padding,
    _check_sets_of_different_size,
    _check_single_observation,
    _check_noisy_values,
    _check_time,
    _check_observations,
    _check_query_invariance,
    _check_order_invariance,
    _check_resolution,
    _check_flow,
)
