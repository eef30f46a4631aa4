"""What a bar says beside how far it is."""

from __future__ import annotations

import io
import threading

import pytest
from tqdm import tqdm

from napari_wsi_heatmap import progress
from napari_wsi_heatmap.progress import Progress, stalled_notice, telling


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(progress, "TELL_S", 0.001)


def follow(lines):
    """Give lines to a bar, one after the other, each when the one before was shown."""
    shown, said = io.StringIO(), iter(lines)
    over = threading.Event()
    last = ""

    def notice():
        nonlocal last
        last = next(said, None) or (over.set() or last)
        return last

    bar = tqdm(total=10, file=shown, mininterval=0)
    with bar, telling(bar, notice):
        assert over.wait(30)
    return shown.getvalue()


def test_a_bar_says_where_the_time_goes_and_follows_it():
    shown = follow(["reading 12 % · model 80 %", "reading 90 %"])
    assert "reading 12 % · model 80 %" in shown
    assert "reading 90 %" in shown.rsplit("\r", 1)[1]


def test_a_bar_is_drawn_again_only_for_something_new():
    assert follow(["same"] * 20).count("same") == follow(["same"]).count("same")


def test_a_closed_bar_is_left_alone():
    shown = io.StringIO()
    bar = tqdm(total=10, file=shown, mininterval=0)
    counted = iter(range(10**9))
    with bar, telling(bar, lambda: f"now {next(counted)}"):
        pass
    assert not [t for t in threading.enumerate() if t.name == "wsi-bar"]


def test_a_bar_that_is_off_has_no_thread():
    bar = tqdm(total=1, disable=True)
    with telling(bar, lambda: "never"):
        assert not [t for t in threading.enumerate() if t.name == "wsi-bar"]


def test_a_read_that_hangs_is_told_after_a_while():
    assert stalled_notice(4.9) == ""
    assert stalled_notice(7.2) == "waiting for the slide: a read has taken 7 s"


def test_progress_says_nothing_of_time_unless_told():
    now = Progress(10, 1, 0, 0.0, None)
    assert now.shares == now.bottleneck == ""
