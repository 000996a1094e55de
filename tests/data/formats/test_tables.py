"""Tables as spreadsheets, instruments and people write them."""

import numpy as np
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


def test_names_may_hold_anything(tmp_path):
    text = 'y;x;"Temperatur, °C"\n0,5;0,25;1,5\n'
    for encoding in ("utf-8", "latin-1"):
        obs = read_text(tmp_path, text.encode(encoding), value="Temperatur, °C")
        assert obs.values.tolist() == [[1.5]]


def test_columns_are_chosen_by_name(tmp_path):
    text = "station,lat,lon,t,sd\n7,0.5,-0.5,280,0.1\n8,-0.25,0,281,0.2\n"
    obs = read_text(tmp_path, text, coords=("lat", "lon"), value="t", noise="sd")
    assert obs.coords.tolist() == [[0.5, -0.5], [-0.25, 0.0]]
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
        ("a,b,c\n1,2,3\n", {}, "header with y, x .* it has a, b, c"),
        ("y,x\n1,2\n", {"value": "x"}, "or x, or z, y, x"),
        ("0.5,0.5,3\n", {}, "it has 0.5, 0.5, 3"),
        ("y,x,v\n", {}, "at least one point"),
        ("y,x,v\n0,0,oops\n", {}, "line 2 has 'oops' in column 'v'"),
        ("\ny,x,v\n\n0,0,1\n0,0,1_000\n", {}, "line 5 has '1_000'"),
        ("y;x;v\n0;0;1.234,5\n", {}, "line 2 has '1.234,5'"),
        ("y,x,v\n0,0,1\n0,0\n", {}, "line 3 has 2 cells, and the header 3"),
        ("y,x,v\n0,0,1,2\n", {}, "line 2 has 4 cells"),
        ("y,x,v,v\n0,0,1,2\n", {}, "several columns 'v'"),
        ("y,x,v\n12,300,1\n", {}, r"1 of 1 points lie outside \[-1, 1\]"),
        ("y,x,v\n0,0,nan\n", {}, "NaN"),
        ("y,x,v\n0,,1\n", {}, "line 2 has values but nothing in column 'x'"),
        ("y,x,v,w\n0,0,1,\n", {}, "masked in some channels only"),
        ("y,x,v,sd\n0,0,1,\n", {"noise": "sd"}, "nothing in column 'sd'"),
        ("y,x,v\n0,0,1\n", {"value": "t"}, "no column 't'; its columns are: y, x, v"),
        ("y,x,v\n0,0,1\n", {"coords": ("lat", "lon")}, "no column 'lat'"),
        ("y,x,v\n0,0,1\n", {"coords": ("y", "x", "v")}, "no column left for the values"),
        ("y,x,v\n0,0,1\n", {"density": 0.5}, "density is a fraction of pixels"),
        ("y,x,v\n0,0,\n", {}, "no row is a measurement"),
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
