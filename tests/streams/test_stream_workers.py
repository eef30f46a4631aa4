"""Streams in several processes: windows are split, not doubled; spawned ones work, too."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from torch.utils.data import DataLoader

import napari_wsi_heatmap as wh
from made_slides import noise, write_tiff
from napari_wsi_heatmap.errors import SlideOpenError
from streams.stream_made import order_of, slides

WINDOW = {"window": 64, "batch_size": 8, "memory": 16}
RANDOM = {**WINDOW, "sampling": "random", "windows_per_region": 5, "epoch_size": 83, "mix": 2}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    sides = [(400, 300), (200, 500), (64, 64)]
    return [
        str(write_tiff(folder / f"{i}.tif", [noise(*shape, seed=i)], tile=64))
        for i, shape in enumerate(sides)
    ]


@pytest.mark.parametrize("settings", [{**WINDOW, "stride": 16}, RANDOM])
@pytest.mark.parametrize("parts", [2, 3, 7])
def test_parts_are_the_whole(settings, parts):
    whole = order_of(wh.stream(slides(4), **settings))
    shared = [order_of(wh.stream(slides(4), **settings, shard=(i, parts))) for i in range(parts)]
    assert sorted(at for part in shared for at in part) == sorted(whole)
    assert sum(map(bool, shared)) > 1


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_dataloader_split_the_windows(files, start):
    for settings in (WINDOW, RANDOM) if start == "fork" else (WINDOW,):
        stream = wh.stream(files, **settings)
        loader = DataLoader(stream, batch_size=None, num_workers=2, multiprocessing_context=start)
        found = []
        for batch in loader:
            assert batch.x.shape[1:] == (3, 64, 64)
            found.append((batch.x, batch.slides, np.asarray(batch.windows)))
        assert sorted(order_of(found)) == sorted(order_of(stream))
        assert {name for name, *_ in order_of(found)} == set(files)


def test_without_workers_a_dataloader_is_the_stream(files):
    stream = wh.stream(files, **WINDOW)
    assert order_of(DataLoader(stream, batch_size=None)) == order_of(stream)


def test_kept_workers_go_on_to_the_next_pass(files):
    stream = wh.stream(files, **RANDOM)
    loader = DataLoader(
        stream, batch_size=None, num_workers=2, persistent_workers=True,
        multiprocessing_context="fork",
    )  # fmt: skip
    passes = [sorted(order_of(loader)) for _ in range(2)]
    stream.set_epoch(5)
    passes.append(sorted(order_of(loader)))
    here = wh.stream(files, **RANDOM)
    wanted = [sorted(order_of(here)) for _ in range(2)]
    here.set_epoch(5)
    assert passes == [*wanted, sorted(order_of(here))]


def test_sent_to_another_process_it_is_the_same(files):
    stream = wh.stream(files, **RANDOM)
    next(stream)
    assert order_of(pickle.loads(pickle.dumps(stream))) == order_of(wh.stream(files, **RANDOM))
    stream.close()


def test_a_slide_from_memory_cannot_be_sent():
    with pytest.raises(SlideOpenError, match="give its path"):
        pickle.dumps(wh.stream(slides(1)))
