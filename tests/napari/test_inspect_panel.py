"""The dock's sections about windows: what a click shows, marks and reads; what a gallery does."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from live import SLOW, Slow, add_slide, tissue_slide, wait_over, wait_shown
from napari.layers import Vectors
from napari.utils import interactions
from napari.utils._test_utils import read_only_mouse_event
from qtpy.QtWidgets import QVBoxLayout, QWidget

import napari_wsi_heatmap as wh
from napari_wsi_heatmap._napari import inspect_sections
from napari_wsi_heatmap._napari.level0 import Level0, look_at
from napari_wsi_heatmap._napari.scrolled import Scrolled
from napari_wsi_heatmap._napari.start import start_job
from napari_wsi_heatmap._napari.view import heatmap_layers
from napari_wsi_heatmap._napari.window_gallery import WindowGallery, Windows
from napari_wsi_heatmap._napari.window_mark import WindowMark, outline
from napari_wsi_heatmap.inspecting.pictures import window_pictures

TIMEOUT = 30_000


def mean_rgb(batch):
    return batch.mean((2, 3))


def dense_rgb(batch):
    return batch[:, :, 4::8, 4::8]


@pytest.fixture
def sections(qtbot, viewer):
    sections = inspect_sections.InspectSections(viewer)
    qtbot.addWidget(sections.native)
    sections.native.resize(280, 900)
    sections.show()
    yield sections
    sections.inspector.unfolded = sections.gallery.unfolded = False


@pytest.fixture
def slide():
    return tissue_slide()


@pytest.fixture
def slide_layer(viewer, slide):
    return add_slide(viewer, slide)


def add_map(viewer, slide_layer, slide, model=mean_rgb, **settings):
    options = {"tissue": "none", "progress": False, "window": 64, "stride": 32} | settings
    heatmap = wh.compute_heatmap(slide, model, **options)
    layers = heatmap_layers(heatmap, slide_layer)
    for layer in layers:
        viewer.add_layer(layer)
    return heatmap, layers


def press(viewer, world, *, moved=0.0, modifiers=(), button=1):
    """Press, maybe move, and release the mouse, as napari's canvas does."""

    def event(kind, pos):
        return read_only_mouse_event(
            type=kind,
            pos=np.array(pos, float),
            position=world,
            modifiers=list(modifiers),
            button=button,
            is_dragging=kind == "mouse_move",
        )

    interactions.mouse_press_callbacks(viewer, event("mouse_press", (100, 100)))
    if moved:
        interactions.mouse_move_callbacks(viewer, event("mouse_move", (100 + moved, 100)))
    interactions.mouse_release_callbacks(viewer, event("mouse_release", (100 + moved, 100)))


def world_of(layer, viewer, point):
    return Level0.of_heatmap(layer).world(viewer, point)


def table(panel):
    widget = panel._table
    return [
        [widget.item(row, column).text() for column in range(widget.columnCount())]
        for row in range(widget.rowCount())
    ]


def shown_patch(panel):
    """Pixels of the picture in the panel, None if it is empty."""
    image = panel._picture._image
    if image.isNull():
        return None
    bits = image.constBits()
    bits.setsize(image.sizeInBytes())
    rows = np.frombuffer(bits, np.uint8).reshape(image.height(), image.bytesPerLine())
    return rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3)


def wait_patch(qtbot, panel):
    qtbot.waitUntil(lambda: shown_patch(panel) is not None, timeout=TIMEOUT)


def test_folded_it_listens_to_no_click(sections, viewer, slide_layer, slide):
    before = len(viewer.mouse_drag_callbacks)
    sections.inspector.unfolded = True
    assert len(viewer.mouse_drag_callbacks) == before + 1
    sections.inspector.unfolded = False
    assert len(viewer.mouse_drag_callbacks) == before


