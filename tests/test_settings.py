"""What may be asked for: one form for each setting, one line for what cannot be."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import napari_wsi_heatmap as wh
from made import mean_grey, noise_slide
from napari_wsi_heatmap.errors import GridError, HeatmapError
from napari_wsi_heatmap.settings import RunSettings

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("window", ["64", (1, 2, 3), NAN, INF, 64.5, 0, True, [(1, 2), 3], 1e12, [None, 3]]),
        ("stride", [0, -1, (0, 1), 1.5, "8", ()]),
        ("mpp", [0, -1, NAN, INF, "0.5", True, [1]]),
        ("batch_size", [1, 2.5, "8", True]),
        ("readers", [-1, 1.5, "2", None, 10**6]),
        ("memory", [0, 1.5, "9", None]),
        ("edge", [None, "wrap", 3]),
        ("precision", ["float64", None]),
        ("resize", ["magic", None]),
        ("order", ["random", None]),
        ("viewport", [(1, 2), (0, 0, NAN, 1), 5, "view"]),
    ],
)
def test_what_cannot_be_is_one_line_that_names_it(name, values):
    for value in values:
        with pytest.raises(GridError, match=rf"{name} is .* - "):
            RunSettings.of({name: value})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("roi", ["abc", 5, (0, 0, 1), (NAN,) * 4, [np.zeros((2, 2))], [[["a", "b"]]]]),
        ("tissue_min", ["half", None, NAN, -0.1, [1, 2]]),
        ("tissue", [None, "magic", np.zeros((2, 2))]),
        ("level", ["0", 0.5, 5, -1, lambda slide: None, lambda slide: 9]),
        ("device", [None, "gpu", "meta", 3, ""]),
        ("window", [100_000]),
        ("mpp", [1e9]),
    ],
)
def test_what_the_slide_does_not_allow_is_one_line(name, values):
    for value in values:
        with pytest.raises(HeatmapError) as caught:
            wh.run(noise_slide(), mean_grey, **{"window": 64, "tissue": "none", name: value})
        assert len(str(caught.value).splitlines()) == 1, value


def test_numbers_of_any_kind_have_one_form():
    given = {"window": np.array([64, 32]), "stride": np.int64(8), "batch_size": np.int32(4)}
    settings = RunSettings.of(given | {"mpp": np.float32(0.5), "device": torch.device("cpu")})
    assert settings == RunSettings(
        window=(64, 32), stride=(8, 8), batch_size=4, mpp=0.5, device="cpu"
    )


def test_a_level_may_be_chosen_by_a_function_and_is_recorded_as_its_number(tmp_path):
    slide = noise_slide()
    heatmap = wh.compute_heatmap(
        slide,
        mean_grey,
        window=64,
        tissue="none",
        level=lambda slide: np.int64(len(slide.levels) - 1),
        out=tmp_path / "a.zarr",
        progress=False,
    )
    assert heatmap.run["settings"]["level"] == 0


def test_a_region_without_an_end_is_recorded_and_continued(tmp_path):
    slide, asked = noise_slide(), {"window": 64, "tissue": "none", "batch_size": 4}
    pieces = wh.run(slide, mean_grey, roi=(200, 0, INF, INF), out=tmp_path / "a.zarr", **asked)
    next(pieces)
    pieces.close()
    record = json.loads((tmp_path / "a.zarr" / "run.json").read_text())
    assert record["settings"]["roi"][:2] == [200, 0]
    assert list(wh.resume(tmp_path / "a.zarr", slide=slide, model=mean_grey).pieces())
