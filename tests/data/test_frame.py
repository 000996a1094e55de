"""Frames: from units of the world to [-1, 1], and distances."""

import numpy as np
import pytest
import torch

import sparsefield as sf
from sparsefield.core.errors import InputError
from sparsefield.data.frame import EARTH_KM, Frame

RNG = np.random.default_rng(0)
# One frame of each kind: metres, degrees in either order, a volume, a time, the date line, a pole.
FRAMES = {
    "metres": Frame(("x", "y"), (181000, 333000), (182000, 333500), units=("m", "m")),
    "degrees": Frame(("lat", "lon"), (50, -10), (58, 2)),
    "other order": Frame(("Longitude", "LATITUDE"), (-10, 50), (2, 58)),
    "by unit": Frame(("X", "Y"), (20, -90), (380, 90), units=("degrees_east", "degrees_north")),
    "date line": Frame(("lon", "lat"), (170, -30), (195, -10)),
    "pole": Frame(("lat", "lon"), (60, -180), (90, 180)),
    "depths": Frame(("depth", "lat", "lon"), (0, -60, 0), (5000, 60, 360), scales=(0.1, 1, 1)),
    "times": Frame(("time", "x"), (0, 3), (48, 9), units=("hours since 2019-03-01", "km")),
    "one": Frame(("x",), (-3,), (7,)),
}


@pytest.fixture(params=FRAMES)
def frame(request):
    return FRAMES[request.param]


def haversine(one, other):
    """Return the great-circle distance in km of (lon, lat) in degrees."""
    (lon, lat), (east, north) = np.radians(one).T, np.radians(other).T
    a = np.sin((north - lat) / 2) ** 2
    a = a + np.cos(lat) * np.cos(north) * np.sin((east - lon) / 2) ** 2
    return 2 * EARTH_KM * np.arcsin(np.sqrt(a))


def test_the_domain_is_the_cube_and_back(frame):
    np.testing.assert_allclose(
        frame.to_unit([frame.low, frame.high]), np.array([[-1], [1]]) + 0 * np.array(frame.low)
    )
    unit = RNG.uniform(-1, 1, (7, 5, frame.dims))
    physical = frame.to_physical(unit)
    assert physical.shape == unit.shape
    assert (physical >= frame.low).all() and (physical <= frame.high).all()
    np.testing.assert_allclose(frame.to_unit(physical), unit, atol=1e-12)
    np.testing.assert_array_equal(
        frame.to_unit(torch.from_numpy(physical)), frame.to_unit(physical)
    )


def test_points_outside_are_refused_with_the_range(frame):
    points = np.array([frame.low, frame.high])
    points[1, -1] += 0.5 * (points[1, -1] - points[0, -1]) * (frame.geometry == "plane")
    points[1, -1] += 200 * (frame.geometry == "sphere")
    if frame.geometry == "sphere" and frame.high[-1] - frame.low[-1] == 360:
        pytest.skip("nothing is outside of a whole turn")
    with pytest.raises(InputError, match="1 of 2 points lie outside the domain") as error:
        frame.to_unit(points)
    assert "\n" not in str(error.value)
    for name, low, high in zip(frame.names, frame.low, frame.high, strict=True):
        assert f"{name} from {low:g} to {high:g}" in str(error.value)


def test_positions_of_a_plane_are_lengths():
    scaled = FRAMES["times"].scaled(time=2.5)
    assert scaled.positions([[-1, 1]]).tolist() == [[0, 9]]
    assert scaled.positions([[1, -1]]).tolist() == [[120, 3]]
    with pytest.raises(InputError, match="no axis 'depth'; the axes are time, x"):
        scaled.scaled(depth=2)


def test_positions_on_the_sphere_are_chords():
    degrees = np.stack([RNG.uniform(-180, 180, 40), RNG.uniform(-90, 90, 40)], axis=1)
    whole = Frame(("lon", "lat"), (-180, -90), (180, 90))
    places = whole.positions(whole.to_unit(degrees))
    assert places.shape == (40, 3)
    chord = np.linalg.norm(places[1:] - places[:-1], axis=1)
    arc = haversine(degrees[1:], degrees[:-1])
    np.testing.assert_allclose(chord, 2 * EARTH_KM * np.sin(arc / EARTH_KM / 2), rtol=1e-9)


