"""What the README shows is run: its Python, its command line, its links."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from made import mean_rgb
from napari_wsi_heatmap.cli import main
from napari_wsi_heatmap.sample import make_sample_slide

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


class Mean(torch.nn.Module):
    def forward(self, batch):
        return mean_rgb(batch)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    path = tmp_path_factory.mktemp("readme") / "slide.svs"
    make_sample_slide(path, size=(1024, 1536))
    return path


def test_the_python(sample, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slide.svs").symlink_to(sample)
    names = {"my_module": Mean()}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert (tmp_path / "nuclei.png").stat().st_size > 1000
    assert names["values"].shape == (2, 3)
    assert "nan" not in capsys.readouterr().out


def test_the_command_line(sample, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slide.svs").symlink_to(sample)
    commands = [
        shlex.split(line, comments=True)[1:]
        for block in blocks("bash")
        for line in block.splitlines()
        if line.startswith("napari-wsi-heatmap ")
    ]
    shown = {"info", "run", "resume", "export", "view", "gallery"}
    assert {command[0] for command in commands} == shown
    for command in commands:
        if command[0] != "view":  # it opens a window; tests/napari looks at it
            assert main(command) == 0, command
    assert (tmp_path / "map.csv").read_text().startswith("minx,miny,width,height,hematoxylin\n")


def test_its_pictures_and_links_are_there():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_test_command_is_the_one_that_ci_calls():
    (command,) = [block.strip() for block in blocks("bash") if "/tox" in block]
    assert command in (ROOT / ".ci" / "run").read_text()
