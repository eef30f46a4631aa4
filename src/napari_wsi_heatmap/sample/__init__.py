"""A sample slide that is made on the user's machine: synthetic H&E, no download, no licence."""

from napari_wsi_heatmap.sample.cache import RECIPE_VERSION, sample_slide_path
from napari_wsi_heatmap.sample.write import SIZE, SampleCancelledError, make_sample_slide

__all__ = [
    "RECIPE_VERSION",
    "SIZE",
    "SampleCancelledError",
    "make_sample_slide",
    "sample_slide_path",
]
