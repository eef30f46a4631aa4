"""What a heatmap offers to be done with its features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_wsi_heatmap.embedding.clusters import Clusters
    from napari_wsi_heatmap.embedding.correlation import Correlation
    from napari_wsi_heatmap.embedding.edges import Where
    from napari_wsi_heatmap.embedding.neighbours import Neighbours
    from napari_wsi_heatmap.embedding.pca import Pca
    from napari_wsi_heatmap.embedding.vectors import Window
    from napari_wsi_heatmap.heatmap import Heatmap


class FeatureMethods:
    """Methods of a heatmap that need its features.

    All raise FeatureError if the model gave none. Windows that are not done, failed, or have a
    feature that is not finite take no part, and are NaN, or 0 among labels.
    """

    @property
    def _heatmap(self) -> Heatmap:
        return cast("Heatmap", self)

    def pca(self, components: int = 3) -> Pca:
        """Principal components; see `napari_wsi_heatmap.embedding.pca`.

        >>> found = heatmap.pca(3)
        >>> found.scores.shape, found.explained      # (Y, X, 3), share of the variance (3,)
        """
        from napari_wsi_heatmap.embedding.pca import pca

        return pca(self._heatmap, components)

    def clusters(self, k: int = 8, seed: int = 0) -> Clusters:
        """Windows in k groups by k-means; see `napari_wsi_heatmap.embedding.clusters`."""
        from napari_wsi_heatmap.embedding.clusters import clusters

        return clusters(self._heatmap, k, seed)

    def similarity(self, window: Window) -> NDArray[np.float32]:
        """Cosine similarity of all windows to one, by its flat index or (row, column).

        See `napari_wsi_heatmap.embedding.similarity`, also for many windows one after the other.
        """
        from napari_wsi_heatmap.embedding.similarity import similarity

        return similarity(self._heatmap, window)

    def neighbours(self, window: Window, k: int = 5, where: Where = "features") -> Neighbours:
        """The k windows nearest to one, without itself: indices (k,) and distances (k,).

        Parameters
        ----------
        window : int or (row, column)
        k : int
        where : {"features", "slide"}
            Nearest by the Euclidean distance of their features, or of their centres on the
            slide, in level-0 pixels.
        """
        from napari_wsi_heatmap.embedding.edges import refuse_where
        from napari_wsi_heatmap.embedding.neighbours import neighbours, neighbours_on_slide

        refuse_where(where)
        if where == "slide":
            return neighbours_on_slide(self._heatmap, window, k)
        return neighbours(self._heatmap, window, k)

    def neighbour_edges(self, k: int = 5, where: Where = "features") -> Any:
        """Edges from every window to its k nearest, as a pandas DataFrame.

        See `napari_wsi_heatmap.embedding.edges`.
        """
        from napari_wsi_heatmap.embedding.edges import neighbour_edges

        return neighbour_edges(self._heatmap, k, where)

    def correlation(self) -> Correlation:
        """Features with each other, and with x and y: which of them follow the place.

        See `napari_wsi_heatmap.embedding.correlation`.
        """
        from napari_wsi_heatmap.embedding.correlation import correlation

        return correlation(self._heatmap)

    def latents(self, *numbers: int) -> NDArray[np.float32]:
        """Maps (n, Y, X) of some features, or (n, N) of a list, read from where they are kept.

        See `napari_wsi_heatmap.embedding.latents`.
        """
        from napari_wsi_heatmap.embedding.latents import latents

        return latents(self._heatmap, numbers)
