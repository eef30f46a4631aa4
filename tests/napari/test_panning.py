import gc
import threading
from weakref import ref

import dask.array as da
import numpy as np
import pytest

from gated import Gated, position
from napari_wsi_heatmap import readspeed
from napari_wsi_heatmap._napari import arrivals, viewing
from napari_wsi_heatmap._napari.prefetching import follower_of
from napari_wsi_heatmap._napari.slide_layer import levels_like, slide_layer
from napari_wsi_heatmap.progressive import ProgressiveArray
from napari_wsi_heatmap.pyramid import default_cache, slide_pyramid
from napari_wsi_heatmap.slides.array import ArraySlide
from recording import Recorder, levels_of

SHAPES = levels_of(8192, 8192, 1, 2, 4, 8)
OURS = ("wsi-fill-in", "wsi-prefetch", "wsi-measure")


@pytest.fixture
def settings():
    """The plugin's settings for viewing, as they were again afterwards."""
    from napari.settings import get_plugin_settings
    from npe2 import PluginManager

    PluginManager.instance().discover()
    viewing = get_plugin_settings("napari-wsi-heatmap").viewing
    before = viewing.levels, viewing.cache
    yield viewing
    viewing.levels, viewing.cache = before
    default_cache.resize(512 << 20)


def add(viewer, slide):
    levels, kwargs, _ = slide_layer(slide)
    return viewer.add_image(levels, **kwargs)


def drawn(layer):
    """Pixels that the layer hands to the canvas."""
    return layer._slice.image.view


def on_view(layer):
    """(y, x, height, width) of what is drawn, pixels of its level."""
    (y, x), (bottom, right) = layer.corner_pixels
    return int(y), int(x), int(bottom - y + 1), int(right - x + 1)


def look_at(viewer, layer, y, x, zoom=1.0):
    """Show level-0 pixel (y, x) in the middle."""
    viewer.scene.camera.zoom = zoom / float(layer.scale[0])
    viewer.scene.camera.center = layer.data_to_world((y, x))


def wait_followed(qtbot, layer):
    qtbot.waitUntil(lambda: follower_of(layer) is not None)


def no_thread_of_ours():
    return not any(thread.name in OURS for thread in threading.enumerate())


# the settings


def test_the_manifest_s_defaults_are_those_of_the_code(settings):
    assert {name: getattr(settings, name) for name in viewing.DEFAULTS} == viewing.DEFAULTS


def test_a_napari_without_settings_of_plugins_gets_the_defaults(monkeypatch):
    import napari.settings

    monkeypatch.delattr(napari.settings, "get_plugin_settings")
    assert viewing.setting("levels") == "auto"
    assert viewing.setting("cache") == 512


@pytest.mark.parametrize("levels", ["exact", "auto"])
def test_the_layer_s_levels_are_exact_dask_arrays(viewer, settings, notifications, levels):
    settings.levels = levels
    layer = add(viewer, ArraySlide([position(0, 0, 1500, 900)], mpp=0.5))
    assert all(isinstance(level, da.Array) for level in layer.data)
    np.testing.assert_array_equal(layer.data[0].compute(), position(0, 0, 1500, 900))
    assert notifications() == []


def test_progressive_levels_on_request_beside_the_exact_ones(viewer, settings, notifications):
    settings.levels = "progressive"
    layer = add(viewer, ArraySlide([position(0, 0, 1500, 900)], mpp=0.5))
    assert isinstance(layer.data[0], ProgressiveArray)
    exact = layer.metadata["pyramid"].levels[0]
    np.testing.assert_array_equal(exact.compute(), position(0, 0, 1500, 900))
    assert not any("slow" in message for message in notifications())


def test_a_slide_that_was_measured_slow_becomes_progressive_and_says_so(
    viewer, settings, notifications
):
    gated = Gated(SHAPES)
    layer = add(viewer, gated.slide)
    gated.gate.set()
    assert isinstance(layer.data[0], ProgressiveArray)
    assert "gated is slow to read" in notifications()[0]
    assert "metadata['pyramid'].levels" in notifications()[0]


def test_the_memory_for_tiles_is_the_user_s(settings):
    settings.cache = 200
    slide_layer(ArraySlide([position(0, 0, 30, 30)]))
    assert default_cache.max_bytes == 200 << 20


def test_another_pyramid_is_shown_like_the_first(viewer, settings):
    slide = ArraySlide([position(0, 0, 1500, 900)], mpp=0.5)
    for levels, kind in (("exact", da.Array), ("progressive", ProgressiveArray)):
        settings.levels = levels
        layer = add(viewer, slide)
        other = slide_pyramid(slide)
        assert isinstance(levels_like(layer, other)[0], kind)
        assert (other in arrivals._followed) == (levels == "progressive")


# reading by several threads


