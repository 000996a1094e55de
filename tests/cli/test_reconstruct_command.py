"""Reconstruction of a user's own files, and the demo."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparsefield.data.formats import suffixes

PIXELS = np.random.default_rng(1).integers(0, 256, (8, 9, 4), dtype=np.uint8)


def test_transparent_pixels_are_filled_and_the_others_kept(cli, checkpoint):
    pixels = PIXELS.copy()
    pixels[..., 3] = np.where(np.arange(72).reshape(8, 9) % 3, 0, 255)
    Image.fromarray(pixels).save("in.png")
    assert cli("reconstruct", "in.png", "--model", checkpoint(), "--out", "out.png").code == 0
    out = np.asarray(Image.open("out.png"))
    known = pixels[..., 3] == 255
    assert out.shape == (8, 9, 3)
    assert np.array_equal(out[known], pixels[known][:, :3])


def test_an_opaque_image_is_observed_in_part(cli, checkpoint):
    Image.fromarray(PIXELS[..., :3]).save("in.png")
    seen = cli("reconstruct", "in.png", "--model", checkpoint(), "--density", 0.5,
               "--out", "out.png")  # fmt: skip
    assert "8 x 9 from 36 points" in seen.out


@pytest.mark.parametrize("suffix", ["npz", "csv"])
def test_points_become_a_field_with_uncertainty(cli, checkpoint, suffix):
    rng = np.random.default_rng(2)
    coords, values = rng.uniform(-1, 1, (5, 2)), rng.uniform(size=(5, 3))
    if suffix == "npz":
        np.savez("in.npz", coords=coords, values=values)
    else:
        table = np.column_stack([values[:, 0], coords[:, ::-1], values[:, 1:]])
        np.savetxt("in.csv", table, delimiter=",", header="red,x,y,green,blue", comments="")
    call = ("reconstruct", f"in.{suffix}", "--model", checkpoint(), "--samples", 3)
    seen = cli(*call, "--size", 7, 11, "--out", "out.npz")
    assert seen.code == 0, seen.err
    field = np.load("out.npz")
    assert field["mean"].shape == field["std"].shape == (7, 11, 3)
    assert field["samples"].shape == (3, 7, 11, 3)
    assert field["levels"].tolist() == [0.25, 0.5, 0.75]
    assert field["quantiles"].shape == (3, 7, 11, 3)
    assert field["coords"].shape == (7, 11, 2)


def test_the_spread_of_samples_is_scaled_on_demand(cli, checkpoint):
    Image.fromarray(PIXELS[..., :3]).save("in.png")
    call = ("reconstruct", "in.png", "--model", checkpoint(), "--density", 0.5, "--steps", 2)
    assert cli(*call, "--samples", 2, "--out", "plain.npz").code == 0
    seen = cli(*call, "--samples", 2, "--recalibrate", "--out", "scaled.npz")
    assert seen.code == 0, seen.err
    assert "standard deviation of the samples scaled by" in seen.out
    plain, scaled = np.load("plain.npz"), np.load("scaled.npz")
    assert np.array_equal(plain["mean"], scaled["mean"])
    assert not np.allclose(plain["std"], scaled["std"])
    refused = cli(*call, "--recalibrate", "--out", "none.npz")
    assert refused.code == 2
    assert "ask for samples" in refused.err
    assert not Path("none.npz").exists()


def test_tables_and_archives_mean_the_same(cli, checkpoint):
    model = checkpoint()
    coords = np.array([[-0.5, 0.25], [0.75, 0.5]])
    np.savez("in.npz", coords=coords, values=np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]))
    Path("in.csv").write_text("x,y,a,b,c\n0.25,-0.5,0.1,0.2,0.3\n0.5,0.75,0.4,0.5,0.6\n")
    for name in ("npz", "csv"):
        cli("reconstruct", f"in.{name}", "--model", model, "--out", f"{name}_out.npz")
    assert np.array_equal(np.load("npz_out.npz")["mean"], np.load("csv_out.npz")["mean"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b,c\n1,2,3\n", "header with y, x"),
        ("y,x,r,g,b\n0,0,1,1,oops\n", "not a table of numbers"),
        ("y,x,r,g,b\n12,300,1,1,1\n", "same y, 12: an extent of zero"),
        ("y,x,r,g,b\n0,0,1,1,nan\n", "column 'b' holds no number in any row"),
        ("y,x,r,g,b\n0,0,1,1,inf\n", "infinite"),
        ("y,x,r,g\n0,0,1,1\n", "3 channels"),
        ("y,x,r,g,b\n", "at least one point"),
        ("", "empty"),
    ],
)
def test_bad_tables_are_refused_in_one_line(cli, checkpoint, text, words):
    Path("in.csv").write_text(text)
    seen = cli("reconstruct", "in.csv", "--model", checkpoint(), "--out", "out.png")
    assert seen.code == 2
    assert words in seen.err
    assert seen.err.count("\n") == 1
    assert not Path("out.png").exists()


def test_the_demo_writes_a_figure_and_a_table(cli, checkpoint):
    model = checkpoint(shape=(32, 32))
    seen = cli("demo", "--model", model, "--samples", 2, "--out", "pictures")
    assert seen.code == 0, seen.err
    assert all(name in seen.out for name in ("nearest", "tps", "kriging", "one sample"))
    assert Image.open("pictures/reconstruction.png").width > 800
    assert cli("demo", "--model", model, "--samples", 1).code == 2


def test_an_intact_photograph_loses_nothing_unasked(cli, checkpoint):
    Image.fromarray(PIXELS[..., :3]).save("in.png")
    seen = cli("reconstruct", "in.png", "--model", checkpoint(), "--out", "out.png")
    assert seen.code == 2
    assert "transparent" in seen.err and "--density" in seen.err
    assert seen.err.count("\n") == 1
    assert not Path("out.png").exists()


def links(path):
    """Return names of a file: its own, relative and absolute, and links."""
    Path("symbolic.png").symlink_to(path)
    os.link(path, "hard.png")
    return [path, f"./{path}", Path(path).resolve(), "symbolic.png", "hard.png"]


def test_an_output_never_replaces_its_input(cli, checkpoint):
    Image.fromarray(PIXELS[..., :3]).save("in.png")
    before = Path("in.png").read_bytes()
    model = checkpoint()
    for name in links("in.png"):
        seen = cli("reconstruct", "in.png", "--model", model, "--density", 0.5, "--out", name)
        assert seen.code == 2, name
        assert "is the input" in seen.err and seen.err.count("\n") == 1
    assert Path("in.png").read_bytes() == before
    Path("images").mkdir()
    Path("in.png").rename("images/in.png")
    for out in ("images/in.png", "images"):
        command = ("evaluate", "baselines", "--data", "images", "--json", out)
        assert "is the input" in cli(*command).err
    assert Path("images/in.png").read_bytes() == before
    weights = model.read_bytes()
    assert "is the input" in cli("evaluate", model, "--data", "data.npy", "--json", model).err
    assert model.read_bytes() == weights


COMMANDS_WITH_OUTPUT = [
    ("evaluate", "{run}", "--data", "data.npy", "--json"),
    ("compare", "ours={run}", "nearest={file}", "--data", "data.npy", "--json"),
    ("compare", "{run}", "--data", "data.npy", "--json"),
    ("superres", "{run}", "--data", "data.npy", "--json"),
    ("reconstruct", "in.png", "--model", "{run}", "--density", "0.5", "--out"),
    ("bench", "model", "--presets", "{run}/config.toml", "--json"),
]


@pytest.mark.parametrize("command", COMMANDS_WITH_OUTPUT, ids=lambda command: command[0])
def test_no_file_of_a_run_that_is_read_is_replaced(cli, checkpoint, command):
    Image.fromarray(PIXELS[..., :3]).save("in.png")
    run = Path("run")
    run.mkdir()
    file = checkpoint("run/best.safetensors")
    for name in ("config.json", "config.toml", "metrics.jsonl", "picture.png"):
        (run / name).write_text("{}")
    out = run / ("config.toml" if command[0] == "bench" else "config.json")
    if command[0] == "reconstruct":
        out = run / "picture.png"
    before = {path: path.read_bytes() for path in run.iterdir()}
    seen = cli(*(word.format(run=run, file=file) for word in command), out)
    assert seen.code == 2
    assert "is the input" in seen.err and seen.err.count("\n") == 1
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_a_new_file_beside_those_of_a_run_is_written(cli, checkpoint):
    Path("run").mkdir()
    checkpoint("run/best.safetensors")
    command = ("evaluate", "run", "--data", "data.npy", "--baselines", "nearest", "--json")
    seen = cli(*command, "run/scores.json")
    assert seen.code == 0, seen.err
    assert Path("run/scores.json").is_file()


def test_a_wrong_suffix_is_refused_before_any_work(cli, monkeypatch):
    monkeypatch.setattr("sparsefield.inference.model.load", None)
    Image.fromarray(PIXELS).save("in.png")
    seen = cli("reconstruct", "in.png", "--out", "out.gif")
    assert seen.code == 2 and "the suffix must be .png, " in seen.err
    assert cli("reconstruct", "in.gif", "--out", "out.png").code == 2
    seen = cli("reconstruct", "absent.png", "--out", "out.png")
    assert "no file at absent.png" in seen.err


def test_suffixes_may_be_written_in_capitals(cli, checkpoint):
    Image.fromarray(PIXELS).save("IN.PNG")
    for out in ("OUT.PNG", "OUT.NPZ"):
        seen = cli("reconstruct", "IN.PNG", "--model", checkpoint(), "--out", out)
        assert seen.code == 0, seen.err
    assert Image.open("OUT.PNG").format == "PNG"
    assert "mean" in np.load("OUT.NPZ").files


@pytest.mark.parametrize("extra", [("--size", 100_000, 100_000), ("--samples", 10**9)])
def test_what_no_memory_holds_is_refused_with_its_size(cli, checkpoint, extra, monkeypatch):
    monkeypatch.setattr("sparsefield.inference.model.Model.condition", None)
    Path("in.csv").write_text("y,x,r,g,b\n0,0,1,1,1\n")
    seen = cli("reconstruct", "in.csv", "--model", checkpoint(), *extra, "--out", "out.npz")
    assert seen.code == 2
    assert "of memory, more than the limit" in seen.err and seen.err.count("\n") == 1


def test_columns_and_noise_are_chosen_by_name(cli, checkpoint):
    rng = np.random.default_rng(3)
    model, rows = checkpoint(), rng.uniform(-0.9, 0.9, (9, 2))
    values = rng.uniform(0.2, 0.8, (9, 3))
    table = np.column_stack([rows, values, np.full(9, 0.1)])
    names = "lat,lon,r,g,b,sd"
    np.savetxt("in.csv", table, "%.17g", delimiter=",", header=names, comments="")
    call = ("reconstruct", "in.csv", "--model", model, "--coords", "lat", "lon", "--value", "r",
            "g", "b", "--noise")  # fmt: skip
    for noise, out in (("sd", "column.npz"), (0.1, "number.npz")):
        seen = cli(*call, noise, "--out", out)
        assert seen.code == 0, seen.err
    exact = cli(*call[:-1], "--out", "exact.npz")
    assert exact.code == 0, exact.err
    means = [np.load(f"{name}.npz")["mean"] for name in ("column", "number", "exact")]
    np.testing.assert_allclose(means[0], means[1], atol=1e-6)
    assert not np.array_equal(means[0], means[2])


def test_colour_images_become_grey_for_a_model_of_one_channel(cli, checkpoint):
    pixels = PIXELS.copy()
    pixels[..., 3] = np.where(np.arange(72).reshape(8, 9) % 3, 0, 255)
    Image.fromarray(pixels).save("in.png")
    seen = cli("reconstruct", "in.png", "--model", checkpoint(channels=1), "--out", "out.png")
    assert seen.code == 0, seen.err
    out, known = np.asarray(Image.open("out.png")), pixels[..., 3] == 255
    grey = np.asarray(Image.fromarray(pixels[..., :3]).convert("L"))
    assert out.shape == (8, 9)
    assert abs(out.astype(int) - grey)[known].max() <= 1
    seen = cli(
        "reconstruct", "in.png", "--model", checkpoint("2.safetensors", 2), "--out", "o.png"
    )
    assert seen.code == 2
    assert "2.safetensors' has 2 channels, and a colour image has 3" in seen.err


def test_the_help_lists_what_the_registry_knows(cli):
    shown = " ".join(cli("reconstruct", "--help").out.split())
    for task in ("observation", "field"):
        for suffix in suffixes(task):
            assert suffix in shown


def test_terminals_of_ascii_alone_are_written_to(tmp_path):
    def run(*arguments):
        environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
        command = [sys.executable, "-m", "sparsefield.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    for name in ("reconstruct", "evaluate"):
        shown = run(name, "--help")
        assert shown.returncode == 0, shown.stderr
    data = tmp_path / "data.npy"
    np.save(data, np.zeros((3, 8, 9, 1), np.uint8))
    table = run("evaluate", "baselines", "--data", str(data), "--baselines", "nearest")
    assert table.returncode == 0, table.stderr
    assert "nearest" in table.stdout
    refused = run("reconstruct", "größe.png", "--out", "größe.gif")
    assert refused.returncode == 2
    assert "cannot write gr" in refused.stderr


def stations(name="in.csv"):
    """Write a table of 7 stations, and return its cells."""
    rng = np.random.default_rng(4)
    rows = np.column_stack([rng.uniform(50, 58, 7), rng.uniform(-9, 2, 7), rng.uniform(size=7)])
    np.savetxt(name, rows, "%.17g", delimiter=",", header="lat,lon,t [K]", comments="")
    return rows


def test_a_field_is_wanted_at_points_of_a_table_or_multiples_of_a_step(cli, checkpoint):
    rows = stations()
    call = ("reconstruct", "in.csv", "--model", checkpoint(channels=1))
    Path("at.tsv").write_text("station\tlon\tlat\na\t-3\t52\nb\t1\t55\n")
    seen = cli(*call, "--at", "at.tsv", "--out", "out.csv")
    assert seen.code == 0, seen.err
    assert "domain: lat from" in seen.out and "out.csv: 2 points from 7 points" in seen.out
    header, *lines = Path("out.csv").read_text().splitlines()
    assert header == "lat,lon,mean"
    assert [line.rsplit(",", 1)[0] for line in lines] == ["52.0,-3.0", "55.0,1.0"]
    seen = cli(*call, "--spacing", 2, 1.5, "--samples", 2, "--out", "out.npz")
    assert seen.code == 0, seen.err
    field = np.load("out.npz")
    low, high = rows[:, 0].min(), rows[:, 0].max()
    assert set(field["coords"][:, 0, 0]) >= {x for x in range(50, 59, 2) if low <= x <= high}
    assert field["std"].shape == (*field["coords"].shape[:2], 1)
    assert field["names"].tolist() == ["lat", "lon"]
    assert field["channel_units"].tolist() == ["K"]


def test_a_field_is_wanted_like_that_of_a_file(cli, checkpoint):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("netCDF4")
    stations()
    axes = {"latitude": np.linspace(60, 49, 5), "longitude": [350.0, 355, 362]}
    values = xarray.DataArray(np.zeros((5, 3)), coords=axes, dims=list(axes))
    values.to_dataset(name="t").to_netcdf("like.nc", engine="netcdf4")
    call = ("reconstruct", "in.csv", "--model", checkpoint(channels=1))
    seen = cli(*call, "--like", "like.nc", "--out", "out.nc")
    assert seen.code == 0, seen.err
    found = xarray.open_dataset("out.nc", engine="netcdf4")
    np.testing.assert_allclose(found.lat, axes["latitude"])
    np.testing.assert_allclose(found.lon, axes["longitude"])
    assert found["mean"].dims == ("lat", "lon") and found["mean"].attrs["units"] == "K"
    assert "is the input" in cli(*call, "--like", "like.nc", "--out", "like.nc").err


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("--at", "far.csv"), "1 of 2 points lie outside the domain, the first at lat 70"),
        (("--at", "in.npy"), "points are read from .csv, .tsv, .txt, .parquet or .npz"),
        (("--at", "at.csv"), "needs one column 'lat', as the observations have"),
        (("--at", "none.csv"), "no file at none.csv"),
        (("--size", 4, 5, "--spacing", 1), "give one of --size and --spacing"),
        (("--spacing", 1, "--own-cells"), "--own-cells is about the cells of a grid"),
        (("--spacing", 1e-6), "of memory, more than the limit"),
        (("--spacing", 0), "finite steps above 0"),
        (("--size", 4), "--size takes 2 numbers here, not 1"),
        (("--time", "when"), "no column 'when'; its columns are: lat, lon, t [K]"),
        (("--time-scale", 3), "a time scale needs an axis of times"),
        (("--value", "u"), "no column 'u'; its columns are"),
    ],
)
def test_what_cannot_be_wanted_is_one_line(cli, checkpoint, extra, words):
    stations()
    Path("far.csv").write_text("lat,lon\n52,-3\n70,1\n")
    Path("at.csv").write_text("y,x\n52,-3\n")
    np.save("in.npy", np.zeros((3, 2)))
    call = ("reconstruct", "in.csv", "--model", checkpoint(channels=1))
    seen = cli(*call, *extra, "--out", "out.npz")
    assert seen.code == 2
    assert words in seen.err and seen.err.count("\n") == 1
    assert not Path("out.npz").exists()
