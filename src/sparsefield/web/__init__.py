"""A page to play with: observe, reconstruct, compare. It calls what the command line calls."""
