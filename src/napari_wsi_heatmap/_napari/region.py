"""What somebody looks at, or has drawn, in level-0 pixels of a slide.

napari counts from the centre of pixel 0, a region of interest from its border: half a pixel is
between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import GridError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari.components import ViewerModel
    from napari.layers import Layer, Shapes
    from numpy.typing import NDArray

    Box = tuple[float, float, float, float]
    Points = NDArray[np.float64]

ELLIPSE_POINTS = 64
AREAS = ("rectangle", "polygon", "ellipse")
"""Kinds of shapes that enclose something."""


def view_box(viewer: ViewerModel, slide_layer: Layer) -> Box | None:
    """(y0, x0, y1, x1) of the part of the slide that the canvas shows, level-0 pixels.

    None in 3-D, where a canvas shows no box of a slide. May reach beyond the slide.
    """
    if viewer.dims.ndisplay != 2 or viewer.scene.camera.zoom <= 0:
        return None
    half = np.asarray(viewer.canvas.size) / viewer.scene.camera.zoom / 2
    centre = np.asarray(viewer.scene.camera.center)[-2:]
    corners = centre + half * np.array([(-1, -1), (-1, 1), (1, 1), (1, -1)])
    world = np.tile(np.asarray(viewer.dims.point, float), (4, 1))
    world[:, list(viewer.dims.displayed)] = corners
    return box_of(_level0(world[:, -2:], viewer.layers.units, slide_layer))


def on_slide(box: Box, shape: tuple[int, int]) -> Box | None:
    """The part of a box that lies on a slide (height, width), None if none does."""
    y0, x0, y1, x1 = box
    cut = max(0.0, y0), max(0.0, x0), min(float(shape[0]), y1), min(float(shape[1]), x1)
    return cut if cut[0] < cut[2] and cut[1] < cut[3] else None


def drawn_region(
    shapes: Shapes, slide_layer: Layer, which: Sequence[int] | None = None
) -> list[Points]:
    """Polygons (N, 2) (y, x) of a Shapes layer, level-0 pixels.

    Parameters
    ----------
    which : sequence of int, optional
        Numbers of shapes; default: all.

    Raises
    ------
    GridError
        If none of them encloses anything.
    """
    chosen = range(shapes.nshapes) if which is None else which
    data, kinds = shapes.data, shapes.shape_type
    outlines = [_outline(np.asarray(data[i], float), kinds[i]) for i in chosen if kinds[i] in AREAS]
    if not outlines:
        raise GridError(
            "it holds no rectangle, polygon or ellipse", f"layer {shapes.name!r}", "draw one"
        )
    return [_level0(_world(shapes, points), shapes.units, slide_layer) for points in outlines]


def _outline(vertices: Points, kind: str) -> Points:
    """Vertices (N, D) of a shape's border; of an ellipse its box's corners are given."""
    if kind != "ellipse":
        return vertices
    centre = vertices.mean(0)
    across, down = (vertices[1] - vertices[0]) / 2, (vertices[3] - vertices[0]) / 2
    turn = np.linspace(0, 2 * np.pi, ELLIPSE_POINTS, endpoint=False)[:, None]
    return centre + np.cos(turn) * across + np.sin(turn) * down


def _world(layer: Layer, points: Points) -> Points:
    return _mapped(layer.data_to_world, points)[:, -2:]


def _level0(world: Points, units: Any, slide_layer: Layer) -> Points:
    """World (N, 2), in these units -> level-0 pixels, counted from the border of pixel 0."""
    own = world * _factors(units, slide_layer.units)
    return _mapped(slide_layer.world_to_data, own) + 0.5


def _mapped(transform: Callable[[Any], Any], points: Points) -> Points:
    """Take points (N, D) through a layer's transform, which is affine, in a few calls."""
    origin = np.asarray(transform(np.zeros(points.shape[1])))
    units = [np.asarray(transform(unit)) - origin for unit in np.eye(points.shape[1])]
    return origin + points @ np.array(units)


def from_level0(points: Points, slide_layer: Layer, layer: Layer) -> Points:
    """Level-0 pixels (N, 2), counted from the border of pixel 0 -> pixels of another layer."""
    world = np.array([slide_layer.data_to_world(point - 0.5) for point in points])[:, -2:]
    own = world * _factors(slide_layer.units, layer.units)
    return np.array([layer.world_to_data(point) for point in own])[:, -2:]


def _factors(units: Any, wanted: Any) -> tuple[float, float]:
    """How many of the wanted units one of the given is; 1 where napari ignores units."""
    if units is None:
        return 1.0, 1.0
    pairs = list(zip(units[-2:], wanted, strict=True))
    if not all(unit.is_compatible_with(other) for unit, other in pairs):
        return 1.0, 1.0
    y, x = (float((1 * unit).m_as(other)) for unit, other in pairs)
    return y, x


def box_of(points: Points) -> Box:
    """(y0, x0, y1, x1) around points (N, 2)."""
    (y0, x0), (y1, x1) = points.min(0), points.max(0)
    return float(y0), float(x0), float(y1), float(x1)
