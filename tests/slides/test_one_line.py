"""Whatever is done with whatever file: an error is one of ours, in one line that can be printed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from made_slides import tissue, write_aperio
from napari_wsi_heatmap.errors import SlideError
from napari_wsi_heatmap.slides import open_slide

BACKENDS = (None, "tiff", "openslide", "picture")
HEADS = (b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"\x89PNG\r\n", b"\xff\xd8\xff", b"DICM", b"")
ENDINGS = (".svs", ".tif", ".ndpi", ".mrxs", ".dcm", ".vms", ".czi", ".png", ".jpg", ".scn", "")


def check_line(error):
    line = str(error)
    assert line.isprintable()
    assert 10 < len(line) <= 500
    assert "Traceback" not in line
    assert "Error(" not in line  # the repr of somebody else's exception


def try_all(path, backend):
    """Open, read every level at odd places, its pictures and profile; errors must be lines."""
    with contextlib.ExitStack() as stack:
        try:
            slide = stack.enter_context(open_slide(path, backend))
        except SlideError as error:
            check_line(error)
            return
        for warning in slide.warnings:
            assert warning.isprintable()
        for level in range(len(slide.levels)):
            height, width = slide.levels[level].shape
            for box in ((0, 0), (-5, -5), (height // 2, width // 2), (height - 9, width - 9)):
                with lines():
                    assert slide.read_region(level, *box, 40, 50).shape == (40, 50, 3)
        for name in slide.associated_images:
            with lines():
                assert slide.associated_images[name].ndim == 3
        with lines():
            assert slide.icc_profile is None or isinstance(slide.icc_profile, bytes)


@contextlib.contextmanager
def lines():
    try:
        yield
    except SlideError as error:
        check_line(error)


@pytest.fixture(scope="module")
def bad(tools_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lines") / "set"
    command = [sys.executable, str(tools_dir / "make_bad.py"), str(folder), "--no-huge"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"make_bad.py failed: {done.stderr[-300:]}")
    yield folder
    for name in folder.iterdir():  # the MRXS copies are read-only, as their source may be
        if name.is_dir() and not name.is_symlink():
            name.chmod(0o755)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_malformed_set(bad, backend):
    names = sorted(os.listdir(bad))
    assert len(names) > 80
    for name in names:
        try_all(bad / name, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_real_slide(data_dir, backend):
    folder = data_dir / "slides"
    paths = [p for p in sorted(folder.glob("*/*")) if p.is_file()]
    assert len(paths) > 8
    for path in paths:
        try_all(path, backend)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    head=st.sampled_from(HEADS),
    body=st.binary(max_size=300),
    ending=st.sampled_from(ENDINGS),
    backend=st.sampled_from(BACKENDS),
)
def test_any_bytes(tmp_path, head, body, ending, backend):
    path = tmp_path / f"any{ending}"
    path.write_bytes(head + body)
    try_all(path, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "path", ["", "no such file.svs", "a\nb.svs", "x" * 300, "\0", "http://a/b.svs", b"\xff.svs", 5]
)
def test_any_path(path, backend):
    with pytest.raises(SlideError) as caught:
        open_slide(path, backend)
    check_line(caught.value)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(max_size=60), backend=st.sampled_from(BACKENDS[:3]))
def test_any_description(tmp_path, text, backend):
    path = tmp_path / "a.svs"
    if not path.exists():
        write_aperio(path, [tissue(64, 64)], tile=64, mpp="~" * 250)
    raw = path.read_bytes().replace(b"~" * 250, text.encode("utf-8", "surrogatepass").ljust(250))
    told = tmp_path / "told.svs"
    told.write_bytes(raw)
    try_all(told, backend)
