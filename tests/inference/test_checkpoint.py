"""Models on disk, and files that are whole or absent."""

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import sparsefield.inference.checkpoint
from sparsefield.core.errors import InputError
from sparsefield.core.files import write_atomically, write_tensors, write_text
from sparsefield.data.normalize import Normalizer
from sparsefield.inference.checkpoint import (
    BUNDLED,
    SUMS,
    ModelSpec,
    bundled_models,
    load_checkpoint,
    read_spec,
    resolve,
    save_checkpoint,
    write_sums,
)

SETTINGS = {"channels": 2, "dims": 2, "width": 8, "layers": 1, "heads": 2, "features": 3}


@pytest.fixture
def spec():
    normalizer = Normalizer((280.0, 1.5), (12.0, 0.5), low=0.0)
    card = {"data": ["a"], "steps": 3}
    return ModelSpec("v1", SETTINGS, "data", 7.0, normalizer, (5, 6), card)


@pytest.fixture
def saved(spec, tmp_path):
    flow = spec.build()
    save_checkpoint(tmp_path / "model.safetensors", spec, flow.backbone.state_dict())
    return tmp_path / "model.safetensors"


def test_description_survives_the_disk(spec, saved):
    flow, read = load_checkpoint(saved)
    assert read == read_spec(saved) == spec
    assert (flow.prediction, flow.time_shift) == ("data", 7.0)
    assert not flow.training
    assert not any(weight.requires_grad for weight in flow.parameters())


def test_half_precision_halves_the_file_and_loads_as_float32(spec, saved):
    weights = spec.build().backbone.state_dict()
    small = saved.with_name("small.safetensors")
    save_checkpoint(small, spec, weights, torch.float16)
    assert small.stat().st_size < 0.7 * saved.stat().st_size
    for name, weight in load_checkpoint(small)[0].backbone.state_dict().items():
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight, weights[name], atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_damaged_file_is_one_clear_line(saved, kept):
    saved.write_bytes(saved.read_bytes()[:kept])
    for read in (load_checkpoint, read_spec):
        with pytest.raises(InputError, match=r"model\.safetensors is not a readable") as error:
            read(saved)
        assert "\n" not in str(error.value)


def test_missing_and_foreign_files_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "nothing")
    save_file({"w": torch.zeros(3)}, tmp_path / "foreign")
    with pytest.raises(InputError, match="not of a sparsefield model"):
        load_checkpoint(tmp_path / "foreign")


def test_weights_of_another_model_are_one_clear_line(spec, tmp_path):
    weights = spec.build().backbone.state_dict()
    path = tmp_path / "model"
    wider = ModelSpec(**{**vars(spec), "settings": {**SETTINGS, "width": 16}})
    for wrong, part in ((wider, weights), (spec, dict(list(weights.items())[:-1]))):
        save_checkpoint(path, wrong, part)
        with pytest.raises(InputError, match="do not fit the settings of model v1: ") as error:
            load_checkpoint(path)
        assert "\n" not in str(error.value)


def test_other_formats_and_unknown_models_are_refused(spec, tmp_path):
    text = spec.to_json()
    with pytest.raises(InputError, match="reads format 1"):
        ModelSpec.from_json(text.replace('"format": 1', '"format": 99'))
    later = ModelSpec.from_json(text.replace('"v1"', '"v9"'))
    with pytest.raises(InputError, match="unknown model 'v9'"):
        later.build()


def flip(path, index, bit=0x40):
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[index] ^= bit
    path.write_bytes(content)


def test_a_flipped_bit_in_the_weights_is_refused(saved):
    whole = saved.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for index in np.linspace(start, len(whole) - 1, 25).astype(int):
        saved.write_bytes(whole)
        flip(saved, index)
        with pytest.raises(
            InputError, match=r"model\.safetensors is damaged: its content"
        ) as error:
            load_checkpoint(saved)
        assert "\n" not in str(error.value)


