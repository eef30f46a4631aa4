"""The dock's field for the model: a list, and a button that adds a file to it."""

from __future__ import annotations

from typing import Any

from magicgui.widgets import Container, PushButton

from napari_wsi_heatmap._napari.fields import choice
from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.model_list import MODELS

FROM_FILE = "A file: safetensors, state dict, TorchScript, .pt2, or config.json of a zoo's folder."


class ModelField(Container):
    """Choose a model, or a file that holds one."""

    def __init__(self) -> None:
        self.chosen = choice("model", lambda _: MODELS.names)
        self.open = PushButton(text="…", tooltip=FROM_FILE)
        self.open.max_width = 40
        super().__init__(
            widgets=[self.chosen, self.open], layout="horizontal", labels=False, label="model"
        )
        self.margins = (0, 0, 0, 0)
        self.open.changed.connect(self._choose_file)

    @guarded
    def _choose_file(self, *_: Any) -> None:
        from napari_wsi_heatmap._napari.model_files import choose_model_file

        choose_model_file(self.native, self._choose)

    def _choose(self, name: str) -> None:
        self.chosen.reset_choices()
        self.chosen.value = name
