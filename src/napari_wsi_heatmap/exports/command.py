"""The command ``export``: a heatmap as a file of another format."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from napari_wsi_heatmap.console import DONE, note, say
from napari_wsi_heatmap.errors import ExportError, SlideError, StoreError
from napari_wsi_heatmap.exports import FORMATS, choose_format

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.slides.base import Slide


def add_export(parser: ArgumentParser) -> None:
    """Say what may be typed."""
    parser.add_argument("out", type=Path, metavar="OUT.zarr")
    all_endings = dict.fromkeys(ending for row in FORMATS for ending in row.endings)
    endings = ",".join(ending.lstrip(".") for ending in all_endings)
    parser.add_argument("file", type=Path, metavar=f"FILE.{{{endings}}}")
    known = "; ".join(f"{row.name}: {row.writes}" for row in FORMATS)
    parser.add_argument(
        "--format", metavar="NAME", help=f"default: by the ending of the file. {known}"
    )
    parser.add_argument(
        "--output",
        metavar="NAME|N",
        help="of the model, where a format holds one: png, jpg, overlay, dsa, and "
        "attention_scores of h5 (default: the first)",
    )
    parser.add_argument("--slide", help="where it lies now (default: where it lay then)")


def export(args: Namespace) -> int:
    """Write a heatmap as a file of another format."""
    from napari_wsi_heatmap.heatmap import open_heatmap

    chosen = choose_format(args.file, args.format)
    chosen.check(args.file)
    heatmap, options = open_heatmap(_only_one(args.out), args.slide), {}
    if args.output is not None:
        if not chosen.takes("channel"):
            what = f"{chosen.name} holds all outputs"
            raise ExportError(what, args.file, "leave --output away")
        options["channel"] = typed_output(args.output, heatmap.names)
    with ExitStack() as opened:
        slide = _drawn(heatmap, args.slide, opened) if chosen.draws_slide else None
        written = heatmap.export(args.file, slide=slide, format=chosen.name, **options)
    say(shlex.quote(str(written)))
    return DONE


def typed_output(text: str, names: tuple[str, ...]) -> int | str:
    """An output by its name, else by its number."""
    return int(text) if text not in names and text.isdecimal() else text


def _only_one(out: Path) -> Path:
    from napari_wsi_heatmap.commands import stores_of

    stores = stores_of(out)
    if len(stores) > 1:
        names = ", ".join(path.name for path in stores)
        raise StoreError(f"there are {len(stores)} heatmaps", out, f"export one: {names}")
    return out


def _drawn(heatmap: Heatmap, path: str | None, opened: ExitStack) -> Slide | None:
    """The slide of a heatmap; where it is not where it lay, say so and go on without."""
    from napari_wsi_heatmap.inspecting.slide import slide_of

    try:
        return opened.enter_context(slide_of(heatmap, path))
    except SlideError as error:
        if path is not None:
            raise
        note(f"drawn without the slide: {error}")
        return None
