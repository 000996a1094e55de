"""The scan in plain PyTorch: the definition, and two faster forms of it."""
