"""Classical interpolation, which runs beside every model."""
