"""Windows as cells: each where its centre lies; of a list the nearest one."""

from __future__ import annotations

import numpy as np
import pytest

from made_embedding import grid_map, list_map
from napari_wsi_heatmap.embedding.cells import cells_of
from napari_wsi_heatmap.states import DONE, state_of


@pytest.mark.parametrize("cells", [None, (4, 4)], ids=["one value", "dense"])
def test_of_a_grid_each_is_a_cell(cells):
    made = grid_map(cells=cells)
    found = cells_of(made)
    values = np.random.default_rng(0).random((*made.state.shape, 3))
    assert np.array_equal(found.paint(values), values)
    for row, col in ((0, 0), (3, 7), (36, 28)):
        centre = np.array(found.offset) + np.array([row, col]) * found.scale
        np.testing.assert_allclose(centre, made.centres[row, col])
        assert found.window_at(*centre) == row * 29 + col
    assert found.window_at(-400, 0) is None
    assert found.window_at(0, 1e6) is None


def on_lattice(count=300, step=64):
    places = np.random.default_rng(2).permutation(40 * 30)[:count]
    return np.stack(np.divmod(places, 30), 1) * step * 4 + [12, 500]


def test_of_a_list_on_a_lattice_each_done_one_is_a_cell():
    made = list_map(300, coords=on_lattice())
    found = cells_of(made)
    assert made.frame.on_lattice
    assert found.offset == made.frame.offset
    done = np.flatnonzero(state_of(made.state) == DONE)
    assert np.array_equal(np.sort(found.windows[found.windows >= 0]), done)
    for window in done[::13]:
        assert found.window_at(*made.centres[window]) == window


@pytest.mark.parametrize("seed", range(3))
def test_of_a_list_on_none_a_cell_is_that_of_the_nearest_centre(seed):
    coords = np.random.default_rng(seed).integers(0, 1500, (60, 2))
    made = list_map(60, coords=coords, seed=seed, window=100)
    found, frame = cells_of(made), made.frame
    assert not frame.on_lattice
    done = np.flatnonzero(state_of(made.state) == DONE)
    side = np.rint(np.array(made.window_size) / frame.scale)
    for row, col in np.ndindex(found.windows.shape):
        away = (np.array(frame.offset) + np.array([row, col]) * frame.scale) - made.centres[done]
        over = (np.abs(np.rint(away / frame.scale * 2) / 2) <= (side - 1) / 2).all(1)
        window = found.windows[row, col]
        if window < 0:
            assert not (np.abs(away) < np.array(made.window_size) / 2 - frame.scale).all(1).any()
        else:
            chosen = np.flatnonzero(done == window)[0]
            nearest = np.square(away[over]).sum(1).min() if over.any() else np.inf
            assert np.square(away[chosen]).sum() <= nearest + 1e-6
    assert np.array_equal(found.windows >= 0, ~np.isnan(made.values[0]))


def test_of_windows_at_one_place_the_first_is_seen():
    made = list_map(40, coords=np.repeat(np.arange(8)[:, None] * [256, 0], 5, axis=0))
    made.state[:] = DONE
    assert cells_of(made).windows.ravel().tolist() == list(range(0, 40, 5))


def test_labels_are_painted_as_they_are():
    made = list_map(60, coords=np.random.default_rng(0).integers(0, 1500, (60, 2)), window=100)
    labels = np.arange(60, dtype=np.int32) + 1
    painted = cells_of(made).paint(labels, 0)
    assert painted.dtype == np.int32
    done = np.flatnonzero(state_of(made.state) == DONE)
    assert set(np.unique(painted)) <= {0, *(done + 1).tolist()}
