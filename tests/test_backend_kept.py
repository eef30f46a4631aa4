"""An output is continued with the backend it was begun with."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from made_slides import tissue, write_aperio
from napari_wsi_heatmap.errors import PlanMismatchError
from napari_wsi_heatmap.launch import complete, resume

SETTINGS = {"window": 64, "tissue": "none", "level": 0}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_aperio(tmp_path_factory.mktemp("kept") / "a.svs", [tissue(512, 512)])


def begin(slide, out):
    pieces = wh.run(slide, "hematoxylin", out=out, batch_size=4, **SETTINGS)
    list(itertools.islice(pieces, 2))
    pieces.close()


def test_resumed_with_the_recorded_one(path, tmp_path):
    out = tmp_path / "a.zarr"
    with wh.open_slide(path, backend="openslide") as slide:
        begin(slide, out)
    done = complete(resume(out), progress=False)
    assert done.run["slide"]["backend"] == "openslide"
    whole = wh.compute_heatmap(path, "hematoxylin", batch_size=4, progress=False, **SETTINGS)
    assert whole.run["slide"]["backend"] == "tiff"
    np.testing.assert_array_equal(done.values, whole.values)


def test_run_again_by_path_continues_it(path, tmp_path):
    out = tmp_path / "a.zarr"
    with wh.open_slide(path, backend="openslide") as slide:
        begin(slide, out)
    heatmap = wh.compute_heatmap(path, "hematoxylin", out=out, progress=False, **SETTINGS)
    assert heatmap.run["slide"]["backend"] == "openslide"


def test_a_slide_that_is_open_keeps_its_own(path, tmp_path):
    out = tmp_path / "a.zarr"
    with wh.open_slide(path) as slide:
        begin(slide, out)
    with (
        wh.open_slide(path, backend="openslide") as slide,
        pytest.raises(PlanMismatchError, match="another backend"),
    ):
        wh.compute_heatmap(slide, "hematoxylin", out=out, progress=False, **SETTINGS)
