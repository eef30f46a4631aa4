"""A mask that is shown: what lies under the cursor, and its threshold moved in the dock."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from live import add_slide, wait_over
from napari.layers import Labels
from PIL import ImageCms

from made_slides import write_tiff
from napari_wsi_heatmap._napari import widget as widget_module
from napari_wsi_heatmap._napari.live_tissue import LIVE, value_text
from napari_wsi_heatmap._napari.registry import JOBS
from napari_wsi_heatmap._napari.slide_source import source_of
from napari_wsi_heatmap._napari.tissue_view import seen_tissue
from napari_wsi_heatmap._napari.warm_up import WARM_UP
from napari_wsi_heatmap.grid import lay_grid, resolve_window
from napari_wsi_heatmap.selection import windows_wanted
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.states import BACKGROUND, DONE, state_of
from napari_wsi_heatmap.tissue import find_tissue, keep_values
from napari_wsi_heatmap.tissuerules.values import TissueValues

HEIGHT, WIDTH = 512, 640
RULES = ("otsu", "variance", "variance2")


def ramp():
    """Glass whose colour and noise grow from left to right: each threshold cuts it elsewhere."""
    rng = np.random.default_rng(0)
    across = np.linspace(0, 1, WIDTH)[None, :, None]
    noise = rng.integers(-60, 60, (HEIGHT, WIDTH, 1)) * across
    return np.rint(180 + noise - across * [0, 90, 30]).clip(0, 255).astype(np.uint8)


class Counting:
    """Pixels in memory, and how many of them were read."""

    def __init__(self):
        self.read = 0
        self._pixels = ramp()

    def __call__(self, level, y, x, height, width):
        self.read += height * width
        return self._pixels[y : y + height, x : x + width]


@pytest.fixture
def pixels():
    return Counting()


@pytest.fixture
def slide_layer(viewer, pixels):
    slide = ArraySlide.from_callable(pixels, [(HEIGHT, WIDTH)], mpp=2.0, name="ramp")
    return add_slide(viewer, slide)


@pytest.fixture
def dock(qtbot, viewer, slide_layer):
    dock = widget_module.HeatmapWidget(viewer)
    qtbot.addWidget(dock.native)
    for name in ("inserted", "removed", "renamed"):
        getattr(viewer.layers.events, name).connect(dock.reset_choices)
    qtbot.waitUntil(WARM_UP.ready.is_set, timeout=60_000)
    qtbot.waitUntil(lambda: dock._form._window.value != "")
    dock._form._window.value, dock._form._mpp.value = "32", "2"
    dock._form._stride.value = "20"
    return dock


def masks_of(viewer):
    return [layer for layer in viewer.layers if isinstance(layer, Labels)]


@pytest.fixture
def show(qtbot, viewer, dock):
    """Choose a rule and press Show tissue; the layer."""

    def showing(rule, threshold=""):
        before = len(masks_of(viewer))
        dock._form._tissue.value = rule
        dock._form._threshold._text.value = threshold
        dock._tissue.native.click()
        qtbot.waitUntil(lambda: len(masks_of(viewer)) > before, timeout=30_000)
        return masks_of(viewer)[-1]

    return showing


def status_at(viewer, layer, y, x):
    """What napari says with the cursor over a pixel of a layer, asked as napari does."""
    viewer.cursor.position = layer.data_to_world((y, x))
    viewer.mouse_over_canvas = True
    said = []
    asking = threading.Thread(target=lambda: said.append(viewer._calc_status_from_cursor()))
    asking.start()
    asking.join()
    return said[0][0]["coordinates"]


def of_a_run(slide_layer, settings):
    """What a run with these settings would call tissue."""
    slide = slide_layer.metadata["slide"]
    spec = resolve_window(
        slide, settings["window"], settings["stride"], mpp=settings["mpp"], level=settings["level"]
    )
    grid = lay_grid(spec, slide.levels[spec.level].shape, settings["edge"])
    wanted = windows_wanted(slide, grid, settings["roi"])
    found = find_tissue(slide, settings["tissue"], grid, wanted)
    return found.mask if found.windows is None else found.windows


def asked(dock):
    return dock._form.settings() | dock._more.settings()


@pytest.mark.parametrize("rule", RULES)
def test_the_value_under_the_cursor_is_said(rule, show, viewer):
    layer = show(rule)
    assert viewer.layers.selection.active is layer
    y, x = layer.data.shape[0] // 2, layer.data.shape[1] * 3 // 4
    cell = {"otsu": 4, "variance": 20, "variance2": 64}[rule]
    window = 32 if rule == "variance" else cell
    seen = ramp()[cell * y : cell * y + window, cell * x : cell * x + window]
    values = LIVE[layer].values
    said = status_at(viewer, layer, y, x)
    if rule == "otsu":
        mean = seen.reshape(-1, 3).mean(0)
        saturation = 255 * (mean.max() - mean.min()) / mean.max()
        assert values.at(y, x) == pytest.approx(saturation, abs=2)
        assert f"; saturation {values.at(y, x):.0f}, tissue above {values.threshold:g}" in said
    else:
        assert f"; variance {seen.var():.3g}" in said or f"; variance {seen.var():.0f}" in said
        assert said.endswith("tissue above 80")
    assert ("its square" in said) == (rule == "variance2")
    assert f": {int(layer.data[y, x])}; " in said  # napari's own words stay


def test_nothing_is_said_beside_the_mask_or_when_it_is_hidden(show, viewer):
    layer = show("variance")
    for place in [(-2, 0), (0, layer.data.shape[1] + 3)]:
        assert "variance" not in status_at(viewer, layer, *place)
    assert "variance" in status_at(viewer, layer, 0, 0)
    layer.visible = False
    assert "variance" not in status_at(viewer, layer, 0, 0)


def test_what_is_no_value_is_said_in_words():
    tiles = np.full((4, 4), 90.0)
    tiles[0] = np.nan, np.inf, 90.0, 12_345.6
    values = TissueValues("variance2", tiles, 80, np.array([[70.0]]))
    said = [value_text(values, 0, x) for x in range(4)]
    assert said == [
        "nothing was looked at here",
        "damaged: counts as tissue",
        "variance 90 (its square 70: below the first pass), tissue above 80",
        "variance 12346 (its square 70: below the first pass), tissue above 80",
    ]
    assert value_text(values.moved(60), 0, 2) == "variance 90 (its square 70), tissue above 60"


@pytest.mark.parametrize("rule", RULES)
def test_moving_the_threshold_shows_the_mask_of_a_run_and_reads_nothing(
    rule, show, dock, pixels, slide_layer, viewer
):
    layer, slider = show(rule), dock._form._threshold._slider
    data, read, seen = layer.data, pixels.read, set()
    for position in (slider.max // 4, slider.max // 2, slider.max * 2 // 3, 0):
        slider.value = position
        seen.add(int(layer.data.sum()))
        assert pixels.read == read
        settings = asked(dock)
        assert settings["tissue"].startswith(f"{rule}:")
        np.testing.assert_array_equal(layer.data, of_a_run(slide_layer, settings))
        read = pixels.read
    assert len(seen) >= 3
    assert layer.data is data
    assert masks_of(viewer) == [layer]
    threshold = dock._form._threshold._text.value
    assert layer.name == f"ramp tissue ({rule} {threshold})"
    assert f"tissue above {threshold}" in status_at(viewer, layer, 0, 0)


@pytest.mark.parametrize("rule", RULES)
def test_a_typed_threshold_is_shown_and_is_that_of_the_run(rule, show, dock, viewer, qtbot):
    layer = show(rule)
    typed = {"otsu": "60", "variance": "123,4567", "variance2": "123.4567"}[rule]
    dock._form._threshold._text.value = typed
    dock._form._model.value = "hematoxylin"
    dock._form._window.value, dock._form._mpp.value = "32", "2"
    mask = layer.data != 0
    dock._panel._run.native.click()
    job = JOBS.running(viewer)
    wait_over(qtbot, job)
    number = float(typed.replace(",", "."))
    assert job.heatmap.run["tissue"]["threshold"] == number
    assert job.heatmap.run["settings"]["tissue"] == f"{rule}:{number:.7g}"
    states = state_of(job.heatmap.state)
    assert {*np.unique(states)} == {DONE, BACKGROUND}
    if rule == "variance":
        np.testing.assert_array_equal(states == DONE, mask)
    assert not layer.visible  # it would tint the heatmap


def test_how_much_is_tissue_is_said_in_the_dock(show, dock):
    layer = show("variance")
    assert dock._form._counted.value == f"{layer.data.sum()} of {layer.data.size} windows"
    dock._form._threshold._text.value = "1000000"
    assert dock._form._counted.value == f"0 of {layer.data.size} windows"
    layer = show("otsu")
    assert dock._form._counted.value == f"{layer.data.mean():.1%} of the slide"
    dock._form._tissue.value = "none"
    assert dock._form._counted.value == ""


def test_otsus_own_threshold_is_named_and_comes_back(show, dock):
    layer = show("otsu")
    own = LIVE[layer].values.automatic
    text, before = dock._form._threshold._text, layer.data.copy()
    assert text.native.placeholderText() == f"auto: {own}"
    assert dock._form._threshold._slider.value == own
    text.value = str(own + 40)
    assert layer.data.sum() < before.sum()
    text.value = ""
    assert asked(dock)["tissue"] == "otsu"
    np.testing.assert_array_equal(layer.data, before)


def test_what_was_painted_on_a_mask_is_not_lost(show, dock, viewer, slide_layer):
    first = show("variance")
    first.data[-1] = 1
    first.opacity, painted = 0.3, first.data.copy()
    dock._form._threshold._text.value = "300"
    second = masks_of(viewer)[-1]
    assert masks_of(viewer) == [first, second]
    assert (first.visible, second.visible) == (False, True)
    np.testing.assert_array_equal(first.data, painted)
    np.testing.assert_array_equal(second.data, of_a_run(slide_layer, asked(dock)))
    np.testing.assert_array_equal(second.scale, first.scale)
    np.testing.assert_array_equal(second.translate, first.translate)
    dock._form._threshold._text.value = "400"  # and that one is moved from now on
    assert masks_of(viewer) == [first, second]
    assert second.name == "ramp tissue (variance 400)"


@pytest.mark.parametrize("change", ["stride", "window", "edge", "rule", "typing", "hidden"])
def test_a_mask_of_something_else_is_left_alone(change, show, dock):
    layer = show("variance")
    before = layer.data.copy()
    if change == "stride":
        dock._form._stride.value = "16"
    elif change == "window":
        dock._form._window.value = "much"
    elif change == "edge":
        dock._more._choices["edge"].value = "drop"
    elif change == "rule":
        dock._form._tissue.value = "variance2"
    elif change == "hidden":
        layer.visible = False
    dock._form._threshold._text.value = "30o" if change == "typing" else "300"
    np.testing.assert_array_equal(layer.data, before)
    assert dock._form._counted.value == ""


def test_the_mask_follows_the_edge_rule(show, dock, slide_layer):
    sizes = set()
    for edge in ("pad", "drop"):
        dock._more._choices["edge"].value = edge
        layer = show("variance")
        np.testing.assert_array_equal(layer.data, of_a_run(slide_layer, asked(dock)))
        sizes.add(layer.data.shape)
    assert len(sizes) == 2


def blue_like_green():
    """ICC profile of a device whose blue is green."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tags = [profile[at : at + 12] for at in range(132, 132 + 12 * profile[131], 12)]
    green, blue = (next(t for t in tags if t.startswith(name)) for name in (b"gXYZ", b"bXYZ"))
    return profile.replace(blue, b"bXYZ" + green[4:], 1)


