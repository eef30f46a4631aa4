"""Tissue by CLAM's rule, and the patches on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pipeline_made import SIDE, stained

import napari_wsi_heatmap as wh
from napari_wsi_heatmap.errors import GridError
from napari_wsi_heatmap.mil.clamtissue import find_tissue, saturation
from napari_wsi_heatmap.mil.contours import lay_outlines
from napari_wsi_heatmap.mil.maskpicture import HOLE, PIECE, write_mask
from napari_wsi_heatmap.mil.patchgrid import PatchSize, patch_corners, within
from napari_wsi_heatmap.mil.segmentation import Segmentation
from napari_wsi_heatmap.mil.tissueoutlines import outlines_of
from napari_wsi_heatmap.slides.array import ArraySlide

SMALL = Segmentation(a_t=0.01, a_h=0.001, mthresh=3)
"""Slides of tests are small."""


def drawn(*boxes, shape=(600, 800), holes=()):
    """A slide with pieces of tissue (y, x, height, width)."""
    pixels = np.full((*shape, 3), 240, np.uint8)
    for colour, many in (((200, 80, 150), boxes), ((240, 240, 240), holes)):
        for y, x, h, w in many:
            pixels[y : y + h, x : x + w] = colour
    return ArraySlide([pixels], mpp=0.5, name="drawn")


def test_saturation_is_that_of_hsv():
    rgb = np.array([[[200, 100, 150], [0, 0, 0], [255, 0, 0]]], np.uint8)
    assert saturation(rgb).tolist() == [[127, 0, 255]]  # 127.5 in fixed point, as OpenCV has it


def test_tissue_and_its_hole_are_found():
    slide = ArraySlide([stained(), stained()[::4, ::4].copy()], mpp=0.25)
    tissue = find_tissue(slide, replace(SMALL, seg_level=1))
    assert tissue.downsample == (4, 4)
    y, x = np.mgrid[: SIDE[0] // 4, : SIDE[1] // 4] * 4
    away = ((y - 384) / 300) ** 2 + ((x - 512) / 400) ** 2
    hole = ((y - 384) / 60) ** 2 + ((x - 512) / 60) ** 2
    true = (away < 1) & (hole > 1)
    assert (tissue.mask != true).mean() < 0.01
    assert tissue.holes[96, 128]
    assert tissue.filled[96, 128]


def test_the_median_decides_as_sorting_would():
    from scipy import ndimage

    slide = ArraySlide([np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)])
    how = Segmentation(seg_level=0, a_t=0, close=0, mthresh=5, sthresh=150, max_n_holes=999, a_h=0)
    median = ndimage.median_filter(
        saturation(slide.read_region(0, 0, 0, 90, 70)), 5, mode="nearest"
    )
    np.testing.assert_array_equal(find_tissue(slide, how).mask, median > 150)


def test_pieces_and_holes_by_area_and_number():
    big, small, island = (100, 100, 300, 300), (500, 700, 40, 40), (520, 100, 60, 60)
    slide = drawn(big, small, island, holes=[(150, 150, 100, 100), (300, 300, 20, 20)])

    def area(how):
        return find_tissue(slide, how).mask.sum()

    base = Segmentation(seg_level=0, a_t=0, a_h=0, close=0, mthresh=1)
    everything = area(base)
    assert everything == 300 * 300 + 40 * 40 + 60 * 60 - 100 * 100 - 20 * 20
    unit = 512**2
    assert area(replace(base, a_t=2000 / unit)) == everything - 40 * 40
    assert area(replace(base, a_h=500 / unit)) == everything + 20 * 20
    assert area(replace(base, max_n_holes=1)) == everything + 20 * 20
    assert area(replace(base, max_n_holes=0)) == everything + 20 * 20 + 100 * 100
    # Numbered from the lower border upwards.
    assert area(replace(base, exclude_ids=(0,))) == everything - 60 * 60
    assert area(replace(base, keep_ids=(1,))) == 40 * 40
    assert area(replace(base, keep_ids=(0, 1), exclude_ids=(1,))) == 60 * 60


def test_gaps_are_closed_also_at_the_border():
    slide = drawn((0, 0, 100, 50), (0, 51, 100, 50), shape=(300, 300))
    how = Segmentation(seg_level=0, a_t=0, close=0, mthresh=1)
    assert find_tissue(slide, how).mask.sum() == 100 * 100
    assert find_tissue(slide, replace(how, close=3)).mask.sum() == 100 * 101


def test_otsu_finds_its_own_threshold():
    pixels = np.full((200, 200, 3), (200, 170, 180), np.uint8)
    pixels[50:150, 50:150] = (200, 60, 120)
    slide = ArraySlide([pixels])
    how = Segmentation(seg_level=0, a_t=0, close=0, mthresh=1)
    assert find_tissue(slide, how).mask.all()
    assert find_tissue(slide, replace(how, use_otsu=True)).mask.sum() == 100 * 100


def test_without_tissue_everything_counts_and_it_is_told():
    tissue = find_tissue(drawn(), SMALL)
    assert tissue.mask.all()
    assert "no tissue was found" in tissue.notice


def test_levels_that_are_not_there():
    with pytest.raises(GridError, match="there is no level 3"):
        find_tissue(drawn(), replace(SMALL, seg_level=3))


def test_a_slide_without_pyramid_is_looked_at_from_afar():
    tissue = find_tissue(drawn((100, 100, 300, 300)), replace(SMALL, mthresh=1))
    assert tissue.downsample == (32, 32)
    assert tissue.mask.shape == (19, 25)


# borders


def test_outlines_laid_at_the_same_scale_are_the_mask():
    slide = drawn((100, 100, 300, 300), (10, 500, 60, 90), (50, 590, 90, 60))
    how = Segmentation(seg_level=0, a_t=0, close=0, mthresh=1)
    tissue = find_tissue(slide, how)
    outlines = outlines_of(tissue)
    assert len(outlines) == 2
    laid = lay_outlines(outlines, tissue.downsample)
    np.testing.assert_array_equal(laid.mask((0, 0, 600, 800)), tissue.mask)


def test_holes_are_cut_out_with_their_border_as_clam_does():
    slide = drawn((100, 100, 300, 300), holes=[(150, 150, 100, 100)])
    how = Segmentation(seg_level=0, a_t=0, a_h=0, close=0, mthresh=1)
    (outline,) = outlines_of(find_tissue(slide, how))
    assert len(outline.holes) == 1
    mask = lay_outlines([outline], (1, 1)).mask((0, 0, 600, 800))
    assert not mask[150:250, 150:250].any()
    assert 300 * 300 - 102 * 102 <= mask.sum() <= 300 * 300 - 100 * 100


def test_borders_are_clams_but_for_its_shift(data_dir):
    folder = data_dir / "mil"
    if not (folder / "heatmap_clam.npz").is_file():
        pytest.skip(f"no heatmap_clam.npz in {folder}")
    golden = np.load(folder / "heatmap_clam.npz")
    with wh.open_slide(folder / "heatmap_slide.tiff") as slide:
        (ours,) = outlines_of(find_tissue(slide, Segmentation(seg_level=1, a_t=0.1, a_h=0.01)))
    (hole,) = ours.holes
    for ring, theirs in ((ours.border, golden["contour0_l0"]), (hole, golden["hole0_l0"])):
        # Closing by a square of two pixels moves theirs by one, four at level 0.
        moved = np.asarray(ring).astype(int) + 4
        assert set(map(tuple, moved.tolist())) == set(map(tuple, theirs[:, ::-1].tolist()))


def test_the_picture_of_the_mask(tmp_path):
    slide = drawn((96, 96, 320, 320), holes=[(160, 160, 96, 96)])
    how = Segmentation(seg_level=0, a_t=0, a_h=0, mthresh=1, close=0, vis_level=0, line_thickness=9)
    write_mask(slide, find_tissue(slide, how), how, tmp_path / "mask.jpg")
    with Image.open(tmp_path / "mask.jpg") as picture:
        pixels = np.asarray(picture).astype(int)
    assert pixels.shape == (600, 800, 3)
    for place, colour in (((96, 200), PIECE), ((160, 200), HOLE)):
        assert np.argmax(pixels[place]) == np.argmax(colour)


# patches


def test_patches_side_by_side_and_overlapping():
    slide = ArraySlide([np.zeros((400, 300, 3), np.uint8), np.zeros((100, 75, 3), np.uint8)])
    assert PatchSize.of(slide, 64, 0) == PatchSize((64, 64), (64, 64))
    assert PatchSize.of(slide, 64, 1, 0.5) == PatchSize((256, 256), (128, 128))
    assert PatchSize.of(slide, 64, 0, 0.99).step == (1, 1)
    with pytest.raises(GridError, match="no patch_level 2"):
        PatchSize.of(slide, 64, 2)


@pytest.fixture(scope="module")
def half():
    """A slide whose left half is tissue, with its tissue at full size."""
    slide = drawn((0, 0, 600, 400))
    how = Segmentation(seg_level=0, a_t=0, close=0, mthresh=1)
    return slide, find_tissue(slide, how), how


def corners(half, size=100, shifted=True, box=None, **changes):
    slide, tissue, how = half
    patch = PatchSize.of(slide, size, 0)
    return patch_corners(slide, patch, tissue, replace(how, **changes), shifted=shifted, box=box)


def test_patches_on_tissue_row_by_row(half):
    found = corners(half)
    assert found.tolist() == [[y, x] for y in range(0, 600, 100) for x in range(0, 400, 100)]


def test_which_points_of_a_patch_must_be_tissue(half):
    # Patches of 160 px begin at 0, 160, 320: the third is tissue up to its middle.
    columns = {
        rule: sorted(set(corners(half, 160, contour_fn=rule)[:, 1].tolist()))
        for rule in ("four_pt", "four_pt_hard", "center", "basic")
    }
    assert columns == {
        "four_pt": [0, 160, 320], "four_pt_hard": [0, 160], "center": [0, 160],
        "basic": [0, 160, 320],
    }  # fmt: skip
    unshifted = corners(half, 160, shifted=False)
    assert sorted(set(unshifted[:, 1].tolist())) == [0, 160]


def test_patches_over_the_border(half):
    assert corners(half, 250)[:, 0].max() == 500
    assert corners(half, 250, use_padding=False)[:, 0].max() == 250


def test_patches_of_a_region_include_its_border(half):
    found = corners(half, box=(100, 100, 200, 300))
    assert found.tolist() == [[y, x] for y in (100, 200) for x in (100, 200, 300)]
    assert within(np.array([[1.0, 1.0], [3.0, 1.0]]), (1, 1, 2, 2)).tolist() == [True, False]
    with pytest.raises(GridError, match="no patch lies on tissue"):
        corners(half, box=(0, 500, 600, 700))


def test_patches_whose_centre_is_in_a_hole_are_left_out():
    slide = drawn((0, 0, 600, 800), holes=[(210, 210, 80, 80)])
    how = Segmentation(seg_level=0, a_t=0, a_h=0, close=0, mthresh=1)
    found = patch_corners(slide, PatchSize.of(slide, 100, 0), find_tissue(slide, how), how)
    assert len(found) == 6 * 8 - 1
    assert [200, 200] not in found.tolist()
