"""Paired differences that can be trusted, and methods that cannot tell who else takes part."""

import numpy as np
import pytest
import torch
from torch import nn

from sparsefield.core.errors import InputError
from sparsefield.data.dataset import FieldDataset
from sparsefield.evaluation.comparison import compare
from sparsefield.evaluation.differences import paired_differences
from sparsefield.evaluation.methods import (
    Method,
    choose_reference,
    evaluate_baselines,
    evaluate_mean,
    evaluate_samples,
    measure_baselines,
    measure_model,
    name_methods,
)
from sparsefield.evaluation.predictors import Baseline, SamplingConfig, start_noise
from sparsefield.evaluation.report import head
from sparsefield.evaluation.scorers import score_mean
from sparsefield.evaluation.serialise import flatten
from sparsefield.evaluation.task import Protocol, check_fit, make_task
from sparsefield.flow.backbone import Backbone, Claims
from sparsefield.flow.flow import Flow
from sparsefield.inference.checkpoint import ModelSpec
from sparsefield.inference.model import Model
from sparsefield.metrics.statistics import holm, resampled_means

N, SHAPE, C = 8, (8, 9), 3
PROTOCOL = Protocol(density=0.3, seed=3, batch_size=5)
CONFIG = SamplingConfig(samples=2, sampler="euler", steps=3)
NO_SAMPLES = SamplingConfig()


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


def method(kind="model", **scores):
    return Method(kind, "made up", mean=scores)


def values(count=40, seed=0, spread=3.0):
    return np.random.default_rng(seed).normal(22, spread, count)


def test_a_constant_shift_is_found_exactly_and_is_significant():
    base = values()
    rivals = {"a": {"psnr": base}, "b": {"psnr": base + 0.01}}
    found = paired_differences(rivals, "a")
    assert found.keys() == {"b"}
    shift = found["b"].scores["psnr"]
    assert shift.value == pytest.approx(0.01)
    assert (shift.low, shift.high) == pytest.approx((0.01, 0.01))
    assert found["b"].significant
    back = paired_differences(rivals, "b")["a"]
    assert back.scores["psnr"].value == pytest.approx(-0.01)
    assert back.significant


def test_identical_methods_differ_by_exactly_nothing():
    twins = {name: {"psnr": values(), "ssim": values(seed=1)} for name in "ab"}
    found = paired_differences(twins, "a")
    for name in ("psnr", "ssim"):
        difference = found["b"].scores[name]
        assert (difference.value, difference.low, difference.high) == (0, 0, 0)
        assert difference.p == 1
        assert not difference.significant
    assert not found["b"].significant


def test_the_interval_is_that_of_the_differences_not_of_the_scores():
    base, noise = values(400), np.random.default_rng(1).normal(0, 0.1, 400)
    rivals = {"a": {"psnr": base}, "b": {"psnr": base + noise}}
    found = paired_differences(rivals, "a")
    difference = found["b"].scores["psnr"]
    assert difference.high - difference.low == pytest.approx(2 * 1.96 * noise.std() / 20, rel=0.1)


def test_noise_is_rarely_significant_and_a_family_no_more_often():
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(20):
        base = rng.normal(22, 3, 30)
        rivals = {n: {"psnr": base + rng.normal(0, 1, 30)} for n in "bcdefg"}
        found = paired_differences({"a": {"psnr": base}} | rivals, "a")
        alarms += any(entry.significant for entry in found.values())
    assert alarms <= 5  # 1 expected; more than 5 have a chance of 1 in 3,000


def test_few_fields_prove_nothing():
    base = values(5)
    found = paired_differences({"a": {"psnr": base}, "b": {"psnr": base + 9}}, "a")
    assert found["b"].scores["psnr"].value == pytest.approx(9)
    assert not found["b"].significant


def test_holm_is_that_of_a_worked_example():
    corrected = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    np.testing.assert_allclose(corrected, [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.6, 0.7])), [1, 1])


def test_infinite_scores_are_equal_to_each_other_and_above_all_others():
    perfect = np.full(10, np.inf)
    rivals = {"a": {"psnr": perfect}, "b": {"psnr": perfect.copy()}, "c": {"psnr": values(10)}}
    found = paired_differences(rivals, "a")
    assert found["b"].scores["psnr"].value == 0
    assert found["c"].scores["psnr"].value == -np.inf
    assert found["c"].significant


