"""The sample slide: what is on it, how it is written, where it is kept."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import openslide
import pytest
import tifffile

from napari_wsi_heatmap.errors import StoreFullError
from napari_wsi_heatmap.sample import (
    RECIPE_VERSION,
    SIZE,
    SampleCancelledError,
    cache,
    make_sample_slide,
    sample_slide_path,
    tiles,
)
from napari_wsi_heatmap.sample.layout import BLUR
from napari_wsi_heatmap.sample.paint import EOSIN, HAEMATOXYLIN, LIGHT, THIRD, paint
from napari_wsi_heatmap.sample.scene import Scene, build_scene
from napari_wsi_heatmap.sample.write import level_count

if TYPE_CHECKING:
    from pathlib import Path

MIDDLE = (1024, 1536)
TINY = (512, 768)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("made") / "sample.svs"
    make_sample_slide(path, size=MIDDLE)
    return path


@pytest.fixture(scope="module")
def pixels(made) -> np.ndarray:
    return tifffile.imread(made, key=0)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return build_scene(MIDDLE)


@pytest.fixture
def cached(tmp_path, monkeypatch) -> Path:
    """Return the folder in which the sample slide is kept during the test."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(cache, "folders", lambda: iter([folder]))
    return folder


def haematoxylin(rgb: np.ndarray) -> np.ndarray:
    """Return the haematoxylin of pixels, separated as Ruifrok and Johnston do."""
    density = -np.log10(np.maximum(rgb, 1) / np.array(LIGHT))
    return (density @ np.linalg.inv([HAEMATOXYLIN, EOSIN, THIRD]))[..., 0]


def sharpness(grey: np.ndarray) -> float:
    return float(np.abs(np.diff(grey, 2, axis=0)).mean() + np.abs(np.diff(grey, 2, axis=1)).mean())


def test_openslide_reads_levels_and_mpp(made):
    with openslide.OpenSlide(made) as slide:
        assert slide.properties["openslide.vendor"] == "aperio"
        assert slide.properties["openslide.objective-power"] == "20"
        assert float(slide.properties["openslide.mpp-x"]) == 0.5
        assert float(slide.properties["openslide.mpp-y"]) == 0.5
        assert slide.level_dimensions == ((1536, 1024), (768, 512))
        assert slide.level_downsamples == (1.0, 2.0)
        assert "thumbnail" in slide.associated_images


def test_openslide_and_imagecodecs_see_the_same_pixels(made, pixels):
    with openslide.OpenSlide(made) as slide:
        read = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    np.testing.assert_array_equal(read, pixels)


def test_a_coarser_level_holds_the_means_of_the_finer(made, pixels):
    with tifffile.TiffFile(made) as tiff:
        levels = [page.asarray() for page in tiff.pages if page.is_tiled]
    means = pixels.reshape(512, 2, 768, 2, 3).mean(axis=(1, 3))
    apart = np.abs(levels[1] - means).mean()
    shifted = np.abs(levels[1][1:, 1:] - means[:-1, :-1]).mean()
    assert apart < 4  # what JPEG takes away
    assert apart < shifted / 2
    assert abs((levels[1] - means).mean()) < 0.5


def test_full_size_has_integer_levels_down_to_1024():
    levels = level_count(SIZE)
    assert SIZE[0] >= 9000
    assert SIZE[1] >= 12000
    assert all(n % 2 ** (levels - 1) == 0 for n in SIZE)
    assert 512 < max(SIZE) >> (levels - 1) <= 1024


@pytest.mark.parametrize("size", [(1000, 1536), (128, 512), (9000, 12000)])
def test_a_size_that_levels_do_not_divide_is_refused(tmp_path, size):
    with pytest.raises(ValueError, match="multiples of 16"):
        make_sample_slide(tmp_path / "a.svs", size=size)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [(592, 784), (784, 2064)])
def test_sizes_that_are_no_whole_blocks(tmp_path, size):
    make_sample_slide(tmp_path / "a.svs", size=size)
    with openslide.OpenSlide(tmp_path / "a.svs") as slide:
        assert slide.dimensions == size[::-1]
        last = slide.level_count - 1
        assert slide.level_downsamples[last] == 2**last
        edge = slide.read_region((0, 0), last, slide.level_dimensions[last])
        assert np.asarray(edge)[-1, -1, 3] == 255


