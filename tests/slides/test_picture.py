"""Plain pictures as slides: every mode, no pixel made up, nothing that hangs or bloats."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, PngImagePlugin

from contracts import SlideContract
from made_slides import noise, tissue, write_tiff
from napari_wsi_heatmap.errors import SlideChangedError, SlideOpenError, SlideReadError
from napari_wsi_heatmap.slides import open_slide, picturefile, pictureheader
from napari_wsi_heatmap.slides.picture import PictureSlide

UNCALIBRATED = "the file states no pixel size (µm per pixel): treated as uncalibrated"
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


class TestPng(SlideContract):
    pixels = noise(301, 407)

    @pytest.fixture
    def opened(self, tmp_path):
        return open_slide(saved(tmp_path / "a.png", self.pixels))

    def truth(self, slide, level):
        return self.pixels


class TestPngWithTransparency(SlideContract):
    rgba = np.dstack([noise(301, 407), noise(301, 407, seed=1)[..., 0] // 128 * 255])

    @pytest.fixture
    def opened(self, tmp_path):
        return open_slide(saved(tmp_path / "a.png", self.rgba))

    def truth(self, slide, level):
        return np.where(self.rgba[..., 3:] == 0, 255, self.rgba[..., :3]).astype(np.uint8)

    def test_transparent_is_not_scanned(self, slide):
        scanned = slide.read_scanned(0, 0, 0, 301, 407)[1]
        np.testing.assert_array_equal(scanned, self.rgba[..., 3] > 0)


class TestJpeg(SlideContract):
    """Truth: what Pillow, not simplejpeg, decodes."""

    @pytest.fixture
    def opened(self, tmp_path):
        return open_slide(saved(tmp_path / "a.JPG", tissue(301, 407), quality=80))

    def truth(self, slide, level):
        with Image.open(slide.path) as image:
            return np.asarray(image.convert("RGB"))


def saved(path, pixels, **how):
    """Write an array or an image as a picture, by the ending of its name."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **how)
    return path


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(height, width, *, bits=8, colour=2, extra=b"", raw=b""):
    """Bytes of a PNG with the given header, whatever its pixels are."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", header), extra, chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b""))
    return PNG_MAGIC + b"".join(parts)


def interlaced(data):
    """Change the header of a PNG to say that its lines come in seven passes."""
    header = data[12:28] + b"\1"
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def rows(pixels):
    """Lines of a PNG without filter from (H, bytes of a line)."""
    return b"".join(b"\0" + bytes(line) for line in pixels)


def jpeg(pixels, **how):
    file = BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", **how)
    return file.getvalue()


def written(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def only(path):
    """All pixels, and which were scanned."""
    with PictureSlide(str(path)) as slide:
        return slide.read_scanned(0, 0, 0, *slide.levels[0].shape)


def only_or_refused(path):
    """All pixels, or None where it is refused in one line."""
    try:
        return only(path)[0]
    except SlideOpenError as error:
        if "\n" in str(error):
            raise
        return None


class TestModes:
    @pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
    def test_png_shows_what_pillow_converts(self, tmp_path, mode):
        image = Image.fromarray(tissue(40, 50)).convert(mode)
        rgb, scanned = only(saved(tmp_path / "a.png", image))
        np.testing.assert_array_equal(rgb, np.asarray(image.convert("RGB")))
        assert scanned.all()

    def test_alpha_lies_on_white(self, tmp_path):
        rgba = np.zeros((1, 3, 4), np.uint8)
        rgba[..., 0], rgba[0, :, 3] = 100, (0, 51, 255)
        rgb, scanned = only(saved(tmp_path / "a.png", rgba))
        assert rgb.tolist() == [[[255, 255, 255], [224, 204, 204], [100, 0, 0]]]
        assert scanned.tolist() == [[False, True, True]]

    def test_grey_with_alpha(self, tmp_path):
        rgb, scanned = only(saved(tmp_path / "a.png", np.array([[[9, 0], [9, 255]]], np.uint8)))
        assert rgb.tolist() == [[[255] * 3, [9] * 3]]
        assert scanned.tolist() == [[False, True]]

    @pytest.mark.parametrize("transparency", [2, bytes([255, 255, 0])])
    def test_palette_with_transparency(self, tmp_path, transparency):
        image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
        image.putpalette([1, 2, 3, 4, 5, 6, 7, 8, 9])
        rgb, scanned = only(saved(tmp_path / "a.png", image, transparency=transparency))
        assert rgb.tolist() == [[[1, 2, 3], [4, 5, 6], [255, 255, 255]]]
        assert scanned.tolist() == [[True, True, False]]

    def test_transparent_colour(self, tmp_path):
        raw = rows([[1, 2, 3, 1, 2, 4]])
        data = png(1, 2, extra=chunk(b"tRNS", bytes([0, 1, 0, 2, 0, 3])), raw=raw)
        rgb, scanned = only(written(tmp_path, "a.png", data))
        assert rgb.tolist() == [[[255, 255, 255], [1, 2, 4]]]
        assert scanned.tolist() == [[False, True]]

    @pytest.mark.parametrize(("bits", "line"), [(1, 0b01000000), (2, 0b00010000)])
    def test_transparent_grey_of_few_bits(self, tmp_path, bits, line):
        data = png(1, 2, bits=bits, colour=0, extra=chunk(b"tRNS", b"\0\1"), raw=rows([[line]]))
        _, scanned = only(written(tmp_path, "a.png", data))
        assert scanned.tolist() == [[True, False]]

    def test_16_bit_grey_gives_its_upper_8(self, tmp_path):
        values = np.array([[0, 255, 256, 0x1234, 65535]], np.uint16)
        path = saved(tmp_path / "a.png", values)
        assert only(path)[0][..., 0].tolist() == [[0, 0, 1, 0x12, 255]]
        assert (
            "16-bit pixels are reduced to 8 bit (the upper 8)" in PictureSlide(str(path)).warnings
        )

    @pytest.mark.parametrize(("colour", "samples"), [(2, 3), (6, 4)])
    def test_16_bit_colour_gives_its_upper_8(self, tmp_path, colour, samples):
        values = np.full((1, 2, samples), 0xFFFF, ">u2")
        values[..., :3] = 0x12FF, 0x34FF, 0x56FF
        raw = rows([values.tobytes()])
        path = written(tmp_path, "a.png", png(1, 2, bits=16, colour=colour, raw=raw))
        assert only(path)[0].tolist() == [[[0x12, 0x34, 0x56]] * 2]
        assert any("16-bit" in warning for warning in PictureSlide(str(path)).warnings)

    def test_16_bit_transparent_colour_is_a_warning(self, tmp_path):
        extra = chunk(b"tRNS", b"\1\2" * 3)
        path = written(tmp_path, "a.png", png(1, 1, bits=16, extra=extra, raw=b"\0" + b"\1\2" * 3))
        assert only(path)[1].all()
        assert "its transparent colour is not used" in PictureSlide(str(path)).warnings

    def test_grey_jpeg(self, tmp_path):
        grey = tissue(40, 50)[..., 0].copy()
        rgb, _ = only(saved(tmp_path / "a.jpg", grey))
        assert np.abs(rgb[..., 0].astype(int) - grey).mean() < 4
        assert (rgb[..., 0] == rgb[..., 2]).all()

    def test_cmyk_jpeg(self, tmp_path):
        path = saved(tmp_path / "a.jpg", Image.fromarray(tissue(40, 50)).convert("CMYK"))
        with Image.open(path) as image:
            np.testing.assert_array_equal(only(path)[0], np.asarray(image.convert("RGB")))
        assert "CMYK pixels are converted to RGB" in PictureSlide(str(path)).warnings

    def test_interlaced_png(self, tmp_path):
        pixels = noise(11, 13)
        offsets = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2))
        passes = (*offsets, (0, 1, 2, 2), (1, 0, 2, 1))
        raw = b"".join(
            rows(line.tobytes() for line in pixels[y::down, x::across])
            for y, x, down, across in passes
        )
        path = written(tmp_path, "a.png", interlaced(png(11, 13, raw=raw)))
        np.testing.assert_array_equal(only(path)[0], pixels)
        with pytest.raises(SlideOpenError, match="damaged"):
            PictureSlide(str(written(tmp_path, "b.png", interlaced(png(11, 13, raw=raw[:-1])))))

    def test_interlaced_png_of_one_pixel(self, tmp_path):
        data = interlaced(png(1, 1, raw=b"\0\7\10\11"))
        assert only(written(tmp_path, "a.png", data))[0].tolist() == [[[7, 8, 9]]]

    def test_strips_are_joined(self, tmp_path, monkeypatch):
        monkeypatch.setattr(picturefile, "STRIP", 500)
        rgba = np.dstack([noise(37, 100), np.tile(np.uint8([[0, 255]]), (37, 50))])
        rgb, scanned = only(saved(tmp_path / "a.png", rgba))
        np.testing.assert_array_equal(scanned, rgba[..., 3] > 0)
        np.testing.assert_array_equal(rgb[scanned], rgba[..., :3][scanned])


class TestWhatItSays:
    def test_of_a_png(self, tmp_path):
        slide = PictureSlide(str(saved(tmp_path / "a.png", noise(20, 30))))
        assert (slide.format, slide.backend) == ("png", "picture")
        assert [level.shape for level in slide.levels] == [(20, 30)]
        assert slide.bounds == (0, 0, 20, 30)
        assert slide.mpp is None
        assert slide.warnings == (UNCALIBRATED,)
        assert slide.icc_profile is None
        assert slide.properties == {"picture.mode": "RGB", "picture.bits": "8"}

    def test_resolution_of_a_microscope_is_believed(self, tmp_path):
        dpi = (25400 / 0.5, 25400 / 0.25)
        slide = PictureSlide(str(saved(tmp_path / "a.png", noise(20, 30), dpi=dpi)))
        assert slide.mpp == pytest.approx((0.25, 0.5), rel=1e-4)
        assert slide.mpp_source == "the picture's resolution"
        assert slide.warnings == ()

    def test_resolution_of_a_jpeg_in_cm(self, tmp_path):
        data = bytearray(jpeg(tissue(20, 30)))
        at = data.index(b"JFIF\0") + 7
        data[at : at + 5] = struct.pack(">BHH", 2, 20000, 40000)
        slide = PictureSlide(str(written(tmp_path, "a.jpg", data)))
        assert slide.mpp == pytest.approx((0.25, 0.5), rel=1e-3)

    @pytest.mark.parametrize("ending", ["png", "jpg"])
    @pytest.mark.parametrize("dpi", [(72, 72), (300, 300), (1, 1)])
    def test_resolution_of_a_screen_is_not(self, tmp_path, ending, dpi):
        slide = PictureSlide(str(saved(tmp_path / f"a.{ending}", tissue(20, 30), dpi=dpi)))
        assert slide.mpp is None
        assert slide.warnings == (UNCALIBRATED,)

    def test_resolution_of_nothing(self, tmp_path):
        extra = chunk(b"pHYs", struct.pack(">IIB", 0, 0, 1))
        path = written(tmp_path, "a.png", png(1, 1, extra=extra, raw=bytes(4)))
        assert PictureSlide(str(path)).mpp is None

    def test_callers_mpp_counts(self, tmp_path):
        slide = open_slide(saved(tmp_path / "a.png", noise(20, 30), dpi=(50800, 50800)), mpp=0.3)
        assert slide.mpp == (0.3, 0.3)
        assert slide.mpp_source == "stated by the caller"
        assert slide.warnings == ()

    @pytest.mark.parametrize("ending", ["png", "jpg"])
    def test_icc_profile(self, tmp_path, ending):
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        path = saved(tmp_path / f"a.{ending}", tissue(20, 30), icc_profile=profile)
        assert PictureSlide(str(path)).icc_profile == profile

    @pytest.mark.parametrize("ending", ["png", "jpg"])
    def test_orientation_is_said_and_not_applied(self, tmp_path, ending):
        exif = Image.Exif()
        exif[0x0112] = 6
        path = saved(tmp_path / f"a.{ending}", tissue(20, 30), exif=exif)
        slide = PictureSlide(str(path))
        assert slide.levels[0].shape == (20, 30)
        assert any("asks to be turned" in warning for warning in slide.warnings)

    @pytest.mark.parametrize("exif", [b"Exif\0\0MM", b"Exif\0\0II*\0\xff\xff\0\0", b"x" * 40])
    def test_damaged_exif_says_nothing(self, tmp_path, exif):
        path = saved(tmp_path / "a.jpg", tissue(20, 30), exif=exif)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert PictureSlide(str(path)).warnings == (UNCALIBRATED,)

    def test_first_of_several_pngs(self, tmp_path):
        first, second = (Image.fromarray(noise(20, 30, seed)) for seed in (0, 1))
        path = saved(tmp_path / "a.png", first, save_all=True, append_images=[second])
        np.testing.assert_array_equal(only(path)[0], np.asarray(first))
        assert "of its pictures only the first is shown" in PictureSlide(str(path)).warnings

    def test_first_of_several_jpegs(self, tmp_path):
        first, second = (Image.fromarray(tissue(20, 30, seed)) for seed in (0, 1))
        file = BytesIO()
        first.save(file, "MPO", save_all=True, append_images=[second])
        slide = PictureSlide(str(written(tmp_path, "a.jpg", file.getvalue())))
        assert "of its pictures only the first is shown" in slide.warnings
        shown = slide.read_region(0, 0, 0, 20, 30)
        assert np.abs(shown.astype(int) - np.asarray(first)).mean() < 5

    def test_copy_has_the_same_fingerprint(self, tmp_path):
        data = jpeg(tissue(20, 30))
        one, other = (written(tmp_path, name, data) for name in ("a.jpg", "b.jpeg"))
        assert PictureSlide(str(one)).fingerprint == PictureSlide(str(other)).fingerprint

    def test_pickled_it_is_read_again(self, tmp_path):
        slide = PictureSlide(str(saved(tmp_path / "a.png", noise(20, 30))), mpp=0.5)
        again = pickle.loads(pickle.dumps(slide))
        assert again.mpp == (0.5, 0.5)
        np.testing.assert_array_equal(again.read_region(0, 0, 0, 20, 30), noise(20, 30))

    def test_change_is_noticed(self, tmp_path):
        path = saved(tmp_path / "a.png", noise(20, 30))
        slide = PictureSlide(str(path))
        saved(path, noise(21, 30))
        assert slide.changed() == "a.png was changed or replaced"
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, 20, 30), noise(20, 30))

    def test_replaced_while_it_is_opened(self, tmp_path, monkeypatch):
        path = saved(tmp_path / "a.png", noise(20, 30))
        real = picturefile.read_picture

        def replaced(name):
            saved(path, noise(21, 30))
            return real(name)

        monkeypatch.setattr(picturefile, "read_picture", replaced)
        with pytest.raises(SlideChangedError):
            PictureSlide(str(path))

    def test_closing_releases_the_pixels(self, tmp_path):
        slide = PictureSlide(str(saved(tmp_path / "a.png", noise(20, 30))))
        slide.close()
        with pytest.raises(SlideReadError, match="closed"):
            slide.read_region(0, 0, 0, 1, 1)


class TestNoPicture:
    """What the file is instead, in one line."""

    def test_causes_of_every_slide(self, tmp_path):
        pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
        cases = {
            str(written(tmp_path, "empty.png", b"")): "^the file is empty",
            str(written(tmp_path, "lfs.png", pointer)): "^a Git LFS pointer.*git lfs pull",
            str(written(tmp_path, "page.jpg", b"<!DOCTYPE html>")): "^an HTML or XML page",
            str(written(tmp_path, "a.gif", b"GIF89a")): "^an ordinary GIF picture",
            str(written(tmp_path, "a.jpg", b"plain text")): "^neither a PNG nor a JPEG",
            str(write_tiff(tmp_path / "a.png", [noise(64, 64)])): "^neither a PNG nor a JPEG",
            str(tmp_path / "none.png"): "^no such file",
            str(tmp_path): "^a folder",
        }
        for path, expected in cases.items():
            with pytest.raises(SlideOpenError, match=expected):
                PictureSlide(path)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
    def test_pipe_is_not_opened(self, tmp_path):
        os.mkfifo(tmp_path / "a.png")
        for open_it in (PictureSlide, open_slide):
            with pytest.raises(SlideOpenError, match=r"^not a regular file"):
                open_it(str(tmp_path / "a.png"))

    @pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
    def test_no_permission(self, tmp_path):
        path = saved(tmp_path / "a.png", noise(4, 4))
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("root may read everything")
        with pytest.raises(SlideOpenError, match="no permission"):
            PictureSlide(str(path))

    def test_picture_named_as_a_slide_is_still_refused(self, tmp_path):
        with pytest.raises(SlideOpenError, match=r"^an ordinary PNG picture, not a slide"):
            open_slide(written(tmp_path, "a.svs", png(1, 1, raw=bytes(4))))


class TestDamage:
    """Every pixel is as it was stored, or the picture is refused."""

    @pytest.mark.parametrize("ending", ["png", "jpg"])
    @pytest.mark.parametrize("part", [0.05, 0.5, 0.9, 0.999])
    def test_cut_off(self, tmp_path, ending, part):
        path = saved(tmp_path / f"a.{ending}", tissue(200, 300))
        data = path.read_bytes()
        with pytest.raises(
            SlideOpenError, match=r"^a damaged picture: .* download or copy"
        ) as seen:
            PictureSlide(str(written(tmp_path, f"b.{ending}", data[: int(len(data) * part)])))
        assert "\n" not in str(seen.value)

    def test_cut_off_though_someone_allows_it(self, tmp_path, monkeypatch):
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        for name, data in (
            ("a.png", png(50, 50, raw=bytes(151 * 3))),
            ("b.jpg", jpeg(tissue(200, 300))[:-300]),
        ):
            with pytest.raises(SlideOpenError, match="damaged"):
                PictureSlide(str(written(tmp_path, name, data)))
        assert ImageFile.LOAD_TRUNCATED_IMAGES is True

    def test_jpeg_with_overwritten_middle(self, tmp_path):
        data = bytearray(jpeg(tissue(200, 300)))
        middle = len(data) // 2
        data[middle : middle + 200] = noise(1, 200).tobytes()[:200]
        with pytest.raises(SlideOpenError, match="damaged"):
            PictureSlide(str(written(tmp_path, "a.jpg", data)))

    def test_cmyk_jpeg_with_overwritten_middle(self, tmp_path):
        file = BytesIO()
        Image.fromarray(tissue(200, 300)).convert("CMYK").save(file, "jpeg")
        data = bytearray(file.getvalue())
        middle = len(data) // 2
        data[middle : middle + 200] = noise(1, 200).tobytes()[:200]
        with pytest.raises(SlideOpenError, match="damaged"):
            PictureSlide(str(written(tmp_path, "a.jpg", data)))

    def test_jpeg_that_claims_more_rows_than_it_has(self, tmp_path):
        data = bytearray(jpeg(tissue(200, 300)))
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 2] = struct.pack(">H", 220)
        with pytest.raises(SlideOpenError, match="damaged"):
            PictureSlide(str(written(tmp_path, "a.jpg", data)))

    def test_flipped_bits_of_a_png(self, tmp_path):
        pixels = tissue(60, 70)
        data = saved(tmp_path / "a.png", pixels).read_bytes()
        rng = np.random.default_rng(0)
        for _ in range(300):
            flipped = bytearray(data)
            flipped[rng.integers(8, len(data))] ^= 1 << int(rng.integers(8))
            path = written(tmp_path, "b.png", flipped)
            got = only_or_refused(path)
            if got is not None:
                np.testing.assert_array_equal(got, pixels)

    def test_flipped_bits_of_a_jpeg_raise_nothing_else(self, tmp_path):
        data = jpeg(tissue(60, 70))
        rng = np.random.default_rng(0)
        for _ in range(300):
            flipped = bytearray(data)
            flipped[rng.integers(3, len(data))] ^= 1 << int(rng.integers(8))
            got = only_or_refused(written(tmp_path, "b.jpg", flipped))
            assert got is None or got.ndim == 3

    @pytest.mark.parametrize("raw", [b"", bytes(100), bytes(151 * 3), bytes(151 * 50 - 1)])
    def test_png_with_too_few_pixels(self, tmp_path, raw):
        with pytest.raises(SlideOpenError, match="damaged"):
            PictureSlide(str(written(tmp_path, "a.png", png(50, 50, raw=raw))))

    def test_png_without_pixels(self, tmp_path):
        with pytest.raises(SlideOpenError, match="claims 0 x 5 pixels"):
            PictureSlide(str(written(tmp_path, "a.png", png(5, 0))))


class TestHostile:
    """Neither memory nor time beyond what the picture itself needs."""

    @pytest.mark.parametrize("side", [10001, 100_000, 2**31 - 1])
    def test_huge_png(self, tmp_path, side):
        with pytest.raises(SlideOpenError, match=r"at most 100 million.*tiffsave --tile --pyramid"):
            PictureSlide(str(written(tmp_path, "a.png", png(side, side))))

    def test_huge_jpeg(self, tmp_path):
        data = bytearray(jpeg(tissue(20, 30)))
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", 65500, 65500)
        with pytest.raises(SlideOpenError, match="65500 x 65500 pixels, at most 100 million"):
            PictureSlide(str(written(tmp_path, "a.jpg", data)))

    def test_limit_of_pillow_is_not_ours(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        for name in ("a.png", "a.jpg"):
            assert only(saved(tmp_path / name, tissue(20, 30)))[0].shape == (20, 30, 3)

    @pytest.mark.parametrize("kind", [b"iCCP", b"zTXt"])
    def test_inflated_text(self, tmp_path, kind):
        extra = chunk(kind, b"a\0\0" + zlib.compress(bytes(200 << 20)))
        path = written(tmp_path, "a.png", png(1, 1, extra=extra, raw=bytes(4)))
        before = peak()
        with pytest.raises(SlideOpenError, match=r"damaged picture: .*too large"):
            PictureSlide(str(path))
        assert peak() - before < 50 << 20

    def test_inflated_pixels_end_where_the_picture_does(self, tmp_path):
        path = written(tmp_path, "a.png", png(1, 1, raw=bytes(200 << 20)))
        before = peak()
        assert only(path)[0].shape == (1, 1, 3)
        assert peak() - before < 50 << 20

    def test_endless_chunks(self, tmp_path, monkeypatch):
        monkeypatch.setattr(pictureheader, "MAX_PARTS", 100)
        path = written(tmp_path, "a.png", png(1, 1, extra=chunk(b"teSt", b"") * 101, raw=bytes(4)))
        with pytest.raises(SlideOpenError, match="more than 100 chunks"):
            PictureSlide(str(path))

    def test_endless_segments(self, tmp_path, monkeypatch):
        monkeypatch.setattr(pictureheader, "MAX_PARTS", 100)
        data = jpeg(tissue(20, 30))
        data = data[:2] + b"\xff\xfe\0\2" * 101 + data[2:]
        with pytest.raises(SlideOpenError, match="more than 100 segments"):
            PictureSlide(str(written(tmp_path, "a.jpg", data)))

    def test_endless_scans(self, tmp_path, monkeypatch):
        monkeypatch.setattr(pictureheader, "MAX_SCANNED", 20 * 30 * 3)
        data = jpeg(tissue(20, 30), progressive=True)
        with pytest.raises(SlideOpenError, match="a JPEG of 10 scans"):
            PictureSlide(str(written(tmp_path, "a.jpg", data)))

    def test_large_file(self, tmp_path, monkeypatch):
        monkeypatch.setattr(pictureheader, "MAX_BYTES", 1000)
        with pytest.raises(SlideOpenError, match=r"a picture of 0.0 GB.*pyramid"):
            PictureSlide(str(saved(tmp_path / "a.png", noise(20, 30))))

    def test_12_bit_jpeg(self, tmp_path):
        data = bytearray(jpeg(tissue(20, 30)))
        data[data.index(b"\xff\xc0") + 4] = 12
        with pytest.raises(SlideOpenError, match="a JPEG of 3 components of 12 bit"):
            PictureSlide(str(written(tmp_path, "a.jpg", data)))

    def test_padded_markers_are_no_damage(self, tmp_path):
        pixels = tissue(20, 30)
        data = jpeg(pixels)
        path = written(tmp_path, "a.jpg", data[:2] + b"\xff\xff" + data[2:])
        np.testing.assert_array_equal(only(path)[0], only(written(tmp_path, "b.jpg", data))[0])

    def test_colour_type_that_does_not_exist(self, tmp_path):
        with pytest.raises(SlideOpenError, match="claims colour type 7"):
            PictureSlide(str(written(tmp_path, "a.png", png(1, 1, colour=7))))

    def test_no_pillow_until_a_picture_is_opened(self):
        code = (
            "import sys, napari_wsi_heatmap.slides as s; print('PIL.PngImagePlugin' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.strip() == "False"


def peak():
    """Most memory that this process ever had, bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_memory_of_text_is_pillows_own():
    """What `TestHostile` relies on."""
    assert PngImagePlugin.MAX_TEXT_CHUNK <= 1 << 20
    assert PngImagePlugin.MAX_TEXT_MEMORY <= 64 << 20
