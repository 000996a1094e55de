"""V1: a unidirectional Mamba over observations and queries, then one cross-attention."""

from sparsefield.flow.backbone import Claims
from sparsefield.models.decoder import CrossReadout
from sparsefield.models.sequence import SequenceBackbone, SequenceMixer
from sparsefield.nn.mamba import MambaStack


class MambaCrossAttention(SequenceBackbone):
    """V1: one-way Mamba layers, one cross-attention from queries to observations, a decoder.

    Args:
        channels: Channels C of the values.
        dims: Coordinate dimensions P.
        width: Channels D of a token.
        layers: Mamba layers.
        state: State size N per channel.
        heads: Attention heads.
        features: Fourier frequencies.
        order: Point order that the Mamba layers read.
        layout: See `SequenceMixer`.
        step: See `SequenceMixer`.
        near: See `SequenceMixer`.
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
        layout: str = "grouped",
        step: str = "learned",
        near: int = 0,
    ) -> None:
        mamba = MambaStack(width, layers, state, hidden=4 * width)
        sequence = SequenceMixer(mamba, channels, dims, width, features, order, layout, step, near)
        super().__init__(sequence, CrossReadout(width, heads, channels))
