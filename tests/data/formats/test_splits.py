"""Which part of a data set is which: what is understood, and what is refused."""

import io
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sparsefield.core.errors import InputError
from sparsefield.data.dataset import open_dataset
from sparsefield.data.formats.splits import split_of_folder, split_of_name

SPLITS = ("train", "validation", "test")


def png(grey):
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (grey, grey, grey)).save(buffer, "PNG")
    return buffer.getvalue()


def write(root, names):
    """Write images or parquet files, the k-th of them of grey k."""
    for grey, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            pq.write_table(pa.table({"image": [{"bytes": png(grey), "path": None}]}), path)
        else:
            path.write_bytes(png(grey))


def greys(root, split):
    return set(open_dataset(root, split).values[:, 0, 0, 0].tolist())


# The keywords and separators of Hugging Face's "File names and splits".
@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("training", "train"),
        ("Train2017", "train"),
        ("train-00000-of-00003", "train"),
        ("train_1", "train"),
        ("validation", "validation"),
        ("valid", "validation"),
        ("val", "validation"),
        ("dev", "validation"),
        ("dev-clean", "validation"),
        ("val.images", "validation"),
        ("test", "test"),
        ("testing set", "test"),
        ("eval", "test"),
        ("evaluation", "test"),
        ("trains", None),
        ("trainA", None),
        ("latest", None),
        ("contrast", None),
        ("devices", None),
        ("train-test", None),
        ("", None),
    ],
)
def test_names_speak_of_splits_by_whole_words(name, split):
    assert split_of_folder(name) == split
    assert split_of_name(name) == split


@pytest.mark.parametrize("name", ["my_train_file", "data.train", "cifar-train-00000-of-00001"])
def test_files_may_name_a_split_anywhere_and_folders_only_first(name):
    assert split_of_name(name) == "train"
    assert split_of_folder(name) is None


def test_hugging_face_layouts_are_read_as_documented(tmp_path):
    write(tmp_path / "a", ["my_train_file.parquet", "test-file.parquet", "validation1.parquet"])
    write(tmp_path / "b", ["data/train/x.parquet", "data/dev/y.parquet", "data/eval/z.parquet"])
    hashed = [f"data/{s}-00000-of-00001-0a1b2c3d4e5f6789.parquet" for s in SPLITS]
    write(tmp_path / "c", hashed)
    assert [greys(tmp_path / "a", split) for split in SPLITS] == [{0}, {2}, {1}]
    assert [greys(tmp_path / "b", split) for split in SPLITS] == [{0}, {1}, {2}]
    assert [greys(tmp_path / "c", split) for split in SPLITS] == [{0}, {1}, {2}]


def test_below_a_split_folders_are_classes(tmp_path):
    names = ["train/dog/1.png", "train/test/2.png", "test/train/3.png", "test/cat/4.png"]
    write(tmp_path, names)
    assert greys(tmp_path, "train") == {0, 1}
    assert greys(tmp_path, "test") == {2, 3}
    assert greys(tmp_path, "all") == {0, 1, 2, 3}


@pytest.mark.parametrize("suffix", ["png", "parquet"])
def test_a_partial_train_folder_is_not_the_train_split(tmp_path, suffix):
    write(tmp_path / "a", [f"partial-train/x.{suffix}", f"train/x.{suffix}", f"val/x.{suffix}"])
    assert greys(tmp_path / "a", "train") == {1}
    assert any(
        "left out partial-train/" in r for r in open_dataset(tmp_path / "a", "train").remarks
    )
    write(tmp_path / "b", [f"partial-train/x.{suffix}", f"val/x.{suffix}"])
    with pytest.raises(InputError, match="no split 'train'.*not understood: partial-train/"):
        open_dataset(tmp_path / "b", "train")


@pytest.mark.parametrize(
    "names",
    [
        ["learn/x.png", "holdout/x.png"],
        ["partial-train/x.png", "rest/x.png"],
        ["trainA/x.png", "testA/x.png"],
        ["learn.parquet", "holdout.parquet"],
        ["learn/0.parquet", "holdout/0.parquet"],
        ["train-test/x.png", "other/x.png"],
    ],
)
@pytest.mark.parametrize("split", SPLITS)
def test_divisions_that_are_not_understood_are_refused_for_every_split(tmp_path, names, split):
    write(tmp_path, names)
    first = names[0].split("/")[0]
    with pytest.raises(InputError, match=rf"divided into.*{first}.*name .*train.*split=all"):
        open_dataset(tmp_path, split)
    assert greys(tmp_path, "all") == {0, 1}


@pytest.mark.parametrize(
    "names",
    [
        ["train.png", "b.png"],  # a picture of a train
        ["images/a.png", "images/test.png"],
        ["0000.parquet", "0001.parquet"],
        ["part-00000-of-00002.parquet", "part-00001-of-00002.parquet"],
    ],
)
def test_what_lies_in_one_place_is_one_set_and_says_so(tmp_path, names):
    write(tmp_path, names)
    dataset = open_dataset(tmp_path, "validation")
    assert len(dataset) == 2
    assert any("no splits: all of it is read as 'validation'" in r for r in dataset.remarks)


def test_two_files_that_name_one_split_differently_are_refused(tmp_path):
    write(tmp_path, ["train.parquet", "partial-train.parquet", "test.parquet"])
    with pytest.raises(InputError, match="all name the split 'train'"):
        open_dataset(tmp_path, "train")
    assert greys(tmp_path, "test") == {2}


def test_arrays_of_archives_follow_the_same_rules(tmp_path):
    x, y = np.zeros((2, 5, 3, 1)), np.ones((3, 5, 3, 1))
    np.savez(tmp_path / "a.npz", x_train=x, y_train=np.arange(2), x_dev=y, y_dev=np.arange(3))
    assert len(open_dataset(tmp_path / "a.npz", "train")) == 2
    assert len(open_dataset(tmp_path / "a.npz", "validation")) == 3
    np.savez(tmp_path / "b.npz", learn=x, holdout=y)
    for split in (*SPLITS, "all"):
        with pytest.raises(InputError, match="learn, holdout; name one array for each split"):
            open_dataset(tmp_path / "b.npz", split)
    np.savez(tmp_path / "c.npz", train=x, partial_train=y)
    with pytest.raises(InputError, match="several arrays for 'train'"):
        open_dataset(tmp_path / "c.npz", "train")
    np.savez(tmp_path / "d.npz", fields=x)
    assert len(open_dataset(tmp_path / "d.npz", "test")) == 2


def test_links_are_followed_once(tmp_path):
    write(tmp_path / "elsewhere", ["1.png"])
    (tmp_path / "set" / "train").mkdir(parents=True)
    os.symlink(tmp_path / "elsewhere", tmp_path / "set" / "train" / "dog")
    os.symlink(tmp_path / "set", tmp_path / "set" / "train" / "loop")
    assert len(open_dataset(tmp_path / "set", "train")) == 1
    os.symlink(tmp_path / "b", tmp_path / "a")
    os.symlink(tmp_path / "a", tmp_path / "b")
    with pytest.raises(InputError, match="no data at"):
        open_dataset(tmp_path / "a")
