"""What killed runs have left half written among the files of an experiment."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from napari_wsi_heatmap.runfolder import ENDING

LEFT: Final = re.compile(r"\.{1,2}.+\.[a-z0-9_]{8}\.(part|[a-z0-9_]{8})", re.DOTALL)
"""Hidden names of files that get their own when they are whole, and of folders for scratch."""


def sweep_leftovers(folder: Path) -> None:
    """Remove them, below a folder; only who holds the experiment's lock may.

    Stores look after themselves.
    """
    for place, folders, files in os.walk(folder):
        for name in filter(LEFT.fullmatch, files):
            with suppress(OSError):
                os.unlink(Path(place, name))
        for name in filter(LEFT.fullmatch, folders):
            shutil.rmtree(Path(place, name), ignore_errors=True)
        folders[:] = [n for n in folders if not n.endswith(ENDING) and not LEFT.fullmatch(n)]
