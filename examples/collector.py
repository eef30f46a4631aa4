"""Your own processing of many slides: a table for each, written while it is computed.

    python examples/collector.py OUT SLIDE SLIDE ...

Start it again after Ctrl-C or a crash: what is written is neither read nor computed again.
"""

import sys

import napari_wsi_heatmap as wh


class BrightAndDark(wh.Collector):
    """Mean and spread of each window; stops when it has seen enough of dark ones."""

    def __init__(self, enough=10**9):
        self.enough, self.dark = enough, 0

    @property
    def about(self):
        """What decides the values: a folder is only gone on with if this is the same."""
        return {"version": 1}

    def process(self, batch):
        """(N, 3, H, W) -> (N, 2), one row a window."""
        grey = batch.x.mean(1)
        table = [[patch.mean(), patch.std()] for patch in grey]
        self.dark += sum(mean < 0.5 for mean, _ in table)
        return table

    @property
    def finished(self):
        """Asked after each batch."""
        return self.dark >= self.enough


def main(out, slides, *, format="parquet", enough=10**9):
    """Collect, and say where it is."""
    stream = wh.stream(slides, window=64, stride=64, tissue="otsu", batch_size=32)
    done = wh.collect(stream, BrightAndDark(enough), out, format=format, names=["mean", "spread"])
    for slide, path in done.files.items():
        print(f"{slide}: {done.windows[slide]} windows in {path}")
    for slide, why in done.failed.items():
        print(f"{slide} was left out: {why}")
    return done


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
