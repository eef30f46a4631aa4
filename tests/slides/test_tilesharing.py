"""Tiles that several boxes need at once are decoded once."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from made_slides import tissue, write_aperio
from napari_wsi_heatmap.errors import SlideReadError
from napari_wsi_heatmap.slides.tiff import TiffSlide
from napari_wsi_heatmap.slides.tilecodecs import TileError
from napari_wsi_heatmap.tilecache import TileCache

PIXELS = tissue(600, 600)
BOX = (100, 100, 300, 300)
"""Cuts 4 tiles of 256 px."""


@pytest.fixture
def slide(tmp_path):
    with TiffSlide(str(write_aperio(tmp_path / "a.svs", [PIXELS]))) as slide:
        slide._cache.clear()  # of what was compared when it was opened
        yield slide


def gated(slide, error=None):
    """Let decoding wait for a gate; what was decoded, the gate, and what says that it began."""
    level, decoded = slide._tiled[0], []
    gate, began = threading.Event(), threading.Event()
    inner = level.decode

    def decode(data, out=None):
        began.set()
        gate.wait(20)
        decoded.append(data)
        if error is not None and len(decoded) == 1:
            raise error
        return inner(data, out)

    object.__setattr__(level, "decode", decode)
    return decoded, gate, began


def read_at_once(slide, gate, began, number=6):
    found = []

    def read():
        try:
            found.append(slide.read_region(0, *BOX))
        except SlideReadError as error:
            found.append(error)

    threads = [threading.Thread(target=read) for _ in range(number)]
    for thread in threads:
        thread.start()
        began.wait(20)
    gate.set()
    for thread in threads:
        thread.join(20)
    return found


def test_each_tile_is_decoded_once(slide):
    decoded, gate, began = gated(slide)
    found = read_at_once(slide, gate, began)
    assert len(decoded) == len(set(decoded)) == 4
    assert len(found) == 6
    want = slide.read_region(0, *BOX)
    for pixels in found:
        np.testing.assert_array_equal(pixels, want)


def test_an_error_of_one_thread_fails_only_its_own_box(slide):
    slide._known = None  # else OpenSlide would be asked for what failed here
    _, gate, began = gated(slide, error=TileError("torn"))
    found = read_at_once(slide, gate, began)
    failed = [one for one in found if isinstance(one, SlideReadError)]
    assert len(failed) == 1
    assert "torn" in str(failed[0])
    want = slide.read_region(0, *BOX)
    for pixels in found:
        assert pixels is failed[0] or np.array_equal(pixels, want)


def test_nothing_stays_claimed(slide):
    slide.read_region(0, *BOX)
    assert slide._cache._claimed == {}


def test_claims_are_divided():
    tiles = TileCache(1 << 20)
    a, b, c, elsewhere = (0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 0, 2), (0, 1, 0, 1)
    assert tiles.claim([a, b]) == ([a, b], [])
    mine, others = tiles.claim([b, c])
    assert mine == [c]
    assert [key for key, _ in others] == [b]
    assert tiles.claim([elsewhere])[0] == [elsewhere]
    assert not others[0][1].is_set()
    tiles.release([a, b])
    assert others[0][1].is_set()
    assert tiles.claim([b])[0] == [b]
