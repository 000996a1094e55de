"""The contract of a backbone: what a flow asks of the network inside it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor, nn

from sparsefield.data.observation import Observation


class Query(NamedTuple):
    """Where values are wanted, and what was observed.

    Attributes:
        coords: Query coordinates (B, L, P) in [-1, 1].
        obs: Batched observations (B, M, ...), normalised.
        cell: Side of the queries' cells (B,), in sides of the observations' cells. A value is the
            mean over its cell. None stands for 1. Backbones that are not `resolution_aware`
            ignore it.
    """

    coords: Tensor
    obs: Observation
    cell: Tensor | None = None


@dataclass(frozen=True)
class Claims:
    """Properties that a backbone promises; `sparsefield.testing.check_backbone` tests them.

    Attributes:
        query_invariant: The posterior mean (t = 0) at a point does not depend on which other
            points are asked for.
        order_invariant: Permuting observations or queries permutes the prediction and no more.
        linear_cost: Time grows linearly with the number of queries.
        autoencoder: The prediction is what a code of the observations decodes to. It depends on
            neither noisy values nor time, and observed values are not put into results.
        resolution_aware: The prediction takes `Query.cell` into account: it tells a mean over a
            small cell from a mean over a large one.
        samples_on_grid: Samples are made on the observed grid; elsewhere their residual around
            the mean is interpolated.
    """

    query_invariant: bool
    order_invariant: bool
    linear_cost: bool
    autoencoder: bool = False
    resolution_aware: bool = False
    samples_on_grid: bool = False


class Climate(NamedTuple):
    """What is known of a region before anything is observed, normalised.

    Attributes:
        mean: Climatology (H, L, C) at each hour of the day, or one for all.
        std: Standard deviation (L, C) around it.
    """

    mean: Tensor
    std: Tensor


class Backbone(nn.Module, ABC):
    """A network that predicts at query points from their noisy values and from observations.

    Its work has three stages, each of which is done once for all that follow it:

    1. `encode` sees the observations alone.
    2. `prepare` adds the queries: once for all steps of a sampler and all samples.
    3. `forward` adds the noisy values and the time.

    What `encode` and `prepare` return is up to the backbone: None, a tensor whose first axis is
    the batch, or tuples, lists and dataclasses of these. `repeat_item` repeats it for more items.
    """

    claims: Claims

    def encode(self, obs: Observation) -> Any:
        """Compute what depends on the batched, normalised observations alone."""
        return None

    def prepare(self, query: Query, encoded: Any = None) -> Any:
        """Compute what depends on neither `x_t` nor `t`.

        Args:
            query: Queries and observations.
            encoded: What `encode` returned for `query.obs`; computed here if None.
        """
        return self.encode(query.obs) if encoded is None else encoded

    def silence(self) -> None:
        """Make fresh weights predict 0, as a flow of residuals wants to start; here nothing.

        A backbone does so by setting its last linear map to 0.
        """

    def climate(self) -> Climate | None:
        """Return the climate of the region that the backbone is fitted to; here there is none."""
        return None

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, query: Query, prepared: Any = None) -> Tensor:
        """Predict at the queries.

        Args:
            x_t: Noisy values (B, L, C), normalised.
            t: Times (B,) in [0, 1].
            query: Queries and observations.
            prepared: What `prepare` returned for the same query; computed here if None.

        Returns:
            The prediction (B, L, C); the flow knows of which quantity.
        """


def repeat_item(tree: Any, count: int) -> Any:
    """Return what belongs to one item for `count` equal items.

    Args:
        tree: A query, or what `encode` or `prepare` returned: tensors (1, ...) or None, in tuples,
            lists and dataclasses.
        count: Items of the result. Its tensors (count, ...) are views that take no memory.
    """
    return _map_tensors(lambda x: x.expand(count, *x.shape[1:]), tree)


def take_item(tree: Any, item: int) -> Any:
    """Return what belongs to one item of a batch, with a batch axis of length 1."""
    return _map_tensors(lambda x: x[item : item + 1], tree)


def _map_tensors(change: Callable[[Tensor], Tensor], tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, tuple | list):
        parts = [_map_tensors(change, part) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if is_dataclass(tree) and not isinstance(tree, type):
        changed = {x.name: _map_tensors(change, getattr(tree, x.name)) for x in fields(tree)}
        return replace(tree, **changed)
    return tree
