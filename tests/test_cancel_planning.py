"""A run that is cancelled while it is planned: nothing more is read or called."""

from __future__ import annotations

import threading

import pytest
import torch

from made import FaultySlide, mean_grey, noise_slide
from napari_wsi_heatmap.control import RunControl, stop_if, while_wanted
from napari_wsi_heatmap.errors import HeatmapError
from napari_wsi_heatmap.launch import prepare
from napari_wsi_heatmap.models.callables import CallableModel

SETTINGS = {"window": 64, "tissue": "none"}
CANCELLED = "cancelled while the run was planned"


class Cancelling:
    """A model that somebody cancels in its call number `at`."""

    def __init__(self, control, at):
        self.control, self.at, self.calls = control, at, 0

    def __call__(self, batch):
        self.calls += 1
        if self.calls == self.at:
            self.control.cancel()
        return mean_grey(batch)


def calls_of_a_dry_run(**settings):
    model = Cancelling(RunControl(), 0)
    prepare(noise_slide(), model, **SETTINGS, **settings)
    return model.calls


@pytest.mark.parametrize("settings", [{}, {"batch_size": 8}])
def test_the_model_is_not_called_again(settings):
    # Of how many sizes are tried, time decides: beyond the first call it may be one more or less.
    for at in range(1, calls_of_a_dry_run(batch_size=8) + 1):
        control = RunControl()
        model = Cancelling(control, at)
        with pytest.raises(HeatmapError, match=CANCELLED):
            prepare(noise_slide(), model, control=control, **SETTINGS, **settings)
        assert model.calls == at


def test_a_module_is_given_back_as_it_was():
    control = RunControl()
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    net.register_forward_hook(lambda *_: control.cancel())
    assert net.training
    with pytest.raises(HeatmapError, match=CANCELLED):
        prepare(noise_slide(), net, control=control, **SETTINGS)
    assert net.training


def test_no_more_windows_are_read():
    slide, control = FaultySlide(noise_slide()), RunControl()
    read = slide._read

    def cancelling(*box):
        control.cancel()
        return read(*box)

    slide._read = cancelling
    with pytest.raises(HeatmapError, match=CANCELLED):
        prepare(slide, mean_grey, control=control, **SETTINGS)
    assert slide.reads == 1


def test_tissue_is_not_looked_for_any_further():
    # Without a pyramid all of a slide is read for it, 32 MB at once.
    slide, control = FaultySlide(noise_slide(7000, 7000)), RunControl()
    read = slide._read

    def cancelling(*box):
        control.cancel()
        return read(*box)

    slide._read = cancelling
    with pytest.raises(HeatmapError, match="cancelled while tissue was looked for"):
        prepare(slide, mean_grey, control=control, window=64, tissue="otsu")
    assert slide.reads == 1


def test_cancelled_before_it_began_nothing_is_done():
    slide, control = FaultySlide(noise_slide()), RunControl()
    model = Cancelling(control, 0)
    control.cancel()
    with pytest.raises(HeatmapError, match=CANCELLED):
        prepare(slide, model, control=control, **SETTINGS)
    assert (slide.reads, model.calls) == (0, 0)


def test_a_cancel_while_a_model_is_compiled_is_not_taken_for_a_compiler_that_failed():
    control = RunControl()

    class Compiling(CallableModel):
        def compiled(self):
            return CallableModel(Cancelling(control, 1))

    with pytest.raises(HeatmapError, match=CANCELLED):
        prepare(
            noise_slide(),
            Compiling(mean_grey),
            control=control,
            compile=True,
            batch_size=4,
            **SETTINGS,
        )
    assert control.cancelled.is_set()


def test_what_is_wanted_goes_on():
    stop_if(None, "nothing was done")
    stop_if(threading.Event(), "nothing was done")
    assert while_wanted(abs, None, "")(-3) == 3