def without_hash(path, tensors=None):
    """Write the file again as an older version would have."""
    with safe_open(path, framework="pt") as file:
        text = file.metadata()["sparsefield"]
    save_file(tensors or load_file(path), path, {"sparsefield": text})


def test_files_of_older_versions_load_without_a_hash(spec, saved):
    expected = load_checkpoint(saved)[0].state_dict()
    without_hash(saved)
    flow, read = load_checkpoint(saved)
    assert read == spec
    assert all(torch.equal(expected[name], weight) for name, weight in flow.state_dict().items())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_written_nor_read(spec, saved, bad):
    weights = load_file(saved)
    name = next(iter(weights))
    weights[name].view(-1)[0] = bad
    with pytest.raises(InputError, match=f"its weights {name} are not finite: 1 of"):
        save_checkpoint(saved, spec, weights)
    without_hash(saved, weights)
    with pytest.raises(InputError, match=rf"model\.safetensors is damaged: its weights {name}"):
        load_checkpoint(saved)


@pytest.fixture
def bundle(saved, tmp_path, monkeypatch):
    """A folder of bundled weights that holds the saved model."""
    (tmp_path / "interpolators").mkdir()
    monkeypatch.setattr(sparsefield.inference.checkpoint, "BUNDLED", tmp_path)
    monkeypatch.setattr(
        sparsefield.inference.checkpoint, "INTERPOLATORS", tmp_path / "interpolators"
    )
    without_hash(saved)
    write_sums()
    return saved


def test_bundled_weights_are_compared_with_their_sum(bundle):
    assert load_checkpoint(resolve("model"))
    size = bundle.stat().st_size
    for index in (size - 1, size - 50, 200):
        flip(bundle, index)
        with pytest.raises(InputError, match="is not the file that was bundled; install again"):
            load_checkpoint(bundle)
        flip(bundle, index)
    (bundle.parent / SUMS).unlink()
    with pytest.raises(InputError, match="SHA256SUMS is missing or damaged; install again"):
        load_checkpoint(bundle)


def test_the_sums_of_the_bundled_weights_are_up_to_date():
    sums = (BUNDLED / SUMS).read_text().split()
    expected = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in bundled_models().values()
    }
    assert dict(zip(sums[1::2], sums[::2], strict=True)) == expected


# What a file may claim of itself, where a sound one says something else.
CLAIMS = [
    ("width", 10**9), ("width", 10**4), ("width", -8), ("width", 0), ("width", "wide"),
    ("width", None), ("width", 8.5), ("width", [8]), ("width", {}), ("width", 10**400),
    ("layers", 10**9), ("layers", 999), ("heads", 0), ("heads", 3), ("dims", 0), ("order", "../x"),
    ("order", 3), ("nonsense", 1),
]  # fmt: skip
PARTS = [
    ("model", 3), ("model", None), ("model", ["v1"]), ("model", "../v1"), ("model", "os:system"),
    ("model", "a:b:c"), ("model", "v1" * 10**5), ("settings", []), ("settings", None),
    ("prediction", "truth"), ("prediction", 1), ("time_shift", "7"), ("time_shift", 10**400),
    ("normalizer", {}), ("normalizer", None), ("normalizer", {"offset": 1, "scale": 1}),
    ("shape", []), ("shape", 3), ("shape", ["a"]), ("shape", [10**12, 10**12]), ("shape", [-1, 2]),
    ("path", "../../etc"), ("noise", "loud"), ("noise_length", -1), ("noise_length", None),
    ("card", 3), ("format", "1"), ("format", None), ("extra", 1),
]  # fmt: skip


def claim(path, change):
    """Let a file say something else of itself."""
    with safe_open(path, framework="pt") as file:
        data = json.loads(file.metadata()["sparsefield"])
    change(data)
    save_file(load_file(path), path, {"sparsefield": json.dumps(data)})


