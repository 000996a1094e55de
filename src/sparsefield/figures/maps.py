"""Maps: fields in units of their own, with what was measured and a scale of colours."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sparsefield.core.errors import InputError
from sparsefield.data.formats import images
from sparsefield.data.frame import axis_kind
from sparsefield.figures.panels import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Slices of a volume that are shown.
SLICES = 4
# Stations beyond this number hide what they lie on.
_MOST_STATIONS = 3000
_PANEL = 3.4


class Picture(NamedTuple):
    """One panel of a map.

    Attributes:
        values: Values of the points (*shape) or (L,).
        title: What they are.
        colours: Name of the colour map.
        low: Value of the lowest colour.
        high: Value of the highest colour.
    """

    values: np.ndarray
    title: str
    colours: str
    low: float
    high: float


def write_field(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a field as a map, or as an image where it has no units of its own.

    Raises:
        InputError: The field is no image, matplotlib is missing, or the file cannot be written.
    """
    if "names" not in arrays:
        images.write_field(path, arrays)
    else:
        save_figure(plot_map(arrays), path)


def plot_map(arrays: Mapping[str, np.ndarray]) -> "Figure":
    """Return a map of the mean and, where there is one, of the standard deviation.

    A row for each channel; a profile is a line with its interval, and a volume some slices along
    its first axis.

    Args:
        arrays: What `Field.arrays` returns for a field with a frame.

    Raises:
        InputError: matplotlib is not installed.
    """
    channels = range(arrays["mean"].shape[-1])
    dims = len(arrays["names"])
    if dims == 1:
        figure, rows = _new_figure(len(channels), 1, 2.0)
        for channel, row in zip(channels, rows, strict=True):
            _show_profile(row[0], arrays, channel)
        return figure
    if dims > 2 and arrays["mean"].ndim == dims + 1:
        return _plot_slices(arrays)
    pictures = [_pictures(arrays, channel) for channel in channels]
    figure, rows = _new_figure(len(channels), len(pictures[0]), _aspect(arrays))
    for channel, row, shown in zip(channels, rows, pictures, strict=True):
        for axes, picture in zip(row, shown, strict=True):
            _show_picture(figure, axes, arrays, picture, unit=_unit(arrays, channel))
            if picture is shown[0]:
                _show_stations(axes, arrays, picture, channel)
    return figure


def _plot_slices(arrays: Mapping[str, np.ndarray]) -> "Figure":
    """Return slices of the mean, and of the standard deviation, of the first channel."""
    shown = np.linspace(0, len(arrays["mean"]) - 1, min(SLICES, len(arrays["mean"])))
    pictures = _pictures(arrays, 0)
    flat = {name: arrays[name][1:] for name in ("names", "units")}
    figure, rows = _new_figure(len(pictures), len(shown), _aspect(arrays))
    first, unit = str(arrays["names"][0]), str(arrays["units"][0])
    for row, picture in zip(rows, pictures, strict=True):
        for axes, index in zip(row, shown.round().astype(int), strict=True):
            position = arrays["coords"][index].reshape(-1, len(arrays["names"]))[0, 0]
            part = flat | {"coords": arrays["coords"][index][..., 1:]}
            title = f"{picture.title}\n{first} {position:.6g} {unit}"
            one = picture._replace(values=picture.values[index], title=title)
            _show_picture(figure, axes, part, one, unit=_unit(arrays, 0))
    return figure


