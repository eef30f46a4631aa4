import subprocess
import sys
import threading
from collections import Counter

import numpy as np
import pytest

from made_slides import strided
from made_zarr import edit_json, write_ome_zarr
from napari_wsi_heatmap import readspeed
from napari_wsi_heatmap._napari.reader import get_reader, read_slides
from napari_wsi_heatmap._napari.slide_layer import frame_scanned, slide_layer
from napari_wsi_heatmap.errors import SlideOpenError, SlideReadError
from napari_wsi_heatmap.slides import SLIDE_EXTENSIONS
from napari_wsi_heatmap.slides.array import ArraySlide

PLUGIN = "napari-wsi-heatmap"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 1938955\n"
TIFF_HEAD = b"II*\x00" + bytes(1000)
HEADS = {".dcm": bytes(128) + b"DICM" + bytes(500), ".czi": b"ZISRAWFILE" + bytes(500)}
HEADS |= {
    ".vms": b"[Virtual Microscope Specimen]\n",
    ".vmu": b"[Uncompressed Virtual Microscope]\n",
}

CHEAP = """
import sys
from napari_wsi_heatmap._napari.reader import get_reader
assert get_reader(sys.argv[1]) is not None
assert get_reader(sys.argv[2]) is None
assert get_reader(sys.argv[3]) is not None
heavy = {"torch", "openslide", "zarr", "dask", "napari", "qtpy", "PyQt6", "PySide6", "vispy"}
print(sorted(heavy & set(sys.modules)))
"""


class Counting:
    """A slide of any size that counts the pixels read of it, and by which thread."""

    def __init__(self, *shapes, broken=False, bounds=None, wait=None):
        self.pixels, self._lock = Counter(), threading.Lock()
        self._broken, self._wait = broken, wait
        self.slide = ArraySlide.from_callable(self._read, shapes, mpp=0.25, name="counting")
        self.slide.bounds = bounds or self.slide.bounds

    def _read(self, level, y, x, height, width):
        with self._lock:
            self.pixels[threading.current_thread().name == "overview"] += height * width
        if self._wait is not None:
            self._wait.wait(20)
        if self._broken:
            raise SlideReadError("not a JPEG", f"{y}, {x}")
        return np.full((height, width, 3), 200, np.uint8)

    @property
    def read_for_viewer(self):
        return self.pixels[False]


