"""Galleries: which windows they hold, how they are drawn, and the command that does."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import napari_wsi_heatmap as wh
from made import mean_rgb
from made_slides import strided, tissue, write_aperio
from napari_wsi_heatmap import cli
from napari_wsi_heatmap.errors import ExportError, GridError, SlideOpenError
from napari_wsi_heatmap.inspecting.gallery import gallery
from napari_wsi_heatmap.inspecting.numbers import short_number
from napari_wsi_heatmap.inspecting.pictures import fitted, window_pictures
from napari_wsi_heatmap.inspecting.sheet import draw_sheet, save_gallery

QUIET = {"tissue": "none", "progress": False}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved map, and its slide's file."""
    folder = tmp_path_factory.mktemp("saved")
    path = write_aperio(folder / "a.svs", strided(tissue(420, 530), 4))
    model = wh.load_model(mean_rgb, names=["red", "green", "7"], window=64)
    wh.compute_heatmap(path, model, out=folder / "a.zarr", **QUIET)
    return folder / "a.zarr", path


@pytest.mark.parametrize("name", ["overlapping", "dense", "listed"])
@pytest.mark.parametrize("channel", [0, 2])
def test_the_highest_and_the_lowest(name, channel, request):
    heatmap = request.getfixturevalue(name)
    index, values = heatmap.window_values()
    values = values[:, channel]
    top = gallery(heatmap, 7, channel=channel)
    bottom = heatmap.gallery(7, "bottom", channel=channel)
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    assert top.index.tolist() == index[order[:7]].tolist()
    order = sorted(range(len(values)), key=lambda i: (values[i], i))
    assert bottom.index.tolist() == index[order[:7]].tolist()
    assert top.values.tolist() == sorted(values.tolist(), reverse=True)[:7]
    for chosen in (top, bottom):
        places = [1 + int((values > value).sum()) for value in chosen.values]
        assert chosen.places.tolist() == places
    np.testing.assert_array_equal(top.positions, heatmap.grid.positions(top.index))
    assert (top.name, top.of) == (heatmap.names[channel], len(values))


def test_random_ones_are_those_of_the_seed(overlapping):
    first, again = (gallery(overlapping, 20, "random", seed=5) for _ in range(2))
    other = gallery(overlapping, 20, "random", seed=6)
    assert first.index.tolist() == again.index.tolist() != other.index.tolist()
    assert len(set(first.index.tolist())) == 20
    np.testing.assert_array_equal(first.values, overlapping.values[0].ravel()[first.index])
    assert gallery(overlapping, 5, "random", seed=5).index.tolist() == first.index[:5].tolist()


@pytest.mark.parametrize("which", ["top", "bottom", "random"])
@pytest.mark.parametrize("name", ["overlapping", "listed"])
def test_apart_none_overlaps_another(which, name, request):
    heatmap = request.getfixturevalue(name)
    chosen = gallery(heatmap, 12, which, apart=True)
    assert len(chosen) > 3
    away = np.abs(chosen.positions[:, None] - chosen.positions[None])
    apart = (away >= chosen.size).any(2)
    np.fill_diagonal(apart, True)
    assert apart.all()
    assert chosen.index[0] == gallery(heatmap, 1, which).index[0]
    if which == "top":
        assert (np.diff(chosen.values) <= 0).all()
        assert (np.diff(chosen.places) >= 0).all()


def test_equal_values_come_in_grid_order(slide):
    heatmap = wh.compute_heatmap(slide, lambda batch: batch.mean((1, 2, 3)) * 0, **QUIET, window=50)
    for which in ("top", "bottom"):
        chosen = gallery(heatmap, 5, which)
        assert chosen.index.tolist() == [0, 1, 2, 3, 4]
        assert chosen.places.tolist() == [1] * 5


def test_windows_without_a_value_are_left_out(slide):
    def sometimes(batch):
        mean = batch.mean((1, 2, 3))
        mean[batch[:, 0, 0, 0] < 0.5] = float("nan")
        return mean

    heatmap = wh.compute_heatmap(slide, sometimes, window=50, roi=(0, 0, 300, 200), **QUIET)
    finite = int(np.isfinite(heatmap.values).sum())
    for which in ("top", "bottom", "random"):
        chosen = gallery(heatmap, 1000, which)
        assert len(chosen) == chosen.of == finite
        assert np.isfinite(chosen.values).all()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"which": "best"}, GridError), ({"n": 0}, GridError), ({"n": 2.5}, GridError),
        ({"seed": -1}, GridError), ({"channel": "violet"}, ExportError),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(overlapping, arguments, error):
    with pytest.raises(error):
        gallery(overlapping, **arguments)


