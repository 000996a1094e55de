"""Public contracts: call them on a backbone, a sampler or a format of your own.

Each raises an AssertionError whose sentence says what does not hold. The package's own tests call
them over its registries.
"""

from sparsefield.testing.backbones import check_backbone
from sparsefield.testing.formats import check_format
from sparsefield.testing.samplers import check_sampler

__all__ = ["check_backbone", "check_format", "check_sampler"]
