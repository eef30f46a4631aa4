"""Renderings of attention: pixel by pixel those of CLAM and TRIDENT, and of a plain loop."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import napari_wsi_heatmap as wh
from made import noise
from napari_wsi_heatmap.errors import ExportError
from napari_wsi_heatmap.mil import render
from napari_wsi_heatmap.mil.blur import (
    blur_pixels,
    blur_scores,
    gaussian,
    kernel_sizes,
    whole_gaussian,
)
from napari_wsi_heatmap.mil.colours import colour_table
from napari_wsi_heatmap.mil.contours import Outline, lay_outlines
from napari_wsi_heatmap.mil.render import render_clam, render_trident
from napari_wsi_heatmap.mil.shares import percentile_ranks
from napari_wsi_heatmap.slides.array import ArraySlide

PATCH = 64
CONFIGURATIONS = (
    "s64_default", "s64_bin50", "s32_default", "s32_blur", "s32_noseg", "s32_binauto",
    "s32_ds2", "s32_roi", "s32_noperc_in_0_100",
)  # fmt: skip


@pytest.fixture(scope="module")
def golden(data_dir):
    """Arrays and arguments of CLAM's renderings."""
    folder = data_dir / "mil"
    arrays = np.load(folder / "heatmap_clam.npz")
    return arrays, json.loads((folder / "heatmap_clam.json").read_text())


@pytest.fixture(scope="module")
def golden_slide(data_dir):
    with wh.open_slide(data_dir / "mil" / "heatmap_slide.tiff") as slide:
        yield slide


@pytest.fixture(scope="module")
def outlines(golden):
    arrays, _ = golden
    border, hole = (arrays[name].reshape(-1, 2)[:, ::-1] for name in ("contour0_l0", "hole0_l0"))
    return [Outline(border, (hole,))]


def as_clam(slide, arrays, stride, said, outlines, **changes):
    """The call that a configuration of CLAM means."""
    ranked = said["convert_to_percentiles"]
    scores = arrays[f"{stride}_scores"] if ranked else arrays[f"{stride}_percentileofscore_ref"]
    roi = (*said["top_left"][::-1], *said["bot_right"][::-1]) if "top_left" in said else None
    options = {
        "patch_size": PATCH,
        "vis_level": said["vis_level"],
        "percentiles": ranked,
        "cmap": said["cmap"],
        "alpha": said["alpha"],
        "blur": said.get("blur", False),
        "overlap": said.get("overlap", 0.0),
        "binarize": said.get("binarize", False),
        "threshold": said.get("thresh", -1),
        "tissue": outlines if said["segment"] else None,
        "roi": roi,
        "custom_downsample": said.get("custom_downsample", 1),
    }
    coords = arrays[f"{stride}_coords"][:, ::-1]
    values = scores.reshape(-1) / (1 if ranked else 100)
    return render_clam(slide, coords, values, **options | changes)


def test_all_configurations_are_compared(golden):
    assert set(golden[1]) == set(CONFIGURATIONS)


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("block", [1024, 100])
def test_pixels_are_those_of_clam(golden, golden_slide, outlines, monkeypatch, name, block):
    monkeypatch.setattr(render, "BLOCK", block)
    arrays, said = golden
    picture = as_clam(golden_slide, arrays, name.partition("_")[0], said[name], outlines)
    expected = arrays[name]
    assert picture.shape == expected.shape[:2]
    step = block // 2
    tops = range(0, expected.shape[0], step)
    pixels = np.concatenate([picture.rows(top, min(top + step, len(expected))) for top in tops])
    np.testing.assert_array_equal(pixels, expected)


def test_the_comparison_notices(golden, golden_slide, outlines):
    arrays, said = golden
    shifted = as_clam(golden_slide, arrays, "s32", said["s32_default"], outlines, alpha=0.41)
    assert (shifted.pixels() != arrays["s32_default"]).any()


def test_tissue_is_that_of_clam(golden, outlines):
    expected = golden[0]["tissue_mask_l1"]
    laid = lay_outlines(outlines, (4, 4))
    np.testing.assert_array_equal(laid.mask((0, 0, *expected.shape)), expected.astype(bool))
    part = laid.mask((50, 70, 60, 90))
    np.testing.assert_array_equal(part, expected[50:110, 70:160].astype(bool))


