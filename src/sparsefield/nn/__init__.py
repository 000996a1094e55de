"""Building blocks of the backbones: features, attention, state-space layers, point orders."""
