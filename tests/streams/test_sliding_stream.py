"""A sliding window over many slides: every window once, whoever reads, whatever fails."""

from __future__ import annotations

import logging
import threading
import time
from itertools import islice

import numpy as np
import pytest
import torch

import napari_wsi_heatmap as wh
from made import FaultySlide, noise, noise_slide, pyramid_slide
from napari_wsi_heatmap.errors import (
    GridError,
    HeatmapError,
    MissingMppError,
    ModelError,
    SlideOpenError,
    SlideReadError,
)
from napari_wsi_heatmap.slides.array import ArraySlide
from streams.stream_made import by_window, naive, order_of, slides


@pytest.mark.parametrize("n", [1, 2, 10])
@pytest.mark.parametrize("readers", [1, 3])
def test_every_window_of_every_slide_once_as_a_naive_loop_sees_it(n, readers):
    made = slides(n)
    found = by_window(wh.stream(made, window=64, batch_size=7, readers=readers, memory=1))
    wanted = {(name, *at): p for name, s in made.items() for at, p in naive(s).items()}
    assert found.keys() == wanted.keys()
    for key, patch in wanted.items():
        assert torch.equal(found[key], patch), key


@pytest.mark.parametrize("readers", [2, 5])
def test_the_order_is_that_of_the_slides_however_many_read(readers):
    one = order_of(wh.stream(slides(6), window=64, stride=32, readers=1, memory=1))
    many = order_of(wh.stream(slides(6), window=64, stride=32, readers=readers, memory=1))
    assert one == many
    names = [name for name, *_ in one]
    assert names == sorted(names)


def test_batches_are_full_but_the_last_and_mix_slides():
    batches = list(wh.stream(slides(3), window=64, batch_size=16))
    sizes = [len(x) for x, _, _ in batches]
    assert set(sizes[:-1]) == {16}
    assert 1 <= sizes[-1] <= 16
    assert any(len(set(names)) > 1 for _, names, _ in batches)
    x, names, windows = batches[0]
    assert x.shape == (16, 3, 64, 64)
    assert x.dtype == torch.float32
    assert x.is_contiguous()
    assert 0 <= x.min() <= x.max() <= 1
    assert names == ["s0"] * 16
    assert windows.shape == (16, 2)
    assert windows.dtype == np.int64


@pytest.mark.parametrize("edge", ["pad", "flush", "drop", "centre"])
@pytest.mark.parametrize("stride", [40, 64, (100, 30)])
def test_strides_and_edges_on_both_axes(edge, stride):
    slide = noise_slide(300, 410)
    found = by_window(wh.stream(slide, window=64, stride=stride, edge=edge))
    wanted = naive(slide, 64, stride, edge=edge)
    assert {key[1:] for key in found} == set(wanted)
    for (_, *at), patch in found.items():
        assert torch.equal(patch, wanted[tuple(at)])


def test_windows_that_overlap_are_read_once():
    slide = FaultySlide(noise_slide(1500, 1500))
    windows = len(order_of(wh.stream(slide, window=64, stride=16, readers=1)))
    assert windows == 91 * 91
    assert slide.reads <= 40  # tiles of 256 px, each decoded once


def test_next_goes_on_and_a_loop_begins_anew():
    with wh.stream(slides(2), window=64, batch_size=4) as stream:
        x, names, windows = next(stream)
        second = next(stream)
        assert len(x) == len(names) == len(windows) == 4
        assert second.windows.tolist() != windows.tolist()
        assert order_of(stream)[:4] == [("s0", *at) for at in windows.tolist()]
    rest = wh.stream(noise_slide(64, 64), window=64)
    assert len(next(rest).x) == 1
    with pytest.raises(StopIteration):
        next(rest)


def test_a_slide_that_is_none_is_one_line_and_the_others_complete(tmp_path, caplog):
    (tmp_path / "broken.svs").write_bytes(b"no slide at all")
    made = slides(4)
    given = {"s0": made["s0"], "broken": tmp_path / "broken.svs", **made}
    stream = wh.stream(given, window=64)
    with caplog.at_level(logging.WARNING):
        found = by_window(stream)
    assert len(found) == sum(len(naive(slide)) for slide in made.values())
    assert list(stream.failed) == ["broken"]
    told = [r.message for r in caplog.records if "broken" in r.message]
    assert len(told) == 1
    assert "\n" not in told[0]


def test_or_it_ends_the_stream_after_what_came_before(tmp_path):
    (tmp_path / "broken.svs").write_bytes(b"no slide at all")
    made = slides(2)
    given = {"s0": made["s0"], "broken": tmp_path / "broken.svs", "s1": made["s1"]}
    stream, seen = wh.stream(given, window=64, batch_size=1, on_error="raise"), []
    with pytest.raises(SlideOpenError, match="broken"):
        seen.extend(batch.slides[0] for batch in stream)
    assert seen == ["s0"] * len(naive(made["s0"]))


