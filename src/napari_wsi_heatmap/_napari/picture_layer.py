"""A picture of a slide, or of its heatmap, as layers that lie exactly on the slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Image, Layer

from napari_wsi_heatmap._napari.colors import BLENDING, COLORMAP, OPACITY
from napari_wsi_heatmap._napari.placement import placed_over
from napari_wsi_heatmap._napari.slide_layer import follow_filling
from napari_wsi_heatmap.pyramid import layer_data

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_wsi_heatmap.placedpictures import PlacedPicture

    Limits = Callable[[NDArray], tuple[float, float]]


def picture_layers(picture: PlacedPicture, slide: Layer, limits: Limits) -> list[Image]:
    """Make the layers of a picture, placed over the slide's layer.

    Parameters
    ----------
    picture : PlacedPicture
    slide : Layer
    limits : callable
        ``limits(values) -> (low, high)`` of the colours, for a picture that holds values.

    Returns
    -------
    list of Image
        One; of values one for each channel, the first of them shown.
    """
    if picture.values is None:
        return [_pixels(picture, slide)]
    return [_values(picture, channel, slide, limits) for channel in range(len(picture.values))]


def _pixels(picture: PlacedPicture, slide: Layer) -> Image:
    levels, kwargs, kind = layer_data(picture.slide)
    follow_filling(kwargs["metadata"]["pyramid"])
    # Whoever asks layers for slides must not take it for one.
    metadata = {"picture": picture}
    kwargs |= {"name": picture.path.name, "metadata": metadata, **placed_over(slide, picture)}
    return Layer.create(levels, kwargs, kind)


def _values(picture: PlacedPicture, channel: int, slide: Layer, limits: Limits) -> Image:
    values = picture.values[channel]
    layer = Image(
        values,
        name=f"{picture.path.name}: {picture.names[channel]}",
        rgb=False,
        multiscale=False,
        cache=False,
        blending=BLENDING,
        colormap=COLORMAP,
        opacity=OPACITY,
        contrast_limits=limits(values),
        interpolation2d="nearest",
        axis_labels=slide.axis_labels,
        visible=channel == 0,
        metadata={"picture": picture},
        **placed_over(slide, picture),
    )
    layer.colorbar.visible = True
    layer.colorbar.box = True
    return layer
