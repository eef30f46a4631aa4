"""Otsu's mask, its fallback, and the share of tissue in windows."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import points_in_poly

from made import FaultySlide, noise, noise_slide
from napari_wsi_heatmap.errors import GridError
from napari_wsi_heatmap.grid import WindowSpec, lay_grid
from napari_wsi_heatmap.selection import select_windows
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.states import BACKGROUND, HANGS_OVER, OUTSIDE, PENDING, state_of
from napari_wsi_heatmap.tissue import TissueMask, find_tissue, tissue_share
from napari_wsi_heatmap.tissuerules import otsu
from napari_wsi_heatmap.tissuerules.otsu import otsu_threshold


def glass_and_tissue(height=2000, width=3000):
    """White with a pink rectangle at rows 512…1535, columns 1024…2047."""
    image = np.full((height, width, 3), 243, np.uint8)
    image[512:1536, 1024:2048] = (205, 120, 170)
    image += noise(height, width) % 5
    return image


def grid_of(slide, window, stride=None, edge="pad"):
    stride = stride or window
    spec = WindowSpec(0, (1.0, 1.0), (window, window), (window, window), (stride, stride))
    return lay_grid(spec, slide.levels[0].shape, edge)


@pytest.mark.parametrize("mpp", [0.5, None])
def test_otsu_finds_the_tissue(mpp):
    slide = ArraySlide([glass_and_tissue()], mpp=mpp)
    found = find_tissue(slide, "otsu")
    assert found.record["rule"] == "otsu"
    share = tissue_share(found, grid_of(slide, 512))
    assert share[1:3, 2:4] == pytest.approx(1, abs=0.02)
    assert share[0].max() < 0.02
    assert share[:, :2].max() < 0.02


def test_otsu_equals_the_textbook():
    histogram = np.zeros(256, int)
    histogram[[10, 12, 200, 210]] = [40, 60, 30, 20]
    best = max(range(256), key=lambda t: _between(histogram, t))
    assert _between(histogram, otsu_threshold(histogram)) == pytest.approx(
        _between(histogram, best)
    )


def _between(histogram, t):
    low, high = histogram[: t + 1], histogram[t + 1 :]
    if not low.sum() or not high.sum():
        return 0
    means = (
        (low * np.arange(t + 1)).sum() / low.sum(),
        (high * np.arange(t + 1, 256)).sum() / high.sum(),
    )
    return low.sum() * high.sum() * (means[0] - means[1]) ** 2


@pytest.mark.parametrize(
    "image",
    [
        np.full((500, 500, 3), 240, np.uint8),
        np.full((500, 500, 3), (200, 100, 150), np.uint8),
        240 + noise(500, 500) % 3,
    ],
    ids=["all glass", "all tissue", "faint noise"],
)
def test_otsu_that_means_nothing_computes_everything_and_says_so(image):
    found = find_tissue(ArraySlide([image.astype(np.uint8)], mpp=8.0), "otsu")
    assert found.mask is None
    assert "all windows are computed" in found.notice


def test_the_mask_does_not_depend_on_the_height_of_strips(monkeypatch):
    slide = ArraySlide([glass_and_tissue()], mpp=0.5)
    whole = find_tissue(slide)
    monkeypatch.setattr(otsu, "STRIP_BYTES", 3000 * 4 * 16 * 3)
    assert np.array_equal(find_tissue(slide).mask, whole.mask)


def test_a_slide_without_a_pyramid_is_never_read_whole():
    reads = []

    def read(level, y, x, height, width):
        reads.append(height * width)
        return np.full((height, width, 3), 200 if y < 8000 else 240, np.uint8)

    find_tissue(ArraySlide.from_callable(read, [(20_000, 16_000)], mpp=0.25))
    assert max(reads) <= otsu.STRIP_BYTES


def test_share_is_the_exact_area_also_between_mask_pixels():
    mask = np.random.default_rng(0).random((40, 60)) < 0.5
    slide = ArraySlide([noise(400, 600)])
    grid = grid_of(slide, 37, 23)
    share = tissue_share(TissueMask(mask, (10.0, 10.0)), grid)
    fine = np.zeros((600, 800))
    fine[:400, :600] = np.kron(mask, np.ones((10, 10)))
    for row, col in [(0, 0), (3, 7), (16, 24), (grid.shape[0] - 1, grid.shape[1] - 1)]:
        y, x = row * 23, col * 23
        assert share[row, col] == pytest.approx(fine[y : y + 37, x : x + 37].mean())


def test_states_of_left_out_windows():
    slide = ArraySlide([glass_and_tissue()], mpp=0.5)
    grid = grid_of(slide, 512)
    chosen = select_windows(slide, grid, find_tissue(slide), roi=(0, 0, 1100, 3000))
    states = state_of(chosen.state)
    assert (states[1, 2:4] == PENDING).all()
    assert (states[2:] == OUTSIDE).all()
    assert states[0, 0] == BACKGROUND
    assert (chosen.state[:, -1] & HANGS_OVER).all()
    assert chosen.count == 2


def test_a_window_counts_by_its_share_or_by_its_centre():
    slide = ArraySlide([np.zeros((100, 100, 3), np.uint8)])
    mask = np.zeros((100, 100), bool)
    mask[:, :15] = True
    grid = grid_of(slide, 50)
    found = TissueMask(mask)
    counts = {
        rule: select_windows(slide, grid, found, tissue_min=rule).count for rule in (0.1, 0.3)
    }
    assert counts == {0.1: 2, 0.3: 2}
    with pytest.raises(GridError, match="no window is left"):
        select_windows(slide, grid, found, tissue_min=0.31)
    with pytest.raises(GridError, match="no window is left"):
        select_windows(slide, grid, found, tissue_min="centre")


def test_polygons_select_windows_by_their_centre():
    slide = noise_slide(400, 400)
    grid = grid_of(slide, 40)
    triangle = np.array([[0, 0], [0, 400], [400, 0]])
    chosen = select_windows(slide, grid, TissueMask(None), roi=[triangle])
    rows, cols = np.nonzero(state_of(chosen.state) == PENDING)
    assert set(zip(rows, cols, strict=True)) >= {(0, 0), (0, 8), (8, 0), (4, 4)}
    assert (rows + cols <= 9).all()


def test_one_polygon_need_not_be_in_a_list_and_many_add_up():
    slide = noise_slide(400, 400)
    grid = grid_of(slide, 40, 7)
    rng = np.random.default_rng(0)
    polygons = [rng.uniform(-50, 450, (5, 2)) for _ in range(6)]
    states = [
        select_windows(slide, grid, TissueMask(None), roi=roi).state
        for roi in (polygons, *polygons)
    ]
    chosen = [state_of(state) == PENDING for state in states]
    assert np.array_equal(chosen[0], np.any(chosen[1:], 0))
    centres = grid.positions(np.arange(grid.size)) + 20
    inside = points_in_poly(centres, polygons[0]).reshape(grid.shape)
    assert np.array_equal(chosen[1], inside)
    assert 0 < inside.sum() < grid.size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"roi": (5000, 5000, 6000, 6000)}, "no window is left.*region lies on the slide"),
        ({"roi": (300, 300, 0, 0)}, "no window is left.*region lies on the slide"),
        ({"roi": []}, "no window is left"),
        ({"roi": [np.zeros((2, 2))]}, "polygons"),
        ({"roi": [np.array([[0, 0], [0, 300], [300, np.nan]])]}, "the region is .*polygons"),
        ({"tissue_min": "half"}, "tissue_min is 'half'"),
    ],
)
def test_regions_that_make_no_sense(arguments, message):
    slide = noise_slide()
    with pytest.raises(GridError, match=message):
        select_windows(slide, grid_of(slide, 64), TissueMask(None), **arguments)


@pytest.mark.parametrize("share", [-0.1, 1.1, "half"])
def test_shares_that_make_no_sense(share):
    slide = ArraySlide([glass_and_tissue()], mpp=0.5)
    with pytest.raises(GridError, match="tissue_min"):
        select_windows(slide, grid_of(slide, 64), find_tissue(slide), tissue_min=share)


def test_an_unknown_rule_names_those_there_are():
    with pytest.raises(GridError, match=r"choose one of otsu\[:T\], none"):
        find_tissue(noise_slide(), "magic")


def test_damage_is_neither_glass_nor_the_end_of_the_run():
    slide = FaultySlide(ArraySlide([glass_and_tissue()], mpp=0.5), bad=[(100, 100)])
    found = find_tissue(slide)
    assert found.record["rule"] == "otsu"
    states = state_of(select_windows(slide, grid_of(slide, 100), found).state)
    assert (states[:2, :2] == PENDING).any()
    assert states[0, 5] == BACKGROUND
    whole = state_of(select_windows(slide, grid_of(slide, 100), find_tissue(slide._slide)).state)
    assert (states != whole).sum() <= 4


def test_only_the_scanned_part_is_read():
    reads = []

    def read(level, y, x, height, width):
        reads.append((y, x, y + height, x + width))
        return np.full((height, width, 3), (220, 90, 160) if y < 5000 else 250, np.uint8)

    slide = ArraySlide.from_callable(read, [(9000, 9000)], mpp=0.5)
    slide.bounds = (4096, 4096, 2000, 1000)
    find_tissue(slide)
    assert min(y for y, *_ in reads) >= 4096 - 16
    assert max(x for *_, x in reads) <= 5096 + 16
