"""`import sparsefield.xarray` gives every DataArray the accessor `.sparsefield`."""

try:
    import xarray
except ImportError as error:
    raise ImportError("sparsefield.xarray needs sparsefield[geo]") from error

from sparsefield.integrations.accessor import FieldAccessor, GapWarning

__all__ = ["FieldAccessor", "GapWarning"]

xarray.register_dataarray_accessor("sparsefield")(FieldAccessor)
