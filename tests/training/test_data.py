"""Settings that follow the data: grid, validation share and mirroring."""

import json

import numpy as np
import pytest

from sparsefield.core.errors import InputError
from sparsefield.data.dataset import validation_share
from sparsefield.training.batches import TrainingBatches
from sparsefield.training.changes import find_changes
from sparsefield.training.config import follow_run, load_config, preset_names
from sparsefield.training.data import follow_data, open_training_data
from sparsefield.training.run import Run

STATIONS = (384, 33, 49, 1)


def config_for(path, *overrides, preset="v1-small"):
    return load_config(preset, [f"data.paths={json.dumps([str(path)])}", *overrides])


def save(folder, shape, dtype=np.float32, name="a.npy"):
    np.save(folder / name, (np.arange(np.prod(shape)) % 251).reshape(shape).astype(dtype))
    return folder / name


@pytest.fixture
def stations(tmp_path):
    return save(tmp_path, STATIONS)


@pytest.mark.parametrize(
    "preset", [name for name in preset_names() if not load_config(name).data.fine]
)
def test_every_preset_takes_fields_of_any_grid_and_number(stations, preset):
    config = config_for(stations, "batch_size=4", "data.window=0", preset=preset)
    data = open_training_data(config)
    assert data.training.shape == (33, 49)
    assert (len(data.training), len(data.validation)) == (308, 76)
    TrainingBatches(data.training, config, data.finer)(0)


def test_images_are_brought_to_the_preset_s_grid(tmp_path):
    for shape, expected in [((20, 64, 96, 3), (32, 32)), ((20, 28, 28, 1), (28, 28))]:
        config = config_for(save(tmp_path, shape, np.uint8))
        assert open_training_data(config).training.shape == expected


@pytest.mark.parametrize(("n", "share"), [(2, 1), (9, 1), (384, 76), (2500, 500), (50_000, 500)])
def test_validation_is_500_items_or_a_fifth(n, share):
    assert validation_share(n) == share


def named_value(message, key):
    """Return the value of a setting that a message names."""
    return message.split(f"{key}=")[1].split(" ")[0].rstrip(",;)")


def test_the_size_that_a_message_names_works(stations):
    with pytest.raises(InputError, match=r"\(33, 49\) to \(32, 32\)") as caught:
        open_training_data(config_for(stations, "data.size=[32,32]"))
    value = named_value(str(caught.value), "data.size")
    assert value == "[33,49]"
    assert open_training_data(config_for(stations, f"data.size={value}")).training.shape == (
        33,
        49,
    )


def test_the_number_of_validation_items_that_a_message_names_works(stations):
    with pytest.raises(InputError, match="cannot hold out 500 of 384") as caught:
        open_training_data(config_for(stations, "data.validation=500"))
    value = named_value(str(caught.value), "data.validation")
    data = open_training_data(config_for(stations, f"data.validation={value}"))
    assert len(data.validation) == int(value) == 76


def test_the_window_and_the_batch_size_that_messages_name_work(tmp_path):
    path = save(tmp_path, (10, 7, 9, 1))
    for key, overrides in [("data.window", ["batch_size=2"]), ("batch_size", ["data.window=0"])]:
        with pytest.raises(InputError) as caught:
            config = config_for(path, *overrides, preset="hybrid-small")
            TrainingBatches(open_training_data(config).training, config)
        value = named_value(str(caught.value).split("set ")[1], key)
        config = config_for(path, *overrides, f"{key}={value}", preset="hybrid-small")
        TrainingBatches(open_training_data(config).training, config)


def test_the_common_size_of_two_sets_that_a_message_names_works(tmp_path):
    paths = [
        save(tmp_path, (6, 12, 18, 1), name="a.npy"),
        save(tmp_path, (6, 8, 9, 1), name="b.npy"),
    ]
    both = f"data.paths={json.dumps([str(path) for path in paths])}"
    with pytest.raises(InputError, match="differ in grid") as caught:
        open_training_data(load_config("v1-small", [both]))
    value = named_value(str(caught.value), "data.size")
    config = load_config("v1-small", [both, f"data.size={value}"])
    assert open_training_data(config).training.shape == (4, 9)


@pytest.mark.parametrize(("dtype", "flips"), [(np.uint8, True), (np.float32, False)])
def test_images_are_mirrored_and_other_fields_are_not(tmp_path, dtype, flips):
    config = config_for(save(tmp_path, (40, 6, 8, 3), dtype), "batch_size=8")
    data = open_training_data(config)
    assert TrainingBatches(data.training, config).flip is flips
    assert follow_data(config, data).data.flip is flips
    for said in (True, False):
        explicit = config_for(
            save(tmp_path, (40, 6, 8, 3), dtype), f"data.flip={str(said).lower()}"
        )
        assert follow_data(explicit, data).data.flip is said


def test_a_run_records_what_followed_from_the_data_and_resumes_by_it(stations, tmp_path):
    config = config_for(stations)
    settled = follow_data(config, open_training_data(config))
    run = Run(tmp_path / "run")
    run.write_config(settled)
    recorded = json.loads(run.config_file.read_text())["data"]
    assert (recorded["size"], recorded["validation"], recorded["flip"]) == ([33, 49], 76, False)
    again = follow_run(config, run.read_config())  # the same command: nothing has changed
    assert again == settled
    assert not find_changes(run.read_config(), again)
    other = follow_run(config_for(stations, "data.flip=true"), run.read_config())
    assert [change.key for change in find_changes(run.read_config(), other)] == ["data.flip"]


def test_a_finer_grid_that_is_damaged_is_told_and_not_passed_over(tmp_path):
    path = save(tmp_path, (9, 8, 8, 1))
    scaled = ("data.fine=[8,8]", "data.size=[4,4]", "data.scales=[1,2]")
    assert open_training_data(config_for(path, *scaled)).finer.shape == (8, 8)
    with pytest.raises(InputError, match="no data set has a grid as fine"):
        open_training_data(config_for(path, "data.fine=[16,16]", "data.size=[4,4]"))