def pyramid_of(height, width, *factors):
    return [(-(-height // f), -(-width // f)) for f in factors]


# accepting and refusing


@pytest.mark.parametrize("ending", SLIDE_EXTENSIONS)
def test_every_kind_of_slide_is_accepted_whatever_the_case(tmp_path, ending):
    for case in (ending, ending.upper()):
        path = tmp_path / f"slide{case}"
        path.write_bytes(HEADS.get(ending, TIFF_HEAD))
        assert callable(get_reader(str(path)))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", b"hello"),
        ("picture.png", b"\x89PNG\r\n\x1a\n" + bytes(100)),
        ("pointer.svs", LFS_POINTER),
        ("pointer.tif", LFS_POINTER),
        ("page.svs", b"<!DOCTYPE html><html>404</html>"),
        ("empty.ndpi", b""),
    ],
)
def test_what_is_no_slide_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert get_reader(str(tmp_path / name)) is None


def test_missing_files_folders_and_nothing_are_refused(tmp_path):
    (tmp_path / "folder.svs").mkdir()
    assert get_reader(str(tmp_path / "missing.svs")) is None
    assert get_reader(str(tmp_path / "folder.svs")) is None
    assert get_reader([]) is None


def test_a_list_is_accepted_only_if_all_are_slides(tmp_path, slide_file, plain_slide_file):
    (tmp_path / "a.txt").write_text("no")
    assert get_reader([slide_file, plain_slide_file]) is read_slides
    assert get_reader([slide_file, str(tmp_path / "a.txt")]) is None


def test_the_reason_is_told_only_where_the_ending_promises_a_slide(tmp_path, notifications):
    for name in ("pointer.svs", "pointer.tif"):
        (tmp_path / name).write_bytes(LFS_POINTER)
        get_reader(str(tmp_path / name))
    (message,) = notifications()
    assert message.startswith("pointer.svs is not a slide: ")
    assert "LFS" in message


@pytest.fixture(scope="module")
def zarr_folder(tmp_path_factory, pixels):
    """An OME-Zarr image of two levels, 0.25 µm/px."""
    path = tmp_path_factory.mktemp("zarr") / "a.zarr"
    return str(write_ome_zarr(path, strided(pixels, 4), chunks=(3, 256, 256)))


def test_a_folder_is_accepted_only_if_it_is_an_rgb_ome_zarr(tmp_path, slide_file, zarr_folder):
    assert get_reader(zarr_folder) is read_slides
    assert get_reader(zarr_folder + "/") is read_slides
    assert get_reader([zarr_folder, slide_file]) is read_slides
    grey = write_ome_zarr(tmp_path / "grey.zarr", [np.zeros((64, 64, 1), np.uint8)])
    deep = write_ome_zarr(tmp_path / "deep.zarr", [np.zeros((64, 64, 3), np.uint16)])
    heatmap = write_ome_zarr(tmp_path / "out.zarr", [np.zeros((64, 64, 3), np.uint8)])
    (heatmap / "run.json").write_text('{"format": "napari-wsi-heatmap"}')
    plate = write_ome_zarr(tmp_path / "plate.zarr", [np.zeros((64, 64, 3), np.uint8)])
    edit_json(plate / "zarr.json", lambda meta: meta.update(attributes={"ome": {"plate": {}}}))
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "file.zarr").write_bytes(b"no folder")
    for other in (grey, deep, heatmap, plate, tmp_path / "empty.zarr", tmp_path / "file.zarr"):
        assert get_reader(str(other)) is None
        assert get_reader([zarr_folder, str(other)]) is None