def test_undefined_scores_have_no_difference():
    missing = np.full(10, np.nan)
    rivals = {n: {"psnr": values(10), "psnr_missing": missing} for n in "ab"}
    assert paired_differences(rivals, "a")["b"].get("psnr_missing") is None
    both = {"psnr": np.array([np.inf, -np.inf] * 5)}
    assert paired_differences({"a": rivals["a"], "b": both}, "a")["b"].get("psnr") is None


def test_energies_are_compared_by_their_ratio_too():
    energy = np.random.default_rng(0).uniform(1, 2, 30)
    rivals = {
        "a": {"speckle": energy, "psnr": energy},
        "b": {"speckle": energy / 4, "psnr": energy},
    }
    found = paired_differences(rivals, "a")["b"].scores
    assert found["speckle"].ratio.value == pytest.approx(0.25)
    assert found["speckle"].ratio.interval == pytest.approx((0.25, 0.25))
    assert found["psnr"].ratio is None


def test_scores_are_those_of_evaluate(fields):
    model = make_model(fields, 0.3)
    entry = measure_model(model, fields, PROTOCOL, config=CONFIG)
    mean = evaluate_mean(model, fields, PROTOCOL).scores
    samples = evaluate_samples(model, fields, PROTOCOL, config=CONFIG)
    for ours, theirs in ((entry.mean, mean), (entry.samples, samples.scores)):
        assert ours.keys() == theirs.keys()
        for name in theirs:
            np.testing.assert_array_equal(ours[name], theirs[name])
    assert entry.nfe == 1 + samples.nfe == 1 + 2 * 3
    baselines = measure_baselines(fields, PROTOCOL, ["tps", "kriging"], config=CONFIG)
    theirs = evaluate_baselines(fields, PROTOCOL, ["tps", "kriging"])
    for name in ("tps", "kriging"):
        np.testing.assert_array_equal(baselines[name].mean["psnr"], theirs[name].scores["psnr"])
    crps = baselines["kriging"].samples["crps"]
    np.testing.assert_array_equal(crps, theirs["kriging"].scores["crps"])
    assert not baselines["tps"].samples