def test_pictures_of_windows_that_no_map_knows(saved):
    with wh.open_slide(saved[1]) as slide:
        fine, coarse = (
            list(window_pictures(slide, [(0, 0), (100, 200)], (256, 128), side))
            for side in (300, 64)
        )
        np.testing.assert_array_equal(fine[1], slide.read_region(0, 100, 200, 256, 128))
        np.testing.assert_array_equal(coarse[1], slide.read_region(1, 25, 50, 64, 32))


def test_a_picture_is_shrunk_and_never_enlarged():
    pixels = np.random.default_rng(0).integers(0, 255, (300, 100, 3), np.uint8)
    assert fitted(pixels, 90).shape == (90, 30, 3)
    assert fitted(pixels, 300) is pixels
    assert fitted(pixels[:, :1], 10).shape == (10, 1, 3)


def test_a_gallery_as_a_picture_holds_the_patches(overlapping, slide, tmp_path):
    path = save_gallery(overlapping, tmp_path / "top.png", slide, n=5, channel="blue")
    chosen = gallery(overlapping, 5, channel=2)
    with Image.open(path) as image:
        facts = json.loads(image.text["napari-wsi-heatmap"])
        page = np.asarray(image.convert("RGB"))
    assert facts["index"] == chosen.index.tolist()
    assert facts["values"] == chosen.values.tolist()
    assert facts["output"] == "blue"
    for index in chosen.index.tolist():
        patch = overlapping.patch(index, slide)
        # Enlarged to 96 px: the first pixel of a patch is found somewhere, followed by others.
        assert _holds(page, patch)


def _holds(page, patch):
    cell = 96
    large = np.asarray(Image.fromarray(patch).resize((cell, cell), Image.Resampling.NEAREST))
    starts = np.argwhere((page[: -cell + 1, : -cell + 1] == large[0, 0]).all(2))
    return any((page[y : y + cell, x : x + cell] == large).all() for y, x in starts)


def test_only_ours_is_replaced(overlapping, slide, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"somebody's")
    with pytest.raises(ExportError, match="no such export of ours"):
        save_gallery(overlapping, path, slide)
    save_gallery(overlapping, path, slide, overwrite=True)
    save_gallery(overlapping, path, slide, n=2)
    with pytest.raises(ExportError, match=r"end it in \.png"):
        save_gallery(overlapping, tmp_path / "a.tif", slide)
    with pytest.raises(ExportError, match="at most"):
        save_gallery(overlapping, path, slide, n=10**6)


def test_a_missing_slide_leaves_no_file(overlapping, tmp_path):
    with pytest.raises(SlideOpenError):
        save_gallery(overlapping, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0931249, "0.09312"), (11483.2, "11,483"), (-2500.0, "-2,500"), (2.5e9, "2.5e+09"),
        (7.0, "7"), (float("nan"), "–"), (float("inf"), "–"),
    ],
)  # fmt: skip
def test_numbers_are_short(value, text):
    assert short_number(value) == text


def test_a_sheet_of_one_narrow_picture_can_be_drawn():
    page = draw_sheet([np.zeros((3, 200, 3), np.uint8)], ["1 · 0.5"], "a" * 300, "slide", "below")
    assert page.width > 200


def test_the_command_draws_one(saved, tmp_path, capsys):
    out, path = saved
    file = tmp_path / "lowest.png"
    words = ["gallery", str(out), str(file), "--which", "bottom", "-n", "3", "--output", "green"]
    assert cli.main(words) == 0
    assert capsys.readouterr().out.strip() == str(file)
    with Image.open(file) as image:
        facts = json.loads(image.text["napari-wsi-heatmap"])
    expected = wh.open_heatmap(out).gallery(3, "bottom", channel="green")
    assert facts["index"] == expected.index.tolist()
    chance = ["--which", "random", "--seed", "3", "--apart", "--slide", str(path), "--output", "2"]
    assert cli.main(["gallery", str(out), str(file), *chance]) == 0


def test_the_command_says_what_is_wrong_in_one_line(saved, tmp_path, capsys):
    out, _ = saved
    missing = ["--slide", str(tmp_path / "gone.svs")]
    for words in (missing, ["--output", "violet"]):
        assert cli.main(["gallery", str(out), str(tmp_path / "a.png"), *words]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(SystemExit, match="2"):
        cli.main(["gallery", str(out), str(tmp_path / "a.png"), "-n", "0"])
