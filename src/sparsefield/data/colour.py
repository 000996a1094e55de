"""Grey and colour: observations of images for models of either."""

import torch

from sparsefield.core.errors import InputError
from sparsefield.data.observation import Observation

# Share of red, green and blue in luma: ITU-R BT.601, as in Pillow's conversion to L.
LUMA = (0.299, 0.587, 0.114)


def match_channels(obs: Observation, channels: int, model: str) -> Observation:
    r"""Return observed pixels with the channels of a model.

    Colours become grey by their luma, :math:`0.299 R + 0.587 G + 0.114 B`, and the error of that
    by the propagation of independent ones. Greys become colours of three equal channels.

    Args:
        obs: Observed pixels of 1 or 3 channels.
        channels: Channels of the model.
        model: What an error message calls it.

    Raises:
        InputError: The numbers of channels differ, and are not 1 and 3.
    """
    if obs.channels == channels:
        return obs
    if {obs.channels, channels} != {1, 3}:
        kind = {1: "a grey", 3: "a colour"}.get(obs.channels, "an")
        raise InputError(
            f"model '{model}' has {channels} channels, and {kind} image has {obs.channels}"
        )
    if channels == 1:
        weights = torch.tensor(LUMA, dtype=obs.values.dtype)[:, None]
        noise = None if obs.noise is None else (obs.noise**2 @ weights**2).sqrt()
        values = obs.values @ weights
    else:
        noise = None if obs.noise is None else obs.noise.expand(*obs.noise.shape[:-1], 3)
        values = obs.values.expand(*obs.values.shape[:-1], 3)
    return Observation(obs.coords, values, noise, valid=obs.valid, grid=obs.grid)
