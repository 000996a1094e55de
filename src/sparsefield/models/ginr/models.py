"""The four Mamba-GINR autoencoders: which encoder goes with which decoder."""

import torch
from torch import Tensor, nn

from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Backbone, Claims
from sparsefield.models.ginr.decoders import MultiBandDecoder, ResidualDecoder
from sparsefield.models.ginr.encoder import Code, PatchEncoder
from sparsefield.models.ginr.layers import AveragedMamba, GatedFeedForward, MixerLayer
from sparsefield.nn.mamba import BidirectionalMamba
from sparsefield.nn.transformer import TransformerBlock


class FieldAutoencoder(Backbone):
    r"""Encode a field once, decode it at any coordinates; noisy values and time are not read.

    In training the tokens may be read at jittered coordinates, so that the code changes little
    from one query to the next. The features that are decoded, like the value that is asked for,
    always belong to the exact coordinate; jitter that reached them would blur the field.

    Args:
        encoder: Observations to code.
        decoder: Coordinates, places, tokens and their locations to values.
        jitter: Standard deviation of the jitter, in cells of the observed grid.
    """

    claims = Claims(query_invariant=True, order_invariant=True, linear_cost=True, autoencoder=True)

    def __init__(self, encoder: PatchEncoder, decoder: nn.Module, jitter: float = 0.0) -> None:
        super().__init__()
        self.encoder, self.decoder, self.jitter = encoder, decoder, jitter

    def prepare(self, coords: Tensor, obs: Observation, cell: Tensor | None = None) -> Code:
        """Encode the observations."""
        return self.encoder(obs)

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        coords: Tensor,
        obs: Observation,
        prepared: Code | None = None,
        cell: Tensor | None = None,
    ) -> Tensor:
        """Decode at the queries; see `Backbone.forward`."""
        code = self.encoder(obs) if prepared is None else prepared
        places = coords
        if self.training and self.jitter:
            places = coords + self.jitter * code.spacing * _noise_like(coords, x_t)
        return self.decoder(coords, places, code.tokens, self.encoder.locations)


class MambaGINR(FieldAutoencoder):
    """Mamba layers over interleaved patches and position tokens, and a residual decoder.

    Its features are fixed and nothing is random: the variant for exact reconstruction.

    Args:
        channels: Channels C of the values.
        dims: Coordinate dimensions P.
        width: Channels D of a token.
        positions: Position tokens K.
        layers: Mamba layers, each in both directions.
        state: State size N per channel.
        hidden: Channels of the decoder.
        blocks: Residual perceptrons of the decoder.
        features: Fourier frequencies of the decoder.
        max_frequency: Highest frequency, in cycles per coordinate unit; a grid of n cells
            carries n/4.
        cells: Cells per axis of the grid for observations that fill none of their own.
        order: Curve along which patches are read.
    """

    def __init__(
        self,
        channels: int = 3,
        dims: int = 2,
        width: int = 256,
        positions: int = 256,
        layers: int = 6,
        state: int = 16,
        hidden: int = 512,
        blocks: int = 3,
        features: int = 32,
        max_frequency: float = 8.0,
        cells: int = 32,
        order: str = "hilbert",
    ) -> None:
        sequence = [MixerLayer(width, BidirectionalMamba(width, 1, state)) for _ in range(layers)]
        super().__init__(
            PatchEncoder(
                channels, dims, width, positions, sequence, (), cells, max_frequency, order
            ),
            ResidualDecoder(
                channels,
                dims,
                width,
                hidden,
                blocks,
                features,
                max_frequency,
                distance_scale(positions, dims),
            ),
        )


class FourierMambaGINR(FieldAutoencoder):
    """Mamba layers as in `MambaGINR`, averaged over directions, and a light multi-band decoder.

    Args:
        channels: Channels C of the values.
        dims: Coordinate dimensions P.
        width: Channels D of a token.
        positions: Position tokens K.
        layers: Mamba layers, each in both directions.
        state: State size N per channel.
        hidden: Channels of the decoder.
        heads: Attention heads of the decoder.
        features: Fourier frequencies of each band, learned.
        max_frequency: Highest frequency, in cycles per coordinate unit; a grid of n cells
            carries n/4.
        jitter: Standard deviation of the training jitter, in cells.
        cells: Cells per axis of the grid for observations that fill none of their own.
        order: Curve along which patches are read.
    """

    def __init__(
        self,
        channels: int = 3,
        dims: int = 2,
        width: int = 256,
        positions: int = 256,
        layers: int = 6,
        state: int = 16,
        hidden: int = 256,
        heads: int = 2,
        features: int = 32,
        max_frequency: float = 8.0,
        jitter: float = 1 / 6,
        cells: int = 32,
        order: str = "hilbert",
    ) -> None:
        sequence = [MixerLayer(width, AveragedMamba(width, state)) for _ in range(layers)]
        super().__init__(
            PatchEncoder(
                channels, dims, width, positions, sequence, (), cells, max_frequency, order
            ),
            MultiBandDecoder(
                channels,
                dims,
                width,
                hidden,
                0,
                heads,
                features,
                max_frequency,
                distance_scale(positions, dims),
            ),
            jitter,
        )


