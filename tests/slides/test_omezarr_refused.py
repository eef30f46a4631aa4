"""Folders that are no slides, or hostile ones: one line each, and nothing is decoded."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import zarr
from numcodecs import Delta, Pickle

from made_slides import noise, tissue
from made_zarr import axes_of, edit_json, edit_ome, write_ome_zarr
from napari_wsi_heatmap.errors import SlideOpenError, SlideReadError
from napari_wsi_heatmap.slides import looks_like_slide, open_slide

SMALL = [noise(100, 130)]

# what is no slide


def array_of(path, shape, dtype, names="cyx", **options):
    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    group.create_array("0", shape=shape, dtype=dtype, chunks=shape, **options)
    datasets = [
        {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0] * len(shape)}]}
    ]
    scales = [{"axes": axes_of(names), "datasets": datasets}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": scales}
    return path


@pytest.mark.parametrize(
    ("shape", "dtype", "names", "reason"),
    [
        ((50, 60), "uint8", "yx", "the image has no axis of channels: not an RGB slide"),
        ((1, 50, 60), "uint8", "cyx", "has 1 channel instead of 3: not an RGB slide"),
        ((2, 50, 60), "uint8", "cyx", "has 2 channels instead of 3"),
        ((4, 50, 60), "uint8", "cyx", "has 4 channels instead of 3"),
        ((5, 50, 60), "uint8", "cyx", "has 5 channels instead of 3"),
        ((3, 50, 60), "uint16", "cyx", "its pixels are uint16, not uint8 - .* - convert"),
        ((3, 50, 60), "float32", "cyx", "its pixels are float32, not uint8 - .* - convert"),
        ((3, 50, 60), "bool", "cyx", "its pixels are bool"),
    ],
)
def test_images_that_are_not_rgb(tmp_path, shape, dtype, names, reason):
    path = array_of(tmp_path / "a.zarr", shape, dtype, names)
    refused(path, reason)


def test_dtypes_of_zarr_2(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL, version="0.4")
    for dtype, name in (("<u2", "uint16"), ("<f4", "float32"), ("|O", "Python objects")):
        edit_json(path / "0" / ".zarray", lambda meta, dtype=dtype: meta.update(dtype=dtype))
        refused(path, f"its pixels are {name}, not uint8")


def test_other_things_in_zarr_are_named(tmp_path):
    def attributed(name, **attributes):
        group = zarr.open_group(str(tmp_path / name), mode="w", zarr_format=3)
        group.attrs["ome"] = {"version": "0.5", **attributes}
        return tmp_path / name

    image = write_ome_zarr(tmp_path / "image.zarr", SMALL)
    refused(image / "0", "it is a single Zarr array .* open the image's folder around it")
    refused(attributed("plate.zarr", plate={}), "it is a plate of many images, not one image")
    refused(attributed("well.zarr", well={}), "it is a well of a plate")
    refused(attributed("labels.zarr", labels=["a"]), "it is a collection of labels")
    refused(attributed("bf.zarr", **{"bioformats2raw.layout": 3}), "a collection without an image")
    refused(attributed("group.zarr"), r"a Zarr folder without an OME image \(no multiscales\)")
    edit_ome(image, lambda ome: ome.update({"image-label": {}}))
    refused(image, "it is an image of labels, not a slide")


@pytest.mark.parametrize("version", ["0.4", "0.6", "0.50", None, 5])
def test_versions(tmp_path, version):
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL)
    edit_ome(path, lambda ome: ome.update(version=version))
    refused(path, f"OME-Zarr {version} is not read - .* - convert it to OME-Zarr 0.4 or 0.5")


def test_old_versions(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL, version="0.4")
    edit_json(path / ".zattrs", lambda attrs: attrs["multiscales"][0].update(version="0.2"))
    refused(path, "OME-Zarr 0.2 is not read")
    path = write_ome_zarr(tmp_path / "b.zarr", SMALL)
    edit_json(path / "zarr.json", lambda meta: meta.update(attributes=meta["attributes"]["ome"]))
    refused(path, "OME-Zarr older than 0.5, in Zarr 3 is not read")


def test_a_heatmap_is_no_slide(tmp_path):
    path = write_ome_zarr(tmp_path / "out.zarr", SMALL)
    for record in (
        json.dumps({"format": "napari-wsi-heatmap"}),
        "{",
        "[" * 99_999,
        " " * (5 << 20),
    ):
        (path / "run.json").write_text(record)
        refused(path, "a heatmap, not a slide .* view SLIDE out.zarr, or read it with open_heatmap")
    (path / "run.json").write_text("{}")
    open_slide(path).close()


def test_a_heatmap_of_a_run_is_named_so(tmp_path):
    import napari_wsi_heatmap as wh
    from napari_wsi_heatmap.slides.array import ArraySlide

    slide = ArraySlide([tissue(256, 256)], mpp=0.5)
    for _ in wh.run(slide, "tissue", out=tmp_path / "out.zarr"):
        pass
    refused(tmp_path / "out.zarr", "a heatmap, not a slide")


def refused(path, reason):
    with pytest.raises(SlideOpenError, match=reason) as raised:
        open_slide(path)
    assert "\n" not in str(raised.value)
    assert not looks_like_slide(path)


# hostile metadata


def on_array(**values):
    return lambda meta: meta.update(values)


def zarr3_codec(**codec):
    return on_array(codecs=[codec])


GRID = {"name": "regular", "configuration": {"chunk_shape": [3, 10**6, 10**6]}}
THIN = {"name": "regular", "configuration": {"chunk_shape": [3, 1, 1]}}
OTHER_GRID = {"name": "rectilinear", "configuration": {}}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (on_array(shape=[3, 2**40, 2**40]), r"damaged: 0 claims 1099511627776 pixels"),
        (on_array(shape=[3, 0, 5]), "damaged: 0 has shape"),
        (on_array(shape=[3, -5, 5]), "damaged: 0 has shape"),
        (on_array(shape=[3, 5.5, 5]), "damaged: 0 has shape"),
        (on_array(shape=[3, True, 5]), "damaged: 0 has shape"),
        (on_array(shape="abc"), "damaged: 0 has shape none"),
        (on_array(shape=[3, 100]), "damaged: 0 has chunks of another number of axes"),
        (on_array(shape=[1] * 100), "damaged: 0 has shape"),
        (on_array(shape=None), "damaged: 0 has shape none"),
        (on_array(chunk_grid=GRID), "its chunks are 3 x 1000000 x 1000000, more than 64 MB"),
        (on_array(chunk_grid=THIN), "its chunks have 1 pixels along an axis of 100"),
        (on_array(chunk_grid=OTHER_GRID), "its chunks are not of one size"),
        (on_array(chunk_grid=7), "its chunks are not of one size"),
        (on_array(storage_transformers=[{}]), "its chunks are not of one size"),
        (on_array(chunk_key_encoding={"name": "odd"}), "its files are named by 'odd'"),
        (
            on_array(chunk_key_encoding={"name": "v2", "configuration": {"separator": "/../"}}),
            "damaged: 0 separates by",
        ),
        (on_array(data_type={"name": "struct"}), "its pixels are .*struct.*, not uint8"),
        (on_array(data_type=["uint8"] * 10**5), "its pixels are"),
        (on_array(codecs=[]), "its codec 'none' is not read here"),
        (on_array(codecs=None), "its codec 'none' is not read here"),
        (zarr3_codec(name="secret"), "its codec 'secret' is not read here"),
        (
            on_array(codecs=[{"name": "bytes"}, {"name": "numcodecs.pickle"}]),
            "its codec 'pickle' is not read here",
        ),
        (
            on_array(codecs=[{"name": "transpose", "configuration": {"order": [0, 0, 1]}}]),
            "damaged: 0 has no order of axes",
        ),
        (
            on_array(codecs=[{"name": "transpose", "configuration": {"order": ["0", "1", "2"]}}]),
            "damaged: 0 has no order of axes",
        ),
    ],
)
def test_array_metadata_that_make_no_sense(tmp_path, change, reason):
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL)
    edit_json(path / "0" / "zarr.json", change)
    refused(path, reason)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"chunk_shape": [3, 60, 60]}, "damaged: shards of .* cannot hold chunks"),
        ({"chunk_shape": [3, 0, 1]}, "damaged: 0 has chunk_shape"),
        ({"chunk_shape": [3, 64]}, "damaged: shards of .* cannot hold chunks"),
        ({"index_codecs": [{"name": "gzip"}]}, "shards are encoded in a way that is not read"),
        ({"index_codecs": []}, "shards are encoded in a way that is not read"),
        (
            {"codecs": [{"name": "sharding_indexed", "configuration": {}}]},
            "its codec 'sharding_indexed' is not read",
        ),
    ],
)
def test_shards_that_make_no_sense(tmp_path, settings, reason):
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL, chunks=(3, 64, 64), shards=(3, 128, 128))
    edit_json(path / "0" / "zarr.json", lambda m: m["codecs"][0]["configuration"].update(settings))
    refused(path, reason)


def test_a_shard_of_too_many_chunks(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL, chunks=(3, 64, 64), shards=(3, 128, 128))
    grid = {"name": "regular", "configuration": {"chunk_shape": [3, 2**16, 2**16]}}
    edit_json(path / "0" / "zarr.json", on_array(chunk_grid=grid))
    open_slide(path).close()
    grid["configuration"]["chunk_shape"] = [3, 2**17, 2**17]
    edit_json(path / "0" / "zarr.json", on_array(chunk_grid=grid))
    refused(path, "shards of .* cannot hold chunks of")


def test_pickled_filters_are_never_decoded(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL, version="0.4")
    for bad in (Pickle(), Delta(dtype="u1")):
        edit_json(path / "0" / ".zarray", on_array(filters=[bad.get_config()]))
        refused(path, f"its codec '{bad.codec_id}' is not read here")
    edit_json(path / "0" / ".zarray", on_array(filters=None, compressor={"id": "pickle"}))
    refused(path, "its codec 'pickle' is not read here")


@pytest.mark.parametrize(
    "change",
    [
        lambda ome: ome.update(multiscales={}),
        lambda ome: ome.update(multiscales=[]),
        lambda ome: ome.update(multiscales=[[]]),
        lambda ome: ome["multiscales"][0].update(axes=None),
        lambda ome: ome["multiscales"][0].update(axes=["c", "y", "x"]),
        lambda ome: ome["multiscales"][0].update(axes=axes_of("cyy")),
        lambda ome: ome["multiscales"][0].update(axes=axes_of("yxc")),
        lambda ome: ome["multiscales"][0].update(axes=axes_of("tcyx")),
        lambda ome: ome["multiscales"][0].update(datasets=[]),
        lambda ome: ome["multiscales"][0].update(datasets=[{"path": "0"}] * 1000),
        lambda ome: ome["multiscales"][0].update(datasets=[{"path": "7"}]),
        lambda ome: ome["multiscales"][0].update(datasets=[{"path": ""}]),
        lambda ome: ome["multiscales"][0].update(datasets=[{"path": 0}]),
        lambda ome: ome["multiscales"][0].update(datasets=[{}]),
        lambda ome: ome["multiscales"][0].update(datasets=[{"path": "a\0b"}]),
        lambda ome: ome["multiscales"][0].update(datasets=[{"path": "a" * 10**6}]),
    ],
)
def test_ome_metadata_that_make_no_sense(tmp_path, change):
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL)
    edit_ome(path, lambda ome: change(ome))
    refused(path, "damaged: |no multiscales|instead of 3")


@pytest.mark.parametrize(
    "place", ["../b.zarr/0", "../../etc", "0/../../b.zarr/0", "c:\\a", "x\\..\\0"]
)
def test_paths_that_lead_out_of_the_folder(tmp_path, place):
    write_ome_zarr(tmp_path / "b.zarr", SMALL)
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL)
    edit_ome(path, lambda ome: ome["multiscales"][0]["datasets"][0].update(path=place))
    refused(path, "its metadata lead out of its folder")


def test_absolute_paths_and_links_lead_out_as_well(tmp_path):
    other = write_ome_zarr(tmp_path / "b.zarr", SMALL)
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL)
    edit_ome(path, lambda ome: ome["multiscales"][0]["datasets"][0].update(path=str(other / "0")))
    refused(path, "its metadata lead out of its folder")
    edit_ome(path, lambda ome: ome["multiscales"][0]["datasets"][0].update(path="linked"))
    (path / "linked").symlink_to(other / "0")
    refused(path, "its metadata lead out of its folder")


def test_a_linked_root_and_links_within_are_fine(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL)
    (path / "0").rename(path / "elsewhere")
    (path / "0").symlink_to(path / "elsewhere")
    (tmp_path / "link.zarr").symlink_to(path)
    with open_slide(tmp_path / "link.zarr") as slide:
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, 100, 130), SMALL[0])


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"[" * 10**5, b"\xff\xfe", b"1" * 10**5])
def test_metadata_that_are_no_json(tmp_path, content):
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL)
    for place in ("0", "."):
        (path / place / "zarr.json").write_bytes(content)
        refused(path, "damaged: .*zarr.json is no JSON")


def test_metadata_of_a_hundred_megabytes(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL)
    with (path / "zarr.json").open("r+b") as file:
        file.truncate(100 << 20)
    refused(path, "zarr.json cannot be read: it has more than 4 MB")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_are_not_waited_for(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL)
    chunk = path / "0" / "c" / "0" / "0" / "0"
    chunk.unlink()
    os.mkfifo(chunk)
    with open_slide(path) as slide, pytest.raises(SlideReadError, match="not a regular file"):
        slide.read_region(0, 0, 0, 9, 9)
    (path / "0" / "zarr.json").unlink()
    os.mkfifo(path / "0" / "zarr.json")
    refused(path, "zarr.json cannot be read: it is not a regular file")
