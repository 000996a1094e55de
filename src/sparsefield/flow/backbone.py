"""What every backbone for sparse observations has in common."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sparsefield.data.observation import Observation


@dataclass(frozen=True)
class Claims:
    """Properties that a backbone promises and the tests hold it to.

    Attributes:
        query_invariant: The posterior mean (t = 0) at a point does not depend on which other
            points are asked for.
        order_invariant: Permuting observations or queries permutes the prediction and no more.
        linear_cost: Time grows linearly with the number of queries.
        autoencoder: The prediction is what a code of the observations decodes to. It depends on
            neither noisy values nor time, and observed values are not put into results.
    """

    query_invariant: bool
    order_invariant: bool
    linear_cost: bool
    autoencoder: bool = False


class Backbone(nn.Module, ABC):
    """A network that predicts at query points from their noisy values and from observations."""

    claims: Claims

    def prepare(self, coords: Tensor, obs: Observation, cell: Tensor | None = None) -> Any:
        """Compute what depends on neither `x_t` nor `t`, once for all steps of a sampler."""
        return None

    @abstractmethod
    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        coords: Tensor,
        obs: Observation,
        prepared: Any = None,
        cell: Tensor | None = None,
    ) -> Tensor:
        """Predict at the queries.

        Args:
            x_t: Noisy values (B, L, C), normalised.
            t: Times (B,) in [0, 1].
            coords: Query coordinates (B, L, P) in [-1, 1].
            obs: Batched observations, normalised.
            prepared: What `prepare` returned for the same `coords`, `obs` and `cell`.
            cell: Side of the queries' cells (B,), in sides of the observations', 1 if None: a
                value is the mean over its cell. A model that takes no note of it predicts values
                of the observations' kind.

        Returns:
            The prediction (B, L, C); the flow knows of which quantity.
        """