def test_where_no_slide_can_be_opened_the_error_is_raised(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.svs").write_bytes(b"no slide at all")
    with pytest.raises(SlideOpenError, match=r"b\.svs"):
        list(wh.stream(tmp_path))


def test_windows_on_damage_are_left_out_and_told(caplog):
    slide = FaultySlide(noise_slide(512, 512), bad=[(300, 300)])
    stream = wh.stream({"a": slide}, window=64)
    with caplog.at_level(logging.WARNING):
        found = by_window(stream)
    assert len(found) == 63
    assert list(stream.failed_windows) == [("a", 256, 256)]
    assert sum("windows cannot be read" in r.message for r in caplog.records) == 1
    with pytest.raises(SlideReadError, match=r"\(256, 256\).*on_error"):
        list(wh.stream({"a": slide}, window=64, on_error="raise"))


def test_a_window_that_is_lost_is_never_passed_over(monkeypatch):
    from napari_wsi_heatmap.streams.cutting import Cutter

    whole = Cutter.windows
    monkeypatch.setattr(Cutter, "windows", lambda *given: islice(whole(*given), 5))
    with pytest.raises(HeatmapError, match="95 windows were planned and never came"):
        list(wh.stream(noise_slide(640, 640), window=64))


def test_every_slide_at_the_same_size_of_pixels():
    made = {
        "fine": ArraySlide([noise(256, 300, seed=1)], mpp=0.25, name="fine"),
        "coarse": ArraySlide([noise(160, 140, seed=2)], mpp=0.5, name="coarse"),
    }
    stream = wh.stream(made, window=32, mpp=0.5, batch_size=17)
    found = by_window(stream)
    assert {stream.layout(name).grid.spec.footprint for name in made} == {(64, 64), (32, 32)}
    for name, slide in made.items():
        model = lambda batch: batch.double().mean((2, 3))  # noqa: E731
        heatmap = wh.compute_heatmap(
            slide, model, window=32, mpp=0.5, tissue="none", progress=False
        )
        wanted = {
            tuple(np.rint(at).astype(int)): value
            for at, value in zip(
                heatmap.positions.reshape(-1, 2), heatmap.values.reshape(3, -1).T, strict=True
            )
        }
        mine = {key[1:]: patch for key, patch in found.items() if key[0] == name}
        assert mine.keys() == wanted.keys()
        for at, patch in mine.items():
            np.testing.assert_array_equal(patch.double().mean((1, 2)).float(), wanted[at])


def test_the_level_is_a_number_or_a_function_of_the_slide():
    slide = pyramid_slide()
    for level in (1, np.int64(1), lambda slide: len(slide.levels) - 2):
        found = by_window(wh.stream({"a": slide}, window=50, level=level))
        assert found.keys() == {("a", *at) for at in naive(slide, 50, level=1)}
    with pytest.raises(GridError, match="level"):
        list(wh.stream(slide, level=9))


def test_places_at_a_level_of_no_whole_downsample_can_be_found_again():
    slide = ArraySlide([noise(1000, 700), noise(137, 95)])
    down = slide.levels[1].downsample
    assert not down[0].is_integer()
    (_, _, windows), *_ = wh.stream(slide, window=20, level=1)
    corners = windows / np.asarray(down)
    assert np.abs(corners - np.rint(corners)).max() <= 0.5 / min(down)
    assert set(np.rint(corners)[:, 1].astype(int).tolist()) == {0, 20, 40, 60, 80}


def test_only_tissue_or_a_region_where_asked():
    slide, mask = noise_slide(640, 640), np.zeros((10, 10), bool)
    mask[2:4, 5] = True
    stream = wh.stream({"a": slide}, window=64, tissue=mask)
    assert set(by_window(stream)) == {("a", 128, 320), ("a", 192, 320)}
    assert stream.count_windows() == {"a": 2}
    inside = by_window(wh.stream({"a": slide}, window=64, roi=(0, 0, 64, 130)))
    assert set(inside) == {("a", 0, 0), ("a", 0, 64)}


def test_transforms_of_patches_and_of_batches():
    stream = wh.stream(
        noise_slide(128, 128),
        window=64,
        patch_transform=lambda patch: patch.flip(2)[:1],
        transform=lambda x: (x * 2).numpy(),
    )
    ((x, _, _),) = stream
    (plain, _, _) = next(wh.stream(noise_slide(128, 128), window=64))
    assert isinstance(x, np.ndarray)
    np.testing.assert_array_equal(x, 2 * plain.flip(3)[:, :1].numpy())


def test_windows_that_are_known_are_not_read_again():
    made = slides(3)
    stream = wh.stream(made, window=64)
    everything = order_of(stream)
    known = {name: np.array([at[1:] for at in everything if at[0] == name][::2]) for name in made}
    rest = order_of(stream.without({**known, "s2": None}))
    taken = {(name, *at) for name, places in known.items() for at in places.tolist()}
    assert rest == [at for at in everything if at not in taken and at[0] != "s2"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"sampling": "sometimes"}, "sampling"),
        ({"seed": -1}, "seed"),
        ({"epoch_size": 10}, "sees every window once"),
        ({"weights": "area"}, "sees every window once"),
        ({"sampling": "random", "weights": "so"}, "weights"),
        ({"sampling": "random", "weights": 3}, "weights"),
        ({"on_error": "cry"}, "on_error"),
        ({"cut": 5}, "cut"),
        ({"shard": (2, 2)}, "shard"),
        ({"window": 0}, "window"),
    ],
)
def test_settings_that_cannot_be(wrong, message):
    with pytest.raises(GridError, match=message):
        wh.stream(noise_slide(), **wrong)


