"""Section of the dock: what a MIL model says of a slide, and which patches it looks at.

From features it takes seconds. With an encoder it is a live run, and the map grows.
"""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from magicgui.widgets import PushButton

from napari_wsi_heatmap._napari.fields import show_text, text_line
from napari_wsi_heatmap._napari.folded import Folded
from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.latest import Latest
from napari_wsi_heatmap._napari.mil_fields import LIVE, MilFields
from napari_wsi_heatmap._napari.mil_followed import FollowedRun
from napari_wsi_heatmap._napari.mil_job import MilJob
from napari_wsi_heatmap._napari.mil_layer import ScoredSlide
from napari_wsi_heatmap._napari.mil_outcome import Look, MilOutcome
from napari_wsi_heatmap._napari.mil_sources import score_file, score_layer
from napari_wsi_heatmap._napari.mil_words import so_far_line
from napari_wsi_heatmap._napari.slide_source import source_of
from napari_wsi_heatmap.errors import HeatmapError
from napari_wsi_heatmap.mil.shown import laid

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Layer

TITLE: Final = "MIL attention"
TOOLTIP: Final = "A MIL model's prediction for the slide, and the patches that it looks at."
SCORE, RUN, CANCEL = "Score the slide", "Run encoder and MIL", "Cancel"
NO_CHECKPOINT: Final = "Choose the checkpoint of a MIL model."
NO_SLIDE: Final = "Choose the slide, at the top of this dock."
HINTS: Final = (NO_CHECKPOINT, NO_SLIDE)
SCORING: Final = "scoring…"


class WhatRuns(NamedTuple):
    """What the fields of the dock say of a run."""

    slide_layer: Layer | None
    name: str
    """Of the model."""
    settings: Callable[[], dict[str, Any]]
    """Keyword arguments of the run; raises a HeatmapError where a field is wrong."""


