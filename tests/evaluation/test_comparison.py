"""Paired differences that can be trusted, and contestants that cannot tell who else takes part."""

import numpy as np
import pytest
import torch
from torch import nn

from sparsefield.core.errors import InputError
from sparsefield.data.dataset import FieldDataset
from sparsefield.evaluation import comparison
from sparsefield.evaluation.baseline_scores import evaluate_baselines
from sparsefield.evaluation.comparison import (
    Comparison,
    Contestant,
    Drawing,
    baseline_fields,
    choose_reference,
    findings,
    holm,
    measure_baselines,
    measure_model,
    name_contestants,
    paired_differences,
)
from sparsefield.evaluation.protocol import (
    Protocol,
    check_fit,
    evaluate_mean,
    evaluate_samples,
    make_task,
    score,
)
from sparsefield.flow.backbone import Backbone, Claims
from sparsefield.flow.flow import Flow
from sparsefield.inference.checkpoint import ModelSpec
from sparsefield.inference.model import Model

N, SHAPE, C = 8, (8, 9), 3
PROTOCOL = Protocol(density=0.3, seed=3, batch_size=5)
DRAWING = Drawing(draws=2, sampler="euler", steps=3)


class Oracle(Backbone):
    """Recognises a field by its observations and predicts it, off by `error` times its noise."""

    claims = Claims(query_invariant=True, order_invariant=True, linear_cost=True)

    def __init__(self, fields, error):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.truth = fields.normalizer.apply(fields.batch(range(len(fields))))
        self.coords = fields.coords
        self.error = error
        self.seen = []

    def forward(self, x_t, t, query, prepared=None):
        obs = query.obs
        self.seen.append((obs.coords, obs.values, x_t, t))
        rows = torch.cdist(obs.coords, self.coords.expand(len(obs.coords), -1, -1)).argmin(-1)
        field = (self.truth[:, rows] - obs.values).square().sum((2, 3)).argmin(0)
        return self.truth[field] + self.error * x_t


@pytest.fixture(scope="module")
def fields():
    values = np.random.default_rng(0).integers(0, 256, (N, *SHAPE, C), dtype=np.uint8)
    return FieldDataset(values)


def make_model(fields, error=0.0, name="oracle"):
    spec = ModelSpec("v1", {}, "data", 1.0, fields.normalizer, SHAPE)
    return Model(name, Flow(Oracle(fields, error), "data"), spec)


def contestant(kind="model", **scores):
    return Contestant(kind, "made up", mean=scores)


def values(count=40, seed=0, spread=3.0):
    return np.random.default_rng(seed).normal(22, spread, count)


def test_a_constant_shift_is_found_exactly_and_is_significant():
    base = values()
    rivals = {"a": contestant(psnr=base), "b": contestant(psnr=base + 0.01)}
    found = paired_differences(rivals, "a")
    assert found.keys() == {"b"}
    assert found["b"]["psnr"] == pytest.approx(0.01)
    assert found["b"]["psnr_ci"] == pytest.approx([0.01, 0.01])
    assert found["b"]["significant"] is True
    back = paired_differences(rivals, "b")["a"]
    assert back["psnr"] == pytest.approx(-0.01)
    assert back["significant"] is True


def test_identical_contestants_differ_by_exactly_nothing():
    twins = {name: contestant(psnr=values(), ssim=values(seed=1)) for name in "ab"}
    found = paired_differences(twins, "a")
    for name in ("psnr", "ssim"):
        assert found["b"][name] == 0
        assert found["b"][f"{name}_ci"] == [0, 0]
        assert found["b"][f"{name}_p"] == 1
        assert found["b"][f"{name}_significant"] is False
    assert found["b"]["significant"] is False


def test_the_interval_is_that_of_the_differences_not_of_the_scores():
    base, noise = values(400), np.random.default_rng(1).normal(0, 0.1, 400)
    rivals = {"a": contestant(psnr=base), "b": contestant(psnr=base + noise)}
    found = paired_differences(rivals, "a")
    low, high = found["b"]["psnr_ci"]
    assert high - low == pytest.approx(2 * 1.96 * noise.std() / 20, rel=0.1)


def test_noise_is_rarely_significant_and_a_family_no_more_often():
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(20):
        base = rng.normal(22, 3, 30)
        rivals = {n: contestant(psnr=base + rng.normal(0, 1, 30)) for n in "bcdefg"}
        found = paired_differences({"a": contestant(psnr=base)} | rivals, "a")
        alarms += any(entry["significant"] for entry in found.values())
    assert alarms <= 5  # 1 expected; more than 5 have a chance of 1 in 3,000


def test_few_fields_prove_nothing():
    base = values(5)
    found = paired_differences({"a": contestant(psnr=base), "b": contestant(psnr=base + 9)}, "a")
    assert found["b"]["psnr"] == pytest.approx(9)
    assert found["b"]["significant"] is False


