"""Settings of the tests of layers and kernels."""

import pytest
import torch

from sparsefield.nn.scan.cpu import threads


@pytest.fixture(autouse=True)
def _poisoned_memory():
    """Fill memory that nobody has written yet with NaN, so that who reads it is found out."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def _free_processors(monkeypatch):
    """Let kernels take all threads that they may, however busy the machine that tests run on."""
    monkeypatch.setattr(threads._judge, "prefers_one", lambda: False)
