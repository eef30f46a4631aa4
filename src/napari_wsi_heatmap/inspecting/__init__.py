"""What a model saw and said: the patch of a window, its rank in the map, galleries of windows.

Nothing is computed again: values and places come from the map, pixels from the slide, which is
read only where a patch is asked for.

>>> from napari_wsi_heatmap.inspecting.point import inspect_point
>>> from napari_wsi_heatmap.inspecting.gallery import gallery
>>> from napari_wsi_heatmap.inspecting.patches import patches
>>> found = inspect_point(heatmap, slide, 5000, 12000)     # level-0 pixels
>>> top = gallery(heatmap, 16)
>>> patches(heatmap, slide, top.index)                     # (16, H, W, 3) uint8
"""

from __future__ import annotations

WHICH = ("top", "bottom", "random")
"""Windows that a gallery may show."""
