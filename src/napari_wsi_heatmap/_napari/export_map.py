"""Command: write the heatmap that is selected as a file of another format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.viewer import Viewer
from qtpy.QtWidgets import QFileDialog

from napari_wsi_heatmap._napari.guarded import bare
from napari_wsi_heatmap._napari.meant import is_slide
from napari_wsi_heatmap._napari.notify import tell, tell_warning
from napari_wsi_heatmap._napari.off_gui import off_gui
from napari_wsi_heatmap._napari.registry import job_of
from napari_wsi_heatmap._napari.run_tissue import chosen_heatmap
from napari_wsi_heatmap.exports import FORMATS, Format, export

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_wsi_heatmap.slides.base import Slide


def export_map(viewer: Viewer) -> None:
    """Ask where to, and write the heatmap that is selected, else the topmost."""
    viewer = bare(viewer)
    layer = chosen_heatmap(viewer)
    if layer is None:
        tell_warning("There is no heatmap in this viewer: run a model, or open one.")
        return
    kinds = {kind_of(row): row for row in FORMATS}
    file, kind = QFileDialog.getSaveFileName(
        viewer.window._qt_window, f"Export {layer.name}", "", ";;".join(kinds)
    )
    if file:
        write(viewer, layer, Path(file), kinds[kind])


def kind_of(row: Format) -> str:
    """A format as a file dialog offers it."""
    endings = " ".join(f"*{ending}" for ending in row.endings)
    return f"{row.name}: {row.writes.replace('(', '').replace(')', '')} ({endings})"


def write(viewer: ViewerModel, layer: Image, path: Path, row: Format) -> None:
    """Write a heatmap in a thread, and tell where it is.

    Parameters
    ----------
    viewer : ViewerModel
    layer : Image
        Of the heatmap; pictures have its output, colours, limits and opacity, and what else holds
        one output that it shows.
    path : Path
        Gets the format's ending if it has none. What is there was asked about by the dialog.
    row : Format
    """
    path = path if path.suffix else path.with_suffix(row.endings[0])
    heatmap, slide = layer.metadata["heatmap"], _slide_of(viewer, layer)
    look = {name: value for name, value in _look(layer).items() if row.takes(name)}
    off_gui(
        lambda: export(heatmap, path, slide=slide, format=row.name, **look),
        lambda written: tell(f"{layer.name} was exported to {written}"),
        f"{layer.name} cannot be exported",
    )


def _slide_of(viewer: ViewerModel, layer: Image) -> Slide | None:
    """The slide that a heatmap was computed on, if it is shown here."""
    job = job_of(layer)
    layers = viewer.layers if job is None else [job.slide_layer]
    path = layer.metadata["heatmap"].run["slide"]["path"]
    slides = (other.metadata["slide"] for other in layers if is_slide(other))
    return next((slide for slide in slides if slide.path == path), None)


def _look(layer: Image) -> dict[str, Any]:
    """What a file has of the layer, if its format has a place for that."""
    limits = tuple(float(limit) for limit in layer.contrast_limits)
    switch = layer.metadata.get("switch")
    channel = 0 if switch is None else switch.channel
    return {
        "channel": channel,
        "cmap": layer.colormap.map(np.linspace(0, 1, 256)).tolist(),
        "limits": limits,
        "opacity": float(layer.opacity),
    }
