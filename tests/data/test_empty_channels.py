"""A channel without a single number is named in one line, whatever it comes in."""

import numpy as np
import pytest

from sparsefield.core.errors import InputError
from sparsefield.data.dataset import open_dataset
from sparsefield.data.formats.reading import read
from sparsefield.data.observation import Observation

COORDS = np.random.default_rng(0).uniform(-1, 1, (9, 2))
VALUES = np.random.default_rng(1).normal(size=(9, 3))
VALUES[:, 1] = np.nan


def table(cell):
    """Return a reader of a table whose second channel holds the same text in every row."""

    def write(folder):
        numbers = np.hstack([COORDS, VALUES])
        rows = [f"{y},{x},{a},{cell},{b}" for y, x, a, _, b in numbers]
        (folder / "t.csv").write_text("\n".join(["y,x,a,empty,b", *rows]))
        return read(folder / "t.csv")

    return write


def archive(folder):
    np.savez(folder / "o.npz", coords=COORDS, values=VALUES)
    return read(folder / "o.npz")


def fields(folder):
    np.save(folder / "d.npy", np.broadcast_to(VALUES, (4, 5, 9, 3)))
    return open_dataset(folder / "d.npy", split="all", channels="last")


SOURCES = {
    "array": lambda folder: Observation(COORDS, VALUES),
    "masked array": lambda folder: Observation(COORDS, np.ma.masked_invalid(VALUES)),
    "batch": lambda folder: Observation(COORDS[None], VALUES[None]),
    "table of blanks": table(""),
    "table of NaN": table("nan"),
    "archive": archive,
    "fields": fields,
}


@pytest.mark.parametrize("name", SOURCES)
def test_an_empty_channel_is_named(name, tmp_path):
    with pytest.raises(InputError, match="nothing is known of channel 2 of 3") as found:
        SOURCES[name](tmp_path)
    assert "\n" not in str(found.value)


def test_a_channel_with_one_number_is_another_matter():
    values = VALUES.copy()
    values[3, 1] = 0.5
    with pytest.raises(InputError, match="8 of 27 values are NaN"):
        Observation(COORDS, values)
