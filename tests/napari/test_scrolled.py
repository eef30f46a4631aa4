"""The part of the dock that scrolls: as high as it must be, lower in a low window."""

from __future__ import annotations

import pytest
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_wsi_heatmap._napari.scrolled import LOWEST, Scrolled
from napari_wsi_heatmap._napari.widget import NARROWEST, HeatmapWidget


@pytest.fixture
def column(qtbot):
    """A window with twenty lines that scroll, a line that does not, and room below."""
    inner, window = QWidget(), QWidget()
    lines = QVBoxLayout(inner)
    for number in range(20):
        lines.addWidget(QLabel(f"line {number}"))
    layout = QVBoxLayout(window)
    scrolled = Scrolled(inner)
    layout.addWidget(scrolled)
    layout.addWidget(QLabel("below"))
    layout.addStretch()
    qtbot.addWidget(window)
    window.show()
    return window, scrolled, inner


def test_it_takes_what_it_needs_and_no_more(column, qtbot):
    window, scrolled, inner = column
    window.resize(300, 2000)
    qtbot.waitUntil(lambda: window.height() == 2000)
    qtbot.waitUntil(lambda: not scrolled.verticalScrollBar().isVisible())
    assert scrolled.height() < inner.layout().totalSizeHint().height() + 20


def test_in_a_low_window_it_scrolls(column, qtbot):
    window, scrolled, _ = column
    assert window.minimumSizeHint().height() < 3 * LOWEST
    window.resize(300, 250)
    qtbot.waitUntil(lambda: scrolled.verticalScrollBar().isVisible())
    assert scrolled.height() >= LOWEST


def test_it_follows_when_something_comes_or_goes(column, qtbot):
    window, scrolled, inner = column
    window.resize(300, 2000)
    qtbot.waitUntil(lambda: not scrolled.verticalScrollBar().isVisible())
    before = scrolled.height()
    more = QLabel("one\nand\nmore")
    inner.layout().addWidget(more)
    qtbot.waitUntil(lambda: scrolled.height() > before)
    more.hide()
    qtbot.waitUntil(lambda: scrolled.height() == before)
    assert not scrolled.verticalScrollBar().isVisible()


def test_the_dock_fits_a_small_screen_with_everything_unfolded(qtbot, viewer):
    dock = HeatmapWidget(viewer)
    qtbot.addWidget(dock.native)
    dock.show()
    dock._more._button.native.click()
    dock.native.resize(NARROWEST, 500)
    qtbot.waitUntil(lambda: dock.native.height() == 500)
    assert (
        dock._panel._run.native.mapTo(dock.native, dock._panel._run.native.rect().bottomRight()).y()
        < 500
    )
    assert dock.native.minimumSizeHint().width() <= NARROWEST
