"""What every kind of model must keep; a subclass says how to make one."""

from __future__ import annotations

import abc

import pytest
import torch

from napari_wsi_heatmap.models.base import HeatmapModel, inference
from napari_wsi_heatmap.models.dry_run import dry_run

CPU = torch.device("cpu")
BATCH = 8


def same_bits(a, b):
    """Equal, NaN included."""
    return a.shape == b.shape and torch.equal(a.view(torch.int32), b.view(torch.int32))


class ModelContract(abc.ABC):
    """Suite for one kind of model; `make` must make an equal one each time."""

    @abc.abstractmethod
    def make(self) -> HeatmapModel: ...

    @abc.abstractmethod
    def make_other(self) -> HeatmapModel:
        """Make one of the same kind and name with other weights or parameters."""

    @pytest.fixture
    def model(self):
        model = self.make()
        model.to(CPU)
        with inference(CPU):
            yield model
        model.restore()

    @pytest.fixture
    def patches(self, model):
        generator = torch.Generator().manual_seed(1)
        shape = (BATCH, 3, *model.window)
        return torch.randint(0, 256, shape, generator=generator).float() / 255

    def test_says_what_it_wants_to_see(self, model):
        height, width = model.window
        assert height >= 1
        assert width >= 1
        assert model.mpp is None or model.mpp > 0
        assert model.name
        assert model.batch_size is None or model.batch_size >= 1
        assert model.limits is None or model.limits[0] < model.limits[1]

    def test_one_row_per_window_in_float32(self, model, patches):
        values = model(patches)
        assert values.dtype == torch.float32
        assert values.ndim in (2, 4)
        assert len(values) == BATCH

    def test_as_many_names_as_outputs(self, model, patches):
        told = dry_run(model, patches[:2], batch_size=BATCH)
        assert told.channels == model(patches).shape[1] == len(told.names)
        assert model.names is None or told.names == model.names

    def test_says_the_same_again(self, model, patches):
        assert same_bits(model(patches), model(patches))

    def test_leaves_the_patches_alone(self, model, patches):
        before = patches.clone()
        model(patches)
        assert torch.equal(patches, before)

    def test_order_in_the_batch_does_not_matter(self, model, patches):
        order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(2))
        assert same_bits(model(patches[order]), model(patches)[order])

    def test_neighbours_do_not_matter(self, model, patches):
        others = patches.flip(0).clone()
        others[3] = patches[3]
        assert same_bits(model(others)[3], model(patches)[3])

    def test_zero_padded_tail_does_not_matter(self, model, patches):
        tail = patches.clone()
        tail[3:] = 0
        assert same_bits(model(tail)[:3], model(patches)[:3])

    def test_dry_run_finds_it_independent(self, model, patches):
        told = dry_run(model, patches[:2], batch_size=BATCH)
        assert told.independent
        assert told.finite
        assert told.notices == ()

    def test_dry_run_restores_nothing_but_leaves_evaluation_mode(self, model):
        modules = [v for v in vars(model).values() if isinstance(v, torch.nn.Module)]
        assert not any(part.training for module in modules for part in module.modules())

    def test_sha256_is_stable_and_sees_the_weights(self, model):
        assert len(bytes.fromhex(model.sha256)) == 32
        assert model.sha256 == model.sha256 == self.make().sha256
        assert model.sha256 != self.make_other().sha256
