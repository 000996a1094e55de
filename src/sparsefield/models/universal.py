"""The universal interpolator: a network that reads a bank of Gaussian experts and decides."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparsefield.nn.experts.groups import GROUPS, Forecasts, Problem, distances
from sparsefield.nn.mixture import Mixture

PARTS = 5
EVIDENCE_FLOOR = (
    -25.0
)  # groups that are less likely than the best by more are as good as ruled out


class Features(NamedTuple):
    """What the network reads, float32, the same for every choice of units.

    Attributes:
        glob: About the whole field (B, Fg).
        observed: About every observation (B, N, Fo).
        asked: About every query (B, Q, Fq).
        near: Logarithm of the distance between observations, in units (B, N, N).
        far: The same from queries to observations (B, Q, N).
        valid: Which observations count (B, N).
        evidence: Log evidence of the groups less that of the best (B, G).
        mean: Means of the groups at the queries (B, Q, G).
        var: Variances of a new value (B, Q, G).
        field_var: Variances of the noise-free field (B, Q, G).
    """

    glob: Tensor
    observed: Tensor
    asked: Tensor
    near: Tensor
    far: Tensor
    valid: Tensor
    evidence: Tensor
    mean: Tensor
    var: Tensor
    field_var: Tensor


class Prediction(NamedTuple):
    """Predictive distributions in standardised values.

    Attributes:
        value: Of a new measurement (B, Q).
        field_std: Standard deviation of the noise-free field (B, Q); its mean is that of `value`.
    """

    value: Mixture
    field_std: Tensor


def make_features(problem: Problem, said: Forecasts, stated: Tensor) -> Features:
    """Turn what the experts say into numbers of moderate size.

    Args:
        problem: Standardised observations and queries.
        said: Forecasts of the experts.
        stated: Root mean square of the stated noise (B,), in standard deviations of the values;
            NaN where none is stated.
    """
    valid = problem.valid
    evidence = (said.evidence - said.evidence.amax(1, keepdim=True)).clamp_min(EVIDENCE_FLOOR)
    share = (evidence / 2).softmax(1)[:, None]
    values = problem.values * valid
    left = _against_consensus(share, said.left_mean, said.left_var)
    surprise = (values[..., None] - said.left_mean) / said.left_var.sqrt()
    near = distances(problem.coords, problem.coords) / said.unit[:, None, None]
    blind = ~valid[:, None] | torch.eye(valid.shape[1], dtype=torch.bool)
    closest = near.masked_fill(blind, torch.inf).amin(-1).clamp(1e-4, 1e2)
    observed = torch.cat(
        [
            torch.asinh(torch.cat([values[..., None], surprise], -1)),
            left,
            closest.log()[..., None],
            problem.noise.clamp(1e-4, 1e4).log()[..., None],
        ],
        dim=-1,
    )
    far = distances(problem.query, problem.coords) / said.unit[:, None, None]
    gap = far.masked_fill(~valid[:, None], torch.inf).amin(-1).clamp(1e-4, 1e2)
    average = (share * said.mean).sum(-1)
    own = (share * said.field_var).sum(-1) / (share * said.var).sum(-1)
    asked = torch.cat(
        [
            _against_consensus(share, said.mean, said.var),
            torch.asinh(average)[..., None],
            gap.log()[..., None],
            own.clamp_min(1e-6).log()[..., None],
        ],
        dim=-1,
    )
    glob = _global_features(problem, said, evidence, surprise, closest, stated)
    return Features(
        glob.float(),
        (observed * valid[..., None]).float(),
        asked.float(),
        _log_distance(near).float(),
        _log_distance(far).float(),
        valid,
        evidence.float(),
        said.mean.float(),
        said.var.float(),
        said.field_var.float(),
    )


def _log_distance(distance: Tensor) -> Tensor:
    return distance.clamp(1e-3, 1e2).log()


def _against_consensus(share: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """Return how each group differs from the consensus, and the consensus' own size."""
    average = (share * mean).sum(-1, keepdim=True)
    total = (share * (var + (mean - average).square())).sum(-1, keepdim=True)
    ratio = (var / total).log().clamp(-10, 10) / 2
    size = total.log().clamp(-20, 10) / 2
    return torch.cat([torch.asinh((mean - average) / total.sqrt()), ratio, size], dim=-1)


