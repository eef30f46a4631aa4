"""What the user should know about a run, told once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_wsi_heatmap._napari.notify import tell_warning
from napari_wsi_heatmap.report import all_notices

if TYPE_CHECKING:
    from napari_wsi_heatmap.engine import Run


def tell_new(title: str, run: Run | None, known: tuple[str, ...]) -> tuple[str, ...]:
    """Tell what plan and run have to say beyond what is known; return all of it.

    Parameters
    ----------
    title : str
        Of the job.
    run : Run or None
        None while it is planned.
    known : tuple of str
        Notices that were told.
    """
    records = [] if run is None else [share.output.record for share in run.shares]
    new = [notice for notice in all_notices(records) if notice not in known]
    if new:
        tell_warning(f"{title}: " + "; ".join(new))
    return (*known, *new)
