"""Slide layer + frame of the map -> where the heatmap layer lies.

A slide layer takes level-0 pixels (centre of pixel 0 at 0) to the world by
affine · (rotate · shear · scale + translate). The map takes cell i to level-0 pixel
offset + i · scale first. Both together have the same form, so the heatmap follows whatever was
done to the slide: moved, scaled, rotated, calibrated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.transforms import Affine

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_wsi_heatmap.frame import MapFrame

FOLLOWED = ("scale", "translate", "rotate", "shear", "affine", "units")
"""Attributes of a slide layer that move its heatmap."""


def placed_over(slide_layer: Layer, frame: MapFrame) -> dict[str, Any]:
    """Attributes that lay a map over its slide.

    Parameters
    ----------
    slide_layer : Layer
    frame : MapFrame

    Returns
    -------
    dict
        scale, translate, rotate, shear, affine and units, for a layer or its constructor.
    """
    to_physical = Affine(
        scale=slide_layer.scale,
        translate=slide_layer.translate,
        rotate=slide_layer.rotate,
        shear=slide_layer.shear,
    )
    return {
        "scale": np.asarray(slide_layer.scale) * frame.scale,
        "translate": np.asarray(to_physical(np.asarray(frame.offset))),
        "rotate": slide_layer.rotate,
        "shear": slide_layer.shear,
        "affine": slide_layer.affine.affine_matrix,
        # napari ignores all units as soon as two layers disagree.
        "units": slide_layer.units,
    }


def place(layer: Layer, slide_layer: Layer, frame: MapFrame) -> None:
    """Lay a heatmap layer over its slide."""
    for name, value in placed_over(slide_layer, frame).items():
        setattr(layer, name, value)
