"""Features that others wrote: what is read of them, and what is refused in one line."""

from __future__ import annotations

import os

import bags_made as made
import h5py
import numpy as np
import pytest
import torch

import napari_wsi_heatmap as wh
from made import noise_slide
from made_features import with_features
from napari_wsi_heatmap import growing
from napari_wsi_heatmap.errors import FeatureError
from napari_wsi_heatmap.mil import bags
from napari_wsi_heatmap.mil.bags import read_features
from napari_wsi_heatmap.mil.places import read_coords

XY = made.corners()


def test_clam(tmp_path):
    found = read_features(made.clam(tmp_path))
    assert (found.layout, found.features.dtype, len(found)) == ("clam", np.float32, 30)
    assert np.array_equal(found.features, made.vectors())
    assert np.array_equal(found.coords, XY[:, ::-1])
    assert found.coords.dtype == np.int64
    assert found.patch_size == (256.0, 256.0)  # 128 px of a level of downsample 2
    assert found.notices == ()


def test_a_file_of_features_alone_has_patches_as_wide_as_their_smallest_distance(tmp_path):
    path = made.clam(tmp_path)
    (tmp_path / "patches/a.h5").unlink()
    found = read_features(path)
    assert found.patch_size == (256.0, 256.0)
    assert "smallest distance" in found.notices[0]
    assert read_features(path, patch_size=(512, 100)).patch_size == (512.0, 100.0)
    assert read_features(path, patch_size=512).notices == ()


def test_patches_of_another_list_say_nothing(tmp_path):
    path = made.clam(tmp_path)
    made.write(tmp_path / "patches/a.h5", None, XY + 1, on_coords={"patch_size": 99})
    assert read_features(path).patch_size == (256.0, 256.0)


def test_clam_tensors_take_the_coordinates_beside_them(tmp_path):
    made.clam(tmp_path)
    (tmp_path / "pt_files").mkdir()
    path = tmp_path / "pt_files/a.pt"
    torch.save(torch.from_numpy(made.vectors()), path)
    found = read_features(path)
    assert found.layout == "tensor"
    assert np.array_equal(found.features, made.vectors())
    assert np.array_equal(found.coords, XY[:, ::-1])
    given = read_features(path, coords=XY[:, ::-1] + 1, patch_size=256)
    assert np.array_equal(given.coords, XY[:, ::-1] + 1)
    assert given.patch_size == (256.0, 256.0)


@pytest.mark.parametrize("saved", ["3-D", "dict", "half", "bfloat16", "legacy", "whole"])
def test_tensors_in_every_wrapping(tmp_path, saved):
    x = torch.from_numpy(made.vectors())
    options = {"_use_new_zipfile_serialization": False} if saved == "legacy" else {}
    wrapped = {
        "3-D": x[None], "dict": {"features": x, "coords": torch.from_numpy(XY)}, "half": x.half(),
        "bfloat16": x.bfloat16(), "legacy": x, "whole": (x * 9).int(),
    }  # fmt: skip
    torch.save(wrapped[saved], tmp_path / "a.pt", **options)
    found = read_features(tmp_path / "a.pt", need_coords=False)
    exact = wrapped[saved] if saved not in ("3-D", "dict") else x
    assert np.array_equal(found.features, exact.float().numpy())
    assert (found.coords is None) == (saved != "dict")
    if saved == "dict":
        assert np.array_equal(found.coords, XY[:, ::-1])


def test_trident(tmp_path):
    found = read_features(made.trident(tmp_path / "a.h5"))
    assert (found.layout, found.patch_size) == ("trident", (512.0, 512.0))
    assert np.array_equal(found.features, made.vectors().astype(np.float16).astype(np.float32))
    assert (found.attrs["encoder"], found.attrs["savetodir"]) == ("uni_v1", None)
    assert found.attrs["level0_width"] == 5000


def test_trident_features_without_coordinates_take_those_of_the_patches(tmp_path):
    path = made.write(tmp_path / "features_uni/a.h5", made.vectors(), on_features={"encoder": "u"})
    with pytest.raises(FeatureError, match="no coords"):
        read_features(path)
    made.trident(tmp_path / "patches/a_patches.h5")
    assert read_features(path).patch_size == (512.0, 512.0)


def test_stamp_places_are_micrometres(tmp_path):
    path = made.stamp(tmp_path / "a.h5")
    found = read_features(path, mpp=0.25)
    assert (found.layout, found.patch_size) == ("stamp", (256.0, 256.0))
    assert np.array_equal(found.coords, XY[:, ::-1])
    with pytest.raises(FeatureError, match=r"placed in µm.*a\.h5.*mpp="):
        read_features(path)
    assert read_features(path, need_coords=False).coords is None
    with pytest.raises(FeatureError, match="features of a slide, not of tiles"):
        read_features(made.stamp(tmp_path / "b.h5", feat_type="slide"), mpp=0.25)


