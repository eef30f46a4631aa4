from napari_wsi_heatmap._napari.default_reader import make_default_reader, stop_default_reader


def test_slides_then_open_without_a_question(viewer, slide_file, plugin_preferences):
    make_default_reader()
    (layer,) = viewer.open(slide_file, plugin=None)
    assert layer.source.reader_plugin == "napari-wsi-heatmap"


def test_it_can_be_taken_back_and_other_preferences_stay(plugin_preferences):
    mine = {"*.npy": "napari", "*.tif": "another"}
    plugin_preferences.extension2reader = dict(mine)
    make_default_reader()
    assert plugin_preferences.extension2reader["*.tif"] == "napari-wsi-heatmap"
    assert plugin_preferences.extension2reader["*.SVS"] == "napari-wsi-heatmap"
    stop_default_reader()
    assert plugin_preferences.extension2reader == {"*.npy": "napari"}


def test_what_was_given_to_another_reader_afterwards_is_not_taken_back(plugin_preferences):
    make_default_reader()
    plugin_preferences.extension2reader = plugin_preferences.extension2reader | {"*.svs": "another"}
    stop_default_reader()
    assert plugin_preferences.extension2reader.get("*.svs") == "another"
    assert "napari-wsi-heatmap" not in plugin_preferences.extension2reader.values()


def test_the_user_is_told(notifications, plugin_preferences):
    make_default_reader()
    stop_default_reader()
    assert len(notifications()) == 2
