"""The Mamba layer and its stacks."""

import math

import pytest
import torch
import torch.nn.functional as F

from sparsefield.nn.mamba import (
    BidirectionalMamba,
    MambaBlock,
    MambaMixer,
    MambaStack,
    _stretch,
)

B, L, D, STATE = 2, 23, 12, 5


def recurrence(mixer, x):
    """The layer's equations, one token at a time."""
    u, z = mixer.in_proj(x).chunk(2, dim=-1)
    taps = mixer.conv_weight.flip(0)
    past = [F.pad(u, (0, 0, k, 0))[:, :L] for k in range(len(taps))]
    u = F.silu(
        sum(weight * shifted for weight, shifted in zip(taps, past, strict=True)) + mixer.conv_bias
    )
    step, b, c = mixer.x_proj(u).split([mixer.rank, mixer.state, mixer.state], dim=-1)
    delta = F.softplus(mixer.dt_proj(step) + mixer.dt_bias)
    a = -mixer.A_log.exp()
    h, outputs = torch.zeros(B, u.shape[-1], mixer.state), []
    for k in range(L):
        width = delta[:, k, :, None]
        h = torch.exp(width * a) * h + width * b[:, k, None] * u[:, k, :, None]
        outputs.append((h * c[:, k, None]).sum(-1) + mixer.D * u[:, k])
    return mixer.out_proj(torch.stack(outputs, dim=1) * F.silu(z))


def test_mixer_follows_its_equations():
    mixer, x = MambaMixer(D, STATE), torch.randn(B, L, D)
    torch.testing.assert_close(mixer(x), recurrence(mixer, x), atol=1e-5, rtol=1e-4)


def test_reverse_is_a_flip_before_and_after():
    mixer, x = MambaMixer(D, STATE), torch.randn(B, L, D)
    torch.testing.assert_close(
        mixer(x, reverse=True), mixer(x.flip(1)).flip(1), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("reverse", [False, True])
def test_a_token_changes_only_what_is_read_after_it(reverse):
    stack, x = MambaStack(D, 2, STATE, reverse=reverse), torch.randn(B, L, D)
    changed = x.clone()
    changed[:, 9] = torch.randn(B, D)
    change = (stack(x) - stack(changed)).abs().amax(dim=(0, 2))
    read_later = torch.arange(L) <= 9 if reverse else torch.arange(L) >= 9
    assert (change[read_later] > 0).all()
    assert (change[~read_later] < 1e-6).all()


@pytest.mark.parametrize(
    "build",
    [
        lambda: MambaStack(D, 2, STATE, hidden=7),
        lambda: MambaStack(D, 2, STATE, reverse=True),
        lambda: BidirectionalMamba(D, 2, STATE, hidden=7),
    ],
)
def test_padding_at_the_end_is_inert(build):
    mamba, x = build(), torch.randn(B, L, D)
    valid = torch.arange(L) < torch.tensor([[L], [15]])
    padded = torch.where(valid[..., None], x, torch.full_like(x, 100.0))
    out = mamba(padded, valid)
    torch.testing.assert_close(out[0], mamba(x[:1])[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(out[1, :15], mamba(x[1:, :15])[0], atol=1e-5, rtol=1e-4)


def test_step_sizes_start_between_a_thousandth_and_a_tenth():
    steps = F.softplus(MambaMixer(64, STATE).dt_bias)
    assert steps.min() >= 1e-3 * (1 - 1e-3)
    assert steps.max() <= 1e-1 * (1 + 1e-3)
    assert steps.log().mean().item() == pytest.approx(math.log(1e-2), abs=0.5)


def test_perceptron_is_there_only_if_asked_for():
    plain, wide = MambaBlock(D, STATE), MambaBlock(D, STATE, hidden=7)
    assert len(list(plain.parameters())) + 6 == len(list(wide.parameters()))


def test_gaps_of_one_are_no_gaps():
    mixer, x = MambaMixer(D, STATE), torch.randn(B, L, D)
    for reverse in (False, True):
        same = mixer(x, reverse, gaps=torch.ones(B, L))
        torch.testing.assert_close(same, mixer(x, reverse), atol=1e-5, rtol=1e-4)


def test_a_gap_stretches_the_step_that_crosses_it():
    delta, gaps = torch.randn(B, L, D) * 3, torch.rand(B, L) * 20 + 1e-3
    stretched = F.softplus(_stretch(delta, gaps))
    torch.testing.assert_close(
        stretched, F.softplus(delta) * gaps[..., None], rtol=1e-4, atol=1e-7
    )


def test_reading_backwards_crosses_the_same_gaps():
    """The gap before a token, read forwards, is the gap after it, read backwards."""
    mixer, x = MambaMixer(D, STATE), torch.randn(B, L, D)
    gaps = torch.rand(B, L) * 5 + 0.1
    mirrored = torch.cat([gaps[:, :1], gaps[:, 1:].flip(1)], dim=1)
    torch.testing.assert_close(
        mixer(x, reverse=True, gaps=gaps),
        mixer(x.flip(1), gaps=mirrored).flip(1),
        atol=1e-5,
        rtol=1e-4,
    )


def test_a_wide_gap_forgets():
    mixer, x = MambaMixer(D, STATE, conv=1), torch.randn(B, L, D)
    gaps = torch.ones(B, L)
    gaps[:, 12] = 1e6
    changed = x.clone()
    changed[:, :12] = torch.randn(B, 12, D)
    before, after = (mixer(y, gaps=gaps) for y in (x, changed))
    assert (before[:, :12] - after[:, :12]).abs().max() > 1e-3
    torch.testing.assert_close(before[:, 12:], after[:, 12:])
