"""Runs over slides that are damaged, or change meanwhile: what is right stays, the rest fails."""

from __future__ import annotations

import itertools
import os
import shutil

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from made import mean_rgb
from made_slides import noise, smash_tile, strided, tissue, write_aperio, write_tiff
from napari_wsi_heatmap import slidewatch
from napari_wsi_heatmap.errors import SlideChangedError, SlideOpenError, SlideReadError
from napari_wsi_heatmap.launch import prepare
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.states import DONE, FAILED, state_of

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
BACKENDS = ["tiff", "openslide"]
QUIET = {"progress": False, "tissue": "none"}
TILE = 128
SIDE = 1024


def svs(path, seed=0, side=SIDE):
    return write_aperio(path, strided(tissue(side, side, seed), 4), tile=TILE)


def touched(heatmap, tile, downsample=1):
    """(Y, X) bool: the windows that cover a part of the box (y, x, height, width) of the level."""
    y, x = heatmap.positions[..., 0] / downsample, heatmap.positions[..., 1] / downsample
    height, width = heatmap.grid.spec.footprint
    top, left, rows, columns = tile
    below = (y < top + rows) & (y + height > top)
    return below & (x < left + columns) & (x + width > left)


def assert_only(failed, heatmap, clean):
    """Exactly these windows failed, and all others have the values of the whole slide."""
    np.testing.assert_array_equal(state_of(heatmap.state) == FAILED, failed)
    np.testing.assert_array_equal(state_of(heatmap.state) == DONE, ~failed)
    assert np.isnan(heatmap.values[:, failed]).all()
    assert np.array_equal(heatmap.values[:, ~failed], clean.values[:, ~failed])
    assert heatmap.run["status"] == "done-with-failures"
    assert heatmap.run["counts"]["failed"] == failed.sum() > 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("stride", "window"), [(64, 64), (40, 96)])
