"""Pixels, transparency, calibration and pictures of slides read through OpenSlide."""

from __future__ import annotations

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from made_slides import decoded, noise, tissue, write_aperio, write_tiff
from napari_wsi_heatmap.errors import SlideReadError
from napari_wsi_heatmap.slides import metadata, open_slide
from napari_wsi_heatmap.slides.base import Level
from napari_wsi_heatmap.slides.openslide import composite

CMU_SHA256 = "0f88f63efc00700c336792997f8c49b0029795cf461d311343296682fac152bf"


class TestComposite:
    background = (240, 128, 7)

    def picture(self, rgb, alpha):
        return Image.fromarray(np.dstack([rgb, alpha]).astype(np.uint8), "RGBA")

    def test_opaque(self):
        rgb = noise(20, 30)
        out, scanned = composite(self.picture(rgb, np.full((20, 30), 255)), self.background)
        np.testing.assert_array_equal(out, rgb)
        assert scanned is None
        assert out.flags.writeable
        assert out.flags.c_contiguous

    def test_transparent_is_background_whatever_lies_beneath(self):
        out, scanned = composite(self.picture(noise(5, 5), np.zeros((5, 5))), self.background)
        assert (out == self.background).all()
        assert not scanned.any()

    def test_every_alpha_by_the_formula(self):
        rgb, alpha = noise(256, 256), np.repeat(np.arange(256), 256).reshape(256, 256)
        out, scanned = composite(self.picture(rgb, alpha), self.background)
        share = alpha[..., None] / 255
        want = rgb * share + np.array(self.background) * (1 - share)
        assert np.abs(out - want).max() <= 0.5 + 1e-9
        np.testing.assert_array_equal(scanned, alpha > 0)


