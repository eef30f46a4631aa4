"""The same probabilities and windows as WSInfer gives for a model of its zoo."""

from __future__ import annotations

import csv
from itertools import product

import numpy as np
import pytest

from made import noise_slide
from napari_wsi_heatmap.launch import compute_heatmap, predict_windows
from napari_wsi_heatmap.models import load_model, trust
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.tissuerules.windows import tissue_windows

CMU = "slides/aperio/CMU-1-Small-Region.svs"
GOLDEN = "golden/wsinfer_cmu_hema"


@pytest.fixture(autouse=True)
def trusted(tmp_path, monkeypatch):
    monkeypatch.setattr(trust, "folder", lambda: tmp_path)


@pytest.fixture
def model(data_dir):
    return load_model(data_dir / "models/wsinfer_hema", trust=True)


@pytest.fixture(scope="module")
def golden(data_dir):
    """Probability of each window, by its corner (y, x)."""
    with (data_dir / GOLDEN / "model-outputs-csv/CMU-1-Small-Region.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["width"], row["height"]) for row in rows} == {("192", "192")}
    return {(int(row["miny"]), int(row["minx"])): float(row["prob_hema"]) for row in rows}


def test_probabilities_at_its_coordinates(data_dir, model, golden):
    values = predict_windows(str(data_dir / CMU), model, np.array(list(golden)))
    assert values.shape == (65, 1)
    np.testing.assert_allclose(values[:, 0], list(golden.values()), rtol=0, atol=1e-6)


def test_coordinates_of_its_h5(data_dir, model, golden):
    h5py = pytest.importorskip("h5py")
    with h5py.File(data_dir / GOLDEN / "patches/CMU-1-Small-Region.h5") as file:
        coords = file["coords"][:][:, ::-1]  # it has them as (x, y)
    values = predict_windows(str(data_dir / CMU), model, coords)
    wanted = [golden[corner] for corner in map(tuple, coords.tolist())]
    np.testing.assert_allclose(values[:, 0], wanted, rtol=0, atol=1e-6)
    by_file = predict_windows(
        str(data_dir / CMU), model, data_dir / GOLDEN / "patches/CMU-1-Small-Region.h5"
    )
    np.testing.assert_allclose(by_file, values, rtol=0, atol=1e-6)


def test_a_whole_map_holds_its_windows_and_values(data_dir, model, golden):
    slide = str(data_dir / CMU)
    heatmap = compute_heatmap(slide, model, edge="centre", tissue="none", progress=False)
    table = heatmap.to_dataframe().set_index(["y", "x"])["hema"]
    np.testing.assert_allclose(
        [table[corner] for corner in golden], list(golden.values()), rtol=0, atol=1e-6
    )
    with open_slide(slide) as opened:
        height, width = opened.levels[0].shape
    everywhere = wsinfer_corners(height, width, 192, lambda y, x: True)
    assert sorted(map(tuple, table.index)) == everywhere


def wsinfer_corners(height, width, patch, inside):
    """(y, x) of its patches: centres from half a patch on while they lie on the slide."""
    half = round(patch / 2)
    centres = product(range(half, height, patch), range(half, width, patch))
    return sorted((y - half, x - half) for y, x in centres if inside(y, x))


def in_polygon(polygon, y, x):
    """Even-odd rule: how many edges a ray to the right crosses."""
    crossings = 0
    for (y0, x0), (y1, x1) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        if (y0 > y) != (y1 > y):
            crossings += x < x0 + (y - y0) / (y1 - y0) * (x1 - x0)
    return crossings % 2 == 1


def star(rng, centre, radius):
    """(12, 2) corners of a polygon with bays."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
    reach = rng.uniform(0.3, 1, 12) * radius
    return np.stack([centre[0] + reach * np.sin(angles), centre[1] + reach * np.cos(angles)], 1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("size", "spacing", "mpp", "patch"),
    [(32, 0.5, 0.5, 32), (128, 0.75, 0.499, 192), (20, 0.5, 0.25, 40), (16, 0.5, 0.3333, 24),
     (50, 0.5, 1.0, 25), (33, 0.25, 0.25, 33)],
)  # fmt: skip
def test_our_grid_has_its_coordinates(size, spacing, mpp, patch, seed):
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(300, 900, 2))
    slide = noise_slide(height, width, mpp)
    polygons = [star(rng, (height * 0.3, width * 0.3), 250), star(rng, (height, width), 200)]
    ours = tissue_windows(
        slide, size, mpp=spacing, edge="centre", tissue=polygons, tissue_min="centre"
    )
    theirs = wsinfer_corners(
        height, width, patch, lambda y, x: any(in_polygon(p, y, x) for p in polygons)
    )
    assert theirs
    assert sorted(map(tuple, ours.tolist())) == theirs


@pytest.mark.parametrize("patch", [24, 25, 27, 32])
@pytest.mark.parametrize("over", range(0, 32))
def test_windows_over_the_border_are_kept_by_their_centre(patch, over):
    slide = noise_slide(96 + over, 64 + over)
    ours = tissue_windows(slide, patch, level=0, edge="centre", tissue="none")
    theirs = wsinfer_corners(96 + over, 64 + over, patch, lambda y, x: True)
    assert sorted(map(tuple, ours.tolist())) == theirs
