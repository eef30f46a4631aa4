"""The store: what others can read, where it says the cells lie, what a crash leaves."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import zarr

import napari_wsi_heatmap as wh
from made import mean_grey, noise_slide, pyramid_slide, quarter_means
from napari_wsi_heatmap import store as store_module
from napari_wsi_heatmap.errors import StoreError, StoreExistsError, StoreLockedError
from napari_wsi_heatmap.frame import frame_from_json, frame_to_json
from napari_wsi_heatmap.lock import StoreLock
from napari_wsi_heatmap.ome import halve
from napari_wsi_heatmap.runfolder import is_store
from napari_wsi_heatmap.store import HeatmapStore

QUIET = {"tissue": "none", "progress": False}


def saved(tmp_path, function=mean_grey, slide=None, **settings):
    out = tmp_path / "out.zarr"
    return wh.compute_heatmap(
        slide or noise_slide(), function, out=out, **{"window": 64, **QUIET, **settings}
    )


def multiscale(path):
    return zarr.open_group(str(path), mode="r").attrs["ome"]["multiscales"][0]


@pytest.mark.parametrize("function", [mean_grey, quarter_means])
@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
def test_is_a_valid_ome_zarr(tmp_path, function):
    models = pytest.importorskip("ome_zarr_models.v05.image")
    heatmap = saved(tmp_path, function, stride=32)
    image = models.Image.from_zarr(zarr.open_group(str(heatmap.path), mode="r"))
    assert [axis.name for axis in image.attributes.ome.multiscales[0].axes] == ["c", "y", "x"]


@pytest.mark.parametrize("level", [0, 1, 2])
def test_placed_by_the_centres_of_the_windows(tmp_path, level):
    heatmap = saved(tmp_path, slide=pyramid_slide(), window=24, stride=20, level=level)
    scale, translation = multiscale(heatmap.path)["datasets"][0]["coordinateTransformations"]
    rows, cols = np.indices(heatmap.grid.shape)
    for axis, number in ((0, rows), (1, cols)):
        world = number * scale["scale"][axis + 1] + translation["translation"][axis + 1]
        assert world == pytest.approx(heatmap.centres[..., axis] * 0.25, abs=1e-9)


def test_dense_cells_are_placed_by_their_centres(tmp_path):
    heatmap = saved(tmp_path, quarter_means, stride=32)
    scale, translation = multiscale(heatmap.path)["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == [1, 8, 8]  # 16 px · 0.5 µm
    assert translation["translation"] == [0, 3.75, 3.75]


def test_coarser_levels_are_means_of_what_has_a_value(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "COARSEST", 8)
    heatmap = saved(tmp_path, roi=(0, 0, 420, 500))
    group = zarr.open_group(str(heatmap.path), mode="r")
    datasets = multiscale(heatmap.path)["datasets"]
    assert [d["path"] for d in datasets] == ["0", "1"]
    fine, coarse = group["0"][0], group["1"][0]
    assert coarse[0, 0] == pytest.approx(fine[:2, :2].mean())
    assert np.isnan(fine[7]).all()
    assert coarse[3, 0] == pytest.approx(fine[6, :2].mean())
    assert np.isnan(coarse[-1, -1])
    scale, translation = datasets[1]["coordinateTransformations"]
    assert scale["scale"][1] == 64
    # (f − 1)/2 cells of 32 µm beyond the 15.75 µm of the first cell
    assert translation["translation"][1] == pytest.approx(15.75 + 16)


def test_coarser_levels_of_values_that_are_not_finite():
    fine = np.array([[[np.inf, -np.inf, 3e38, 3e38], [1, 2, 3e38, np.nan]]], np.float32)
    coarse = halve(fine)
    assert np.isnan(coarse[0, 0, 0])
    assert coarse[0, 0, 1] == np.inf


def test_without_calibration_no_unit_is_claimed(tmp_path):
    heatmap = saved(tmp_path, slide=noise_slide(mpp=None))
    assert all("unit" not in axis for axis in multiscale(heatmap.path)["axes"])


def test_the_record_says_what_was_run(tmp_path):
    record = wh.open_heatmap(saved(tmp_path).path).run
    assert record["status"] == "done"
    assert record["slide"]["name"] == "noise"
    assert record["model"]["names"] == ["value"]
    assert record["plan"]["device"] == "cpu"
    assert set(record["plan"]["versions"]) >= {"torch", "Pillow"}
    assert len(record["plan_sha256"]) == 64
    assert record["counts"]["done"] == record["frame"]["grid"]["shape"][0] * 15


def test_frames_survive_json(tmp_path):
    frame = saved(tmp_path, quarter_means, stride=32).frame
    assert frame_from_json(json.loads(json.dumps(frame_to_json(frame)))) == frame


def test_opening_something_else(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(StoreError, match=r"no heatmap.*check the path"):
            wh.open_heatmap(path)
    (tmp_path / "run.json").write_text("{broken")
    with pytest.raises(StoreError, match="cannot be"):
        wh.open_heatmap(tmp_path)


def test_a_damaged_record_is_one_line(tmp_path):
    path = saved(tmp_path).path
    record = json.loads((path / "run.json").read_text())
    del record["frame"]["grid"]
    (path / "run.json").write_text(json.dumps(record))
    with pytest.raises(StoreError, match="the record of the run is damaged"):
        wh.open_heatmap(path)


def test_a_run_killed_before_its_record_is_begun_anew(tmp_path):
    path = saved(tmp_path).path
    (path / "run.json").unlink()
    assert not is_store(path)
    assert saved(tmp_path).run["status"] == "done"


def test_half_written_chunks_of_a_killed_run_are_swept(tmp_path):
    path = saved(tmp_path).path
    orphan = path / "0" / "c.5f.partial"
    orphan.write_bytes(b"half")
    store = HeatmapStore.open(path)
    store.lock()
    store.release()
    assert not orphan.exists()


def test_a_link_to_something_else_is_not_followed_into(tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    (target / "thesis.txt").write_text("")
    (tmp_path / "out.zarr").symlink_to(target)
    with pytest.raises(StoreExistsError):
        saved(tmp_path)


def test_the_lock_names_its_holder_and_dies_with_it(tmp_path):
    code = (
        "import sys, pathlib; from napari_wsi_heatmap.lock import StoreLock\n"
        "lock = StoreLock(pathlib.Path(sys.argv[1])); print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreLockedError, match=f"process {holder.pid} on .* is writing"):
            StoreLock(tmp_path)
        holder.kill()
    lock = StoreLock(tmp_path)
    lock.release()
    lock.release()


def test_a_killed_run_is_continued_to_the_same_bits(tmp_path):
    """Kill −9 in the middle, once; the long series of kills belongs to the fault benchmark."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "import napari_wsi_heatmap as wh\n"
        "from napari_wsi_heatmap import writer\n"
        "writer.StoreWriter.__init__.__defaults__ = (0.05,)\n"
        "from test_store import slow_mean\n"
        "from made import noise_slide\n"
        "for n, p in enumerate(wh.run(noise_slide(), slow_mean, window=64, stride=16,\n"
        "                             tissue='none', out=sys.argv[1], batch_size=8)):\n"
        "    print(n, flush=True)\n"
    )
    out = tmp_path / "out.zarr"
    tests = str(Path(__file__).parent)
    with subprocess.Popen([sys.executable, "-c", code, out, tests], stdout=subprocess.PIPE) as run:
        for line in run.stdout:
            if int(line) == 40:
                run.kill()
                break
    assert wh.open_heatmap(out).run["status"] == "running"
    before = wh.open_heatmap(out)
    whole = wh.compute_heatmap(noise_slide(), mean_of_slow, window=64, stride=16, **QUIET)
    done = (before.state & 15) == 1
    assert 0 < done.sum() < before.grid.size
    assert np.array_equal(before.values[0][done], whole.values[0][done])
    after = wh.compute_heatmap(noise_slide(), slow_mean, window=64, stride=16, out=out, **QUIET)
    assert np.array_equal(after.values, whole.values)


def slow_mean(batch):
    threading.Event().wait(0.01)
    return batch.mean((1, 2, 3))


def mean_of_slow(batch):
    return batch.mean((1, 2, 3))
