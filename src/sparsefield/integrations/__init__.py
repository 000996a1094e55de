"""sparsefield inside scikit-learn and xarray."""
