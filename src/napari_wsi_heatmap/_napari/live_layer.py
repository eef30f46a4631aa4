"""The heatmap layer: one buffer that the worker fills, drawn a few times a second.

napari shows the numpy array itself, so to draw what is new it is enough to say so. A lean
refresh does; every now and then a full one also renews the thumbnail.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image

from napari_wsi_heatmap._napari.colors import BLENDING, COLORMAP, OPACITY, widened
from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.placement import FOLLOWED, place, placed_over

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_wsi_heatmap._napari.colors import Limits, ValueSample
    from napari_wsi_heatmap.engine import Run

FULL_REFRESH_S = 2.0
"""Seconds between renewals of the thumbnail."""


class LiveLayer:
    """Shows one channel of a growing map over a slide layer.

    Parameters
    ----------
    run : Run
        Already planned.
    sample : ValueSample
        Of the run's values, for the limits of the colour map.
    slide_layer : Layer
    name : str
        Of the layer; the channel's is added where there are several.
    metadata : dict
        Put into the layer.

    Attributes
    ----------
    layer : napari.layers.Image
        Belongs into the viewer.
    channel : int
    """

    def __init__(
        self,
        run: Run,
        sample: ValueSample,
        slide_layer: Layer,
        name: str,
        metadata: dict[str, Any],
    ) -> None:
        self._growing, self._frame = run.growing, run.plan.frame
        self._names, self._name = run.plan.names, name
        self._fixed: Limits | None = run.plan.model.limits
        self._sample: ValueSample | None = sample
        self._slide_layer = slide_layer
        self._drawn, self._full_at = self._growing.version, time.monotonic()
        self.channel = 0
        self._limits = self._fixed or sample.limits(0)
        self.layer = self._make(metadata)
        for name in FOLLOWED:
            getattr(slide_layer.events, name).connect(self._follow)

    def _make(self, metadata: dict[str, Any]) -> Image:
        limits = self._limits or (0.0, 1.0)
        layer = Image(
            self._growing.values[0],
            name=self._title(0),
            rgb=False,
            multiscale=False,
            cache=False,
            contrast_limits=limits,
            colormap=COLORMAP,
            opacity=OPACITY,
            blending=BLENDING,
            interpolation2d="nearest",
            visible=False,
            axis_labels=self._slide_layer.axis_labels,
            metadata=metadata,
            **placed_over(self._slide_layer, self._frame),
        )
        self._shown_limits = tuple(layer.contrast_limits)
        # Its text lies over the slide, white or dark: it needs a ground of its own.
        layer.colorbar.box = True
        return layer

    def refresh(self) -> None:
        """Draw what is new, if anything is; cheap enough for ten times a second."""
        version = self._growing.version
        if version == self._drawn:
            return
        self._drawn = version
        self._widen_limits()
        now = time.monotonic()
        if now - self._full_at >= FULL_REFRESH_S:
            self._full_at = now
            self.layer.refresh()
        else:
            self.layer.refresh(thumbnail=False, highlight=False, extent=False)

    def finish(self) -> None:
        """Draw it for the last time, with the limits that all values give."""
        self._widen_limits(last=True)
        self._sample = None if self._fixed or len(self._names) == 1 else self._sample
        self._drawn = self._growing.version
        self.layer.refresh()

    def show_channel(self, channel: int) -> None:
        """Show another output of the model; nothing is computed again."""
        # napari numbers layers of the same name.
        ours = self.layer.name.startswith(self._title(self.channel))
        self.channel = channel
        self.layer.data = self._growing.values[channel]
        if ours:
            self.layer.name = self._title(channel)
        if self._sample is not None and self._fixed is None:
            self._set_limits(self._sample.limits(channel))

    def _title(self, channel: int) -> str:
        if len(self._names) == 1:
            return self._name
        return f"{self._name}: {self._names[channel]}"

    def _widen_limits(self, *, last: bool = False) -> None:
        if self._fixed is not None or self._sample is None or self._chosen_by_user:
            return
        seen = self._sample.limits(self.channel)
        if seen is not None:
            self._set_limits(seen if last else widened(self._limits, seen))

    def _set_limits(self, limits: Limits | None) -> None:
        if limits is not None and limits != self._limits:
            self._limits = limits
            self.layer.contrast_limits = limits
            self._shown_limits = tuple(self.layer.contrast_limits)

    @property
    def _chosen_by_user(self) -> bool:
        return not np.allclose(self.layer.contrast_limits, self._shown_limits)

    @guarded
    def _follow(self, event: Any = None) -> None:
        place(self.layer, self._slide_layer, self._frame)

    def leave(self) -> None:
        """Stop following the slide layer."""
        for name in FOLLOWED:
            getattr(self._slide_layer.events, name).disconnect(self._follow)
