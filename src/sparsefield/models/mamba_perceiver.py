"""V2: a bidirectional Mamba over observations and queries, then a light Perceiver."""

from sparsefield.flow.backbone import Claims
from sparsefield.models.decoder import PerceiverReadout
from sparsefield.models.sequence import SequenceBackbone, SequenceMixer
from sparsefield.nn.mamba import BidirectionalMamba


class BidirectionalMambaPerceiver(SequenceBackbone):
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
        layout: See `SequenceMixer`.
        step: See `SequenceMixer`.
        near: See `SequenceMixer`.

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
        layout: str = "grouped",
        step: str = "learned",
        near: int = 0,
    ) -> None:
        if layers % 2:
            raise ValueError(f"layers={layers} cannot be split over two directions; make it even")
        mamba = BidirectionalMamba(width, layers // 2, state, hidden=4 * width)
        sequence = SequenceMixer(mamba, channels, dims, width, features, order, layout, step, near)
        super().__init__(sequence, PerceiverReadout(width, heads, iterations, channels))
