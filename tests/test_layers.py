"""The core knows nothing of napari and Qt; slides know nothing of torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from made_slides import tissue, write_aperio

CORE = [
    "napari_wsi_heatmap",
    "napari_wsi_heatmap.slides.openslide",
    "napari_wsi_heatmap.slides.array",
    "napari_wsi_heatmap.pyramid",
    "napari_wsi_heatmap.launch",
    "napari_wsi_heatmap.show",
    "napari_wsi_heatmap.models.builtin",
    "napari_wsi_heatmap.exports",
    "napari_wsi_heatmap.sample",
    "napari_wsi_heatmap.cli",
]
WITHOUT_TORCH = [
    "napari_wsi_heatmap",
    "napari_wsi_heatmap.slides.openslide",
    "napari_wsi_heatmap.slides.array",
    "napari_wsi_heatmap.models",
    "napari_wsi_heatmap.pyramid",
    "napari_wsi_heatmap.heatmap",
    "napari_wsi_heatmap.store",
    "napari_wsi_heatmap.tissue",
    "napari_wsi_heatmap.sample",
    "napari_wsi_heatmap.cli",
    "napari_wsi_heatmap._napari.reader",
]
BINDINGS = ("PyQt5", "PyQt6", "PySide2", "PySide6")
GUI = ("napari", "qtpy", "magicgui", "superqt", "PyQt6", "PySide6")


def loaded_by(statements: str, names: tuple[str, ...]) -> list[str]:
    """Which of `names` a fresh Python has loaded after some statements."""
    code = f"{statements}\nimport sys\nprint(*[n for n in {names!r} if n in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.split()


def imports(modules: list[str]) -> str:
    return "\n".join(f"import {module}" for module in modules)


def test_the_core_loads_no_gui():
    assert loaded_by(imports(CORE), GUI) == []


def test_slides_and_reader_load_neither_torch_nor_qt():
    names = ("torch", "PyQt6", "PySide6", "qtpy")
    assert loaded_by(imports(WITHOUT_TORCH), names) == []


def test_the_public_names_all_exist_and_are_imported_when_used():
    import napari_wsi_heatmap as wh

    assert loaded_by("import napari_wsi_heatmap", ("numpy", "torch", "zarr", "dask")) == []
    assert all(getattr(wh, name) is not None for name in wh.__all__)
    assert set(wh.__all__) <= set(dir(wh))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        wh.nonsense  # noqa: B018


@pytest.mark.parametrize("statement", ["import qtpy", "import magicgui"])
def test_the_check_can_fail(statement):
    assert loaded_by(statement, GUI) != []


def test_a_slide_is_read_where_no_qt_is_installed(tmp_path):
    """What an install of the base alone can do: readers serve scripts as well."""
    path = tmp_path / "a.svs"
    write_aperio(path, [tissue(300, 400)])
    statements = f"""
import sys
class NoQt:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BINDINGS!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NoQt())
from napari_wsi_heatmap._napari.reader import get_reader
(layer,) = get_reader({str(path)!r})({str(path)!r})
assert layer[1]["rgb"] and layer[0][0][:10, :10].compute().shape == (10, 10, 3)
"""
    assert loaded_by(statements, ("torch",)) == []
