"""Where a field lies in the world: names, units and bounds of its axes, and distances on it."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import numpy as np

from sparsefield.core.errors import InputError
from sparsefield.data.conversion import SAME_POINT, ArrayLike, real_array, split_mask

EARTH_KM = 6371.0

LONGITUDES = ("lon", "long", "lng", "longitude")
LATITUDES = ("lat", "latitude")
TIMES = ("time", "date", "datetime", "timestamp", "valid_time")

_SPELT = ("degrees_", "degree_", "degrees", "degree", "deg_", "deg", "°_", "°")
_EAST = tuple(f"{degrees}{end}" for degrees in _SPELT for end in ("east", "e"))
_NORTH = tuple(f"{degrees}{end}" for degrees in _SPELT for end in ("north", "n"))
_DEGREES = ("", "degree", "degrees", "deg", "°", "decimal_degrees", "decimal_degree")

_STORED = ("names", "low", "high", "units")

# Farthest from the middle of a domain at which a local projection stands for the sphere.
_LOCAL_DEGREES = 30.0

# Room around measurements, as a share of their extent along an axis.
MARGIN = 0.05


@dataclass(frozen=True)
class Frame:
    r"""The domain of a field in its own units, and the map between it and [-1, 1].

    Along each axis :math:`u = (2 x - \mathrm{low} - \mathrm{high}) / (\mathrm{high} -
    \mathrm{low})`. Distances are Euclidean between `positions`: in the plane these are coordinates
    times `scales`, and on the sphere points in space at 6371 km from its centre, so that neither
    the poles nor the date line are special. "local" is the azimuthal equidistant projection, in
    km, around the middle of the domain, with two axes in place of three. Its distances from the
    middle are exact; those across are too long by 2 % at 2,200 km from the middle. Other axes,
    such as time or depth, come after these, times their scales.

    Args:
        names: Name of each axis, in the order of arrays.
        low: Lower bounds of the domain.
        high: Upper bounds, larger than the lower ones.
        units: Unit of each axis, "" where it is unknown; a time has one like "hours since
            2019-03-01".
        geometry: "plane", or "sphere" or "local", whose longitude and latitude are in degrees.
            "auto" is the sphere where there is an axis of each; with a third axis it is local
            within 30 degrees of the middle.
        scales: What one unit of each axis counts in the common unit of length, above 0; 1 by
            default. That unit is the kilometre on the sphere and for "local", where the scales of
            longitude and latitude are not used.

    Raises:
        InputError: Numbers of axes differ, names repeat, bounds are no domain, a scale is not
            above 0, the geometry is unknown, longitude or latitude is not in degrees, or the
            sphere lacks one of them.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    _: KW_ONLY
    units: tuple[str, ...] = ()
    geometry: str = "auto"
    scales: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Fill in what was left out, and check."""
        names = (self.names,) if isinstance(self.names, str) else tuple(map(str, self.names))
        _check_names(names)
        self._set("names", names)
        self._set("low", _floats(self.low, len(names), "low"))
        self._set("high", _floats(self.high, len(names), "high"))
        self._set("scales", _floats(self.scales or (1.0,) * len(names), len(names), "scales"))
        units = tuple(self.units) or ("",) * len(names)
        if len(units) != len(names):
            raise InputError(f"a frame of {len(names)} axes takes as many units, not {len(units)}")
        self._set("units", tuple(map(_spell_degrees, names, units)))
        self._check_bounds()
        self._set("geometry", self._find_geometry())
        if self.geometry != "plane":
            self._check_sphere()

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @classmethod
    def of(
        cls,
        coords: ArrayLike,
        names: Sequence[str],
        units: Sequence[str] | None = None,
        *,
        margin: float = MARGIN,
        geometry: str = "auto",
    ) -> "Frame":
        """Return the frame around points (..., P), with room on all sides.

        Longitudes span the shortest arc that holds them all, across the date line or not.

        Args:
            coords: Physical coordinates (..., P); masked ones do not count.
            names: As in `Frame`.
            units: As in `Frame`.
            margin: Room on each side, as a share of the extent, at least 0.
            geometry: As in `Frame`.

        Raises:
            InputError: The extent along an axis is zero, or there is no frame of these names.
        """
        points = _rows(coords, len(names))
        plain = tuple(units or ("",) * len(names))
        bounds = [
            _arc(x) if axis_kind(name, unit) == "longitude" else (float(x.min()), float(x.max()))
            for x, name, unit in zip(points.T, names, plain, strict=True)
        ]
        for name, (low, high) in zip(names, bounds, strict=True):
            if not high > low:
                raise InputError(
                    f"all points have the same {name}, {low:g}: an extent of zero spans no map; "
                    "measure elsewhere, leave the axis out, or give a frame"
                )
        sides = [
            _with_room(*side, margin, axis_kind(name, unit))
            for side, name, unit in zip(bounds, names, plain, strict=True)
        ]
        starts, ends = zip(*sides, strict=True)
        return cls(tuple(names), starts, ends, units=plain, geometry=geometry)

    def to_dict(self) -> dict[str, list[str] | list[float]]:
        """Return names, bounds and units in a form that JSON keeps; see `from_dict`.

        Geometry and scales are left out.
        """
        low, high = list(self.low), list(self.high)
        return {"names": list(self.names), "low": low, "high": high, "units": list(self.units)}

    @classmethod
    def from_dict(cls, data: Any) -> "Frame":
        """Return the frame of what `to_dict` returned, with the default geometry and scales.

        Raises:
            InputError: It is something else.
        """
        try:
            names, low, high, units = (tuple(data[key]) for key in _STORED)
        except (TypeError, KeyError) as error:
            raise InputError(f"a frame has {', '.join(_STORED)}, not {data!r:.80}") from error
        return cls(names, low, high, units=units)

    @property
    def dims(self) -> int:
        """Number of axes P."""
        return len(self.names)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What each axis is: longitude, latitude, time, or other."""
        return tuple(map(axis_kind, self.names, self.units))

    @property
    def radius(self) -> float:
        """About half of the width of the domain, in the common unit of length."""
        half = (np.array(self.high) - np.array(self.low)) / 2
        if self.geometry == "plane":
            return float((half * self.scales).max())
        degrees = [kind in ("longitude", "latitude") for kind in self.kinds]
        return EARTH_KM * min(1.0, float(np.radians(half[degrees]).max()))

    def scaled(self, **scales: float) -> "Frame":
        """Return the frame with other scales, above 0, of the axes named: `scaled(time=20)`.

        Raises:
            InputError: There is no such axis, or a scale is not above 0.
        """
        for name in set(scales) - set(self.names):
            raise InputError(f"no axis '{name}'; the axes are {', '.join(self.names)}")
        found = [scales.get(name, old) for name, old in zip(self.names, self.scales, strict=True)]
        return replace(self, scales=tuple(found))

    def to_unit(self, physical: ArrayLike) -> np.ndarray:
        """Return coordinates in [-1, 1] of physical ones (..., P), float64.

        On the sphere, longitudes may be given in any turn: -10 is 350.

        Raises:
            InputError: The shape is another one, or a point lies outside the domain; the message
                has its range.
        """
        points = self._points(physical)
        low, high = np.array(self.low), np.array(self.high)
        for axis, kind in enumerate(self.kinds):
            if kind == "longitude" and self.geometry != "plane":
                points[..., axis] = self._turn(points[..., axis], low[axis], high[axis])
        unit = (2 * points - low - high) / (high - low)
        self._check_inside(points, unit)
        return unit.clip(-1, 1)

    def to_physical(self, unit: ArrayLike) -> np.ndarray:
        """Return physical coordinates of points (..., P) in [-1, 1], float64.

        Raises:
            InputError: The shape is another one.
        """
        low, high = np.array(self.low), np.array(self.high)
        return low + (self._points(unit) + 1) / 2 * (high - low)

    def positions(self, unit: ArrayLike) -> np.ndarray:
        """Return coordinates (..., Q), float64, whose Euclidean distance is that of the points.

        Q is P in the plane and for "local", and P + 1 on the sphere, where the distance is the
        chord. Both "local" and the sphere are in km.

        References:
            Map projections: a working manual (Snyder, 1987), equations 22-4, 22-5 and 25-2.

        Args:
            unit: Points (..., P) in [-1, 1].

        Raises:
            InputError: The shape is another one.
        """
        points = self.to_physical(unit)
        lengths = points * np.array(self.scales)
        if self.geometry == "plane":
            return lengths
        lon, lat = (self.kinds.index(kind) for kind in ("longitude", "latitude"))
        others = [axis for axis in range(self.dims) if axis not in (lon, lat)]
        places = _unit_vectors(points[..., lon], points[..., lat])
        if self.geometry == "local":
            places = _project(places, *self._middle())
        return np.concatenate([EARTH_KM * places, lengths[..., others]], axis=-1)

    def covering(self, physical: ArrayLike) -> "Frame":
        """Return the frame, widened where physical points (..., P) lie beyond its domain.

        Raises:
            InputError: The shape is another one, or a coordinate is not finite.
        """
        points = _rows(physical, self.dims).copy()
        bounds = []
        for axis, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            x = points[:, axis]
            if self.kinds[axis] == "longitude" and self.geometry != "plane":
                x = self._turn(x, low, high)
            bounds.append((min(low, float(x.min())), max(high, float(x.max()))))
        sides = [_with_room(*side, 0, kind) for side, kind in zip(bounds, self.kinds, strict=True)]
        starts, ends = zip(*sides, strict=True)
        return replace(self, low=starts, high=ends)

    def order_of(self, other: "Frame") -> list[int]:
        """Return for each axis which one of another frame it is: by its name, or by its kind.

        Raises:
            InputError: The other frame has more axes, or lacks one.
        """
        found = []
        for name, kind in zip(self.names, self.kinds, strict=True):
            same = [axis for axis, own in enumerate(other.names) if own.lower() == name.lower()]
            if not same and kind != "other":
                same = [axis for axis, own in enumerate(other.kinds) if own == kind]
            found += same[:1]
        if len(set(found)) != self.dims or other.dims != self.dims:
            raise InputError(
                f"the domain has the axes {', '.join(self.names)}, and the observations "
                f"{', '.join(other.names)}; name the coordinates that are meant"
            )
        return found

    def describe(self) -> str:
        """Return the domain in words: the range of each axis with its unit."""
        return ", ".join(
            f"{name} from {low:.6g} to {high:.6g}{f' {unit}' if unit else ''}"
            for name, low, high, unit in zip(
                self.names, self.low, self.high, self.units, strict=True
            )
        )

    @property
    def rate(self) -> str:
        """What a unit of time counts beside lengths, in words; "" without both."""
        if "time" not in self.kinds or self.dims < 2:
            return ""
        axis = self.kinds.index("time")
        length = "km" if self.geometry != "plane" else "units of length"
        one = self.units[axis].partition(" since ")[0].removesuffix("s") or "unit"
        return f"one {one} of {self.names[axis]} counts {self.scales[axis]:.3g} {length}"

    def _points(self, given: ArrayLike) -> np.ndarray:
        points = np.array(real_array(given, "coords"), np.float64)
        if points.shape[-1:] != (self.dims,):
            raise InputError(
                f"coords: expected shape (..., {self.dims}) for the axes {', '.join(self.names)}, "
                f"got {points.shape}"
            )
        return points

    @staticmethod
    def _turn(lon: np.ndarray, low: float, high: float) -> np.ndarray:
        """Return longitudes in the turn that is nearest to the middle of the domain."""
        middle = (low + high) / 2
        turned = middle + (lon - middle + 180) % 360 - 180
        return np.where((lon < low) | (lon > high), turned, lon)

    def _check_inside(self, points: np.ndarray, unit: np.ndarray) -> None:
        outside = ~(np.abs(unit) <= 1 + SAME_POINT).all(-1)
        if outside.any():
            where = ", ".join(
                f"{name} {x:.6g}" for name, x in zip(self.names, points[outside][0], strict=True)
            )
            raise InputError(
                f"{int(outside.sum())} of {outside.size} points lie outside the domain, the first "
                f"at {where}; it has {self.describe()}"
            )

    def _check_bounds(self) -> None:
        for name, low, high, scale in zip(
            self.names, self.low, self.high, self.scales, strict=True
        ):
            if not (np.isfinite([low, high]).all() and low < high):
                raise InputError(f"axis {name} needs finite bounds low < high, not {low}, {high}")
            if not (np.isfinite(scale) and scale > 0):
                raise InputError(f"axis {name} needs a finite scale above 0, not {scale}")

    def _find_geometry(self) -> str:
        if self.geometry == "auto":
            self._check_degrees()
            if not {"longitude", "latitude"} <= set(self.kinds):
                return "plane"
            return "local" if self.dims > 2 and self._reach() <= _LOCAL_DEGREES else "sphere"
        if self.geometry not in ("plane", "sphere", "local"):
            raise InputError(f"geometry is plane, sphere, local or auto, not '{self.geometry}'")
        return self.geometry

    def _check_degrees(self) -> None:
        """Refuse a longitude or latitude by name in a unit that makes it neither."""
        for name, unit in zip(self.names, self.units, strict=True):
            if axis_kind(name) in ("longitude", "latitude") and axis_kind(name, unit) == "other":
                raise InputError(
                    f"axis {name} is in '{unit}'; longitude and latitude are in degrees: convert "
                    "it, or give it another name if it is something else"
                )

    def _middle(self) -> tuple[float, float]:
        """Return longitude and latitude of the middle of the domain."""
        middle = (np.array(self.low) + np.array(self.high)) / 2
        lon, lat = (self.kinds.index(kind) for kind in ("longitude", "latitude"))
        return float(middle[lon]), float(middle[lat])

    def _reach(self) -> float:
        """Return the angle in degrees from the middle of the domain to the farthest point."""
        lon, lat = (self.kinds.index(kind) for kind in ("longitude", "latitude"))
        east = np.linspace(self.low[lon], self.high[lon], 9)
        north = np.linspace(self.low[lat], self.high[lat], 9)
        edge = np.concatenate([_unit_vectors(east, np.full(9, y)) for y in north])
        middle = _unit_vectors(*map(np.array, self._middle()))
        return float(np.degrees(np.arccos(np.clip(edge @ middle, -1, 1)).max()))

    def _check_sphere(self) -> None:
        for kind in ("longitude", "latitude"):
            if self.kinds.count(kind) != 1:
                raise InputError(
                    f"a sphere has one {kind}; the axes are {', '.join(self.names)}, in units of "
                    f"{', '.join(unit or 'nothing stated' for unit in self.units)}"
                )
        lon, lat = (self.kinds.index(kind) for kind in ("longitude", "latitude"))
        if max(abs(self.low[lat]), abs(self.high[lat])) > 90 + SAME_POINT:
            raise InputError(
                f"{self.names[lat]} from {self.low[lat]:g} to {self.high[lat]:g}: a latitude lies "
                "between -90 and 90 degrees; are the coordinates in another order or unit?"
            )
        if self.high[lon] - self.low[lon] > 360 * (1 + SAME_POINT):
            raise InputError(
                f"{self.names[lon]} from {self.low[lon]:g} to {self.high[lon]:g}: longitudes span "
                "360 degrees at most"
            )


