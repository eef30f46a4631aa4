"""What a job has computed, and the layers that show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psygnal import Signal

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_wsi_heatmap._napari.job_layers import JobLayers
    from napari_wsi_heatmap.heatmap import Heatmap


class JobResults:
    """Heatmaps and layers of a job; empty, or None, until the first windows are computed.

    Attributes
    ----------
    changed : psygnal.Signal
        Emitted on the GUI thread when anything of this may have changed.
    """

    changed = Signal()
    _drawn: JobLayers

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the channels, empty until there is something to show."""
        return () if self.heatmap is None else self.heatmap.names

    @property
    def layer(self) -> Image | None:
        """The heatmap's layer, None until the first windows are computed.

        Of several models that of the first.
        """
        first = self._drawn.first
        return None if first is None else first.layer

    @property
    def layers(self) -> tuple[Image, ...]:
        """Those of all models; of two then that of what they differ by."""
        return self._drawn.layers

    @property
    def heatmap(self) -> Heatmap | None:
        """Grows with the run; whole when `state` is done. Of several models that of the first."""
        return next(iter(self.heatmaps), None)

    @property
    def heatmaps(self) -> list[Heatmap]:
        """Those of all models; empty until the first windows are computed."""
        return self._drawn.heatmaps

    @property
    def seen(self) -> tuple[Image, str] | None:
        """The layer whose colours are seen, and its unit; None before there is one."""
        seen = self._drawn.seen
        return None if seen is None or seen.layer is None else (seen.layer, seen.unit)

    @property
    def channel(self) -> int:
        """Which channel the layer shows; set it to see another, nothing is computed again."""
        return self._drawn.channel

    @channel.setter
    def channel(self, channel: int) -> None:
        self._drawn.channel = channel
        self.changed.emit()
