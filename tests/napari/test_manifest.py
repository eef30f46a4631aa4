import importlib
from pathlib import Path

import pytest
import yaml
from npe2 import PluginManifest

import napari_wsi_heatmap
from napari_wsi_heatmap.slides import SLIDE_EXTENSIONS

ROOT = Path(__file__).parents[2]
PACKAGED = ROOT / "src" / "napari_wsi_heatmap" / "napari.yaml"


@pytest.fixture(scope="module")
def manifest():
    return PluginManifest.from_file(PACKAGED)


def commands():
    return yaml.safe_load(PACKAGED.read_text())["contributions"]["commands"]


def test_it_names_the_plugin(manifest):
    assert manifest.name == "napari-wsi-heatmap"
    assert manifest.display_name == "WSI Heatmap"
    assert manifest.visibility == "public"


def test_the_one_at_the_top_is_the_packaged_one():
    assert (ROOT / "napari.yaml").resolve() == PACKAGED.resolve()


def test_the_installed_plugin_is_found_with_this_manifest(manifest):
    from npe2 import PluginManager

    pm = PluginManager()
    pm.discover()
    assert pm.get_manifest("napari-wsi-heatmap").contributions == manifest.contributions
    assert (Path(napari_wsi_heatmap.__path__[0]) / "napari.yaml").is_file()


@pytest.mark.parametrize("command", commands(), ids=lambda command: command["id"])
def test_every_command_leads_to_something_callable(command):
    module, _, name = command["python_name"].partition(":")
    if module.endswith(".widget"):
        pytest.importorskip(module, reason="the dock widget is not there")
    assert callable(getattr(importlib.import_module(module), name))


def test_every_contribution_uses_a_declared_command(manifest):
    declared = {command.id for command in manifest.contributions.commands}
    used = [item.command for item in manifest.contributions.readers]
    used += [item.command for item in manifest.contributions.widgets]
    used += [item.command for item in manifest.contributions.sample_data]
    used += [item.command for menu in manifest.contributions.menus.values() for item in menu]
    assert set(used) == declared


def test_the_reader_claims_the_endings_of_slides_and_folders(manifest):
    (reader,) = manifest.contributions.readers
    slides = {f"*{ending}" for ending in SLIDE_EXTENSIONS}
    assert set(reader.filename_patterns) == slides | {"*.zarr"}
    assert reader.accepts_directories is True


def test_menus_are_ones_that_napari_lets_plugins_fill(manifest):
    from napari._app_model.constants._menus import is_menu_contributable

    assert all(is_menu_contributable(menu) for menu in manifest.contributions.menus)


def test_the_reader_is_no_command_of_the_palette(manifest):
    by_id = {command.id: command for command in manifest.contributions.commands}
    assert by_id["napari-wsi-heatmap.get_reader"].enablement == "False"