def axis_kind(name: str, unit: str = "") -> str:
    """Return what an axis is, by its unit or else by its name: longitude, latitude or time."""
    plain, unit = name.lower(), unit.strip().lower().replace(" ", "_")
    if unit in _EAST or (plain in LONGITUDES and unit in _DEGREES):
        return "longitude"
    if unit in _NORTH or (plain in LATITUDES and unit in _DEGREES):
        return "latitude"
    return "time" if plain in TIMES or "_since_" in unit else "other"


def _spell_degrees(name: str, unit: str) -> str:
    """Return the unit, in the spelling of CF for a longitude or a latitude."""
    kinds = {"longitude": "degrees_east", "latitude": "degrees_north"}
    return kinds.get(axis_kind(name, unit), str(unit))


def _unit_vectors(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    east, north = np.radians(lon), np.radians(lat)
    flat = np.cos(north)
    return np.stack([flat * np.cos(east), flat * np.sin(east), np.sin(north)], axis=-1)


def _project(places: np.ndarray, lon: float, lat: float) -> np.ndarray:
    """Return unit vectors (..., 3) on the plane that touches at a point, at true distances."""
    east, north = np.radians(lon), np.radians(lat)
    up = _unit_vectors(np.array(lon), np.array(lat))
    along = np.array([-np.sin(east), np.cos(east), 0.0])
    across = np.array(
        [-np.sin(north) * np.cos(east), -np.sin(north) * np.sin(east), np.cos(north)]
    )
    flat = np.stack([places @ along, places @ across], axis=-1)
    sine = np.linalg.norm(flat, axis=-1, keepdims=True)
    angle = np.arctan2(sine, (places @ up)[..., None])
    return flat * np.divide(angle, sine, out=np.ones_like(sine), where=sine > 0)


def _arc(lon: np.ndarray) -> tuple[float, float]:
    """Return west and east end of the shortest arc that holds longitudes."""
    plain = float(lon.min()), float(lon.max())
    around = np.unique(lon % 360)
    gaps = np.diff(around, append=around[0] + 360)
    widest = int(gaps.argmax())
    extent = 360 - float(gaps[widest])
    if plain[1] - plain[0] <= extent * (1 + SAME_POINT):
        return plain
    west = float(around[(widest + 1) % len(around)])
    west -= 360 if west >= 180 else 0
    return west, west + extent


def _with_room(low: float, high: float, margin: float, kind: str) -> tuple[float, float]:
    """Widen a range on both sides, up to the poles and once round the world."""
    room = margin * (high - low)
    if kind == "latitude" and low >= -90 and high <= 90:
        return max(low - room, -90.0), min(high + room, 90.0)
    if kind == "longitude" and high - low + 2 * room > 360:
        middle = (low + high) / 2
        return middle - 180, middle + 180
    return low - room, high + room


def _rows(coords: ArrayLike, dims: int) -> np.ndarray:
    """Return the rows of coordinates that are not masked, float64 (M, P)."""
    values, mask = split_mask(coords, "coords")
    if values.ndim < 2 or values.shape[-1] != dims or not values.size:
        raise InputError(
            f"coords: expected shape (M, {dims}) with at least one point, got {values.shape}"
        )
    points = values.reshape(-1, dims).astype(np.float64)
    if mask is not None:
        points = points[~mask.reshape(-1, dims).any(axis=1)]
    if not len(points) or not np.isfinite(points).all():
        raise InputError("coords hold NaN or infinite numbers; drop those points")
    return points


def _floats(given: Sequence[float], count: int, name: str) -> tuple[float, ...]:
    try:
        found = tuple(float(x) for x in given)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: one number per axis is needed, not {given!r}") from error
    if len(found) != count:
        raise InputError(f"{name}: {count} axes take as many numbers, got {len(found)}")
    return found


def _check_names(names: tuple[str, ...]) -> None:
    if not names or not all(names):
        raise InputError(f"a frame needs a name for each axis, not {list(names)}")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"axes need different names; {', '.join(repeated)} occurs twice")
