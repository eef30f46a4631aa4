"""Pictures of a heatmap, viewed on the slide: every pixel lies where it belongs."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import napari_wsi_heatmap as wh
from made import mean_rgb
from napari_wsi_heatmap import commands
from napari_wsi_heatmap._napari import view
from napari_wsi_heatmap.cli import main, make_parser
from napari_wsi_heatmap.console import DONE
from napari_wsi_heatmap.errors import SlideOpenError, StoreError
from napari_wsi_heatmap.mil.render import render_clam
from napari_wsi_heatmap.placedpictures import place_picture

QUIET = {"tissue": "none", "progress": False}


@pytest.fixture(scope="module")
def heatmap(slide_file):
    return wh.compute_heatmap(slide_file, mean_rgb, window=50, stride=40, **QUIET)


@pytest.fixture(scope="module")
def slide(slide_file):
    with wh.open_slide(slide_file) as slide:
        yield slide


def layer_of(viewer, slide, path):
    picture = place_picture(path, slide)
    try:
        slide_layer, *layers = view.show(viewer, slide, pictures=[picture])
        for layer in layers:
            assert layer.units == slide_layer.units
    finally:
        picture.close()
    return layers


def level0(layer, slide, pixel):
    """Where the border of a pixel of a layer lies on the slide, level-0 pixels."""
    return np.array(layer.data_to_world(np.array(pixel) - 0.5)) / slide.mpp + 0.5


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_picture_with_bars_lies_by_what_it_says(viewer, slide, heatmap, tmp_path, ending):
    """Its slide begins below the title, and a pixel is no whole number of the slide's."""
    path = heatmap.export(tmp_path / f"a.{ending}", slide=slide, side=700)
    (layer,) = layer_of(viewer, slide, path)
    said = place_picture(path, slide)
    corner = np.divide(np.negative(said.origin), said.scale)
    assert (corner > 5).all()
    np.testing.assert_allclose(level0(layer, slide, corner), 0, atol=1e-3)
    shown = np.asarray(layer.data[0])
    top = round(corner[0])
    assert (shown[:top] > 230).mean() > 0.9  # the page round it


@pytest.mark.parametrize("name", ["a.tiff", "a.png", "a.jpg"])
def test_a_rendering_lies_on_the_slide(viewer, slide, tmp_path, name):
    coords = np.stack(np.meshgrid(range(0, 1400, 100), range(0, 1200, 100), indexing="ij"), -1)
    scores = np.linspace(0, 1, coords.size // 2)
    picture = render_clam(
        slide, coords.reshape(-1, 2), scores, patch_size=100, vis_level=1, roi=(400, 200, 1200, 900)
    )
    (layer,) = layer_of(viewer, slide, picture.save(tmp_path / name))
    assert layer.data[0].shape[:2] == (200, 175)
    np.testing.assert_allclose(level0(layer, slide, (0, 0)), (400, 200), atol=1e-3)
    np.testing.assert_allclose(level0(layer, slide, (200, 175)), (1200, 900), atol=1e-3)
    if not name.endswith("jpg"):
        np.testing.assert_array_equal(np.asarray(layer.data[0]), picture.pixels())


def test_an_overlay_and_values(viewer, slide, heatmap, tmp_path):
    overlay = heatmap.export(tmp_path / "a.tiff", slide=slide, format="overlay", side=650)
    (layer,) = layer_of(viewer, slide, overlay)
    far = np.array(layer.data[0].shape[:2])
    np.testing.assert_allclose(level0(layer, slide, (0, 0)), 0, atol=1e-3)
    np.testing.assert_allclose(level0(layer, slide, far), (1500, 1300), rtol=0.01)
    values = heatmap.export(tmp_path / "b.tiff")
    viewer.layers.clear()
    layers = layer_of(viewer, slide, values)
    assert [layer.visible for layer in layers] == [True, False, False]
    for layer, expected in zip(layers, heatmap.values, strict=True):
        np.testing.assert_array_equal(layer.data, expected)
        centre = np.array(layer.data_to_world((3, 5))) / slide.mpp
        np.testing.assert_allclose(centre, heatmap.centres[3, 5], atol=1e-3)


@pytest.mark.parametrize("name", ["heatmap.png", "heatmap.tiff", "heatmap.jpg"])
def test_any_other_picture_shows_the_whole_slide(viewer, slide, tmp_path, name):
    """As CLAM's are: the size of a level, nothing said, and a TIFF that is no slide."""
    Image.new("RGB", (325, 375), (9, 9, 9)).save(tmp_path / name)
    (layer,) = layer_of(viewer, slide, tmp_path / name)
    assert np.asarray(layer.data[0]).max() == 9
    np.testing.assert_allclose(level0(layer, slide, (0, 0)), 0, atol=1e-3)
    np.testing.assert_allclose(level0(layer, slide, (375, 325)), (1500, 1300), atol=1e-3)


def test_a_picture_of_something_else_is_refused(slide, tmp_path):
    Image.new("RGB", (300, 300)).save(tmp_path / "a.png")
    with pytest.raises(StoreError, match="not the shape of the slide"):
        place_picture(tmp_path / "a.png", slide)
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((30, 30), np.float32))
    with pytest.raises(StoreError, match="not the shape of the slide"):
        place_picture(tmp_path / "b.tif", slide)
    (tmp_path / "c.tif").write_bytes(b"II*\0nonsense")
    with pytest.raises(SlideOpenError):
        place_picture(tmp_path / "c.tif", slide)