def _new_figure(rows: int, columns: int, aspect: float) -> tuple["Figure", np.ndarray]:
    """Return a figure whose panels are `aspect` times as wide as high."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("maps need matplotlib: install sparsefield[plot]") from error
    width = min(max(_PANEL * aspect, 0.7 * _PANEL), 2 * _PANEL)
    height = min(max(width / aspect, 0.6 * _PANEL), 1.6 * _PANEL)
    figure = Figure(figsize=(columns * (width + 1.0), rows * (height + 0.5)))
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _pictures(arrays: Mapping[str, np.ndarray], channel: int) -> list[Picture]:
    mean = arrays["mean"][..., channel]
    low, high = float(np.nanmin(mean)), float(np.nanmax(mean))
    label = _label(arrays, channel)
    shown = [Picture(mean, label or "mean", "viridis", low, high)]
    if "std" in arrays:
        std = arrays["std"][..., channel]
        shown.append(Picture(std, "standard deviation", "magma", 0.0, float(np.nanmax(std))))
    return shown


def _show_picture(
    figure: "Figure",
    axes: "Axes",
    arrays: Mapping[str, np.ndarray],
    picture: Picture,
    *,
    unit: str,
) -> None:
    """Show a picture with its axes and its scale of colours."""
    across, up = _order(arrays)
    coords = arrays["coords"]
    limits: dict[str, Any] = {"vmin": picture.low, "vmax": picture.high, "cmap": picture.colours}
    x, y = coords[..., across], coords[..., up]
    drawn: Any
    if picture.values.ndim == 2:
        drawn = axes.pcolormesh(x, y, picture.values, shading="nearest", **limits)
    else:
        drawn = axes.scatter(x, y, c=picture.values, s=9, **limits)
    axes.set_aspect(_stretch(arrays))
    axes.set_xlabel(_axis_label(arrays, across), fontsize=8)
    axes.set_ylabel(_axis_label(arrays, up), fontsize=8)
    axes.set_title(picture.title, fontsize=9)
    axes.tick_params(labelsize=7)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.85)
    bar.set_label(unit, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _show_stations(
    axes: "Axes", arrays: Mapping[str, np.ndarray], picture: Picture, channel: int
) -> None:
    """Put the measurements on a map, in the colours of the field."""
    stations = arrays.get("stations")
    if stations is None or len(stations) > _MOST_STATIONS:
        return
    across, up = _order(arrays)
    size = float(np.clip(900 / len(stations), 3, 16))
    x, turn = stations[:, across].copy(), arrays["coords"][..., across]
    if axis_kind(str(arrays["names"][across]), str(arrays["units"][across])) == "longitude":
        x -= 360 * np.round((x - (turn.min() + turn.max()) / 2) / 360)
    edges: dict[str, Any] = {"edgecolors": "white", "linewidths": 0.4}
    colours: dict[str, Any] = {"cmap": picture.colours, "vmin": picture.low, "vmax": picture.high}
    values = arrays["readings"][:, channel]
    axes.scatter(x, stations[:, up], c=values, s=size, **edges, **colours)


def _show_profile(axes: "Axes", arrays: Mapping[str, np.ndarray], channel: int) -> None:
    """Show a field along one axis with its 90 % interval."""
    order = np.argsort(arrays["coords"][..., 0].ravel())
    x = arrays["coords"][..., 0].ravel()[order]
    mean = arrays["mean"][..., channel].ravel()[order]
    if "std" in arrays:
        width = 1.645 * arrays["std"][..., channel].ravel()[order]
        axes.fill_between(x, mean - width, mean + width, alpha=0.25, linewidth=0)
    axes.plot(x, mean)
    if "stations" in arrays:
        axes.plot(arrays["stations"][:, 0], arrays["readings"][:, channel], ".", color="black")
    axes.set_xlabel(_axis_label(arrays, 0), fontsize=8)
    axes.set_ylabel(" ".join((_label(arrays, channel), _unit(arrays, channel))), fontsize=8)


def _order(arrays: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """Return the axes that go across and up: longitude and latitude, x and y, last and first."""
    kinds = [
        axis_kind(str(n), str(u)) for n, u in zip(arrays["names"], arrays["units"], strict=True)
    ]
    names = [str(name).lower() for name in arrays["names"]]
    if "longitude" in kinds and "latitude" in kinds:
        return kinds.index("longitude"), kinds.index("latitude")
    return (0, 1) if names[:2] == ["x", "y"] else (len(names) - 1, len(names) - 2)


def _stretch(arrays: Mapping[str, np.ndarray]) -> Any:
    """Return the length of a unit up in units across, "auto" where these are of other kinds."""
    across, up = _order(arrays)
    kinds = [
        axis_kind(str(n), str(u)) for n, u in zip(arrays["names"], arrays["units"], strict=True)
    ]
    if {kinds[across], kinds[up]} == {"longitude", "latitude"}:
        middle = float(np.clip(arrays["coords"][..., up].mean(), -70, 70))
        return float(1 / np.cos(np.radians(middle)))
    return 1.0 if str(arrays["units"][across]) == str(arrays["units"][up]) else "auto"


def _aspect(arrays: Mapping[str, np.ndarray]) -> float:
    """Return the width of a map in heights."""
    across, up = _order(arrays)
    stretch = _stretch(arrays)
    width, height = (np.ptp(arrays["coords"][..., axis]) for axis in (across, up))
    if isinstance(stretch, str) or not height > 0:
        return 1.3
    return float(np.clip(width / (height * stretch), 0.4, 2.5))


def _label(arrays: Mapping[str, np.ndarray], channel: int) -> str:
    return str(arrays["channels"][channel]) if "channels" in arrays else ""


def _unit(arrays: Mapping[str, np.ndarray], channel: int) -> str:
    return str(arrays["channel_units"][channel]) if "channel_units" in arrays else ""


def _axis_label(arrays: Mapping[str, np.ndarray], axis: int) -> str:
    unit = str(arrays["units"][axis])
    return f"{arrays['names'][axis]}{f' ({unit})' if unit else ''}"
