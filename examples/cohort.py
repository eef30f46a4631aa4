"""Many slides through one model, on all cores: a table of scores, and limits for their colours.

    python examples/cohort.py [SLIDES] [OUT]

Without SLIDES it makes three small ones. Run it again: what is finished is not done again.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile

import napari_wsi_heatmap as wh


def make_slides(folder: Path) -> Path:
    """Three slides with more and more stain in them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, share in enumerate((0.2, 0.5, 0.8)):
        pixels = np.full((1024, 1024, 3), 240, np.uint8)
        pixels[: int(1024 * share)] = (150, 90, 170)
        path = folder / f"stained-{number}.tif"
        tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", compression="zlib")
    return folder


def main(slides: Path, out: Path) -> None:
    # Mean optical density of haematoxylin in windows of 128 px, where there is any stain.
    settings = {"window": 128, "level": 0, "tissue": "none"}
    for slide in wh.run_cohort(slides, "hematoxylin", out=out, workers=2, **settings):
        print(f"{slide.slide}: {slide.error or f'{slide.windows} windows, {slide.score:.3f}'}")

    # All is finished by now: this reads what is there. Threads are enough for that.
    cohort = wh.compute_cohort(
        slides, "hematoxylin", out=out, processes=False, progress=False, **settings
    )
    print(cohort.to_dataframe()[["slide", "windows", "seconds", "score"]].to_string(index=False))
    low, high = cohort.limits["hematoxylin"]
    print(f"colours of all slides: {low:.3f} to {high:.3f}; tables in {out}")


if __name__ == "__main__":  # workers are processes that import this file
    given = [Path(argument) for argument in sys.argv[1:3]]
    place = Path(tempfile.mkdtemp(prefix="cohort-"))
    main(
        given[0] if given else make_slides(place / "slides"),
        given[1] if len(given) > 1 else place / "results",
    )
