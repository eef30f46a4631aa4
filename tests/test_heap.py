"""Freed memory is kept during runs, and goes back after the last."""

import subprocess
import sys
import threading

import pytest

from napari_wsi_heatmap import heap

PROGRAM = """
import resource, sys
from napari_wsi_heatmap.heap import glibc, kept_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        array = library.malloc(48 << 20)
        ctypes.memset(array, 1, 48 << 20)
        library.free(array)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

import ctypes
library = glibc()
library.malloc.restype = ctypes.c_void_p
library.malloc.argtypes = [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]

def resident():
    with open("/proc/self/statm") as status:
        return int(status.read().split()[1]) * resource.getpagesize() >> 20

outside = faults()
with kept_memory():
    inside = faults()
    held = resident()
print(outside, inside, held, resident())
"""


@pytest.fixture
def calls(monkeypatch):
    """What the C library is told."""

    class Library:
        def __init__(self):
            self.told = []

        def gnu_get_libc_version(self):
            return b"2.36"

        def mallopt(self, parameter, value):
            self.told.append((parameter, value))

        def malloc_trim(self, pad):
            self.told.append("trim")

    library = Library()
    monkeypatch.setattr(heap, "glibc", lambda: library)
    return library.told


@pytest.mark.skipif(heap.glibc() is None, reason="only glibc can be told")
def test_pages_are_touched_once_and_go_back_at_the_end():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    )
    outside, inside, held, after = map(int, done.stdout.split())
    a_block = (48 << 20) // 4096
    assert outside > 15 * a_block  # each of 20 blocks anew
    assert inside < 3 * a_block
    assert after < held - 40


def test_the_last_run_to_end_lets_go(calls):
    with heap.kept_memory():
        begun = list(calls)
        with heap.kept_memory():
            assert calls == begun
        assert calls == begun
    assert (heap.MMAP_THRESHOLD, heap.KEPT) in begun
    assert (heap.MMAP_THRESHOLD, heap.USUAL[heap.MMAP_THRESHOLD]) in calls
    assert calls[-1] == "trim"


def test_runs_side_by_side_tell_it_once(calls):
    barrier = threading.Barrier(4)

    def run():
        with heap.kept_memory():
            barrier.wait()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls.count("trim") == 1


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: object())
    assert heap.glibc() is None
    with heap.kept_memory():
        pass


def test_an_error_inside_lets_go(calls):
    with pytest.raises(ValueError, match="inside"), heap.kept_memory():
        raise ValueError("inside")
    assert calls[-1] == "trim"


def test_what_is_soon_needed_again_stays(calls):
    with heap.kept_memory(give_back=False):
        pass
    assert "trim" not in calls
    assert (heap.MMAP_THRESHOLD, heap.USUAL[heap.MMAP_THRESHOLD]) in calls
