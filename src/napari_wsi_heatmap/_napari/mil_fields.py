"""The fields of the MIL section: checkpoint, features, names of classes, what is drawn and how."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from magicgui.widgets import Container, FileEdit, LineEdit, PushButton
from psygnal import Signal
from qtpy.QtWidgets import QFileDialog

from napari_wsi_heatmap._napari.fields import align_labels, choice, show_text, text_line
from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.latest import Latest
from napari_wsi_heatmap._napari.mil_sources import (
    Checkpoint,
    as_features,
    feature_layers,
    load_checkpoint,
)
from napari_wsi_heatmap._napari.mil_words import as_typed, branches_of, class_word, names_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Layer

LIVE: Final = "live"
"""Features of the model that the dock would run."""
WAYS: Final = (
    ("rank (percentile)", "percentile"),
    ("min to max", "minmax"),
    ("raw score", "raw"),
)
CHECKPOINTS: Final = "*.pt *.pth *.ckpt *.bin *.safetensors *.yaml *.yml"
FEATURES: Final = (
    "Features (*.h5 *.hdf5 *.pt *.pth *.bin *.safetensors run.json zarr.json);;All files (*)"
)
FROM_FILE: Final = (
    "A file: .h5 or .pt of CLAM, TRIDENT, STAMP, MIL-Lab, or run.json of a run's folder."
)


class MilFields(Container):
    """Knows the viewer's layers, and nothing of scoring.

    Parameters
    ----------
    viewer : ViewerModel
    encoder : callable
        Name of the model that the dock would run.

    Attributes
    ----------
    look_changed : psygnal.Signal
        Emitted when another class, or another way to draw, is wanted.
    names_changed : psygnal.Signal
        Emitted when classes are called otherwise.
    score_changed : psygnal.Signal
        Emitted when another checkpoint, or definition of the score, is there.
    """

    look_changed = Signal()
    names_changed = Signal()
    score_changed = Signal()

    def __init__(self, viewer: ViewerModel, encoder: Callable[[], str]) -> None:
        self._viewer, self._encoder = viewer, encoder
        self._loading = Latest("a checkpoint cannot be loaded")
        self._files: list[Path] = []
        self._branches = 1
        self.checkpoint: Checkpoint | None = None
        self._path = FileEdit(label="checkpoint", mode="r", nullable=True, filter=CHECKPOINTS)
        self._path.choose_btn.text, self._path.choose_btn.max_width = "…", 40
        self._path.line_edit.native.setPlaceholderText("of a MIL model")
        self._path.tooltip = "ABMIL, CLAM, TransMIL or DS-MIL; or the YAML of a MIL run."
        self._about = text_line("facts", label=" ")
        self._features = choice("features", self._sources, "Of the slide's patches.")
        self._open = PushButton(text="…", tooltip=FROM_FILE)
        self._open.max_width = 40
        source = Container(
            widgets=[self._features, self._open],
            layout="horizontal",
            labels=False,
            label="features",
        )
        source.margins = (0, 0, 0, 0)
        self._names = LineEdit(label="names", tooltip="Names of the classes, in their order.")
        self._names.native.setPlaceholderText("of classes: normal, tumour")
        self._score = choice("score", [], "Definition of a patch's score.")
        self._branch = choice("class", self._classes, "Whose attention is drawn.")
        self._how = choice("colours", WAYS, "What the colours mean; nothing is scored again.")
        super().__init__(
            widgets=[
                *(self._path, self._about, source, self._names),
                *(self._score, self._branch, self._how),
            ],
            labels=True,
        )
        self.margins = (0, 0, 0, 0)
        align_labels(self, "checkpoint")
        show_text(self._about, "")
        self._score.visible = self._branch.visible = self._names.visible = False
        self._path.changed.connect(self._on_path)
        self._open.changed.connect(self._choose_file)
        self._score.changed.connect(lambda: self.score_changed.emit())
        self._names.changed.connect(self._on_names)
        for field in (self._branch, self._how):
            field.changed.connect(lambda: self.look_changed.emit())

    @property
    def source(self) -> Any:
        """A layer, a path, or `LIVE`."""
        return self._features.value

    @property
    def names(self) -> dict[int, str]:
        """Names of classes."""
        return names_in(self._names.value)

    @property
    def attention(self) -> str | None:
        """Definition of the score; None: the type's default."""
        name: str | None = self._score.value
        return name

    @property
    def branch(self) -> int | None:
        """Class whose attention is drawn; None: the one that is predicted."""
        number: int | None = self._branch.value
        return number

    @property
    def how(self) -> str:
        """How scores are drawn."""
        return str(self._how.value)

    @property
    def told(self) -> bool:
        """Whether something is said of the checkpoint that was chosen."""
        return bool(self._about.tooltip)

    def follow_layers(self) -> None:
        """Offer the features that there are; what was chosen stays."""
        with self._features.changed.blocked():
            self._features.reset_choices()

    def choose_checkpoint(self, path: Path) -> None:
        """Load a checkpoint, as if it were typed."""
        self._path.value = path

    def choose_layer(self, layer: Layer) -> None:
        """Choose the features of a heatmap's layer."""
        self.follow_layers()
        if layer in feature_layers(self._viewer):
            self._features.value = layer

    def choose_features(self, path: Path) -> None:
        """Offer a file, or a store, and choose it."""
        path = as_features(path)
        self._files = [path, *(one for one in self._files if one != path)]
        self.follow_layers()
        self._features.value = path

    def leave(self) -> None:
        """Want nothing any more."""
        self._loading.drop()

    def _sources(self, _: Any = None) -> list[tuple[str, Any]]:
        layers = [(f"of {layer.name}", layer) for layer in feature_layers(self._viewer)]
        files = [(path.name, path) for path in self._files]
        return [*files, *layers, (f"run {self._encoder()} now", LIVE)]

    def _classes(self, _: Any = None) -> list[tuple[str, int | None]]:
        each = [(class_word(number, self.names), number) for number in range(self._branches)]
        return [("the predicted one", None), *each]

    @guarded
    def _choose_file(self, *_: Any) -> None:
        chosen, _kind = QFileDialog.getOpenFileName(self.native, "Features", "", FEATURES)
        if chosen:
            self.choose_features(Path(chosen))

    @guarded
    def _on_path(self, path: Path | None) -> None:
        self.checkpoint = None
        self._loading.drop()
        if path is None or not str(path).strip() or str(path) == ".":
            show_text(self._about, "")
        elif not path.expanduser().is_file():
            show_text(self._about, f"There is no file {path}.")
        else:
            show_text(self._about, LOADING)
            file = path.expanduser()
            self._loading.ask(lambda: load_checkpoint(file), self._loaded, self._refused)
        self.score_changed.emit()

    def _refused(self, line: str) -> None:
        show_text(self._about, line)
        self.score_changed.emit()

    def _loaded(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        mil = checkpoint.mil
        show_text(self._about, "; ".join([str(mil.facts), *mil.notices]))
        self._names.visible = mil.facts.n_classes > 0
        if checkpoint.names:
            self._names.value = as_typed(checkpoint.names)
        self._offer(mil)
        self.score_changed.emit()

    def _offer(self, mil: Any) -> None:
        """Offer what there is to choose of a model."""
        self._branches = branches_of(mil.facts)
        with self._score.changed.blocked(), self._branch.changed.blocked():
            self._score.choices = mil.attentions
            self._score.value = mil.attention
            self._branch.reset_choices()
            self._branch.value = None
        self._score.visible = len(mil.attentions) > 1
        self._branch.visible = self._branches > 1

    @guarded
    def _on_names(self, *_: Any) -> None:
        with self._branch.changed.blocked():
            chosen = self._branch.value
            self._branch.choices = []  # else the old texts stay
            self._branch.choices = self._classes
            self._branch.value = chosen
        self.names_changed.emit()


LOADING: Final = "reading the checkpoint…"
