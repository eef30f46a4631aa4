"""Layers of what the features of a heatmap say, exactly where the heatmap lies.

What takes time is done in a thread: each function here that computes returns what makes the
layer, which is called on the GUI thread. What is shown instead of the heatmap hides it, since
colours that lie over others are read wrongly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

import numpy as np
from napari.layers import Image, Labels

from napari_wsi_heatmap._napari.colors import BLENDING, COLORMAP, PERCENTILES
from napari_wsi_heatmap._napari.cursor_text import say_under_cursor
from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.placement import FOLLOWED, place, placed_over
from napari_wsi_heatmap._napari.qt_window import guard_removals
from napari_wsi_heatmap.embedding.cells import cells_of
from napari_wsi_heatmap.embedding.colours import as_rgba
from napari_wsi_heatmap.errors import HeatmapError

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_wsi_heatmap.embedding.cells import WindowCells
    from napari_wsi_heatmap.embedding.clusters import Clusters
    from napari_wsi_heatmap.embedding.pca import Pca
    from napari_wsi_heatmap.heatmap import Heatmap

    Make = Callable[[], Layer]

FEATURES_OF = "features_of"
"""Key of a layer's metadata: the heatmap whose features it shows."""
OPACITY = 0.7
NAMED = 3
"""Features that the check for artefacts names."""
FOLLOWS = 0.5
"""Correlation with x or y from which a feature is said to follow it."""


class Computed(NamedTuple):
    """What a thread has computed."""

    make: Make | None
    """Makes the layer; None if there is none."""
    says: str
    """What is told of it."""


class OnMap(NamedTuple):
    """Where pixels lie on the cells of a heatmap's layer; see `placed_over`."""

    offset: Any
    scale: Any


def heatmap_meant(viewer: ViewerModel) -> Layer | None:
    """Layer of a heatmap with features: selected, itself or a picture of it; else the topmost."""
    there = [layer for layer in viewer.layers if _has_features(layer)]
    of = [layer.metadata.get(FEATURES_OF) for layer in viewer.layers.selection]
    meant = [
        layer
        for layer in there
        if layer in viewer.layers.selection or any(layer.metadata["heatmap"] is h for h in of)
    ]
    return next(reversed(meant or there), None)


def _has_features(layer: Layer) -> bool:
    heatmap: Heatmap | None = layer.metadata.get("heatmap")
    try:
        return heatmap is not None and heatmap.features is not None
    except HeatmapError:
        return False  # a store that cannot be read is told of elsewhere


def show_pca(of: Layer) -> Computed:
    """The first three principal components as red, green and blue."""
    heatmap: Heatmap = of.metadata["heatmap"]
    found = heatmap.pca(min(3, heatmap.features.shape[-1]))
    cells = cells_of(heatmap)
    pixels, title = cells.paint(as_rgba(found.scores), 0), f"{title_of(of)}: PCA"
    return Computed(
        lambda: Image(pixels, rgb=True, **common(of, cells, title)), explained_text(found)
    )


def explained_text(found: Pca) -> str:
    """How much of the variance the components hold, in words."""
    shares = " + ".join(f"{100 * share:.0f}" for share in found.explained)
    return f"red + green + blue hold {shares} % of the variance of {found.windows:,} windows"


def show_clusters(of: Layer, k: int, seed: int = 0) -> Computed:
    """Groups of windows that look alike, as labels."""
    heatmap: Heatmap = of.metadata["heatmap"]
    found, cells = heatmap.clusters(k, seed), cells_of(heatmap)
    pixels = cells.paint(found.labels, 0).astype(np.uint8 if k < 256 else np.uint16)
    title = f"{title_of(of)}: {len(found.counts)} clusters"

    def make() -> Labels:
        layer = Labels(pixels, **common(of, cells, title))
        say_under_cursor(layer, lambda row, col: cluster_text(found, int(pixels[row, col])))
        return layer

    return Computed(make, f"{len(found.counts)} clusters; the first is the largest")