def test_every_model_sees_the_masks_and_the_noise_of_the_protocol(fields):
    models = [make_model(fields, error) for error in (0.1, 0.7)]
    for model in models:
        measure_model(model, fields, PROTOCOL, config=CONFIG)
    first, second = (model.flow.backbone.seen for model in models)
    starts = [call for call in first if (call[3] == 0).all()]
    assert len(starts) == 2 * 2 + 2 * 2  # two batches: the mean, again beside samples, two samples
    for ours, theirs in zip(first, second, strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
        if (ours[3] == 0).all():
            assert torch.equal(ours[2], theirs[2])
    task = make_task(fields, PROTOCOL, range(5))
    assert torch.equal(starts[0][0], task.obs.coords)
    assert torch.equal(starts[0][2], start_noise(model, task, 0))


def test_samples_of_the_first_fields_are_the_same_without_the_others(fields):
    model = make_model(fields, 0.3)
    few = measure_model(model, fields, PROTOCOL, config=SamplingConfig(2, "euler", 3, limit=3))
    whole = measure_model(model, fields, PROTOCOL, config=CONFIG)
    assert few.sampling.n == 3
    for name, scores in few.samples.items():
        np.testing.assert_allclose(scores, whole.samples[name][:3], rtol=1e-5, err_msg=name)
    np.testing.assert_array_equal(few.mean["psnr"], whole.mean["psnr"])
    baselines = measure_baselines(fields, PROTOCOL, ["kriging"], config=SamplingConfig(2, limit=3))
    assert len(baselines["kriging"].samples["crps"]) == 3


def report(fields, errors, baselines=("nearest",), order=1):
    entries = {
        f"m{error}": measure_model(make_model(fields, error), fields, PROTOCOL, config=CONFIG)
        for error in errors[::order]
    }
    entries |= measure_baselines(fields, PROTOCOL, list(baselines), config=CONFIG)
    return compare(head(fields, PROTOCOL), entries, f"m{errors[0]}")


def without_seconds(comparison):
    flat = flatten(comparison)
    for row in flat["contestants"].values():
        row.pop("seconds")
    return flat


def test_the_order_of_methods_changes_nothing(fields):
    forward, backward = (report(fields, [0.05, 0.2, 0.9], order=order) for order in (1, -1))
    assert without_seconds(forward) == without_seconds(backward)
    assert forward.ranking[:2] == ["m0.05", "m0.2"]


def test_a_perfect_oracle_is_perfect_and_beats_every_baseline(fields):
    result = report(fields, [0.0, 0.5], ["nearest", "tps"])
    oracle = result.methods["m0.0"]
    assert oracle.mean["psnr"].value > 120
    assert oracle.mean["ssim"].value == pytest.approx(1, abs=1e-6)
    assert oracle.mean["speckle"].value == pytest.approx(0, abs=1e-10)
    assert oracle.samples["psnr"].value > 100
    assert oracle.samples["crps"].value == pytest.approx(0, abs=1e-5)
    assert result.differences["tps"].scores["psnr"].value < -90
    sentences = result.summary()
    assert sentences[0].startswith("m0.0 has the highest PSNR")
    assert any(
        "Every model has a higher PSNR than the best baseline" in text for text in sentences
    )


def test_a_baseline_that_wins_is_named_and_so_is_its_significance(fields):
    base = values(30)
    entries = {
        "ours": method(psnr=base),
        "best": method(psnr=base + 1),
        "tps": method("baseline", psnr=base + 0.5),
        "nearest": method("baseline", psnr=base - 2),
    }
    where = head(fields, PROTOCOL)
    result = compare(where, entries, "ours")
    assert result.ranking == ["best", "tps", "ours", "nearest"]
    assert result.comparisons == 3
    assert result.baseline.name == "tps"
    assert result.baseline.differences.keys() == {"ours", "best"}
    text = " ".join(result.summary())
    assert "The best baseline, tps, wins over ours on PSNR" in text
    assert "Significantly below the baseline tps: ours (-0.50" in text
    assert "Significantly above the baseline tps: best (+0.50" in text
    entries["tps"].mean["psnr"] = base + 2
    first = compare(where, entries, "ours").summary()[0]
    assert first.startswith("tps, a baseline, has the highest PSNR")


def test_baselines_alone_can_be_compared(fields):
    entries = measure_baselines(fields, PROTOCOL, ["nearest", "tps"], config=NO_SAMPLES)
    result = compare(head(fields, PROTOCOL), entries, "nearest")
    assert result.baseline is None
    assert result.differences.keys() == {"tps"}
    assert result.summary()


def test_a_baseline_shown_in_a_figure_has_the_score_of_the_table(fields):
    task = make_task(fields, PROTOCOL, [2, 4])
    scores = score_mean(Baseline("tps", fields.normalizer)(task), task)
    entry = measure_baselines(fields, PROTOCOL, ["tps"], config=NO_SAMPLES)["tps"]
    np.testing.assert_allclose(scores["psnr"], entry.mean["psnr"][[2, 4]], rtol=1e-6)


def test_methods_are_named_by_label_folder_or_as_given(tmp_path):
    (tmp_path / "run").mkdir()
    equals = tmp_path / "a=b.safetensors"
    equals.touch()
    arguments = ["default", f"best={tmp_path / 'run'}", f"{tmp_path / 'run'}/", str(equals)]
    assert name_methods(arguments) == {
        "default": "default",
        "best": str(tmp_path / "run"),
        "run": f"{tmp_path / 'run'}/",
        str(equals): str(equals),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "a"], "two methods are called 'a'"),
        (["a=x", "a=y"], "apart by LABEL=y"),
        (["tps=x"], "'tps' is a baseline"),
    ],
)
def test_labels_that_mean_two_things_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        name_methods(arguments)


def test_the_reference_is_the_first_or_a_known_one():
    assert choose_reference(None, ["a", "b"]) == "a"
    assert choose_reference("b", ["a", "b"]) == "b"
    with pytest.raises(InputError, match="unknown method 'c'"):
        choose_reference("c", ["a", "b"])
    with pytest.raises(InputError, match="at least two"):
        choose_reference(None, ["a"])


def test_a_model_of_other_fields_is_refused(fields):
    grey = FieldDataset(fields.values[..., :1], "grey")
    with pytest.raises(InputError, match="2-D fields of 3 channels; grey has 2-D fields of 1"):
        check_fit(make_model(fields), grey)


def test_resampling_is_shared_by_all_methods():
    base = values(30)
    columns = np.stack([base, base + 1, 2 * base], axis=1)
    means = resampled_means(columns, resamples=50)
    np.testing.assert_allclose(means[:, 1], means[:, 0] + 1)
    np.testing.assert_allclose(means[:, 2], 2 * means[:, 0])
