"""Cohorts on real workers: they listen on the loopback only, are killed, and lose nothing."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent

import numpy as np
import psutil
import pytest
from cohort_made import (
    FUSE,
    SETTINGS,
    burning,
    deadly,
    equal,
    make_bad,
    make_slides,
    mean_grey,
    serial,
    slow_grey,
)

import napari_wsi_heatmap as wh
from made_slides import smash_tile, tissue, write_tiff
from napari_wsi_heatmap.cohort import campaign as campaigns
from napari_wsi_heatmap.cohort import cluster
from napari_wsi_heatmap.cohort.running import run_cohort
from napari_wsi_heatmap.errors import HeatmapError, ModelLoadError, StoreLockedError
from napari_wsi_heatmap.lock import StoreLock

pytest.importorskip("cryptography")
Client = pytest.importorskip("distributed").Client

THREADS = SETTINGS | {"processes": False, "workers": 2}


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    folder = make_slides(tmp_path_factory.mktemp("slides"), 5)
    make_bad(folder)
    return folder


def listening(processes) -> set[str]:
    """Addresses on which processes listen, in any family."""
    return {
        found.laddr.ip
        for process in processes
        for found in process.net_connections("inet")
        if found.status == psutil.CONN_LISTEN
    }


def family() -> list[psutil.Process]:
    me = psutil.Process()
    return [me, *me.children(recursive=True)]


def workers_of(crew) -> dict[str, int]:
    return crew.client.run(os.getpid)


def test_a_killed_worker_loses_nothing(slides, tmp_path, monkeypatch):
    """Processes, a kill -9 in the middle of a slide, a slide that is none: equal to serial runs."""
    fuse = tmp_path / "fuse"
    fuse.write_text("wait")
    monkeypatch.setenv(FUSE, str(fuse))  # before the workers are started
    crews, seen, heard = [], [], set()

    def on_crew(crew):
        crews.append((crew.line, workers_of(crew)))
        heard.update(listening(family()))
        with pytest.raises((OSError, TypeError)):  # another user, who has no certificate
            Client(crew.address.replace("tls", "tcp"), timeout=0.5, set_as_default=False)

    out = tmp_path / "out"
    for facts in run_cohort(slides, burning, out=out, workers=2, on_crew=on_crew, **SETTINGS):
        if not seen:
            fuse.write_text("go")  # who computes the next batch dies
        seen.append(facts)
    by_name = {facts.slide: facts for facts in seen}
    assert not fuse.exists()
    assert len(by_name) == len(seen) == 6
    for path in sorted(slides.glob("slide*.tif")):
        assert by_name[path.stem].status == "done"
        assert equal(out / f"{path.stem}.zarr", serial(path, burning))
    assert "bad.tif" in by_name["bad"].error
    assert "\n" not in by_name["bad"].error
    (line, pids), *_ = crews
    assert "127.0.0.1" in line
    assert "2 workers, 2 threads" in line
    assert "tls://" in line  # other users of the machine cannot talk to it
    assert heard == {"127.0.0.1"}
    assert not any(psutil.pid_exists(pid) for pid in pids.values())
    assert {facts.worker for facts in seen if facts.finished}.isdisjoint({""})
    with (out / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["slide"] for row in rows] == ["bad", *(f"slide{i}" for i in range(5))]
    assert {row["windows"] for row in rows[1:]} == {"56"}


def test_nothing_watches_the_threads_of_a_run():
    import dask

    with (
        dask.config.set({"distributed.worker.profile.enabled": True}),
        cluster.hired(1, processes=False) as crew,
    ):
        (worker,) = crew.client.cluster.workers.values()
        assert "profile" not in worker.periodic_callbacks


def test_threads_continue_what_is_there(slides, tmp_path):
    first = wh.compute_cohort(slides, mean_grey, out=tmp_path, progress=False, **THREADS)
    assert [facts.computed for facts in first.slides] == [True] * 6
    crews = []
    again = wh.compute_cohort(
        slides,
        mean_grey,
        out=tmp_path,
        progress=False,
        on_crew=lambda crew: crews.append((crew.line, listening([psutil.Process()]))),
        **THREADS,
    )
    assert [(f.slide, f.computed) for f in again.slides] == [
        ("bad", True),
        *((f"slide{i}", False) for i in range(5)),
    ]
    assert list(again.failed) == ["bad"]
    assert "inproc://" in crews[0][0]
    assert crews[0][1] <= {"127.0.0.1"}
    assert again.limits == first.limits
    assert again.to_dataframe().windows.tolist() == [0, *[56] * 5]
    values = [wh.open_heatmap(tmp_path / f"slide{i}.zarr").values for i in range(5)]
    record = json.loads((tmp_path / "limits.json").read_text())["channels"]
    (channel,) = record.values()
    assert channel["max"] == max(float(v.max()) for v in values)
    assert channel["min"] == min(float(v.min()) for v in values)
    assert channel["count"] == 5 * 56


def test_windows_that_cannot_be_read_are_counted_and_tried_again(slides, tmp_path):
    path = tmp_path / "torn.tif"
    path.write_bytes((slides / "slide0.tif").read_bytes())
    smash_tile(path, 1)
    out = tmp_path / "out"
    (torn,) = run_cohort(path, mean_grey, out=out, **THREADS)
    assert (torn.status, torn.windows + torn.failed) == ("done-with-failures", 56)
    assert torn.failed > 0
    assert torn.finished
    (same,) = run_cohort(path, mean_grey, out=out, **THREADS)
    (again,) = run_cohort(path, mean_grey, out=out, again=True, **THREADS)
    assert (same.computed, again.computed) == (False, True)
    assert again.failed == same.failed == torn.failed


def test_one_tall_slide_is_shared_by_all_workers(tmp_path):
    path = write_tiff(tmp_path / "tall.tif", [tissue(2200, 40, 5)], compression="jpeg")
    settings = SETTINGS | {"window": 8, "stride": 4}
    changes = []
    found = wh.compute_cohort(
        path,
        mean_grey,
        out=tmp_path / "out",
        progress=False,
        on_change=lambda queue: changes.append((queue.tasks_done, queue.tasks)),
        processes=False,
        workers=2,
        **settings,
    )
    assert found.failed == {}
    assert changes[-1] == (4, 4)  # the division, two bands, the merge
    assert equal(tmp_path / "out" / "tall.zarr", serial(path, mean_grey, **settings))


def test_what_concerns_all_is_said_once_and_first(slides, tmp_path):
    with pytest.raises(ModelLoadError, match="no model 'nix'"):
        wh.compute_cohort(slides, "nix", out=tmp_path / "a", progress=False, **THREADS)
    with pytest.raises(HeatmapError, match="0 workers"):
        next(run_cohort(slides, mean_grey, out=tmp_path / "b", **THREADS | {"workers": 0}))
    with pytest.raises(HeatmapError, match="bands is 0"):
        next(run_cohort(slides, mean_grey, out=tmp_path / "b", bands=0, **THREADS))
    (tmp_path / "c").mkdir()
    lock = StoreLock(tmp_path / "c")
    try:
        with pytest.raises(StoreLockedError, match="is writing here"):
            next(run_cohort(slides, mean_grey, out=tmp_path / "c", **THREADS))
    finally:
        lock.release()


def test_an_output_that_is_written_elsewhere_is_waited_for(slides, tmp_path, monkeypatch):
    monkeypatch.setattr(campaigns, "LOCK_PAUSE_S", 0.05)
    one, like_it = [slides / "slide0.tif"], THREADS | {"bands": 1}
    wh.compute_cohort([slides / "slide1.tif"], mean_grey, out=tmp_path, progress=False, **like_it)
    (tmp_path / "slide0.zarr").mkdir()
    locks, tries = [StoreLock(tmp_path / "slide0.zarr")], []

    def on_change(queue):
        tries.append(queue.tasks_done)
        if len(tries) == 4:
            locks.pop().release()

    facts = list(run_cohort(one, mean_grey, out=tmp_path, on_change=on_change, **like_it))
    assert [f.status for f in facts] == ["done"]
    assert len(tries) == 5


def test_a_scheduler_of_the_users_is_left_as_it_was(slides, tmp_path):
    from distributed import LocalCluster

    options = {"processes": False, "protocol": "tcp://", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=1, threads_per_worker=2, silence_logs=40, **options) as theirs:
        address, told = theirs.scheduler_address, []
        found = wh.compute_cohort(
            slides,
            mean_grey,
            out=tmp_path / "out",
            scheduler=address,
            progress=False,
            on_crew=lambda crew: told.append(crew.line),
            **SETTINGS,
        )
        (worker,) = theirs.workers.values()
        assert not [name for name in worker.plugins if name.startswith("napari")]
        assert theirs.scheduler.status.name == "running"
    assert told == [f"scheduler {address}: 1 worker, 2 threads"]
    assert list(found.failed) == ["bad"]
    for path in sorted(slides.glob("slide*.tif"))[:2]:
        assert equal(tmp_path / "out" / f"{path.stem}.zarr", serial(path, mean_grey))


def test_workers_with_a_gpu_are_tagged_and_tasks_ask_for_one(slides, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_gpus", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    own = [cluster._gpu_options(i, 2, processes=True) for i in range(3)]
    assert [one["env"]["CUDA_VISIBLE_DEVICES"] for one in own] == ["3", "5", "3"]
    assert own[0]["resources"] == {"GPU": 1}
    crews = []

    def on_crew(crew):
        crews.append((crew.line, crew.resources, len(crew.threads)))

    one, like_it = [slides / "slide0.tif"], SETTINGS | {"processes": False, "bands": 4}
    (facts,) = run_cohort(one, mean_grey, out=tmp_path, on_crew=on_crew, **like_it)
    assert facts.finished, facts.error
    assert crews[0][0].endswith("2 workers, 2 threads, by GPU")
    assert crews[0][1:] == ({"GPU": 1}, 2)


@pytest.mark.slow
def test_a_killed_client_takes_its_workers_along_and_is_continued(slides, tmp_path):
    script = tmp_path / "client.py"
    script.write_text(
        dedent(f"""
        import sys
        sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]}
        from cohort_made import SETTINGS, slow_grey
        import napari_wsi_heatmap as wh
        if __name__ == "__main__":
            wh.compute_cohort({str(slides)!r}, slow_grey, out={str(tmp_path / "out")!r},
                              workers=2, progress=False, **SETTINGS)
        """)
    )
    client = psutil.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: len(list((tmp_path / "out").glob("slide*.zarr/run.json"))) >= 3, 120)
        workers = client.children(recursive=True)
    finally:
        client.send_signal(signal.SIGKILL)
        client.wait()
    assert len(workers) >= 2
    psutil.wait_procs(workers, timeout=30)
    assert not any(worker.is_running() and worker.status() != "zombie" for worker in workers)
    records = [json.loads(p.read_text()) for p in (tmp_path / "out").glob("*/run.json")]
    assert any(record["status"] == "running" for record in records)
    found = wh.compute_cohort(slides, slow_grey, out=tmp_path / "out", progress=False, **THREADS)
    assert list(found.failed) == ["bad"]
    assert any(not facts.computed for facts in found.slides)
    for path in sorted(slides.glob("slide*.tif")):
        assert equal(tmp_path / "out" / f"{path.stem}.zarr", serial(path, slow_grey))


def wait_for(there, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_a_slide_that_kills_every_worker_is_given_up(slides, tmp_path):
    folder = make_slides(tmp_path / "slides", 2)
    write_tiff(folder / "black.tif", [np.zeros((128, 128, 3), np.uint8)])
    found = wh.compute_cohort(
        folder, deadly, out=tmp_path / "out", workers=1, progress=False, **SETTINGS
    )
    assert list(found.failed) == ["black"]
    assert found.failed["black"].startswith("4 workers died over it")
    assert [facts.status for facts in found.slides] == ["failed", "done", "done"]
