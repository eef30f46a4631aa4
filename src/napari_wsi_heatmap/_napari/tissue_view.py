"""What a rule calls tissue, as a Labels layer over the slide: before a run, or to paint on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap

from napari_wsi_heatmap._napari.live_tissue import LiveTissue, live_tissue, titled
from napari_wsi_heatmap._napari.notify import tell
from napari_wsi_heatmap._napari.off_gui import off_gui
from napari_wsi_heatmap._napari.placement import FOLLOWED, placed_over
from napari_wsi_heatmap._napari.slide_source import source_of
from napari_wsi_heatmap.grid import lay_grid, resolve_window
from napari_wsi_heatmap.selection import windows_wanted
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.tissue import find_tissue, keep_values
from napari_wsi_heatmap.tissuerules.given import given_rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Layer
    from numpy.typing import NDArray

    from napari_wsi_heatmap._napari.slide_source import SlideSource
    from napari_wsi_heatmap.grid import WindowGrid
    from napari_wsi_heatmap.slides.base import Slide
    from napari_wsi_heatmap.tissue import TissueMask
    from napari_wsi_heatmap.tissuerules.values import TissueValues

TISSUE = "tissue_of"
"""Key of a layer's metadata: name of the slide's layer."""
OPACITY = 0.4
COLOR = "#00c853"
"""Unlike any stain."""
WINDOWS = ("window", "stride", "mpp", "level")
MOST_VALUES = 1 << 24
"""Windows whose values are kept, 8 bytes each: of more only the mask is."""


class Seen(NamedTuple):
    """A mask of tissue and where it lies."""

    mask: NDArray[np.uint8] | None
    """None: everything counts."""
    offset: tuple[float, float]
    scale: tuple[float, float]
    """Pixel i has its centre at ``offset + i * scale``, level-0 pixels from the centre of 0."""
    says: str
    values: TissueValues | None = None
    """What the mask was made of, if its threshold can be moved."""
    asked: Any = None
    """By what the windows were laid."""


def show_tissue(
    viewer: ViewerModel,
    slide_layer: Layer,
    settings: dict[str, Any],
    then: Callable[[LiveTissue | None], None] = lambda live: None,
) -> None:
    """Add the tissue of a slide as a layer; it is looked for in a thread.

    Parameters
    ----------
    viewer : ViewerModel
    slide_layer : Layer
    settings : dict
        window, stride, mpp, level, edge, icc, tissue and roi, as for a run.
    then : callable
        Called on the GUI thread when the layer is there, with what can be moved about it.
    """
    source, known = source_of(slide_layer), (ref(viewer), ref(slide_layer))
    off_gui(
        lambda: seen_tissue(source, settings),
        lambda seen: then(_arrived(*known, seen)),
        f"{source.name}: its tissue cannot be shown",
    )


def move_threshold(
    viewer: ViewerModel, slide_layer: Layer, settings: dict[str, Any]
) -> LiveTissue | None:
    """Show the threshold that a rule has now, if the mask that is shown is one of its values.

    What somebody has painted on a mask is not lost: the layer is hidden, and another shown.
    """
    live = live_tissue(viewer, slide_layer)
    rule = given_rule(settings["tissue"])
    if live is None or live.asked != _asked(rule.kind, settings):
        return None
    threshold = live.values.automatic if rule.value is None else rule.value
    if threshold is None or threshold == live.values.threshold:
        return None if threshold is None else live
    if live.painted:
        return _beside(viewer, slide_layer, live, threshold)
    live.move(threshold)
    return live


def _beside(
    viewer: ViewerModel, slide_layer: Layer, live: LiveTissue, threshold: float
) -> LiveTissue:
    """Show another threshold in a layer of its own, where that of a mask lies."""
    values = live.values.moved(threshold)
    placed = {name: getattr(live.layer, name) for name in (*FOLLOWED, "axis_labels")}
    mask = values.mask().astype(np.uint8)
    layer = mask_layer(mask, titled(slide_layer, values), slide_layer.name, **placed)
    put_tissue(viewer, layer)
    return LiveTissue(layer, slide_layer, values, live.asked)


def seen_tissue(source: SlideSource, settings: dict[str, Any]) -> Seen:
    """Find the tissue of a slide; slow.

    Raises
    ------
    HeatmapError
        As a run with these settings would.
    """
    slide = source.open()
    try:
        return _look(open_slide(slide, icc=settings.get("icc", False)), settings)
    finally:
        if slide is not source.slide:
            slide.close()


def _look(slide: Slide, settings: dict[str, Any]) -> Seen:
    chosen = {name: settings.get(name) for name in WINDOWS}
    spec = resolve_window(slide, **chosen)
    grid = lay_grid(spec, slide.levels[spec.level].shape, settings.get("edge", "pad"))
    wanted, rule = windows_wanted(slide, grid, settings.get("roi")), given_rule(settings["tissue"])
    few = rule.kind != "variance" or grid.size <= MOST_VALUES
    kept = keep_values(slide, rule, grid, wanted) if few else None
    found = find_tissue(slide, rule, grid, wanted) if kept is None else kept.tissue()
    return _seen(found, grid)._replace(values=kept, asked=_asked(rule.kind, settings))


def _asked(kind: str, settings: dict[str, Any]) -> Any:
    """What decides the values of a rule, beside its threshold."""
    windows = [settings.get(name) for name in (*WINDOWS, "edge")] if kind != "otsu" else []
    return [kind, settings.get("icc", False), *windows]


def _seen(found: TissueMask, grid: WindowGrid) -> Seen:
    facts = [found.record.get(key) for key in ("rule", "file", "threshold")]
    says = " ".join(f if isinstance(f, str) else f"{f:g}" for f in facts if f is not None)
    if found.windows is not None:
        down, spec = np.asarray(grid.spec.downsample), grid.spec
        # Windows may overlap: each is shown by the cell around its centre.
        offset = (np.asarray(spec.footprint) * down - 1) / 2
        return _placed(found.windows, offset, np.asarray(spec.stride) * down, says)
    if found.mask is None:
        return Seen(None, (0, 0), (1, 1), found.notice or "every window counts as tissue")
    scale = np.asarray(found.downsample)
    return _placed(found.mask, (scale - 1) / 2, scale, says)


def _placed(mask: Any, offset: Any, scale: Any, says: str) -> Seen:
    return Seen(mask.astype(np.uint8), tuple(offset), tuple(scale), says)


def _arrived(viewer_ref: ref[ViewerModel], layer_ref: ref[Layer], seen: Seen) -> LiveTissue | None:
    viewer, slide_layer = viewer_ref(), layer_ref()
    if viewer is None or slide_layer is None or slide_layer not in viewer.layers:
        return None
    if seen.mask is None:
        tell(f"{slide_layer.name}: {seen.says}")
        return None
    layer = tissue_layer(slide_layer, seen)
    put_tissue(viewer, layer)
    if seen.values is None:
        return None
    return LiveTissue(layer, slide_layer, seen.values, seen.asked)


def put_tissue(viewer: ViewerModel, layer: Labels) -> None:
    """Show a mask instead of others of its slide; selected, so that napari says what it holds.

    Parameters
    ----------
    viewer : ViewerModel
    layer : Labels
        Says in its metadata whose tissue it is.
    """
    hide_tissue(viewer, layer.metadata[TISSUE])
    viewer.add_layer(layer)
    viewer.layers.selection = {layer}


def hide_tissue(viewer: ViewerModel, slide_name: str) -> None:
    """Hide the masks of a slide; not removed, since somebody may have painted on them."""
    for layer in viewer.layers:
        if layer.metadata.get(TISSUE) == slide_name:
            layer.visible = False


def tissue_layer(slide_layer: Layer, seen: Seen) -> Labels:
    """Make the layer; it can be painted on, and chosen as the tissue of a run."""
    return mask_layer(
        seen.mask,
        f"{slide_layer.name} tissue ({seen.says})",
        slide_layer.name,
        axis_labels=slide_layer.axis_labels,
        **placed_over(slide_layer, seen),
    )


def mask_layer(mask: NDArray[np.uint8], name: str, slide_name: str, **placed: Any) -> Labels:
    """A mask as a layer, in one colour, also where other labels are painted."""
    return Labels(
        mask,
        name=name,
        opacity=OPACITY,
        colormap=DirectLabelColormap(color_dict={None: COLOR, 0: "transparent", 1: COLOR}),
        metadata={TISSUE: slide_name},
        **placed,
    )
