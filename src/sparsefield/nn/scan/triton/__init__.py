"""The scan in Triton kernels, for GPUs."""
