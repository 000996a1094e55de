"""Which rows of a table belong together: tracks, stations, cruises."""

from pathlib import Path

import numpy as np

from sparsefield.core.errors import InputError
from sparsefield.data.formats.places import read_any_table
from sparsefield.data.observation import Observation


def read_groups(path: Path, name: str, obs: Observation) -> np.ndarray:
    """Return the group of every measurement (M,), as text.

    Args:
        path: The table.
        name: Its column of groups.
        obs: What was read from it.

    Raises:
        InputError: The file is no table, lacks the column, or the group of a measurement is
            missing.
    """
    if not obs.quantities:
        raise InputError(f"{path}: groups are a column of a table, and this is none")
    table = read_any_table(path)
    cells = np.ma.masked_array(table.find(name).cells)
    values = table.numbers([quantity.name for quantity in obs.quantities])
    seen = ~np.ma.getmaskarray(values).all(axis=1)
    groups = np.ma.masked_array(cells.astype(str), np.ma.getmaskarray(cells))[seen].filled("")
    if (groups == "").any():
        line = np.asarray(table.lines)[seen][int((groups == "").argmax())]
        raise InputError(f"{path}: line {line} has nothing in column '{name}'")
    return np.asarray(groups)