class MilSection(Folded):
    """Sees to itself: the dock tells it only what would run.

    Parameters
    ----------
    viewer : ViewerModel
    what_runs : callable
        Gives `WhatRuns`.
    """

    def __init__(self, viewer: ViewerModel, what_runs: Callable[[], WhatRuns]) -> None:
        self._viewer, self._what_runs = weakref.ref(viewer), what_runs
        self._left = False
        self._scoring = Latest("a slide cannot be scored")
        self._run_there = FollowedRun(viewer, self._on_started, self._on_job)
        self._told: Any = None
        self._fields = MilFields(viewer, lambda: what_runs().name)
        self._score = PushButton(text=SCORE)
        self._line = text_line("mil_line")
        self._outcome = MilOutcome(viewer, self._tell)
        super().__init__(TITLE, TOOLTIP, [self._fields, self._score, self._line, self._outcome])
        self._connect(viewer)

    def _connect(self, viewer: ViewerModel) -> None:
        self._score.changed.connect(self._on_score)
        self._fields.score_changed.connect(self._on_other_score)
        self._fields.look_changed.connect(self._on_look)
        self._fields.names_changed.connect(self._on_names)
        self._fields.changed.connect(self._say_hint)
        self.turned.connect(self._on_turned)
        self._layers = viewer.layers
        self._layers.events.removed.connect(self._on_removed)
        self._layers.events.inserted.connect(self._on_layers)
        self._run_there.begin()
        self._say_hint()

    @property
    def scored(self) -> ScoredSlide | None:
        """What is shown."""
        return self._outcome.scored

    @property
    def layer(self) -> Layer | None:
        """The layer of attention that is shown."""
        return self._outcome.layer

    @property
    def look(self) -> Look:
        """What of a scored slide is wanted."""
        return Look(self._fields.branch, self._fields.how, self._fields.names)

    @property
    def line(self) -> str:
        """What stands in the way, or is going on."""
        return str(self._line.tooltip or "")

    def reset_choices(self, *_: Any) -> None:
        """Follow the dock's model and the viewer's layers."""
        if not self._left:
            self._fields.follow_layers()
            self._say_hint()

    @property
    def _busy(self) -> bool:
        return self.line == SCORING

    @guarded
    def _say_hint(self, *_: Any) -> None:
        """Say what is missing, and what the button does."""
        if self._left or self._busy:
            return
        live = self._fields.source == LIVE
        self._score.text = RUN if live else SCORE
        running = self._run_there.job is not None
        self._score.enabled = self._hint() == "" and not (live and running)
        ready = self._fields.checkpoint is not None
        if self.line in HINTS or not self.line:
            show_text(self._line, self._hint() if ready or not self._fields.told else "")

    def _hint(self) -> str:
        if self._fields.checkpoint is None:
            return NO_CHECKPOINT
        source = self._fields.source
        needs_slide = source == LIVE or not hasattr(source, "metadata")
        return NO_SLIDE if needs_slide and self._what_runs().slide_layer is None else ""

    @guarded
    def _on_other_score(self) -> None:
        """Another checkpoint, or definition of the score: what is shown is not of it."""
        self._say_hint()
        self.reveal()
        if self.scored is None:
            return
        wanted, mil = self._fields.checkpoint, self.scored.result.provenance["mil"]
        if wanted is None or mil["sha256"] != wanted.mil.sha256:
            self._outcome.forget()
        elif self._fields.source != LIVE and mil["attention"] != self._fields.attention:
            self.score()

    @guarded
    def _on_score(self, *_: Any) -> None:
        if self._busy:
            self._scoring.drop()
            self._tell("cancelled")
        else:
            self.score()

    @guarded
    def score(self, *_: Any) -> None:
        """Score the slide with what the fields say; an error is told in a line."""
        try:
            self._begin()
        except HeatmapError as error:
            self._tell(str(error))

    def _begin(self) -> None:
        checkpoint, source = self._fields.checkpoint, self._fields.source
        if checkpoint is None or self._hint():
            raise HeatmapError(self._hint())
        if source == LIVE:
            self._run()
            return
        mil, attention = checkpoint.mil, self._fields.attention
        if hasattr(source, "metadata"):
            work = partial(score_layer, source, mil, attention)
        else:
            layer = self._what_runs().slide_layer
            work = partial(score_file, source, layer, source_of(layer), mil, attention)
        show_text(self._line, SCORING)
        self._score.text = CANCEL
        self._scoring.ask(work, self._arrived, self._tell)

    def _run(self) -> None:
        """Start encoder and MIL over the slide."""
        from napari_wsi_heatmap._napari.model_list import MODELS
        from napari_wsi_heatmap._napari.start import start_job

        what, checkpoint = self._what_runs(), self._fields.checkpoint
        assert checkpoint is not None

        def make(*args: Any) -> MilJob:
            return MilJob(
                *args,
                mil=checkpoint.mil,
                attention=self._fields.attention,
                branch=self._fields.branch,
                how=self._fields.how,
            )

        show_text(self._line, "")
        model, layer = MODELS.spec(what.name), what.slide_layer
        start_job(self._viewer(), layer, model, job_kind=make, **what.settings())

    def _tell(self, line: str) -> None:
        show_text(self._line, line)
        self._say_hint()

    def _on_started(self, job: MilJob) -> None:
        self._scoring.drop()
        self._outcome.forget()
        self._told = None
        self._say_hint()
        self.reveal()

    def _on_job(self, job: MilJob) -> None:
        """Show what a run says by now, and take over what it leaves."""
        said = job.so_far
        if said is not None and said is not self._told:
            names = self._fields.names
            self._outcome.say(said, so_far_line(said, names), names)
            if self._told is None:
                self.reveal()
            self._told = said
        job.span_colours()
        if job.over:
            self._take_over(job)
            self._say_hint()

    def reveal(self) -> None:
        """Scroll to it, unless it is folded."""
        if self.unfolded:
            super().reveal()

    def _take_over(self, job: MilJob) -> None:
        if job.error is not None:
            show_text(self._line, str(job.error))
        layer, encoded = job.mil_layer, job.layer
        if job.result is None or layer is None or encoded is None:
            return
        result, heatmap = job.result, encoded.metadata["heatmap"]
        self._fields.choose_layer(encoded)
        self._scoring.ask(
            lambda: ScoredSlide(result, laid(result, heatmap), encoded),
            lambda scored: self._arrived(scored, layer),
            self._tell,
        )

    def _arrived(self, scored: ScoredSlide, layer: Any = None) -> None:
        """A slide is scored: say it, and draw it."""
        if not self._left:
            self._told = None
            self._tell("; ".join([*scored.result.notices, *filter(None, [scored.trouble])]))
            self._outcome.show_slide(scored, self.look, layer)
            self.reveal()

    @guarded
    def _on_look(self, *_: Any) -> None:
        """Draw another class, or another way."""
        job = self._run_there.job
        if job is not None:
            job.choose(self._fields.branch, self._fields.how)
            self._told = None
        else:
            self._outcome.draw(self.look)

    @guarded
    def _on_names(self, *_: Any) -> None:
        """Call classes otherwise."""
        self._told = None  # a run says it again
        self._outcome.rename(self._fields.names)

    @guarded
    def _on_layers(self, *_: Any) -> None:
        self.reset_choices()

    @guarded
    def _on_removed(self, event: Any) -> None:
        self._outcome.gone(event.value)
        self.reset_choices()

    @guarded
    def _on_turned(self, unfolded: bool) -> None:
        self._outcome.with_patches = unfolded
        if unfolded:
            self.reset_choices()
            self._outcome.draw(self.look)
        else:
            self._outcome.fold_away()

    def leave(self) -> None:
        """Qt has deleted it; whatever still calls this object must not touch it."""
        self._left = True
        self._layers.events.removed.disconnect(self._on_removed)
        self._layers.events.inserted.disconnect(self._on_layers)
        self._run_there.leave()
        self._scoring.drop()
        self._outcome.leave()
        self._fields.leave()
