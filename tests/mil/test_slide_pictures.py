"""Keys of a configuration, drawn: pixel by pixel what CLAM draws of the same scores."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from pipeline_made import millab_sections, write_yaml

import napari_wsi_heatmap as wh
from napari_wsi_heatmap.mil import slidepictures
from napari_wsi_heatmap.mil.config import read_config
from napari_wsi_heatmap.mil.contours import Outline
from napari_wsi_heatmap.mil.display import to_display
from napari_wsi_heatmap.mil.experiment import Experiment
from napari_wsi_heatmap.mil.results import Result
from napari_wsi_heatmap.mil.scored import Scored
from napari_wsi_heatmap.mil.segmentation import Segmentation
from napari_wsi_heatmap.mil.slidelist import Entry
from napari_wsi_heatmap.mil.slidepictures import SlidePictures

KEYS = {
    "vis_level": "vis_level", "cmap": "cmap", "alpha": "alpha", "blur": "blur",
    "binarize": "binarize", "thresh": "binary_thresh", "segment": "segment",
    "custom_downsample": "custom_downsample", "convert_to_percentiles": "convert_to_percentiles",
}  # fmt: skip
"""CLAM's argument -> key of a configuration."""


@pytest.fixture(scope="module")
def golden(data_dir):
    """What CLAM drew, and the arguments of each picture."""
    folder = data_dir / "mil"
    if not (folder / "heatmap_clam.npz").is_file():
        pytest.skip(f"no heatmap_clam.npz in {folder}")
    arguments = json.loads((folder / "heatmap_clam.json").read_text())
    return folder, dict(np.load(folder / "heatmap_clam.npz")), arguments


def drawn(tmp_path, golden, name, monkeypatch):
    """The heatmap (and original) of a configuration with CLAM's arguments."""
    folder, arrays, arguments = golden
    asked, tag = arguments[name], name.split("_")[0]
    sections = millab_sections(tmp_path)
    del sections["sample_arguments"]
    sections["heatmap_arguments"] |= {KEYS[k]: v for k, v in asked.items() if k in KEYS}
    sections["patching_arguments"]["overlap"] = asked.get("overlap", 0.0)
    reference = not asked["convert_to_percentiles"]
    if reference:  # as CLAM does with use_ref_scores: its percentiles are taken beforehand
        sections["heatmap_arguments"]["convert_to_percentiles"] = True
    config = read_config(write_yaml(tmp_path / "config.yaml", sections))
    box = None
    if "top_left" in asked:
        (x1, y1), (x2, y2) = asked["top_left"], asked["bot_right"]
        box = (y1, x1, y2, x2)
    outline = Outline(arrays["contour0_l0"][:, ::-1], [arrays["hole0_l0"][:, ::-1]])
    monkeypatch.setattr(slidepictures, "outlines_of", lambda _tissue: [outline])
    # Pieces as small as those of the made slide count.
    how = Segmentation(a_t=0.1, a_h=0.01)
    entry = Entry("a", "l", folder / "heatmap_slide.tiff", box=box, segmentation=how)
    paths = Experiment.of(config).slide("l", "a")
    pictures = SlidePictures(config, entry, paths, Result("a", "l", 1, (), None))
    scored = scored_of(arrays[f"{tag}_coords"], arrays[f"{tag}_scores"])
    coarse = scored_of(np.zeros((len(arrays[f"{tag}_ref"]), 2)), arrays[f"{tag}_ref"])
    with wh.open_slide(entry.slide) as slide:
        pictures.write(slide, *((coarse, scored) if reference else (scored, None)))
    return [np.asarray(Image.open(paths.picture(kind, "png"))) for kind in ("heatmap", "original")]


def scored_of(places, scores):
    return Scored(np.asarray(places)[:, ::-1], np.ravel(scores), (64.0, 64.0))


NAMES = [
    "s64_default", "s64_bin50", "s32_default", "s32_blur", "s32_noseg", "s32_binauto",
    "s32_ds2", "s32_roi", "s32_noperc_in_0_100",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_keys_are_drawn_as_clam_draws_them(golden, tmp_path, monkeypatch, name):
    heatmap, original = drawn(tmp_path, golden, name, monkeypatch)
    assert heatmap.shape == original.shape
    np.testing.assert_array_equal(heatmap, golden[1][name])


def test_no_picture_of_clams_is_left_out(golden):
    assert set(golden[2]) == set(NAMES)


def test_ranks_among_a_reference_are_those_of_clam(golden):
    _, arrays, _ = golden
    for tag in ("s64", "s32"):
        ranks = to_display(arrays[f"{tag}_scores"].ravel(), reference=arrays[f"{tag}_ref"])
        np.testing.assert_array_equal(ranks, arrays[f"{tag}_percentileofscore_ref"] / 100)


def test_ranks_among_a_reference():
    reference = np.float32([1, 2, 2, 4])
    scores = np.float32([0, 1, 2, 3, 4, 5])
    assert to_display(scores, reference=reference).tolist() == [0, 0.25, 0.625, 0.75, 1, 1]
