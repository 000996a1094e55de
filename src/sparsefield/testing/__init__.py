"""Public contracts: call them on a backbone or a sampler of your own.

Each raises an AssertionError whose sentence says what does not hold. The package's own tests call
them over its registries.
"""

from sparsefield.testing.backbones import check_backbone
from sparsefield.testing.samplers import check_sampler

__all__ = ["check_backbone", "check_sampler"]
