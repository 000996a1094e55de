import json

import pytest
import torch

from sparsefield.core.errors import InputError
from sparsefield.data.normalize import Normalizer


def test_unit_range_maps_images_to_minus_one_and_one():
    scaling = Normalizer.unit_range(3)
    image = torch.tensor([[0.0, 0.5, 1.0]])
    torch.testing.assert_close(scaling.apply(image), torch.tensor([[-1.0, 0.0, 1.0]]))
    torch.testing.assert_close(scaling.clip(image * 3 - 1), torch.tensor([[0.0, 0.5, 1.0]]))


def test_fit_standardises_each_channel_and_inverts():
    values = torch.randn(2, 63, 2) * torch.tensor([3.0, 0.1]) + torch.tensor([280.0, -4.0])
    scaling = Normalizer.fit(values)
    scaled = scaling.apply(values)
    torch.testing.assert_close(scaled.mean(dim=(0, 1)), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std(dim=(0, 1), correction=0), torch.ones(2))
    torch.testing.assert_close(scaling.invert(scaled), values)


def test_constant_channel_stays_finite():
    scaling = Normalizer.fit(torch.full((4, 1), 7.0))
    assert scaling.apply(torch.tensor([[7.0]])).item() == 0


def test_values_without_bounds_are_not_clipped():
    values = torch.tensor([[-1e6, 1e6]])
    assert torch.equal(Normalizer((0.0, 0.0), (1.0, 1.0)).clip(values), values)


@pytest.mark.parametrize("scaling", [Normalizer.unit_range(2), Normalizer((1.5,), (2.5,))])
def test_json_round_trip(scaling):
    assert Normalizer.from_dict(json.loads(json.dumps(scaling.to_dict()))) == scaling


@pytest.mark.parametrize(("offset", "scale"), [((0.0,), (0.0,)), ((0.0,), ()), ((), ())])
def test_parameters_that_cannot_be_inverted_are_an_error(offset, scale):
    with pytest.raises(InputError):
        Normalizer(offset, scale)


@pytest.mark.parametrize(
    "changes",
    [
        {"offset": None},
        {"offset": ["a"]},
        {"offset": [float("nan")]},
        {"offset": 3},
        {"scale": [[1.0]]},
        {"scale": [float("inf")]},
        {"scale": [-1.0]},
        {"low": 1.0, "high": 0.0},
        {"low": float("nan"), "high": 1.0},
        {"low": "x"},
    ],
)
def test_damaged_descriptions_are_an_error(changes):
    sound = Normalizer((1.5,), (2.5,), 0.0, 1.0).to_dict()
    with pytest.raises(InputError):
        Normalizer.from_dict(sound | changes)
    for key in sound:
        with pytest.raises(InputError):
            Normalizer.from_dict({name: value for name, value in sound.items() if name != key})