def test_three_dimensions_are_squeezed(tmp_path, monkeypatch):
    monkeypatch.setattr(bags, "BLOCK_BYTES", 100)
    path = made.write(tmp_path / "a.h5", made.vectors()[None], XY[None], chunks=(1, 4, 12))
    found = read_features(path)
    assert np.array_equal(found.features, made.vectors())
    assert np.array_equal(found.coords, XY[:, ::-1])


def test_more_than_memory_is_read_in_blocks_into_a_scratch_file(tmp_path, monkeypatch):
    monkeypatch.setattr(bags, "BLOCK_BYTES", 12 * 4 * 7)
    monkeypatch.setattr(growing, "SCRATCH_BYTES", 100)
    found = read_features(made.clam(tmp_path, n=101))
    assert isinstance(found.features, np.memmap)
    assert np.array_equal(found.features, made.vectors(101))


def test_doubles_are_noticed(tmp_path):
    xy = XY.copy()
    xy[5] = xy[6] = xy[4]
    path = made.write(tmp_path / "a.h5", made.vectors(), xy)
    assert "2 of 30 patches lie where another one lies" in read_features(path).notices


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few(tmp_path, n):
    path = made.write(tmp_path / "a.h5", made.vectors(n), made.corners(n))
    found = read_features(path)
    assert len(found) == len(found.coords) == n
    if n == 1:
        assert found.patch_size is None
        assert found.notices == ("nothing says how large the patches are",)


def links(path, kind):
    made.write(path.with_name("other.h5"), made.vectors(), XY)
    with h5py.File(path, "w") as file:
        file["coords"] = XY
        if kind == "external":
            file["features"] = h5py.ExternalLink("other.h5", "/features")
        elif kind == "soft":
            file["features"] = h5py.SoftLink("/elsewhere/features")
            file["elsewhere"] = h5py.ExternalLink("other.h5", "/")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((30, 12), np.float32)
            layout[:] = h5py.VirtualSource("other.h5", "features", (30, 12))
            file.create_virtual_dataset("features", layout)
        else:
            raw = path.with_name("raw.bin")
            made.vectors().tofile(raw)
            file.create_dataset(
                "features", (30, 12), np.float32, external=[(str(raw), 0, h5py.h5f.UNLIMITED)]
            )
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("external", "a link to another file, 'other.h5'"),
        ("soft", "a link to '/elsewhere/features'"),
        ("virtual", "lies in other files"),
        ("stored outside", "lies in other files"),
    ],
)
def test_nothing_outside_of_the_file_is_opened(tmp_path, kind, said):
    with pytest.raises(FeatureError, match=said):
        read_features(links(tmp_path / "a.h5", kind))


def never_written(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (10**9, 1024), np.float32, chunks=(64, 1024))
        file["coords"] = XY


def too_many(path):
    with h5py.File(path, "w") as file:
        for name, width in (("features", 4), ("coords", 2)):
            file.create_dataset(name, (10**9, width), np.int32, chunks=(64, width))[:64] = 1


def odd(value):
    x = made.vectors()
    x[[3, 9], 2] = value
    return x


def text(path):
    with h5py.File(path, "w") as file:
        file["features"] = ["a", "b"]