def test_deciding_imports_nothing_heavy(tmp_path, slide_file, zarr_folder):
    (tmp_path / "pointer.tif").write_bytes(LFS_POINTER)
    paths = [slide_file, str(tmp_path / "pointer.tif"), zarr_folder]
    command = [sys.executable, "-c", CHEAP, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# the layer


def test_a_slide_opens_through_npe2_in_micrometres(viewer, slide_file, pixels):
    (layer,) = viewer.open(slide_file, plugin=PLUGIN)
    assert layer.rgb
    assert layer.multiscale
    assert layer.name == "a.svs"
    assert layer.scale.tolist() == [0.5, 0.5]
    assert [str(unit) for unit in layer.units] == ["micrometer", "micrometer"]
    assert layer.axis_labels == ("y", "x")
    assert tuple(layer.contrast_limits) == (0, 255)
    assert layer.metadata["path"] == slide_file
    assert layer.metadata["slide"].fingerprint
    np.testing.assert_array_equal(np.asarray(layer.data[0]), pixels)


def test_an_ome_zarr_opens_through_npe2_in_micrometres(viewer, zarr_folder, pixels):
    (layer,) = viewer.open(zarr_folder, plugin=PLUGIN)
    assert layer.rgb
    assert layer.multiscale
    assert layer.name == "a.zarr"
    assert layer.scale.tolist() == [0.25, 0.25]
    assert [str(unit) for unit in layer.units] == ["micrometer", "micrometer"]
    assert layer.metadata["slide"].backend == "omezarr"
    np.testing.assert_array_equal(np.asarray(layer.data[0]), pixels)


def test_a_folder_that_is_no_slide_is_left_to_other_readers(tmp_path):
    from npe2 import PluginManager
    from npe2.io_utils import read_get_reader

    PluginManager.instance().discover()
    with pytest.raises(ValueError, match="refused the file"):
        read_get_reader([str(tmp_path)], plugin_name=PLUGIN, stack=False)


def test_a_pixel_lies_in_the_world_where_its_micrometres_say(viewer, slide_file):
    (layer,) = viewer.open(slide_file, plugin=PLUGIN)
    assert layer.data_to_world((1000, 400)) == pytest.approx((500.0, 200.0))
    assert [round(float(f[0]), 2) for f in layer.downsample_factors] == [1.0, 2.0, 4.0]


def test_each_level_of_the_layer_has_the_pixels_of_the_slide(viewer, slide_file):
    (layer,) = viewer.open(slide_file, plugin=PLUGIN)
    slide, pyramid = layer.metadata["slide"], layer.metadata["pyramid"]
    for data, planned in zip(layer.data, pyramid.plan, strict=True):
        if planned.stored is not None:
            expected = slide.read_region(planned.stored, 0, 0, *planned.shape)
            np.testing.assert_array_equal(np.asarray(data), expected)


def test_an_uncalibrated_slide_opens_in_pixels_with_one_notification(
    viewer, plain_slide_file, notifications
):
    (layer,) = viewer.open(plain_slide_file, plugin=PLUGIN)
    assert [str(unit) for unit in layer.units] == ["pixel", "pixel"]
    assert layer.scale.tolist() == [1, 1]
    (message,) = notifications()
    assert message.startswith("plain.tif: ")
    assert "shown in pixels" in message


def test_a_calibrated_slide_opens_without_a_word(viewer, slide_file, notifications):
    viewer.open(slide_file, plugin=PLUGIN)
    assert notifications() == []


def test_warnings_of_the_slide_are_told_together(notifications):
    slide = ArraySlide([np.zeros((10, 10, 3), np.uint8)], mpp=0.5, name="x")
    slide.warnings = ("this", "that")
    slide_layer(slide)
    assert notifications() == ["x: this; that"]


def test_several_slides_give_a_layer_each(viewer, slide_file, plain_slide_file):
    layers = viewer.open([slide_file, plain_slide_file], plugin=PLUGIN)
    assert [layer.name for layer in layers] == ["a.svs", "plain.tif"]
    assert len(get_reader([slide_file, plain_slide_file])([slide_file, plain_slide_file])) == 2


def test_a_file_that_only_looks_like_a_slide_says_so_in_one_line(tmp_path):
    path = tmp_path / "cut.svs"
    path.write_bytes(TIFF_HEAD)
    with pytest.raises(SlideOpenError) as raised:
        get_reader(str(path))(str(path))
    assert "\n" not in str(raised.value)
    assert "cut.svs" in str(raised.value)


def test_the_files_of_a_dicom_series_are_one_slide(viewer, data_dir):
    files = sorted(map(str, (data_dir / "slides" / "dicom" / "CMU-1-Small-Region").glob("*.dcm")))
    assert len(files) > 1
    (layer,) = viewer.open(files, plugin=PLUGIN, stack=True)
    assert layer.data[0].shape == (2967, 2220, 3)


def test_a_layer_can_be_duplicated(slide_file):
    from napari.components import LayerList
    from napari.layers import Layer
    from napari.layers._layer_actions import _duplicate_layer

    layers = LayerList([Layer.create(*read_slides(slide_file)[0])])
    layers.selection = set(layers)
    _duplicate_layer(layers)
    np.testing.assert_array_equal(np.asarray(layers[1].data[0]), np.asarray(layers[0].data[0]))


# what opening costs


def test_opening_a_huge_pyramid_reads_little(viewer):
    counting = Counting(*pyramid_of(80_000, 100_000, 1, 4, 16, 64))
    add(viewer, counting.slide)
    assert 0 < counting.read_for_viewer < 16 << 20


def test_opening_a_huge_slide_without_pyramid_reads_a_few_tiles_to_measure_it(viewer):
    counting = Counting((80_000, 100_000))
    layer = add(viewer, counting.slide)
    assert counting.read_for_viewer <= readspeed.TILES * 256 * 256
    layer.metadata["pyramid"].stop_overview()


@pytest.mark.gl
@pytest.mark.parametrize("factors", [(1, 4, 16, 64), (1,)])
def test_opening_it_in_a_window_reads_little_too(make_napari_viewer, qtbot, factors):
    viewer = make_napari_viewer(show=True)
    counting = Counting(*pyramid_of(80_000, 100_000, *factors))
    layer = add(viewer, counting.slide)
    qtbot.wait(200)
    assert counting.read_for_viewer < 16 << 20
    layer.metadata["pyramid"].stop_overview()


# the overview that comes later


def test_a_refreshed_layer_shows_the_filled_overview_and_its_thumbnail(viewer):
    layer = add(viewer, Counting((6000, 5000)).slide)
    assert layer.metadata["pyramid"].overview_ready.wait(20)
    layer.refresh()
    assert shown(layer) == {200}
    assert set(np.unique(layer.thumbnail[8:24, 8:24, :3])) == {200}


@pytest.mark.gl
def test_a_window_shows_the_filled_overview_by_itself(make_napari_viewer, qtbot):
    go_on = threading.Event()
    counting = Counting((6000, 5000), wait=go_on)
    viewer = make_napari_viewer(show=True)
    layer = add(viewer, counting.slide)
    qtbot.waitUntil(lambda: middle_of_screen(viewer) not in ([0, 0, 0], [200, 200, 200]))
    level = layer.data_level
    go_on.set()
    qtbot.waitUntil(lambda: middle_of_screen(viewer) == [200, 200, 200], timeout=20_000)
    qtbot.waitUntil(lambda: set(np.unique(layer.thumbnail[8:24, 8:24, :3])) == {200})
    assert layer.data_level == level


@pytest.mark.gl
def test_an_ome_zarr_is_seen_in_a_window(make_napari_viewer, qtbot, tmp_path):
    green = np.full((1500, 1300, 3), (10, 180, 60), np.uint8)
    path = write_ome_zarr(tmp_path / "a.zarr", strided(green, 4), chunks=(3, 256, 256))
    viewer = make_napari_viewer(show=True)
    viewer.open(str(path), plugin=PLUGIN)
    qtbot.waitUntil(lambda: middle_of_screen(viewer) == [10, 180, 60], timeout=20_000)


def middle_of_screen(viewer):
    picture = viewer.screenshot(canvas_only=True, flash=False)
    return picture[picture.shape[0] // 2, picture.shape[1] // 2, :3].tolist()


# a damaged slide


def test_unreadable_tiles_are_told_once_and_do_not_raise(viewer, notifications):
    layer = add(viewer, Counting((3000, 2000), broken=True).slide)
    for data in layer.data:
        assert set(np.unique(np.asarray(data[:64, :64]))) <= set(range(144, 177))
    (message,) = notifications()
    assert "grey checker" in message


# where little was scanned


def test_the_view_opens_on_the_scanned_part(viewer):
    counting = Counting(*pyramid_of(40_000, 20_000, 1, 4, 16), bounds=(30_000, 4_000, 2_000, 3_000))
    layer = add(viewer, counting.slide)
    zoom = viewer.scene.camera.zoom
    frame_scanned(viewer, layer)
    assert viewer.scene.camera.center[1:] == pytest.approx((31_000 * 0.25, 5_500 * 0.25))
    assert viewer.scene.camera.zoom == pytest.approx(zoom * 20_000 / 3_000)


def test_the_view_stays_where_other_layers_are_shown(viewer):
    viewer.add_image(np.zeros((10, 10)))
    before = viewer.scene.camera.zoom, viewer.scene.camera.center
    counting = Counting(*pyramid_of(40_000, 20_000, 1, 4, 16), bounds=(0, 0, 2_000, 3_000))
    frame_scanned(viewer, add(viewer, counting.slide))
    assert (viewer.scene.camera.zoom, viewer.scene.camera.center) == before


@pytest.mark.gl
def test_a_window_opens_on_the_scanned_part(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True)
    bounds = (30_000, 4_000, 2_000, 3_000)
    add(viewer, Counting(*pyramid_of(40_000, 20_000, 1, 4, 16), bounds=bounds).slide)
    qtbot.waitUntil(lambda: viewer.scene.camera.center[1] == pytest.approx(31_000 * 0.25))


def add(viewer, slide):
    """Add a slide as napari does with what a reader returns."""
    levels, kwargs, kind = slide_layer(slide)
    assert kind == "image"
    return viewer.add_image(levels, **kwargs)


def shown(layer):
    """Values of the pixels that the layer hands to the canvas."""
    return set(np.unique(layer._slice.image.view).tolist())
