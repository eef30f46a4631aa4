"""How a stream ends: threads gone, slides closed, whoever ends it."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import time

import pytest

import napari_wsi_heatmap as wh
from made import FaultySlide, noise_slide
from made_slides import noise, write_tiff
from napari_wsi_heatmap.errors import SlideReadError

LONGEST_S = 20.0


def ours():
    return [t for t in threading.enumerate() if t.name.startswith("wsi-") and t.is_alive()]


def all_gone(before):
    until = time.monotonic() + LONGEST_S
    while set(ours()) - set(before) and time.monotonic() < until:
        time.sleep(0.01)
    return not set(ours()) - set(before)


@pytest.fixture
def opened(monkeypatch):
    """Slides that streams open, with whether they are open still."""
    from napari_wsi_heatmap.streams import laid

    found, original = [], laid.open_slide

    def opening(*args, **kwargs):
        found.append(original(*args, **kwargs))
        return found[-1]

    monkeypatch.setattr(laid, "open_slide", opening)
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    shapes = [(500 + i, 400) for i in range(20)]
    return [
        str(write_tiff(folder / f"{i}.tif", [noise(*shape, seed=i)], tile=128))
        for i, shape in enumerate(shapes)
    ]


def closed(slide):
    try:
        slide.read_region(0, 0, 0, 8, 8)
    except SlideReadError as error:
        return "closed" in str(error)
    return False


def the_end(stream):
    list(stream)


def break_off(stream):
    for _ in stream:
        break


def close(stream):
    next(stream)
    stream.close()


def forget(stream):
    iterator = iter(stream)
    next(iterator)
    del iterator
    gc.collect()


def raise_in_the_loop(stream):
    with pytest.raises(ZeroDivisionError):
        _divide_in_the_loop(stream)


def _divide_in_the_loop(stream):
    for _ in stream:
        1 / 0  # noqa: B018


@pytest.mark.parametrize("end", [the_end, break_off, close, forget, raise_in_the_loop])
@pytest.mark.parametrize("sampling", ["sliding", "random"])
def test_threads_end_and_slides_are_closed(files, opened, end, sampling):
    before = ours()
    asked = {"epoch_size": 300, "sampling": sampling} if sampling == "random" else {}
    end(wh.stream(files, window=64, memory=2, **asked))
    assert all_gone(before)
    assert opened
    assert all(map(closed, opened))


def test_few_slides_are_open_at_a_time(files, opened):
    for _ in wh.stream(files, window=64, batch_size=1, memory=1):
        assert sum(not closed(slide) for slide in opened) <= 4
    several = wh.stream(files, window=64, sampling="random", epoch_size=400, windows_per_region=4)
    for _ in several:
        assert sum(not closed(slide) for slide in opened[20:]) <= 16 + 8 + 8


def test_slides_that_were_handed_over_stay_open():
    slide = noise_slide()
    list(wh.stream(slide, window=64))
    slide.read_region(0, 0, 0, 8, 8)


def test_a_read_that_hangs_does_not_hold_up_the_end():
    slide = FaultySlide(noise_slide(3000, 3000))
    iterator = iter(wh.stream(slide, window=64, batch_size=4, memory=8))
    next(iterator)
    slide.gate.clear()
    try:
        iterator.close()
        with pytest.raises(StopIteration):
            next(iterator)
    finally:
        slide.gate.set()


SCRIPT = """
import sys, time
import napari_wsi_heatmap as wh
from napari_wsi_heatmap.slides.array import ArraySlide
import numpy as np

def read(level, y, x, height, width):
    time.sleep(0.02)
    return np.zeros((height, width, 3), np.uint8)

slide = ArraySlide.from_callable(read, [(100_000, 100_000)])
stream = wh.stream(slide, window=64, sampling=sys.argv[1])
next(stream)
print("begun", flush=True)
if sys.argv[2] == "wait":
    for _ in stream:
        pass
"""


def test_the_program_ends_though_a_stream_is_open():
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, "sliding", "leave"], capture_output=True, timeout=60
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, b"begun\n", b"")


def test_control_c_ends_it():
    run = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "random", "wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with run:
        assert run.stdout.readline() == b"begun\n"
        run.send_signal(signal.SIGINT)
        _, told = run.communicate(timeout=30)
    assert run.returncode in (-signal.SIGINT, 130, 1)
    assert told.rstrip().endswith(b"KeyboardInterrupt")
    assert told.count(b"Traceback") == 1