def test_a_click_shows_the_window(sections, viewer, slide_layer, slide, qtbot):
    heatmap, layers = add_map(viewer, slide_layer, slide)
    panel = sections.inspector
    panel.unfolded = True
    press(viewer, world_of(layers[0], viewer, (150, 230)))
    wait_patch(qtbot, panel)
    found = panel.found
    assert found.index == heatmap.inspect(150, 230).index
    assert found.point == pytest.approx((150, 230), abs=1e-6)
    np.testing.assert_array_equal(shown_patch(panel), heatmap.patch(found.index, slide))
    row, col = found.place
    assert f"Row {row}, column {col}" in panel._about.value
    rank = heatmap.inspect(150, 230).ranks[1]
    value = f"{heatmap.values[1, row, col]:.4g}"
    shown = table(panel)[1]
    assert shown[:3] == ["1", value, f"{rank.place}"]
    assert rank.percentile - 0.1 < float(shown[3]) <= rank.percentile
    assert f"among {rank.of} windows" in panel._about.value
    assert f"{rank.place} of {rank.of}" in panel._table.item(1, 0).toolTip()
    assert len(table(panel)) == 3


def test_the_window_is_outlined(sections, viewer, slide_layer, slide, qtbot):
    _, layers = add_map(viewer, slide_layer, slide)
    selected = set(viewer.layers.selection)
    panel = sections.inspector
    panel.unfolded = True
    press(viewer, world_of(layers[0], viewer, (150, 230)))
    wait_patch(qtbot, panel)
    (mark,) = (layer for layer in viewer.layers if isinstance(layer, Vectors))
    corner = np.array(panel.found.position) - 0.5
    width = 2 * mark.edge_width + 1e-6  # of two lines around the window
    points = np.concatenate([mark.data[:, 0], mark.data.sum(1)])
    np.testing.assert_allclose(points.min(0), corner, atol=width)
    np.testing.assert_allclose(points.max(0), corner + 64, atol=width)
    np.testing.assert_allclose(
        mark.data_to_world(corner), slide_layer.data_to_world(corner), rtol=1e-9
    )
    assert set(viewer.layers.selection) == selected
    panel.unfolded = False
    assert not any(isinstance(layer, Vectors) for layer in viewer.layers)


def test_the_outline_keeps_its_width_on_the_canvas(viewer, slide_layer):
    mark, level0 = WindowMark(viewer), Level0(slide_layer)
    mark.show(level0, (10, 20), (64, 64))
    layer = viewer.layers[-1]
    before = layer.edge_width * level0.pixel_size(viewer)
    viewer.scene.camera.zoom *= 5
    assert layer.edge_width * level0.pixel_size(viewer) == pytest.approx(before)
    mark.hide()
    mark.hide()


@pytest.mark.parametrize("number", [0, 1])
def test_an_outline_is_closed_and_leaves_the_window_free(number):
    corner, size, width = np.array((10.0, 20.0)), np.array((30.0, 50.0)), 2.0
    painted = np.zeros((80, 100), int)
    for (y, x), (down, across) in outline(corner, size, width, number).tolist():
        box = (y, x - 1, y + down, x + 1) if down else (y - 1, x, y + 1, x + across)
        top, left, bottom, right = map(int, box)
        painted[top:bottom, left:right] += 1
    expected = np.zeros_like(painted)
    inner, outer = 2 * number, 2 * number + 2
    expected[10 - outer : 40 + outer, 20 - outer : 70 + outer] = 1
    expected[10 - inner : 40 + inner, 20 - inner : 70 + inner] = 0
    np.testing.assert_array_equal(painted, expected)


@pytest.mark.parametrize("how", [{"moved": 40.0}, {"modifiers": ("Shift",)}, {"button": 2}])
def test_a_drag_is_no_click(how, sections, viewer, slide_layer, slide):
    _, layers = add_map(viewer, slide_layer, slide)
    panel = sections.inspector
    panel.unfolded = True
    press(viewer, world_of(layers[0], viewer, (150, 230)), **how)
    assert panel._looking.number == 0


