"""V1: a unidirectional Mamba over observations and queries, then one cross-attention."""

from typing import Any

from torch import Tensor, nn

from sparsefield.fields.observation import Observation
from sparsefield.models.base import Backbone, Claims
from sparsefield.models.sequence import SequenceMixer
from sparsefield.nn.attention import Attention
from sparsefield.nn.feedforward import FeedForward
from sparsefield.nn.mamba import MambaStack


class MambaCrossAttention(Backbone):
    """V1: one-way Mamba layers, one cross-attention from queries to observations, a decoder.

    The cross-attention is residual: without that, the noise in `x_t` could not reach the
    decoder, whose target contains it.

    Args:
        channels: Channels C of the values.
        dims: Coordinate dimensions P.
        width: Channels D of a token.
        layers: Mamba layers.
        state: State size N per channel.
        heads: Attention heads.
        features: Fourier frequencies.
        order: Point order that the Mamba layers read.
    """

    claims = Claims(query_invariant=False, order_invariant=True, linear_cost=True)

    def __init__(
        self,
        channels: int = 3,
        dims: int = 2,
        width: int = 512,
        layers: int = 6,
        state: int = 16,
        heads: int = 8,
        features: int = 256,
        order: str = "hilbert",
    ) -> None:
        super().__init__()
        mamba = MambaStack(width, layers, state, hidden=4 * width)
        self.sequence = SequenceMixer(mamba, channels, dims, width, features, order)
        self.query_norm, self.context_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.cross = Attention(width, heads)
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
        context = self.context_norm(observed)
        queries = queries + self.cross(self.query_norm(queries), context, obs.valid)
        return self.decoder(queries)
