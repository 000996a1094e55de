"""Tables of many days as a data set: which rows belong together, and where they lie."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparsefield.core.errors import InputError
from sparsefield.data.formats.point_sets import Columns, holds_points, read_point_sets

ROWS = """station,Day,lat,lon,t,rain
a,2019-03-02,50,-3,1,10
b,2019-03-01,52,-1,2,20
c,2019-03-02,51,1,3,30
d,2019-03-01,50,-3,4,40
e,2019-03-01,51,0,5,50
f,2019-03-02,52,1,,60
"""


@pytest.fixture
def table(tmp_path):
    (tmp_path / "days.csv").write_text(ROWS)
    return tmp_path / "days.csv"


def test_rows_of_a_day_are_an_item_in_the_order_of_days(table):
    data = read_point_sets([table], Columns(values=("t",)))
    assert len(data) == 2 and data.points == 3
    np.testing.assert_array_equal(data.values[0, :, 0], [2, 4, 5])
    np.testing.assert_array_equal(data.values[1, :2, 0], [1, 3])
    assert data.known.sum(1).tolist() == [3, 2], "a row without a value was not observed"


def test_places_span_the_domain_and_latitude_comes_first(table):
    data = read_point_sets([table], Columns(values=("t",)))
    np.testing.assert_allclose(data.coords[0], [[1, 0], [-1, -1], [0, 0.5]])


def test_columns_are_guessed_and_all_that_hold_numbers_are_channels(table):
    data = read_point_sets([table], Columns())
    assert data.channels == 2
    assert data.normalizer.offset[1] == pytest.approx(30, rel=1e-6)


def test_parquet_holds_the_same(table, tmp_path):
    lines = [line.split(",") for line in ROWS.splitlines()]
    columns = {
        name: [row[at] if at < 2 else (float(row[at]) if row[at] else None) for row in lines[1:]]
        for at, name in enumerate(lines[0])
    }
    pq.write_table(pa.table(columns), tmp_path / "days.parquet")
    assert holds_points(tmp_path / "days.parquet") and holds_points(table)
    one, other = (
        read_point_sets([path], Columns(values=("t",)))
        for path in (table, tmp_path / "days.parquet")
    )
    np.testing.assert_array_equal(one.values, other.values)
    np.testing.assert_array_equal(one.coords, other.coords)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (Columns(item="hour"), "no column 'hour'.*columns are: station, Day.*data.item"),
        (Columns(values=("wind",)), "no column 'wind'"),
        (Columns(coords=("rain",), values=("t",), item="station"), "fewer than two points"),
    ],
)
def test_what_does_not_fit_is_named(table, columns, message):
    with pytest.raises(InputError, match=message):
        read_point_sets([table], columns)
