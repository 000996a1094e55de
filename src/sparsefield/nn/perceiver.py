"""The light Perceiver of V2: queries gather from observations and talk to each other."""

from torch import Tensor, nn

from sparsefield.nn.attention import Attention
from sparsefield.nn.feedforward import FeedForward


class PerceiverIteration(nn.Module):
    """Cross-attention to a context, self-attention among queries, MLP; each residual.

    References:
        Perceiver: General Perception with Iterative Attention (Jaegle et al., 2021), section 3.1.

    Args:
        width: Channels D; divisible by `heads`.
        heads: Attention heads.
        expand: Hidden channels of the MLP per channel.
    """

    def __init__(self, width: int, heads: int, expand: int = 2) -> None:
        super().__init__()
        self.cross_norm, self.self_norm, self.mlp_norm, self.context_norm = (
            nn.LayerNorm(width) for _ in range(4)
        )
        self.cross = Attention(width, heads)
        self.self_attention = Attention(width, heads)
        self.feedforward = FeedForward(width, expand * width)

    def forward(self, x: Tensor, context: Tensor, valid: Tensor | None = None) -> Tensor:
        """Refine queries x (B, L, D) from context (B, M, D), of which `valid` (B, M) count."""
        x = x + self.cross(self.cross_norm(x), self.context_norm(context), valid)
        y = self.self_norm(x)
        x = x + self.self_attention(y, y)
        return x + self.feedforward(self.mlp_norm(x))
