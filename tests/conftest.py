"""Settings shared by all tests."""

import os

import pytest
import torch


def pytest_configure(config):
    """Let workers that run side by side share the cores instead of fighting for them."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


@pytest.fixture(autouse=True)
def _seeded():
    """Start every test from the same global random state."""
    torch.manual_seed(0)
