"""Many slides through one model, on the processes of this machine or of a cluster.

The tasks are slides (or row bands of a giant one), the work is that of `napari_wsi_heatmap.launch`,
results are written where they are computed, and only facts of a few kB travel. dask.distributed is
imported when a cohort begins; nothing else of the package knows it.
"""
