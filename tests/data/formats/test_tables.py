"""Tables as spreadsheets, instruments and people write them."""

import bz2
import gzip
import logging
import lzma
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sparsefield as sf
from sparsefield.core.errors import InputError

COORDS = [[-0.5, 0.25], [0.75, 0.5], [0.125, -1.0]]
VALUES = [[1.5, -2.0], [3.25, 0.0], [1e-3, 7.0]]
PLAIN = "y,x,a,b\n-0.5,0.25,1.5,-2\n0.75,0.5,3.25,0\n0.125,-1,1e-3,7\n"
GERMAN = PLAIN.replace(",", ";").replace(".", ",")

SPELLINGS = {
    "plain": PLAIN.encode(),
    "byte-order mark": b"\xef\xbb\xbf" + PLAIN.encode(),
    "UTF-16 of a spreadsheet": PLAIN.encode("utf-16"),
    "blank lines": ("\n" + PLAIN.replace("\n", "\n\n") + "\n\n  \n").encode(),
    "blank cells at the end": (PLAIN + ",,,\n").encode(),
    "no last line end": PLAIN.rstrip().encode(),
    "Windows line ends": PLAIN.replace("\n", "\r\n").encode(),
    "old Mac line ends": PLAIN.replace("\n", "\r").encode(),
    "semicolons": PLAIN.replace(",", ";").encode(),
    "tabs": PLAIN.replace(",", "\t").encode(),
    "decimal commas": GERMAN.encode(),
    "decimal commas and tabs": GERMAN.replace(";", "\t").encode(),
    "decimal commas in quotes": b'"y";"x";"a";"b"\n"-0,5";"0,25";"1,5";"-2"\n'
    + "\n".join(GERMAN.splitlines()[2:]).encode(),
    "quoted names": PLAIN.replace("y,x,a,b", '"y","x","a","b"').encode(),
    "spaces": PLAIN.replace(",", " , ").encode(),
    "another order": b"b,x,a,y\n-2,0.25,1.5,-0.5\n0,0.5,3.25,0.75\n7,-1,1e-3,0.125\n",
}


def read_text(tmp_path, text, name="in.csv", **options):
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / name).write_bytes(data)
    return sf.read(tmp_path / name, **options)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_a_table_is_the_same_observation(tmp_path, spelling):
    obs = read_text(tmp_path, SPELLINGS[spelling])
    assert obs.coords.tolist() == COORDS
    expected = np.array(VALUES)[:, ::-1] if spelling == "another order" else VALUES
    assert np.array_equal(obs.values, expected)
    assert obs.noise is None and obs.grid is None


@pytest.mark.parametrize("name", ["IN.CSV", "in.Csv", "in.tsv", "in.TXT"])
def test_suffixes_may_be_of_any_case(tmp_path, name):
    assert read_text(tmp_path, PLAIN, name).coords.tolist() == COORDS


def test_options_that_are_none_are_listed(tmp_path):
    with pytest.raises(InputError, match="read takes no speed; its options are coords, value"):
        read_text(tmp_path, PLAIN, speed=2)


def test_names_may_hold_anything(tmp_path):
    text = 'y;x;"Temperatur, °C"\n0,5;0,25;1,5\n'
    for encoding in ("utf-8", "latin-1"):
        obs = read_text(tmp_path, text.encode(encoding), value="Temperatur, °C")
        assert obs.values.tolist() == [[1.5]]


def test_many_numbers_are_read_in_seconds(tmp_path):
    rows = 250_000
    numbers = np.random.default_rng(0).uniform(-1, 1, (rows, 4)).round(4)
    text = "y,x,v,w\n" + "\n".join(",".join(map(str, row)) for row in numbers.tolist())
    start = time.process_time()
    obs = read_text(tmp_path, text)
    assert time.process_time() - start < 10
    assert np.array_equal(np.hstack([obs.coords, obs.values]), numbers)


def test_lines_of_errors_are_those_of_the_file(tmp_path):
    for blank in ("", "\n\n"):
        text = f"y,x,v\n0,0,1\n{blank}0,0.5,+2e0\n" + "0.5,0,3\n" * 1000 + "0,0,many\n"
        line = text.count("\n")
        with pytest.raises(InputError, match=f"line {line} has 'many' in column 'v'"):
            read_text(tmp_path, text)
        assert read_text(tmp_path, text.replace("0,0,many\n", "")).count == 1002


