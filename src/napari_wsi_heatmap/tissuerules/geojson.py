"""`FILE.geojson`: tissue is what lies in polygons, as QuPath and others write them.

Polygon, MultiPolygon, GeometryCollection, Feature, FeatureCollection, or a plain list of these
(RFC 7946 in shape; coordinates (x, y) in level-0 pixels instead of degrees). Points and lines,
which have no area, are passed over.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import GridError, one_line
from napari_wsi_heatmap.tissuerules.polygons import drawn_mask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_wsi_heatmap.grid import WindowGrid
    from napari_wsi_heatmap.slides.base import Slide
    from napari_wsi_heatmap.tissue import TissueMask
    from napari_wsi_heatmap.tissuerules.rings import Polygon

MOST_BYTES = 256 << 20
"""Of a file: it is held in memory some ten times over while it is taken apart."""


def geojson_mask(slide: Slide, path: str, grid: WindowGrid | None) -> TissueMask:
    """Mask drawn from the polygons of a file.

    Raises
    ------
    GridError
        If the file cannot be read, holds no polygon, or none that touches the slide.
    """
    text = _read(Path(path))
    record = {
        "rule": "geojson",
        "file": Path(path).name,
        "sha256": hashlib.sha256(text).hexdigest(),
    }
    return drawn_mask(slide, _polygons(text, path), grid, record, path)


def _read(path: Path) -> bytes:
    try:
        _refuse(path, path.stat().st_size)
        return path.read_bytes()
    except GridError:
        raise
    except (OSError, ValueError) as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else one_line(error, 120)
        raise GridError(f"the file of polygons cannot be read: {why}", path) from error


def _refuse(path: Path, size: int) -> None:
    if not path.is_file():
        raise GridError("the tissue rule is no file", path, "give a GeoJSON file")
    if size > MOST_BYTES:
        raise GridError(
            f"the file of polygons has {size >> 20} MB",
            path,
            f"at most {MOST_BYTES >> 20} MB are read: export tissue, not cells",
        )


def _polygons(text: bytes, path: str) -> list[Polygon]:
    try:
        polygons = list(_in_geometry(json.loads(text)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise GridError(
            f"this is no GeoJSON: {_why(error)}",
            path,
            "give Polygons or MultiPolygons, coordinates (x, y) in level-0 pixels",
        ) from error
    if not polygons:
        raise GridError("no polygon in the file", path, "annotate areas, not points or lines")
    return polygons


def _why(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return one_line(error, 100)


def _in_geometry(part: Any) -> Iterator[Polygon]:
    if isinstance(part, list):
        for inner in part:
            yield from _in_geometry(inner)
    elif part is not None:
        yield from _of_kind(part, part["type"])


def _of_kind(part: dict[str, Any], kind: str) -> Iterator[Polygon]:
    if kind == "FeatureCollection":
        yield from _in_geometry(part["features"])
    elif kind == "Feature":
        yield from _in_geometry(part["geometry"])
    elif kind == "GeometryCollection":
        yield from _in_geometry(part["geometries"])
    elif kind == "Polygon":
        yield from _with_holes([part["coordinates"]])
    elif kind == "MultiPolygon":
        yield from _with_holes(part["coordinates"])


def _with_holes(polygons: list[Any]) -> Iterator[Polygon]:
    for rings in polygons:
        if rings:  # an empty geometry is allowed
            yield tuple(_ring(ring) for ring in rings)


def _ring(ring: list[Any]) -> NDArray[np.float64]:
    # A third coordinate is a height, which a slide has not.
    points = np.array([[point[1], point[0]] for point in ring], np.float64)
    if len(points) < 3 or not np.isfinite(points).all():
        raise ValueError("a ring is not three or more pairs of numbers")
    return points
