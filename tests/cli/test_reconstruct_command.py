"""Reconstruction of a user's own files, and the demo."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
    assert "spread of the samples scaled by" in seen.out
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
        ("y,x,r,g,b\n12,300,1,1,1\n", "1 of 1 points lie outside [-1, 1]"),
        ("y,x,r,g,b\n0,0,1,1,nan\n", "NaN"),
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
