"""From napari's console, or any script: run a model live over a slide that is open.

    python examples/console_scripting.py [SLIDE]

In napari's own console only the last lines of `in_napari` are needed. Without a screen, `headless`
does the same work and writes a picture.
"""

import sys

import napari_wsi_heatmap as wh
from napari_wsi_heatmap.sample import sample_slide_path


def redness(batch):
    """A model is anything callable: (N, 3, H, W) in 0…1 -> (N,), (N, C) or (N, C, h, w)."""
    return batch[:, 0].mean((1, 2)) - batch[:, 2].mean((1, 2))


def in_napari(path):
    """Open a slide in napari and let the map grow on it."""
    import napari

    viewer = napari.Viewer()
    viewer.open(path, plugin="napari-wsi-heatmap")
    job = wh.show_heatmap(viewer, viewer.layers[0], redness, window=64)
    # job.pause(), job.resume(), job.cancel(), job.wait()
    napari.run()
    return job


def headless(path, picture="redness.png"):
    """The same without a viewer: look at pieces as they come, then at the whole."""
    with wh.open_slide(path) as slide:
        for piece in wh.run(slide, redness, window=64, tissue="otsu"):
            print(f"{len(piece)} windows, the reddest {piece.values.max():.3f}")
        heatmap = wh.compute_heatmap(slide, redness, window=64, progress=False)
        heatmap.export(picture, slide=slide)
        return heatmap


if __name__ == "__main__":
    in_napari(sys.argv[1] if len(sys.argv) > 1 else sample_slide_path())
