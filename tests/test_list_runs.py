"""Runs over given coordinates: the engine's own, so they keep features and are continued."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import torch

import napari_wsi_heatmap as wh
from made import FaultySlide, mean_rgb, noise_slide, pyramid_slide, quarter_means
from made_features import LENGTH, spectrum, with_features
from napari_wsi_heatmap.control import RunControl
from napari_wsi_heatmap.errors import (
    GridError,
    ModelLoadError,
    ModelOutputError,
    PlanMismatchError,
    StoreError,
    StoreExistsError,
)
from napari_wsi_heatmap.folded import keep_places
from napari_wsi_heatmap.launch import complete
from napari_wsi_heatmap.listrun import prepare_list
from napari_wsi_heatmap.mil.bags import read_features
from napari_wsi_heatmap.mil.kept import bag_of, kept_by
from napari_wsi_heatmap.states import DONE, FAILED, OUTSIDE, state_of

SETTINGS = {"window": 64, "batch_size": 8}
COORDS = np.random.default_rng(5).integers(0, [560, 860], (70, 2))
"""(y, x) on `noise_slide`; some windows hang over its border."""


def planned(slide=None, model=None, coords=COORDS, **settings):
    return prepare_list(
        slide or noise_slide(), model or with_features(), coords, **(SETTINGS | settings)
    )


def expected_features(coords, slide, side=64):
    found = []
    for y, x in np.asarray(coords).tolist():
        patch = torch.from_numpy(slide.read_region(0, y, x, side, side))
        found.append(spectrum(patch.permute(2, 0, 1)[None].float() / 255)[0].numpy())
    return np.array(found, np.float32)


@pytest.mark.parametrize("stored", [False, True])
def test_features_come_in_the_order_of_the_list(tmp_path, stored):
    run = planned(out=tmp_path / "a.zarr" if stored else None)
    seen = np.zeros(len(COORDS), int)
    for piece in run.pieces():
        assert np.array_equal(piece.positions, COORDS[piece.index])
        seen[piece.index] += 1
    assert (seen == 1).all()
    bag = bag_of(kept_by(run))
    assert np.array_equal(bag.coords, COORDS)
    assert np.array_equal(bag.index, np.arange(70))
    np.testing.assert_allclose(bag.features, expected_features(COORDS, noise_slide()), rtol=1e-6)
    if stored:
        again = read_features(tmp_path / "a.zarr")
        assert np.array_equal(again.features, bag.features)
        assert np.array_equal(again.coords, COORDS)
        features = wh.open_heatmap(tmp_path / "a.zarr").features
        assert (features.shape, features.ndim, len(features)) == ((70, LENGTH), 2, 70)
        for at in (0, -1, slice(5, 40), slice(3, 3), (slice(60, None), 2), (7, 1), [3, 69, 20]):
            assert np.array_equal(features[at], bag.features[at])
        assert np.array_equal(np.asarray(features), bag.features)


def test_values_are_those_of_predict_windows(tmp_path):
    complete(planned(model=mean_rgb, out=tmp_path / "a.zarr"), progress=False)
    found = wh.open_heatmap(tmp_path / "a.zarr")
    values = wh.predict_windows(noise_slide(), mean_rgb, COORDS, **SETTINGS)
    assert np.array_equal(found.listed, values)
    assert np.array_equal(found.positions, COORDS)
    assert (state_of(found.state) == DONE).all()
    assert found.values.shape[0] == 3
    table = found.to_dataframe()
    assert np.array_equal(table[["y", "x"]], COORDS)


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
def test_the_finished_map_is_an_ome_image(tmp_path):
    models = pytest.importorskip("ome_zarr_models.v05.image")
    zarr = pytest.importorskip("zarr")
    complete(planned(out=tmp_path / "a.zarr"), progress=False)
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="r")
    image = models.Image.from_zarr(group)
    assert image.ome_attributes.multiscales[0].datasets[0].path == "display"
    heatmap = wh.open_heatmap(tmp_path / "a.zarr")
    np.testing.assert_array_equal(group["display"][:], heatmap.values)


@pytest.mark.parametrize("lost_places", [False, True])
def test_a_stopped_run_is_continued(tmp_path, lost_places):
    out, calls = tmp_path / "a.zarr", []

    def counted(batch):
        calls.append(len(batch))
        return with_features().forward(batch)

    model = wh.load_model(counted, output=0, features=1)
    run = planned(model=model, out=out)
    pieces = run.pieces()
    for _ in range(4):
        next(pieces)
    pieces.close()
    assert json.loads((out / "run.json").read_text())["status"] == "paused"
    assert len(read_features(out)) == 32
    if lost_places:
        chunk = out / "windows/coords/c/0/0"
        chunk.unlink()
        with pytest.raises(StoreError, match="places of the windows are missing"):
            wh.open_heatmap(out)
    calls.clear()
    rest = planned(model=model, out=out)
    assert (rest.progress.done, rest.progress.planned) == (32, 70)
    complete(rest, progress=False)
    whole = planned(model=model)
    complete(whole, progress=False)
    assert np.array_equal(read_features(out).features, bag_of(kept_by(whole)).features)
    assert np.array_equal(read_features(out).coords, COORDS)
    assert wh.open_heatmap(out).run["status"] == "done"


def test_what_is_done_is_not_done_again(tmp_path):
    complete(planned(out=tmp_path / "a.zarr"), progress=False)
    assert list(planned(out=tmp_path / "a.zarr").pieces()) == []
    with pytest.raises(ModelLoadError, match="hand it over again"):
        wh.resume(tmp_path / "a.zarr", slide=noise_slide())
    rest = wh.resume(tmp_path / "a.zarr", slide=noise_slide(), model=with_features())
    assert list(rest.pieces()) == []


def test_other_places_are_another_plan(tmp_path):
    complete(planned(out=tmp_path / "a.zarr"), progress=False)
    with pytest.raises(PlanMismatchError, match="another selection"):
        planned(coords=COORDS + 1, out=tmp_path / "a.zarr")
    with pytest.raises(PlanMismatchError):
        planned(coords=COORDS[:-1], out=tmp_path / "a.zarr")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/x").touch()
    with pytest.raises(StoreExistsError):
        planned(out=tmp_path / "b")


def test_windows_that_cannot_be_read_are_left_out(tmp_path):
    slide = FaultySlide(noise_slide(), bad={(300, 300)})
    coords = np.array([[0, 0], [280, 280], [100, 500], [299, 237]])
    run = planned(slide, coords=coords, out=tmp_path / "a.zarr")
    complete(run, progress=False)
    bag = read_features(tmp_path / "a.zarr")
    assert bag.index.tolist() == [0, 2]
    assert bag.notices == ("2 windows could not be read: left out of the bag",)
    heatmap = wh.open_heatmap(tmp_path / "a.zarr")
    assert (state_of(heatmap.state) == [DONE, FAILED, DONE, FAILED]).all()
    assert heatmap.run["status"] == "done-with-failures"
    assert (state_of(run.growing.state) == OUTSIDE).sum() == 12


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17])
def test_any_number(n):
    run = planned(coords=COORDS[:n])
    complete(run, progress=False)
    np.testing.assert_allclose(
        bag_of(kept_by(run)).features, expected_features(COORDS[:n], noise_slide()), rtol=1e-6
    )


def test_one_place_may_be_listed_twice():
    coords = np.array([[10, 20], [10, 20], [11, 20]])
    run = planned(coords=coords)
    complete(run, progress=False)
    bag = bag_of(kept_by(run))
    assert np.array_equal(bag.features[0], bag.features[1])
    assert np.array_equal(bag.coords, coords)


def test_a_size_at_level_0_is_read_from_the_level_that_suits_the_model():
    coords = np.array([[0, 0], [256, 128]])
    for side, level, footprint in ((256, 1, 64), (255, 1, 64), (128, 0, 128), (800, 1, 200)):
        run = planned(pyramid_slide(), coords=coords, patch_size=(side, side))
        spec = run.plan.grid.spec
        assert (spec.level, spec.footprint, spec.window) == (level, (footprint,) * 2, (64, 64))
    run = planned(pyramid_slide(), coords=coords, patch_size=(256, 256), level=0)
    assert (run.plan.grid.spec.level, run.plan.grid.spec.footprint) == (0, (256, 256))


def test_what_cannot_be_is_said_beforehand(tmp_path):
    with pytest.raises(GridError, match=r"1 of 2 windows lie beyond.*this slide"):
        planned(coords=[[0, 0], [600, 0]])
    with pytest.raises(GridError, match="no coordinates"):
        planned(coords=np.zeros((0, 2)))
    with pytest.raises(GridError, match=r"\(N, 2\) numbers"):
        planned(coords=[1, 2])
    with pytest.raises(GridError, match="no level 7"):
        planned(patch_size=(64, 64), level=7)
    with pytest.raises(ModelOutputError, match="4 x 4 cells"):
        planned(model=quarter_means)
    with pytest.raises(TypeError, match="no setting"):
        planned(colour=1)


def test_a_look_elsewhere_comes_first():
    far = np.array([[y, x] for y in range(0, 20000, 4000) for x in range(0, 20000, 4000)])
    slide = wh.open_slide(big_slide())
    settings = {"coords": far, "window": 32, "readers": 1}  # of two the second may be faster
    run = planned(slide, **settings, order="viewport", viewport=(16000, 0, 16032, 32))
    with_look = next(run.pieces()).positions
    assert with_look[0].tolist() == [16000, 0]
    run = planned(slide, **settings)
    run.look_at([np.array([[8000, 8000], [8000, 8032], [8032, 8032.0]])])
    run._order.look_at((8000, 8000, 8032, 8032))
    assert next(run.pieces()).positions[0].tolist() == [8000, 8000]


def big_slide():
    from napari_wsi_heatmap.slides.array import ArraySlide

    def read(level, y, x, height, width):
        return np.full((height, width, 3), (y // 4000 * 10 + x // 4000) % 251, np.uint8)

    return ArraySlide.from_callable(read, [(20000, 20000)], mpp=0.5)


def test_a_cancelled_run_keeps_what_it_has(tmp_path):
    control = RunControl()
    run = planned(out=tmp_path / "a.zarr", control=control)
    for _ in run.pieces():
        control.cancel()
    assert 0 < len(read_features(tmp_path / "a.zarr")) < 70
    assert "not encoded yet" in read_features(tmp_path / "a.zarr").notices[0]


def test_places_are_written_once(tmp_path):
    run = planned(out=tmp_path / "a.zarr")
    complete(run, progress=False)
    written = (tmp_path / "a.zarr/windows/coords/c/0/0").stat().st_mtime_ns
    keep_places(tmp_path / "a.zarr", run.plan.grid)
    assert (tmp_path / "a.zarr/windows/coords/c/0/0").stat().st_mtime_ns == written
    assert threading.active_count() < 20
    assert read_features(tmp_path / "a.zarr").features.shape[1] == LENGTH