def test_ranks_are_those_of_clam(golden):
    arrays, _ = golden
    for stride in ("s64", "s32"):
        ranks = percentile_ranks(arrays[f"{stride}_scores"].reshape(-1).astype(np.float64))
        np.testing.assert_array_equal(ranks, arrays[f"{stride}_percentiles"].reshape(-1))


@pytest.fixture(scope="module")
def golden_trident(data_dir):
    return np.load(data_dir / "mil" / "heatmap_trident.npz")


@pytest.fixture(scope="module")
def made_slide():
    """Two levels, so that the second is not a whole factor below the first."""
    return ArraySlide([noise(230, 301), noise(115, 151, 1)], mpp=0.5, name="made")


@pytest.fixture(scope="module")
def made_patches():
    """Overlapping patches of 40 px, some over the border, and scores."""
    random = np.random.default_rng(3)
    y, x = np.mgrid[0:220:20, 0:300:20].reshape(2, -1)
    coords = np.stack([y, x], 1)[random.permutation(y.size)]
    return coords, random.permutation(np.linspace(0, 1, y.size))


def naive_clam(slide, coords, scores, down, *, limit=0.0, binarize=False, kernel=None):
    """A whole canvas at once, a loop over patches and taps: scores and where they are drawn."""
    shape = slide.levels[1].shape
    total, count, drawn = np.zeros(shape), np.zeros(shape, int), np.zeros(shape, bool)
    size = int(np.ceil(40 / down))
    for (y, x), score in zip(coords.tolist(), scores.tolist(), strict=True):
        y, x = int(np.ceil(y / down)), int(np.ceil(x / down))
        at = np.s_[y : y + size, x : x + size]
        total[at] += (score >= limit) if binarize else score
        count[at] += 1
        drawn[at] |= score >= limit
    mean = np.divide(total, count, out=np.zeros(shape), where=count > 0)
    mean = np.around(mean) if binarize else mean
    return (mean if kernel is None else naive_blur(mean, gaussian(kernel))), drawn


def naive_blur(values, taps):
    r = len(taps) // 2
    wide = np.pad(values, r, mode="reflect")
    rows = sum(t * wide[:, i : i + values.shape[1]] for i, t in enumerate(taps))
    return sum(t * rows[i : i + values.shape[0]] for i, t in enumerate(taps))


def naive_pixels(slide, values, drawn, alpha, kernel=None, cmap="jet"):
    below = slide.read_region(1, 0, 0, *values.shape)
    above = below.copy()
    above[drawn] = colour_table(cmap)[np.minimum(values * 256, 255).astype(int)][drawn]
    if kernel is not None:
        taps = whole_gaussian(kernel)
        sums = [naive_blur(above[..., c].astype(int), taps) for c in range(3)]
        above = ((np.stack(sums, -1) + (1 << 15)) >> 16).astype(np.uint8)
    mixed = np.float32(alpha) * above + np.float32(1 - alpha) * below
    return np.rint(mixed).astype(np.uint8)


@pytest.mark.parametrize("block", [1024, 37])
@pytest.mark.parametrize("blur", [False, True])
def test_blocks_are_cut_out_of_the_whole(made_slide, made_patches, monkeypatch, block, blur):
    monkeypatch.setattr(render, "BLOCK", block)
    coords, scores = made_patches
    kernel = 21 if blur else None
    expected = naive_pixels(
        made_slide, *naive_clam(made_slide, coords, scores, 2, kernel=kernel), 0.4, kernel
    )
    picture = render_clam(
        made_slide, coords, scores, patch_size=40, vis_level=1, blur=blur, overlap=0.5
    )
    made = np.concatenate([picture.rows(top, min(top + 29, 115)) for top in range(0, 115, 29)])
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("shape", [(120, 90), (20, 300)])
@pytest.mark.parametrize("taps", [9, 11, 47, 49, 101])
def test_a_blur_is_the_sum_over_its_taps(shape, taps):
    """Also where a Fourier transform adds up, and where it reaches over the picture."""
    pixels = noise(*shape)
    kernel = whole_gaussian(taps)
    assert kernel.sum() == 256
    sums = [naive_blur(pixels[..., c].astype(int), kernel) for c in range(3)]
    expected = ((np.stack(sums, -1) + (1 << 15)) >> 16).astype(np.uint8)
    np.testing.assert_array_equal(blur_pixels(pixels, (taps, taps)), expected)
    scores = pixels[..., 0] / 255
    wanted = naive_blur(scores, gaussian(taps))
    np.testing.assert_allclose(blur_scores(scores, (taps, taps)), wanted, atol=1e-13)