def test_it_shows_glass_tissue_and_ink(pixels):
    red, green, blue = (pixels[..., i].astype(int) for i in range(3))
    glass = (pixels.min(axis=-1) > 232).mean()
    pink = ((red - green > 40) & (blue - green > 15)).mean()
    ink = ((green - red > 50) & (green - blue > 25)).mean()
    assert 0.35 < glass < 0.75
    assert 0.15 < pink < 0.55
    assert 0.005 < ink < 0.05


def test_glass_is_almost_white_and_uneven(pixels):
    corners = np.concatenate([pixels[:40, :40], pixels[-40:, -40:]]).reshape(-1, 3)
    assert np.abs(np.median(corners, axis=0) - LIGHT).max() < 4
    assert corners.std() > 0.3


def test_stain_separation_finds_the_nuclei(scene, pixels):
    found = scene.nuclei.near(0, 0, *MIDDLE, reach=0)
    stain = haematoxylin(pixels)
    # Not those under the ink or in the blurred patch: there are many more.
    assert np.median(stain[found.y, found.x]) > 0.5
    tissue = pixels.min(axis=-1) < 200
    assert np.median(stain[tissue]) < 0.25


def test_kinds_of_cells_differ_in_density():
    scene = build_scene((3072, 4096))
    layout = scene.layout
    cells = scene.nuclei.near(0, 0, 3072, 4096, reach=0)
    at = layout.frame.cell_of(cells.y, cells.x)

    def density(field: np.ndarray) -> float:
        return float(field[at].mean() * len(cells) / field.sum())

    stroma = (layout.tissue > 30) & (layout.epithelium < -30) & (layout.lymph < 0.1)
    follicle, nest = layout.lymph > 0.9, layout.nest > 10
    assert density(follicle) > 1.5 * density(nest) > 3 * density(stroma) > 0


def test_the_blurred_patch_is_less_sharp_than_other_tissue(pixels):
    grey = pixels.mean(axis=-1)
    y, x, side = round(BLUR[0] * MIDDLE[0]), round(BLUR[1] * MIDDLE[1]), 32
    patch = sharpness(grey[y - side : y + side, x - side : x + side])
    windows = grey.reshape(16, 64, 24, 64).swapaxes(1, 2).reshape(-1, 64, 64)
    tissue = [sharpness(w) for w in windows if np.mean(w < 210) > 0.9]
    assert len(tissue) > 20
    assert patch < 0.5 * np.percentile(tissue, 25)


def test_a_rectangle_painted_alone_equals_the_whole(scene):
    whole = paint(scene, 0, 0, 512, 512).astype(int)
    for y, x, height, width in ((0, 0, 256, 256), (200, 168, 128, 304), (384, 8, 120, 504)):
        part = paint(scene, y, x, height, width)
        assert np.abs(whole[y : y + height, x : x + width] - part).max() <= 1


def test_two_makings_are_equal_whatever_the_threads(tmp_path, monkeypatch):
    for name, threads in (("a.svs", 1), ("b.svs", 3)):
        monkeypatch.setattr(tiles, "THREADS", threads)
        make_sample_slide(tmp_path / name, size=TINY)
    assert (tmp_path / "a.svs").read_bytes() == (tmp_path / "b.svs").read_bytes()


def test_another_seed_makes_another_slide(tmp_path):
    for seed in (0, 1):
        make_sample_slide(tmp_path / f"{seed}.svs", size=TINY, seed=seed)
    a, b = (tifffile.imread(tmp_path / f"{seed}.svs", key=0) for seed in (0, 1))
    assert np.mean(a != b) > 0.2