def _global_features(
    problem: Problem,
    said: Forecasts,
    evidence: Tensor,
    surprise: Tensor,
    closest: Tensor,
    stated: Tensor,
) -> Tensor:
    """Return numbers (B, F) about a whole field, none of which depends on an order."""
    weight = problem.valid.to(surprise.dtype)
    count = weight.sum(1, keepdim=True)

    def mean(x: Tensor) -> Tensor:
        """Average over valid observations (B, N, ...)."""
        x = torch.where(problem.valid.view(*problem.valid.shape, *(1,) * (x.ndim - 2)), x, 0.0)
        return x.sum(1) / count.view(-1, *(1,) * (x.ndim - 2))

    score = mean(-surprise.square().clamp_max(100) / 2 - said.left_var.log() / 2)
    moments = [
        torch.asinh(mean(x**power)).reshape(len(x), -1)
        for x in (problem.values[..., None], surprise.clamp(-10, 10))
        for power in (3, 4)
    ]
    known = ~stated.isnan()[:, None]
    axes = torch.zeros(len(stated), 3, dtype=surprise.dtype)
    axes[:, min(problem.coords.shape[-1], 3) - 1] = 1
    return torch.cat(
        [
            evidence.softmax(1),
            evidence / 5,
            (score - score.amax(1, keepdim=True)).clamp_min(-5),
            torch.asinh(score.amax(1, keepdim=True)),
            *moments,
            count.log() - 3,
            mean(closest.log())[:, None],
            mean(closest.log().square())[:, None].sqrt(),
            known.to(surprise.dtype),
            torch.where(known, stated[:, None].clamp(1e-4, 1e2).log(), 0.0),
            axes,
        ],
        dim=1,
    )


GLOBAL_FEATURES = 3 * GROUPS + 1 + 2 * (1 + GROUPS) + 5 + 3
OBSERVED_FEATURES = 1 + GROUPS + 2 * GROUPS + 1 + 2
ASKED_FEATURES = 2 * GROUPS + 1 + 3


