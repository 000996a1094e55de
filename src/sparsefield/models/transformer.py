"""The control: V1 with self-attention in place of its Mamba layers."""

from sparsefield.flow.backbone import Claims
from sparsefield.models.decoder import CrossReadout
from sparsefield.models.sequence import SequenceBackbone, SequenceMixer
from sparsefield.nn.transformer import TransformerStack


class TransformerCrossAttention(SequenceBackbone):
    """Self-attention over observations and queries, then V1's cross-attention and decoder.

    Args:
        channels: Channels C of the values.
        dims: Coordinate dimensions P.
        width: Channels D of a token.
        layers: Transformer layers.
        heads: Attention heads.
        features: Fourier frequencies.
        near: See `SequenceMixer`.
    """

    claims = Claims(query_invariant=False, order_invariant=True, linear_cost=False)

    def __init__(
        self,
        channels: int = 3,
        dims: int = 2,
        width: int = 512,
        layers: int = 6,
        heads: int = 8,
        features: int = 256,
        near: int = 0,
    ) -> None:
        attention = TransformerStack(width, layers, heads, hidden=4 * width)
        # attention sees sets: any order will do, and one that sorts keeps the claim to the bit
        sequence = SequenceMixer(attention, channels, dims, width, features, "raster", near=near)
        super().__init__(sequence, CrossReadout(width, heads, channels))
