"""The picture: every cell and every pixel of the slide where it belongs."""

from __future__ import annotations

import json

import cmap
import numpy as np
import pytest
from PIL import Image

import napari_wsi_heatmap as wh
from exports.contract import ExportContract
from made import FaultySlide, mean_grey, mean_rgb, noise_slide, quarter_means
from napari_wsi_heatmap import canvas, lettering
from napari_wsi_heatmap.canvas import Canvas, lay_canvas, lay_cells, overview
from napari_wsi_heatmap.composite import compose, nice_ticks, tick_labels
from napari_wsi_heatmap.errors import ExportError
from napari_wsi_heatmap.exports.png import KEY
from napari_wsi_heatmap.scalebar import nice_length
from napari_wsi_heatmap.shrink import BLOCK_BYTES
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.states import DONE, state_of

QUIET = {"tissue": "none", "progress": False}


def opened(path):
    """Pixels of the slide's picture, and what the file says about them."""
    with Image.open(path) as image:
        image.verify()
    with Image.open(path) as image:
        about, page = json.loads(image.text[KEY]), np.array(image)
    assert page.dtype == np.uint8
    assert page.shape[2] == 3
    (top, left), (height, width) = about["corner_px"], about["shape_px"]
    return page[top : top + height, left : left + width], about


def pixel_of(position, about):
    """Where a level-0 position (centre of a pixel at whole numbers) lies on the picture."""
    origin, scale = np.array(about["origin_level0"]), np.array(about["scale_level0"])
    return tuple(np.floor((np.array(position) + 0.5 - origin) / scale).astype(int))


def colour(value, limits, name="turbo"):
    share = np.clip((value - limits[0]) / (limits[1] - limits[0]) * 256, 0, 255).astype(int)
    return np.rint(255 * cmap.Colormap(name).lut(256)[share, :3]).astype(np.uint8)


class TestPngExport(ExportContract):
    name = "png"

    def check(self, path, heatmap, slide):
        picture, about = opened(path)
        rng = np.random.default_rng(0)
        rows, cols = np.nonzero(state_of(heatmap.state) == DONE)
        inside = (heatmap.centres[rows, cols] < np.array(slide_shape(heatmap)) - 1).all(1)
        chosen = rng.choice(np.flatnonzero(inside), 12, replace=False)
        for row, col in zip(rows[chosen], cols[chosen], strict=True):
            y, x = pixel_of(heatmap.centres[row, col], about)
            want = colour(heatmap.values[0, row, col], about["limits"]).astype(float)
            if slide is not None:
                under = slide_pixel(slide, y, x, about)
                want = (want + under) / 2
            if not on_scale_bar(y, x, picture.shape):
                np.testing.assert_allclose(picture[y, x], want, atol=1.01)


def slide_shape(heatmap):
    return heatmap.run["slide"]["shape"]


def slide_pixel(slide, y, x, about):
    """The slide's pixel under a pixel of an enlarged picture."""
    scale = about["scale_level0"]
    return slide.read_region(0, int(y * scale[0]), int(x * scale[1]), 1, 1)[0, 0].astype(float)


def on_scale_bar(y, x, shape):
    return y > 0.85 * shape[0]


@pytest.mark.parametrize("edge", ["pad", "flush", "drop", "centre"])
def test_each_cell_lies_under_the_centre_of_its_window(edge):
    slide = noise_slide(333, 517)
    heatmap = wh.compute_heatmap(slide, mean_grey, window=48, stride=36, edge=edge, **QUIET)
    where = lay_canvas((0, 0, 333, 517), slide.mpp, 1000)
    laid = lay_cells(heatmap, 0, where)
    centres = [where.centres(axis) for axis in (0, 1)]
    for row, col in np.ndindex(heatmap.grid.shape):
        at = heatmap.centres[row, col]
        if (at < (333, 517)).all():
            y, x = (np.abs(c - a).argmin() for c, a in zip(centres, at, strict=True))
            assert laid[y, x] == heatmap.values[0, row, col]


def test_beyond_the_cells_there_is_nothing():
    slide = noise_slide(300, 300)
    heatmap = wh.compute_heatmap(slide, mean_grey, window=50, stride=100, edge="drop", **QUIET)
    where = lay_canvas((0, 0, 300, 300), None, 300)
    laid = lay_cells(heatmap, 0, where)
    # Cells of 100 px around centres at 24.5, 124.5, 224.5.
    drawn = ~np.isnan(laid)
    assert drawn[:275, :275].all()
    assert not drawn[275:].any()
    assert not drawn[:, 275:].any()


def test_dense_cells_lie_where_the_frame_says():
    slide = noise_slide(256, 256)
    heatmap = wh.compute_heatmap(slide, quarter_means, window=64, **QUIET)
    laid = lay_cells(heatmap, 1, Canvas((512, 512), (0.0, 0.0), (0.5, 0.5)))
    np.testing.assert_array_equal(laid, heatmap.values[1].repeat(32, 0).repeat(32, 1))


