"""The user's own processing of a stream, and files that it is written to as it comes.

>>> import napari_wsi_heatmap as wh
>>> def redness(x, slides, windows):
...     return x[:, 0].mean((1, 2))
>>> wh.collect(wh.stream("slides/", window=256), redness, "redness/", format="csv")

`collecting` is the loop, `collector` what people write, `origins` where pieces come from (a stream,
or a run of the engine), `folder` the files of all slides and what is done, `sinks` how
one file is written.
"""
