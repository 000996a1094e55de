"""The registry of formats, archives of observations, and what all readers share."""

import os
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

import sparsefield as sf
from sparsefield.core.errors import InputError
from sparsefield.data.formats import FORMATS, Format, Handler, describe, suffixes, write_field
from sparsefield.data.formats.reading import Reading

COORDS = np.array([[0.5, -0.5], [0.0, 0.25], [1.0, -1.0]])
VALUES = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])


def save(tmp_path, **arrays):
    np.savez(tmp_path / "in.npz", **arrays)
    return tmp_path / "in.npz"


def test_an_archive_holds_coords_values_and_perhaps_noise(tmp_path):
    obs = sf.read(save(tmp_path, coords=COORDS, values=VALUES))
    assert np.array_equal(obs.coords, COORDS) and np.array_equal(obs.values, VALUES)
    assert obs.noise is None
    noisy = sf.read(save(tmp_path, coords=COORDS, values=VALUES, noise=[0.1, 0.2, 0.3]))
    assert noisy.noise[:, 1].tolist() == [0.1, 0.2, 0.3]
    assert sf.read(tmp_path / "in.npz", noise=0.5).noise.unique().tolist() == [0.5]


def test_coordinates_beyond_the_domain_have_a_frame(tmp_path):
    obs = sf.read(save(tmp_path, coords=5 * COORDS, values=VALUES))
    assert obs.frame.names == ("y", "x")
    np.testing.assert_allclose(obs.physical(), 5 * COORDS, atol=1e-12)


@pytest.mark.parametrize("shape", [(7,), (6, 5), (3, 5, 6), (6, 5, 2), (3, 5, 6, 2)])
def test_an_array_with_gaps_is_a_grid(tmp_path, shape):
    channels = shape[-1] if shape[-1] < 5 and len(shape) > 1 else 1
    cells = shape[:-1] if channels > 1 else shape
    values = np.arange(np.prod(shape), dtype=float).reshape(*cells, channels)
    values.reshape(-1, channels)[1:3] = np.nan
    np.save(tmp_path / "in.npy", values.reshape(shape))
    np.savez(tmp_path / "in.npz", values=values.reshape(shape))
    for name in ("in.npy", "in.npz"):
        obs = sf.read(tmp_path / name)
        assert (obs.grid, obs.count, obs.channels) == (cells, np.prod(cells) - 2, channels)
        assert obs.values[1].tolist() == values.reshape(-1, channels)[3].tolist()
        assert sf.read(tmp_path / name, density=0.5).count == round((np.prod(cells) - 2) / 2)


def test_arrays_are_chosen_by_name(tmp_path):
    path = save(tmp_path, lat=COORDS[:, 0], lon=COORDS[:, 1], t=VALUES[:, 0], sd=[1.0, 2.0, 3.0])
    obs = sf.read(path, coords=("lat", "lon"), value="t", noise="sd")
    np.testing.assert_allclose(obs.physical(), COORDS, atol=1e-12)
    assert np.array_equal(obs.values, VALUES[:, :1])
    assert obs.noise[:, 0].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("arrays", "options", "words"),
    [
        ({"coords": COORDS}, {}, "lacks the array 'values'; it has: coords"),
        ({"coords": COORDS, "values": VALUES[:2]}, {}, "values: expected shape"),
        (
            {"a": COORDS[:, 0], "b": COORDS[:2, 0]},
            {"coords": ("a", "b")},
            "differ in length: 3, 2",
        ),
        ({"coords": COORDS, "values": VALUES}, {"density": 1.0}, "density is a fraction"),
        ({"a": VALUES}, {}, "has no gaps"),
        ({"a": np.full((3, 4), np.nan)}, {"density": 0.5}, "nothing is known of channel 1 of 4"),
        ({"a": VALUES[0, 0]}, {}, "one to three axes"),
        ({"coords": np.zeros((3, 4)), "values": VALUES}, {}, "4 dimensions need names"),
        ({"coords": COORDS, "values": VALUES * 1j}, {}, "numbers are needed"),
        ({"coords": COORDS, "values": VALUES.astype(object)}, {}, "numbers are needed"),
        ({"coords": COORDS, "values": VALUES.astype(str)}, {}, "numbers are needed"),
    ],
)
def test_archives_that_do_not_fit_are_refused_in_one_line(tmp_path, arrays, options, words):
    with pytest.raises(InputError, match=words) as error:
        sf.read(save(tmp_path, **arrays), **options)
    assert "\n" not in str(error.value)


def test_unknown_suffixes_list_the_known_ones(tmp_path):
    (tmp_path / "in.xyz").write_text("")
    with pytest.raises(InputError) as error:
        sf.read(tmp_path / "in.xyz")
    for suffix in suffixes("observation"):
        assert suffix in str(error.value)
    with pytest.raises(InputError, match=r"cannot write .*: the suffix must be .png, "):
        write_field(tmp_path / "out.jpg", {"mean": np.zeros((2, 3, 1))})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("suffix", suffixes("observation"))
def test_pipes_and_devices_are_refused_without_waiting(tmp_path, suffix):
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"zero{suffix}").symlink_to("/dev/zero")
    start = time.monotonic()
    for name in ("pipe", "zero"):
        with pytest.raises(InputError, match="a regular file is needed"):
            sf.read(tmp_path / f"{name}{suffix}")
    assert time.monotonic() - start < 5


def test_a_format_is_one_function_and_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "levels", SimpleNamespace(read_observation=read_levels))
    handler = Handler("levels:read_observation", (".lev",), "a level on every line")
    monkeypatch.setitem(FORMATS, "levels", Format(observation=handler))
    (tmp_path / "IN.LEV").write_text("3\n4\n")
    assert sf.read(tmp_path / "IN.LEV", noise=0.5).values.tolist() == [[3.0], [4.0]]
    assert ".lev: a level on every line" in describe("observation")
    with pytest.raises(InputError, match=r"\.npy or \.lev"):
        sf.read(tmp_path / "in.xyz")


def read_levels(path, reading: Reading):
    levels = np.loadtxt(path)
    return sf.Observation(np.linspace(-1, 1, len(levels))[:, None], levels[:, None], reading.noise)


@pytest.mark.parametrize("name", FORMATS)
def test_every_handler_in_the_registry_exists(name):
    for handler in FORMATS[name]:
        assert handler is None or callable(handler.load())


def test_an_image_needs_a_field_of_two_dimensions(tmp_path):
    with pytest.raises(InputError, match=r"the field has 1 and 3; write an archive"):
        write_field(tmp_path / "out.png", {"mean": np.zeros((7, 3))})
    assert not list(tmp_path.iterdir())


def test_an_image_shows_the_estimate_where_there_is_one(tmp_path):
    arrays = {"mean": np.zeros((2, 3, 1)), "estimate": np.ones((2, 3, 1))}
    write_field(tmp_path / "out.png", arrays)
    assert sf.read(tmp_path / "out.png", density=1).values.min() == 1
    write_field(tmp_path / "out.npz", arrays)
    assert np.load(tmp_path / "out.npz").files == ["mean"]
