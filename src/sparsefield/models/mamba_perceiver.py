"""V2: a bidirectional Mamba over observations and queries, then a light Perceiver."""

from typing import Any

from torch import Tensor, nn

from sparsefield.fields.observation import Observation
from sparsefield.models.base import Backbone, Claims
from sparsefield.models.sequence import SequenceMixer
from sparsefield.nn.feedforward import FeedForward
from sparsefield.nn.mamba import BidirectionalMamba
from sparsefield.nn.perceiver import PerceiverIteration


class BidirectionalMambaPerceiver(Backbone):
    """V2: Mamba layers in both directions, then iterations of a light Perceiver, a decoder.

    Args:
        channels: Channels C of the values.
        dims: Coordinate dimensions P.
        width: Channels D of a token.
        layers: Mamba layers, half of them in each direction; even.
        state: State size N per channel.
        iterations: Perceiver iterations.
        heads: Attention heads.
        features: Fourier frequencies.
        order: Point order that the Mamba layers read.

    Raises:
        ValueError: `layers` is odd.
    """

    claims = Claims(query_invariant=False, order_invariant=True, linear_cost=False)

    def __init__(
        self,
        channels: int = 3,
        dims: int = 2,
        width: int = 256,
        layers: int = 8,
        state: int = 16,
        iterations: int = 2,
        heads: int = 8,
        features: int = 256,
        order: str = "hilbert",
    ) -> None:
        super().__init__()
        if layers % 2:
            raise ValueError(f"layers={layers} cannot be split over two directions; make it even")
        mamba = BidirectionalMamba(width, layers // 2, state, hidden=4 * width)
        self.sequence = SequenceMixer(mamba, channels, dims, width, features, order)
        self.perceiver = nn.ModuleList(PerceiverIteration(width, heads) for _ in range(iterations))
        self.decoder = nn.Sequential(
            nn.LayerNorm(width),
            FeedForward(width, 2 * width),
            nn.GELU(),
            nn.Linear(width, channels),
        )

    def forward(
        self, x_t: Tensor, t: Tensor, coords: Tensor, obs: Observation, prepared: Any = None
    ) -> Tensor:
        """See `Backbone.forward`."""
        observed, queries = self.sequence(x_t, t, coords, obs)
        for iteration in self.perceiver:
            queries = iteration(queries, observed, obs.valid)
        return self.decoder(queries)
