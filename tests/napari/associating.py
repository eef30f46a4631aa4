"""Slides with associated images, and a count of who reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from napari_wsi_heatmap.errors import SlideReadError
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.slides.base import Slide


class CountingImages(Mapping):
    """Associated images, and how often each was read."""

    def __init__(self, images, reads):
        self.images, self.reads = images, reads

    def __getitem__(self, name):
        image = self.images[name]
        self.reads[name] += 1
        if isinstance(image, Exception):
            raise image
        return image

    def __iter__(self):
        return iter(self.images)

    def __len__(self):
        return len(self.images)


class Labelled(Slide):
    """An array slide with a profile and associated images of its own."""

    backend = "labelled"

    def __init__(self, slide=None, images=(), profile=None, bounds=None):
        self._slide = slide or ArraySlide([np.full((400, 600, 3), 90, np.uint8)], mpp=0.5, name="a")
        for name in ("path", "name", "levels", "mpp", "bounds", "background", "properties"):
            setattr(self, name, getattr(self._slide, name))
        self.bounds = bounds or self.bounds
        self._images, self._profile, self.reads = dict(images), profile, Counter()

    def _read(self, *box):
        return self._slide._read(*box)

    @property
    def fingerprint(self):
        return self._slide.fingerprint

    @property
    def icc_profile(self):
        if isinstance(self._profile, SlideReadError):
            raise self._profile
        return self._profile

    @property
    def associated_images(self):
        return CountingImages(self._images, self.reads)

    def close(self):
        self._slide.close()