def test_columns_are_chosen_by_name(tmp_path):
    text = "station,lat,lon,t,sd\n7,0.5,-0.5,280,0.1\n8,-0.25,0,281,0.2\n"
    obs = read_text(tmp_path, text, coords=("lat", "lon"), value="t", noise="sd")
    np.testing.assert_allclose(obs.physical(), [[0.5, -0.5], [-0.25, 0.0]], atol=1e-12)
    assert obs.values.tolist() == [[280.0], [281.0]]
    assert obs.noise.tolist() == [[0.1], [0.2]]
    assert read_text(tmp_path, PLAIN, noise=0.5).noise.unique().tolist() == [0.5]


@pytest.mark.parametrize(
    ("header", "dims"), [("x,v", 1), ("y,x,v", 2), ("z,y,x,v", 3), ("x,y,z", 2), ("x,a,b", 1)]
)
def test_axes_are_those_that_a_table_has(tmp_path, header, dims):
    row = ",".join("0.5" for _ in header.split(","))
    assert read_text(tmp_path, f"{header}\n{row}\n").dims == dims
    assert read_text(tmp_path, "y,x,z\n0.5,0.5,3\n", value="z").values.item() == 3


def test_digits_of_double_precision_stay(tmp_path):
    obs = read_text(tmp_path, "x,v\n0.1,100000.001\n")
    assert (obs.coords.item(), obs.values.item()) == (0.1, 100000.001)


def test_empty_cells_were_not_observed(tmp_path):
    obs = read_text(tmp_path, "y,x,v\n0,0,1\n0.5,0.5,\n,,\n0.25,0.25,2\n")
    assert obs.values.tolist() == [[1.0], [2.0]]
    assert obs.coords.tolist() == [[0.0, 0.0], [0.25, 0.25]]


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("", {}, "is empty"),
        ("\n\n", {}, "is empty"),
        ("a,b,c\n1,2,3\n", {}, "header with y, x .* lat, lon.* it has a, b, c"),
        ("y,x\n1,2\n", {"value": "x"}, "or x, or z, y, x"),
        ("0.5,0.5,3\n", {}, "it has 0.5, 0.5, 3"),
        ("y,x,v\n", {}, "at least one point"),
        ("y,x,v\n0,0,oops\n", {}, "line 2 has 'oops' in column 'v'"),
        ("\ny,x,v\n\n0,0,1\n0,0,1_000\n", {}, "line 5 has '1_000'"),
        ("y;x;v\n0;0;1.234,5\n", {}, "line 2 has '1.234,5'"),
        ("y,x,v\n0,0,1\n0,0\n", {}, "line 3 has 2 cells, and the header 3"),
        ("y,x,v\n0,0,1,2\n", {}, "line 2 has 4 cells"),
        ("y,x,v,v\n0,0,1,2\n", {}, "several columns 'v'"),
        ("y,x,v\n12,300,1\n", {}, "all points have the same y, 12: an extent of zero"),
        ("y,x,v\n2,3,1\n2,4,1\n", {}, "all points have the same y, 2: an extent of zero"),
        ("y,x,v\n0,0,inf\n", {}, "infinite"),
        ("y,x,v\n0,0,nan\n", {}, "column 'v' holds no number in any row"),
        ("y,x,a,v\n0,0,1,nan\n0,1,2,\n", {}, "column 'v' holds no number in any row"),
        ("x,y,v\n9,0,1\n1,2,2\n", {"coords": ("x", "x")}, "different names; x occurs twice"),
        ("lat,lon,v\n98,0,1\n10,20,2\n", {}, "between -90 and 90 degrees"),
        ("lat,lon,v,time\n9,0,1,2019-01-01\n1,2,2,noon\n", {}, "line 3 has 'noon' .* no date"),
        ("lat,lon,v\n9,0,1\n1,2,2\n", {"time": "t"}, "no column 't'; its columns are: lat"),
        ("x,y,v\n9,0,1\n1,2,2\n", {"time_scale": 2}, "needs an axis of times"),
        ("x,y,v\n9,0,1\n1,2,2\n", {"time_scale": -2}, "a finite number above 0, not -2"),
        ("y,x,v\n0,,1\n", {}, "line 2 has values but nothing in column 'x'"),
        ("y,x,v,w\n0,0,1,\n1,1,3,4\n", {}, "line 2 .*in some channels only"),
        ("y,x,v,sd\n0,0,1,\n", {"noise": "sd"}, "nothing in column 'sd'"),
        ("y,x,v\n0,0,1\n", {"value": "t"}, "no column 't'; its columns are: y, x, v"),
        ("y,x,v\n0,0,1\n", {"coords": ("lat", "lon")}, "no column 'lat'"),
        ("y,x,v\n0,0,1\n", {"coords": ("y", "x", "v")}, "no column left for the values"),
        ("y,x,v\n0,0,1\n", {"density": 0.5}, "density is a fraction of pixels"),
        ("y,x,v\n0,0,\n", {}, "holds no number in any row"),
        (b"y,x,v\n0,0,\x00\n", {}, "is no text"),
        (b"\xff\xfey", {}, "not a readable table"),
        ('y,x,v\n0,0,"1\n' + "2" * 200_000, {}, "not a readable table"),
    ],
)
def test_what_is_no_such_table_is_refused_in_one_line(tmp_path, text, options, words):
    with pytest.raises(InputError, match=words) as error:
        read_text(tmp_path, text, **options)
    assert "\n" not in str(error.value)
    assert "in.csv" in str(error.value)


