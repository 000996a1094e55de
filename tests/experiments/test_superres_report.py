"""The page of super-resolution: every number from the results, baselines that win said so."""

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    return importlib.import_module("superres_report")


def row(psnr):
    scores = {"psnr": psnr, "psnr_missing": psnr - 1, "ssim": 0.7, "mae": 0.05}
    return scores | {f"{name}_ci": [0.9 * x, 1.1 * x] for name, x in scores.items()}


def made_up(psnr=21.0):
    part = {
        "mean": row(psnr),
        "baselines": {"bicubic": row(20.9), "tps": row(20.5)},
        "detail": {"mean": 0.31, "bicubic": 0.2, "tps": 0.1},
        "artefact": {"truth": 0.97, "mean": 1.43, "bicubic": 5.0, "tps": 0.9},
        "artefact_excess": {"mean": {"artefact": 0.46, "artefact_ci": [0.2, 0.7]}},
    }
    return {
        "model": "default", "data": "tiny_imagenet", "n": 2000, "split": "validation", "seed": 0,
        "density": 0.2, "observed": 32, "device": "cpu", "commit": "abc", "sizes": {"64": part},
        "training": "multi-resolution",
    }  # fmt: skip


def cost():
    sizes = {"32": {"seconds": 0.0123, "peak_bytes": 2**22}, "64": {"refused": "about 9 GiB"}}
    line = {"name": "v2", "linear_cost": False, "parameters": 1234, "exponent": None}
    return {
        "density": 0.2, "observed": 32, "repeats": 5, "device": "cpu", "threads": 2,
        "commit": "abc", "rows": [line | {"sizes": sizes}],
    }  # fmt: skip


def test_scores_are_ranked_beside_the_truth(script):
    text = script.render({"superres_tiny": made_up()}, set())
    ranks = [
        text.index(f"\n| {name}")
        for name in ("**default**, multi", "*bicubic* of default", "*tps*", "truth")
    ]
    assert ranks == sorted(ranks)
    assert "| **default**, multi-resolution | 21.00 [18.90, 23.10] | 20.00" in text
    assert "| 0.31 | 1.43 |" in text
    assert (
        "sparsefield superres default --data tiny_imagenet --sizes 64 --limit 2000 "
        "--split validation --density 0.2 --seed 0 --json docs/results/superres_tiny.json"
    ) in text


def test_other_models_on_the_same_fields_stand_beside(script):
    other = made_up(20.95) | {"model": "other", "training": "zero-shot"}
    text = script.render({"superres_tiny": made_up(), "superres_tiny_zero": other}, set())
    assert text.count("## tiny_imagenet") == 1
    own = ("*bicubic* of default", "*bicubic* of other")
    names = ("**default**, multi-resolution", "**other**, zero-shot", *own, "*tps*")
    ranks = [text.index(f"\n| {name} ") for name in names]
    assert ranks == sorted(ranks)
    assert text.count("\n| *tps*") == 1


def test_what_the_prototypes_set_out_to_test_is_answered(script):
    on_grid = {
        "model": "default",
        "data": "cifar",
        "n": 500,
        "mean": row(23.0),
        "baselines": {"tps": row(5.0), "linear": row(4.0)},
    }
    text = script.render({"superres_tiny": made_up(), "default": on_grid}, set())
    assert (
        "Yes (default, 500 fields of cifar, 32 x 32): 23.00 [20.70, 25.30] dB; +18.00 against tps"
        in text
    )
    here = "(default, multi-resolution, 2,000 fields of tiny_imagenet, 64 x 64)"
    assert f"Not shown {here}: 21.00 [18.90, 23.10] dB; +0.10 against bicubic, " in text
    overlap = " (the intervals of the two scores overlap)"
    assert f"20.90 [18.81, 22.99]{overlap}; +0.50 against tps, 20.50" in text
    assert f"Yes {here}: the mean has 0.31 of" in text
    assert f"No {here}: artefact score 1.43, the truth's is 0.97; mean less truth +0.46 [" in text


@pytest.mark.parametrize(
    ("gain", "significant", "answer"),
    [(0.1, True, "Yes"), (0.1, False, "Not shown"), (-0.1, True, "No")],
)
def test_methods_are_compared_field_by_field_where_that_was_measured(
    script, gain, significant, answer
):
    def paired(ahead, shown):
        ends = [-ahead - 0.02, -ahead + 0.03]
        return {"psnr": -ahead, "psnr_ci": ends, "psnr_significant": shown}

    report = made_up(20.9 + gain)
    report["sizes"]["64"]["differences"] = {
        "bicubic": paired(gain, significant),
        "tps": paired(0.5, True),
    }
    text = script.render({"superres_tiny": report}, set())
    where = "default, multi-resolution, 2,000 fields of tiny_imagenet, 64 x 64"
    assert f"- {answer} ({where}): {20.9 + gain:.2f} [" in text
    figures = f"{gain:+.3f} [{gain - 0.03:+.3f}, {gain + 0.02:+.3f}]"
    assert f"; {figures} field by field against bicubic, 20.90 [" in text


@pytest.mark.parametrize(
    ("score", "interval", "answer"),
    [
        (0.4, [-0.5, -0.1], "Yes"),
        (1.4, [-0.1, 0.2], "None seen"),
        (0.9, [0.1, 0.3], "None seen"),
        (1.4, [0.1, 0.3], "No"),
    ],
)
def test_a_grid_is_seen_only_beyond_what_the_truth_could_show(script, score, interval, answer):
    report = made_up()
    part = report["sizes"]["64"]
    part["artefact"]["mean"], part["artefact_excess"]["mean"]["artefact_ci"] = score, interval
    text = script.render({"superres_tiny": report}, set())
    where = "default, multi-resolution, 2,000 fields of tiny_imagenet, 64 x 64"
    assert f"- {answer} ({where}): artefact score {score:.2f}" in text


def test_what_is_not_the_same_is_not_mixed(script):
    other = made_up(20.95) | {"model": "zero-shot", "density": 0.1}
    text = script.render({"superres_tiny": made_up(), "superres_tiny_zero": other}, set())
    assert text.count("## tiny_imagenet") == 2
    with pytest.raises(ValueError, match="a second result of default"):
        script.render({"superres_tiny": made_up(), "superres_tiny_b": made_up()}, set())


def test_cost_shows_what_was_refused(script):
    text = script.render({"superres_tiny": made_up(), "superres_cost": cost()}, set())
    assert "sparsefield bench size --presets v2 --json docs/results/superres_cost.json" in text
    assert "| `v2` |  | 1,234 |  | 0.0123 s, 4 MiB | refused: about 9 GiB |" in text


def test_the_page_is_written_and_checked(script, tmp_path, capsys):
    call = ["--results", str(tmp_path)]
    assert script.main(call) == 2
    assert "no superres_*.json" in capsys.readouterr().err
    file = tmp_path / "superres_tiny.json"
    file.write_text(json.dumps(made_up()))
    figure = tmp_path / "images" / "superres" / "superres_tiny.png"
    figure.parent.mkdir(parents=True)
    figure.touch()
    assert script.main([*call, "--check"]) == 1
    assert script.main(call) == 0
    assert "(images/superres/superres_tiny.png)" in (tmp_path / "superres.md").read_text()
    assert script.main([*call, "--check"]) == 0
    file.write_text(json.dumps(made_up(25.0)))
    assert script.main([*call, "--check"]) == 1


def test_the_committed_page_is_that_of_the_committed_results(script):
    if not (ROOT / "docs" / "results" / "superres.md").is_file():
        pytest.skip("no results yet")
    assert script.main(["--check"]) == 0
