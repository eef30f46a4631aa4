"""PyDmed's own runs, made by a stream: its values where it is right, ours where it is wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import openslide
import pytest
import torch

import napari_wsi_heatmap as wh
from napari_wsi_heatmap.imports.pdmcsv import read_rows

if TYPE_CHECKING:
    from pathlib import Path

MEAN = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)
RUNS = ["A_k256_s256_l0", "B_k256_s128_l0", "D_k128_s128_l1"]


def normalise(x):
    return (x - MEAN) / STD


@dataclass
class Job:
    """A run of PyDmed: its settings, its slides and what it wrote."""

    folder: Path
    run: dict
    model: torch.nn.Module

    @cached_property
    def files(self):
        """csv -> slide."""
        patients = self.run["patients"].items()
        return {self.folder / f"{k}.csv": self.folder.parent / v["slide"] for k, v in patients}

    def values(self, x):
        """What PyDmed writes: the first channels of the map."""
        with torch.inference_mode():
            return self.model(x)[:, : self.run["channels"]].numpy()


@pytest.fixture(params=RUNS)
def job(request, data_dir):
    folder = data_dir / "pydmed"
    run = json.loads((folder / "manifest.json").read_text())["runs"][request.param]
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 7, stride=4, padding=3), torch.nn.ReLU(),
        torch.nn.Conv2d(8, 16, 3, stride=4, padding=1), torch.nn.ReLU(),
        torch.nn.Conv2d(16, 4, 3, stride=2, padding=1), torch.nn.Sigmoid(),
    )  # fmt: skip
    model.load_state_dict(torch.load(folder / "model_state_dict.pt", weights_only=True))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as PyDmed was run
    yield Job(folder / request.param, run, model.eval())
    torch.set_num_threads(threads)


def plain_loop(job, path):
    """What an OpenSlide loop over full-width strips gives: {(y, x): values}."""
    k, level = job.run["kernel"], job.run["level"]
    found = {}
    with openslide.OpenSlide(str(path.slide)) as slide:
        down, width = slide.level_downsamples[level], slide.level_dimensions[level][0]
        for y in sorted({y for y, _ in path.places}):
            strip = slide.read_region((0, int(y * down)), level, (width, k))
            pixels = torch.from_numpy(np.array(strip)[..., :3]).permute(2, 0, 1)
            for x in sorted(x for top, x in path.places if top == y):
                patch = normalise(pixels[:, :, x : x + k].float() / 255)
                found[y, x] = job.values(patch[None])[0]
    return found


@dataclass
class Patient:
    """One csv of PyDmed and its slide."""

    csv: Path
    slide: Path

    @cached_property
    def rows(self):
        return {tuple(map(int, row.corner)): row for row in read_rows(self.csv)[0]}

    @cached_property
    def places(self):
        return list(self.rows)


def strips_of(patients):
    """PyDmed's big chunks: a strip of the whole width for each row of windows."""

    def strips(slide, rng):
        del rng
        for y in dict.fromkeys(y for y, _ in patients[slide.id].places):
            yield y, 0, slide.window[0], slide.level_shape[1]

    return strips


def windows_of(patients):
    """PyDmed's small chunks of a strip."""

    def cut(region, rng):
        del rng
        return [at for at in sorted(patients[region.slide.id].places) if at[0] == region.y]

    return cut


def test_every_row_of_pydmed_by_its_own_regions_and_windows(job, tmp_path):
    patients = {csv.stem: Patient(csv, slide) for csv, slide in job.files.items()}
    stream = wh.stream(
        {name: patient.slide for name, patient in patients.items()},
        window=job.run["kernel"],
        level=job.run["level"],
        regions=strips_of(patients),
        cut=windows_of(patients),
        transform=normalise,
        batch_size=1,
    )
    done = wh.collect(stream, lambda x, *_: job.values(x), tmp_path / "out", format="pdmcsv")
    assert done.windows == {name: len(patient.places) for name, patient in patients.items()}
    for name, patient in patients.items():
        ours, theirs = Patient(done.files[name], patient.slide).rows, patient.rows
        assert ours.keys() == theirs.keys()
        naive = plain_loop(job, patient)
        for at, row in theirs.items():
            assert (ours[at].head, ours[at].shape) == (row.head, row.shape)
            mine = np.array(ours[at].values, np.float32)
            np.testing.assert_array_equal(mine, naive[at].ravel())  # to the bit, on any machine
            np.testing.assert_allclose(mine, row.values, rtol=0, atol=1e-6)
        assert heads_of(done.files[name]) == heads_of(patient.csv)
        raster = np.load(patient.csv.with_suffix(".npy"))
        np.testing.assert_allclose(wh.pdmcsv_to_array(done.files[name]), raster, rtol=0, atol=1e-6)


def heads_of(csv):
    """Everything before the values, to the character."""
    return {tuple(line.split(",")[:10]) for line in csv.read_text().splitlines()}


def test_a_sliding_window_agrees_where_pydmed_is_right_and_says_where_it_is_not(job):
    k, s, level = job.run["kernel"], job.run["stride"], job.run["level"]
    files = job.files
    stream = wh.stream(
        files,
        window=k, stride=s, level=level, edge="flush", transform=normalise, batch_size=16,
    )  # fmt: skip
    ours: dict = {csv: {} for csv in files}
    for x, names, windows in stream:
        for name, value, at in zip(names, job.values(x), windows.tolist(), strict=True):
            down = stream.layout(name).grid.spec.downsample
            place = tuple(round(a / b) for a, b in zip(at, down, strict=True))
            assert place not in ours[name]
            ours[name][place] = value
    for csv, slide in files.items():
        theirs = Patient(csv, slide).rows
        height, width = stream.layout(csv).grid.level_shape
        both = ours[csv].keys() & theirs.keys()
        for at in both:
            values = np.array(theirs[at].values, np.float32)
            np.testing.assert_allclose(ours[csv][at].ravel(), values, rtol=0, atol=1e-6)
        # Theirs alone: the last row, a pixel too high (B4).
        assert {y for y, _ in theirs.keys() - both} <= {height - k - 1}
        # Ours alone: the true last row and column, and what the kernel in place of the stride
        # leaves out across (B3).
        for y, x in ours[csv].keys() - both:
            assert y == height - k or x == width - k or x % k
        rows = {y for y, _ in ours[csv]}
        columns = {x for _, x in ours[csv]}
        assert rows == expected(height, k, s)
        assert columns == expected(width, k, s)
        assert len(ours[csv]) == len(rows) * len(columns)
        assert both


def expected(side, k, s):
    """P52: n = ceil((D - k) / s) + 1, the last one moved inside."""
    return {min(i * s, side - k) for i in range(-(-(side - k) // s) + 1)}