def test_a_blur_wider_than_the_picture(made_slide, made_patches):
    coords, scores = made_patches
    small = ArraySlide([noise(40, 60), noise(20, 30)], mpp=0.5)
    picture = render_clam(
        small, coords[:1] * 0, scores[:1] * 0 + 1, patch_size=60, vis_level=1, blur=True
    )
    assert kernel_sizes((30, 30), 0.0) == (61, 61)
    assert picture.pixels().shape == (20, 30, 3)


@pytest.mark.parametrize("threshold", [0.5, -1])
def test_binary_scores(made_slide, made_patches, threshold):
    coords, scores = made_patches
    limit = 1 / len(scores) if threshold == -1 else threshold
    values, drawn = naive_clam(made_slide, coords, scores, 2, limit=limit, binarize=True)
    assert set(np.unique(values)) == {0, 1}
    picture = render_clam(
        made_slide, coords, scores, patch_size=40, vis_level=1, binarize=True, threshold=threshold
    )
    np.testing.assert_array_equal(picture.pixels(), naive_pixels(made_slide, values, drawn, 0.4))


def test_colours_alone_and_a_blank_canvas(made_slide):
    coords, scores = np.array([[20, 40]]), np.array([0.5])
    options = {"patch_size": 40, "vis_level": 1, "cmap": "viridis"}
    alone = render_clam(made_slide, coords, scores, alpha=1, **options).pixels()
    colour = colour_table("viridis")[128]
    assert (alone[10:30, 20:40] == colour).all()
    below = made_slide.read_region(1, 0, 0, *alone.shape[:2])
    below[10:30, 20:40] = colour
    np.testing.assert_array_equal(alone, below)
    blank = render_clam(made_slide, coords, scores, blank_canvas=True, **options).pixels()
    assert (blank[10:30, 20:40] == np.rint(0.4 * colour + 0.6 * 255)).all()
    blank[10:30, 20:40] = 255
    assert (blank == 255).all()


def test_patches_without_a_score_are_left_out(made_slide, made_patches):
    coords, scores = made_patches
    options = {"patch_size": 40, "vis_level": 1, "percentiles": True}
    some = np.concatenate([scores, [np.nan]])
    more = render_clam(made_slide, np.concatenate([coords, [[0, 0]]]), some, **options)
    np.testing.assert_array_equal(
        more.pixels(), render_clam(made_slide, coords, scores, **options).pixels()
    )


def test_a_region_is_placed_on_the_slide(made_slide, made_patches):
    coords, scores = made_patches
    picture = render_clam(
        made_slide, coords, scores, patch_size=40, vis_level=1, roi=(40, 60, 140, 200)
    )
    assert picture.shape == (50, 70)
    assert (picture.origin, picture.scale) == ((40, 60), (2, 2))
    inside = ((coords >= (40, 60)) & (coords <= (140, 200))).all(1)
    whole = render_clam(made_slide, coords[inside], scores[inside], patch_size=40, vis_level=1)
    np.testing.assert_array_equal(picture.pixels(), whole.pixels()[20:70, 30:100])