def test_who_draws_is_left_alone(sections, viewer, slide_layer, slide):
    _, layers = add_map(viewer, slide_layer, slide)
    shapes = viewer.add_shapes(name="region", scale=slide_layer.scale, units=slide_layer.units)
    shapes.mode = "add_rectangle"
    panel = sections.inspector
    panel.unfolded = True
    press(viewer, world_of(layers[0], viewer, (150, 230)))
    assert panel._looking.number == 0


def test_without_the_patch_no_slide_is_read(sections, viewer, slide_layer, slide, qtbot):
    heatmap, layers = add_map(viewer, slide_layer, slide)
    panel = sections.inspector
    panel._patch.value = False
    panel.unfolded = True
    panel._slide.get = None  # would raise if it were called
    press(viewer, world_of(layers[0], viewer, (150, 230)))
    qtbot.waitUntil(lambda: panel.found is not None, timeout=TIMEOUT)
    assert shown_patch(panel) is None
    del panel._slide.get
    panel._patch.value = True
    wait_patch(qtbot, panel)
    np.testing.assert_array_equal(shown_patch(panel), heatmap.patch(panel.found.index, slide))


def test_another_window_over_the_place_can_be_chosen(sections, viewer, slide_layer, slide, qtbot):
    heatmap, layers = add_map(viewer, slide_layer, slide)
    panel = sections.inspector
    panel.unfolded = True
    press(viewer, world_of(layers[0], viewer, (150, 230)))
    wait_patch(qtbot, panel)
    covering = panel.found.covering.tolist()
    assert len(covering) == 4
    other = next(index for index in covering if index != panel.found.index)
    panel._covering.value = other
    qtbot.waitUntil(lambda: panel.found.index == other, timeout=TIMEOUT)
    assert panel.found.point == pytest.approx((150, 230), abs=1e-6)
    assert panel._covering.value == other
    assert tuple(heatmap.positions.reshape(-1, 2)[other]) == panel.found.position


def test_a_dense_map_shows_the_cell_and_the_window(sections, viewer, slide_layer, slide, qtbot):
    heatmap, layers = add_map(viewer, slide_layer, slide, dense_rgb)
    panel = sections.inspector
    panel.unfolded = True
    press(viewer, world_of(layers[0], viewer, (150, 230)))
    wait_patch(qtbot, panel)
    found = heatmap.inspect(150, 230)
    assert table(panel)[0][:3] == ["0", f"{found.at_point[0]:.4g}", f"{found.values[0]:.4g}"]


def test_a_place_beside_the_map(sections, viewer, slide_layer, slide, qtbot):
    _, layers = add_map(viewer, slide_layer, slide)
    panel = sections.inspector
    panel.unfolded = True
    press(viewer, world_of(layers[0], viewer, (-500, 230)))
    qtbot.waitUntil(lambda: "No window" in panel._about.value, timeout=TIMEOUT)
    assert shown_patch(panel) is None
    assert table(panel) == []


def test_without_a_heatmap_that_is_said(sections, viewer, slide_layer):
    sections.inspector.unfolded = True
    press(viewer, (10.0, 10.0))
    assert "no heatmap" in sections.inspector._about.value


def test_a_slide_that_is_missing_is_one_line(
    sections, viewer, slide_file, tmp_path, qtbot, notifications
):
    path = tmp_path / "b.svs"
    shutil.copy(slide_file, path)
    heatmap = wh.compute_heatmap(path, mean_rgb, window=200, tissue="none", progress=False)
    with wh.open_slide(path) as slide:
        layer = add_slide(viewer, slide)
        (first, *_) = heatmap_layers(heatmap, layer)
        viewer.add_layer(first)
        viewer.layers.remove(layer)
    path.unlink()
    panel = sections.inspector
    panel.unfolded = True
    panel.inspect_window(first, 3)
    qtbot.waitUntil(lambda: bool(panel._trouble.value), timeout=TIMEOUT)
    assert "b.svs" in panel._trouble.tooltip
    assert panel._trouble.tooltip.startswith("No patch: ")
    assert len(table(panel)) == 3  # values need no slide
    sections.gallery.unfolded = True
    qtbot.waitUntil(lambda: "b.svs" in sections.gallery._shown.line, timeout=TIMEOUT)
    assert notifications() == []


