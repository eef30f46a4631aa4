"""The dock's field for the model: a list, and a button that adds others to it."""

from __future__ import annotations

from typing import Any

from magicgui.widgets import Container, PushButton
from qtpy.QtWidgets import QMenu

from napari_wsi_heatmap._napari.fields import choice
from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.model_list import MODELS

FILE, NAME = "From a file…", "Encoder, or from Hugging Face…"
FROM_FILE = "A file: safetensors, state dict, TorchScript, .pt2, or config.json of a zoo's folder."
OTHERS = f"Other models. {FROM_FILE} Or a foundation encoder, or a repository of Hugging Face."


class ModelField(Container):
    """Choose a model, a file that holds one, or one by its name or address.

    Attributes
    ----------
    from_file, by_name : QAction
        Of the button's menu.
    """

    def __init__(self) -> None:
        self.chosen = choice("model", lambda _: MODELS.names)
        self.open = PushButton(text="…", tooltip=OTHERS)
        self.open.max_width = 40
        super().__init__(
            widgets=[self.chosen, self.open], layout="horizontal", labels=False, label="model"
        )
        self.margins = (0, 0, 0, 0)
        menu = QMenu(self.open.native)
        self.from_file, self.by_name = menu.addAction(FILE), menu.addAction(NAME)
        self.from_file.triggered.connect(self._choose_file)
        self.by_name.triggered.connect(self._choose_name)
        self.open.native.setMenu(menu)
        self.open.native.setStyleSheet("QPushButton::menu-indicator { image: none; width: 0px; }")

    @guarded
    def _choose_file(self, *_: Any) -> None:
        from napari_wsi_heatmap._napari.model_files import choose_model_file

        choose_model_file(self.native, self._choose)

    @guarded
    def _choose_name(self, *_: Any) -> None:
        from napari_wsi_heatmap._napari.model_files import choose_named_model

        choose_named_model(self.native, self._choose)

    def _choose(self, name: str) -> None:
        self.chosen.reset_choices()
        self.chosen.value = name