class ScentMambaGINR(FieldAutoencoder):
    """One Mamba layer over patches, then position tokens; self-attention; a deep decoder.

    Position tokens stand behind the patches: the attention, which all tokens take part in, finds
    the patches of each.

    Args:
        channels: Channels C of the values.
        dims: Coordinate dimensions P.
        width: Channels D of a token; divisible by `token_heads`.
        positions: Position tokens K.
        state: State size N per channel.
        attention_layers: Self-attention layers over all tokens.
        token_heads: Their heads.
        hidden: Channels of the decoder.
        blocks: Gated perceptrons in each branch of the decoder.
        heads: Attention heads of the decoder.
        features: Fourier frequencies of each band, learned.
        max_frequency: Highest frequency, in cycles per coordinate unit; a grid of n cells
            carries n/4.
        jitter: Standard deviation of the training jitter, in cells.
        cells: Cells per axis of the grid for observations that fill none of their own.
        order: Curve along which patches are read.
    """

    def __init__(
        self,
        channels: int = 3,
        dims: int = 2,
        width: int = 256,
        positions: int = 256,
        state: int = 16,
        attention_layers: int = 2,
        token_heads: int = 8,
        hidden: int = 512,
        blocks: int = 4,
        heads: int = 2,
        features: int = 32,
        max_frequency: float = 8.0,
        jitter: float = 1 / 6,
        cells: int = 32,
        order: str = "hilbert",
    ) -> None:
        attention = self_attention(width, token_heads, attention_layers)
        sequence = [BidirectionalMamba(width, 1, state), *attention]
        super().__init__(
            PatchEncoder(
                channels, dims, width, positions, sequence, (), cells, max_frequency, order, False
            ),
            MultiBandDecoder(
                channels,
                dims,
                width,
                hidden,
                blocks,
                heads,
                features,
                max_frequency,
                distance_scale(positions, dims),
            ),
            jitter,
        )


class HybridMambaGINR(FieldAutoencoder):
    """One Mamba layer over interleaved tokens; self-attention of the position tokens alone.

    The decoder is that of `ScentMambaGINR`. Attention sees the position tokens only, so its cost
    does not grow with the resolution of the observations.

    Args:
        channels: Channels C of the values.
        dims: Coordinate dimensions P.
        width: Channels D of a token; divisible by `token_heads`.
        positions: Position tokens K.
        state: State size N per channel.
        attention_layers: Self-attention layers over the position tokens.
        token_heads: Their heads.
        hidden: Channels of the decoder.
        blocks: Gated perceptrons in each branch of the decoder.
        heads: Attention heads of the decoder.
        features: Fourier frequencies of each band, learned.
        max_frequency: Highest frequency, in cycles per coordinate unit; a grid of n cells
            carries n/4.
        jitter: Standard deviation of the training jitter, in cells.
        cells: Cells per axis of the grid for observations that fill none of their own.
        order: Curve along which patches are read.
    """

    def __init__(
        self,
        channels: int = 3,
        dims: int = 2,
        width: int = 256,
        positions: int = 256,
        state: int = 16,
        attention_layers: int = 4,
        token_heads: int = 8,
        hidden: int = 512,
        blocks: int = 4,
        heads: int = 2,
        features: int = 32,
        max_frequency: float = 8.0,
        jitter: float = 1 / 6,
        cells: int = 32,
        order: str = "hilbert",
    ) -> None:
        sequence = [BidirectionalMamba(width, 1, state)]
        latent = self_attention(width, token_heads, attention_layers)
        super().__init__(
            PatchEncoder(
                channels, dims, width, positions, sequence, latent, cells, max_frequency, order
            ),
            MultiBandDecoder(
                channels,
                dims,
                width,
                hidden,
                blocks,
                heads,
                features,
                max_frequency,
                distance_scale(positions, dims),
            ),
            jitter,
        )


def self_attention(width: int, heads: int, layers: int) -> list[TransformerBlock]:
    """Return layers of self-attention with gated perceptrons."""
    return [
        TransformerBlock(width, heads, GatedFeedForward(width, 4 * width)) for _ in range(layers)
    ]


def distance_scale(positions: int, dims: int) -> float:
    """Return the s of `PlaceAttention` for which a token one spacing away counts e^-2 as much."""
    spacing = 2 / positions ** (1 / dims)
    return 2 / spacing**2


def _noise_like(coords: Tensor, x_t: Tensor) -> Tensor:
    """Return normal noise of the shape of coords; the same for the same x_t.

    The noise of a training step is thus a function of the step, and a resumed run repeats it.
    """
    seed = x_t.detach().float().flatten()[:1].view(torch.int32).item()
    generator = torch.Generator().manual_seed(int(seed))
    return torch.randn(coords.shape, generator=generator).to(coords)
