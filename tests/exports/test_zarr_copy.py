"""The 0.4 copy and the store itself, before the validator of OME-Zarr and zarr."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

import napari_wsi_heatmap as wh
from exports.contract import ExportContract
from made import mean_grey, mean_rgb, noise, noise_slide, quarter_means
from napari_wsi_heatmap.errors import ExportError
from napari_wsi_heatmap.exports import omezarr
from napari_wsi_heatmap.slides.array import ArraySlide

QUIET = {"tissue": "none", "progress": False}


def validated(path, version):
    models = pytest.importorskip("ome_zarr_models", reason="the validator is not installed")
    found = models.open_ome_zarr(zarr.open_group(str(path), mode="r"), version=version)
    assert found.ome_zarr_version == version
    return found


class TestZarrExport(ExportContract):
    name = "zarr"

    def check(self, path, heatmap, slide):
        validated(path, "0.4")
        group = zarr.open_group(str(path), mode="r", zarr_format=2)
        np.testing.assert_array_equal(group["0"][:], heatmap.values)
        (image,) = group.attrs["multiscales"]
        scale, translation = image["datasets"][0]["coordinateTransformations"]
        mpp = np.array(heatmap.grid.spec.mpp)
        assert scale["scale"][1:] == (heatmap.frame.scale * mpp).tolist()
        assert translation["translation"][1:] == (heatmap.centres[0, 0] * mpp).tolist()


@pytest.mark.parametrize("mpp", [0.25, None])
@pytest.mark.parametrize("function", [mean_rgb, quarter_means])
def test_store_and_copy_say_the_same_of_their_place(tmp_path, function, mpp):
    slide = ArraySlide([noise(256, 320)], mpp=mpp)
    out = tmp_path / "a.zarr"
    heatmap = wh.compute_heatmap(slide, function, window=64, out=out, **QUIET)
    copy = heatmap.export(tmp_path / "copy.zarr")
    ours, theirs = validated(out, "0.5"), validated(copy, "0.4")
    (wanted,), (found,) = ours.attributes.ome.multiscales, theirs.attributes.multiscales
    assert [d.model_dump() for d in found.datasets] == [d.model_dump() for d in wanted.datasets]
    assert [a.model_dump() for a in found.axes] == [a.model_dump() for a in wanted.axes]


def test_a_list_is_valid_too(tmp_path):
    coords = np.array([[3, 200], [77, 11], [150, 150]])
    out = tmp_path / "a.zarr"
    wh.predict_windows(noise_slide(300, 300), mean_rgb, coords, window=64, out=out)
    validated(out, "0.5")
    validated(wh.open_heatmap(out).export(tmp_path / "copy.zarr"), "0.4")


def test_large_maps_have_coarser_levels(tmp_path, monkeypatch):
    monkeypatch.setattr(omezarr, "SMALLEST", 8)
    heatmap = wh.compute_heatmap(noise_slide(300, 330), mean_grey, window=10, **QUIET)
    path = heatmap.export(tmp_path / "a.zarr")
    validated(path, "0.4")
    group = zarr.open_group(str(path), mode="r", zarr_format=2)
    assert [group[n].shape[1:] for n in "0123"] == [(30, 33), (15, 17), (8, 9), (4, 5)]


def test_chunks_lie_in_folders_as_the_format_wants_it(tmp_path):
    heatmap = wh.compute_heatmap(noise_slide(200, 200), mean_grey, window=50, **QUIET)
    path = heatmap.export(tmp_path / "a.zarr")
    assert (path / "0" / "0" / "0" / "0").is_file()


def test_the_output_of_a_run_is_never_replaced(tmp_path):
    slide, out = noise_slide(200, 200), tmp_path / "a.zarr"
    heatmap = wh.compute_heatmap(slide, mean_grey, window=50, out=out, **QUIET)
    with pytest.raises(ExportError, match="no such export of ours"):
        heatmap.export(out)
    assert wh.open_heatmap(out).run["status"] == "done"
