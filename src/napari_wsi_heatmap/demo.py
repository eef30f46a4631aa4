"""The demo: the sample slide under a builtin model, live in napari or as a picture."""

from __future__ import annotations

import shlex
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.commands import finish, napari_part, target_of
from napari_wsi_heatmap.console import DONE, INTERRUPTED, note, say
from napari_wsi_heatmap.slides import open_slide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODEL = "hematoxylin"
"""Of the builtin models the one with the finest cells: tumour, follicles and glands stand out."""


def headless(out: Path | None, picture: Path | None, *, quiet: bool) -> int:
    """Run without a window; needs neither Qt nor a display.

    Parameters
    ----------
    out : Path, optional
        The store; default one in a temporary folder.
    picture : Path, optional
        Where to draw the heatmap over the slide, as PNG.

    Returns
    -------
    int
        The exit code.
    """
    from napari_wsi_heatmap.heatmap import open_heatmap
    from napari_wsi_heatmap.launch import prepare

    target_of(picture)
    path, store = sample(quiet=quiet), out or _fresh_store()
    with open_slide(path) as slide:
        code = finish(prepare(slide, MODEL, out=store), quiet=quiet)
        if picture is not None and code != INTERRUPTED:
            options = {"format": "png", "overwrite": True}
            say(shlex.quote(str(open_heatmap(store).export(picture, slide=slide, **options))))
    if code != INTERRUPTED:
        _say_what_next(path, store)
    return code


def live(out: Path | None, picture: Path | None, *, quiet: bool) -> int:
    """Run in napari; with `picture`, save what the window shows at the end, and close it."""
    target_of(picture)
    shown = napari_part("demo")
    path, store = sample(quiet=quiet), out or _fresh_store()
    code: int = shown.show_demo(path, MODEL, store, picture)
    if picture is not None and code == DONE:
        say(shlex.quote(str(picture)))
    _say_what_next(path, store)
    return code


def sample(*, quiet: bool) -> Path:
    """Path of the sample slide, made with a bar on stderr if this is the first time."""
    from napari_wsi_heatmap.sample import sample_slide_path

    with _bar(quiet=quiet) as report:
        return sample_slide_path(progress=report)


@contextmanager
def _bar(*, quiet: bool) -> Iterator[Callable[[float], None]]:
    """Yield what takes the fraction done; no bar appears unless it is called."""
    from tqdm import tqdm

    bars: list[Any] = []

    def report(fraction: float) -> None:
        if not bars:
            layout = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
            text = "Making the sample slide, once"
            bars.append(tqdm(total=100, desc=text, bar_format=layout, disable=quiet))
        bars[0].update(100 * fraction - bars[0].n)

    try:
        yield report
    finally:
        for bar in bars:
            bar.close()


def _fresh_store() -> Path:
    return Path(tempfile.mkdtemp(prefix="napari-wsi-heatmap-demo-")) / f"{MODEL}.zarr"


def _say_what_next(slide: Path, store: Path) -> None:
    if not store.exists():
        note("nothing was computed")
        return
    where = shlex.quote(str(store))
    say(f"look at it:  napari-wsi-heatmap view {shlex.quote(str(slide))} {where}")
    say(f"as a table:  napari-wsi-heatmap export {where} {MODEL}.csv")
