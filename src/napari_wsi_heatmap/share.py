"""One model's share of a run: its plan, the map that grows, and what it leaves behind."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.dense import new_map
from napari_wsi_heatmap.heatmap import Heatmap, Piece
from napari_wsi_heatmap.output import RunOutput
from napari_wsi_heatmap.states import DONE, FAILED, HANGS_OVER, NOT_FINITE, PENDING, state_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.growing import GrowingMap
    from napari_wsi_heatmap.models.again import Spec
    from napari_wsi_heatmap.plan import Plan
    from napari_wsi_heatmap.predict import Computed

    Index = NDArray[np.int64]
    Values = NDArray[np.float32]


class Share:
    """A model of a run, and everything that only it has.

    Parameters
    ----------
    plan : Plan
    out : Path, optional
        The store; None keeps the map in memory.
    model_spec : str, optional
        What `load_model` makes the model from again, for a later resume.
    again : bool
        Compute windows that failed once more.
    name : str, optional
        Tells it from others of the run; the model's by default.
    """

    def __init__(
        self,
        plan: Plan,
        out: Path | None = None,
        model_spec: Spec = None,
        *,
        again: bool = False,
        name: str | None = None,
    ) -> None:
        self.plan, self.name = plan, name or plan.model.name
        compared = plan.outputs if plan.keeps_disagreement else 0
        self.growing: GrowingMap = new_map(
            plan.frame, plan.selection.state, plan.settings.blend, compared
        )
        self.output = RunOutput(plan, self.growing, out, model_spec, again=again)

    def wanted(self, index: Index) -> Index:
        """Those of the windows (n,) that are not computed yet."""
        return index[state_of(self.growing.state.ravel()[index]) == PENDING]

    def place(self, index: Index, computed: Computed) -> Piece:
        """Put on the map what the model gave for windows (n,)."""
        for halving in computed.halvings:
            self.output.halved(int(index[halving.row]), halving)
        rows = computed.numpy()
        values, features = self._split(rows)
        # Of the features too: on resume, what is not flagged and not there counts as lost.
        finite = np.isfinite(rows.reshape(len(rows), -1)).all(1)
        state = np.where(finite, DONE, DONE | NOT_FINITE).astype(np.uint8)
        return self._add(index, values, state, features)

    def fail(self, reasons: dict[int, str]) -> Piece | None:
        """Note the windows that cannot be read; None if none of them was wanted."""
        index = self.wanted(np.array(sorted(reasons), np.int64))
        if not len(index):
            return None
        self.output.failures |= {i: reasons[i] for i in index.tolist()}
        values = np.full((len(index), *self.plan.value_shape), np.nan, np.float32)
        return self._add(index, values, np.full(len(index), FAILED, np.uint8))

    def _split(self, rows: Values) -> tuple[Values, Values | None]:
        """Values (n, C[, h, w]) and features (n, D) of what the model gave."""
        if self.plan.dry.features is None:
            return rows, None
        size = math.prod(self.plan.value_shape)
        return rows[:, :size].reshape(len(rows), *self.plan.value_shape), rows[:, size:]

    def _add(
        self, index: Index, values: Values, state: NDArray[np.uint8], features: Values | None = None
    ) -> Piece:
        state |= self.growing.state.ravel()[index] & np.uint8(HANGS_OVER)
        self.growing.add(index, values, state, features)
        positions = self.plan.grid.positions(index)
        return Piece(values, index, positions, state, self.name, features)

    @property
    def heatmap(self) -> Heatmap:
        """The heatmap as it is now; it shares the run's buffer."""
        growing, output = self.growing, self.output
        return Heatmap(
            *(growing.values, growing.state, self.plan.frame, output.record, output.path),
            features=growing.features,
        )