@pytest.fixture
def rgba_slide(tmp_path):
    """A slide whose fourth sample is transparency, from none to full, left to right."""
    rgb = tissue(256, 512)
    alpha = np.repeat((np.arange(512) // 2)[None], 256, 0)
    pixels = np.dstack([rgb, alpha]).astype(np.uint8)
    path = tmp_path / "rgba.tif"
    tifffile.imwrite(
        path,
        pixels,
        tile=(256, 256),
        photometric="rgb",
        extrasamples=["unassalpha"],
        compression="lzw",
        metadata=None,
    )
    return path, pixels


def test_partial_transparency_is_composited_on_white(rgba_slide):
    path, pixels = rgba_slide
    with open_slide(path) as slide:
        rgb, scanned = slide.read_scanned(0, 0, 0, 256, 512)
        assert not any("transparency" in text for text in slide.warnings)
    share = pixels[..., 3:] / 255
    want = pixels[..., :3] * share + 255 * (1 - share)
    assert np.abs(rgb - want).max() <= 2  # OpenSlide hands over premultiplied 8-bit values
    np.testing.assert_array_equal(scanned, pixels[..., 3] > 0)


def test_a_fourth_sample_that_is_no_alpha_is_warned_of(tmp_path):
    path = tmp_path / "four.tif"
    tifffile.imwrite(
        path,
        np.full((64, 64, 4), 200, np.uint8),
        tile=(64, 64),
        photometric="rgb",
        extrasamples=["unspecified"],
        metadata=None,
    )
    with open_slide(path) as slide:
        assert any("fourth sample is taken for transparency" in w for w in slide.warnings)


def test_the_default_slide_decodes_to_its_known_pixels(data_dir):
    import hashlib

    with open_slide(data_dir / "slides" / "aperio" / "CMU-1-Small-Region.svs") as slide:
        whole = slide.read_region(0, 0, 0, *slide.levels[0].shape)
        assert hashlib.sha256(whole.tobytes()).hexdigest() == CMU_SHA256
        assert slide.mpp == (0.499, 0.499)
        assert slide.objective_power == 20
        assert slide.levels[0].tile == (240, 240)
        assert slide.warnings == ()
        assert sorted(slide.associated_images) == ["label", "macro", "thumbnail"]


def test_lossless_containers_hold_the_source_pixels(data_dir):
    vendors = data_dir / "vendors"
    with np.load(vendors / "truth_crop.npz") as truth:
        pixels = truth["rgb"]
    for name in ("deflate_bigtiff", "lzw", "zstd", "planar_separate", "rgb16"):
        with open_slide(vendors / f"generic_{name}.tif") as slide:
            np.testing.assert_array_equal(slide.read_region(0, 0, 0, 900, 800), pixels)


def test_leica_is_white_where_nothing_was_scanned(data_dir):
    with open_slide(data_dir / "vendors" / "leica.scn") as slide:
        assert slide.bounds == (150, 100, 3250, 2600)
        assert slide.levels[1].downsample == (4.0, 4.0)
        rgb, scanned = slide.read_scanned(0, 0, 0, 2048, 2048)
        assert scanned.mean() == pytest.approx(0.46, abs=0.01)
        assert (rgb[~scanned] == 255).all()
        assert not scanned[:150].any()
        assert scanned[160:1700, 110:1290].all()


def test_mirax_reads_where_its_data_are(data_dir):
    with open_slide(data_dir / "slides" / "mrxs" / "Mirax2-Fluorescence-2.mrxs") as slide:
        assert slide.background == (128, 128, 128)
        assert slide.bounds == (102664, 9153, 7641, 10439)
        assert slide.warnings == ("of its data files Data0005.dat, Data0006.dat are missing",)
        y, x = 102664 + 3000, 9153 + 3000
        with pytest.raises(SlideReadError, match=r"Data000[56]\.dat: No such file"):
            slide.read_region(0, y, x, 64, 64)
        assert slide.read_region(2, y // 4, x // 4, 64, 64).shape == (64, 64, 3)
        assert (slide.read_region(0, 0, 0, 64, 64) == 128).all()


def test_ome_xml_states_the_pixel_size_that_openslide_leaves_out(data_dir):
    path = data_dir / "vendors" / "ome_pyramid_subifd.ome.tif"
    with open_slide(path, backend="openslide") as slide:
        assert slide.mpp == (0.499, 0.499)
        assert slide.warnings == (
            "its coarser levels (SubIFDs of an OME-TIFF) are not read: one level only",
        )
    with open_slide(path) as slide:  # read directly it has them
        assert slide.mpp == (0.499, 0.499)
        assert len(slide.levels) == 4
        assert slide.warnings == ()


class TestAssociatedImages:
    def test_are_read_when_asked_for(self, data_dir):
        path = data_dir / "slides" / "aperio" / "CMU-1-Small-Region.svs"
        with open_slide(path) as slide, openslide.OpenSlide(path) as osr:
            images = slide.associated_images
            assert len(images) == 3
            for name, image in images.items():
                assert image.dtype == np.uint8
                np.testing.assert_array_equal(
                    image, np.asarray(osr.associated_images[name].convert("RGB"))
                )
            with pytest.raises(KeyError):
                images["barcode"]
            assert images.get("barcode") is None

    def test_a_damaged_one_harms_nothing_else(self, tmp_path):
        path = tmp_path / "a.svs"
        write_aperio(path, [tissue(300, 400)])
        with tifffile.TiffWriter(path, append=True) as tiff:
            tiff.write(
                tissue(128, 96),
                photometric="ycbcr",
                compression="jpeg",
                rowsperstrip=128,
                subfiletype=1,
                description="Aperio Image Library v11.2.1\r\n400x300 -> 96x128",
                metadata=None,
            )
        with tifffile.TiffFile(path) as tiff:
            at = tiff.pages[1].dataoffsets[0]
        with path.open("r+b") as file:
            file.seek(at)
            file.write(b"\0" * 40)
        with open_slide(path) as slide:
            assert list(slide.associated_images) == ["thumbnail"]
            for _ in range(2):
                with pytest.raises(SlideReadError, match=r"a\.svs, its image 'thumbnail'"):
                    slide.associated_images["thumbnail"]
            got = slide.read_region(0, 0, 0, 300, 400)
            np.testing.assert_array_equal(got, decoded(path, 0))


class TestCalibration:
    @pytest.mark.parametrize(
        ("y", "x", "mpp"),
        [("0.25", "0.5", (0.25, 0.5)), ("0,499", "0,499", (0.499, 0.499)), ("20", "20", (20, 20))],
    )
    def test_believed(self, y, x, mpp):
        stated = {"openslide.mpp-y": y, "openslide.mpp-x": x}
        assert metadata.calibration(stated, "") == (mpp, "the file's properties", None)

    @pytest.mark.parametrize("value", ["0", "-0.499", "nan", "inf", "1e300", "352.78", "abc", ""])
    def test_not_believed(self, value):
        stated = {"openslide.mpp-y": "0.5", "openslide.mpp-x": value}
        mpp, _, warning = metadata.calibration(stated, "")
        assert mpp is None
        assert warning.startswith("the file states")

    def test_half_of_it_is_none(self):
        assert metadata.calibration({"openslide.mpp-x": "0.5"}, "")[0] is None

    @pytest.mark.parametrize(
        ("text", "mpp"),
        [
            ('PhysicalSizeX="0.3" PhysicalSizeY="0.25"', (0.25, 0.3)),
            (
                'PhysicalSizeX="0.3" PhysicalSizeXUnit="µm" PhysicalSizeY="0.25"'
                ' PhysicalSizeYUnit="µm"',
                (0.25, 0.3),
            ),
            ('PhysicalSizeX="0.3" PhysicalSizeXUnit="mm" PhysicalSizeY="0.25"', None),
            ('PhysicalSizeX="0.3"', None),
            ('PhysicalSizeX="0" PhysicalSizeY="0"', None),
        ],
    )
    def test_ome_xml(self, text, mpp):
        found, _, warning = metadata.calibration({}, f"<OME><Pixels {text}/></OME>")
        assert found == mpp
        assert (warning is None) == (mpp is not None)

    @pytest.mark.parametrize(
        ("text", "mpp"), [("0.5", (0.5, 0.5)), ("0.0000", None), ("-0.499", None), ("1e300", None)]
    )
    def test_of_a_slide(self, tmp_path, text, mpp):
        with open_slide(write_aperio(tmp_path / "a.svs", [tissue(64, 64)], mpp=text)) as slide:
            assert slide.mpp == mpp
            assert bool(slide.warnings) == (mpp is None)
            assert "mpp" in repr(slide) or "uncalibrated" in repr(slide) or mpp


class TestProperties:
    @pytest.mark.parametrize(
        ("text", "rgb"),
        [("808080", (128,) * 3), ("FF8000", (255, 128, 0)), ("zzz", (255,) * 3), ("", (255,) * 3)],
    )
    def test_background(self, text, rgb):
        assert metadata.background({"openslide.background-color": text}) == rgb

    @pytest.mark.parametrize(
        ("values", "bounds"),
        [
            ((10, 20, 30, 40), (10, 20, 30, 40)),
            ((-5, 0, 1000, 1000), (0, 0, 100, 200)),
            ((90, 190, 50, 50), (90, 190, 10, 10)),
            ((500, 0, 5, 5), (0, 0, 100, 200)),
            (("a", 0, 5, 5), (0, 0, 100, 200)),
        ],
    )
    def test_bounds_stay_on_the_slide(self, values, bounds):
        names = ("y", "x", "height", "width")
        stated = {f"openslide.bounds-{n}": str(v) for n, v in zip(names, values, strict=True)}
        assert metadata.bounds(stated, (100, 200)) == bounds
        assert metadata.bounds({}, (100, 200)) == (0, 0, 100, 200)

    @pytest.mark.parametrize(
        ("text", "power"), [("20", 20), ("40,0", 40), ("0", None), ("nan", None), ("x", None)]
    )
    def test_power(self, text, power):
        assert metadata.objective_power({"openslide.objective-power": text}) == power
        assert metadata.objective_power({}) is None

    def test_squeezed_levels(self):
        levels = [Level((100, 100), (1, 1)), Level((50, 50), (2, 2)), Level((50, 33), (2, 3.03))]
        (only,) = metadata.level_warnings(levels)
        assert only == "level 2 is 2 times smaller in y and 3.03 in x"


def test_a_region_beyond_memory_is_an_error_that_says_so(tmp_path, monkeypatch):
    path = write_tiff(tmp_path / "a.tif", [noise(300, 300)])

    def out_of_memory(self, location, level, size):
        raise MemoryError

    with open_slide(path, backend="openslide") as slide:
        with monkeypatch.context() as patch:
            patch.setattr(openslide.OpenSlide, "read_region", out_of_memory)
            with pytest.raises(SlideReadError, match=r"not enough memory - .* - read less"):
                slide.read_region(0, 0, 0, 300, 300)
        assert slide.read_region(0, 0, 0, 300, 300).shape == (300, 300, 3)


def test_palette_and_grey(tmp_path):
    grey = noise(64, 64)[..., 0]
    path = tmp_path / "grey.tif"
    tifffile.imwrite(path, grey, tile=(64, 64), photometric="minisblack", metadata=None)
    with open_slide(path) as slide:
        got = slide.read_region(0, 0, 0, 64, 64)
    np.testing.assert_array_equal(got, np.repeat(grey[..., None], 3, 2))
