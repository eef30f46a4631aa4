"""The patch of a window is, bit for bit, what the model got in the run."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from seen_windows import Recording, as_the_model_got_them, recorded_run

import napari_wsi_heatmap as wh
from made import FaultySlide, mean_grey, noise_slide, pyramid_slide
from made_slides import red_for_blue, strided, tissue, write_aperio, write_tiff
from napari_wsi_heatmap.errors import (
    GridError,
    SlideChangedError,
    SlideError,
    SlideOpenError,
    SlideReadError,
)
from napari_wsi_heatmap.inspecting.patches import patches
from napari_wsi_heatmap.models.normalize import Normalize
from napari_wsi_heatmap.slides.icc import IccSlide

QUIET = {"tissue": "none", "progress": False}


@pytest.fixture(scope="module")
def pyramid():
    return pyramid_slide(300, 260, mpp=0.25)


@pytest.fixture(scope="module")
def aperio(tmp_path_factory):
    """JPEG tiles, two levels, 0.5 µm/px."""
    levels = strided(tissue(420, 530), 4)
    return write_aperio(tmp_path_factory.mktemp("slides") / "a.svs", levels)


def assert_same(heatmap, slide, got):
    """All windows that were computed, in an order of their own."""
    assert len(got) == heatmap.run["counts"]["done"] > 0
    index = np.random.default_rng(0).permutation(sorted(got))
    expected = np.stack([got[i] for i in index.tolist()])
    seen = patches(heatmap, slide, index)
    assert seen.dtype == np.uint8
    np.testing.assert_array_equal(
        as_the_model_got_them(seen).view(np.uint32), expected.view(np.uint32)
    )


@pytest.mark.parametrize("resize", ["pillow", "torch"])
@pytest.mark.parametrize(
    "settings",
    [
        {"edge": "pad", "stride": 31},
        {"edge": "flush", "mpp": 0.7},  # shrunk
        {"edge": "pad", "mpp": 0.11},  # enlarged: finer than the slide
        {"edge": "centre", "mpp": 1.3},  # from level 1
        {"edge": "drop", "level": 1, "window": (20, 33), "stride": (9, 40)},
        {"edge": "flush", "mpp": 0.4, "window": (24, 60)},
        {"edge": "pad", "level": 2, "window": 20},  # a downsample that is no whole number
        {"edge": "pad", "window": 500},  # larger than the slide
        {"edge": "pad", "mpp": 0.5, "batch_size": 7, "roi": (0, 0, 200, 150)},
    ],
)
def test_they_are_what_the_model_got(pyramid, resize, settings):
    heatmap, got = recorded_run(pyramid, Recording(), **{"resize": resize, **settings})
    assert_same(heatmap, pyramid, got)


@pytest.mark.parametrize("edge", ["pad", "flush"])
@pytest.mark.parametrize("blend", ["mean", "last"])
def test_of_a_dense_model_too(pyramid, edge, blend):
    model = Recording(cells=(4, 4))
    settings = {"edge": edge, "stride": 24, "mpp": 0.25, "blend": blend}
    assert_same(*_with(pyramid, recorded_run(pyramid, model, **settings)))


def _with(slide, ran):
    return ran[0], slide, ran[1]


def test_behind_a_normalisation_it_is_undone(pyramid):
    got = Recording()
    mean, std = (0.7, 0.54, 0.7), (0.2, 0.25, 0.21)
    model = wh.load_model(got, transform=Normalize(mean, std))
    heatmap, seen = _run_of(pyramid, model, got)
    undone = np.stack([seen[i] for i in range(len(seen))]).transpose(0, 2, 3, 1) * std + mean
    shown = patches(heatmap, pyramid, range(len(seen)))
    np.testing.assert_allclose(undone, shown / 255, atol=1e-6)


def _run_of(slide, model, recording):
    from napari_wsi_heatmap.launch import prepare

    run, seen = prepare(slide, model, level=0, tissue="none", batch_size=4), {}
    for piece in run.pieces():
        rows = [recording.rows[int(n)] for n in piece.values[:, 0]]
        seen |= dict(zip(piece.index.tolist(), rows, strict=True))
    return run.heatmap, seen


def test_what_hangs_over_is_background(pyramid):
    heatmap = wh.compute_heatmap(pyramid, mean_grey, window=64, stride=50, **QUIET)
    patch = heatmap.patch(heatmap.grid.size - 1, pyramid)
    y, x = heatmap.grid.origins(np.array([heatmap.grid.size - 1]))[0]
    assert (y + 64 > 300) or (x + 64 > 260)
    assert (patch[300 - y :] == 240).all()
    assert (patch[:, 260 - x :] == 240).all()
    assert patch[: 300 - y, : 260 - x].std() > 50


@pytest.mark.parametrize("resize", ["pillow", "torch"])
def test_of_a_saved_map_the_slide_is_found_where_it_lay(aperio, tmp_path, resize):
    out = tmp_path / "a.zarr"
    _, got = recorded_run(str(aperio), Recording(40), mpp=0.8, resize=resize, out=out)
    assert_same(wh.open_heatmap(out), None, got)
    assert_same(wh.open_heatmap(out), str(aperio), got)
    with wh.open_slide(aperio) as slide:
        assert_same(wh.open_heatmap(out), slide, got)


@pytest.mark.parametrize("icc", [False, True])
def test_they_have_the_colours_that_the_model_saw(tmp_path, icc):
    levels = strided(tissue(200, 240), 4)
    path = write_tiff(tmp_path / "swapped.tif", levels, icc=red_for_blue())
    heatmap, got = recorded_run(str(path), Recording(), icc=icc)
    with wh.open_slide(path) as slide:
        assert_same(heatmap, slide, got)
    if not icc:
        with wh.open_slide(path) as slide, pytest.raises(SlideChangedError, match="colours"):
            heatmap.patch(0, IccSlide(slide))


def test_of_a_list_of_windows(pyramid, tmp_path):
    corners = np.random.default_rng(1).integers(-20, 260, (30, 2))
    for resize in ("pillow", "torch"):
        model = Recording(48)
        out = tmp_path / f"{resize}.zarr"
        settings = {"mpp": 0.45, "resize": resize, "batch_size": 4}
        values = wh.predict_windows(pyramid, model, corners, out=out, **settings)
        got = {i: model.rows[int(n)] for i, n in enumerate(values[:, 0])}
        assert_same(wh.open_heatmap(out), pyramid, got)


def test_of_a_map_that_others_made_pixels_are_as_stored(aperio, tmp_path):
    table = tmp_path / "theirs.csv"
    table.write_text("minx,miny,width,height,prob_tumor\n100,40,64,64,0.25\n164,40,64,64,0.5\n")
    heatmap = wh.open_heatmap(table, aperio)
    with wh.open_slide(aperio) as slide:
        np.testing.assert_array_equal(
            patches(heatmap, None, [1])[0], slide.read_region(0, 40, 164, 64, 64)
        )


def test_of_a_difference(pyramid):
    first = wh.compute_heatmap(pyramid, mean_grey, window=40, mpp=0.5, resize="torch", **QUIET)
    both = first.minus(wh.compute_heatmap(pyramid, mean_grey, window=40, mpp=0.5, **QUIET))
    np.testing.assert_array_equal(both.patch(5, pyramid), first.patch(5, pyramid))


def test_patches_are_in_the_order_asked_for(pyramid):
    heatmap = wh.compute_heatmap(pyramid, mean_grey, window=64, **QUIET)
    three = patches(heatmap, pyramid, [7, 0, 7])
    np.testing.assert_array_equal(three[0], three[2])
    np.testing.assert_array_equal(three[1], pyramid.read_region(0, 0, 0, 64, 64))
    assert patches(heatmap, pyramid, []).shape == (0, 64, 64, 3)


@pytest.mark.parametrize("index", [[-1], [10**6], [0.5], [[0, 1]], ["a"], [True]])
def test_a_window_that_there_is_not_is_refused(pyramid, index):
    heatmap = wh.compute_heatmap(pyramid, mean_grey, window=64, **QUIET)
    with pytest.raises(GridError, match="no window"):
        patches(heatmap, pyramid, index)


def test_another_slide_is_refused(pyramid):
    heatmap = wh.compute_heatmap(pyramid, mean_grey, window=64, **QUIET)
    with pytest.raises(SlideChangedError, match="computed on pyramid"):
        heatmap.patch(0, noise_slide(300, 260))


def test_a_slide_that_is_missing_is_told_in_one_line(aperio, tmp_path):
    path = shutil.copy(aperio, tmp_path / "b.svs")
    heatmap = wh.compute_heatmap(path, mean_grey, window=64, **QUIET)
    (tmp_path / "b.svs").unlink()
    with pytest.raises(SlideOpenError) as told:
        heatmap.patch(0)
    assert "b.svs" in str(told.value)
    assert "\n" not in str(told.value)
    assert heatmap.patch(0, aperio).shape == (64, 64, 3)  # where it lies now


def test_of_a_slide_in_memory_it_must_be_handed_over(pyramid):
    heatmap = wh.compute_heatmap(pyramid, mean_grey, window=64, **QUIET)
    with pytest.raises(SlideOpenError, match="hand the slide over"):
        heatmap.patch(0)


def test_a_window_that_cannot_be_read_says_so():
    slide = FaultySlide(noise_slide(200, 200), bad=[(10, 10)])
    heatmap = wh.compute_heatmap(slide, mean_grey, window=64, **QUIET)
    with pytest.raises(SlideReadError, match="damaged"):
        heatmap.patch(0, slide)
    assert issubclass(SlideReadError, SlideError)
    assert heatmap.patch(3, slide).shape == (64, 64, 3)


def test_without_resizing_torch_is_not_needed(pyramid, monkeypatch):
    heatmap = wh.compute_heatmap(pyramid, mean_grey, window=64, **QUIET)

    def refuse(*_):
        raise AssertionError("torch was called")

    monkeypatch.setattr(torch, "from_numpy", refuse)
    assert heatmap.patch(0, pyramid).shape == (64, 64, 3)
