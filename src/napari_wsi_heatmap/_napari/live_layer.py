"""The heatmap layer: one buffer that the worker fills, drawn a few times a second.

napari shows the numpy array itself, so to draw what is new it is enough to say so. A lean
refresh does; every now and then a full one also renews the thumbnail. While windows are missing
the array is that of the rough map, in which those nearby stand in for them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from psygnal import Signal

from napari_wsi_heatmap._napari.colors import BLENDING, limits_in, widened
from napari_wsi_heatmap._napari.cursor_text import say_under_cursor
from napari_wsi_heatmap._napari.failed_layer import FailedLayer
from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.placement import FOLLOWED, place, placed_over
from napari_wsi_heatmap._napari.window_words import word_of

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_wsi_heatmap._napari.colors import Limits, ValueSample
    from napari_wsi_heatmap._napari.live_map import LiveMap
    from napari_wsi_heatmap.classes import GrowingClasses

FULL_REFRESH_S = 2.0
"""Seconds between renewals of the thumbnail."""


class LiveLayer:
    """Shows one channel of a growing map over a slide layer.

    Parameters
    ----------
    live_map : LiveMap
        Of a run that is planned; its title is the layer's, with the channel's name where there
        are several.
    slide_layer : Layer
    metadata : dict
        Put into the layer.

    Attributes
    ----------
    layer : napari.layers.Image
        Belongs into the viewer.
    channel : int
    channel_changed : psygnal.Signal
        Emitted when another one is shown.
    """

    channel_changed = Signal(int)

    def __init__(self, live_map: LiveMap, slide_layer: Layer, metadata: dict[str, Any]) -> None:
        self._growing, self._frame = live_map.growing, live_map.frame
        self._shown = live_map.shown
        self._reasons = live_map.reasons
        self._names, self._name = live_map.names, live_map.title
        self._stated: Limits | None = live_map.limits
        self._outputs = len(live_map.names) - len(live_map.heatmap.uncertainty)
        self._map: LiveMap | None = live_map  # until the end: it holds more than is shown then
        self._sample: ValueSample | None = live_map.sample
        self._slide_layer = slide_layer
        self._drawn, self._full_at = self._shown.version, time.monotonic()
        self.channel = 0
        self._limits = self._fixed or live_map.sample.limits(0)
        self.layer = self._make(live_map, metadata)
        for name in FOLLOWED:
            getattr(slide_layer.events, name).connect(self._follow)

    def _make(self, live_map: LiveMap, metadata: dict[str, Any]) -> Image:
        limits = self._limits or (0.0, 1.0)
        layer = Image(
            self._shown.values[0],
            name=self._title(0),
            rgb=False,
            multiscale=False,
            cache=False,
            contrast_limits=limits,
            colormap=live_map.colormap,
            opacity=live_map.opacity,
            blending=BLENDING,
            interpolation2d="nearest",
            visible=False,
            axis_labels=self._slide_layer.axis_labels,
            metadata=metadata | {"switch": self},
            **placed_over(self._slide_layer, self._frame),
        )
        self._shown_limits = tuple(layer.contrast_limits)
        # Its text lies over the slide, white or dark: it needs a ground of its own.
        layer.colorbar.box = True
        if not self._frame.dense:
            say_under_cursor(layer, self._say)
        return layer

    def failed_layer(self) -> FailedLayer:
        """Make the layer that shows which windows failed; none is hatched yet."""
        growing = self._growing
        return FailedLayer(
            self._frame.grid, growing.state, self._slide_layer, self._name, self._reasons
        )

    def refresh(self) -> None:
        """Draw what is new, if anything is; cheap enough for ten times a second."""
        version = self._shown.version
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
        """Draw it for the last time, with the limits that all values give.

        Of a map that is whole the rough one is let go; a run that was stopped keeps it.
        """
        self._widen_limits(last=True)
        if self.rough and not self._growing.pending.any():
            self._shown = self._growing
            self.layer.data = self._shown.values[self.channel]
        self._sample = None if self._needs_no_sample else self._sample
        self._map = None
        self._drawn = self._shown.version
        self.layer.refresh()

    @property
    def rough(self) -> bool:
        """Whether windows that are missing look like others nearby."""
        return self._shown is not self._growing

    @property
    def names(self) -> tuple[str, ...]:
        """Of the channels."""
        return self._names

    def follow(self, classes: GrowingClasses) -> None:
        """Keep labels up to date with the map, from now until the run ends."""
        if self._map is not None:
            self._map.classes = classes

    def show_channel(self, channel: int) -> None:
        """Show another output of the model; nothing is computed again."""
        # napari numbers layers of the same name.
        ours = self.layer.name.startswith(self._title(self.channel))
        self.channel = channel
        self.layer.data = self._shown.values[channel]
        if ours:
            self.layer.name = self._title(channel)
        self._set_limits(self._fixed or self._seen())
        self.channel_changed.emit(channel)

    @property
    def _fixed(self) -> Limits | None:
        """Limits that the model states of its outputs; uncertainty has others."""
        return self._stated if self.channel < self._outputs else None

    @property
    def _needs_no_sample(self) -> bool:
        several = len(self._names)
        return several == 1 or (self._stated is not None and self._outputs == several)

    def _seen(self) -> Limits | None:
        """Limits of the values so far of the channel that is shown."""
        if self._sample is None:
            return None
        if self.channel < self._sample.channels:
            return self._sample.limits(self.channel)
        return limits_in(self._growing.values[self.channel])

    def _title(self, channel: int) -> str:
        if len(self._names) == 1:
            return self._name
        return f"{self._name}: {self._names[channel]}"

    def _widen_limits(self, *, last: bool = False) -> None:
        if self._fixed is not None or self._sample is None or self._chosen_by_user:
            return
        seen = self._seen()
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

    def _say(self, row: int, col: int) -> str:
        shows_value = not np.isnan(self._shown.values[self.channel, row, col])
        return word_of(self._growing.state, self._reasons, (row, col), shows_value=shows_value)

    @guarded
    def _follow(self, event: Any = None) -> None:
        place(self.layer, self._slide_layer, self._frame)

    def leave(self) -> None:
        """Stop following the slide layer."""
        for name in FOLLOWED:
            getattr(self._slide_layer.events, name).disconnect(self._follow)