def test_a_blockmap_lies_on_the_slide(viewer, slide, tmp_path):
    """CLAM's: (x, y) at level 0, a column of scores, and not a word on the patches' size."""
    coords = np.array([[100 * i, 100 * j] for i in range(3, 9) for j in range(2, 7)])
    scores = np.linspace(-3, 4, len(coords), dtype=np.float32)
    with h5py.File(tmp_path / "a_blockmap.h5", "w") as file:
        file["coords"], file["attention_scores"] = coords[:, ::-1].astype(np.int32), scores[:, None]
    heatmap = wh.open_heatmap(tmp_path / "a_blockmap.h5", slide)
    _, layer = view.show(viewer, slide, heatmap)
    for place, score in zip(coords, scores, strict=True):
        cell = np.rint(layer.world_to_data((place + 49.5) * slide.mpp)).astype(int)
        assert layer.data[tuple(cell)] == score
        np.testing.assert_allclose(level0(layer, slide, cell), place, atol=1e-3)


def test_values_that_others_wrote(viewer, slide, tmp_path):
    values = np.random.default_rng(0).random((2, 375, 325), np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values)
    layers = layer_of(viewer, slide, tmp_path / "a.tif")
    assert [layer.name for layer in layers] == ["a.tif: a 0", "a.tif: a 1"]
    np.testing.assert_array_equal(layers[1].data, values[1])
    np.testing.assert_allclose(level0(layers[0], slide, (375, 325)), (1500, 1300), atol=1e-3)


@pytest.mark.parametrize(
    "said",
    [
        '{"origin_level0": [0, null], "scale_level0": [1, 1]}',
        '{"origin_level0": [0, 0], "scale_level0": [1, 0]}',
        '{"origin_level0": [0, 1e999], "scale_level0": [1, 1]}',
        '{"origin_level0": [0, 1' + "0" * 400 + '], "scale_level0": [1, 1]}',
        '{"origin_level0": 3, "scale_level0": [1, 1]}',
        '{"origin_level0": [0], "scale_level0": [1]}',
        "[" * 20_000,
        "[]",
    ],
)
def test_nonsense_is_not_believed(slide, tmp_path, said):
    about = PngInfo()
    about.add_text("napari-wsi-heatmap", said)
    Image.new("RGB", (325, 375)).save(tmp_path / "a.png", pnginfo=about)
    assert place_picture(tmp_path / "a.png", slide).scale == (4, 4)


@pytest.mark.parametrize("name", ["a.zarr", "a.png", "a.tiff", "a.h5"])
@pytest.mark.parametrize("beside", [False, True])
def test_the_command(slide_file, heatmap, tmp_path, monkeypatch, name, beside):
    monkeypatch.setenv("DISPLAY", ":0")
    seen = []
    monkeypatch.setattr(view, "view", lambda *shown, **how: seen.append((shown, how)))
    with wh.open_slide(slide_file) as slide:
        if name == "a.zarr":
            wh.compute_heatmap(slide, mean_rgb, window=50, out=tmp_path / name, **QUIET)
        else:
            heatmap.export(tmp_path / name, slide=slide)
    options = ["--side-by-side"] if beside else []
    assert main(["view", slide_file, str(tmp_path / name), *options]) == DONE
    ((_, *heatmaps), how) = seen[0]
    pictures = how["pictures"]
    assert (len(heatmaps), len(pictures)) == ((0, 1) if name in ("a.png", "a.tiff") else (1, 0))
    assert how["side_by_side"] is beside


def test_side_by_side_needs_something_beside(slide_file, monkeypatch, capsys):
    monkeypatch.setenv("DISPLAY", ":0")
    assert main(["view", slide_file, "--side-by-side"]) == 1
    assert "give OUT" in capsys.readouterr().err
    args = make_parser().parse_args(["view", slide_file])
    assert args.side_by_side is False
    assert callable(commands.view)
