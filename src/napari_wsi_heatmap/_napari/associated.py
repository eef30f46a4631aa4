"""Commands: show the label, macro or thumbnail that a slide's file holds beside the slide.

Labels carry names of patients, so none of these images is read unless somebody asks for it.
Where on the slide a macro image belongs is not known; all stand in a column at its right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

from napari.layers import Image
from napari.viewer import Viewer

from napari_wsi_heatmap._napari.guarded import bare
from napari_wsi_heatmap._napari.meant import slide_layer_meant
from napari_wsi_heatmap._napari.notify import tell, tell_warning
from napari_wsi_heatmap._napari.off_gui import off_gui
from napari_wsi_heatmap._napari.placement import placed_over
from napari_wsi_heatmap._napari.region import view_box

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_wsi_heatmap.slides.base import Rgb, Slide

SIZE, GAP = 0.5, 0.03
"""Longer side of an image, and the room around it, in longer sides of what was scanned."""
KIND, BOX = "associated", "associated_box"
"""Keys of a layer's metadata: (path of the slide, name of the image); (top, left, bottom, right)
in level-0 pixels of the slide."""


def show_label(viewer: Viewer) -> None:
    """Show the label of the selected slide."""
    show_associated(bare(viewer), "label")


def show_macro(viewer: Viewer) -> None:
    """Show the photograph of the whole glass of the selected slide."""
    show_associated(bare(viewer), "macro")


def show_thumbnail(viewer: Viewer) -> None:
    """Show the thumbnail that is stored with the selected slide."""
    show_associated(bare(viewer), "thumbnail")


def show_associated(viewer: ViewerModel, name: str) -> None:
    """Add an associated image of the selected slide as a layer; it is read in a thread.

    Parameters
    ----------
    viewer : ViewerModel
    name : str
        One of the slide's ``associated_images``; where there is none, the user is told.
    """
    layer = slide_layer_meant(viewer)
    if layer is None:
        return
    slide: Slide = layer.metadata["slide"]
    shown = [other for other in viewer.layers if other.metadata.get(KIND) == (slide.path, name)]
    if shown:
        shown[0].visible = True
    elif name not in tuple(slide.associated_images):  # `in` a mapping would read the image
        tell_warning(_none_of_it(slide, name))
    else:
        known = ref(viewer), ref(layer)
        off_gui(
            lambda: slide.associated_images[name],
            lambda pixels: _arrived(*known, name, pixels),
            f"{slide.name}: its {name} image cannot be read",
        )


def _none_of_it(slide: Slide, name: str) -> str:
    others = ", ".join(slide.associated_images)
    return f"{slide.name} holds no {name} image" + (f", only {others}." if others else ".")


def _arrived(viewer_ref: ref[ViewerModel], layer_ref: ref[Layer], name: str, pixels: Rgb) -> None:
    viewer, layer = viewer_ref(), layer_ref()
    if viewer is None or layer is None or layer not in viewer.layers:
        return
    selected = set(viewer.layers.selection)
    all_in_view = _sees_all(viewer, layer)
    image = associated_layer(layer, name, pixels, _next_top(viewer, layer))
    viewer.add_layer(image)
    viewer.layers.selection = selected
    if all_in_view:
        viewer.fit_to_view()
    else:
        tell(f"The {name} image stands at the right of the slide, outside of this view.")


def associated_layer(slide_layer: Layer, name: str, pixels: Rgb, top: float) -> Image:
    """Make the layer of an associated image.

    Parameters
    ----------
    slide_layer : Layer
    name : str
    pixels : (H, W, 3) uint8
    top : float
        Level-0 row of the slide at which the image begins.
    """
    slide: Slide = slide_layer.metadata["slide"]
    place = Place.at_the_right(slide, pixels, top)
    return Image(
        pixels,
        name=f"{slide_layer.name} {name}",
        rgb=True,
        multiscale=False,
        contrast_limits=(0, 255),
        axis_labels=slide_layer.axis_labels,
        metadata={KIND: (slide.path, name), BOX: place.box(pixels)},
        **placed_over(slide_layer, place),
    )


class Place(NamedTuple):
    """Where an image lies; pixel i has its centre at ``offset + i * scale``, level-0 pixels."""

    offset: tuple[float, float]
    scale: tuple[float, float]

    @classmethod
    def at_the_right(cls, slide: Slide, pixels: Rgb, top: float) -> Place:
        """Right of what was scanned, half as large as that."""
        _, x, height, width = slide.bounds
        side = max(height, width)
        scale = SIZE * side / max(pixels.shape[:2])
        left = x + width + GAP * side
        # Counted from the border of pixel 0, whose centre is the origin.
        return cls((top + (scale - 1) / 2, left + (scale - 1) / 2), (scale, scale))

    def box(self, pixels: Rgb) -> tuple[float, float, float, float]:
        """(top, left, bottom, right), level-0 pixels."""
        y, x = (o - (s - 1) / 2 for o, s in zip(self.offset, self.scale, strict=True))
        return y, x, y + pixels.shape[0] * self.scale[0], x + pixels.shape[1] * self.scale[1]


def _next_top(viewer: ViewerModel, layer: Layer) -> float:
    """Level-0 row below the images of this slide that are shown already."""
    slide: Slide = layer.metadata["slide"]
    bottoms = [
        other.metadata[BOX][2]
        for other in viewer.layers
        if other.metadata.get(KIND, ("",))[0] == slide.path
    ]
    if not bottoms:
        return float(slide.bounds[0])
    return max(bottoms) + GAP * max(slide.bounds[2:])


def _sees_all(viewer: ViewerModel, layer: Layer) -> bool:
    """Whether all that was scanned is on view."""
    box: Any = view_box(viewer, layer)
    if box is None:
        return False
    y, x, height, width = layer.metadata["slide"].bounds
    return box[0] <= y and box[1] <= x and box[2] >= y + height and box[3] >= x + width
