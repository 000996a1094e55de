"""The part of a sequence that a program holds in registers."""

TILE = 16  # tokens: with more, the backward of a tile would not fit the registers of a thread
LANES = 32  # channels: with more than a warp, sums over them would go through shared memory
