"""The four Mamba-GINR autoencoders: which encoder goes with which decoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from sparsefield.data.observation import Observation
from sparsefield.flow.backbone import Backbone, Claims, Query
from sparsefield.models.ginr.decoders import MultiBandDecoder, ResidualDecoder
from sparsefield.models.ginr.encoder import Code, PatchEncoder
from sparsefield.models.ginr.layers import AveragedMamba, GatedFeedForward, MixerLayer
from sparsefield.nn.mamba import BidirectionalMamba
from sparsefield.nn.transformer import TransformerBlock


@dataclass(frozen=True, kw_only=True)
class GINRSettings:
    """Settings of every Mamba-GINR (generalizable implicit neural representation).

    Attributes:
        channels: Channels C of the values.
        dims: Coordinate dimensions P.
        width: Channels D of a token.
        positions: Position tokens K.
        state: State size N per channel.
        hidden: Channels of the decoder.
        features: Fourier frequencies of the decoder, or of each of its bands.
        max_frequency: Highest frequency, in cycles per coordinate unit; a grid of n cells
            carries n/4.
        cells: Cells per axis of the grid for observations that fill none of their own.
        order: Curve along which patches are read.
    """

    channels: int = 3
    dims: int = 2
    width: int = 256
    positions: int = 256
    state: int = 16
    hidden: int = 512
    features: int = 32
    max_frequency: float = 8.0
    cells: int = 32
    order: str = "hilbert"

    @property
    def distance_scale(self) -> float:
        """The s of `PlaceAttention` for which a token one spacing away counts e^-2 as much."""
        spacing = 2 / self.positions ** (1 / self.dims)
        return 2 / spacing**2


@dataclass(frozen=True, kw_only=True)
class ResidualSettings(GINRSettings):
    """Settings of `MambaGINR`.

    Attributes:
        layers: Mamba layers, each in both directions.
        blocks: Residual MLPs of the decoder.
    """

    layers: int = 6
    blocks: int = 3


@dataclass(frozen=True, kw_only=True)
class MultiBandSettings(GINRSettings):
    """Settings of a Mamba-GINR with a multi-band decoder.

    Attributes:
        heads: Attention heads of the decoder.
        jitter: Standard deviation of the training jitter, in cells.
    """

    heads: int = 2
    jitter: float = 1 / 6


@dataclass(frozen=True, kw_only=True)
class FourierSettings(MultiBandSettings):
    """Settings of `FourierMambaGINR`.

    Attributes:
        layers: Mamba layers, each in both directions.
    """

    layers: int = 6
    hidden: int = 256


@dataclass(frozen=True, kw_only=True)
class ScentSettings(MultiBandSettings):
    """Settings of `ScentMambaGINR`; its `width` is divisible by `token_heads`.

    Attributes:
        attention_layers: Self-attention layers.
        token_heads: Their heads.
        blocks: Gated MLPs in each branch of the decoder.
    """

    attention_layers: int = 2
    token_heads: int = 8
    blocks: int = 4

    def attention(self) -> list[nn.Module]:
        """Build layers of self-attention with gated MLPs."""
        return [
            TransformerBlock(
                self.width, self.token_heads, GatedFeedForward(self.width, 4 * self.width)
            )
            for _ in range(self.attention_layers)
        ]


@dataclass(frozen=True, kw_only=True)
class HybridSettings(ScentSettings):
    """Settings of `HybridMambaGINR`: those of `ScentMambaGINR` with more attention."""

    attention_layers: int = 4


S = TypeVar("S", bound=GINRSettings)


class FieldAutoencoder(Backbone, Generic[S]):
    r"""Encode a field once, decode it at any coordinates; noisy values and time are not read.

    In training the tokens may be read at jittered coordinates, so that the code changes little
    from one query to the next. The features that are decoded, like the value that is asked for,
    always belong to the exact coordinate; jitter that reached them would blur the field.

    Args:
        settings: Fields of `Settings`.

    Attributes:
        Settings: The settings of a model and their defaults.
        interleave: Position tokens stand among the patches, else behind them.
    """

    claims = Claims(query_invariant=True, order_invariant=True, linear_cost=True, autoencoder=True)
    Settings: type[S]
    interleave = True

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        chosen = self.Settings(**settings)
        self.encoder = PatchEncoder(
            chosen.channels,
            chosen.dims,
            chosen.width,
            positions=chosen.positions,
            sequence=self.sequence(chosen),
            latent=self.latent(chosen),
            cells=chosen.cells,
            max_frequency=chosen.max_frequency,
            order=chosen.order,
            interleave=self.interleave,
        )
        self.decoder = self.make_decoder(chosen)
        self.jitter = getattr(chosen, "jitter", 0.0)

    def sequence(self, settings: S) -> Sequence[nn.Module]:
        """Build the encoder's layers over all tokens."""
        raise NotImplementedError

    def latent(self, settings: S) -> Sequence[nn.Module]:
        """Build the encoder's layers over the position tokens alone."""
        return ()

    def make_decoder(self, settings: S) -> nn.Module:
        """Build the decoder: coordinates, places, tokens and their locations to values."""
        raise NotImplementedError

    def encode(self, obs: Observation) -> Code:
        """Encode the observations."""
        return self.encoder(obs)

    def forward(
        self, x_t: Tensor, t: Tensor, query: Query, prepared: Code | None = None
    ) -> Tensor:
        """Decode at the queries; see `Backbone.forward`."""
        code = self.encode(query.obs) if prepared is None else prepared
        places = query.coords
        if self.training and self.jitter:
            places = places + self.jitter * code.spacing * _noise_like(places, x_t)
        return self.decoder(query.coords, places, code.tokens, self.encoder.locations)