def test_tissue_is_looked_for_in_the_colours_that_the_model_sees(viewer, tmp_path):
    path = write_tiff(tmp_path / "a.tif", [ramp()], icc=blue_like_green())
    layer, seen = add_slide(viewer, open_slide(path)), []
    for icc in (False, True):
        settings = {"window": 32, "tissue": "otsu", "icc": icc}
        seen.append(seen_tissue(source_of(layer), settings).values.values)
        np.testing.assert_array_equal(seen[-1], keep_values(open_slide(path, icc=icc)).values)
    assert (seen[0] != seen[1]).any()


def test_a_threshold_moved_while_tissue_is_looked_for_is_shown(dock, viewer, qtbot, slide_layer):
    dock._form._tissue.value = "variance"
    dock._tissue.native.click()
    dock._form._threshold._text.value = "300"  # before the mask can arrive: that takes this thread
    qtbot.waitUntil(lambda: len(masks_of(viewer)) == 1, timeout=30_000)
    (layer,) = masks_of(viewer)
    np.testing.assert_array_equal(layer.data, of_a_run(slide_layer, asked(dock)))
    assert layer.name == "ramp tissue (variance 300)"


def test_where_otsu_means_nothing_a_threshold_can_be_given(dock, viewer, qtbot, notifications):
    flat = ArraySlide([np.full((HEIGHT, WIDTH, 3), (200, 100, 150), np.uint8)], mpp=2.0)
    viewer.layers.clear()
    add_slide(viewer, flat)
    dock._tissue.native.click()
    qtbot.waitUntil(lambda: bool(notifications()), timeout=30_000)
    assert "all windows are computed" in notifications()[-1]
    assert masks_of(viewer) == []
    dock._form._threshold._text.value = "20"
    dock._tissue.native.click()
    qtbot.waitUntil(lambda: len(masks_of(viewer)) == 1, timeout=30_000)
    assert masks_of(viewer)[0].data.all()


def test_of_very_many_windows_only_the_mask_is_kept(show, dock, monkeypatch):
    from napari_wsi_heatmap._napari import tissue_view

    monkeypatch.setattr(tissue_view, "MOST_VALUES", 10)
    layer = show("variance", "90")
    assert layer not in LIVE
    assert layer.name == "ramp tissue (variance 90)"
    before = layer.data.copy()
    dock._form._threshold._text.value = "300"
    np.testing.assert_array_equal(layer.data, before)


def test_a_dock_that_is_gone_hears_nothing(viewer, qtbot, slide_layer, caplog):
    dock = widget_module.HeatmapWidget(viewer)
    dock.show()
    qtbot.waitUntil(WARM_UP.ready.is_set, timeout=60_000)
    dock._form._tissue.value = "variance"
    dock._tissue.native.click()
    dock.native.deleteLater()
    with qtbot.waitSignal(dock.native.destroyed):
        dock.close()
    qtbot.waitUntil(lambda: len(masks_of(viewer)) == 1, timeout=30_000)
    assert not caplog.records