def test_holm_is_that_of_a_worked_example():
    corrected = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    np.testing.assert_allclose(corrected, [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.6, 0.7])), [1, 1])


def test_infinite_scores_are_equal_to_each_other_and_above_all_others():
    perfect = np.full(10, np.inf)
    rivals = {"a": contestant(psnr=perfect), "b": contestant(psnr=perfect.copy())}
    rivals["c"] = contestant(psnr=values(10))
    found = paired_differences(rivals, "a")
    assert found["b"]["psnr"] == 0
    assert found["c"]["psnr"] == -np.inf
    assert found["c"]["significant"] is True


def test_undefined_scores_have_no_difference():
    missing = np.full(10, np.nan)
    rivals = {n: contestant(psnr=values(10), psnr_missing=missing) for n in "ab"}
    assert "psnr_missing" not in paired_differences(rivals, "a")["b"]
    both = contestant(psnr=np.array([np.inf, -np.inf] * 5))
    assert "psnr" not in paired_differences({"a": rivals["a"], "b": both}, "a")["b"]


def test_energies_are_compared_by_their_ratio_too():
    energy = np.random.default_rng(0).uniform(1, 2, 30)
    found = paired_differences(
        {"a": contestant(speckle=energy), "b": contestant(speckle=energy / 4)}, "a"
    )
    assert found["b"]["speckle_ratio"] == pytest.approx(0.25)
    assert found["b"]["speckle_ratio_ci"] == pytest.approx([0.25, 0.25])
    assert "psnr_ratio" not in found["b"]


def test_scores_are_those_of_evaluate(fields):
    model = make_model(fields, 0.3)
    entry = measure_model(model, fields, PROTOCOL, DRAWING)
    mean, _ = evaluate_mean(model, fields, PROTOCOL)
    samples, _, nfe = evaluate_samples(model, fields, PROTOCOL, 2, "euler", 3)
    for ours, theirs in ((entry.mean, mean), (entry.samples, samples)):
        assert ours.keys() == theirs.keys()
        for name in theirs:
            np.testing.assert_array_equal(ours[name], theirs[name])
    assert entry.nfe == 1 + 2 * nfe
    baselines = measure_baselines(fields, PROTOCOL, ["tps", "kriging"], DRAWING)
    theirs = evaluate_baselines(fields, PROTOCOL, ["tps", "kriging"])
    for name in ("tps", "kriging"):
        np.testing.assert_array_equal(baselines[name].mean["psnr"], theirs[name]["psnr"])
    np.testing.assert_array_equal(baselines["kriging"].samples["crps"], theirs["kriging"]["crps"])
    assert not baselines["tps"].samples