@pytest.mark.parametrize("shape", [(700, 900), (31, 40)])
def test_the_level_is_chosen_on_a_slide_that_has_none(shape):
    """-1: about 32 level-0 pixels a pixel, also of a slide of one level."""
    slide = ArraySlide([noise(*shape)], mpp=0.25)
    coords, scores = np.array([[0, 0], [64, 64]]), np.array([1.0, 0.0])
    picture = render_clam(slide, coords, scores, patch_size=64, alpha=0)
    assert picture.shape == tuple(-(-side // 32) for side in shape)
    assert picture.mpp == (8, 8)
    padded = np.pad(
        slide.read_region(0, 0, 0, *shape).astype(float),
        [(0, -side % 32) for side in shape] + [(0, 0)],
        constant_values=np.nan,
    )
    blocks = padded.reshape(picture.shape[0], 32, picture.shape[1], 32, 3)
    np.testing.assert_array_equal(picture.pixels(), np.rint(np.nanmean(blocks, (1, 3))))


@pytest.mark.parametrize("times", [2, 3, 2.5])
def test_made_smaller_it_is_what_pillow_makes(made_slide, made_patches, times):
    coords, scores = made_patches
    options = {"patch_size": 40, "vis_level": 0}
    whole = render_clam(made_slide, coords, scores, **options)
    small = render_clam(made_slide, coords, scores, custom_downsample=times, **options)
    size = int(301 / times), int(230 / times)
    expected = np.asarray(Image.fromarray(whole.pixels()).resize(size, Image.Resampling.BICUBIC))
    made = np.concatenate([rows for _, rows in small.bands(13)])
    np.testing.assert_array_equal(small.rows(5, 22), expected[5:22])
    np.testing.assert_array_equal(made, expected)
    assert small.scale == (230 / size[1], 301 / size[0])
    assert small.mpp == (0.5 * 230 / size[1], 0.5 * 301 / size[0])


def test_nothing_as_large_as_the_canvas_is_held():
    """Rows of a slide of 12 gigapixels, with a blur: blocks, whatever there is beyond."""
    largest = []

    def read(level, y, x, height, width):
        largest.append(height * width)
        return np.full((height, width, 3), 200, np.uint8)

    slide = ArraySlide.from_callable(read, [(200_000, 60_000)], mpp=0.25)
    coords = np.stack(np.meshgrid([100_000, 100_128], np.arange(0, 60_000, 512)), -1)
    coords = coords.reshape(-1, 2)
    scores = np.linspace(0, 1, len(coords))
    picture = render_clam(slide, coords, scores, patch_size=32, vis_level=0, blur=True)
    assert picture.shape == (200_000, 60_000)
    rows = picture.rows(100_000, 100_004)
    assert rows.shape == (4, 60_000, 3)
    assert max(largest) <= (render.BLOCK + 64) * (4 + 64)


def test_tridents_pixels(golden, golden_slide, golden_trident):
    arrays, _ = golden
    strides = {name.partition("_")[0] for name in golden_trident.files}
    assert strides
    for stride in strides:
        coords = arrays[f"{stride}_coords"][:, ::-1]
        scores = arrays[f"{stride}_scores"].reshape(-1)
        options = {"patch_size": PATCH, "vis_level": 1, "percentiles": True}
        blend = render_trident(golden_slide, coords, scores, **options)
        np.testing.assert_array_equal(blend.pixels(), golden_trident[f"{stride}_blend"])
        overlay = render_trident(golden_slide, coords, scores, overlay_only=True, **options)
        np.testing.assert_array_equal(overlay.pixels(), golden_trident[f"{stride}_overlay"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scores": np.array([0.2, 1.5])}, "must be 0…1"),
        ({"scores": np.array([0.2])}, "coordinates"),
        ({"scores": np.array([np.nan, np.nan])}, "no patch has a score"),
        ({"vis_level": 2}, "no level 2"),
        ({"alpha": 2}, "alpha is 2"),
        ({"cmap": "nocolours"}, "no colour map"),
        ({"roi": (10, 10, 5, 20)}, "holds no pixel"),
        ({"roi": (100, 100, 200, 200)}, "no patch lies"),
        ({"custom_downsample": 0.5}, "times smaller"),
        ({"binarize": True, "threshold": 3}, "threshold"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(made_slide, changes, says):
    options = {"scores": np.array([0.2, 0.4]), "patch_size": 40, "vis_level": 1} | changes
    scores = options.pop("scores")
    with pytest.raises(ExportError, match=says) as caught:
        render_clam(made_slide, np.array([[0, 0], [40, 0]]), scores, **options)
    assert "\n" not in str(caught.value)
