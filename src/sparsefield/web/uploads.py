"""Files that users bring: kept for a while, and described for the page."""

import io
import tempfile
import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

import numpy as np
from PIL import Image

from sparsefield.baselines.registry import available_baselines
from sparsefield.core.errors import InputError
from sparsefield.data.formats import FORMATS, find_handler, need_handler
from sparsefield.data.formats.pixels import values_and_known
from sparsefield.data.formats.tables import read_table
from sparsefield.web.work import Request, baselines_for, observe

# Files that are kept, stations that a page shows, pixels along the longer side of a picture.
KEPT, MOST_STATIONS, MOST_PIXELS = 48, 5000, 512


@dataclass(frozen=True)
class Upload:
    """A file of a user.

    Attributes:
        id: Name in addresses.
        owner: Whose it is.
        name: As the user calls it.
        path: Where it lies.
    """

    id: str
    owner: str
    name: str
    path: Path

    @property
    def is_image(self) -> bool:
        """Whether its pixels are what was observed."""
        return find_handler(self.path, "observation") == FORMATS["image"].observation

    def explain(self, error: InputError) -> InputError:
        """Return an error that calls the file as the user does."""
        return InputError(str(error).replace(str(self.path), self.name))

    def describe(self) -> dict[str, Any]:
        """Return what the page needs to know of it.

        Raises:
            InputError: It cannot be read.
        """
        facts = {"id": self.id, "name": self.name}
        try:
            if self.is_image:
                return facts | self._describe_image()
            return facts | self._describe_points()
        except InputError as error:
            raise self.explain(error) from error

    def _describe_image(self) -> dict[str, Any]:
        picture = self.picture()
        facts = {"kind": "image", "width": picture.width, "height": picture.height}
        return facts | {"baselines": available_baselines(2)}

    def _describe_points(self) -> dict[str, Any]:
        """Return the columns of a table, and its stations if their names say which is which."""
        facts: dict[str, Any] = {"kind": "points", "columns": [], "rows": 0}
        if find_handler(self.path, "observation") == FORMATS["table"].observation:
            table = read_table(self.path)
            facts |= {"columns": table.names, "rows": len(table.lines)}
        try:
            return facts | self.stations(Request())
        except InputError as error:
            if not facts["columns"]:
                raise
            return facts | {"hint": str(self.explain(error))}

    def picture(self) -> Image.Image:
        """Return the pixels, reduced to what a page shows, with unknown ones transparent.

        Raises:
            InputError: It is no image.
        """
        values, known = values_and_known(self.path.read_bytes(), str(self.path))
        colour = np.round(255 * np.broadcast_to(values, (*known.shape, 3))).astype(np.uint8)
        alpha = np.where(known, 255, 0).astype(np.uint8)
        picture = Image.fromarray(np.dstack([colour, alpha]), "RGBA")
        factor = MOST_PIXELS / max(picture.size)
        if factor < 1:
            size = tuple(max(1, round(side * factor)) for side in picture.size)
            picture = picture.resize(size, Image.Resampling.BOX)  # type: ignore[arg-type]
        return picture

    def png(self) -> bytes:
        """Return the picture, encoded."""
        buffer = io.BytesIO()
        self.picture().save(buffer, "PNG")
        return buffer.getvalue()

    def stations(self, request: Request) -> dict[str, Any]:
        """Return the measurements in a table: places in their own units, and values.

        Raises:
            InputError: There are too many, or they are not read.
        """
        obs = observe(self.path, request)
        if obs.count > MOST_STATIONS:
            raise InputError(
                f"{self.name} has {obs.count:,} measurements; a page shows {MOST_STATIONS:,}. "
                "The command line has no such limit"
            )
        frame, channels = obs.frame, obs.quantities or ()
        names = list(frame.names) if frame else ["z", "y", "x"][-obs.dims :]
        seen = obs.valid
        return {
            "axes": names,
            "units": list(frame.units) if frame else [""] * obs.dims,
            "low": list(frame.low) if frame else [-1.0] * obs.dims,
            "high": list(frame.high) if frame else [1.0] * obs.dims,
            "baselines": baselines_for(obs),
            "quantities": [each.name for each in channels],
            "places": obs.physical()[seen].tolist(),
            "values": obs.values[seen].tolist(),
        }


class Uploads:
    """The files that are kept, in a folder that goes with the server."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sparsefield-")
        self._files: OrderedDict[str, Upload] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, owner: str, name: str, data: bytes) -> Upload:
        """Keep a file.

        Raises:
            InputError: Nothing can be read from files with this suffix, or it is empty.
        """
        plain = Path(name.replace("\\", "/")).name[-80:] or "file"
        suffixes = need_handler(Path(plain), "observation").suffixes
        if not data:
            raise InputError(f"{plain} is empty")
        key = token_urlsafe(12)
        suffix = next(each for each in suffixes if plain.lower().endswith(each))
        path = Path(self._folder.name) / f"{key}{suffix}"
        path.write_bytes(data)
        upload = Upload(key, owner, plain, path)
        weakref.finalize(upload, path.unlink, missing_ok=True)  # a job may hold it for longer
        with self._lock:
            self._files[key] = upload
            while len(self._files) > KEPT:
                self._files.popitem(last=False)
        return upload

    def find(self, owner: str, name: str) -> Upload | None:
        """Return a file of the owner by its id, if there is one."""
        found = self._files.get(name)
        return found if found is not None and found.owner == owner else None

    def close(self) -> None:
        """Remove all files."""
        self._folder.cleanup()
