"""The page of super-resolution: every number comes from the results."""

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch):
    """The script that writes the tables of the page."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    return importlib.import_module("superres_report")


def row(psnr):
    scores = {"psnr": psnr, "psnr_missing": psnr - 1, "ssim": 0.7, "mae": 0.05}
    return scores | {f"{name}_ci": [0.9 * x, 1.1 * x] for name, x in scores.items()}


def paired(value):
    ends = [value - 0.02, value + 0.03]
    return {"psnr": value, "psnr_ci": ends, "psnr_p": 0.01, "psnr_significant": ends[1] < 0}


def made_up(psnr=21.0, **more):
    part = {
        "seconds": 1.0,
        "nfe": 1,
        "mean": row(psnr),
        "baselines": {"bicubic": row(20.9), "tps": row(20.5)},
        "differences": {"bicubic": paired(20.9 - psnr), "tps": paired(20.5 - psnr)},
        "spectrum": {"truth": [1.0, 0.5]},
        "detail": {"mean": 0.31, "bicubic": 0.2, "tps": 0.1},
        "artefact": {"truth": 0.97, "mean": 1.43, "bicubic": 5.0, "tps": 0.9},
        "artefact_excess": {"mean": {"artefact": 0.46, "artefact_ci": [0.2, 0.7]}},
    }
    return {
        "model": "default", "data": "tiny", "n": 2000, "split": "validation", "seed": 0,
        "density": 0.2, "observed": 32, "device": "cpu", "commit": "abc", "sizes": {"64": part},
        "training": "multi-resolution", "seconds": 1.0, **more,
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path, script):
    """A folder with a page, and a way to write results and the page there."""
    marks = importlib.import_module("pages").marks
    blocks = [line for part in ("summary", "tiny") for line in marks(script.SCRIPT, part)]
    quoted = "By hand: <!--=superres_tiny/sizes/64/mean/psnr .1f-->?<!--=--> dB."
    page = tmp_path / "superres.md"
    page.write_text("\n".join([quoted, *blocks, ""]))

    def write(check=False, **reports):
        for stem, report in reports.items():
            (tmp_path / f"superres_{stem}.json").write_text(json.dumps(report))
        return script.write_tables(tmp_path, tmp_path, check=check), page.read_text()

    return write


def test_scores_are_ranked_beside_the_truth(folder):
    _, text = folder(tiny=made_up())
    ranks = [
        text.index(f"\n| {name}")
        for name in ("**default**, multi", "*bicubic* of default", "*tps*", "truth")
    ]
    assert ranks == sorted(ranks)
    assert "| **default**, multi-resolution | 21.00 [18.90, 23.10] | 20.00" in text
    assert "| 0.31 | 1.43 |" in text
    assert (
        "sparsefield superres default --data tiny --sizes 64 --limit 2000 "
        "--split validation --density 0.2 --seed 0 --json results/superres_tiny.json"
    ) in text


def test_the_summary_says_what_is_ahead_and_what_is_significant(folder):
    _, text = folder(tiny=made_up())
    gains = "tps -0.500 [-0.520, -0.470] \\* | bicubic -0.100 [-0.120, -0.070] \\*"
    assert f"| tiny, 64 x 64 | default, multi-resolution | 21.00 [18.90, 23.10] | {gains}" in text
    assert "| 0.31 | +0.46 [+0.20, +0.70] |" in text
    _, text = folder(tiny=made_up(20.9))
    assert "| bicubic +0.000 [-0.020, +0.030] |" in text


def test_other_models_on_the_same_fields_stand_beside(folder):
    other = made_up(20.95, model="other", training="zero-shot")
    _, text = folder(tiny=made_up(), tiny_zero=other)
    own = ("*bicubic* of default", "*bicubic* of other")
    names = ("**default**, multi-resolution", "**other**, zero-shot", *own, "*tps*")
    ranks = [text.index(f"\n| {name} ") for name in names]
    assert ranks == sorted(ranks)
    assert text.count("\n| *tps*") == 1


def test_what_is_not_the_same_is_not_mixed(folder):
    with pytest.raises(ValueError, match="other fields or masks"):
        folder(tiny=made_up(), tiny_zero=made_up(20.95, model="zero-shot", density=0.1))
    with pytest.raises(ValueError, match="a second result of default"):
        folder(tiny=made_up(), tiny_zero=made_up())


def test_results_of_one_release_before_are_read(folder):
    old = made_up()
    part = old["sizes"]["64"]
    part["floors"] = part.pop("baselines")
    assert folder(tiny=old) == folder(tiny=made_up())


def test_the_page_is_written_and_checked_with_the_numbers_in_its_sentences(folder):
    assert folder(check=True, tiny=made_up())[0] == 1
    code, text = folder()
    assert code == 0
    assert "By hand: <!--=superres_tiny/sizes/64/mean/psnr .1f-->21.0<!--=--> dB." in text
    assert folder(check=True)[0] == 0
    assert folder(check=True, tiny=made_up(25.0))[0] == 1


def test_cost_shows_what_was_refused(script):
    sizes = {"32": {"seconds": 0.0123, "peak_bytes": 2**22}, "64": {"refused": "about 9 GiB"}}
    line = {"name": "v2", "linear_cost": False, "parameters": 1234, "exponent": None}
    head = {"repeats": 5, "device": "cpu", "threads": 2, "commit": "abc"}
    text = script.cost(head | {"rows": [line | {"sizes": sizes}]})
    assert "sparsefield bench size --presets v2 --json results/superres_cost.json" in text
    assert "| `v2` |  | 1,234 |  | 0.0123 s, 4 MiB | refused: about 9 GiB |" in text


def test_the_committed_page_is_that_of_the_committed_results(script):
    assert script.write_tables(ROOT / "results", ROOT / "docs" / "results", check=True) == 0
