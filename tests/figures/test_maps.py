"""Maps of fields in units of their own."""

import numpy as np
import pytest
from PIL import Image

from sparsefield.data.formats import write_field

pytest.importorskip("matplotlib")

RNG = np.random.default_rng(0)
AXES = {"depth": [0.0, 10, 30], "lat": [50.0, 52, 54, 57], "lon": [350.0, 352, 354, 356, 358]}
UNITS = {"depth": "m", "lat": "degrees_north", "lon": "degrees_east", "time": "h", "point": ""}


def field(*names, channels=1, points=False):
    """Return the arrays of a field along some axes, with stations and a standard deviation."""
    coords = np.stack(np.meshgrid(*(AXES[name] for name in names), indexing="ij"), axis=-1)
    coords = coords.reshape(-1, len(names)) if points else coords
    mean = RNG.normal(size=(*coords.shape[:-1], channels))
    stations = coords.reshape(-1, len(names))[:3] + 0.3
    return {
        "mean": mean, "std": mean**2, "coords": coords, "names": np.array(names),
        "units": np.array([UNITS[name] for name in names]), "stations": stations,
        "readings": RNG.normal(size=(3, channels)), "channels": np.array(["t", "u"][:channels]),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arrays", "panels"),
    [
        (field("lat", "lon"), 2),
        (field("lon", "lat", channels=2), 4),
        (field("lat", "lon", points=True), 2),
        (field("depth", "lat", "lon"), 6),
        (field("depth", "lat", "lon", points=True), 2),
        (field("depth"), 1),
    ],
)
def test_a_map_has_a_panel_for_all_that_is_known(arrays, panels):
    from sparsefield.figures.maps import plot_map

    figure = plot_map(arrays)
    bars = [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]
    assert len(figure.axes) - len(bars) == panels
    assert len(bars) == (panels if len(arrays["names"]) > 1 else 0)


def test_north_is_up_and_stations_turn_with_the_map():
    from sparsefield.figures.maps import plot_map

    arrays = field("lat", "lon")
    arrays["stations"][:, 1] -= 360
    axes = plot_map(arrays).axes[0]
    assert axes.get_xlabel() == "lon (degrees_east)" and axes.get_ylabel() == "lat (degrees_north)"
    assert axes.get_ylim()[0] < axes.get_ylim()[1]
    dots = axes.collections[-1].get_offsets()
    assert (dots[:, 0] > 340).all()


def test_a_field_with_units_is_written_as_a_map_and_another_as_an_image(tmp_path):
    write_field(tmp_path / "map.png", field("lat", "lon"))
    assert Image.open(tmp_path / "map.png").width > 300
    write_field(tmp_path / "image.png", {"mean": np.zeros((4, 5, 1))})
    assert Image.open(tmp_path / "image.png").size == (5, 4)
