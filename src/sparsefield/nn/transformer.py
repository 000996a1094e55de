"""The transformer layer: self-attention and an MLP."""

from torch import Tensor, nn

from sparsefield.nn.attention import Attention
from sparsefield.nn.feedforward import FeedForward


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and a pre-norm MLP, each residual.

    References:
        On Layer Normalization in the Transformer Architecture (Xiong et al., 2020), Table 1.

    Args:
        width: Channels D; divisible by `heads`.
        heads: Attention heads.
        feedforward: The MLP, D to D channels.
    """

    def __init__(self, width: int, heads: int, feedforward: nn.Module) -> None:
        super().__init__()
        self.norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feedforward = feedforward

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Update tokens x (B, L, D), of which `valid` (B, L) are seen."""
        y = self.norm(x)
        x = x + self.attention(y, y, valid)
        return x + self.feedforward(self.mlp_norm(x))


class TransformerStack(nn.Module):
    """Transformer blocks in sequence.

    Args:
        width: Channels D; divisible by `heads`.
        depth: Blocks.
        heads: Attention heads.
        hidden: Hidden channels of each block's MLP.
    """

    def __init__(self, width: int, depth: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            TransformerBlock(width, heads, FeedForward(width, hidden)) for _ in range(depth)
        )

    def forward(
        self, x: Tensor, valid: Tensor | None = None, gaps: Tensor | None = None
    ) -> Tensor:
        """Update x (B, L, D), of which `valid` (B, L) count; distances in `gaps` do not."""
        for block in self.blocks:
            x = block(x, valid)
        return x
