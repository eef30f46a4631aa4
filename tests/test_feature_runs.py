"""Whole runs of models that give features: in pieces, in memory, in the store, in tables."""

from __future__ import annotations

import json

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from made import FaultySlide, mean_rgb, naive, noise_slide
from made_features import LENGTH, grey_and_spectrum, naive_features, with_features
from napari_wsi_heatmap import growing, heatmap
from napari_wsi_heatmap.errors import (
    ExportError,
    ModelOutputError,
    PlanMismatchError,
    StoreError,
)
from napari_wsi_heatmap.launch import complete, prepare, resume
from napari_wsi_heatmap.states import DONE, FAILED, NOT_FINITE, state_of

SETTINGS = {"window": 64, "stride": 32, "tissue": "none", "batch_size": 8}
QUIET = SETTINGS | {"progress": False}


@pytest.fixture(params=[False, True], ids=["values", "dense"])
def model(request):
    return with_features(dense=request.param)


def test_they_come_with_the_pieces_and_stay_in_memory(model):
    run = prepare(noise_slide(), model, **SETTINGS)
    found = np.full((run.plan.grid.size, LENGTH), np.nan, np.float32)
    for piece in run.pieces():
        assert piece.features.shape == (len(piece), LENGTH)
        found[piece.index] = piece.features
    np.testing.assert_allclose(
        found.reshape(*run.plan.grid.shape, LENGTH),
        naive_features(run.heatmap, noise_slide()),
        rtol=1e-6,
    )
    assert np.array_equal(run.heatmap.features.reshape(-1, LENGTH), found)
    assert isinstance(run.heatmap.features, np.ndarray)


def test_values_are_those_of_the_model_without_features():
    function = with_features(window=64)
    found = wh.compute_heatmap(noise_slide(), function, **QUIET)
    expected = naive(found, noise_slide(), lambda batch: grey_and_spectrum(batch)[0])
    np.testing.assert_allclose(found.values, expected, rtol=1e-6)
    assert found.names == ("value",)


def test_a_store_has_them_and_they_are_read_where_they_are_indexed(tmp_path, model):
    whole = wh.compute_heatmap(noise_slide(), model, **QUIET)
    run = prepare(noise_slide(), model, out=tmp_path / "a.zarr", **SETTINGS)
    complete(run, progress=False)
    assert run.growing.features is None
    assert len(run.growing.unsaved) == 0
    for found in (run.heatmap, wh.open_heatmap(tmp_path / "a.zarr")):
        assert found.features.shape == whole.features.shape == (*whole.grid.shape, LENGTH)
        assert (found.features.ndim, found.features.dtype) == (3, np.float32)
        assert found.features.chunks == (16, 16, LENGTH)
        assert np.array_equal(found.features[3, 4], whole.features[3, 4])
        assert np.array_equal(np.asarray(found.features), whole.features)


def test_a_dask_array_is_made_of_them(tmp_path):
    array = pytest.importorskip("dask.array")
    found = wh.compute_heatmap(noise_slide(), with_features(), out=tmp_path / "a.zarr", **QUIET)
    lazy = array.from_array(found.features, chunks=found.features.chunks)
    assert np.array_equal(lazy[2:9, 5].compute(), found.features[2:9, 5])


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
def test_the_store_is_still_a_valid_ome_zarr(tmp_path, model):
    models = pytest.importorskip("ome_zarr_models.v05.image")
    zarr = pytest.importorskip("zarr")
    found = wh.compute_heatmap(noise_slide(), model, out=tmp_path / "a.zarr", **QUIET)
    models.Image.from_zarr(zarr.open_group(str(found.path), mode="r"))


def test_a_map_without_features_says_so(tmp_path):
    found = wh.compute_heatmap(noise_slide(), mean_rgb, out=tmp_path / "a.zarr", **QUIET)
    assert found.features is None
    assert wh.open_heatmap(tmp_path / "a.zarr").features is None
    assert "features" not in found.run["plan"]
    assert not (tmp_path / "a.zarr" / "features").exists()
    assert next(iter(wh.run(noise_slide(), mean_rgb, **SETTINGS))).features is None
    with pytest.raises(StoreError, match=r"no features.*run a model"):
        found.window_features()


def test_windows_that_cannot_be_read_have_none(tmp_path):
    slide = FaultySlide(noise_slide(), bad={(300, 300)})
    run = prepare(slide, with_features(), out=tmp_path / "a.zarr", **SETTINGS)
    for piece in run.pieces():
        assert (piece.features is None) == (state_of(piece.state) == FAILED).all()
    found = run.heatmap
    failed = state_of(found.state) == FAILED
    assert failed.any()
    assert np.array_equal(np.isnan(found.features[:]).all(2), failed)
    slide.bad = set()
    complete(prepare(slide, with_features(), out=tmp_path / "a.zarr", again=True, **SETTINGS),
             progress=False)  # fmt: skip
    np.testing.assert_allclose(
        wh.open_heatmap(tmp_path / "a.zarr").features[:],
        naive_features(found, noise_slide()),
        rtol=1e-6,
    )


def test_features_that_are_not_finite_are_flagged():
    def model(batch):
        values, vectors = grey_and_spectrum(batch)
        return values, vectors / (vectors > 1).logical_not()

    found = wh.compute_heatmap(
        noise_slide(), wh.load_model(model, output=0, features=1), **QUIET
    )  # fmt: skip
    odd = ~np.isfinite(found.features).all(2)
    assert np.array_equal(found.state & NOT_FINITE != 0, odd)
    assert odd.any()
    assert found.run["counts"]["not_finite"] == odd.sum()


