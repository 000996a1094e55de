"""Mamba with the names, signatures and layouts of the packages mamba_ssm and causal_conv1d.

Code written for these packages runs on any processor once its imports come from here. Layouts are
channels first, (B, D, L), as there; the numbers come from `sparsefield.nn.scan`.
"""

from sparsefield.nn.mamba_ssm.convolution import causal_conv1d_fn, causal_conv1d_update
from sparsefield.nn.mamba_ssm.mixer import InferenceParams, Mamba
from sparsefield.nn.mamba_ssm.scan import selective_scan_fn, selective_state_update

__all__ = [
    "InferenceParams",
    "Mamba",
    "causal_conv1d_fn",
    "causal_conv1d_update",
    "selective_scan_fn",
    "selective_state_update",
]
