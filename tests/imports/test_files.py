"""Files that others wrote, placed on their slide; and our own exports, read back."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import napari_wsi_heatmap as wh
from made import mean_grey, mean_rgb, noise, noise_slide, quarter_means
from made_features import with_features
from napari_wsi_heatmap.errors import StoreError
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.states import DONE, FAILED, NOT_FINITE

QUIET = {"tissue": "none", "progress": False}
ENDINGS = ["csv", "geojson", "h5", "parquet", "pdmcsv"]


@pytest.fixture(scope="module")
def slide():
    return noise_slide(300, 400)


@pytest.fixture(scope="module")
def heatmap(slide):
    settings = {"window": 64, "stride": 40, "roi": (0, 0, 300, 250), **QUIET}
    return wh.compute_heatmap(slide, mean_rgb, **settings)


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_we_export_comes_back(heatmap, slide, tmp_path, ending):
    found = wh.open_heatmap(heatmap.export(tmp_path / f"a.{ending}"), slide=slide)
    index, values = heatmap.window_values()
    np.testing.assert_array_equal(found.positions, heatmap.grid.positions(index))
    np.testing.assert_array_equal(found.window_values()[1], values)
    assert found.window_size == heatmap.window_size
    assert found.names == heatmap.names
    assert found.run["notices"] == []
    assert found.run["model"]["activation"] is None


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_lattice_is_found_and_lies_where_it_lay(heatmap, slide, tmp_path, ending):
    found = wh.open_heatmap(heatmap.export(tmp_path / f"a.{ending}"), slide=slide)
    there = ~np.isnan(heatmap.values[0])
    rows, cols = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    kept = heatmap.values[:, rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    np.testing.assert_array_equal(found.values, kept)
    assert found.frame.on_lattice
    assert found.frame.scale == heatmap.frame.scale
    assert found.frame.offset == tuple(heatmap.centres[rows[0], cols[0]])


@pytest.mark.parametrize("ending", ["csv", "geojson", "h5", "parquet"])
def test_probabilities_keep_their_names(slide, tmp_path, ending):
    model = wh.load_model(mean_rgb, activation="softmax", names=["a", "b", "c"], window=64)
    heatmap = wh.compute_heatmap(slide, model, **QUIET)
    found = wh.open_heatmap(heatmap.export(tmp_path / f"a.{ending}"), slide=slide)
    assert found.names == ("a", "b", "c")
    assert found.run["model"]["activation"] == "softmax"
    assert found.run["model"]["limits"] == [0, 1]
    assert found.export(tmp_path / f"again.{ending}").is_file()


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_no_number_is_done_and_marked(slide, tmp_path, ending):
    heatmap = wh.compute_heatmap(slide, mean_grey, window=50, **QUIET)
    heatmap.values[0, 0, :3], heatmap.state[2, 2] = (np.nan, np.inf, -np.inf), FAILED
    found = wh.open_heatmap(heatmap.export(tmp_path / f"a.{ending}"), slide=slide)
    assert len(found.state) == heatmap.grid.size - 1
    assert (found.state[:3] == DONE | NOT_FINITE).all()
    assert (found.state[3:] == DONE).all()
    np.testing.assert_array_equal(found.listed[:3, 0], [np.nan, np.inf, -np.inf])


def test_windows_on_no_lattice_become_a_list(slide, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("minx,miny,width,height,score\n3,200,64,64,1\n77,11,64,64,2\n150,150,64,64,3\n")
    found = wh.open_heatmap(path, slide=slide)
    assert found.positions.tolist() == [[200, 3], [11, 77], [150, 150]]
    assert not found.frame.on_lattice
    y, x = ((np.array([11, 77]) + 32 - found.frame.offset) / found.frame.scale).round().astype(int)
    assert found.values[0, y, x] == 2
    with Image.open(found.export(tmp_path / "a.png", slide=slide)) as picture:
        assert picture.size[0] > 400


def test_a_path_of_a_slide_will_do(data_dir):
    golden = data_dir / "golden" / "wsinfer_cmu_hema"
    slide = data_dir / "slides" / "aperio" / "CMU-1-Small-Region.svs"
    table = next((golden / "model-outputs-csv").glob("*.csv"))
    tiles = next((golden / "model-outputs-geojson").glob("*.geojson"))
    first, second = (wh.open_heatmap(path, slide=slide) for path in (table, tiles))
    wanted = pd.read_csv(table)
    np.testing.assert_array_equal(first.positions, wanted[["miny", "minx"]])
    values = wanted["prob_hema"].to_numpy(np.float32)
    np.testing.assert_array_equal(first.listed[:, 0], values)
    assert first.frame.on_lattice
    assert first.window_size == (192, 192)
    assert first.names == second.names == ("hema",)
    pd.testing.assert_frame_equal(first.to_dataframe(), second.to_dataframe())


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_data_frame_comes_back(slide, tmp_path, ending):
    heatmap = wh.compute_heatmap(slide, with_features(), window=50, **QUIET)
    table, path = heatmap.to_dataframe(), tmp_path / f"a.{ending}"
    table.to_csv(path, index=False) if ending == "csv" else table.to_parquet(path)
    found = wh.open_heatmap(path, slide=slide)
    assert found.names == heatmap.names  # latent_0, … are no outputs
    np.testing.assert_array_equal(found.values, heatmap.values)
    (notice,) = found.run["notices"]
    assert "taken to be 50 px wide" in notice


def clam(path, coords, scores, **attributes):
    with h5py.File(path, "w") as file:
        file["coords"], file["attention_scores"] = coords, scores
        file["coords"].attrs.update(attributes)
    return path


COORDS = np.stack(np.mgrid[0:200:50, 0:150:50], -1).reshape(-1, 2)[:, ::-1]
SCORES = np.linspace(-2, 2, len(COORDS), dtype=np.float32)[:, None]


@pytest.mark.parametrize(
    ("attributes", "side", "window"),
    [
        ({"patch_size_level0": 64, "patch_size": 32}, 64, None),
        ({"patch_size": 32, "downsample": (2.0, 2.0), "patch_level": 1}, 64, None),
        ({"patch_size": 32, "custom_downsample": 2}, 64, None),
        ({"patch_size": 32}, 32, None),
        ({"patch_size_level0": 64}, 70, 70),
        ({}, 70, 70),
        ({}, 50, None),
    ],
)
def test_how_large_a_patch_is(slide, tmp_path, attributes, side, window):
    path = clam(tmp_path / "s_blockmap.h5", COORDS, SCORES, **attributes)
    found = wh.open_heatmap(path, slide=slide, window=window)
    assert found.window_size == (side, side)
    assert bool(found.run["notices"]) is (not attributes and window is None)
    np.testing.assert_array_equal(found.positions, COORDS[:, ::-1])
    np.testing.assert_array_equal(found.listed, SCORES)
    assert found.names == ("attention score",)


def test_several_branches_of_attention(slide, tmp_path):
    scores = np.concatenate([SCORES, -SCORES], axis=1)[None]  # (1, N, K), as some write it
    found = wh.open_heatmap(clam(tmp_path / "a.h5", COORDS, scores), slide=slide)
    assert found.names == ("attention score 0", "attention score 1")
    np.testing.assert_array_equal(found.listed, scores[0])


def test_measurements_in_the_older_form(slide, tmp_path):
    ring = [[10, 20], [74, 20], [74, 84], [10, 84], [10, 20]]
    listed = [{"name": "score", "value": 0.5}, {"name": "other", "value": "NaN"}]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "tile", "measurements": listed},
    }
    bare = {"type": "Feature", "geometry": feature["geometry"], "properties": None}
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps([feature, bare]))
    found = wh.open_heatmap(path, slide=slide)
    assert found.positions.tolist() == [[20, 10]]
    assert found.names == ("score", "other")
    np.testing.assert_array_equal(found.listed, [[0.5, np.nan]])


def test_the_last_of_windows_at_one_place_counts(slide, tmp_path):
    path = tmp_path / "a.csv"
    rows = ["0,0,50,50,1", "50,0,50,50,2", "0,0,50,50,3"]
    path.write_text("minx,miny,width,height,v\n" + "\n".join(rows) + "\n")
    found = wh.open_heatmap(path, slide=slide)
    assert found.listed.ravel().tolist() == [2, 3]
    assert "more than once" in found.run["notices"][0]


def test_positions_between_pixels_are_rounded_and_that_is_told(slide, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("minx,miny,width,height,v\n0.4,0,50,50,1\n50.6,0,50,50,2\n")
    found = wh.open_heatmap(path, slide=slide)
    assert found.positions.tolist() == [[0, 0], [0, 51]]
    assert "rounded" in found.run["notices"][0]


BROKEN = {
    "a.csv": [
        ("", "damaged"),
        ("a,b\n1,2\n", "do not say where windows lie"),
        ("x,y\n1,2\n", "no column of values"),
        ("x,y,v\n", "no column of values"),
        ("x,y,v\n,,1\n", "nothing says how large"),
        ("minx,miny,width,height,v\n0,0,50,50,1\n60,0,90,50,1\n", "one size"),
        ("minx,miny,width,height,v\n0,900,50,50,1\n", "lie beyond"),
        ("minx,miny,width,height,v\n0,nan,50,50,1\n", "on no slide"),
        ("minx,miny,width,height,v\n0,0,-5,50,1\n", "windows are 50 x -5 px"),
        ("minx,miny,width,height,v\n0,0,1e30,1e30,1\n", r"windows are 1e\+30 x"),
        ("0, 0, 300, 400, 0, 64, 1.0, 1, 2, 2,0.5\n", "line 1 has 1 values"),
        ("0, 0, 300, 400, 0, 64, 1.0, 1, 1, 1,0.5", "no whole row"),
        ("0, 0, 300, 999, 0, 64, 1.0, 1, 1, 1,0.5\n", "hand over the slide"),
        ("0, 0, 300, 400, 3, 64, 1.0, 1, 1, 1,0.5\n", "hand over the slide"),
        ("0, 0, 300, 400, 0, 64, 1.0, 1, 1, 2,0.5, 0.5\n", "square"),
    ],
    "a.geojson": [
        ("", "damaged"),
        ("{", "damaged"),
        ("[1]", "damaged"),
        ('{"features": []}', "no polygons with measurements"),
    ],
    "a.h5": [("no such thing", "cannot be read|damaged")],
    "a.parquet": [("no such thing", "damaged")],
    "a.doc": [("", "a map cannot be had")],
}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [(name, *case) for name, cases in BROKEN.items() for case in cases],
)
def test_what_is_wrong_with_a_file_is_one_line(slide, tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(StoreError, match=message) as caught:
        wh.open_heatmap(path, slide=slide)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize("content", [{}, {"coords": COORDS}, {"attention_scores": SCORES}])
def test_an_h5_without_places_or_values(slide, tmp_path, content):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, data in content.items():
            file[name] = data
    with pytest.raises(StoreError, match=r"no coords|no values"):
        wh.open_heatmap(tmp_path / "a.h5", slide=slide)


def test_an_h5_of_unequal_lengths(slide, tmp_path):
    path = clam(tmp_path / "a.h5", COORDS, SCORES[:-1])
    with pytest.raises(StoreError, match="11 values for 12 coordinates"):
        wh.open_heatmap(path, slide=slide)


def elsewhere(file):
    file["coords"] = COORDS
    file.create_dataset("attention_scores", SCORES.shape, "f4", external=[("other", 0, 48)])


def linked(file):
    file["coords"] = h5py.ExternalLink("other.h5", "coords")
    file["attention_scores"] = SCORES


def endless(file):
    file.create_dataset("coords", (1 << 40, 2), "i8", chunks=(64, 2))[:64] = 1
    file["attention_scores"] = SCORES


def flat(file):
    file["coords"], file["attention_scores"] = COORDS[:, 0], SCORES


def nothing_each(file):
    file["coords"], file["attention_scores"] = COORDS, SCORES[:, :0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (elsewhere, "lies in other files"),
        (linked, "a link to another file"),
        (endless, "more windows than a slide has"),
        (flat, r"must be \(N, 2\)"),
        (nothing_each, "0 values for 12 coordinates"),
    ],
)
def test_nothing_outside_an_h5_is_read_and_no_memory_taken_for_what_is_not_there(
    slide, tmp_path, make, message
):
    (tmp_path / "other").write_bytes(bytes(48))
    clam(tmp_path / "other.h5", COORDS, SCORES)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        make(file)
    with pytest.raises(StoreError, match=message):
        wh.open_heatmap(tmp_path / "a.h5", slide=slide)


def test_a_file_does_not_know_its_slide(heatmap, tmp_path):
    with pytest.raises(StoreError, match=r"which slide.*slide="):
        wh.open_heatmap(heatmap.export(tmp_path / "a.csv"))


def test_a_table_from_a_coarse_level(tmp_path):
    slide = ArraySlide([noise(600, 800), noise(150, 200)], mpp=0.25)
    heatmap = wh.compute_heatmap(slide, quarter_means, window=40, level=1, **QUIET)
    found = wh.open_heatmap(heatmap.export(tmp_path / "a.pdmcsv"), slide=slide)
    assert found.frame.scale == heatmap.frame.scale == (40, 40)
    assert found.frame.offset == heatmap.frame.offset
    np.testing.assert_array_equal(found.values, heatmap.values)
    assert found.grid.spec.mpp == (0.25, 0.25)
