"""Conditioning by feature-wise affine modulation."""

from torch import Tensor, nn


class AdaptiveNorm(nn.Module):
    r"""Layer normalisation whose scale and shift are functions of a condition.

    .. math:: y = (1 + s(c)) \odot \mathrm{LN}(x) + b(c)

    The modulation starts at zero, so that the layer starts as a plain normalisation.

    References:
        FiLM: Visual Reasoning with a General Conditioning Layer (Perez et al., 2018), Eq. 2.
        Scalable Diffusion Models with Transformers (Peebles & Xie, 2023), section 3.2.

    Args:
        width: Channels D of the input.
        condition_width: Channels of the condition.
    """

    def __init__(self, width: int, condition_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(condition_width, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Modulate x (B, L, D) by a condition (B, condition_width)."""
        scale, shift = self.modulation(condition)[:, None].chunk(2, dim=-1)
        return self.norm(x) * (1 + scale) + shift