def cluster_text(found: Clusters, label: int) -> str:
    """Say how large a cluster is; empty for none, or what somebody has painted."""
    if not 0 < label <= len(found.counts):
        return ""
    count, windows = int(found.counts[label - 1]), int(found.counts.sum())
    return f"cluster {label}: {count:,} windows, {100 * count / windows:.0f} %"


def show_latent(of: Layer, number: int) -> Computed:
    """One feature."""
    heatmap: Heatmap = of.metadata["heatmap"]
    values, cells = heatmap.latents(number)[0], cells_of(heatmap)
    title, limits = f"{title_of(of)}: latent {number}", limits_of(values)
    pixels = cells.paint(values)
    return Computed(lambda: values_layer(of, cells, title, pixels, limits), "")


def values_layer(
    of: Layer, cells: WindowCells, title: str, pixels: Any, limits: tuple[float, float]
) -> Image:
    """Make a map of values (My, Mx) of windows, with a colour bar."""
    layer = Image(
        pixels,
        rgb=False,
        multiscale=False,
        cache=False,
        colormap=COLORMAP,
        interpolation2d="nearest",
        contrast_limits=limits,
        **common(of, cells, title),
    )
    layer.colorbar.visible = layer.colorbar.box = True
    return layer


def limits_of(values: Any) -> tuple[float, float]:
    """What the colours span."""
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, PERCENTILES).tolist() if finite.size else (0.0, 1.0)
    return (low, high) if low < high else (low, low + 1.0)


def say_artefacts(of: Layer) -> Computed:
    """Which features follow the place on the slide; no layer, a line of text."""
    strongest = of.metadata["heatmap"].correlation().strongest(NAMED)
    found = ", ".join(f"latent {f.latent} with {f.axis} (r = {f.r:.2f})" for f in strongest)
    follows = abs(strongest[0].r) >= FOLLOWS
    return Computed(None, f"{'follow' if follows else 'nothing follows'} x or y: {found}")


def title_of(of: Layer) -> str:
    """What the layers of a heatmap's features are named after."""
    return str(of.metadata["heatmap"].run["model"]["name"])


def common(of: Layer, cells: WindowCells, title: str) -> dict[str, Any]:
    """What all layers have that show windows of a heatmap."""
    return {
        "name": title,
        "opacity": OPACITY,
        "blending": BLENDING,
        "axis_labels": of.axis_labels,
        # "job" as every layer of a run has: nobody takes it for a slide.
        "metadata": {FEATURES_OF: of.metadata["heatmap"], "cells": cells, "job": None},
        **placed_over(of, on_map(of, cells)),
    }


def on_map(of: Layer, cells: WindowCells) -> OnMap:
    """Where cells lie on those of a heatmap's layer."""
    frame = of.metadata["heatmap"].frame
    offset = (np.asarray(cells.offset) - frame.offset) / frame.scale
    return OnMap(offset, np.asarray(cells.scale) / frame.scale)


def put(viewer: ViewerModel, of: Layer, layer: Layer) -> None:
    """Show a layer instead of the heatmap and its other pictures, and let it follow that.

    An earlier one of the same name goes.
    """
    for other in list(viewer.layers):
        if other.metadata.get(FEATURES_OF) is of.metadata["heatmap"]:
            if other.name == layer.name:
                viewer.layers.remove(other)
            elif "cells" in other.metadata:
                other.visible = False
    of.visible = False
    follow(layer, of, on_map(of, layer.metadata["cells"]))
    guard_removals(viewer)
    viewer.add_layer(layer)
    viewer.layers.selection = {layer}


def follow(layer: Layer, of: Layer, where: OnMap) -> None:
    """Move a layer with its heatmap's from now on."""
    known = ref(layer)

    @guarded
    def move(event: Any = None) -> None:
        there = known()
        if there is not None:
            place(there, of, where)

    for name in FOLLOWED:
        getattr(of.events, name).connect(move)