def test_every_model_sees_the_masks_and_the_noise_of_the_protocol(fields):
    models = [make_model(fields, error) for error in (0.1, 0.7)]
    for model in models:
        measure_model(model, fields, PROTOCOL, DRAWING)
    first, second = (model.flow.backbone.seen for model in models)
    starts = [call for call in first if (call[3] == 0).all()]
    assert len(starts) == 2 * 2 + 2 * 2  # two batches: the mean, again beside draws, two draws
    for ours, theirs in zip(first, second, strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
        if (ours[3] == 0).all():
            assert torch.equal(ours[2], theirs[2])
    task = make_task(fields, PROTOCOL, range(5))
    assert torch.equal(starts[0][0], task.obs.coords)
    assert torch.equal(starts[0][2], task.noise(model, 0))


def test_draws_of_the_first_fields_are_the_same_without_the_others(fields):
    model = make_model(fields, 0.3)
    few = measure_model(model, fields, PROTOCOL, Drawing(2, "euler", 3, limit=3))
    whole = measure_model(model, fields, PROTOCOL, DRAWING)
    assert few.sampling["n"] == 3
    for name, scores in few.samples.items():
        np.testing.assert_allclose(scores, whole.samples[name][:3], rtol=1e-5, err_msg=name)
    np.testing.assert_array_equal(few.mean["psnr"], whole.mean["psnr"])
    baselines = measure_baselines(fields, PROTOCOL, ["kriging"], Drawing(2, limit=3))
    assert len(baselines["kriging"].samples["crps"]) == 3


def report(fields, errors, baselines=("nearest",), order=1):
    entries = {
        f"m{error}": measure_model(make_model(fields, error), fields, PROTOCOL, DRAWING)
        for error in errors[::order]
    }
    entries |= measure_baselines(fields, PROTOCOL, list(baselines), DRAWING)
    whole = Comparison("made up", len(fields), PROTOCOL, entries, f"m{errors[0]}").to_dict()
    for row in whole["contestants"].values():
        row.pop("seconds")
    return whole


def test_the_order_of_contestants_changes_nothing(fields):
    forward, backward = (report(fields, [0.05, 0.2, 0.9], order=order) for order in (1, -1))
    assert forward == backward
    assert forward["ranking"][:2] == ["m0.05", "m0.2"]


def test_a_perfect_oracle_is_perfect_and_beats_every_baseline(fields):
    result = report(fields, [0.0, 0.5], ["nearest", "tps"])
    oracle = result["contestants"]["m0.0"]
    assert oracle["mean"]["psnr"] > 120
    assert oracle["mean"]["ssim"] == pytest.approx(1, abs=1e-6)
    assert oracle["mean"]["speckle"] == pytest.approx(0, abs=1e-10)
    assert oracle["samples"]["psnr"] > 100
    assert oracle["samples"]["crps"] == pytest.approx(0, abs=1e-5)
    assert result["differences"]["tps"]["psnr"] < -90
    sentences = findings(result)
    assert sentences[0].startswith("m0.0 has the highest PSNR")
    assert any(
        "Every model has a higher PSNR than the best baseline" in text for text in sentences
    )


def test_a_baseline_that_wins_is_named_and_so_is_its_significance():
    base = values(30)
    entries = {
        "ours": contestant(psnr=base),
        "best": contestant(psnr=base + 1),
        "tps": contestant("baseline", psnr=base + 0.5),
        "nearest": contestant("baseline", psnr=base - 2),
    }
    result = Comparison("made up", 30, PROTOCOL, entries, "ours").to_dict()
    assert result["ranking"] == ["best", "tps", "ours", "nearest"]
    assert result["comparisons"] == 3
    assert result["baseline"]["name"] == "tps"
    assert result["baseline"]["differences"].keys() == {"ours", "best"}
    text = " ".join(findings(result))
    assert "The best baseline, tps, wins over ours on PSNR" in text
    assert "Significantly below the baseline tps: ours (-0.50" in text
    assert "Significantly above the baseline tps: best (+0.50" in text
    entries["tps"].mean["psnr"] = base + 2
    first = findings(Comparison("made up", 30, PROTOCOL, entries, "ours").to_dict())[0]
    assert first.startswith("tps, a baseline, has the highest PSNR")


def test_baselines_alone_can_be_compared(fields):
    entries = measure_baselines(fields, PROTOCOL, ["nearest", "tps"], Drawing())
    result = Comparison("made up", N, PROTOCOL, entries, "nearest").to_dict()
    assert "baseline" not in result
    assert result["differences"].keys() == {"tps"}
    assert findings(result)


def test_a_baseline_drawn_for_a_figure_has_the_score_of_the_table(fields):
    task = make_task(fields, PROTOCOL, [2, 4])
    scores = score(baseline_fields("tps", task, fields), task)
    entry = measure_baselines(fields, PROTOCOL, ["tps"], Drawing())["tps"]
    np.testing.assert_allclose(scores["psnr"], entry.mean["psnr"][[2, 4]], rtol=1e-6)


def test_contestants_are_named_by_label_folder_or_as_given(tmp_path):
    (tmp_path / "run").mkdir()
    equals = tmp_path / "a=b.safetensors"
    equals.touch()
    arguments = ["default", f"best={tmp_path / 'run'}", f"{tmp_path / 'run'}/", str(equals)]
    assert name_contestants(arguments) == {
        "default": "default",
        "best": str(tmp_path / "run"),
        "run": f"{tmp_path / 'run'}/",
        str(equals): str(equals),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "a"], "two contestants are called 'a'"),
        (["a=x", "a=y"], "apart by LABEL=y"),
        (["tps=x"], "'tps' is a baseline"),
    ],
)
def test_labels_that_mean_two_things_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        name_contestants(arguments)


def test_the_reference_is_the_first_or_a_known_one():
    assert choose_reference(None, ["a", "b"]) == "a"
    assert choose_reference("b", ["a", "b"]) == "b"
    with pytest.raises(InputError, match="unknown contestant 'c'"):
        choose_reference("c", ["a", "b"])
    with pytest.raises(InputError, match="at least two"):
        choose_reference(None, ["a"])


def test_a_model_of_other_fields_is_refused(fields):
    grey = FieldDataset(fields.values[..., :1], "grey")
    with pytest.raises(InputError, match="2-D fields of 3 channels; grey has 2-D fields of 1"):
        check_fit(make_model(fields), grey)


def test_resampling_is_shared_by_all_contestants():
    base = values(30)
    columns = np.stack([base, base + 1, 2 * base], axis=1)
    means = comparison.resampled_means(columns, resamples=50)
    np.testing.assert_allclose(means[:, 1], means[:, 0] + 1)
    np.testing.assert_allclose(means[:, 2], 2 * means[:, 0])
