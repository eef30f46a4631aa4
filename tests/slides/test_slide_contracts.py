"""Every backend, and every real slide at hand, against the contract of a slide."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from contracts import SlideContract
from made_slides import decoded, noise, strided, tissue, write_aperio, write_tiff
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.slides.array import ArraySlide

MOST_PIXELS = 16 << 20
SURFACE = 4096

REAL = {
    "mil/heatmap_slide.tiff": ("tiff", "generic-tiff"),
    "pydmed/slide_0.tif": ("tiff", "generic-tiff"),
    "pydmed/slide_3.tif": ("tiff", "generic-tiff"),
    "slides/aperio/CMU-1-Small-Region.svs": ("tiff", "aperio"),
    "slides/aperio/TCGA-CR-7395-01A-01-TS1.svs": ("tiff", "aperio"),
    "slides/mrxs/Mirax2-Fluorescence-2.mrxs": ("openslide", "mirax"),
    "slides/ndpi/test3-DAPI-2-(387).ndpi": ("openslide", "hamamatsu"),
    "slides/ndpi/test3-TRITC 2 (560).ndpi": ("openslide", "hamamatsu"),
    "slides/openslide-python/boxes.tiff": ("tiff", "generic-tiff"),
    "slides/openslide-python/boxes_0.dcm": ("openslide", "dicom"),
    "slides/openslide-python/small.svs": ("tiff", "aperio"),
    "slides/tiff/large_image-yb10kx5k.zstd.tiff": ("tiff", "generic-tiff"),
    "slides/dicom/CMU-1-Small-Region": ("openslide", "dicom"),
    "vendors/aperio_jp2k_33003_ycbcr.svs": ("tiff", "aperio"),
    "vendors/aperio_jp2k_33005_rgb.svs": ("tiff", "aperio"),
    "vendors/aperio_jpeg_icc.svs": ("tiff", "aperio"),
    "vendors/dicom_3levels": ("openslide", "dicom"),
    "vendors/generic_deflate_bigtiff.tif": ("tiff", "generic-tiff"),
    "vendors/generic_lzw.tif": ("tiff", "generic-tiff"),
    "vendors/generic_planar_separate.tif": ("tiff", "generic-tiff"),
    "vendors/generic_rgb16.tif": ("openslide", "generic-tiff"),
    "vendors/generic_zstd.tif": ("tiff", "generic-tiff"),
    "vendors/leica.scn": ("openslide", "leica"),
    "vendors/ome_pyramid_subifd.ome.tif": ("tiff", "ome-tiff"),
    "vendors/philips.tiff": ("tiff", "philips"),
    "vendors/trestle.tif": ("tiff", "trestle"),
    "vendors/ventana.bif": ("openslide", "ventana"),
    "vendors/vms/slide.vms": ("openslide", "hamamatsu"),
}
"""Which backend reads a slide, and what it calls its format."""
BOTH = ("tiff", "openslide")
ALSO_BY_OPENSLIDE = (
    "slides/aperio/TCGA-CR-7395-01A-01-TS1.svs",
    "slides/openslide-python/boxes.tiff",
    "slides/openslide-python/small.svs",
    "slides/tiff/large_image-yb10kx5k.zstd.tiff",
    "vendors/aperio_jp2k_33003_ycbcr.svs",
    "vendors/aperio_jpeg_icc.svs",
    "vendors/generic_planar_separate.tif",
    "vendors/ome_pyramid_subifd.ome.tif",
    "vendors/philips.tiff",
    "vendors/trestle.tif",
)
"""One of each kind that is read directly, and so by OpenSlide only if it is asked for."""


@pytest.fixture(scope="module")
def generic_path(tmp_path_factory):
    return write_tiff(tmp_path_factory.mktemp("generic") / "odd.tif", TestGenericTiff.levels)


@pytest.fixture(scope="module")
def near_two_path(tmp_path_factory):
    return write_tiff(tmp_path_factory.mktemp("two") / "two.tif", TestDownsampleNearTwo.levels)


@pytest.fixture(scope="module")
def aperio_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("aperio") / "made.svs"
    return write_aperio(path, strided(tissue(1100, 1301), 4, 16))


class TestArraySlide(SlideContract):
    levels = strided(noise(300, 421), 4)

    @pytest.fixture
    def opened(self):
        return ArraySlide([level.copy() for level in self.levels], mpp=0.25)

    def truth(self, slide, level):
        return self.levels[level]


class TestArraySlideFromCallable(SlideContract):
    shapes = ((500, 700), (125, 175))

    @staticmethod
    def pixels(level, y, x, height, width):
        rows, columns = np.mgrid[y : y + height, x : x + width]
        return np.stack([rows % 251, columns % 241, rows * 0 + level], -1).astype(np.uint8)

    @pytest.fixture
    def opened(self):
        return ArraySlide.from_callable(self.pixels, self.shapes, mpp=0.25)

    def truth(self, slide, level):
        return self.pixels(level, 0, 0, *self.shapes[level])


class TestGenericTiff(SlideContract):
    """Downsamples 4 and 15.915; noise, so that any interpolation shows."""

    levels = strided(noise(1500, 1000), 4, 16)

    @pytest.fixture(params=BOTH)
    def opened(self, generic_path, request):
        return open_slide(generic_path, backend=request.param)

    def truth(self, slide, level):
        return self.levels[level]

    def test_openslide_itself_would_interpolate(self, generic_path):
        with openslide.OpenSlide(generic_path) as osr:
            assert osr.level_downsamples[2] == pytest.approx(15.915, abs=1e-3)
            got = np.asarray(osr.read_region((round(5 * 15.915),) * 2, 2, (40, 40)))[..., :3]
        assert (got != self.levels[2][5:45, 5:45]).any()

    def test_mpp(self, slide):
        assert slide.mpp == pytest.approx((0.25, 0.25))


class TestDownsampleNearTwo(SlideContract):
    """Downsample 2.0005: origins that draw stored pixels are about 1000 px apart."""

    levels = (noise(3001, 64), noise(1500, 32, seed=1))

    @pytest.fixture(params=BOTH)
    def opened(self, near_two_path, request):
        return open_slide(near_two_path, backend=request.param)

    def truth(self, slide, level):
        return self.levels[level]


class TestAperioJpeg(SlideContract):
    """Truth: what imagecodecs, not OpenSlide, decodes."""

    @pytest.fixture(params=BOTH)
    def opened(self, aperio_path, request):
        return open_slide(aperio_path, backend=request.param)

    def truth(self, slide, level):
        return decoded(Path(slide.path), level)

    def test_mpp_and_power(self, slide):
        assert slide.mpp == (0.5, 0.5)
        assert slide.objective_power == 20
        assert slide.warnings == ()


class RealSlides(SlideContract):
    """Truth: the whole level as OpenSlide draws it from (0, 0), where one surface holds it."""

    backend = None

    @pytest.fixture
    def opened(self, data_dir, name):
        self.damaged = "Mirax2" in name  # data files of its two finest levels are missing
        return open_slide(real_path(data_dir, name), backend=self.backend)

    def truth(self, slide, level):
        height, width = slide.levels[level].shape
        if height * width > MOST_PIXELS or (self.damaged and level < 2):
            return None
        if slide.format == "ome-tiff" and level > 0:  # OpenSlide sees level 0 only
            return ome_level(slide.path, level)
        return whole_level(slide.path, level, slide.background)


@pytest.mark.parametrize("name", REAL)
class TestRealSlides(RealSlides):
    def test_is_read_by_the_backend_that_should(self, slide, name):
        """A silent change to the slower one is seen here."""
        assert (slide.backend, slide.format) == REAL[name]
        assert (slide.why == "") == (slide.backend == "tiff")


@pytest.mark.parametrize("name", ALSO_BY_OPENSLIDE)
class TestRealSlidesThroughOpenSlide(RealSlides):
    backend = "openslide"

    def test_is_read_by_the_backend_that_should(self, slide, name):
        known = "generic-tiff" if REAL[name][1] == "ome-tiff" else REAL[name][1]
        assert (slide.backend, slide.format, slide.why) == ("openslide", known, "")


def real_path(data_dir, name):
    path = data_dir / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return sorted(path.glob("*.dcm"))[0] if path.is_dir() else path


@cache
def ome_level(path, level):
    with tifffile.TiffFile(path) as file:
        return file.series[0].levels[level].asarray()


@cache
def whole_level(path, level, background):
    with openslide.OpenSlide(path) as osr:
        width, height = osr.level_dimensions[level]
        if osr.level_downsamples[level] % 1 and max(width, height) > SURFACE:
            return None
        rgba = np.asarray(osr.read_region((0, 0), level, (width, height))).astype(np.uint32)
    alpha = rgba[..., 3:]
    mixed = rgba[..., :3] * alpha + np.array(background, np.uint32) * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)