class UniversalInterpolator(nn.Module):
    """Weigh and correct the forecasts of Gaussian experts, in context.

    Observations and queries are tokens that carry what the experts say and how wrong they were
    where they can be checked. Observations attend to each other, and queries to observations, by
    content and distance. The head moves the weights of the groups away from their evidence, shifts
    the mean, and shapes a mixture; before any training it is their average by tempered evidence.
    Only distances enter: nothing depends on a rotation, a shift or the number of axes.

    Args:
        width: Channels D of a token.
        heads: Attention heads.
        encoder_layers: Layers over the observations.
        decoder_layers: Layers from queries to observations.
    """

    def __init__(
        self,
        width: int = 96,
        heads: int = 6,
        encoder_layers: int = 2,
        decoder_layers: int = 2,
    ) -> None:
        super().__init__()
        self.options = {
            "width": width,
            "heads": heads,
            "encoder_layers": encoder_layers,
            "decoder_layers": decoder_layers,
        }
        self.field = nn.Sequential(
            nn.Linear(GLOBAL_FEATURES, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )
        self.observed = nn.Linear(OBSERVED_FEATURES, width)
        self.asked = nn.Linear(ASKED_FEATURES, width)
        self.encoder = nn.ModuleList(Block(width, heads) for _ in range(encoder_layers))
        self.decoder = nn.ModuleList(Block(width, heads) for _ in range(decoder_layers))
        self.encoder_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.head = nn.Linear(width, GROUPS + 2 + 3 * PARTS)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        prior = torch.zeros(GROUPS)
        prior[-4:] = torch.tensor([1.0, 0.0, -1.0, -2.0])
        self.prior = nn.Parameter(prior)
        self.temper = nn.Parameter(torch.tensor(0.5))
        places = torch.linspace(-0.9, 0.9, PARTS)
        self.register_buffer("places", places, persistent=False)
        # The same as a sum of numbers, since a network that is only described has no values.
        squares = [(1.8 * part / (PARTS - 1) - 0.9) ** 2 for part in range(PARTS)]
        self.part_scale = math.sqrt(1 - sum(squares) / PARTS)

    def forward(self, x: Features) -> Prediction:
        """Predict at the queries."""
        raw = self.decide(x)
        weight = self.weigh(raw, x.evidence)
        mean = (weight * x.mean).sum(-1)
        gap = (x.mean - mean[..., None]).square()
        var, field_var = ((weight * (part + gap)).sum(-1) for part in (x.var, x.field_var))
        return self.shape(raw, mean, var, field_var)

    def decide(self, x: Features) -> Tensor:
        """Return the raw decisions (B, Q, R): on whom to rely, and how to correct them."""
        field = self.field(x.glob)[:, None]
        tokens = self.observed(x.observed) + field
        for block in self.encoder:
            tokens = block(tokens, None, x.near, x.valid)
        tokens = self.encoder_norm(tokens)
        queries = self.asked(x.asked) + field
        for block in self.decoder:
            queries = block(queries, tokens, x.far, x.valid)
        raw: Tensor = self.head(self.norm(queries)).float()
        return raw

    def weigh(self, raw: Tensor, evidence: Tensor) -> Tensor:
        """Return the weights (B, Q, G) of the groups.

        Args:
            raw: What `decide` returned.
            evidence: Log evidence of the groups (B, G).
        """
        logits = self.temper * evidence[:, None] + self.prior + raw[..., :GROUPS]
        return logits.softmax(-1)

    def shape(self, raw: Tensor, mean: Tensor, var: Tensor, field_var: Tensor) -> Prediction:
        """Return predictions from the moments of the weighed experts, each (B, Q).

        Args:
            raw: What `decide` returned.
            mean: Mean.
            var: Variance of a new value.
            field_var: Variance of the noise-free field.
        """
        shift, own, place, size, share = raw[..., GROUPS:].split([1, 1, PARTS, PARTS, PARTS], -1)
        std = var.sqrt()
        mean = mean + std * shift[..., 0]
        places = self.places + place
        scales = self.part_scale * (2 * torch.tanh(size / 2)).exp()
        value = Mixture(share.log_softmax(-1), places, scales).affine(mean, std)
        quiet = (field_var / var).clamp(1e-6, 1 - 1e-6)
        own_share = torch.sigmoid(torch.logit(quiet) + own[..., 0])
        return Prediction(value, value.std * own_share.sqrt())


class Block(nn.Module):
    """Attention by content and distance, and an MLP; pre-norm, residual.

    Args:
        width: Channels D; divisible by `heads`.
        heads: Attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.bias = DistanceBias(heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)
        )

    def forward(
        self, x: Tensor, context: Tensor | None, distance: Tensor, valid: Tensor
    ) -> Tensor:
        """Update tokens (B, L, D) from a normalised context (B, N, D), or from each other."""
        y = self.norm(x)
        q = self._split(self.query(y))
        k, v = (
            self._split(z) for z in self.key_value(y if context is None else context).chunk(2, -1)
        )
        bias = self.bias(distance).masked_fill(~valid[:, None, None], -torch.inf)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.mlp_norm(x))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class DistanceBias(nn.Module):
    """What each head adds for a distance: piecewise linear in its logarithm.

    Args:
        heads: Attention heads.
        knots: Number of knots between the shortest and the longest log distance.
    """

    def __init__(self, heads: int, knots: int = 12) -> None:
        super().__init__()
        self.low, self.step = math.log(1e-3), math.log(1e4) / (knots - 1)
        start = torch.linspace(0, 1, knots)[:, None] * -torch.linspace(0, 12, heads)
        self.table = nn.Parameter(start)

    def forward(self, log_distance: Tensor) -> Tensor:
        """Return biases (B, H, L, N) for log distances (B, L, N)."""
        place = ((log_distance - self.low) / self.step).clamp(0, len(self.table) - 1.001)
        knot = place.floor()
        rest = (place - knot)[:, None]
        columns = self.table.t()
        index = knot.long()
        low, high = columns[:, index], columns[:, index + 1]
        return low.transpose(0, 1) * (1 - rest) + high.transpose(0, 1) * rest