def test_exactly_the_windows_on_a_smashed_tile_fail(tmp_path, backend, stride, window):
    path = svs(tmp_path / "a.svs")
    options = {"window": window, "stride": stride, "level": 0, **QUIET}
    with open_slide(path, backend) as slide:
        clean = wh.compute_heatmap(slide, mean_rgb, **options)
    assert (state_of(clean.state) == DONE).all()
    row, column = 3, 5
    smash_tile(path, row * (SIDE // TILE) + column)
    with open_slide(path, backend) as slide:
        heatmap = wh.compute_heatmap(slide, mean_rgb, out=tmp_path / "a.zarr", **options)
    failed = touched(heatmap, (row * TILE, column * TILE, TILE, TILE))
    assert_only(failed, heatmap, clean)
    assert all("JPEG" in why for _, why in heatmap.run["failed"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_smashed_tile_of_a_coarser_level(tmp_path, backend):
    path = svs(tmp_path / "a.svs")
    options = {"window": 32, "stride": 32, "level": 1, **QUIET}
    with open_slide(path, backend) as slide:
        clean = wh.compute_heatmap(slide, mean_rgb, **options)
    smash_tile(path, 3, page=1)
    with open_slide(path, backend) as slide:
        heatmap = wh.compute_heatmap(slide, mean_rgb, **options)
    assert_only(touched(heatmap, (TILE, TILE, TILE, TILE), 4), heatmap, clean)


@pytest.mark.parametrize("compression", ["lzw", "zlib", "zstd"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_other_codecs_with_a_builtin_model(tmp_path, backend, compression):
    path = tmp_path / "a.tif"
    levels = strided(tissue(SIDE, SIDE), 4)
    write_tiff(path, levels, tile=TILE, mpp=0.5, compression=compression)
    with open_slide(path, backend) as slide:
        clean = wh.compute_heatmap(slide, "hematoxylin", **QUIET)
    smash_tile(path, 8)
    with open_slide(path, backend) as slide:
        heatmap = wh.compute_heatmap(slide, "hematoxylin", **QUIET)
    assert_only(touched(heatmap, (TILE, 0, TILE, TILE)), heatmap, clean)


class TestMirax:
    """A real slide without two of its data files: levels 0 and 1 have lost all of its tissue."""

    @pytest.fixture
    def source(self, data_dir):
        return data_dir / "slides" / "mrxs" / "Mirax2-Fluorescence-2.mrxs"

    @pytest.fixture
    def cut_off(self, source, tmp_path):
        """A copy, of whose level 2 half of the data is lost."""
        folder = tmp_path / "a"
        shutil.copytree(source.with_suffix(""), folder, copy_function=shutil.copyfile)
        folder.chmod(0o755)  # the source may be read-only
        data = folder / "Data0007.dat"
        os.truncate(data, data.stat().st_size // 2)
        return shutil.copyfile(source, tmp_path / "a.mrxs")

    def test_where_all_is_missing_all_windows_fail(self, source):
        with open_slide(source) as slide:
            y, x, _, _ = slide.bounds
            roi = y + 1024, x + 1024, y + 4096, x + 4096
            options = {"stride": 256, "window": 256, **QUIET}
            heatmap = wh.compute_heatmap(slide, mean_rgb, level=1, roi=roi, **options)
        counts = heatmap.run["counts"]
        assert counts["failed"] >= 25
        assert counts["done"] == counts["pending"] == 0
        assert all(
            "Data0005.dat" in why or "Data0006.dat" in why for _, why in heatmap.run["failed"]
        )

    def test_levels_that_need_none_of_it_are_whole(self, source):
        heatmap = wh.compute_heatmap(source, "hematoxylin", level=4, **QUIET)
        assert heatmap.run["status"] == "done"
        assert heatmap.run["counts"]["failed"] == 0
        assert heatmap.run["counts"]["done"] > 50

    def test_exactly_the_windows_on_lost_data_fail(self, source, cut_off):
        options = {"stride": 128, "window": 256, "level": 2, **QUIET}
        clean = wh.compute_heatmap(source, mean_rgb, **options)
        with open_slide(cut_off) as slide:
            heatmap = wh.compute_heatmap(slide, mean_rgb, **options)
            failed = state_of(heatmap.state) == FAILED
            computed = np.argwhere(state_of(clean.state) == DONE)
            assert 0.1 * len(computed) < failed.sum() < 0.9 * len(computed)
            for row, column in computed.tolist():
                y, x = (int(v) // 4 for v in heatmap.positions[row, column])
                assert failed[row, column] == (not readable(slide, 2, y, x, 256, 256))
        same = state_of(heatmap.state) == DONE
        np.testing.assert_array_equal(same | failed, state_of(clean.state) == DONE)
        # OpenSlide composes this format with rounding that depends on the box that is read.
        np.testing.assert_allclose(
            heatmap.values[:, same], clean.values[:, same], rtol=0, atol=1 / 255
        )


def readable(slide, *box):
    try:
        slide.read_region(*box)
    except SlideReadError:
        return False
    return True


def replaced(path, other):
    os.replace(other, path)


def overwritten(path, other):
    with path.open("r+b") as file:
        file.write(other.read_bytes())
        file.truncate()


def truncated(path, other):
    os.truncate(path, path.stat().st_size // 10)


def deleted(path, other):
    path.unlink()


CHANGES = {f.__name__: f for f in (replaced, overwritten, truncated, deleted)}


def stored(path, seed):
    """Uncompressed: all slides of a size have the same layout, so no decoder sees a change."""
    return write_tiff(path, [noise(4096, 4096, seed)], tile=TILE, compression=None)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("often", [True, False], ids=["looked often", "looked at its end"])
def test_a_slide_that_changes_during_a_run(tmp_path, monkeypatch, change, backend, often):
    if often:
        monkeypatch.setattr(slidewatch, "CHECK_S", 0.0)
    path, out = stored(tmp_path / "a.tif", 0), tmp_path / "a.zarr"
    other = stored(tmp_path / "other.tif", 7)
    options = {"window": 64, "stride": 64, "level": 0, "batch_size": 8, "tissue": "none"}
    whole = shutil.copy(path, tmp_path / "whole.tif")
    clean = wh.compute_heatmap(whole, mean_rgb, progress=False, **options)
    with open_slide(path, backend) as slide:
        run = prepare(slide, mean_rgb, out=out, readers=1, memory=64, **options)
        pieces = run.pieces()
        list(itertools.islice(pieces, 5))
        CHANGES[change](path, other)
        with pytest.raises(SlideChangedError, match=r"is gone|was changed or replaced") as caught:
            list(pieces)
    assert str(path) in str(caught.value)
    kept = wh.open_heatmap(out)
    assert kept.run["status"] in ("failed", "paused")
    assert str(path) in kept.run["reason"]
    done = state_of(kept.state) == DONE
    assert done.sum() > 0
    np.testing.assert_array_equal(kept.values[:, done], clean.values[:, done])
    assert not (state_of(kept.state) == FAILED).any()


@needs_pipes
@pytest.mark.parametrize("name", ["tiff", "openslide", "cucim", "picture", None])
@pytest.mark.parametrize("ending", ["svs", "tif", "png", "jpg"])
def test_pipes_and_devices_are_refused_at_once(tmp_path, name, ending):
    pipe, device = tmp_path / f"pipe.{ending}", tmp_path / f"device.{ending}"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    for path in (pipe, device):
        with pytest.raises(SlideOpenError, match=r"not a regular file|does not read a") as caught:
            open_slide(path, name)
        assert str(caught.value).isprintable()


@needs_pipes
def test_a_pipe_in_place_of_an_ome_zarr(tmp_path):
    path = tmp_path / "pipe.zarr"
    os.mkfifo(path)
    with pytest.raises(SlideOpenError):
        open_slide(path)
    with pytest.raises(SlideOpenError):
        open_slide(path, "omezarr")
    folder = tmp_path / "a.zarr"
    folder.mkdir()
    os.mkfifo(folder / "zarr.json")
    with pytest.raises(SlideOpenError):
        open_slide(folder)
