"""A folded part of the dock: many slides, with the model and the settings of its other fields."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import Container, FileEdit, PushButton, SpinBox
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QHeaderView, QTableWidget, QTableWidgetItem

from napari_wsi_heatmap._napari.cohort_job import CohortJob
from napari_wsi_heatmap._napari.fields import show_text, text_line
from napari_wsi_heatmap._napari.folded import Folded
from napari_wsi_heatmap._napari.guarded import bare, guarded
from napari_wsi_heatmap._napari.model_list import MODELS
from napari_wsi_heatmap._napari.off_gui import off_gui
from napari_wsi_heatmap.errors import HeatmapError

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_wsi_heatmap._napari.mil_section import WhatRuns
    from napari_wsi_heatmap.cohort.facts import SlideFacts

TITLE, TOOLTIP = "Many slides", "Run the model over a folder of slides, on all cores."
RUN, STOP = "Run all slides", "Stop"
TICK_MS = 300
HEADINGS = ("slide", "state", "score")
ONE_SLIDE = ("out", "roi", "viewport", "order")
"""Settings that are of the slide in the viewer, and not of all."""

_jobs: list[CohortJob] = []
"""The one that was started last: it goes on when the dock is closed, and is shown again."""


class CohortSection(Folded):
    """Sees to itself: the dock tells it only what would run.

    Parameters
    ----------
    viewer : ViewerModel
    what_runs : callable
        Gives `WhatRuns`.
    """

    processes = True

    def __init__(self, viewer: Any, what_runs: Callable[[], WhatRuns]) -> None:
        self._viewer, self._what_runs, self._left = bare(viewer), what_runs, False
        self._slides = _folder("slides", "Folder of slides, or a list of them (.csv).")
        self._out = _folder("results", "Each slide's heatmap, and the tables; it can go on there.")
        most = max(1, os.cpu_count() or 1)
        tip = "Processes that work on a slide each."
        self._workers = SpinBox(label="workers", min=1, max=most, value=min(2, most), tooltip=tip)
        self._run = PushButton(text=RUN)
        self._line, self._crew = text_line("cohort"), text_line("crew")
        self._table = _table()
        fields = Container(widgets=[self._slides, self._out, self._workers], labels=True)
        fields.margins = (0, 0, 0, 0)
        super().__init__(TITLE, TOOLTIP, [fields, self._run, self._line, self._crew])
        self._body.native.layout().addWidget(self._table)
        self._run.changed.connect(self._on_button)
        self._table.cellDoubleClicked.connect(self._on_double_click)
        self._clock = QTimer(self.native)
        self._clock.setInterval(TICK_MS)
        self._clock.timeout.connect(self._tick)
        if _jobs:
            self._clock.start()
        self._tick()

    @property
    def job(self) -> CohortJob | None:
        """The cohort that is shown."""
        return _jobs[-1] if _jobs else None

    @guarded
    def _on_button(self, *_: Any) -> None:
        if self.job is not None and not self.job.over:
            self.job.stop()
            self._tick()
            return
        try:
            _jobs[:] = [self._begun()]
        except HeatmapError as error:
            show_text(self._line, str(error))
        else:
            self._clock.start()
            self._tick()
            self.reveal()

    def _begun(self) -> CohortJob:
        slides, out = self._slides.value, self._out.value
        for what, path in (("slides", slides), ("results", out)):
            if path is None or not str(path).strip(". "):
                raise HeatmapError(f"no folder of {what}", do="choose one")
        what = self._what_runs()
        options = {"workers": self._workers.value, "processes": self.processes}
        options |= _settings(what) | _model(MODELS.spec(what.name))
        return CohortJob(slides, out=out, **options)

    @guarded
    def _tick(self) -> None:
        """Show how the cohort stands."""
        job = self.job
        if self._left or job is None:
            self._table.setVisible(job is not None)
            return
        going = not job.over
        self._run.text = STOP if going else RUN
        show_text(self._line, job.line)
        show_text(self._crew, job.crew)
        self._table.setVisible(True)
        _fill(self._table, job)
        if not going:
            self._clock.stop()

    @guarded
    def _on_double_click(self, row: int, _: int) -> None:
        """Open a slide of the queue, with its heatmap."""
        job = self.job
        facts = None if job is None else job.facts.get(job.names[row])
        if facts is not None and facts.finished:
            failing = f"{facts.slide} cannot be shown"
            off_gui(lambda: _read(facts), lambda read: _show(self._viewer, *read), failing)

    def leave(self) -> None:
        """Want nothing any more: the section is gone."""
        self._left = True


def _folder(label: str, tooltip: str) -> FileEdit:
    field = FileEdit(label=label, mode="d", nullable=True, tooltip=tooltip)
    field.choose_btn.text = "…"
    field.choose_btn.max_width = 40
    return field


def _table() -> QTableWidget:
    table = QTableWidget(0, len(HEADINGS))
    table.setHorizontalHeaderLabels(HEADINGS)
    table.verticalHeader().setVisible(False)
    table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
    table.setToolTip("Double-click on a slide that is done to see it.")
    table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
    table.setMinimumHeight(120)
    return table


def _fill(table: QTableWidget, job: CohortJob) -> None:
    """Bring the rows up to date; only what has changed is touched."""
    if table.rowCount() != len(job.names):
        table.setRowCount(len(job.names))
    for row, name in enumerate(job.names):
        facts = job.facts.get(name)
        score = "" if facts is None or facts.score is None else f"{facts.score:.4g}"
        for column, text in enumerate((name, job.state(name), score)):
            item = table.item(row, column)
            if item is None:
                item = QTableWidgetItem()
                item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable)
                table.setItem(row, column, item)
            if item.text() != text:
                item.setText(text)
                item.setToolTip(text)


def _model(model: Any) -> dict[str, Any]:
    """What workers can load: of a model file its path, and its architecture."""
    spec = getattr(model, "spec", None)
    recorded = spec() if callable(spec) else None
    if recorded is None:
        return {"model": model}
    return {"model": recorded["path"], "arch": recorded.get("arch")}


def _settings(what: WhatRuns) -> dict[str, Any]:
    """Settings of the dock that go for all slides; without a slide the model's own."""
    if what.slide_layer is None:
        return {}
    found = {name: value for name, value in what.settings().items() if value is not None}
    settings = {name: value for name, value in found.items() if name not in ONE_SLIDE}
    if not isinstance(settings.get("tissue", ""), str):
        raise HeatmapError("the tissue is that of one slide", do="choose a rule, such as otsu")
    return settings


def _read(facts: SlideFacts) -> tuple[Any, Any]:
    """A slide, and its heatmap."""
    from napari_wsi_heatmap.heatmap import open_heatmap
    from napari_wsi_heatmap.slides import open_slide

    heatmap = open_heatmap(Path(facts.out))
    assert heatmap.values is not None  # read here, in the thread
    return open_slide(facts.path), heatmap


def _show(viewer: Any, slide: Any, heatmap: Any) -> None:
    from napari.layers import Layer

    from napari_wsi_heatmap._napari.saved_layer import SavedLayer
    from napari_wsi_heatmap._napari.slide_layer import slide_layer

    layer = Layer.create(*slide_layer(slide))
    viewer.add_layer(layer)
    viewer.add_layer(SavedLayer(heatmap, layer).layer)
