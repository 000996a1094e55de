"""Images as files: one, or all below a folder, with splits as folders."""

from pathlib import Path

from sparsefield.data.formats import IMAGE_SUFFIXES
from sparsefield.data.formats.examples import Examples, Request, decode_images
from sparsefield.data.formats.guard import files_below, read_bytes
from sparsefield.data.formats.splits import select_files, unsplit


def read_images(path: Path, request: Request) -> Examples:
    """Return an image, or the images of one split below a folder, sorted by path.

    Folders name splits and, below those, classes (train/dog/1.png). Names of files do not: a
    picture called train.png may well show a train.

    Raises:
        InputError: An image is damaged or of another size than the first, or the split is absent.
    """
    if path.is_dir():
        files, remarks = select_files(path, image_files(path), request.split, named=False)
    else:
        files, remarks = [path], unsplit(path.name, request.split)
    encoded = ((read_bytes(file), str(file)) for file in files)
    return Examples(decode_images(encoded, len(files), request, path), remarks, images=True)


def image_files(folder: Path) -> list[Path]:
    """Return the image files below a folder."""
    return [file for file in files_below(folder) if file.suffix.lower() in IMAGE_SUFFIXES]
