"""Label, macro and thumbnail: only on request, beside the slide, and one line if damaged."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from associating import CountingImages, Labelled
from live import add_slide, needs_display

from napari_wsi_heatmap._napari.associated import (
    show_associated,
    show_label,
    show_macro,
    show_thumbnail,
)
from napari_wsi_heatmap.errors import SlideReadError
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.slides.array import ArraySlide

PLUGIN = "napari-wsi-heatmap"
LABEL = np.full((50, 40, 3), (200, 10, 10), np.uint8)
MACRO = np.full((30, 90, 3), (10, 200, 10), np.uint8)
IMAGES = {"label": LABEL, "macro": MACRO}


@pytest.fixture
def show(qtbot, viewer, notifications):
    """Ask for an image, and wait for its layer or for what is told."""

    def showing(name):
        told, count = len(notifications()), len(viewer.layers)
        show_associated(viewer, name)
        qtbot.waitUntil(lambda: len(viewer.layers) > count or len(notifications()) > told)
        return viewer.layers[-1]

    return showing


def box_of(layer):
    """(top, left, bottom, right) of what a layer draws, in the world."""
    (top, left), (bottom, right) = layer.extent.world[:, -2:]
    y, x = layer.scale
    return top - y / 2, left - x / 2, bottom + y / 2, right + x / 2


def test_it_stands_at_the_right_of_the_slide_in_its_units(viewer, show):
    slide_layer = add_slide(viewer, Labelled(images=IMAGES))
    layer = show("label")
    assert layer.name == "a label"
    np.testing.assert_array_equal(layer.data, LABEL)
    assert layer.rgb
    assert tuple(layer.contrast_limits) == (0, 255)
    assert layer.units == slide_layer.units
    assert viewer.layers.units is not None
    # Half of the longer side, 600 px of 0.5 µm; centres of pixels lie half a pixel inside.
    assert layer.scale.tolist() == [3.0, 3.0]
    assert box_of(layer) == pytest.approx((-0.25, 308.75, 149.75, 428.75))


def test_one_below_the_other(viewer, show):
    add_slide(viewer, Labelled(images=IMAGES))
    label, macro = box_of(show("label")), box_of(show("macro"))
    assert macro[1] == pytest.approx(label[1])
    assert macro[0] == pytest.approx(label[2] + 9)
    assert macro[3] - macro[1] == pytest.approx(150)


def test_it_follows_how_the_slide_lies(viewer, show):
    slide_layer = add_slide(viewer, Labelled(images=IMAGES))
    slide_layer.translate, slide_layer.rotate = (1000, 2000), 90
    layer = show("label")
    corner = slide_layer.data_to_world((-0.5, 617.5))
    assert layer.data_to_world((-0.5, -0.5)) == pytest.approx(corner)


def test_an_uncalibrated_slide_is_in_pixels(viewer, show):
    slide = ArraySlide([np.zeros((400, 600, 3), np.uint8)], name="a")
    add_slide(viewer, Labelled(slide, IMAGES))
    layer = show("macro")
    assert [str(unit) for unit in layer.units] == ["pixel", "pixel"]


def test_where_little_was_scanned_it_stands_there(viewer, show):
    add_slide(viewer, Labelled(images=IMAGES, bounds=(100, 200, 80, 60)))
    top, left, bottom, _ = box_of(show("label"))
    assert (top, bottom - top) == pytest.approx((49.75, 20))
    assert left == pytest.approx((200 + 60 + 0.03 * 80) * 0.5 - 0.25)


def test_the_slide_stays_selected_and_all_is_in_view(viewer, show):
    slide_layer = add_slide(viewer, Labelled(images=IMAGES))
    viewer.canvas.size = (600, 800)
    viewer.fit_to_view()
    before = viewer.scene.camera.zoom
    show("label")
    assert viewer.layers.selection == {slide_layer}
    assert viewer.scene.camera.zoom < before


def test_who_looks_at_a_detail_goes_on_looking_at_it(viewer, show, notifications):
    add_slide(viewer, Labelled(images=IMAGES))
    viewer.scene.camera.zoom, viewer.scene.camera.center = 100, (0, 20, 30)
    show("label")
    assert (viewer.scene.camera.zoom, viewer.scene.camera.center[1:]) == (100, (20, 30))
    (told,) = notifications()
    assert "outside of this view" in told


def test_asked_for_again_it_is_shown_again_and_not_read(viewer, show):
    slide = Labelled(images=IMAGES)
    add_slide(viewer, slide)
    layer = show("label")
    layer.visible = False
    show_associated(viewer, "label")
    assert layer.visible
    assert len(viewer.layers) == 2
    assert slide.reads == {"label": 1}


def test_removed_it_is_added_in_its_place_again(viewer, show):
    add_slide(viewer, Labelled(images=IMAGES))
    before = box_of(show("label"))
    viewer.layers.remove("a label")
    assert box_of(show("label")) == before


def test_a_damaged_one_is_one_line_and_nothing_else(viewer, show, notifications):
    slide = Labelled(images={"label": SlideReadError("not a JPEG", "a.svs"), "macro": MACRO})
    add_slide(viewer, slide)
    show("label")
    (told,) = notifications()
    assert told == "a: its label image cannot be read: not a JPEG - a.svs"
    assert len(viewer.layers) == 1
    show("macro")
    assert len(viewer.layers) == 2


def test_whatever_reading_raises_is_one_line(viewer, show, notifications):
    add_slide(viewer, Labelled(images={"label": RuntimeError("a\nb")}))
    show("label")
    assert notifications() == ["a: its label image cannot be read: unexpected RuntimeError: a b"]


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (IMAGES, "a holds no thumbnail image, only label, macro."),
        ({}, "a holds no thumbnail image."),
    ],
)
def test_one_that_there_is_not(viewer, notifications, images, told):
    slide = Labelled(images=images)
    add_slide(viewer, slide)
    show_associated(viewer, "thumbnail")
    assert notifications() == [told]
    assert not slide.reads


def test_without_a_slide_or_with_several(viewer, show, notifications):
    viewer.add_image(np.zeros((10, 10)))
    show_associated(viewer, "label")
    assert "No slide is open" in notifications()[-1]
    first, _ = (add_slide(viewer, Labelled(images=IMAGES)) for _ in range(2))
    viewer.layers.selection.clear()
    show_associated(viewer, "label")
    assert "Several slides" in notifications()[-1]
    viewer.layers.selection.active = first
    assert show("label").name.startswith(first.name)


def test_what_arrives_after_the_slide_has_gone_is_dropped(qtbot, viewer, notifications):
    slide = Labelled(images=IMAGES)
    layer = add_slide(viewer, slide)
    show_associated(viewer, "label")
    viewer.layers.remove(layer)
    qtbot.waitUntil(lambda: slide.reads == {"label": 1})
    qtbot.wait(50)
    assert len(viewer.layers) == 0
    assert notifications() == []


# nothing is read that nobody asked for


def test_opening_a_slide_never_reads_its_label(viewer, show, data_dir, monkeypatch):
    path = data_dir / "slides" / "aperio" / "CMU-1-Small-Region.svs"
    with open_slide(path) as slide:
        kind, images = type(slide), type(slide).associated_images
        assert set(slide.associated_images) == {"label", "macro", "thumbnail"}
    reads = Counter()
    counting = property(lambda slide: CountingImages(images.fget(slide), reads))
    monkeypatch.setattr(kind, "associated_images", counting)
    (layer,) = viewer.open(str(path), plugin=PLUGIN)
    for data in layer.data:
        np.asarray(data[:64, :64])
    assert set(reads) <= {"thumbnail"}
    show("macro")
    assert set(reads) <= {"thumbnail", "macro"}


def test_a_slide_without_pyramid_looks_for_its_thumbnail_only(viewer):
    big = ArraySlide.from_callable(
        lambda level, y, x, h, w: np.zeros((h, w, 3), np.uint8), [(9000, 9000)], name="big"
    )
    slide = Labelled(big, IMAGES | {"thumbnail": np.zeros((90, 90, 3), np.uint8)})
    layer = add_slide(viewer, slide)
    layer.metadata["pyramid"].stop_overview()
    assert slide.reads == {"thumbnail": 1}


# in a window


@pytest.mark.gl
@needs_display
def test_commands_of_the_menu(make_napari_viewer, qtbot, data_dir):
    from napari._app_model import get_app_model
    from npe2 import PluginManager

    PluginManager.instance().discover()
    viewer = make_napari_viewer(show=True)
    path = data_dir / "slides" / "aperio" / "CMU-1-Small-Region.svs"
    viewer.open(str(path), plugin=PLUGIN)
    with open_slide(path) as slide:
        for n, (command, name) in enumerate(
            [(show_label, "label"), (show_macro, "macro"), (show_thumbnail, "thumbnail")], start=2
        ):
            get_app_model().commands.execute_command(f"{PLUGIN}.{command.__name__}")
            qtbot.waitUntil(lambda n=n: len(viewer.layers) == n)
            np.testing.assert_array_equal(viewer.layers[-1].data, slide.associated_images[name])
    assert viewer.layers.units is not None