def test_a_view_is_decoded_by_several_threads_through_napari_s_slicing(viewer, settings):
    settings.levels = "exact"
    together, lock, counts = threading.Event(), threading.Lock(), [0, 0]

    def read(level, y, x, height, width):
        with lock:
            counts[0] += 1
            if counts[0] >= 2:
                together.set()
        together.wait(20)
        with lock:
            counts[0] -= 1
            counts[1] += 1
        return position(y, x, height, width)

    slide = ArraySlide.from_callable(read, [(2500, 2500)], mpp=1.0, name="together")
    levels, kwargs, _ = slide_layer(slide)
    layer = viewer.add_image(levels, **kwargs)
    assert together.is_set(), "the small level, too"
    default_cache.clear()
    counts[1] = 0
    together.clear()
    corners = np.array([[0.0, 0.0], [1000.0, 1000.0]])
    layer._update_draw(1.0, corners, (1000, 1000))
    assert together.is_set()
    y, x, height, width = on_view(layer)
    np.testing.assert_array_equal(drawn(layer), position(y, x, height, width))
    assert counts[1] <= 16, "no tile twice"


# a live window


@pytest.fixture
def window(make_napari_viewer, settings):
    return make_napari_viewer(show=True)


@pytest.mark.gl
def test_a_window_shows_coarser_pixels_at_once_and_then_the_exact_ones(window, qtbot, settings):
    settings.levels = "progressive"
    gated = Gated(SHAPES)
    layer = add(window, gated.slide)
    look_at(window, layer, 3000, 3000)
    qtbot.waitUntil(lambda: layer.data_level == 0 and len(gated.begun()) > 0)
    y, x, height, width = on_view(layer)
    rough = drawn(layer).copy()
    assert rough.shape == (height, width, 3)
    off = np.abs(rough.astype(int) - position(y, x, height, width))[..., 0]
    assert 0 < np.median(off) <= 8, "pixels of the place, at a coarser level"
    gated.gate.set()
    exact = layer.metadata["pyramid"].levels[0][y : y + height, x : x + width].compute()
    qtbot.waitUntil(lambda: np.array_equal(drawn(layer), exact), timeout=20_000)


@pytest.mark.gl
def test_moving_on_cancels_what_is_out_of_view(window, qtbot, settings):
    settings.levels = "progressive"
    gated = Gated(SHAPES)
    layer = add(window, gated.slide)
    look_at(window, layer, 2000, 2000)
    qtbot.waitUntil(lambda: len(gated.begun()) > 0)
    look_at(window, layer, 6500, 6500)
    qtbot.waitUntil(lambda: layer.corner_pixels[0].min() > 4000)
    gated.gate.set()
    pyramid = layer.metadata["pyramid"]
    qtbot.waitUntil(lambda: pyramid.progressive.settled, timeout=20_000)
    left = {(y // 512, x // 512) for y, x in gated.begun() if y < 4000}
    assert len(left) <= readspeed.TILES + 8, "those at work, no more"


@pytest.mark.gl
def test_tiles_ahead_are_read_when_the_camera_moves_and_not_before(window, qtbot, settings):
    settings.levels = "exact"
    recorder = Recorder(levels_of(20_000, 20_000, 1, 2, 4, 8, 16))
    layer = add(window, recorder.slide)
    wait_followed(qtbot, layer)
    qtbot.wait(200)
    assert "wsi-prefetch" not in recorder.threads
    look_at(window, layer, 9_000, 9_000)
    qtbot.waitUntil(lambda: layer.data_level == 0)
    follower = follower_of(layer)
    qtbot.waitUntil(lambda: follower.idle and "wsi-prefetch" in recorder.threads)
    y, x, height, width = on_view(layer)
    before = recorder.total
    array = layer.metadata["pyramid"].levels[0]
    array[y - 512 : y + height + 512, x - 512 : x + width + 512].compute()
    assert recorder.total == before, "one more chunk all round"


@pytest.mark.gl
def test_removing_the_layer_ends_all_of_it(window, qtbot, settings):
    settings.levels = "progressive"
    gated = Gated(SHAPES)
    layer = add(window, gated.slide)
    wait_followed(qtbot, layer)
    look_at(window, layer, 3000, 3000)
    qtbot.waitUntil(lambda: len(gated.begun()) > 0)
    window.layers.remove(layer)
    assert follower_of(layer) is None
    gated.gate.set()
    qtbot.waitUntil(no_thread_of_ours)
    begun = len(gated.begun())
    assert begun < 80, "those at work, no more"
    window.scene.camera.zoom *= 1.5
    qtbot.wait(200)
    assert len(gated.begun()) == begun


@pytest.mark.gl
def test_closing_the_viewer_leaves_nothing_alive(make_napari_viewer, qtbot, settings):
    settings.levels = "progressive"
    gated = Gated(SHAPES)
    viewer = make_napari_viewer(show=True)
    layer = add(viewer, gated.slide)
    wait_followed(qtbot, layer)
    look_at(viewer, layer, 3000, 3000)
    qtbot.waitUntil(lambda: len(gated.begun()) > 0)
    gone = [ref(layer), ref(layer.metadata["pyramid"]), ref(follower_of(layer))]
    viewer.close()
    del layer, viewer
    gated.gate.set()
    qtbot.waitUntil(no_thread_of_ours)

    def collected():
        gc.collect()
        return all(one() is None for one in gone)

    qtbot.waitUntil(collected, timeout=10_000)
