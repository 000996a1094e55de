"""Fields and their measurements: grids, masks, observations, normalisation, data sets, files."""