class MambaGINR(FieldAutoencoder[ResidualSettings]):
    """Mamba layers over interleaved patches and position tokens, and a residual decoder.

    Its features are fixed and nothing is random: the variant for exact reconstruction.
    """

    Settings = ResidualSettings

    def sequence(self, settings: ResidualSettings) -> Sequence[nn.Module]:
        """See `FieldAutoencoder.sequence`."""
        width, state = settings.width, settings.state
        return [
            MixerLayer(width, BidirectionalMamba(width, 1, state)) for _ in range(settings.layers)
        ]

    def make_decoder(self, settings: ResidualSettings) -> nn.Module:
        """See `FieldAutoencoder.make_decoder`."""
        return ResidualDecoder(
            settings.channels,
            settings.dims,
            settings.width,
            hidden=settings.hidden,
            blocks=settings.blocks,
            features=settings.features,
            max_frequency=settings.max_frequency,
            scale=settings.distance_scale,
        )


class FourierMambaGINR(FieldAutoencoder[FourierSettings]):
    """Mamba layers as in `MambaGINR`, averaged over directions, and a light multi-band decoder."""

    Settings = FourierSettings

    def sequence(self, settings: FourierSettings) -> Sequence[nn.Module]:
        """See `FieldAutoencoder.sequence`."""
        width, state = settings.width, settings.state
        return [MixerLayer(width, AveragedMamba(width, state)) for _ in range(settings.layers)]

    def make_decoder(self, settings: FourierSettings) -> nn.Module:
        """See `FieldAutoencoder.make_decoder`."""
        return _multi_band(settings, blocks=0)


class ScentMambaGINR(FieldAutoencoder[ScentSettings]):
    """One Mamba layer over patches, then position tokens; self-attention; a deep decoder.

    Position tokens stand behind the patches: the attention, which all tokens take part in, finds
    the patches of each.
    """

    Settings = ScentSettings
    interleave = False

    def sequence(self, settings: ScentSettings) -> Sequence[nn.Module]:
        """See `FieldAutoencoder.sequence`."""
        attention = settings.attention()
        return [BidirectionalMamba(settings.width, 1, settings.state), *attention]

    def make_decoder(self, settings: ScentSettings) -> nn.Module:
        """See `FieldAutoencoder.make_decoder`."""
        return _multi_band(settings, settings.blocks)


class HybridMambaGINR(FieldAutoencoder[HybridSettings]):
    """One Mamba layer over interleaved tokens; self-attention of the position tokens alone.

    The decoder is that of `ScentMambaGINR`. Attention sees the position tokens only, so its cost
    does not grow with the resolution of the observations.
    """

    Settings = HybridSettings

    def sequence(self, settings: HybridSettings) -> Sequence[nn.Module]:
        """See `FieldAutoencoder.sequence`."""
        return [BidirectionalMamba(settings.width, 1, settings.state)]

    def latent(self, settings: HybridSettings) -> Sequence[nn.Module]:
        """See `FieldAutoencoder.latent`."""
        return settings.attention()

    def make_decoder(self, settings: HybridSettings) -> nn.Module:
        """See `FieldAutoencoder.make_decoder`."""
        return _multi_band(settings, settings.blocks)


def _multi_band(settings: MultiBandSettings, blocks: int) -> MultiBandDecoder:
    return MultiBandDecoder(
        settings.channels,
        settings.dims,
        settings.width,
        hidden=settings.hidden,
        blocks=blocks,
        heads=settings.heads,
        features=settings.features,
        max_frequency=settings.max_frequency,
        scale=settings.distance_scale,
    )


def _noise_like(coords: Tensor, x_t: Tensor) -> Tensor:
    """Return normal noise of the shape of coords; the same for the same x_t.

    The noise of a training step is thus a function of the step, and a resumed run repeats it.
    """
    seed = x_t.detach().float().flatten()[:1].view(torch.int32).item()
    generator = torch.Generator().manual_seed(int(seed))
    return torch.randn(coords.shape, generator=generator).to(coords)
