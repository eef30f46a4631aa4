"""What a heatmap can be asked about its windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from pathlib import Path

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.inspecting.gallery import Gallery
    from napari_wsi_heatmap.inspecting.point import Inspection
    from napari_wsi_heatmap.slides.base import Rgb, Slide


class Inspected:
    """Methods of every `Heatmap`."""

    def patch(self, index: int, slide: Slide | str | Path | None = None) -> Rgb:
        """Patch (H, W, 3) uint8 of a window, as the model got it; read from the slide.

        Parameters
        ----------
        index : int
            Flat index of the window.
        slide : Slide or path, optional
            By default where it lay when the run began; see `inspecting.patches.patches`.
        """
        from napari_wsi_heatmap.inspecting.patches import patches

        return cast("Rgb", patches(cast("Heatmap", self), slide, [index])[0])

    def inspect(self, y: float, x: float, slide: Slide | str | Path | None = None) -> Inspection:
        """Window, values and ranks at a point, level-0 pixels; with a slide its patch, too.

        See `inspecting.point.inspect_point`.
        """
        from napari_wsi_heatmap.inspecting.point import inspect_point

        return inspect_point(cast("Heatmap", self), slide, y, x)

    def gallery(self, n: int = 16, which: str = "top", seed: int = 0, **options: Any) -> Gallery:
        """Highest ("top"), lowest ("bottom") or "random" windows of the map.

        See `inspecting.gallery.gallery`; `inspecting.sheet.save_gallery` draws them.
        """
        from napari_wsi_heatmap.inspecting.gallery import gallery

        return gallery(cast("Heatmap", self), n, which, seed, **options)
