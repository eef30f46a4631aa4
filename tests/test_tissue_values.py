"""Values kept beside a mask: another threshold gives what a run with it finds, to the bit."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from made import FaultySlide, mean_grey
from made_slides import write_tiff
from napari_wsi_heatmap import cli
from napari_wsi_heatmap.errors import GridError, HeatmapError
from napari_wsi_heatmap.grid import lay_grid, resolve_window
from napari_wsi_heatmap.selection import choose_windows, windows_wanted
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.tissue import find_tissue, keep_values, tissue_share
from napari_wsi_heatmap.tissuerules import values as values_module
from napari_wsi_heatmap.tissuerules import variance, variance2
from test_tissue_windows import Half, patchy

THRESHOLDS = {
    "otsu": [0, 9, 12.5, 40, 255],
    "variance": [0, 20.5, 80, 150, 1e6],
    "variance2": [0, 20.5, 80, 150, 1e6],
}
CASES = [(rule, threshold) for rule, of_it in THRESHOLDS.items() for threshold in of_it]


def stained(height=900, width=1300):
    """Patches of noise, some of them pink."""
    pixels = patchy(height, width)
    pixels[100:500, 300:900, 1] //= 2
    return pixels


def slides():
    whole = ArraySlide([stained()], mpp=2.0)
    return {
        "whole": whole,
        "damaged": FaultySlide(ArraySlide([stained()], mpp=2.0), bad=[(300, 310), (890, 1290)]),
        "half scanned": Half([stained()], mpp=2.0, background=(255, 255, 255)),
    }


def grid_of(slide, window=64, stride=40, edge="pad"):
    return lay_grid(resolve_window(slide, window, stride), slide.levels[0].shape, edge)


@pytest.mark.parametrize("roi", [None, (100, 400, 500, 800)])
@pytest.mark.parametrize("kind", slides())
@pytest.mark.parametrize(("rule", "threshold"), CASES)
def test_a_moved_threshold_gives_the_windows_of_a_run_with_it(
    rule, threshold, kind, roi, monkeypatch
):
    monkeypatch.setattr(variance, "CELLS_AT_ONCE", 500)
    monkeypatch.setattr(variance2, "ROWS_AT_ONCE", 2)
    slide = slides()[kind]
    grid = grid_of(slide)
    wanted = windows_wanted(slide, grid, roi)
    moved = keep_values(slide, rule, grid, wanted).moved(threshold).tissue()
    run = find_tissue(slide, f"{rule}:{threshold}", grid, wanted)
    assert moved.record == run.record
    assert moved.downsample == run.downsample
    np.testing.assert_array_equal(moved.mask, run.mask)
    np.testing.assert_array_equal(moved.windows, run.windows)
    chosen = [choose_windows(slide, grid, found, roi=roi).sha256 for found in (moved, run)]
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize("rule", THRESHOLDS)
def test_thresholds_make_a_difference_and_higher_ones_leave_less(rule):
    slide = slides()["whole"]
    kept = keep_values(slide, rule, grid_of(slide))
    counts = [int(kept.moved(threshold).mask().sum()) for threshold in THRESHOLDS[rule]]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 0
    assert len(set(counts)) >= 4


def test_a_threshold_as_given_is_in_force_from_the_start():
    slide = slides()["whole"]
    for rule in ("otsu:30", "variance:150", "variance2:150", "otsu", "variance", "variance2"):
        kept, found = (look(slide, rule, grid_of(slide)) for look in (keep_values, find_tissue))
        assert kept.tissue().record == found.record
        np.testing.assert_array_equal(kept.mask(), found.mask if found.windows is None
                                      else found.windows)  # fmt: skip


def test_rules_without_a_threshold_keep_nothing():
    slide = slides()["whole"]
    for rule in ("none", np.eye(9, 13, dtype=bool), [[[0, 0], [0, 99], [99, 0]]]):
        assert keep_values(slide, rule, grid_of(slide)) is None
    with pytest.raises(GridError, match="looks at windows"):
        keep_values(slide, "variance")


def test_the_values_are_those_of_the_pixels():
    slide = slides()["whole"]
    pixels, grid = stained(), grid_of(slide)
    kept = keep_values(slide, "variance", grid)
    for i, j in [(0, 0), (7, 13), (grid.shape[0] - 1, grid.shape[1] - 1)]:
        seen = pixels[40 * i : 40 * i + 64, 40 * j : 40 * j + 64]
        assert kept.at(i, j) == pytest.approx(seen.var(), abs=1e-9)
        assert kept.first_at(i, j) is None
    kept = keep_values(slide, "variance2", grid)
    assert kept.at(3, 5) == pytest.approx(pixels[192:256, 320:384].var(), abs=1e-9)
    assert kept.first_at(3, 5) == pytest.approx(pixels[:256, 256:512].var(), abs=1e-9)
    kept = keep_values(slide, "otsu")
    block = pixels[200:204, 400:404].reshape(-1, 3).mean(0)
    saturation = 255 * (block.max() - block.min()) / block.max()
    assert kept.at(50, 100) == pytest.approx(saturation, abs=2)


def test_damage_and_what_nobody_looked_at_are_no_values():
    slide = slides()["damaged"]
    for rule in THRESHOLDS:
        kept = keep_values(slide, rule, grid_of(slide))
        y, x = (np.array([300, 310]) / (kept.downsample if not kept.windows else 40)).astype(int)
        assert kept.at(y, x) == math.inf
        assert kept.moved(1e9 if rule != "otsu" else 255).mask()[y, x]
    slide = slides()["half scanned"]
    for rule in THRESHOLDS:
        kept = keep_values(slide, rule, grid_of(slide))
        assert math.isnan(kept.at(0, kept.values.shape[1] - 1))
        assert not kept.moved(0).mask()[:, -1].any()
    slide = slides()["whole"]
    wanted = np.zeros(grid_of(slide).shape, bool)
    wanted[3, 4] = True
    kept = keep_values(slide, "variance", grid_of(slide), wanted)
    np.testing.assert_array_equal(np.isfinite(kept.values), wanted)


def test_the_first_pass_rejects_but_keeps_what_it_rejects():
    """A lower threshold must find tiles again that a higher one lost with their square."""
    pixels = np.full((512, 512, 3), 230, np.uint8)
    pixels[64:128, 64:128] = 200 + 30 * (np.indices((64, 64)).sum(0) % 2)[..., None]
    slide = ArraySlide([pixels])
    kept = keep_values(slide, "variance2:100")
    tile, square = kept.at(1, 1), kept.first_at(1, 1)
    assert square < 100 < tile
    assert not kept.mask().any()
    assert np.argwhere(kept.moved(square / 2).mask()).tolist() == [[1, 1]]


def test_a_threshold_given_to_otsu_is_taken_whatever_it_means():
    glass = ArraySlide([np.full((500, 500, 3), 240, np.uint8)], mpp=8.0)
    assert find_tissue(glass, "otsu").mask is None
    assert not find_tissue(glass, "otsu:0").mask.any()
    assert find_tissue(glass, "otsu:0").notice is None
    kept = keep_values(glass, "otsu")
    assert kept.notice is not None
    assert kept.tissue().record["rule"] == "none"
    assert kept.moved(3).tissue().record == {"rule": "otsu", "threshold": 3}


def test_a_run_with_a_given_saturation_records_it_and_is_resumed(tmp_path):
    slide, out = slides()["whole"], tmp_path / "a.zarr"
    asked = {"window": 64, "batch_size": 4, "tissue": "otsu:40", "out": out}
    pieces = wh.run(slide, mean_grey, **asked)
    next(pieces)
    pieces.close()
    record = json.loads((out / "run.json").read_text())
    assert record["tissue"] == {"rule": "otsu", "threshold": 40}
    assert record["settings"]["tissue"] == "otsu:40"
    with pytest.raises(HeatmapError, match="another selection"):
        next(wh.run(slide, mean_grey, **asked | {"tissue": "otsu:9"}))
    resumed = wh.resume(out, slide=slide, model=mean_grey)
    assert list(resumed.pieces())
    grid = grid_of(slide, 64, 64)
    expected = tissue_share(keep_values(slide, "otsu").moved(40).tissue(), grid) >= 0.1 - 1e-6
    np.testing.assert_array_equal((resumed.heatmap.state & 15) == 1, expected)
    assert 0 < expected.sum() < expected.size


def test_the_command_line_takes_a_saturation(tmp_path):
    path, out = write_tiff(tmp_path / "a.tif", [stained()]), tmp_path / "a.zarr"
    words = [
        "run",
        str(path),
        "--model",
        "hematoxylin",
        "--level",
        "0",
        "--out",
        str(out),
        "--quiet",
    ]
    with pytest.raises(SystemExit) as refused:
        cli.main([*words, "--tissue", "otsu:256"])
    assert refused.value.code == 2
    assert cli.main([*words, "--tissue", "otsu:40"]) == 0
    heatmap = wh.open_heatmap(out)
    assert heatmap.run["tissue"] == {"rule": "otsu", "threshold": 40}
    with wh.open_slide(path) as slide:
        chosen = choose_windows(slide, heatmap.grid, find_tissue(slide, "otsu:40"))
    np.testing.assert_array_equal((heatmap.state & 15) == 1, (chosen.state & 15) == 0)


def test_whole_numbers_stay_whole_in_the_comparison():
    kept = values_module.TissueValues("otsu", np.array([[-1, 0, 40, 41, 255, 256]], np.int16), 40)
    for threshold, expected in [(0, 4), (40, 3), (40.9, 3), (41, 2), (255, 1), (1e300, 1)]:
        assert kept.moved(threshold).mask().sum() == expected
