"""Local attention in plain PyTorch: any device and precision; gathers every neighbour's row."""

import math

import torch
from torch import Tensor


def attend_gather(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, index: Tensor) -> Tensor:
    """Return y (B, L, H, E); see `local_attention`."""
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    item = torch.arange(len(q), device=q.device)[:, None, None]
    keys, values = (x.to(dtype)[item, index] for x in (k, v))  # (B, L, K, H, E)
    with torch.autocast(q.device.type, enabled=False):
        scores = torch.einsum("blhe,bljhe->bljh", q.to(dtype), keys) / math.sqrt(q.shape[-1])
        scores = scores + bias.to(dtype)
        blind = torch.isneginf(scores).all(dim=2, keepdim=True)  # a query without neighbours
        weights = scores.masked_fill(blind, 0.0).softmax(dim=2).masked_fill(blind, 0.0)
        return torch.einsum("bljh,bljhe->blhe", weights, values).to(q.dtype)
