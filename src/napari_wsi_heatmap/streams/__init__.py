"""Many slides in, batches of patches out: for scripts and training.

>>> import napari_wsi_heatmap as wh
>>> for x, slides, windows in wh.stream(["a.svs", "b.svs"], window=224, batch_size=32):
...     print(x.shape, slides[0], windows[0])

Slides are planned (`sliding`, `sampled`), their regions read ahead by the threads of
`napari_wsi_heatmap.loader` and put back in order (`ordered`), windows cut from them and gathered
(`cutting`, `batches`); `dataset` holds what people use.
"""
