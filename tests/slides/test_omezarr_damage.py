"""Chunks of an OME-Zarr that are damaged, hostile, missing, or gone."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from zarr.codecs import GzipCodec, ZstdCodec

from made_slides import noise, strided, tissue
from made_zarr import edit_json, write_ome_zarr
from napari_wsi_heatmap.errors import SlideChangedError, SlideReadError
from napari_wsi_heatmap.slides import open_slide

LEVELS = strided(noise(300, 421), 2, 8)
SMALL = [noise(100, 130)]

# damaged and missing chunks


def damaged(content):
    return {
        "cut": content[: len(content) // 2],
        "empty": b"",
        "garbage": bytes(range(256)) * 8,
        "shifted": content[:1] + content,
        "huge": content + bytes(10**6),
    }


@pytest.mark.parametrize("kind", ["cut", "empty", "garbage", "shifted", "huge"])
@pytest.mark.parametrize(
    "options",
    [
        {"version": "0.4"},
        {"version": "0.4", "compressors": None},
        {"compressors": GzipCodec()},
        {},
        {"chunks": (3, 32, 32), "shards": (3, 64, 64)},
    ],
    ids=["blosc", "none", "gzip", "zstd", "shard"],
)
def test_a_damaged_chunk_fails_what_touches_it(tmp_path, options, kind):
    path = write_ome_zarr(tmp_path / "a.zarr", [LEVELS[0]], **options)
    name = "0.1.2" if "version" in options else "c/0/1/2"
    chunk = path / "0" / name
    chunk.write_bytes(damaged(chunk.read_bytes())[kind])
    with open_slide(path) as slide:
        with pytest.raises(SlideReadError) as raised:
            slide.read_region(0, 100, 150, 40, 40)
        assert f"level 0, chunk {name} - copy" in str(raised.value)
        assert "\n" not in str(raised.value)
        for box in ((0, 0, 64, 421), (128, 0, 100, 421), (64, 0, 64, 128), (64, 192, 64, 100)):
            y, x, height, width = box
            wanted = LEVELS[0][y : y + height, x : x + width]
            np.testing.assert_array_equal(slide.read_region(0, *box), wanted)


def test_one_damaged_chunk_of_a_shard_leaves_the_others(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL, chunks=(3, 32, 32), shards=(3, 128, 160))
    shard = path / "0" / "c" / "0" / "0" / "0"
    content = bytearray(shard.read_bytes())
    entries = np.frombuffer(content[-4 - 16 * 20 : -4], "<u8").reshape(4, 5, 2)
    content[int(entries[1, 2, 0]) + 2 : int(entries[1, 2, 0]) + 40] = bytes(38)
    shard.write_bytes(content)
    with open_slide(path) as slide:
        with pytest.raises(SlideReadError, match="chunk c/0/0/0"):
            slide.read_region(0, 40, 70, 5, 5)
        np.testing.assert_array_equal(slide.read_region(0, 32, 0, 32, 64), SMALL[0][32:64, :64])


def test_a_list_of_a_shard_that_points_beyond_it(tmp_path):
    path = write_ome_zarr(
        tmp_path / "a.zarr", SMALL, chunks=(3, 32, 32), shards=(3, 128, 160)
    )  # fmt: skip
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}]
    edit_json(
        path / "0" / "zarr.json",
        lambda meta: meta["codecs"][0]["configuration"].update(index_codecs=codecs),
    )
    shard = path / "0" / "c" / "0" / "0" / "0"
    for entry in ((10**9, 5), (0, 10**9), (2**63, 2**63)):
        shard.write_bytes(bytes(1000) + np.full((20, 2), entry, "<u8").tobytes())
        with open_slide(path) as slide, pytest.raises(SlideReadError, match="its shard lists"):
            slide.read_region(0, 0, 0, 9, 9)


def test_a_bomb_is_no_allocation(tmp_path):
    import imagecodecs

    for codec, compressors in (("zstd", ZstdCodec()), ("gzip", GzipCodec())):
        path = write_ome_zarr(tmp_path / "a.zarr", SMALL, compressors=compressors)
        encode = getattr(imagecodecs, f"{codec}_encode")
        (path / "0" / "c" / "0" / "0" / "0").write_bytes(encode(bytes(50 << 20), level=1)[:24_000])
        with open_slide(path) as slide, pytest.raises(SlideReadError, match="cannot be read"):
            slide.read_region(0, 0, 0, 9, 9)


def test_mutated_chunks_never_harm(tmp_path):
    """Bit flips in chunks of every codec give pixels or one error, nothing else."""
    rng = np.random.default_rng(7)
    options = ({"version": "0.4"}, {}, {"compressors": GzipCodec()}, {"shards": (3, 128, 192)})
    for number, more in enumerate(options):
        path = write_ome_zarr(tmp_path / f"{number}.zarr", [tissue(100, 130)], **more)
        chunk = path / "0" / ("0.0.0" if "version" in more else "c/0/0/0")
        content = chunk.read_bytes()
        slide = open_slide(path)
        slide._refuse_changed = lambda: None
        told = set()
        for _ in range(300):
            mutated = bytearray(content[: rng.integers(1, len(content) + 1)])
            for at in rng.integers(0, len(mutated), rng.integers(1, 6)):
                mutated[at] = rng.integers(0, 256)
            chunk.write_bytes(mutated)
            try:
                assert slide.read_region(0, 0, 0, 100, 130).shape == (100, 130, 3)
            except SlideReadError as error:
                told.add(str(error).partition(":")[0])
        assert told == {"a chunk cannot be read"}
        slide.close()


def test_a_chunk_nobody_may_read(tmp_path):
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        pytest.skip("this user may read everything")
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL)
    (path / "0" / "c" / "0" / "0" / "0").chmod(0)
    with open_slide(path) as slide, pytest.raises(SlideReadError, match="Permission denied"):
        slide.read_region(0, 0, 0, 9, 9)


def test_missing_chunks_are_not_scanned(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", [LEVELS[0]])
    (path / "0" / "c" / "0" / "1" / "2").unlink()
    with open_slide(path) as slide:
        assert slide.warnings == (
            "3% of its chunks were never written: they are shown as not scanned",
        )
        rgb, scanned = slide.read_scanned(0, 0, 0, 300, 421)
    assert not scanned[64:128, 128:192].any()
    assert scanned.sum() == 300 * 421 - 64 * 64
    assert (rgb[64:128, 128:192] == 255).all()
    np.testing.assert_array_equal(rgb[scanned], LEVELS[0][scanned])


def test_the_fill_value_is_the_background_unless_it_is_zero(tmp_path):
    for fill, colour in ((0, 255), (240, 240), (255, 255)):
        path = write_ome_zarr(tmp_path / "a.zarr", SMALL, fill_value=fill)
        shutil.rmtree(path / "0" / "c")
        with open_slide(path) as slide:
            rgb, scanned = slide.read_scanned(0, 10, 20, 30, 40)
            assert slide.background == (colour,) * 3
            assert (rgb == colour).all()
            assert not scanned.any()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_folder_that_goes_away_is_not_taken_for_an_empty_one(tmp_path, version):
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL, version=version)
    slide = open_slide(path)
    path.rename(tmp_path / "away")
    with pytest.raises(SlideChangedError, match="is gone"):
        slide.read_region(0, 0, 0, 9, 9)
    assert "is gone" in slide.changed()
