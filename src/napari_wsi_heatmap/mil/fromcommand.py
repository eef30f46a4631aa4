"""``run SLIDE --model ENCODER --mil CHECKPOINT``: encode and score; and ``resume`` of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_wsi_heatmap.console import say
from napari_wsi_heatmap.errors import ModelLoadError
from napari_wsi_heatmap.mil.resultrecord import describe
from napari_wsi_heatmap.report import prediction_line

if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any

    from napari_wsi_heatmap.engine import Run
    from napari_wsi_heatmap.mil.live import MilRun
    from napari_wsi_heatmap.mil.result import MilResult
    from napari_wsi_heatmap.slides.base import Slide


def run_with_mil(args: Namespace, slide: Slide, model: Any, settings: dict[str, Any]) -> int:
    """Run an encoder, then say what the MIL model says; returns the exit code."""
    from napari_wsi_heatmap.mil.from_slide import prepare_mil

    if isinstance(model, list):
        raise ModelLoadError("--mil takes one encoder", do="give --model once")
    return _finish(
        args, prepare_mil(slide, model, args.mil, out=args.out, trust=args.trust, **settings)
    )


def resume_with_mil(args: Namespace, run: Run) -> int:
    """Continue an encoder's run, then score it as it was to be scored; returns the exit code."""
    from napari_wsi_heatmap.mil.from_slide import scored_again

    return _finish(args, scored_again(run))


def _finish(args: Namespace, planned: MilRun) -> int:
    from napari_wsi_heatmap.commands import finish
    from napari_wsi_heatmap.mil.from_slide import complete_mil

    code = finish(
        planned.run,
        quiet=args.quiet,
        complete=lambda _, progress: complete_mil(planned, progress=progress),
    )
    for line in [] if planned.result is None else result_lines(planned.result):
        say(line)
    return code


def result_lines(result: MilResult) -> list[str]:
    """What a result says of a slide, in plain lines."""
    said = prediction_line(describe(result))
    return [said, *([str(result.path)] if result.path else [])]
