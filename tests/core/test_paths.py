import os

import pytest

from sparsefield.core.errors import InputError
from sparsefield.core.paths import refuse_overwriting


def test_an_input_is_recognised_by_every_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "in.png"
    source.write_bytes(b"1")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "symbolic.png").symlink_to(source)
    (tmp_path / "linked").symlink_to(tmp_path)
    os.link(source, tmp_path / "hard.png")
    for name in (
        "in.png",
        "./folder/../in.png",
        "folder/symbolic.png",
        "linked/in.png",
        "hard.png",
    ):
        with pytest.raises(InputError, match="is the input"):
            refuse_overwriting([type(source)(name)], [source])


def test_files_below_an_input_folder_are_inputs_and_new_ones_are_not(tmp_path):
    (tmp_path / "a.png").write_bytes(b"1")
    for output in (tmp_path / "a.png", tmp_path):
        with pytest.raises(InputError, match="is the input"):
            refuse_overwriting([output], [tmp_path])
    refuse_overwriting([tmp_path / "new.json"], [tmp_path])
    refuse_overwriting([tmp_path / "new.json"], [tmp_path / "absent", tmp_path / "a.png"])
