"""Rules as they are given: names, GeoJSON, mask images, arrays, polygons; and what they refuse."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from skimage.measure import points_in_poly

import napari_wsi_heatmap as wh
from made import mean_grey, noise_slide
from napari_wsi_heatmap.errors import GridError, PlanMismatchError
from napari_wsi_heatmap.grid import lay_grid, resolve_window
from napari_wsi_heatmap.tissue import find_tissue, tissue_at_centre, tissue_share
from napari_wsi_heatmap.tissuerules import geojson, image, rings

BOX = [[100, 50], [500, 50], [500, 350], [100, 350], [100, 50]]
HOLE = [[200, 100], [200, 250], [400, 250], [400, 100], [200, 100]]
FAR = [[700, 400], [860.3, 400], [700, 557.1], [700, 400]]


def polygon(*ring_list):
    return {"type": "Polygon", "coordinates": list(ring_list)}


def feature(geometry):
    return {"type": "Feature", "id": "1", "properties": {"name": "tissue"}, "geometry": geometry}


SAME = {
    "collection": {"type": "FeatureCollection", "features": [
        feature(polygon(BOX, HOLE)), feature(polygon(FAR)), feature(None),
        feature({"type": "Point", "coordinates": [1, 2]}),
    ]},
    "multi": {"type": "MultiPolygon", "coordinates": [[BOX, HOLE], [FAR]]},
    "geometries": {"type": "GeometryCollection", "geometries": [polygon(BOX, HOLE), polygon(FAR)]},
    "list": [feature(polygon(BOX, HOLE)), feature(polygon([[*p, 0.0] for p in FAR]))],
}  # fmt: skip
"""The same area of a slide of 600 x 900 px, as different programs write it."""


def save(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def same_area():
    """(600, 900) bool of `SAME`, by another library."""
    y, x = np.mgrid[:600, :900] + 0.5
    at = np.stack([x.ravel(), y.ravel()], 1)
    box, hole, far = (points_in_poly(at, ring).reshape(600, 900) for ring in (BOX, HOLE, FAR))
    return (box & ~hole) | far


def grid_of(slide, window, stride=None):
    return lay_grid(resolve_window(slide, window, stride), slide.levels[0].shape)


@pytest.mark.parametrize("kind", SAME)
def test_polygons_with_holes_count_by_their_area_and_by_the_centre(kind, tmp_path):
    slide = noise_slide(600, 900)
    grid = grid_of(slide, 32, 20)
    found = find_tissue(slide, save(tmp_path / "a.geojson", SAME[kind]), grid)
    area = same_area()
    share = tissue_share(found, grid)
    centres = tissue_at_centre(found, grid)
    for i, j in np.ndindex(grid.shape):
        y, x = i * 20, j * 20
        assert share[i, j] == pytest.approx(area[y : y + 32, x : x + 32].sum() / 1024, abs=1e-6)
        # The centre lies on the corner of four pixels: it is clear where these agree.
        around = area[y + 15 : y + 17, x + 15 : x + 17]
        if around.size and around.all() == around.any():
            assert centres[i, j] == around.all()
    assert found.record["polygons"] == 2
    assert found.record["file"] == "a.geojson"


@pytest.mark.parametrize("crossings", [3, 1 << 20])
def test_filling_equals_another_library(crossings, monkeypatch):
    monkeypatch.setattr(rings, "CROSSINGS_AT_ONCE", crossings)
    rng = np.random.default_rng(1)
    rows, cols = np.sort(rng.uniform(0, 100, 70)), np.sort(rng.uniform(0, 80, 90))
    places = np.stack(np.meshgrid(rows, cols, indexing="ij"), -1).reshape(-1, 2)
    for corners in (3, 4, 7, 40):
        ring = rng.uniform(-20, 120, (corners, 2))
        expected = points_in_poly(places, ring).reshape(70, 90)
        np.testing.assert_array_equal(rings.inside_polygons([(ring,)], rows, cols), expected)
        assert expected.any()


def test_a_ring_of_very_many_corners_is_drawn_on_a_large_slide(tmp_path):
    angle = np.linspace(0, 2 * np.pi, 200_000, endpoint=False)
    circle = np.stack([50_000 + 30_000 * np.cos(angle), 40_000 + 30_000 * np.sin(angle)], 1)
    from napari_wsi_heatmap.slides.array import ArraySlide

    slide = ArraySlide.from_callable(None, [(80_000, 100_000)], mpp=0.25)
    path = save(tmp_path / "a.json", polygon(circle.tolist()))
    found = find_tissue(slide, str(path))
    assert found.mask.size <= 1.01 * 2**24
    area = found.mask.sum() * found.downsample[0] * found.downsample[1]
    assert area == pytest.approx(np.pi * 30_000**2, rel=1e-3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "this is no GeoJSON: Expecting"),
        ("[" * 100_000, "this is no GeoJSON: it is nested too deeply"),
        ("3", "this is no GeoJSON"),
        ({"a": 1}, "this is no GeoJSON: 'type' is missing"),
        ({"type": "Feature"}, "this is no GeoJSON: 'geometry' is missing"),
        ({"type": "FeatureCollection", "features": []}, "no polygon in the file"),
        ({"type": "Point", "coordinates": [1, 2]}, "no polygon in the file"),
        (polygon([[1, 2], [3, 4]]), "three or more pairs"),
        (polygon([[1, 2], [3, "a"], [3, 4]]), "this is no GeoJSON"),
        (polygon([1, 2, 3]), "this is no GeoJSON"),
        (polygon([[0, 0], [0, float("nan")], [9, 9]]), "three or more pairs"),
        (polygon([[p[0] + 1e5, p[1]] for p in BOX]), "outside the slide: x 100100 .*not µm"),
    ],
)  # fmt: skip
def test_files_of_polygons_that_say_nothing(content, message, tmp_path):
    path = save(tmp_path / "bad.geojson", content)
    with pytest.raises(GridError, match=message) as caught:
        find_tissue(noise_slide(), path)
    assert "bad.geojson" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there_or_too_large(tmp_path, monkeypatch):
    for name in ("a.geojson", "a.png"):
        with pytest.raises(GridError, match="no such file"):
            find_tissue(noise_slide(), tmp_path / name)
        (tmp_path / name).mkdir()
        with pytest.raises(GridError, match="is no file"):
            find_tissue(noise_slide(), tmp_path / name)
    monkeypatch.setattr(geojson, "MOST_BYTES", 10)
    with pytest.raises(GridError, match="at most 0 MB"):
        find_tissue(noise_slide(), save(tmp_path / "b.geojson", SAME["multi"]))
    monkeypatch.setattr(image, "MOST_PIXELS", 10)
    Image.fromarray(np.ones((2, 6), np.uint8)).save(tmp_path / "b.png")
    with pytest.raises(GridError, match="6 x 2 px"):
        find_tissue(noise_slide(), tmp_path / "b.png")
    with pytest.raises(GridError, match="6 x 2 px"):
        find_tissue(noise_slide(), np.ones((2, 6), bool))


def masks():
    """The right third of the slide, in each of the kinds of picture."""
    third = np.zeros((60, 90), np.uint8)
    third[:, 60:] = 1
    red = np.zeros((60, 90, 3), np.uint8)
    red[..., 0] = third
    opaque = np.dstack([red, np.full((60, 90), 255, np.uint8)])
    clear = np.dstack([np.full((60, 90, 3), 9, np.uint8), third])
    indexed = Image.fromarray(third, "P")
    indexed.putpalette([255, 255, 255, 0, 0, 0])
    return {
        "grey": Image.fromarray(third),
        "one bit": Image.fromarray(third != 0),
        "16 bit": Image.fromarray(third.astype(np.uint16) * 256),
        "labels": Image.fromarray(third.astype(np.int32) * 70_000),
        "red": Image.fromarray(red),
        "opaque": Image.fromarray(opaque),
        "transparent": Image.fromarray(clear),
        "indexed": indexed,
    }


@pytest.mark.parametrize("kind", masks())
@pytest.mark.parametrize("size", [(90, 60), (900, 600), (30, 20), (91, 60)])
def test_a_mask_image_of_any_kind_and_size(kind, size, tmp_path):
    slide, path = noise_slide(600, 900), tmp_path / "mask.tif"
    masks()[kind].resize(size, Image.Resampling.NEAREST).save(path)
    found = find_tissue(slide, path)
    share = tissue_share(found, grid_of(slide, 100))
    assert share[:, :5] == pytest.approx(0)
    assert share[:, 5:6] == pytest.approx(0, abs=0.1)
    assert share[:, 7:] == pytest.approx(1)
    assert found.record["rule"] == "mask"
    assert len(found.record["sha256"]) == 64


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((60, 60), np.uint8), "60 x 60 px, and another aspect than the slide's 900 x 600"),
        (np.ones((600, 920), np.uint8), "another aspect"),
        (np.zeros((60, 90), np.uint8), "the mask is empty"),
    ],
)
def test_masks_that_cannot_be_of_this_slide(mask, message, tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray(mask).save(path)
    for rule in (path, mask):
        with pytest.raises(GridError, match=message):
            find_tissue(noise_slide(600, 900), rule)


def test_a_damaged_mask_is_one_line(tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 9, (60, 90), np.uint8)).save(path)
    for content in (path.read_bytes()[:900], b"", b"no picture"):
        path.write_bytes(content)
        with pytest.raises(GridError, match="mask cannot be read") as caught:
            find_tissue(noise_slide(600, 900), path)
        assert "\n" not in str(caught.value)


def test_arrays_and_polygons_from_python():
    slide = noise_slide(600, 900)
    grid = grid_of(slide, 100)
    labels = np.zeros((60, 90), np.int32)
    labels[:, 60:] = 7
    ring = [[0, 600], [600, 600], [600, 900], [0, 900]]
    shares = [
        tissue_share(find_tissue(slide, rule, grid), grid)
        for rule in (labels, labels > 0, ring, [ring], np.array(ring), [np.array(ring), ring])
    ]
    for share in shares:
        assert share == pytest.approx(shares[0], abs=0.02)
    assert shares[0][:, 6:] == pytest.approx(1)


@pytest.mark.parametrize("kind", ["geojson", "png", "array", "polygons"])
def test_a_run_records_its_rule_and_is_resumed(kind, tmp_path, monkeypatch):
    slide, out = noise_slide(600, 900), tmp_path / "a.zarr"
    rule = rule_of(kind, tmp_path)
    monkeypatch.chdir(tmp_path)
    settings = {"window": 50, "tissue": rule, "batch_size": 4, "roi": (0, 0, 600, 900)}
    pieces = wh.run(slide, mean_grey, out=out, **settings)
    next(pieces)
    pieces.close()
    record = json.loads((out / "run.json").read_text())
    monkeypatch.chdir("/")
    for _ in (resumed := wh.resume(out, slide=slide, model=mean_grey)).pieces():
        pass
    assert record["tissue"]["rule"] == {"png": "mask"}.get(kind, kind)
    assert resumed.record["counts"]["pending"] == 0
    settings["tissue"] = (
        rule_of(kind, tmp_path) if kind in ("array", "polygons") else tmp_path / rule
    )
    whole = wh.compute_heatmap(slide, mean_grey, progress=False, **settings)
    np.testing.assert_array_equal(resumed.heatmap.values, whole.values)
    np.testing.assert_array_equal(resumed.heatmap.state, whole.state)


def rule_of(kind, folder):
    if kind == "geojson":
        return save(folder / "a.geojson", SAME["multi"]).name
    if kind == "png":
        masks()["grey"].save(folder / "mask.png")
        return "mask.png"
    if kind == "array":
        return np.asarray(masks()["grey"])
    return [[[0, 600], [600, 600], [600, 900]]]


def test_a_changed_file_is_another_run(tmp_path):
    slide, out = noise_slide(600, 900), tmp_path / "a.zarr"
    path = save(tmp_path / "a.geojson", SAME["multi"])
    settings = {"window": 50, "tissue": path, "batch_size": 4}
    next(wh.run(slide, mean_grey, out=out, **settings))
    save(path, polygon(FAR))
    with pytest.raises(PlanMismatchError, match="another selection"):
        wh.resume(out, slide=slide, model=mean_grey)
    path.unlink()
    with pytest.raises(GridError, match="no such file"):
        wh.resume(out, slide=slide, model=mean_grey)


def test_a_mask_and_its_polygons_agree_in_a_list_of_windows(tmp_path):
    slide = noise_slide(600, 900)
    path = save(tmp_path / "a.geojson", SAME["list"])
    Image.fromarray(same_area()).save(tmp_path / "mask.png")
    for tissue_min in (0.5, "centre"):
        drawn, pictured = (
            wh.tissue_windows(slide, 32, 20, tissue=rule, tissue_min=tissue_min).tolist()
            for rule in (path, tmp_path / "mask.png")
        )
        assert drawn == pictured
        assert drawn