def test_more_that_cannot_be(tmp_path):
    with pytest.raises(TypeError, match="no setting 'colour'"):
        wh.stream(noise_slide(), colour=1)
    with pytest.raises(SlideOpenError, match="no slides"):
        wh.stream(tmp_path)
    with pytest.raises(SlideOpenError, match="called"):
        wh.stream(["a.svs", "a.svs"])
    with pytest.raises(ModelError, match="no device 'abacus'"):
        list(wh.stream(noise_slide(), device="abacus"))
    with pytest.raises(MissingMppError):
        list(wh.stream(noise_slide(mpp=None), mpp=0.5))


def test_names_of_slides(tmp_path):
    def ids(*given, **kwargs):
        return [source.id for source in wh.stream(*given, **kwargs).sources]

    for name in ("b.svs", "a.tif", "notes.txt", ".hidden.svs"):
        (tmp_path / name).touch()
    assert ids("x.svs") == ["x.svs"]
    assert ids([tmp_path / "b.svs"]) == [str(tmp_path / "b.svs")]
    assert ids(tmp_path) == [str(tmp_path / "a.tif"), str(tmp_path / "b.svs")]
    assert ids(noise_slide()) == ["noise"]
    assert ids([7, 8], path_of=lambda case: f"{case}.svs") == [7, 8]
    (tmp_path / "list.csv").write_text("id,slide\n1,a.tif\n2,b.svs\n")
    assert ids(tmp_path / "list.csv") == [str(tmp_path / "a.tif"), str(tmp_path / "b.svs")]
    (tmp_path / "list.csv").write_text("id,Path,mpp\n1,a.tif,0.5\n")
    assert ids(tmp_path / "list.csv") == [str(tmp_path / "a.tif")]
    (tmp_path / "list.csv").write_text("name,mpp\na.tif,0.5\n")  # no row is taken for a slide
    with pytest.raises(SlideOpenError, match="no column of slides"):
        ids(tmp_path / "list.csv")
    (tmp_path / "list.txt").write_text("a.tif\n\nb.svs\n")
    assert ids(tmp_path / "list.txt") == [str(tmp_path / "a.tif"), str(tmp_path / "b.svs")]


def test_the_first_batch_needs_one_region_and_no_more():
    slide, others = noise_slide(3000, 3000), threading.Event()

    def read(given, y, x, height, width):
        assert (y, x) == (0, 0) or others.wait(60)
        return given.slide.read_region(0, y, x, height, width)

    with wh.stream(slide, window=64, batch_size=16, read=read) as stream:
        assert next(stream).windows[:2].tolist() == [[0, 0], [0, 64]]
        others.set()


def test_readers_wait_for_whoever_is_slow():
    slide = FaultySlide(noise_slide(4000, 4000))
    with wh.stream(slide, window=64, stride=32, batch_size=4, memory=1, readers=4) as stream:
        next(stream)
        before = -1
        while before != slide.reads:  # until the readers stand still
            before = slide.reads
            time.sleep(0.3)
        assert 0 < stream.held_bytes <= 1 << 20
        assert slide.reads < 60  # of 256 tiles


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("resize", ["pillow", "torch"])
def test_on_a_gpu_patches_are_the_same(resize):
    made = {"fine": noise_slide(300, 300, 0.25), "coarse": noise_slide(200, 140, 0.5)}
    asked = {"window": 32, "mpp": 0.5, "resize": resize}
    here, there = (by_window(wh.stream(made, **asked, device=d)) for d in ("cpu", "cuda"))
    assert here.keys() == there.keys()
    atol = 0 if resize == "pillow" else 2 / 255
    for key, patch in here.items():
        assert there[key].device.type == "cuda"
        assert torch.allclose(there[key].cpu(), patch, rtol=0, atol=atol + 1e-7)
