"""What a rule calls tissue, as a Labels layer over the slide: before a run, or to paint on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

import numpy as np
from napari.layers import Labels

from napari_wsi_heatmap._napari.notify import tell
from napari_wsi_heatmap._napari.off_gui import off_gui
from napari_wsi_heatmap._napari.placement import placed_over
from napari_wsi_heatmap._napari.slide_source import source_of
from napari_wsi_heatmap.grid import lay_grid, resolve_window
from napari_wsi_heatmap.selection import windows_wanted
from napari_wsi_heatmap.tissue import find_tissue

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer
    from numpy.typing import NDArray

    from napari_wsi_heatmap._napari.slide_source import SlideSource
    from napari_wsi_heatmap.grid import WindowGrid
    from napari_wsi_heatmap.tissue import TissueMask

TISSUE = "tissue_of"
"""Key of a layer's metadata: name of the slide's layer."""
OPACITY = 0.4
WINDOWS = ("window", "stride", "mpp", "level")


class Seen(NamedTuple):
    """A mask of tissue and where it lies."""

    mask: NDArray[np.uint8] | None
    """None: everything counts."""
    offset: tuple[float, float]
    scale: tuple[float, float]
    """Pixel i has its centre at ``offset + i * scale``, level-0 pixels from the centre of 0."""
    says: str


def show_tissue(viewer: ViewerModel, slide_layer: Layer, settings: dict[str, Any]) -> None:
    """Add the tissue of a slide as a layer; it is looked for in a thread.

    Parameters
    ----------
    viewer : ViewerModel
    slide_layer : Layer
    settings : dict
        window, stride, mpp, level, tissue and roi, as for a run.
    """
    source, known = source_of(slide_layer), (ref(viewer), ref(slide_layer))
    off_gui(
        lambda: seen_tissue(source, settings),
        lambda seen: _arrived(*known, seen),
        f"{source.name}: its tissue cannot be shown",
    )


def seen_tissue(source: SlideSource, settings: dict[str, Any]) -> Seen:
    """Find the tissue of a slide; slow.

    Raises
    ------
    HeatmapError
        As a run with these settings would.
    """
    slide = source.open()
    try:
        chosen = {name: settings.get(name) for name in WINDOWS}
        spec = resolve_window(slide, **chosen)
        grid = lay_grid(spec, slide.levels[spec.level].shape)
        wanted = windows_wanted(slide, grid, settings.get("roi"))
        return _seen(find_tissue(slide, settings["tissue"], grid, wanted), grid)
    finally:
        if slide is not source.slide:
            slide.close()


def _seen(found: TissueMask, grid: WindowGrid) -> Seen:
    says = ", ".join(f"{key} {found.record[key]}" for key in ("rule", "threshold", "file")
                     if key in found.record)  # fmt: skip
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


def _arrived(viewer_ref: ref[ViewerModel], layer_ref: ref[Layer], seen: Seen) -> None:
    viewer, slide_layer = viewer_ref(), layer_ref()
    if viewer is None or slide_layer is None or slide_layer not in viewer.layers:
        return
    if seen.mask is None:
        tell(f"{slide_layer.name}: {seen.says}")
        return
    selected = set(viewer.layers.selection)
    for older in [x for x in viewer.layers if x.metadata.get(TISSUE) == slide_layer.name]:
        older.visible = False  # not removed: somebody may have painted on it
    viewer.add_layer(tissue_layer(slide_layer, seen))
    viewer.layers.selection = selected


def tissue_layer(slide_layer: Layer, seen: Seen) -> Labels:
    """Make the layer; it can be painted on, and chosen as the tissue of a run."""
    return Labels(
        seen.mask,
        name=f"{slide_layer.name} tissue ({seen.says})",
        opacity=OPACITY,
        axis_labels=slide_layer.axis_labels,
        metadata={TISSUE: slide_layer.name},
        **placed_over(slide_layer, seen),
    )
