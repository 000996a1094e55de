"""Which part of a data set is which: names of folders, files and arrays.

The rules are those of Hugging Face's `datasets` (File names and splits,
https://huggingface.co/docs/hub/datasets-file-names-and-splits), made strict: a name speaks of a
split if one of its words is a keyword, where `-`, `_`, `.`, blanks and digits stand between words.
The name of a folder must begin with the keyword, so that `partial-train` is not `train`. What is
not understood is never taken for any split.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from sparsefield.core.errors import InputError

# Reads everything as one set, whatever its names say.
ALL = "all"
KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF = {word: split for split, words in KEYWORDS.items() for word in words}
_BETWEEN_WORDS = re.compile(r"[-._ 0-9]+")
# Number and hash of a file among several, as in train-00000-of-00003-0a1b2c3d4e5f6789.
_SHARD = re.compile(r"-\d{5}-of-\d{5}(-[0-9a-f]{8,})?$")
_MOST_NAMES = 6

Remarks = tuple[str, ...]


def unsplit(name: str, split: str) -> Remarks:
    """Return what to say of a file that is one set, whichever split is asked for."""
    return () if split == ALL else (f"{name} has no splits: all of it is read as '{split}'",)


def split_of_name(name: str) -> str | None:
    """Return the split that the name of a file or an array speaks of, if it speaks of one."""
    found = {_SPLIT_OF[word] for word in _words(name) if word in _SPLIT_OF}
    return found.pop() if len(found) == 1 else None


def split_of_folder(name: str) -> str | None:
    """Return the split that the name of a folder begins with, if it speaks of no other."""
    first = next(iter(_words(name)), "")
    return split_of_name(name) if first in _SPLIT_OF else None


def select_files(
    root: Path, files: Sequence[Path], split: str, named: bool
) -> tuple[list[Path], Remarks]:
    """Return the files of one split below a folder, and what to say of the choice.

    The outermost folder that names a split decides; where none does, the file's own name.

    Args:
        root: The folder.
        files: All data files below it.
        split: "train", "validation", "test", or "all".
        named: Whether names of files speak of splits; those of pictures do not.

    Raises:
        InputError: The split is absent, or the files are divided in a way that is not understood.
    """
    if split == ALL:
        return list(files), ()
    parts = [file.relative_to(root) for file in files]
    found = [_split_of_path(part, named) for part in parts]
    if not any(found):
        _check_whole(root, parts, named)
        return list(files), unsplit(root.name, split)
    unknown = [_shown(part) for part, name in zip(parts, found, strict=True) if name is None]
    present = sorted({name for name in found if name})
    if split not in present:
        other = f"; names not understood: {_list(unknown)}" if unknown else ""
        raise InputError(f"{root} has no split '{split}'; it has: {', '.join(present)}{other}")
    chosen = [number for number, name in enumerate(found) if name == split]
    _check_one_lead(root, [parts[number] for number in chosen], split)
    return [files[number] for number in chosen], _left_out(str(root), unknown)


def select_array(name: str, arrays: Sequence[str], split: str) -> tuple[str, Remarks]:
    """Return the array of one split among those of an archive, and what to say of the choice.

    Raises:
        InputError: None or several fit.
    """
    if len(arrays) == 1:
        return arrays[0], unsplit(name, split)
    fit = [array for array in arrays if split_of_name(array) == split]
    if len(fit) != 1:
        problem = f"several arrays for '{split}'" if fit else f"no array named '{split}'"
        raise InputError(
            f"{name} has {problem}; it has: {_list(arrays)}; name one array for each split"
        )
    unknown = [array for array in arrays if split_of_name(array) is None]
    return fit[0], _left_out(name, unknown)


def _split_of_path(part: Path, named: bool) -> str | None:
    split = _split_of_folders(part)
    return split_of_name(_stem(part)) if split is None and named else split


def _split_of_folders(part: Path) -> str | None:
    splits = (split_of_folder(name) for name in part.parts[:-1])
    return next((split for split in splits if split), None)


def _check_one_lead(root: Path, parts: Sequence[Path], split: str) -> None:
    """Refuse files of one split whose names say different things before its keyword.

    Raises:
        InputError: There are, for example, train.parquet and partial-train.parquet.
    """
    leads = {_lead(_stem(part)): part.name for part in parts if _split_of_folders(part) is None}
    if len(leads) > 1:
        raise InputError(
            f"{root}: {_list([*leads.values()])} all name the split '{split}'; keep those that "
            f"belong to it, or put them into a folder named {split}"
        )


def _lead(stem: str) -> tuple[str, ...]:
    """Return the words of a file's name that stand before the keyword."""
    words = _words(stem)
    return tuple(words[: next(i for i, word in enumerate(words) if word in _SPLIT_OF)])


def _check_whole(root: Path, parts: Sequence[Path], named: bool) -> None:
    """Refuse files that are divided by names which say nothing of splits.

    Raises:
        InputError: They lie in several folders, or their names differ in more than numbers.
    """
    kinds = {
        (part.parent, *(_words(_stem(part)) if named else ())): _shown(part) for part in parts
    }
    if len(kinds) > 1:
        raise InputError(
            f"{root} is divided into {_list([*kinds.values()])}, and nothing there names a "
            "split; name folders or files train, validation and test, or read everything as one "
            "set with split=all (--split all, data.split=all)"
        )


def _left_out(where: str, unknown: Sequence[str]) -> Remarks:
    names = _list(unknown)
    return (f"{where}: left out {names}, which names no split",) if unknown else ()


def _shown(part: Path) -> str:
    """Return what to call a file's place: its outermost folder, or the file itself."""
    return f"{part.parts[0]}/" if len(part.parts) > 1 else part.name


def _stem(part: Path) -> str:
    return _SHARD.sub("", part.stem)


def _words(name: str) -> list[str]:
    return [word for word in _BETWEEN_WORDS.split(name.lower()) if word]


def _list(names: Sequence[str]) -> str:
    """Return names with commas between, at most a few, each once."""
    unique = [*dict.fromkeys(names)]
    more = [f"and {len(unique) - _MOST_NAMES} more"] if len(unique) > _MOST_NAMES else []
    return ", ".join([*unique[:_MOST_NAMES], *more])
