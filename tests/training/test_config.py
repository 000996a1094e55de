"""Settings: presets, overrides and what is said about wrong ones."""

import json

import numpy as np
import pytest

from sparsefield.core.errors import InputError
from sparsefield.flow.flow import PREDICTIONS
from sparsefield.flow.noise import NOISES
from sparsefield.flow.path import PATHS
from sparsefield.models import MODELS, build_model
from sparsefield.training.config import (
    config_from_dict,
    config_to_dict,
    load_config,
    preset_names,
)


@pytest.mark.parametrize("name", preset_names())
def test_preset_describes_a_model_that_builds(name):
    config = load_config(name)
    settings = {k: v for k, v in config.model.items() if k != "name"}
    small = {k: min(v, 64) if isinstance(v, int) else v for k, v in settings.items()}
    assert build_model(config.model["name"], **small)


def test_presets_named_after_a_model_have_its_full_size():
    reading = {"name", "near", "layout"}  # how points are read, whatever the size
    for name in set(preset_names()) & set(MODELS):
        config = load_config(name)
        assert set(config.model) <= reading and config.model["name"] == name


def test_presets_of_sequences_start_as_local_kriging_and_keep_the_prototypes_own_setting():
    for name in ("v1", "v2", "local", "perceiver_io", "transformer"):
        for best in (load_config(name), load_config(f"{name}-small")):
            assert (best.flow.residual, best.model["near"], best.data.target) == (
                "kriging",
                8,
                "all",
            )
        original = load_config(f"{name}-original")
        assert original.model == {"name": name}
        assert (original.flow.residual, original.flow.mean_fraction) == ("none", 0.0)
        assert (original.data.target, original.data.masks) == ("disjoint", "fixed")


def test_small_presets_have_a_million_weights_or_two():
    for name in ("v1-small", "v2-small"):
        settings = dict(load_config(name).model)
        weights = build_model(settings.pop("name"), **settings).parameters()
        assert 0.5e6 < sum(w.numel() for w in weights) < 2e6


def test_settings_survive_json():
    config = load_config("v2-small", ["data.density=[0.1, 0.4]", "optimizer.lr=3e-4"])
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


def test_overrides_reach_every_section_and_keep_their_type():
    overrides = [
        "seed=3",
        "device=cpu",
        "model.width=64",
        "flow.prediction=data",
        "data.flip=false",
        "data.density=0.3",
        "data.paths=a.npy",
        "optimizer.lr=1",
    ]
    config = load_config("v1-small", overrides)
    assert (config.seed, config.device, config.model["width"]) == (3, "cpu", 64)
    assert (config.flow.prediction, config.data.flip) == ("data", False)
    assert (config.data.density, config.data.paths) == ((0.3, 0.3), ("a.npy",))
    assert config.optimizer.lr == 1.0
    assert isinstance(config.optimizer.lr, float)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.speed=1", "unknown key 'optimizer.speed'.*optimizer.lr"),
        ("epoch=1", "unknown key 'epoch'.*epochs"),
        ("model.depth=3", "unknown key 'model.depth'.*model.layers"),
        ("model.name=v9", "unknown model 'v9'.*v1"),
        ("model.width=wide", "model.width must be int, not 'wide'"),
        ("epochs=2.5", "epochs must be int, not 2.5"),
        ("epochs=true", "epochs must be int, not True"),
        ("epochs=0", "epochs must be at least 1"),
        ("batch_size=0", "batch_size must be at least 1"),
        ("eval_every=0", "eval_every must be at least 1"),
        ("data.flip=1", "unknown value of data.flip '1'; choose one of: all, auto, false, true"),
        ("data.masks=loose", "unknown value of data.masks 'loose'.*fixed, fresh"),
        ("data.density=[0.1, 0.2, 0.3]", "data.density takes 2 values, not 3"),
        ("data.density=1.5", r"data.density must be a range within \(0, 1\]"),
        ("data.density=[0.5, 0.2]", "data.density must be a range"),
        ("data.own_cells=1.5", "data.own_cells must be from 0 to 1"),
        ("seed", "'seed' is not a setting; write section.key=value"),
        ("seed.value=1", "unknown key 'seed.value'|seed must be int"),
    ],
)
def test_wrong_setting_is_named_with_what_is_possible(override, message):
    with pytest.raises(InputError, match=message) as error:
        load_config("v1-small", [override])
    assert "\n" not in str(error.value)


