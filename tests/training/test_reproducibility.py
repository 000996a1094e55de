"""What the last digits of training depend on, and what they do not."""

import pytest
import torch

from sparsefield.nn.scan import selective_scan


@pytest.fixture
def threads():
    """Return a function that sets the number of threads, which the test leaves as it was."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def scan_gradients():
    generator = torch.Generator().manual_seed(3)
    B, L, D, N = 3, 150, 40, 6
    shapes = {"u": (B, L, D), "delta": (B, L, D), "A": (D, N), "B": (B, L, N), "C": (B, L, N)}
    inputs = {
        name: torch.randn(shape, generator=generator).requires_grad_()
        for name, shape in shapes.items()
    }
    negative = -inputs["A"].exp()
    out = selective_scan(**{**inputs, "A": negative}, backend="cpu")
    out.square().sum().backward()
    return [out, *(x.grad for x in inputs.values())]


def test_no_bit_of_the_scan_depends_on_the_number_of_threads(threads):
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(scan_gradients())
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
