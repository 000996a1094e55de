"""How a backbone reads its prediction out of the tokens of the queries."""

from torch import Tensor, nn

from sparsefield.nn.attention import Attention
from sparsefield.nn.feedforward import FeedForward
from sparsefield.nn.perceiver import PerceiverIteration


class PointDecoder(nn.Sequential):
    """Map the token of each point to values: D to 2 D, D and C channels.

    Args:
        width: Channels D of a token.
        channels: Channels C of the values.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__(
            nn.LayerNorm(width),
            FeedForward(width, 2 * width),
            nn.GELU(),
            nn.Linear(width, channels),
        )

    def silence(self) -> None:
        """Make all values 0 until training moves them."""
        last = self[-1]
        for weight in last.parameters():
            nn.init.zeros_(weight)


class Readout(nn.Module):
    """Maps queries (B, L, D) and a context (B, M, D), valid (B, M), to values (B, L, C)."""

    decoder: PointDecoder


class CrossReadout(Readout):
    """One cross-attention from queries to a context, then the decoder.

    The cross-attention is residual: without that, the noise in `x_t` could not reach the
    decoder, whose target contains it.

    Args:
        width: Channels D of a token.
        heads: Attention heads.
        channels: Channels C of the values.
    """

    def __init__(self, width: int, heads: int, channels: int) -> None:
        super().__init__()
        self.query_norm, self.context_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.cross = Attention(width, heads)
        self.decoder = PointDecoder(width, channels)

    def forward(self, queries: Tensor, context: Tensor, valid: Tensor | None = None) -> Tensor:
        """Predict (B, L, C) at queries (B, L, D) from a context (B, M, D), valid (B, M)."""
        context = self.context_norm(context)
        return self.decoder(queries + self.cross(self.query_norm(queries), context, valid))


class PerceiverReadout(Readout):
    """Iterations of a light Perceiver, then the decoder.

    Args:
        width: Channels D of a token.
        heads: Attention heads.
        iterations: Perceiver iterations.
        channels: Channels C of the values.
    """

    def __init__(self, width: int, heads: int, iterations: int, channels: int) -> None:
        super().__init__()
        self.iterations = nn.ModuleList(
            PerceiverIteration(width, heads) for _ in range(iterations)
        )
        self.decoder = PointDecoder(width, channels)

    def forward(self, queries: Tensor, context: Tensor, valid: Tensor | None = None) -> Tensor:
        """Predict (B, L, C) at queries (B, L, D) from a context (B, M, D), valid (B, M)."""
        for iteration in self.iterations:
            queries = iteration(queries, context, valid)
        return self.decoder(queries)