STATIONS = """station;Latitude [deg];Longitude [deg];Temperature [°C];sd;time
Aberdeen;57,2;-2,2;4,5;0,2;2019-03-01T06:00+01:00
Brest;48,4;355,5;9,25;0,3;2019-03-01 05:00 UTC
Cork;51,9;-8,5;8;0,3;2019-03-02T00:30:00Z
"""


@pytest.mark.parametrize(
    ("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".XZ", lzma.compress)]
)
def test_tables_may_be_compressed(tmp_path, suffix, pack):
    obs = read_text(tmp_path, pack(PLAIN.encode()), f"in.csv{suffix}")
    assert obs.values.tolist() == VALUES
    with pytest.raises(InputError, match="not a readable compressed file"):
        read_text(tmp_path, PLAIN, f"other.csv{suffix}")


def test_a_compressed_table_that_expands_without_measure_is_refused(tmp_path):
    bomb = gzip.compress(b"y,x,v\n" + b"0,0,1\n" * 4_000_000)
    assert len(bomb) < 2**17
    with pytest.raises(InputError, match="would expand from"):
        read_text(tmp_path, bomb, "in.csv.gz")


def test_roles_of_columns_are_guessed_and_said(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "sparsefield.data"):
        obs = read_text(tmp_path, STATIONS)
    assert obs.frame.names == ("time", "Latitude", "Longitude")
    assert obs.frame.units == ("hours since 2019-03-01 00:00:00", "degrees_north", "degrees_east")
    expected = [[5, 57.2, -2.2], [5, 48.4, -4.5], [24.5, 51.9, -8.5]]
    np.testing.assert_allclose(obs.physical(), expected, atol=1e-9)
    assert obs.noise.flatten().tolist() == [0.2, 0.3, 0.3]
    assert obs.quantities == (("Temperature", "°C"),)
    said = caplog.text
    assert "coordinates time, Latitude [deg], Longitude [deg]" in said
    assert "noise sd; not used: station" in said
    assert "Latitude from" in said and "one hour of time counts" in said


def test_rows_without_a_value_are_counted_aloud(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "sparsefield.data"):
        obs = read_text(tmp_path, "y,x,v\n0,1,2\n1,0,\n1,3,NA\n2,2,5\n3,1,4\n")
    assert obs.count == 3
    assert "2 of 5 rows have no value" in caplog.text


def test_times_count_as_much_as_the_settings_say(tmp_path):
    scaled = read_text(tmp_path, STATIONS, time_scale=12.5)
    assert scaled.frame.scales == (12.5, 1, 1)
    *_, times = scaled.positions().T
    assert times[2] - times[0] == pytest.approx(12.5 * 19.5)
    *space, time = read_text(tmp_path, STATIONS).positions().std(dim=0, correction=0)
    even = float(sum(x**2 for x in space) / 2) ** 0.5
    assert float(time) == pytest.approx(even, rel=0.01)


def test_a_time_is_left_out_where_coordinates_are_named_or_all_are_one(tmp_path):
    named = read_text(tmp_path, STATIONS, coords=("longitude", "LATITUDE"), noise=0.5)
    assert named.frame.names == ("Longitude", "Latitude")
    assert named.frame.geometry == "sphere" and named.channels == 1
    once = STATIONS.replace("2019-03-02T00:30:00Z", "2019-03-01T06:00+01:00")
    once = once.replace("2019-03-01 05:00 UTC", "2019-03-01T06:00+01:00")
    assert read_text(tmp_path, once).frame.names == ("Latitude", "Longitude")


def test_date_and_time_of_day_may_be_two_columns(tmp_path):
    text = "date,time,x,v\n2019-03-01,06:30,4,1\n2019-03-03,00:00,7,2\n2019-03-03,12:00,5,2\n"
    obs = read_text(tmp_path, text)
    np.testing.assert_allclose(obs.physical(), [[6.5, 4], [48, 7], [60, 5]], atol=1e-9)
    assert obs.frame.kinds == ("time", "other")


def test_errors_of_several_channels_are_columns_of_their_own(tmp_path):
    text = "lon,lat,north,east,std_north,std_east\n240,34,1,2,.1,.2\n241,35,3,4,.3,.4\n"
    obs = read_text(tmp_path, text)
    assert obs.frame.names == ("lat", "lon")
    assert obs.noise.tolist() == [[0.1, 0.2], [0.3, 0.4]]
    np.testing.assert_allclose(obs.physical()[:, 1], [240, 241])
    chosen = read_text(tmp_path, text, value="east", noise="std_east")
    assert chosen.noise.flatten().tolist() == [0.2, 0.4]


def test_metres_are_a_frame_and_the_unit_square_is_the_domain(tmp_path):
    metres = read_text(tmp_path, "x,y,zinc\n181072,333611,6.9\n181025,333558,7.0\n")
    assert metres.frame.geometry == "plane" and metres.frame.names == ("y", "x")
    assert read_text(tmp_path, PLAIN).frame is None
    frame = sf.Frame(("y", "x"), (-2, -2), (2, 2))
    assert read_text(tmp_path, PLAIN, frame=frame).coords[0].tolist() == [-0.25, 0.125]
    with pytest.raises(InputError, match="outside the domain"):
        read_text(tmp_path, PLAIN, frame=sf.Frame(("y", "x"), (0, 0), (2, 2)))


def test_parquet_tables_are_the_same_observation(tmp_path):
    moments = pa.array([0, 7200, 86400], pa.timestamp("s", "Europe/Paris"))
    columns = {
        "when": moments, "lat": [50.0, 51, 53], "lon": pa.array([1, 2, 4], pa.int16()),
        "t": pa.array([1.5, None, 3.5]), "id": ["a", "b", "c"],
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    obs = sf.read(tmp_path / "in.parquet", time="when")
    np.testing.assert_allclose(obs.physical(), [[0, 50, 1], [24, 53, 4]], atol=1e-9)
    assert obs.values.flatten().tolist() == [1.5, 3.5]
    with pytest.raises(InputError, match="no column 'x'; its columns are: when, lat, lon, t, id"):
        sf.read(tmp_path / "in.parquet", value="x")


def test_conflicting_exact_readings_are_refused_with_their_place(tmp_path):
    text = "lat,lon,v\n50,4,1\n52,5,2\n50,4,3\n"
    with pytest.raises(InputError, match=r"rows 0 and 2 at \(50, 4\) with 1 and 3; state a noise"):
        read_text(tmp_path, text).merged()
    assert read_text(tmp_path, text, noise=0.1).merged().values.flatten().tolist() == [2, 2]
    text = "lat,lon,v,sd\n50,4,1,1\n52,5,2,1\n50,4,3,.5\n"
    assert read_text(tmp_path, text).merged().values.flatten().tolist() == [2.6, 2]
