"""What every slide backend and every kind of model must do: one suite each, a subclass per kind.

A subclass says how to make a slide or a model, and what it must give back.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from napari_wsi_heatmap.errors import SlideReadError
from napari_wsi_heatmap.models.base import inference
from napari_wsi_heatmap.models.dry_run import dry_run
from napari_wsi_heatmap.slides.base import level_downsample

BOXES = 24
"""Random boxes read per level."""
CPU = torch.device("cpu")
BATCH = 8


class SlideContract:
    """Subclasses give `opened` (a fresh slide) and `truth` (pixels of a level, or None)."""

    damaged = False
    """True where some boxes of the slide cannot be read."""

    @pytest.fixture
    def opened(self):
        """Give a slide that this test may close."""
        raise NotImplementedError

    def truth(self, slide, level):
        """Give the pixels of a level, (H, W, 3) uint8; None where nobody knows them."""
        raise NotImplementedError

    @pytest.fixture
    def slide(self, opened):
        yield opened
        opened.close()

    def known(self, slide):
        """Yield the levels whose pixels are known."""
        for level in range(len(slide.levels)):
            pixels = self.truth(slide, level)
            if pixels is not None:
                assert pixels.shape == (*slide.levels[level].shape, 3)
                yield level, pixels

    def test_says_what_it_is(self, slide):
        assert slide.backend
        assert slide.path
        assert slide.name
        assert "\n" not in "".join(slide.warnings)
        assert len(slide.background) == 3
        y, x, height, width = slide.bounds
        full_height, full_width = slide.levels[0].shape
        assert 0 <= y < y + height <= full_height
        assert 0 <= x < x + width <= full_width
        assert slide.mpp is None or all(0.05 <= v <= 20 for v in slide.mpp)
        assert all(isinstance(k, str) and isinstance(v, str) for k, v in slide.properties.items())

    def test_levels_shrink_by_their_downsamples(self, slide):
        base = slide.levels[0].shape
        assert slide.levels[0].downsample == (1.0, 1.0)
        for level in slide.levels:
            assert level.downsample == level_downsample(base, level.shape)
            for side, full, down in zip(level.shape, base, level.downsample, strict=True):
                assert abs(full / down - side) < 1
            assert min(level.tile) >= 1

    def test_random_boxes_are_the_stored_pixels(self, slide):
        rng = np.random.default_rng(3)
        for level, pixels in self.known(slide):
            height, width = pixels.shape[:2]
            for _ in range(BOXES):
                y, x = rng.integers(0, height), rng.integers(0, width)
                h, w = (
                    rng.integers(1, min(300, height - y) + 1),
                    rng.integers(1, min(300, width - x) + 1),
                )
                got = slide.read_region(level, int(y), int(x), int(h), int(w))
                np.testing.assert_array_equal(got, pixels[y : y + h, x : x + w])

    def test_whole_level_is_the_stored_pixels(self, slide):
        for level, pixels in self.known(slide):
            got = slide.read_region(level, 0, 0, *slide.levels[level].shape)
            np.testing.assert_array_equal(got, pixels)

    def test_result_is_the_callers_own(self, slide):
        for level, pixels in self.known(slide):
            strip = level, 0, 0, min(48, pixels.shape[0]), pixels.shape[1]
            got = slide.read_region(*strip)
            assert got.dtype == np.uint8
            assert got.shape == (*strip[3:], 3)
            assert got.flags.c_contiguous
            got[:] = 255 - got
            np.testing.assert_array_equal(slide.read_region(*strip), pixels[: strip[3]])

    def test_reads_into_a_part_of_an_array(self, slide):
        for number, level in enumerate(slide.levels):
            height, width = level.shape
            sides = min(400, height + 9), min(300, width + 9)
            for y, x in ((0, 0), (height // 2, width // 3), (-7, -5), (height - 5, width - 9)):
                room = np.full((sides[0] + 4, sides[1] + 6, 3), 77, np.uint8)
                part = room[1:-3, 2:-4]
                slide.read_into(number, y, x, part)
                assert np.array_equal(part, slide.read_region(number, y, x, *sides))
                part[:] = 77
                assert (room == 77).all()

    def test_over_the_border_is_background(self, slide):
        for level, pixels in self.known(slide):
            height, width = pixels.shape[:2]
            y, x, h, w = height - 5, width - 7, 20, 30
            framed = np.empty((height + 40, width + 60, 3), np.uint8)
            framed[:] = slide.background
            framed[20 : 20 + height, 30 : 30 + width] = pixels
            for box in ((y, x, h, w), (-20, -30, 25, 37), (-20, x, 30, w), (y, -30, h, 40)):
                top, left, box_h, box_w = box
                want = framed[top + 20 :, left + 30 :][:box_h, :box_w]
                np.testing.assert_array_equal(slide.read_region(level, *box), want)

    def test_outside_is_background_and_not_scanned(self, slide):
        for level in range(len(slide.levels)):
            height, width = slide.levels[level].shape
            for y, x in ((height, 0), (0, width), (-50, -50), (height + 10**6, -(10**6))):
                rgb, scanned = slide.read_scanned(level, y, x, 40, 50)
                assert scanned.shape == (40, 50)
                assert scanned.dtype == bool
                assert not scanned.any()
                assert (rgb == slide.background).all()

    def test_what_was_not_scanned_has_the_background(self, slide):
        for level, pixels in self.known(slide):
            height, width = pixels.shape[:2]
            rgb, scanned = slide.read_scanned(level, -3, -4, height + 6, width + 8)
            assert (rgb[~scanned] == slide.background).all()
            assert not scanned[:3].any()
            assert not scanned[:, -4:].any()

    def test_empty_box(self, slide):
        for box in ((0, 0, 0, 5), (0, 0, 5, 0), (10**7, 0, 0, 0)):
            assert slide.read_region(0, *box).shape == (*box[2:], 3)

    @pytest.mark.parametrize("level", [-1, 99])
    def test_no_such_level(self, slide, level):
        with pytest.raises(SlideReadError, match="no level"):
            slide.read_region(level, 0, 0, 8, 8)

    @pytest.mark.parametrize("size", [(-1, 8), (8, -1)])
    def test_negative_size(self, slide, size):
        with pytest.raises(SlideReadError, match="negative size"):
            slide.read_region(0, 0, 0, *size)

    def test_threads_read_what_one_reads(self, slide):
        rng = np.random.default_rng(5)
        levels = [level for level, _ in self.known(slide)]
        boxes = []
        for _ in range(60 if levels else 0):
            level = int(rng.choice(levels))
            height, width = slide.levels[level].shape
            y, x = int(rng.integers(-20, height)), int(rng.integers(-20, width))
            boxes.append((level, y, x, 64, 90))
        serial = [slide.read_region(*box) for box in boxes]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda box: slide.read_region(*box), boxes))
        for one, other in zip(serial, together, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_fingerprint_is_stable_hex(self, slide):
        first = slide.fingerprint
        assert len(first) >= 32
        assert set(first) <= set("0123456789abcdef")
        if self.damaged is False:
            slide.read_region(0, 0, 0, 16, 16)
        assert slide.fingerprint == first

    def test_is_not_changed(self, slide):
        assert slide.changed() is None

    def test_closed(self, opened):
        opened.close()
        opened.close()
        with pytest.raises(SlideReadError, match="closed"):
            opened.read_region(0, 0, 0, 8, 8)
        with pytest.raises(SlideReadError, match="closed"):
            opened.read_region(len(opened.levels) - 1, 0, 0, 8, 8)

    def test_closes_at_the_end_of_with(self, opened):
        with opened as slide:
            assert slide is opened
        with pytest.raises(SlideReadError, match="closed"):
            opened.read_region(0, 0, 0, 8, 8)


def same_bits(a, b):
    """Equal, NaN included."""
    return a.shape == b.shape and torch.equal(a.view(torch.int32), b.view(torch.int32))


class ModelContract:
    """Subclasses give `make` (an equal model each time) and `make_other`."""

    def make(self):
        """Make the model; an equal one each time."""
        raise NotImplementedError

    def make_other(self):
        """Make one of the same kind and name with other weights or parameters."""
        raise NotImplementedError

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

    def test_runs_in_evaluation_mode(self, model):
        modules = [v for v in vars(model).values() if isinstance(v, torch.nn.Module)]
        assert not any(part.training for module in modules for part in module.modules())

    def test_sha256_is_stable_and_sees_the_weights(self, model):
        assert len(bytes.fromhex(model.sha256)) == 32
        assert model.sha256 == model.sha256 == self.make().sha256
        assert model.sha256 != self.make_other().sha256
