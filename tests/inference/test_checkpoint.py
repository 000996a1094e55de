"""Models on disk, and files that are whole or absent."""

import pytest
import torch
from safetensors.torch import save_file

import sparsefield.inference.checkpoint
from sparsefield.core.errors import InputError
from sparsefield.core.files import write_atomically, write_tensors, write_text
from sparsefield.data.normalize import Normalizer
from sparsefield.inference.checkpoint import (
    ModelSpec,
    bundled_models,
    load_checkpoint,
    read_spec,
    resolve,
    save_checkpoint,
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
    with pytest.raises(InputError, match=r"no model 'nothing'.*bundled \(model\)"):
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