def test_while_a_run_goes_on(sections, viewer, slide_layer, qtbot):
    sections.inspector.unfolded = True
    job = start_job(viewer, slide_layer, Slow(), **SLOW)
    wait_shown(qtbot, job)
    done = int(np.flatnonzero(np.isfinite(job.heatmap.values[0]))[0])
    sections.inspector.inspect_window(job.layer, done)
    wait_patch(qtbot, sections.inspector)
    assert sections.inspector.found.state == "done"
    sections.gallery.unfolded = True
    qtbot.waitUntil(lambda: sections.gallery.gallery is not None, timeout=TIMEOUT)
    assert len(sections.gallery.gallery) > 0
    assert not job.over
    job.cancel()
    wait_over(qtbot, job)


def icons_differ(gallery, count):
    """Whether all thumbnails have been read."""
    thumbnails = gallery._shown.thumbnails
    pictures = [thumbnails.item(i).icon().pixmap(72, 72).toImage() for i in range(count)]
    return all(picture.pixelColor(36, 36).getRgb()[:3] != (96, 96, 96) for picture in pictures)


def test_a_gallery_shows_the_highest(sections, viewer, slide_layer, slide, qtbot):
    heatmap, _ = add_map(viewer, slide_layer, slide)
    panel = sections.gallery
    panel.unfolded = True
    qtbot.waitUntil(lambda: panel.gallery is not None, timeout=TIMEOUT)
    expected = heatmap.gallery(16, apart=True)
    assert panel.gallery.index.tolist() == expected.index.tolist()
    thumbnails = panel._shown.thumbnails
    texts = [thumbnails.item(i).text() for i in range(thumbnails.count())]
    assert texts == [f"{value:.4g}" for value in expected.values]
    qtbot.waitUntil(lambda: icons_differ(panel, len(expected)), timeout=TIMEOUT)
    panel.unfolded = False
    assert thumbnails.count() == 0


def test_its_fields_choose_others(sections, viewer, slide_layer, slide, qtbot):
    heatmap, _ = add_map(viewer, slide_layer, slide)
    panel = sections.gallery
    panel.unfolded = True
    qtbot.waitUntil(lambda: panel.gallery is not None, timeout=TIMEOUT)
    panel._apart.value = False
    panel._output.value = 2
    panel._which.value = "random"
    panel._n.value, panel._seed.value = 5, 9
    expected = heatmap.gallery(5, "random", 9, channel=2)
    qtbot.waitUntil(
        lambda: panel.gallery.index.tolist() == expected.index.tolist(), timeout=TIMEOUT
    )
    assert panel._seed.visible
    assert panel.gallery.name == "2"
    assert sections.native.minimumSizeHint().width() < 250  # beside the bar of a narrow dock


def test_a_click_on_a_thumbnail_moves_there(sections, viewer, slide_layer, slide, qtbot):
    heatmap, _ = add_map(viewer, slide_layer, slide)
    sections.inspector.unfolded = sections.gallery.unfolded = True
    panel = sections.gallery
    qtbot.waitUntil(lambda: panel.gallery is not None, timeout=TIMEOUT)
    thumbnails = panel._shown.thumbnails
    thumbnails.itemClicked.emit(thumbnails.item(2))
    index = int(panel.gallery.index[2])
    centre = heatmap.centres.reshape(-1, 2)[index]
    seen = slide_layer.world_to_data(viewer.scene.camera.center[-2:])
    np.testing.assert_allclose(seen, centre, atol=1e-6)
    assert any(isinstance(layer, Vectors) for layer in viewer.layers)
    found = sections.inspector
    qtbot.waitUntil(lambda: found.found is not None and found.found.index == index, timeout=TIMEOUT)


