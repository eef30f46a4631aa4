import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from napari_wsi_heatmap import sample
from napari_wsi_heatmap._napari import sample_data
from napari_wsi_heatmap._napari.sample_data import make_alive
from napari_wsi_heatmap.errors import SlideError

SMALL = (1536, 2048)


@pytest.fixture
def small_sample(tmp_path, monkeypatch):
    """The real sample slide, smaller, in a cache folder of its own."""
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *args, **kwargs: tmp_path)
    monkeypatch.setattr(sample, "sample_slide_path", partial(sample.sample_slide_path, size=SMALL))
    return tmp_path


def test_the_sample_opens_as_a_calibrated_slide_and_is_made_once(viewer, small_sample):
    (layer,) = viewer.open_sample("napari-wsi-heatmap", "sample")
    (path,) = small_sample.iterdir()
    assert layer.metadata["path"] == str(path)
    assert layer.data[0].shape == (*SMALL, 3)
    assert [str(unit) for unit in layer.units] == ["micrometer", "micrometer"]
    assert np.asarray(layer.data[-1]).std() > 5
    written = path.stat().st_mtime_ns
    viewer.open_sample("napari-wsi-heatmap", "sample")
    assert path.stat().st_mtime_ns == written


@pytest.mark.gl
def test_events_are_served_and_progress_shown_while_it_is_made(qtbot):
    from napari.utils import progress
    from qtpy.QtCore import QTimer

    ticks, shown = [], []
    timer = QTimer()
    timer.timeout.connect(lambda: ticks.append(progress_now()))
    timer.start(5)

    def progress_now():
        shown.extend((bar.desc, bar.n) for bar in progress._all_instances)

    def make(report, cancel):
        assert threading.current_thread() is not threading.main_thread()
        for step in range(10):
            report(step / 10)
            time.sleep(0.03)
        return Path("made")

    assert make_alive(make) == Path("made")
    assert len(ticks) > 5
    assert {desc.rstrip(": ") for desc, _ in shown} == {"Making the sample slide"}
    assert {n for _, n in shown} >= {50}
    assert not progress._all_instances


@pytest.mark.gl
def test_closing_the_window_cancels(qtbot):
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QMainWindow

    window = QMainWindow()
    qtbot.addWidget(window)
    window.show()
    QTimer.singleShot(50, window.close)
    cancelled = threading.Event()

    def make(report, cancel):
        assert cancel.wait(20)
        cancelled.set()
        return Path("never used")

    with pytest.raises(SlideError, match="not finished"):
        make_alive(make)
    assert cancelled.wait(5)


def test_errors_of_the_making_reach_the_user():
    def make(report, cancel):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        make_alive(make)


def test_asking_twice_at_once_is_refused_and_later_works_again():
    def make(report, cancel):
        with pytest.raises(SlideError, match="being made"):
            make_alive(lambda report, cancel: Path("second"))
        return Path("first")

    assert make_alive(make) == Path("first")
    assert make_alive(lambda report, cancel: Path("again")) == Path("again")


def test_only_a_slide_that_takes_a_while_is_announced(notifications, monkeypatch):
    make_alive(lambda report, cancel: Path("there already"))
    assert notifications() == []
    monkeypatch.setattr(sample_data, "QUIET_SECONDS", 0.0)

    def make(report, cancel):
        time.sleep(0.1)
        return Path("made")

    make_alive(make)
    assert len(notifications()) == 1