def test_windows_on_no_lattice_cover_what_they_saw(tmp_path):
    slide, coords = noise_slide(300, 300), np.array([[3, 200], [77, 11], [150, 150]])
    values = wh.predict_windows(slide, mean_grey, coords, window=64, out=tmp_path / "a.zarr")
    heatmap = wh.open_heatmap(tmp_path / "a.zarr")
    laid = lay_cells(heatmap, 0, Canvas((300, 300), (0.0, 0.0), (1.0, 1.0)))
    for (y, x), value in zip(coords, values[:, 0], strict=True):
        assert (laid[y + 8 : y + 56, x + 8 : x + 56] == value).all()
    assert np.isnan(laid[0, 0])
    assert compose(heatmap, slide).image.size[0] > 300


def test_cells_smaller_than_a_pixel_are_averaged():
    slide = noise_slide(240, 240)
    heatmap = wh.compute_heatmap(slide, mean_grey, window=2, **QUIET)
    heatmap.values[0, :3, :3] = np.nan
    heatmap.values[0, 3, 3] = np.nan
    laid = lay_cells(heatmap, 0, Canvas((40, 40), (0.0, 0.0), (6.0, 6.0)))
    assert np.isnan(laid[0, 0])
    assert laid[1, 1] == pytest.approx(np.nanmean(heatmap.values[0, 3:6, 3:6]))
    assert laid[-1, -1] == pytest.approx(heatmap.values[0, -3:, -3:].mean())


@pytest.mark.parametrize("factors", [(), (2, 4, 8)])
@pytest.mark.parametrize("side", [1000, 777, 300])
def test_the_overview_puts_things_where_they_are(factors, side):
    level0 = np.full((1500, 2100, 3), 255, np.uint8)
    level0[600:700, 1200:1400] = (200, 0, 0)
    slide = ArraySlide([level0, *(level0[::f, ::f] for f in factors)], mpp=0.5)
    where = lay_canvas((0, 0, 1500, 2100), slide.mpp, side)
    picture = overview(slide, where)
    assert picture.shape == (*where.shape, 3)
    rows, cols = np.nonzero(picture[..., 1] < 128)
    for found, axis, want in ((rows, 0, (600, 700)), (cols, 1, (1200, 1400))):
        edges = where.centres(axis)[[found.min(), found.max()]] + 0.5
        slack = where.scale[axis] / 2 + max(factors, default=1)
        np.testing.assert_allclose(edges, [want[0] + slack, want[1] - slack], atol=slack)


def test_an_enlarged_overview_shows_the_stored_pixels():
    slide = noise_slide(100, 150)
    where = lay_canvas((0, 0, 100, 150), None, 1200)
    assert where.scale == (0.25, 0.25)
    pixels = slide.read_region(0, 0, 0, 100, 150)
    np.testing.assert_array_equal(overview(slide, where), pixels.repeat(4, 0).repeat(4, 1))


def test_only_the_scanned_part_is_drawn():
    slide = noise_slide(400, 600)
    slide.bounds = (100, 200, 150, 300)
    heatmap = wh.compute_heatmap(slide, mean_grey, window=50, **QUIET)
    drawn = compose(heatmap, slide, side=700, opacity=0)
    assert drawn.canvas == Canvas((300, 600), (100.0, 200.0), (0.5, 0.5))
    top, left = drawn.corner
    picture = np.array(drawn.image)[top : top + 300, left : left + 600]
    pixels = slide.read_region(0, 100, 200, 150, 300)
    np.testing.assert_array_equal(picture[:200], pixels.repeat(2, 0).repeat(2, 1)[:200])


def test_pixels_of_other_height_than_width_are_drawn_in_true_proportion():
    where = lay_canvas((0, 0, 1000, 1000), (0.5, 0.25), 1000)
    assert where.shape == (1000, 500)
    assert where.scale == (1.0, 2.0)


def test_a_slide_without_small_levels_is_read_in_parts():
    reads = []

    def read(level, y, x, height, width):
        reads.append(height * width)
        row = np.where(np.arange(x, x + width) < 4000, 100, 200).astype(np.uint8)
        return np.broadcast_to(row[None, :, None], (height, width, 3))

    slide = ArraySlide.from_callable(read, [(6000, 8000)], mpp=0.5)
    picture = overview(slide, lay_canvas((0, 0, 6000, 8000), slide.mpp, 500))
    assert (picture[:, :249] == 100).all()
    assert (picture[:, 251:] == 200).all()
    assert max(reads) * 4 <= BLOCK_BYTES
    assert sum(reads) == 6000 * 8000


def test_damage_is_drawn_grey_and_the_rest_as_it_is():
    slide = FaultySlide(noise_slide(1200, 1200), bad={(700, 300)})
    picture = overview(slide, lay_canvas((0, 0, 1200, 1200), None, 1200))
    grey = (picture == canvas.UNREADABLE).all(-1)
    assert grey[700, 300]
    assert grey.mean() < 0.08
    pixels = slide._slide.read_region(0, 0, 0, 1200, 1200)
    np.testing.assert_array_equal(picture[~grey], pixels[~grey])