def test_a_tiny_window_is_zoomed_in_on(viewer, slide_layer):
    level0 = Level0(slide_layer)
    viewer.scene.camera.zoom = 1e-3
    look_at(viewer, level0, (100, 200), (64, 64))
    share = 64 * level0.pixel_size(viewer) / min(viewer.canvas.size)
    assert 0.2 < share < 0.5
    zoom = viewer.scene.camera.zoom
    look_at(viewer, level0, (10, 20), (64, 64))
    assert viewer.scene.camera.zoom == zoom


def test_a_gallery_of_any_windows(viewer, slide_layer, slide, qtbot):
    """What a bag of a MIL model is shown with: it knows of no map."""
    shown = WindowGallery(viewer, WindowMark(viewer))
    qtbot.addWidget(shown.native)
    positions, size = np.array([(0.0, 0.0), (100.0, 200.0)]), (64.0, 64.0)
    chosen = []
    shown.chosen.connect(chosen.append)
    shown.show_windows(
        Level0(slide_layer),
        Windows(positions, size, ["0.9", "0.1"]),
        lambda: window_pictures(slide, positions, size),
    )
    qtbot.waitUntil(lambda: not shown._reading._busy, timeout=TIMEOUT)
    shown.choose(1)
    assert chosen == [1]
    seen = slide_layer.world_to_data(viewer.scene.camera.center[-2:])
    np.testing.assert_allclose(seen, (131.5, 231.5), atol=1e-6)


def test_only_the_last_of_many_clicks_is_read(sections, viewer, slide_layer, slide, qtbot):
    _, layers = add_map(viewer, slide_layer, slide)
    panel = sections.inspector
    panel.unfolded = True
    for x in range(20, 400, 10):
        panel.inspect(layers[0], (150, float(x)))
    qtbot.waitUntil(
        lambda: panel.found is not None and panel.found.point == (150, 390.0), timeout=TIMEOUT
    )
    wait_patch(qtbot, panel)


def test_of_a_layer_that_is_removed_nothing_is_shown(sections, viewer, slide_layer, slide, qtbot):
    _, (layer,) = add_map(viewer, slide_layer, slide)
    inspector, panel = sections.inspector, sections.gallery
    inspector.unfolded = panel.unfolded = True
    inspector.inspect_window(layer, 3)
    wait_patch(qtbot, inspector)
    qtbot.waitUntil(lambda: panel.gallery is not None, timeout=TIMEOUT)
    viewer.layers.remove(layer)
    assert shown_patch(inspector) is None
    assert table(inspector) == []
    assert panel._shown.thumbnails.count() == 0
    assert not any(isinstance(layer, Vectors) for layer in viewer.layers)


def test_a_dock_that_is_closed_leaves_the_viewer_alone(viewer, slide_layer, slide, qtbot):
    _, (layer,) = add_map(viewer, slide_layer, slide)
    before = len(viewer.mouse_drag_callbacks)
    sections = inspect_sections.InspectSections(viewer)
    sections.inspector.unfolded = sections.gallery.unfolded = True
    sections.inspector.inspect_window(layer, 3)
    sections.native.deleteLater()
    qtbot.waitUntil(lambda: len(viewer.mouse_drag_callbacks) == before, timeout=TIMEOUT)
    viewer.layers.remove(layer)
    viewer.scene.camera.zoom *= 3


def test_a_section_is_scrolled_to_when_it_is_unfolded(sections, qtbot):
    inside, filler = QWidget(), QWidget()
    filler.setFixedHeight(500)
    layout = QVBoxLayout(inside)
    layout.addWidget(filler)
    layout.addWidget(sections.native)
    scrolled = Scrolled(inside)
    qtbot.addWidget(scrolled)
    scrolled.resize(300, 200)
    scrolled.show()
    bar = scrolled.verticalScrollBar()
    assert bar.value() == 0
    sections.inspector.unfolded = True
    qtbot.waitUntil(lambda: bar.value() > 0, timeout=TIMEOUT)
    sections.native.setParent(None)