def test_neither_the_poles_nor_the_date_line_are_special():
    pole = FRAMES["pole"]
    at_pole = pole.positions(pole.to_unit([[90, -120], [90, 45], [90, 180]]))
    np.testing.assert_allclose(at_pole, [[0, 0, EARTH_KM]] * 3, atol=1e-9)
    line = pole.positions(pole.to_unit([[70, 179.9], [70, -179.9], [70, 180], [70, -180]]))
    assert np.linalg.norm(line[0] - line[1]) == pytest.approx(
        haversine([179.9, 70], [-179.9, 70]), rel=1e-6
    )
    np.testing.assert_allclose(line[2], line[3], atol=1e-9)
    turned = FRAMES["date line"]
    np.testing.assert_allclose(turned.to_unit([[-175, -20]]), turned.to_unit([[185, -20]]))


def test_axes_beside_the_sphere_follow_with_their_scales():
    frame = FRAMES["depths"]
    points = frame.to_unit([[1000, 0, 0], [3000, 0, 90]])
    np.testing.assert_allclose(
        frame.positions(points), [[EARTH_KM, 0, 0, 100], [0, EARTH_KM, 0, 300]], atol=1e-9
    )


def test_a_local_projection_keeps_distances_from_the_middle_and_small_ones_anywhere():
    frame = Frame(("lat", "time", "lon"), (50, 0, -10), (58, 5, 4), scales=(1, 7, 1))
    assert frame.geometry == "local"
    at = np.array([[54.0, 0, -3.0], [57.5, 0, 3.5], [50.5, 2, -9.75], [50.6, 3, -9.5]])
    places = frame.positions(frame.to_unit(at))
    assert places.shape == (4, 3)
    np.testing.assert_allclose(places[0], 0, atol=1e-9)
    far = np.linalg.norm(places[1:, :2], axis=1)
    np.testing.assert_allclose(far, haversine(at[1:, [2, 0]], at[:1, [2, 0]]), rtol=1e-12)
    near = np.linalg.norm(places[3, :2] - places[2, :2])
    assert near == pytest.approx(haversine(at[2, [2, 0]], at[3, [2, 0]]), rel=0.005)
    assert places[:, 2].tolist() == [0, 0, 14, 21]
    east, north = places[1, :2]
    assert east > 300 and north > 300
    assert Frame(("t", "lon", "lat"), (0, 0, -60), (1, 360, 60)).geometry == "sphere"


def test_a_local_projection_is_that_of_other_software():
    pyproj = pytest.importorskip("pyproj")
    frame = Frame(("lon", "lat"), (-10, 50), (4, 58), geometry="local")
    degrees = np.stack([RNG.uniform(-10, 4, 30), RNG.uniform(50, 58, 30)], axis=1)
    proj = pyproj.Proj(f"+proj=aeqd +R={1000 * EARTH_KM} +lon_0=-3 +lat_0=54")
    expected = np.stack(proj(*degrees.T), axis=1) / 1000
    np.testing.assert_allclose(frame.positions(frame.to_unit(degrees)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("lon", "low", "high"),
    [
        ((-10, 2), -10, 2),
        ((245, 250, 254), 245, 254),  # 0 to 360 stays
        ((170, -170, 178), 170, 190),  # across the date line
        ((359, 3, 1), -1, 3),  # across Greenwich
        ((179, 181), 179, 181),
        (tuple(range(0, 360, 30)), -15, 345),  # round the world: a whole turn
    ],
)
def test_longitudes_span_the_shortest_arc(lon, low, high):
    points = np.stack([np.linspace(20, 40, len(lon)), lon], axis=1)
    margin = 0.1 if high - low == 360 else 0
    frame = Frame.of(points, ("lat", "lon"), margin=margin)
    assert (frame.low[1], frame.high[1]) == pytest.approx((low, high))
    assert np.abs(frame.to_unit(points)).max() <= 1


def test_there_is_room_around_measurements_up_to_the_poles():
    frame = Frame.of([[89, 0], [49, 20]], ("lat", "lon"), margin=0.1)
    assert frame.high == (90, 22)
    assert frame.low == (45, -2)
    assert frame.units == ("degrees_north", "degrees_east")
    plain = Frame.of(
        np.ma.masked_array([[0, 0], [4, 8], [99, 99]], [[0, 0], [0, 0], [1, 1]]), "xy"
    )
    assert (plain.low, plain.high, plain.geometry) == ((-0.2, -0.4), (4.2, 8.4), "plane")


def test_a_domain_grows_where_asked():
    frame = FRAMES["date line"].covering([[-160, -12], [165, -20]])
    assert (frame.low, frame.high) == ((165, -30), (200, -10))
    assert FRAMES["metres"].covering([[181500, 333100]]) == FRAMES["metres"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Frame(("x", "x"), (0, 0), (1, 1)), "different names; x occurs twice"),
        (lambda: Frame((), (), ()), "a name for each axis"),
        (lambda: Frame(("x",), (0, 1), (1,)), "low: 1 axes take as many numbers, got 2"),
        (lambda: Frame(("x",), (1,), (1,)), "needs finite bounds low < high"),
        (lambda: Frame(("x",), (0,), (1,), scales=(0,)), "scale above 0"),
        (lambda: Frame(("x",), (0,), (1,), geometry="torus"), "plane, sphere, local or auto"),
        (
            lambda: Frame(("x", "y"), (0, 0), (1, 1), geometry="sphere"),
            "a sphere has one longitude",
        ),
        (lambda: Frame(("lat", "lon"), (-100, 0), (10, 9)), "between -90 and 90 degrees"),
        (lambda: Frame(("lat", "lon"), (0, 0), (10, 400)), "360 degrees at most"),
        (lambda: Frame.of([[1, 2]], "xy"), "same x, 1: an extent of zero"),
        (lambda: Frame.of([[1, 2], [1, 3]], ("lon", "lat")), "same lon, 1: an extent of zero"),
        (lambda: Frame.of([[1, np.nan], [1, 3]], "xy"), "NaN"),
        (lambda: Frame.of([[300, 40], [310, 95]], ("lon", "lat")), "another order or unit"),
        (lambda: FRAMES["one"].to_unit([[1, 2]]), r"expected shape \(..., 1\)"),
    ],
)
def test_what_is_no_frame_is_one_line(make, words):
    with pytest.raises(InputError, match=words) as error:
        make()
    assert "\n" not in str(error.value)