REFUSED = {
    "more features": (lambda p: made.write(p, made.vectors(), XY[:-1]),
                      "30 features and 29 coordinates"),
    "fewer features": (lambda p: made.write(p, made.vectors(29), XY),
                       "29 features and 30 coordinates"),
    "no coords": (lambda p: made.write(p, made.vectors()), "has no coords.*give coords="),
    "no features": (lambda p: made.write(p, None, XY), "no features, but coords"),
    "one vector": (lambda p: made.write(p, made.vectors()[0], XY), "one vector of the whole slide"),
    "4-D": (lambda p: made.write(p, made.vectors()[None, None], XY), r"shape \(1, 1, 30, 12\)"),
    "two slides": (lambda p: made.write(p, np.stack([made.vectors()] * 2), XY), "shape"),
    "none": (lambda p: made.write(p, made.vectors(0), XY[:0]), "at least one"),
    "NaN": (lambda p: made.write(p, odd(np.nan), XY),
            "2 of 30 feature vectors hold NaN or infinity, the first is patch 3"),
    "infinity": (lambda p: made.write(p, odd(np.inf), XY), "NaN or infinity"),
    "too large": (lambda p: made.write(p, odd(0).astype(np.float64) * 1e300, XY), "infinity"),
    "text": (text, "holds object, no numbers"),
    "truth": (lambda p: made.write(p, made.vectors() > 0, XY), "holds bool, no numbers"),
    "coords of NaN": (lambda p: made.write(p, made.vectors(), XY * np.nan), "on no slide"),
    "coords of 3": (lambda p: made.write(p, made.vectors(), np.zeros((30, 3))), r"\(30, 3\)"),
    "never written": (never_written, "never written"),
    "too many": (too_many, "it claims 1000000000 patches"),
    "not HDF5": (lambda p: p.write_bytes(b"PK hello"), "cannot be read"),
    "empty": (lambda p: p.touch(), "cannot be read"),
    "absent": (lambda p: None, "No such file"),
    "patch_size 0": (lambda p: made.write(p, made.vectors(), XY,
                                          on_coords={"patch_size_level0": 0}),
                     "patch_size_level0 is 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(tmp_path, name):
    make, said = REFUSED[name]
    make(tmp_path / "a.h5")
    with pytest.raises(FeatureError, match=said) as error:
        read_features(tmp_path / "a.h5")
    assert "\n" not in str(error.value)
    assert "a.h5" in str(error.value)


def test_a_truncated_file(tmp_path):
    path = made.clam(tmp_path, n=500)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(FeatureError, match=r"cannot be read.*again"):
        read_features(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_not_waited_for(tmp_path):
    for name in ("a.h5", "a.pt"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(FeatureError, match="no plain file"):
            read_features(tmp_path / name)


def test_another_length_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(bags, "_read_blocks", None)
    path = made.clam(tmp_path)
    with pytest.raises(FeatureError, match=r"12 numbers.*trained on 1024 numbers \(likely uni_v1"):
        read_features(path, in_dim=1024)


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


def test_tensors_that_are_refused(tmp_path):
    cases = {
        "an object": ({"features": Evil()}, "code"),
        "no features": ({"x": torch.zeros(3, 4)}, "it holds 'x', no features"),
        "a list": ([torch.zeros(3, 4)], "it holds a list"),
        "truth": (torch.zeros(3, 4, dtype=torch.bool), "torch.bool"),
        "NaN": (torch.full((3, 4), torch.nan), "3 of 3 feature vectors"),
        "one vector": (torch.zeros(4), "one vector"),
    }
    for name, (saved, said) in cases.items():
        path = tmp_path / f"{name}.pt"
        torch.save(saved, path)
        with pytest.raises(FeatureError, match=said):
            read_features(path, need_coords=False)
    with pytest.raises(FeatureError, match=r"no features in \.txt"):
        read_features(tmp_path / "a.txt")


def test_tensors_without_coordinates(tmp_path):
    torch.save(torch.zeros(3, 4), tmp_path / "a.pt")
    with pytest.raises(FeatureError, match=r"no coords.*a\.pt"):
        read_features(tmp_path / "a.pt")
    with pytest.raises(FeatureError, match="3 features and 30 coordinates"):
        read_features(tmp_path / "a.pt", coords=XY)


def test_what_a_run_kept_and_what_it_exported_are_the_same(tmp_path):
    settings = {"window": 64, "stride": 64, "tissue": "none", "batch_size": 8, "progress": False}
    heatmap = wh.compute_heatmap(
        noise_slide(), with_features(), out=tmp_path / "a.zarr", **settings
    )
    kept = read_features(tmp_path / "a.zarr", in_dim=5)
    assert (kept.layout, kept.patch_size) == ("store", (64.0, 64.0))
    assert np.array_equal(kept.features, heatmap.window_features())
    assert np.array_equal(kept.coords, heatmap.positions.reshape(-1, 2)[kept.index])
    exported = read_features(heatmap.export(tmp_path / "a.h5"))
    assert np.array_equal(exported.features, kept.features)
    assert np.array_equal(exported.coords, kept.coords)
    assert exported.patch_size == kept.patch_size
    with pytest.raises(FeatureError, match="5 numbers"):
        read_features(tmp_path / "a.zarr", in_dim=6)


def test_coordinates_alone(tmp_path):
    made.clam(tmp_path)
    found = read_coords(tmp_path / "patches/a.h5")
    assert (found.patch_size, found.level, len(found)) == ((256.0, 256.0), 1, 30)
    assert np.array_equal(found.coords, XY[:, ::-1])
    assert read_coords(found) is found
    for wrong in ([1, 2, 3], [[1, 2, 3]], [[np.nan, 1]], np.zeros((0, 2)), [["a", "b"]]):
        with pytest.raises(FeatureError):
            read_coords(wrong)