def test_progress_rises_from_0_to_1(tmp_path):
    heard: list[float] = []
    make_sample_slide(tmp_path / "a.svs", size=MIDDLE, progress=heard.append)
    assert heard[0] == 0
    assert heard[-1] == 1
    assert all(b >= a for a, b in pairwise(heard))
    assert len(set(heard)) > 10


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.97])
def test_cancelled_it_leaves_nothing(cached, fraction):
    cancel = threading.Event()
    heard: list[float] = []

    def progress(done: float) -> None:
        heard.append(done)
        if done >= fraction:
            cancel.set()

    with pytest.raises(SampleCancelledError):
        sample_slide_path(progress, cancel, size=TINY)
    assert heard[-1] >= fraction
    assert sum(done >= fraction for done in heard) == 1
    assert not list(cached.iterdir())


def test_cancelled_before_writing_it_keeps_an_older_file(tmp_path):
    older = tmp_path / "a.svs"
    older.write_bytes(b"older")
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(SampleCancelledError):
        make_sample_slide(older, size=TINY, cancel=cancel)
    assert older.read_bytes() == b"older"


def test_the_second_call_makes_nothing(cached):
    heard: list[float] = []
    path = sample_slide_path(heard.append, size=TINY)
    assert path == cached / f"sample-{RECIPE_VERSION}-768x512.svs"
    before, count = path.stat(), len(heard)
    assert sample_slide_path(heard.append, size=TINY) == path
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert len(heard) == count
    assert list(cached.iterdir()) == [path]
    assert openslide.OpenSlide.detect_format(path) == "aperio"


def test_where_the_full_slide_is_kept(cached):
    there = cached / f"sample-{RECIPE_VERSION}.svs"
    cached.mkdir()
    there.write_bytes(b"made earlier")
    assert sample_slide_path() == there


def test_the_first_folder_is_the_users_cache_the_second_temporary(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    first, second = cache.folders()
    assert first.name == "napari-wsi-heatmap"
    assert "napari-wsi-heatmap" in second.name
    assert first != second
    if os.name == "posix" and os.uname().sysname == "Linux":
        assert first == tmp_path / "xdg" / "napari-wsi-heatmap"


def test_without_a_writable_cache_it_goes_to_the_next_folder(tmp_path, monkeypatch):
    in_the_way = tmp_path / "file"
    in_the_way.write_bytes(b"")
    folders = [in_the_way, in_the_way / "below", tmp_path / "temporary"]
    monkeypatch.setattr(cache, "folders", lambda: iter(folders))
    path = sample_slide_path(size=TINY)
    assert path.parent == tmp_path / "temporary"
    assert openslide.OpenSlide.detect_format(path) == "aperio"


@pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() == 0, reason="permissions do not stop this user"
)
def test_a_read_only_cache_is_passed_over(tmp_path, monkeypatch):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    monkeypatch.setattr(cache, "folders", lambda: iter([locked, tmp_path / "temporary"]))
    assert sample_slide_path(size=TINY).parent == tmp_path / "temporary"


def test_with_no_folder_at_all_it_says_so_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(cache, "folders", lambda: iter([tmp_path / "file"]))
    with pytest.raises(StoreFullError, match="sample slide cannot be written") as error:
        sample_slide_path(size=TINY)
    assert "\n" not in str(error.value)


def test_old_leftovers_are_swept_and_others_kept(cached):
    cached.mkdir()
    name = f"sample-{RECIPE_VERSION}-768x512.svs"
    stale, fresh = cached / f"{name}.aaaa.part", cached / f"{name}.bbbb.part"
    other = cached / "sample-v0.svs.cccc.part"
    for path in (stale, fresh, other):
        path.write_bytes(b"half")
    yesterday = time.time() - 25 * 3600
    for path in (stale, other):
        os.utime(path, (yesterday, yesterday))
    sample_slide_path(size=TINY)
    assert not stale.exists()
    assert fresh.exists()
    assert other.exists()


def test_makers_at_once_get_one_whole_slide(cached):
    with ThreadPoolExecutor(3) as pool:
        paths = set(pool.map(lambda _: sample_slide_path(size=TINY), range(3)))
    (path,) = paths
    assert list(cached.iterdir()) == [path]
    alone = cached.parent / "alone.svs"
    make_sample_slide(alone, size=TINY)
    assert path.read_bytes() == alone.read_bytes()