def test_observations_carry_their_frame():
    places = np.array([[50.0, -3.0], [52.0, 1.0], [55.5, -8.25], [55.5, -8.25]])
    obs = sf.Observation.at(places, [[1.0], [2.0], [3.0], [5.0]], 0.5, names=("lat", "lon"))
    obs = obs.labelled(("t2m", "K"))
    np.testing.assert_allclose(obs.physical(), places, atol=1e-9)
    assert obs.positions().shape == (4, 3)
    batch = sf.Observation.stack([obs, obs])
    derived = [
        obs.merged(),
        batch,
        batch.item(1),
        obs.pad(9),
        obs.repeat(2),
        obs.to(torch.device("cpu")),
    ]
    for each in derived:
        assert each.frame == obs.frame
        assert each.quantities == (("t2m", "K"),)
    assert obs.merged().values.tolist() == [[1.0], [2.0], [4.0]]
    plain = sf.Observation(obs.coords, obs.values)
    assert torch.equal(plain.positions(), plain.coords)
    with pytest.raises(InputError, match="in one frame"):
        sf.Observation.stack([plain, obs])
    with pytest.raises(InputError, match="either names= or frame="):
        sf.Observation.at(places, [[1.0]] * 4)
    with pytest.raises(InputError, match="the axes x, and coords have 2"):
        sf.Observation(obs.coords, obs.values, frame=FRAMES["one"].scaled())
    with pytest.raises(InputError, match="each of 1 channel is expected, got 2"):
        obs.labelled(("u", "m/s"), ("v", "m/s"))


def test_masked_places_were_not_observed():
    places = np.ma.masked_array([[1.0, 2.0], [99.0, 99.0], [3.0, 5.0]], [[0, 0], [0, 1], [0, 0]])
    obs = sf.Observation.at(places, [[1], [2], [3]], names=("x", "y"))
    assert obs.values.tolist() == [[1], [3]]
    np.testing.assert_allclose(obs.physical(), [[1, 2], [3, 5]])


def test_one_place_at_a_pole_has_one_value():
    places = [[90, 0], [90, 120], [80, 0], [70, 180]]
    frame = FRAMES["pole"]
    obs = sf.Observation.at(places, [[1.0], [3.0], [5.0], [6.0]], 1.0, frame=frame)
    assert obs.merged().values.tolist() == [[2.0], [5.0], [6.0]]
    exact = sf.Observation.at([[70, 180], [70, -180]], [[1.0], [3.0]], frame=frame)
    with pytest.raises(InputError, match=r"differ, as rows 0 and 1 at \(70, 180\)"):
        exact.merged()
