"""Buttons of a run, its bar and its lines: shows a job, and knows nothing of slides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from magicgui.widgets import Container, ProgressBar, PushButton
from psygnal import Signal

from napari_wsi_heatmap._napari.color_strip import ColorStrip
from napari_wsi_heatmap._napari.fields import show_text, text_line
from napari_wsi_heatmap._napari.guarded import guarded

if TYPE_CHECKING:
    from napari_wsi_heatmap._napari.job import HeatmapJob

BAR_STEPS = 1000


class RunPanel(Container):
    """Run, Pause/Resume, Cancel; how far it is; what the colours mean.

    Attributes
    ----------
    run_pressed : psygnal.Signal
    """

    run_pressed = Signal()

    def __init__(self) -> None:
        self._job: HeatmapJob | None = None
        self._run = PushButton(text="Run")
        self._pause = PushButton(text="Pause", enabled=False)
        self._cancel = PushButton(text="Cancel", enabled=False)
        self._bar = ProgressBar(min=0, max=BAR_STEPS, value=0)
        self._line = text_line("line")
        self._notice = text_line("notice")
        buttons = Container(
            widgets=[self._run, self._pause, self._cancel], layout="horizontal", labels=False
        )
        buttons.margins = (0, 0, 0, 0)
        self._colors = ColorStrip()
        super().__init__(
            widgets=[buttons, self._bar, self._line, self._colors, self._notice], labels=False
        )
        self.margins = (0, 0, 0, 0)
        self._colors.visible = False
        self._run.changed.connect(lambda: self.run_pressed.emit())
        self._pause.changed.connect(self._on_pause)
        self._cancel.changed.connect(self._on_cancel)

    def follow(self, job: HeatmapJob) -> None:
        """Show a job from now on, instead of the one before."""
        self.leave()
        self._job = job
        job.changed.connect(self._show)
        self._show()

    def leave(self) -> None:
        """Stop following the job."""
        if self._job is not None:
            self._job.changed.disconnect(self._show, missing_ok=True)
        self._job = None

    def hint(self, text: str, *, can_run: bool) -> None:
        """Say something about the settings while nothing runs."""
        if self._job is None or self._job.over:
            self._run.enabled = can_run
            show_text(self._notice, text or self._notices)

    @property
    def _notices(self) -> str:
        return "" if self._job is None else "\n".join(self._job.notices)

    @guarded
    def _show(self) -> None:
        job = self._job
        if job is None:
            return
        going = not job.over
        self._run.enabled = not going
        self._pause.enabled = self._cancel.enabled = going and not job.cancelling
        self._pause.text = "Resume" if job.state == "paused" else "Pause"
        show_text(self._line, job.line)
        show_text(self._notice, self._notices)
        self._show_bar(job)
        self._show_colors(job)

    def _show_colors(self, job: HeatmapJob) -> None:
        seen = job.seen
        shown = seen is not None and seen[0].visible  # its classes may be shown instead of it
        if self._colors.visible != shown:
            self._colors.visible = shown
        if seen is not None:
            self._colors.show_layer(*seen)

    def _show_bar(self, job: HeatmapJob) -> None:
        state = job.progress
        # Without an end, a bar moves but claims nothing.
        steps = 0 if state is None and not job.over else BAR_STEPS
        value = 0
        if state is not None and state.planned:
            value = int(BAR_STEPS * (state.done + state.failed) / state.planned)
        # Qt paints a bar at once when its value changes, and with it the canvas: a whole picture
        # more each time. With updates off it waits for the next picture.
        self._bar.native.setUpdatesEnabled(False)
        self._bar.max, self._bar.value = steps, value
        self._bar.native.setUpdatesEnabled(True)

    @guarded
    def _on_pause(self, _: Any = None) -> None:
        if self._job is None or self._job.over:
            return
        if self._job.state == "paused":
            self._job.resume()
        else:
            self._job.pause()

    @guarded
    def _on_cancel(self, _: Any = None) -> None:
        if self._job is not None:
            self._job.cancel()
