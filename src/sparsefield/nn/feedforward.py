"""The position-wise MLP that follows a mixing layer."""

from torch import nn


class FeedForward(nn.Sequential):
    """Two linear maps with a nonlinearity between them.

    Args:
        width: Channels D of input and output.
        hidden: Channels between the two maps.
        out: Output channels, if they differ from `width`.
        activation: The nonlinearity; on CPUs ReLU costs a fraction of GELU.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        out: int | None = None,
        activation: type[nn.Module] = nn.GELU,
    ) -> None:
        super().__init__(nn.Linear(width, hidden), activation(), nn.Linear(hidden, out or width))