def test_channel_by_name_limits_and_colours():
    slide = noise_slide(200, 200)
    model = wh.load_model(mean_rgb, window=50, names=["r", "g", "b"])
    heatmap = wh.compute_heatmap(slide, model, **QUIET)
    for channel in (2, "b"):
        drawn = compose(heatmap, channel=channel, cmap="viridis", limits=(0.4, 0.6), side=200)
        top, left = drawn.corner
        want = colour(heatmap.values[2, 0, 0], (0.4, 0.6), "viridis")
        np.testing.assert_array_equal(np.array(drawn.image)[top + 20, left + 20], want)


def test_without_limits_the_extremes_do_not_decide():
    heatmap = wh.compute_heatmap(noise_slide(400, 400), mean_grey, window=20, **QUIET)
    heatmap.values[0, 0, 0] = 1e6
    assert compose(heatmap, side=400).limits[1] < 1
    heatmap.values[:] = 0.25
    assert compose(heatmap, side=400).limits == (-0.25, 0.75)
    heatmap.values[:] = np.nan
    assert compose(heatmap, side=400).limits == (0, 1)


def test_the_models_own_limits_come_first():
    heatmap = wh.compute_heatmap(noise_slide(200, 200), "tissue", **QUIET)
    assert compose(heatmap, side=200).limits == tuple(heatmap.run["model"]["limits"])


def test_another_slide_is_refused():
    heatmap = wh.compute_heatmap(noise_slide(200, 200), mean_grey, window=50, **QUIET)
    with pytest.raises(ExportError, match="hand over the slide that it was computed on"):
        compose(heatmap, noise_slide(200, 201))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channel": 1}, "no channel 1"),
        ({"channel": "x"}, "no channel 'x'"),
        ({"cmap": "no such map"}, "no colour map"),
        ({"opacity": 1.5}, "opacity"),
        ({"side": 10}, "side"),
        ({"limits": (1, 0)}, "limits"),
        ({"limits": (0, float("nan"))}, "limits"),
    ],
)
def test_options_that_make_no_sense(tmp_path, options, message):
    heatmap = wh.compute_heatmap(noise_slide(100, 100), mean_grey, window=50, **QUIET)
    with pytest.raises(ExportError, match=message):
        heatmap.export(tmp_path / "a.png", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(40, 1500), (1500, 40), (30, 30), (5000, 5000)])
@pytest.mark.parametrize("mpp", [0.25, None])
def test_pictures_of_all_proportions(shape, mpp):
    slide = ArraySlide.from_callable(
        lambda level, y, x, h, w: np.full((h, w, 3), 220, np.uint8), [shape], mpp=mpp
    )
    heatmap = wh.compute_heatmap(slide, mean_grey, window=40, **QUIET)
    drawn = compose(heatmap, slide, side=600)
    assert max(drawn.canvas.shape) in range(300, 601)
    assert max(drawn.image.size) < 1500


def test_text_stays_readable_without_the_typeface(monkeypatch):
    monkeypatch.setattr(lettering, "FACES", {False: "no such face.ttf", True: "nor this.ttf"})
    lettering._font.cache_clear()
    try:
        text = lettering.Lettering(20)
        assert text.width("500 µm²") == text.width("500 um2")
        heatmap = wh.compute_heatmap(noise_slide(200, 200), "nuclei", **QUIET)
        assert compose(heatmap, side=200).image.size[0] > 200
    finally:
        lettering._font.cache_clear()


def test_long_texts_are_cut():
    text = lettering.Lettering(20)
    assert text.fitted("short", 400) == "short"
    cut = text.fitted("a very long name of a slide " * 5, 200)
    assert cut.endswith("…")
    assert text.width(cut) <= 200


@pytest.mark.parametrize(
    ("most", "want"), [(0.99, 0.5), (1, 1), (3, 2), (4.9, 2), (5, 5), (999, 500), (1000, 1000)]
)
def test_lengths_of_the_scale_bar_are_round(most, want):
    assert nice_length(most) == pytest.approx(want)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 6000), (-0.25, 0.75), (1e-9, 3e-9), (5, 5.001), (-3e7, 8e7)]
)
def test_ticks_are_few_round_and_inside(low, high):
    ticks = nice_ticks(low, high)
    assert 3 <= len(ticks) <= 13
    assert min(ticks) >= low - 1e-9 * abs(low)
    assert max(ticks) <= high + 1e-9 * abs(high)


@pytest.mark.parametrize(
    ("ticks", "want"),
    [
        ((0, 0.5, 1), ["0.0", "0.5", "1.0"]),
        ((0, 2000, 4000), ["0", "2,000", "4,000"]),
        ((-0.25, 0), ["−0.25", "0.00"]),
        ((1e-9, 2e-9), ["1e−09", "2e−09"]),
    ],
)
def test_numbers_of_the_colour_bar(ticks, want):
    assert tick_labels(ticks) == want
