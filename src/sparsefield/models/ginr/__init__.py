"""Mamba-GINR autoencoders: a whole field in, a continuous field out."""