def test_density_that_leaves_no_target_is_refused():
    with pytest.raises(InputError, match="leaves no disjoint target"):
        load_config("v1-small", ["data.density=1", "data.target=disjoint"])


def test_unknown_preset_lists_the_presets():
    with pytest.raises(InputError, match="unknown preset 'v7'.*v1-small.*v2"):
        load_config("v7")


def test_preset_may_be_a_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('epochs = 3\n[model]\nname = "v1"\n')
    assert load_config(str(path)).epochs == 3
    path.write_text("epochs = = 3")
    with pytest.raises(InputError, match=r"mine\.toml is not valid TOML"):
        load_config(str(path))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("flow.time_shift=0", "flow.time_shift must be above 0"),
        ("optimizer.lr=-1", "optimizer.lr must be above 0"),
        ("optimizer.ema=1", "optimizer.ema must be below 1"),
        ("flow.mean_fraction=1.5", "flow.mean_fraction must be at most 1"),
        ("seed=-1", "seed must be at least 0"),
        ("data.window=-1", "data.window must be at least 0"),
        ("model.heads=0", "model.heads must be above 0"),
        ("flow.prediction=noise", "says nothing of the data at t = 0"),
    ],
)
def test_numbers_that_could_not_train_are_refused(override, message):
    with pytest.raises(InputError, match=message):
        load_config("v1-small", [override])


@pytest.mark.parametrize(
    ("key", "registry"), [("prediction", PREDICTIONS), ("path", PATHS), ("noise", NOISES)]
)
def test_every_name_of_a_registry_is_a_setting(key, registry):
    for name in registry:
        config = load_config("v1-small", [f"flow.{key}={name}", "flow.mean_fraction=0"])
        assert getattr(config.flow, key) == name
    with pytest.raises(InputError, match=f"unknown value of flow.{key} 'other'.*{name}"):
        load_config("v1-small", [f"flow.{key}=other"])


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.lr=inf", "optimizer.lr=nan", "optimizer.lr=1" + "0" * 400, "seed=1" + "0" * 30,
        "seed=1" + "0" * 5000, "epochs=[1]", "epochs={a=1}", "model.name=3", "model.name=[1]",
        "model=3", "model.name.x=1", "data=x", "data.density={a=1}", "data.density=[]",
        "data.paths=[3]", "data.size=[[1]]", "flow.path=[]", "flow.path={}", "=1", ".=1", "..=1",
        "model..width=3", "device=\"a\\u0000b\"", "optimizer.lr=" + "[" * 5000,
        "model.width=1" + "0" * 20, "model.layers=1e99", "seed=1979-05-27", "epochs=1\nseed=2",
        "a\nb=1",
    ],
)  # fmt: skip
def test_settings_of_no_use_are_one_clear_line(override):
    with pytest.raises(InputError) as error:
        load_config("v1-small", [override])
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"\x00", b"a" * 2**21, b"x = " + b"[" * 100_000, b"epochs = 1" + b"0" * 5000,
     b"model = 3", b"[model]\nname = 3", b"[[model]]", b"[data.density]", b"epochs = nan"],
)  # fmt: skip
def test_damaged_presets_are_one_clear_line(tmp_path, content):
    (tmp_path / "a.toml").write_bytes(content)
    with pytest.raises(InputError) as error:
        load_config(str(tmp_path / "a.toml"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["../presets/v1", "/etc/passwd", "a\0b", "", ".", "x" * 5000])
def test_a_preset_is_a_name_of_the_package_or_a_toml_file(name):
    with pytest.raises(InputError, match="unknown preset") as error:
        load_config(name)
    assert "\n" not in str(error.value)


ODD = [None, True, -1, 0, 1e308, 10**400, "", "x", [], [[]], {}, {"a": {}}, [None], "nan", -0.5]


def damage(table, rng):
    """Put something odd into a random place of nested tables."""
    key = str(rng.choice(list(table)))
    if isinstance(table[key], dict) and rng.random() < 0.8:
        return {**table, key: damage(table[key], rng)}
    odd = ODD[rng.integers(len(ODD))]
    return {**table, key: odd} if rng.random() < 0.8 else {**table, "odd": odd}


@pytest.mark.parametrize("rounds", [500, pytest.param(20_000, marks=pytest.mark.slow)])
def test_no_table_of_settings_ends_in_a_traceback(rounds):
    whole = config_to_dict(load_config("v1-small"))
    rng = np.random.default_rng(rounds)
    for _ in range(rounds):
        try:
            config_from_dict(damage(whole, rng))
        except InputError as error:
            assert "\n" not in str(error)
