"""Row bands of one slide, each in an output of its own, have the bits of a run in one piece."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cohort_made import equal, mean_grey, serial

import napari_wsi_heatmap as wh
from made_slides import tissue, write_tiff
from napari_wsi_heatmap.cohort import bands
from napari_wsi_heatmap.cohort.bands import Banding
from napari_wsi_heatmap.cohort.cuts import cut_rows, owned, state_of_band, touching
from napari_wsi_heatmap.cohort.held import Held
from napari_wsi_heatmap.cohort.request import Request
from napari_wsi_heatmap.cohort.slidelist import list_slides
from napari_wsi_heatmap.dense import DenseMap
from napari_wsi_heatmap.growing import GrowingMap
from napari_wsi_heatmap.states import OUTSIDE, PENDING, state_of

COMMON = {"batch_size": 8, "level": 0}
CASES = {
    "values": (mean_grey, {"window": 8, "stride": 4, "tissue": "none"}),
    "tissue": (mean_grey, {"window": 8, "stride": 4, "tissue": "variance:300", "edge": "flush"}),
}


def quarters(batch):
    return torch.nn.functional.avg_pool2d(batch, batch.shape[2] // 4)


@pytest.fixture(scope="module")
def tall(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tall")
    return write_tiff(folder / "tall.tif", [tissue(2300, 40, 3)], compression="jpeg")


def small_chunks(monkeypatch, side):
    """Chunks are read when arrays are made, so that small maps have several."""
    for module in ("growing", "cohort.cuts"):
        monkeypatch.setattr(f"napari_wsi_heatmap.{module}.CHUNK", side)
    monkeypatch.setattr("napari_wsi_heatmap.cohort.cuts.DENSE_CHUNK", side)
    monkeypatch.setattr(GrowingMap, "chunk", side)
    monkeypatch.setattr(DenseMap, "chunk", side)


def in_bands(tall, out, model, settings, parts=3):
    held = Held(Request(model, out, COMMON | settings))
    item = list_slides(tall)[0]
    banding = bands.divide(held, item, parts)
    assert isinstance(banding, Banding), banding
    for number in reversed(range(len(banding.cuts))):
        facts = bands.work_on_band(held, item, banding, number)
        assert facts.finished, facts.error
    return bands.merge(held, item, banding), banding, held


@pytest.mark.parametrize("case", CASES)
def test_bands_equal_a_serial_run(tall, tmp_path, case):
    model, settings = CASES[case]
    facts, banding, held = in_bands(tall, tmp_path, model, settings)
    assert facts.finished, facts.error
    assert len(banding.cuts) == 3
    assert all(first % 256 == 0 for first, _ in banding.cuts)
    whole = serial(tall, model, **COMMON | settings)
    assert equal(tmp_path / "tall.zarr", whole)
    merged = wh.open_heatmap(tmp_path / "tall.zarr")
    assert merged.run["tissue"] == whole.run["tissue"]
    assert merged.run["settings"] == whole.run["settings"]
    assert not (tmp_path / "tall.bands").exists()
    again = bands.divide(held, list_slides(tall)[0], 3)
    assert (again.finished, again.computed, again.windows) == (True, False, facts.windows)


@pytest.mark.parametrize("blend", ["mean", "gaussian"])
def test_bands_of_a_dense_map_share_the_windows_over_a_cut(tall, tmp_path, monkeypatch, blend):
    small_chunks(monkeypatch, 64)
    settings = {"window": 32, "stride": 24, "tissue": "none", "blend": blend, "disagreement": True}
    _, banding, _ = in_bands(tall, tmp_path, quarters, settings)
    assert len(banding.cuts) == 3
    assert equal(tmp_path / "tall.zarr", serial(tall, quarters, **COMMON | settings))


def test_features_are_merged_too(tall, tmp_path, monkeypatch):
    small_chunks(monkeypatch, 32)
    model = wh.load_model(
        lambda x: (x.mean((2, 3)), x.amax((2, 3))), window=16, output=0, features=1
    )
    settings = {"stride": 16, "tissue": "none"}
    facts, _, _ = in_bands(tall, tmp_path, model, settings)
    assert facts.finished, facts.error
    whole = wh.compute_heatmap(
        tall, model, out=tmp_path / "whole.zarr", progress=False, **COMMON | settings
    )
    assert equal(tmp_path / "tall.zarr", whole)
    merged = wh.open_heatmap(tmp_path / "tall.zarr").features
    assert np.asarray(merged[:]).tobytes() == np.asarray(whole.features[:]).tobytes()


def test_a_merge_that_was_killed_is_done_again(tall, tmp_path, monkeypatch):
    model, settings = CASES["values"]
    written = []
    from napari_wsi_heatmap.cohort import merging

    original = merging._copy_values

    def dies(band, target, cut, side):
        written.append(cut)
        if len(written) == 2:
            raise SystemExit("killed")
        original(band, target, cut, side)

    monkeypatch.setattr(merging, "_copy_values", dies)
    with pytest.raises(SystemExit):
        in_bands(tall, tmp_path, model, settings)
    assert wh.open_heatmap(tmp_path / "tall.zarr").run["counts"]["done"] == 0
    facts, banding, _ = in_bands(tall, tmp_path, model, settings, parts=2)
    assert len(banding.cuts) == 3  # as it was begun
    assert facts.finished, facts.error
    assert equal(tmp_path / "tall.zarr", serial(tall, model, **COMMON | settings))


def test_small_slides_are_not_divided_and_bad_ones_say_why(tall, tmp_path):
    held = Held(Request(mean_grey, tmp_path, COMMON | {"window": 64, "tissue": "none"}))
    facts = bands.divide(held, list_slides(tall)[0], 4)
    assert (facts.finished, facts.windows) == (True, 36)
    missing = bands.divide(held, list_slides([tmp_path / "gone.tif"])[0], 4)
    assert "gone.tif" in missing.error


def test_every_window_is_told_by_one_band(tall, tmp_path):
    plan_of = wh.compute_heatmap(
        tall, quarters, progress=False, window=32, stride=16, tissue="none", level=0, batch_size=8
    )
    frame, rng = plan_of.frame, np.random.default_rng(0)
    for _ in range(20):
        state = np.where(rng.random(frame.grid.shape) < 0.5, PENDING, OUTSIDE).astype(np.uint8)
        cuts = cut_rows(frame, state, int(rng.integers(1, 6)))
        told = sum(owned(frame, cut).astype(int) for cut in cuts)
        assert (told[(state == PENDING).any(1)] == 1).all()
        for cut in cuts:
            assert (touching(frame, cut) | ~owned(frame, cut)).all()
            left = state_of(state_of_band(frame, state, cut)) == PENDING
            assert (left == ((state == PENDING) & touching(frame, cut)[:, None])).all()
