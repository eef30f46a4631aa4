"""Features that a run keeps, in its store or in memory, as a bag: what is done, in grid order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import FeatureError
from napari_wsi_heatmap.features import CHUNK
from napari_wsi_heatmap.growing import boxes_of, empty_values
from napari_wsi_heatmap.mil.bags import SlideFeatures, refuse_length
from napari_wsi_heatmap.report import windows
from napari_wsi_heatmap.states import DONE, FAILED, PENDING, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.engine import Run

    Index = NDArray[np.int64]
    Values = NDArray[np.float32]
    States = NDArray[np.uint8]


@dataclass(frozen=True)
class Kept:
    """What a run has left, or leaves as it goes on."""

    state: States
    """(Y, X), or (N,) of a list."""
    features: Any
    """(Y, X, D) or (N, D) array-like, read where it is indexed."""
    positions: Callable[[Index], NDArray[np.float64]]
    """Flat indices (n,) -> top-left corners (n, 2) (y, x), level-0 pixels."""
    patch_size: tuple[float, float]
    record: Mapping[str, Any]
    path: Path | None = None


def features_in_store(path: Path, in_dim: int | None = None) -> SlideFeatures:
    """Read the features of a store.

    Raises
    ------
    FeatureError
        If it has none, or none is done.
    StoreError
        If it is no store, or damaged.
    """
    return bag_of(kept_in(path), in_dim)


def kept_in(path: Path) -> Kept:
    """Open what a store keeps, without reading features."""
    from napari_wsi_heatmap.heatmap import open_heatmap

    heatmap = open_heatmap(path)
    if heatmap.features is None:
        what, do = "the store has no features", "run an encoder, or a model that gives features"
        raise FeatureError(what, path, do)
    positions, size = heatmap.grid.positions, heatmap.window_size
    return Kept(heatmap.state, heatmap.features, positions, size, heatmap.run, path)


def bag_of(kept: Kept, in_dim: int | None = None) -> SlideFeatures:
    """Gather the features of the windows that are done and have finite ones, in grid order.

    What is left out is noticed.

    Memory bound: the features once (above 1 GB in a scratch file), and one chunk of the store.

    Raises
    ------
    FeatureError
        If none is left, or they are of another length than `in_dim`.
    """
    refuse_length(kept.features.shape[-1], in_dim, kept.path)
    index, vectors = _done(kept)
    finite = np.asarray(np.isfinite(vectors).all(1))
    if not finite.all():
        vectors, index = _only(vectors, finite), index[finite]
    if not len(index):
        what = "no window has features that can be used"
        raise FeatureError(what, kept.path, "resume the run, or look at its notices")
    return SlideFeatures(
        vectors,
        kept.positions(index),
        kept.patch_size,
        origin_of(kept.record),
        "store",
        kept.path,
        _left_out(kept.state, int(np.count_nonzero(~finite))),
        index,
    )


def _done(kept: Kept) -> tuple[Index, Values]:
    done = state_of(kept.state) == DONE
    rows = np.cumsum(done).reshape(done.shape) - 1
    vectors = empty_values((int(np.count_nonzero(done)), kept.features.shape[-1]), "features")
    for box in _boxes(done.shape):
        if done[box].any():
            vectors[rows[box][done[box]]] = np.asarray(kept.features[box])[done[box]]
    return np.flatnonzero(done), vectors


def _boxes(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Parts of a grid (Y, X), or of a list (N,), that are read at once: chunks of the store."""
    if len(shape) == 2:
        yield from boxes_of(shape, CHUNK)
    else:
        yield from ((slice(at, at + CHUNK**2),) for at in range(0, shape[0], CHUNK**2))


def _only(vectors: Values, chosen: NDArray[np.bool_]) -> Values:
    """Rows that are chosen, moved together in place: there may be no room for a second array."""
    kept = np.flatnonzero(chosen)
    for begin in range(0, len(kept), 4096):
        part = kept[begin : begin + 4096]
        vectors[begin : begin + len(part)] = vectors[part]
    return vectors[: len(kept)]


def _left_out(state: States, odd: int) -> tuple[str, ...]:
    bare = state_of(state)
    counted = {
        "could not be read": int(np.count_nonzero(bare == FAILED)),
        "with features that are not finite": odd,
        "not encoded yet": int(np.count_nonzero(bare == PENDING)),
    }
    return tuple(f"{windows(n)} {why}: left out of the bag" for why, n in counted.items() if n)


def origin_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says of where its features come from."""
    return {
        "encoder": record["model"]["name"],
        "encoder_sha256": record["model"]["sha256"],
        "plan_sha256": record.get("plan_sha256"),
        "slide": record["slide"]["name"],
        "slide_fingerprint": record["slide"]["fingerprint"],
    }


def kept_by(run: Run) -> Kept:
    """What a run has encoded by now: in memory, or what is saved of it."""
    features: Any = run.growing.features
    if features is None and run.out is not None:
        from napari_wsi_heatmap.store import HeatmapStore

        features = HeatmapStore.open(run.out).features
    grid = run.plan.grid
    size = grid.spec.footprint_level0
    return Kept(run.growing.state, features, grid.positions, size, run.record, run.out)
