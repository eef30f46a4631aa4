"""Colours by the ICC profile: the contract of a slide, and everything else as it was."""

from __future__ import annotations

import pickle
from io import BytesIO

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from contracts import SlideContract
from made_slides import SWAPPED, noise, red_for_blue, strided, write_tiff
from napari_wsi_heatmap.describe import slide_facts, slide_lines
from napari_wsi_heatmap.errors import SlideReadError
from napari_wsi_heatmap.slides import icc, open_slide
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.slides.base import Level, Slide
from napari_wsi_heatmap.slides.file import FileSlide
from napari_wsi_heatmap.slides.icc import IccSlide

LEVELS = strided(noise(700, 900), 4)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A slide whose profile says that red is blue."""
    folder = tmp_path_factory.mktemp("icc")
    return write_tiff(folder / "swapped.tif", LEVELS, icc=red_for_blue())


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The same pixels without a profile."""
    return write_tiff(tmp_path_factory.mktemp("icc") / "plain.tif", LEVELS)


def by_pillow(rgb, profile):
    """What Pillow makes of a whole picture at once, by the profile's own intent."""
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    picture = ImageCms.profileToProfile(
        Image.fromarray(rgb),
        source,
        ImageCms.createProfile("sRGB"),
        ImageCms.getDefaultIntent(source),
    )
    return np.array(picture)


class Sparse(Slide):
    """Half of it was never scanned, and its background is coloured."""

    path, name, backend = "<sparse>", "sparse", "sparse"
    levels = (Level((200, 300), (1.0, 1.0)),)
    mpp, background, properties = (0.5, 0.5), (10, 20, 230), {}
    bounds = (0, 0, 200, 150)
    profile = red_for_blue()
    closed = False

    def _read(self, level, y, x, height, width):
        if self.closed:
            raise SlideReadError("the slide is closed")
        rgb = noise(200, 300)
        rgb[:, 150:] = self.background
        scanned = np.ones((200, 300), bool)
        scanned[:, 150:] = False
        box = slice(y, y + height), slice(x, x + width)
        return rgb[box].copy(), scanned[box]

    @property
    def fingerprint(self):
        return "ab" * 32

    @property
    def icc_profile(self):
        return self.profile

    def close(self):
        self.closed = True


class TestConvertedFile(SlideContract):
    @pytest.fixture
    def opened(self, path):
        return open_slide(path, icc=True)

    def truth(self, slide, level):
        return by_pillow(LEVELS[level], red_for_blue())

    def test_red_and_blue_have_changed_places(self, slide):
        got = slide.read_region(0, 10, 20, 300, 400)
        np.testing.assert_array_equal(got, LEVELS[0][10:310, 20:420, ::-1])


class TestConvertedRealProfile(SlideContract):
    """A TCGA slide, whose profile is one of a manufacturer."""

    name = "slides/aperio/TCGA-CR-7395-01A-01-TS1.svs"

    @pytest.fixture
    def opened(self, data_dir):
        if not (data_dir / self.name).exists():
            pytest.skip(f"{data_dir / self.name} is not there")
        return open_slide(data_dir / self.name, icc=True)

    def truth(self, slide, level):
        with open_slide(slide.path) as raw:
            pixels = raw.read_region(level, 0, 0, *raw.levels[level].shape)
            return by_pillow(pixels, raw.icc_profile)


class TestConvertedSparse(SlideContract):
    """What was not scanned keeps the background's colour, as stored."""

    @pytest.fixture
    def opened(self):
        return IccSlide(Sparse())

    def truth(self, slide, level):
        pixels, scanned = Sparse().read_scanned(0, 0, 0, 200, 300)
        return np.where(scanned[..., None], by_pillow(pixels, Sparse.profile), pixels)


class TestWithoutProfile(SlideContract):
    @pytest.fixture
    def opened(self, plain):
        return open_slide(plain, icc=True)

    def truth(self, slide, level):
        return LEVELS[level]

    def test_it_says_that_colours_are_as_stored(self, slide, plain):
        assert slide.colours == "as stored"
        assert slide.warnings[-1] == "no ICC profile: colours as stored"
        assert slide.converted is False
        with open_slide(plain) as raw:
            assert slide.fingerprint == raw.fingerprint
            assert "no ICC profile: colours as stored" not in raw.warnings


def test_it_is_only_done_when_asked_for(path):
    with open_slide(path) as slide:
        assert slide.colours == "as stored"
        assert slide.icc_profile is not None
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, 700, 900), LEVELS[0])


def test_it_says_by_which_profile_and_intent(path):
    with open_slide(path, icc=True) as slide:
        assert slide.colours == f"sRGB by the ICC profile {SWAPPED} (perceptual)"
        assert slide.converted
        assert not any("ICC" in warning for warning in slide.warnings)
        assert f"  colours     {slide.colours}" in list(slide_lines(slide))
        assert slide_facts(slide)["colours"] == slide.colours
    with open_slide(path) as slide:
        assert f"  colours     as stored; ICC profile: {SWAPPED}" in list(slide_lines(slide))