def stopped(out, model):
    run = prepare(noise_slide(), model, out=out, **SETTINGS)
    pieces = run.pieces()
    for _ in range(12):
        next(pieces)
    pieces.close()


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_stopped_run_is_continued_and_mends_what_is_damaged(tmp_path, damage):
    out, model = tmp_path / "a.zarr", with_features()
    stopped(out, model)
    chunk = out / "features" / "c" / "0" / "0" / "0"
    done = state_of(wh.open_heatmap(out).state) == DONE
    if damage == "missing":
        chunk.unlink()
    else:
        chunk.write_bytes(chunk.read_bytes()[:-9])
        with pytest.raises(StoreError, match=r"damaged.*resume the run"):
            wh.open_heatmap(out).window_features()
    run = resume(out, slide=noise_slide(), model=model)
    lost = int(done[:16, :16].sum())
    assert lost > 0
    assert run.progress.done == done.sum() - lost
    complete(run, progress=False)
    found = wh.open_heatmap(out)
    assert f"{lost} windows were saved damaged: computed again" in found.run["notices"]
    whole = wh.compute_heatmap(noise_slide(), model, **QUIET)
    assert np.array_equal(found.features[:], whole.features)
    assert np.array_equal(found.values, whole.values)
    assert found.run["status"] == "done"


def test_other_features_are_another_plan(tmp_path):
    out = tmp_path / "a.zarr"
    stopped(out, with_features())
    assert wh.open_heatmap(out).run["plan"]["features"] == LENGTH
    others = [
        wh.load_model(grey_and_spectrum, output=0),
        wh.load_model(grey_and_spectrum, output=0, features=-1),
    ]
    for other in others:
        with pytest.raises(PlanMismatchError, match="another model"):
            prepare(noise_slide(), other, out=out, **SETTINGS)


def test_an_output_whose_features_do_not_fit_its_record_is_refused(tmp_path):
    out = tmp_path / "a.zarr"
    stopped(out, with_features())
    metadata = out / "features" / "zarr.json"
    data = json.loads(metadata.read_text())
    data["shape"][2] = 3
    metadata.write_text(json.dumps(data))
    with pytest.raises(StoreError, match="not those of the record"):
        wh.open_heatmap(out)
    with pytest.raises(StoreError, match="not those of the record"):
        prepare(noise_slide(), with_features(), out=out, **SETTINGS)


def test_a_run_killed_before_its_record_is_begun_anew(tmp_path):
    out = tmp_path / "a.zarr"
    stopped(out, with_features())
    (out / "run.json").unlink()
    found = wh.compute_heatmap(noise_slide(), mean_rgb, out=out, **QUIET)
    assert found.run["status"] == "done"
    assert not (out / "features").exists()


@pytest.mark.parametrize("stored", [False, True])
def test_a_table_has_a_column_for_each(tmp_path, stored, monkeypatch):
    out = tmp_path / "a.zarr" if stored else None
    found = wh.compute_heatmap(
        noise_slide(), with_features(), out=out, roi=(0, 0, 300, 900), **QUIET
    )
    table, index = found.to_dataframe(), np.flatnonzero(state_of(found.state) == DONE)
    assert list(table) == ["x", "y", "value", *(f"latent_{d}" for d in range(LENGTH))]
    assert len(table) == len(index) < found.grid.size
    expected = found.features[:].reshape(-1, LENGTH)[index]
    assert np.array_equal(table[[f"latent_{d}" for d in range(LENGTH)]], expected)
    assert list(found.to_dataframe(features=False)) == ["x", "y", "value"]
    monkeypatch.setattr(heatmap, "LARGEST_TABLE", 100)
    with pytest.raises(ExportError, match=r"would take .*features=False"):
        found.to_dataframe()


def test_features_larger_than_memory_lie_in_a_scratch_file(monkeypatch):
    whole = wh.compute_heatmap(noise_slide(), with_features(), **QUIET)
    monkeypatch.setattr(growing, "SCRATCH_BYTES", 4000)
    found = wh.compute_heatmap(noise_slide(), with_features(), **QUIET)
    assert isinstance(found.features, np.memmap)
    assert np.array_equal(found.features, whole.features)


def test_memory_that_runs_out_loses_none(tmp_path):
    def tight(batch):
        if len(batch) > 4:
            raise RuntimeError("can't allocate memory: you tried to allocate 9 bytes")
        return grey_and_spectrum(batch)

    model = wh.load_model(tight, output=0, features=1)
    found = wh.compute_heatmap(noise_slide(), model, out=tmp_path / "a.zarr", **QUIET)
    np.testing.assert_allclose(found.features[:], naive_features(found, noise_slide()), rtol=1e-6)
    assert found.run["halved"]


def test_a_list_of_windows_gets_values_and_its_store_has_the_features_too(tmp_path):
    coords = [[0, 0], [100, 200], [37, 11]]
    settings = {"window": 64, "batch_size": 4}
    found = wh.predict_windows(noise_slide(), with_features(), coords, **settings)
    plain = wh.load_model(grey_and_spectrum, output=0)
    assert np.array_equal(found, wh.predict_windows(noise_slide(), plain, coords, **settings))
    wh.predict_windows(noise_slide(), with_features(), coords, out=tmp_path / "a", **settings)
    assert wh.open_heatmap(tmp_path / "a").features.shape == (3, LENGTH)


def test_features_that_change_their_length_end_the_run():
    calls = []

    def model(batch):
        calls.append(1)
        values, vectors = grey_and_spectrum(batch)
        return values, vectors if len(calls) < 12 else vectors[:, :2]

    with pytest.raises(ModelOutputError, match="it must stay"):
        wh.compute_heatmap(noise_slide(), wh.load_model(model, output=0, features=1), **QUIET)
