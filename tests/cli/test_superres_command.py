"""Super-resolution through the command line, its JSON and its figure."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MEAN = {"psnr", "psnr_missing", "ssim", "mse", "mae"}


@pytest.fixture
def model(cli, checkpoint):
    rng = np.random.default_rng(0)
    np.save("large.npy", rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8))
    return checkpoint(shape=(32, 32))


def test_a_report_has_every_size_with_baselines_and_the_truth_to_compare_with(cli, model):
    seen = cli(
        "superres", model, "--data", "analytic", "--sizes", 96, 64, "--limit", 2,
        "--baselines", "nearest,linear", "--json", "out.json",
    )  # fmt: skip
    assert seen.code == 0, seen.err
    report = json.loads(Path("out.json").read_text())
    assert report.keys() >= {"model", "data", "n", "density", "seed", "device", "commit"}
    assert (report["data"], report["n"], report["observed"]) == ("analytic", 2, 32)
    assert list(report["sizes"]) == ["64", "96"]
    for part in report["sizes"].values():
        assert part["mean"].keys() >= MEAN | {f"{name}_ci" for name in MEAN}
        baselines = {"bicubic", "bicubic_consistent", "nearest", "linear"}
        assert part["baselines"].keys() == baselines
        assert part["spectrum"].keys() == {"truth", "mean"} | baselines
        assert part["artefact"].keys() == part["spectrum"].keys()
    assert "96 x 96" in seen.out
    said = " ".join(seen.out.split())
    assert said.count("on PSNR") + said.count("beats every baseline") == 2


def test_samples_and_a_figure(cli, model):
    seen = cli(
        "superres", model, "--data", "large.npy", "--samples", 2, "--steps", 2,
        "--baselines", "nearest", "--json", "out.json", "--figure", "figures/out.png",
    )  # fmt: skip
    assert seen.code == 0, seen.err
    samples = json.loads(Path("out.json").read_text())["sizes"]["64"]["samples"]
    assert samples.keys() >= {"draws", "sampler", "steps", "nfe", "psnr", "psnr_ci", "crps"}
    assert Image.open("figures/out.png").width > 600


def test_chunks_change_no_figure(cli, model):
    reports = []
    for chunk in ((), ("--chunk", 1000)):
        call = ("superres", model, "--data", "large.npy", "--limit", 1, "--baselines", "none")
        assert cli(*call, *chunk, "--json", "out.json").code == 0
        reports.append(json.loads(Path("out.json").read_text())["sizes"]["64"]["mean"])
    whole, parts = ({name: x for name, x in r.items() if name in MEAN} for r in reports)
    assert whole == pytest.approx(parts)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--data", "large.npy", "--sizes", 128), "large.npy has fields of 64 x 64 cells"),
        (("--data", "large.npy", "--sizes", 48), "multiples of 32 above it; 48 is none"),
        (("--data", "photographs", "--sizes", 512), "up to 256 x 256 cells"),
        (("--data", "gone.npy"), "no data at gone.npy"),
        (("--data", "data.npy"), "8 x 9 cells"),
        (("--data", "large.npy", "--samples", 1), "at least 2 samples"),
        (("--data", "large.npy", "--baselines", "biharmonic"), "choose from"),
        (("--data", "large.npy", "--chunk", 0), "chunk must be at least 1"),
        (("--data", "large.npy", "--limit", 0), "limit must be at least 1"),
    ],
)
def test_bad_input_is_one_line(cli, model, arguments, words):
    seen = cli("superres", model, *arguments)
    assert seen.code == 2
    assert words in seen.err
    assert seen.err.count("\n") == 1


def test_a_model_of_other_channels_is_refused(cli, model, checkpoint):
    grey = checkpoint("grey.safetensors", channels=1, shape=(32, 32))
    seen = cli("superres", grey, "--data", "large.npy")
    assert seen.code == 2
    assert "1 channel;" in seen.err
