"""JPEG: the picture of the PNG, and what it says about itself."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from exports.contract import ExportContract
from napari_wsi_heatmap.composite import compose


class TestJpgExport(ExportContract):
    name = "jpg"

    def check(self, path, heatmap, slide):
        drawn = compose(heatmap, slide)
        with Image.open(path) as image:
            assert image.format == "JPEG"
            about, page = json.loads(image.info["comment"]), np.array(image)
        assert about["scale_level0"] == list(drawn.canvas.scale)
        assert about["limits"] == list(drawn.limits)
        apart = np.abs(page.astype(int) - np.array(drawn.image)).mean()
        assert apart < 4
