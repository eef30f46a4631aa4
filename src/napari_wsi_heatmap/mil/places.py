"""Where the patches of a slide lie, and how large they are: coordinates of CLAM, TRIDENT, STAMP.

Their files have x before y; here positions are (y, x), swapped once, on reading.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import FeatureError
from napari_wsi_heatmap.mil.plainh5 import dataset_of, opened_h5, plain_attrs
from napari_wsi_heatmap.sides import FARTHEST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    Pair = tuple[float, float]
    Coords = NDArray[Any]

BESIDE = ("{}.h5", "../h5_files/{}.h5", "../patches/{}.h5", "../patches/{}_patches.h5")
"""Where the coordinates of features lie that have none: in CLAM's folders, in TRIDENT's."""
MOST_PATCHES = 1 << 26
IN_UM = ("um", "µm", "micron", "microns", "micrometer")


@dataclass(frozen=True, eq=False)
class Places:
    """Where patches lie.

    Attributes
    ----------
    coords : (N, 2) int64 or float64
        Top-left corner (y, x), level-0 pixels.
    patch_size : (float, float) or None
        (height, width), level-0 pixels; None if nothing says it.
    level : int or None
        Level that they were cut from, if that is known.
    attrs : mapping
    notices : tuple of str
    path : Path or None
    """

    coords: Coords
    patch_size: Pair | None = None
    level: int | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    path: Path | None = None

    def __len__(self) -> int:
        """Number of patches."""
        return len(self.coords)


def read_coords(
    source: str | os.PathLike[str] | ArrayLike | Places,
    *,
    patch_size: float | Pair | None = None,
    mpp: float | Pair | None = None,
) -> Places:
    """Read where patches lie.

    Parameters
    ----------
    source : path, (N, 2) array or Places
        An .h5 with ``coords`` (CLAM's patches or features, TRIDENT's, STAMP's); or top-left
        (y, x), level-0 pixels.
    patch_size, mpp : optional
        As for `read_features`.

    Raises
    ------
    FeatureError
        If there are none, or they are no such numbers.
    """
    if isinstance(source, Places):
        return source
    if not isinstance(source, (str, os.PathLike)):
        places = Places(_checked(np.asarray(source), None), _pair(patch_size, "patch_size"))
        return replace(places, notices=_doubles(places.coords))
    path = Path(source).expanduser()
    with opened_h5(path) as file:
        found = places_in(file, path, patch_size=patch_size, mpp=mpp)
    if found is None:
        raise no_coords(path)
    return found


def no_coords(path: Path) -> FeatureError:
    """Say that nothing tells where patches lie."""
    return FeatureError(
        "it has no coords, so nothing says where the patches lie",
        path,
        "give coords= or coords_path (an .h5 with coords)",
    )


def places_in(
    file: Any,
    path: Path,
    *,
    patch_size: float | Pair | None = None,
    mpp: float | Pair | None = None,
    wanted: int | None = None,
) -> Places | None:
    """Read the places in an open HDF5 file; None if it has none.

    Parameters
    ----------
    wanted : int, optional
        Number of features: another number of coordinates is refused before they are read.
    """
    node = dataset_of(file, ("coords",), path)
    if node is None:
        return None
    attrs = plain_attrs(file) | plain_attrs(dataset_of(file, ("features", "feats"), path))
    attrs |= plain_attrs(node)
    refuse_too_many(_rows(node.shape), path)
    refuse_other_count(wanted, _rows(node.shape), path)
    coords = _checked(node[()], path)[:, ::-1]
    if _in_micrometres(attrs):
        coords = coords / _needed_mpp(mpp, path)
    coords = np.ascontiguousarray(coords)
    size, notices = patch_size_of(attrs, coords, path, given=patch_size, mpp=mpp)
    return Places(coords, size, _level(attrs), attrs, notices + _doubles(coords), path)


def refuse_other_count(features: int | None, coords: int, path: Path | None) -> None:
    """Refuse features and coordinates that are not as many: none is ever cut off."""
    if features is not None and features != coords:
        raise FeatureError(
            f"{features} features and {coords} coordinates",
            path,
            "extract both again: which belong together is not known",
        )


def refuse_too_many(patches: int, path: object) -> None:
    """Refuse a file that claims more patches than any slide has, before room is made for them."""
    if patches > MOST_PATCHES:
        raise FeatureError(f"it claims {patches} patches", path, "look at what wrote it")


def _rows(shape: tuple[int, ...]) -> int:
    return shape[1] if len(shape) == 3 and shape[0] == 1 else (shape[0] if shape else 0)


def _checked(coords: Coords, path: Path | None) -> Coords:
    """Bring coordinates to (N, 2) int64 or float64."""
    if coords.ndim == 3 and coords.shape[0] == 1:
        coords = coords[0]
    if coords.ndim != 2 or coords.shape[1] != 2 or coords.dtype.kind not in "fiu":
        what = f"coordinates are {coords.dtype} {coords.shape}"
        raise FeatureError(what, path, "give (N, 2) numbers")
    if not len(coords):
        raise FeatureError("it holds no coordinates", path, "look at what wrote it")
    if not (np.abs(coords.astype(np.float64)) < FARTHEST).all():  # nor is NaN
        raise FeatureError("some coordinates are on no slide", path, "look at what wrote it")
    return coords.astype(np.float64 if coords.dtype.kind == "f" else np.int64)


def _doubles(coords: Coords) -> tuple[str, ...]:
    doubles = len(coords) - len(np.unique(coords, axis=0))
    if not doubles:
        return ()
    return (f"{doubles} of {len(coords)} patches lie where another one lies",)


def _in_micrometres(attrs: Mapping[str, Any]) -> bool:
    unit = attrs.get("unit")
    return unit in IN_UM if unit else "tile_size_um" in attrs


def _needed_mpp(mpp: float | Pair | None, path: Path | None) -> NDArray[np.float64]:
    if mpp is None:
        raise FeatureError("its patches are placed in µm", path, "give mpp= of the slide's level 0")
    return np.asarray(_pair(mpp, "mpp"))


def _level(attrs: Mapping[str, Any]) -> int | None:
    level = attrs.get("patch_level")
    return level if isinstance(level, int) and level >= 0 else None


def patch_size_of(
    attrs: Mapping[str, Any],
    coords: Coords,
    path: Path | None = None,
    *,
    given: float | Pair | None = None,
    mpp: float | Pair | None = None,
) -> tuple[Pair | None, tuple[str, ...]]:
    """(height, width) of patches in level-0 pixels, and what is to be said of it.

    The order of sources: attribute ``patch_size_level0``; ``patch_size`` · ``downsample`` ·
    ``custom_downsample``; STAMP's ``tile_size_um``; what is given; the smallest distance of two
    patches along an axis, with a notice.
    """
    if attrs.get("patch_size_level0") is not None:
        return _pair(attrs["patch_size_level0"], "patch_size_level0", path), ()
    if (down := _downsample(attrs)) is not None and attrs.get("patch_size") is not None:
        side = _pair(attrs["patch_size"], "patch_size", path)
        return (side[0] * down[0], side[1] * down[1]), ()
    if attrs.get("tile_size_um") is not None and mpp is not None:
        side, unit = _pair(attrs["tile_size_um"], "tile_size_um", path), _pair(mpp, "mpp")
        return (side[0] / unit[0], side[1] / unit[1]), ()
    if given is not None:
        return _pair(given, "patch_size"), ()
    return _guessed(coords)


def _downsample(attrs: Mapping[str, Any]) -> Pair | None:
    """(y, x) level-0 pixels per pixel of the level; None if it is another level, and not said."""
    custom = _pair(attrs.get("custom_downsample") or 1, "custom_downsample")
    if attrs.get("downsample") is not None:
        x_before_y = _pair(attrs["downsample"], "downsample")
        return x_before_y[1] * custom[0], x_before_y[0] * custom[1]
    return None if attrs.get("patch_level") else custom


def _guessed(coords: Coords) -> tuple[Pair | None, tuple[str, ...]]:
    steps = [np.diff(np.unique(coords[:, axis])) for axis in (0, 1)]
    smallest = [float(step.min()) for step in steps if len(step)]
    if not smallest:
        return None, ("nothing says how large the patches are",)
    side = min(smallest)
    notice = f"patches are taken to be {side:g} px wide, their smallest distance: give patch_size="
    return (side, side), (notice,)


def _pair(value: Any, what: str, path: Path | None = None) -> Any:
    """One number or (y, x), above 0, as a pair of floats; None stays None."""
    if value is None:
        return None
    try:
        sides = [float(side) for side in (value if np.iterable(value) else (value, value))]
    except (TypeError, ValueError):
        sides = []
    if len(sides) != 2 or not all(math.isfinite(side) and side > 0 for side in sides):
        raise FeatureError(f"{what} is {value!r}", path, "give one number above 0, or (y, x)")
    return sides[0], sides[1]


def places_beside(path: Path, **given: Any) -> Places | None:
    """Look for the coordinates of features that have none, in files beside them."""
    for pattern in BESIDE:
        found = path.parent / pattern.format(path.stem)
        if found.is_file() and found != path:
            with opened_h5(found) as file:
                places = places_in(file, found, **given)
            if places is not None:
                return places
    return None


def sized_beside(places: Places, path: Path) -> Places:
    """Places with the size that CLAM's ``../patches/NAME.h5`` says, if it lists the same ones.

    CLAM's files of features have no attributes.
    """
    beside = path.parent / f"../patches/{path.stem}.h5"
    if places.attrs.get("patch_size") is not None or "patch_size_level0" in places.attrs:
        return places
    if not beside.is_file() or beside.resolve() == path.resolve():
        return places
    with opened_h5(beside) as file:
        other = places_in(file, beside)
    if other is None or not np.array_equal(other.coords, places.coords):
        return places
    notices = tuple(n for n in places.notices if not n.startswith("patches are taken"))
    return replace(
        places, patch_size=other.patch_size, level=other.level, attrs=other.attrs, notices=notices
    )