@pytest.mark.parametrize(("key", "value"), CLAIMS)
def test_settings_that_no_such_file_can_have_are_one_clear_line(saved, key, value):
    claim(saved, lambda data: data["settings"].update({key: value}))
    with pytest.raises(InputError, match=r"model\.safetensors: ") as error:
        load_checkpoint(saved)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(("key", "value"), PARTS)
def test_a_description_that_is_wrong_is_one_clear_line(saved, key, value):
    claim(saved, lambda data: data.update({key: value}))
    with pytest.raises(InputError, match=r"model\.safetensors: ") as error:
        load_checkpoint(saved)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 100_000, '{"format": 1}', "1" * 9999]
)
def test_a_description_that_is_no_description_is_one_clear_line(saved, text):
    save_file(load_file(saved), saved, {"sparsefield": text})
    for read in (load_checkpoint, read_spec):
        with pytest.raises(InputError, match=r"model\.safetensors: ") as error:
            read(saved)
        assert "\n" not in str(error.value)


def mutate(content, rng):
    """Damage a file in one of the ways that disks, networks and strangers do."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        at, kind = int(rng.integers(len(content))), rng.integers(5)
        # Half of the damage goes where the description is.
        at = at if rng.random() < 0.5 else at % 1500
        if kind == 0:
            content[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            content[at : at + 8] = rng.bytes(8)
        elif kind == 2:
            del content[at : at + int(rng.integers(1, 40))]
        elif kind == 3:
            content[at:at] = rng.choice([b"9999999999", b"null", b"[[[[", b"-", b'"', b"\x00"])
        else:
            content = content[: max(1, at)]
    return bytes(content)


@pytest.mark.parametrize(
    "rounds", [100, pytest.param(5000, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_no_damage_gives_other_weights_or_a_traceback(saved, rounds, record_property):
    whole, expected = saved.read_bytes(), load_checkpoint(saved)[0].state_dict()
    rng = np.random.default_rng(rounds)
    for _ in range(rounds):
        saved.write_bytes(mutate(whole, rng))
        try:
            flow = load_checkpoint(saved)[0]
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert all(torch.equal(expected[k], w) for k, w in flow.state_dict().items())
    record_property("trials", rounds)


def test_names_resolve_to_bundled_models_run_folders_and_files(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(sparsefield.inference.checkpoint, "BUNDLED", tmp_path)
    assert bundled_models() == {"model": saved}
    assert resolve("model") == resolve(saved) == saved
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(InputError, match=r"no best\.safetensors or latest"):
        resolve(run)
    for name in ("latest", "best"):
        (run / f"{name}.safetensors").touch()
        assert resolve(run).stem == name
    with pytest.raises(InputError, match=r"no model 'nothing'.*bundled \(model, universal\)"):
        resolve("nothing")


def test_bundled_models_can_be_built():
    for path in bundled_models().values():
        assert read_spec(path).build()


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")

    def fail(temporary):
        temporary.write_text("half of the ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_full_disk_is_one_clear_line_and_harms_nothing(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")

    def fail(temporary):
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"file: No space left on device; nothing was changed"):
        write_atomically(path, fail)
    assert path.read_text() == "old"


def test_place_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        write_text(tmp_path / "file" / "below", "text")
    with pytest.raises(InputError, match="cannot write"):
        write_tensors(tmp_path / "file" / "below", {"w": torch.zeros(3)}, {})


def test_failure_inside_the_tensor_writer_is_an_input_error(tmp_path, monkeypatch):
    """The library reports a full disk by an exception of its own."""
    monkeypatch.setattr("pathlib.Path.mkdir", lambda *args, **kwargs: None)
    with pytest.raises(InputError, match="cannot write.*No such file"):
        write_tensors(tmp_path / "absent" / "file", {"w": torch.zeros(3)}, {})


def test_new_folders_are_made(tmp_path):
    write_text(tmp_path / "a" / "b" / "c", "text")
    assert (tmp_path / "a" / "b" / "c").read_text() == "text"
