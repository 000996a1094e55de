"""The scan compiled for CPUs by numba."""
