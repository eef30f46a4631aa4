"""Image layer -> the slide that it shows, however it was opened.

What a layer is worth is decided on the GUI thread, from what the layer says; the slide itself is
opened by the worker (`SlideSource.open`), since opening a file takes time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image

from napari_wsi_heatmap.errors import SlideOpenError
from napari_wsi_heatmap.slides import looks_like_slide, open_slide
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.slides.base import believable_mpp

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_wsi_heatmap.slides.base import Slide

    Shape = tuple[int, int]


@dataclass(frozen=True)
class SlideSource:
    """Where the pixels of a layer come from."""

    name: str
    shapes: tuple[Shape, ...]
    """(height, width) of each level, finest first."""
    mpp: tuple[float, float] | None
    """(y, x) µm per level-0 pixel, as far as it is known before the file is opened."""
    slide: Slide | None = None
    """Already open; belongs to whoever opened it."""
    path: str | None = None
    """File that may be a slide."""
    arrays: tuple[Any, ...] = ()
    """Pixels of the layer, each (H, W, 3 or 4) uint8."""

    def open(self) -> Slide:
        """Open what gives these pixels; slow.

        Raises
        ------
        SlideOpenError
            If neither the file nor the layer gives them.
        """
        if self.slide is not None:
            return self.slide
        opened = None if self.path is None else self._from_file(self.path)
        return opened or ArraySlide(self.arrays, self.mpp, name=self.name)

    def _from_file(self, path: str) -> Slide | None:
        """Open the layer's file, if it is the slide that the layer shows."""
        try:
            slide = open_slide(path)
            if slide.mpp is None and self.mpp is not None:
                slide.close()
                slide = open_slide(path, mpp=self.mpp)
        except SlideOpenError:
            if self.arrays:
                return None
            raise
        if slide.levels[0].shape == self.shapes[0]:
            return slide
        slide.close()
        if self.arrays:
            return None
        raise SlideOpenError(
            "the layer does not show the finest level of its file", path, "drop the file again"
        )


def source_of(layer: Layer) -> SlideSource:
    """Find out where a layer's pixels come from.

    Raises
    ------
    SlideOpenError
        If it cannot be used as a slide; says why.
    """
    reason = refusal(layer)
    if reason is not None:
        raise SlideOpenError(reason, f"layer {layer.name!r}", "choose a layer with a slide")
    shapes = _shapes(layer)
    slide = _own_slide(layer)
    if slide is not None:
        return SlideSource(
            slide.name, tuple(level.shape for level in slide.levels), slide.mpp, slide
        )
    arrays = tuple(_levels(layer)) if _reason_against_pixels(layer) is None else ()
    path = layer.source.path if _has_slide_file(layer) else None
    return SlideSource(layer.name, shapes, layer_mpp(layer), path=path, arrays=arrays)


def refusal(layer: Layer) -> str | None:
    """Say in a few words why a layer cannot be used as a slide; None if it can."""
    if not isinstance(layer, Image):
        return f"it is a {type(layer).__name__} layer, not an image"
    if layer.ndim != 2:
        return f"it has {layer.ndim} dimensions, a slide has 2"
    if "associated" in layer.metadata:
        return f"it is the {layer.metadata['associated'][1]} image of a slide"
    if _own_slide(layer) is not None or _has_slide_file(layer):
        return None
    return _reason_against_pixels(layer)


def layer_mpp(layer: Layer) -> tuple[float, float] | None:
    """(y, x) µm from one pixel of a layer to the next, None where its units are no lengths."""
    if not all(unit.is_compatible_with("um") for unit in layer.units):
        return None
    origin = np.asarray(layer.data_to_world((0, 0)))
    steps = [np.asarray(layer.data_to_world(step)) - origin for step in ((1, 0), (0, 1))]
    to_um = [float((1 * unit).m_as("um")) for unit in layer.units]
    y, x = (float(np.linalg.norm(step * to_um)) for step in steps)
    return believable_mpp((y, x), layer.name)[0]


def _own_slide(layer: Layer) -> Slide | None:
    """The slide that our reader left with the layer, unless the data was replaced since."""
    slide: Slide | None = layer.metadata.get("slide")
    if slide is None or slide.levels[0].shape != _shapes(layer)[0]:
        return None
    return slide


def _has_slide_file(layer: Layer) -> bool:
    return layer.source.path is not None and looks_like_slide(layer.source.path)


def _reason_against_pixels(layer: Layer) -> str | None:
    if not layer.rgb:
        return "it is not an RGB image"
    if np.dtype(layer.dtype) != np.uint8:
        return f"its pixels are {np.dtype(layer.dtype)}, not uint8"
    return None


def _levels(layer: Layer) -> list[Any]:
    return list(layer.data) if layer.multiscale else [layer.data]


def _shapes(layer: Layer) -> tuple[Shape, ...]:
    return tuple((int(level.shape[0]), int(level.shape[1])) for level in _levels(layer))