def test_everything_else_is_as_it_was(path):
    with open_slide(path) as raw, open_slide(path, icc=True) as slide:
        for name in set(Slide.__annotations__) - {"colours"}:
            assert getattr(slide, name) == getattr(raw, name), name
        assert isinstance(raw, FileSlide)
        assert slide.identity() == raw.identity()
        assert slide.icc_profile == raw.icc_profile
        assert slide.associated_images is slide._slide.associated_images
        assert slide.mpp_at(1) == raw.mpp_at(1)
        assert slide.changed() is None
        with pytest.raises(AttributeError):
            slide.nothing_of_the_kind  # noqa: B018


def test_the_fingerprint_is_another_one_for_each_profile_and_intent():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    prints = {Sparse().fingerprint}
    for profile in (red_for_blue(0), red_for_blue(1), srgb):
        slide = Sparse()
        slide.profile = profile
        prints.add(IccSlide(slide).fingerprint)
    assert len(prints) == 4
    assert IccSlide(Sparse()).fingerprint in prints


def test_the_fingerprint_is_one_for_all_backends(path):
    with (
        open_slide(path, icc=True) as slide,
        open_slide(path, backend="openslide", icc=True) as same,
    ):
        assert slide.fingerprint == same.fingerprint


def test_profiles_of_one_name_are_told_apart_by_what_they_do():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    name, swapped = ("sRGB built-in".encode("utf-16-be"), SWAPPED.encode("utf-16-be"))
    slides = Sparse(), Sparse()
    slides[0].profile = srgb.replace(name, swapped)
    one, other = map(IccSlide, slides)
    assert one.colours == other.colours
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("intent", "name"),
    [(1, "relative colorimetric"), (3, "absolute colorimetric"), (77, "perceptual")],
)
def test_the_intent_is_the_one_that_the_profile_states(intent, name):
    slide = Sparse()
    slide.profile = red_for_blue(intent)
    assert IccSlide(slide).colours.endswith(f"({name})")


@pytest.mark.parametrize("damage", ["nothing", "text", "cut", "of another kind"])
def test_a_profile_that_cannot_be_used_is_a_warning(damage):
    slide = Sparse()
    slide.profile = {
        "nothing": b"",
        "text": b"no profile",
        "cut": red_for_blue()[:300],
        "of another kind": ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
    }[damage]
    converted = IccSlide(slide)
    (warning,) = converted.warnings
    assert warning.startswith("its ICC profile cannot be used (")
    assert warning.endswith(": colours as stored")
    assert converted.colours == "as stored"
    np.testing.assert_array_equal(
        converted.read_region(0, 0, 0, 200, 300), slide.read_region(0, 0, 0, 200, 300)
    )
    assert slide.warnings == ()


def test_an_open_slide_is_converted_by_one_that_reads_it(path):
    with open_slide(path) as raw:
        converted = open_slide(raw, icc=True)
        assert open_slide(converted, icc=True) is converted
        assert open_slide(converted) is converted
        np.testing.assert_array_equal(
            converted.read_region(1, 0, 0, 9, 9), raw.read_region(1, 0, 0, 9, 9)[..., ::-1]
        )


def test_closing_it_closes_the_other(path):
    raw = open_slide(path)
    open_slide(raw, icc=True).close()
    with pytest.raises(SlideReadError, match="closed"):
        raw.read_region(0, 0, 0, 1, 1)


def test_it_travels_to_another_process(path):
    with open_slide(path, mpp=0.7, icc=True) as slide:
        copy = pickle.loads(pickle.dumps(slide))
        with copy:
            assert copy.mpp == (0.7, 0.7)
            assert (copy.colours, copy.fingerprint) == (slide.colours, slide.fingerprint)
            np.testing.assert_array_equal(
                copy.read_region(0, 5, 6, 70, 80), slide.read_region(0, 5, 6, 70, 80)
            )


def test_a_profile_that_cannot_be_read_is_an_error_and_closes_the_file(path, monkeypatch):
    raw = open_slide(path)
    closed = []

    def unreadable(slide):
        raise SlideReadError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(type(raw), "icc_profile", property(unreadable))
        patch.setattr(type(raw), "close", lambda slide: closed.append(slide.path))
        with pytest.raises(SlideReadError, match="gone"):
            open_slide(path, icc=True)
        with pytest.raises(SlideReadError, match="gone"):
            open_slide(raw, icc=True)
    assert closed == [str(path)]
    raw.close()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (0, 7), (7, 0), (1025, 1030)])
def test_strips_of_any_shape(shape, monkeypatch):
    monkeypatch.setattr(icc, "STRIP", 4096)
    pixels = noise(*shape)
    transform = icc._transform_of(red_for_blue())[0]
    got = icc.convert(pixels, transform)
    np.testing.assert_array_equal(got, pixels[..., ::-1])
    assert got.flags.c_contiguous


def test_the_profile_lies_in_the_tag_where_others_look_for_it(path):
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].tags[34675].value == red_for_blue()


def test_a_slide_from_memory_has_no_profile():
    slide = open_slide(ArraySlide([noise(20, 30)]), icc=True)
    assert slide.warnings == ("no ICC profile: colours as stored",)
