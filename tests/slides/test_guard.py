"""Files that kill a process inside the C library are refused, and the process lives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import openslide
import pytest
import tifffile

from made_slides import noise, patch_tags, tissue, write_aperio, write_tiff
from napari_wsi_heatmap.errors import SlideOpenError
from napari_wsi_heatmap.slides import guard, open_slide, probe, tiffheader, verdicts

needs_signals = pytest.mark.skipif(os.name != "posix", reason="deaths are told by POSIX signals")

UNGUARDED = """
import resource, sys, openslide
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
slide = openslide.OpenSlide(sys.argv[1])
slide.read_region((0, 0), 0, (64, 64))
"""


def one_huge_tile(path, side):
    tifffile.imwrite(
        path,
        np.zeros((512, 512, 3), np.uint8),
        tile=(256, 256),
        photometric="rgb",
        compression="zlib",
        metadata=None,
    )
    tags = ("ImageWidth", "ImageLength", "TileWidth", "TileLength")
    patch_tags(path, 0, **dict.fromkeys(tags, side))
    return path


def huge_tile_width(path):
    levels = [noise(256, 256), noise(128, 128)]
    write_tiff(path, levels, tile=64, mpp=None, compression="lzw")
    patch_tags(path, 0, TileWidth=1411956893)
    return path


def aperio(path, *patches):
    write_aperio(path, [tissue(256, 256), tissue(128, 128)], tile=64)
    for page, tags in enumerate(patches):
        patch_tags(path, page, **tags)
    return path


CRASHES = {
    "64 GiB tile": (signal.SIGABRT, lambda path: one_huge_tile(path, 131072)),
    "361 GB tile": (signal.SIGABRT, huge_tile_width),
    "tile 2 wide, planar": (
        signal.SIGFPE,
        lambda path: aperio(path, {"TileWidth": 2, "PlanarConfiguration": 2}, {"TileLength": 1}),
    ),
    "longer and wider": (
        signal.SIGFPE,
        lambda path: aperio(path, {"ImageLength": 4096}, {"ImageWidth": 4096}),
    ),
    "2 samples": (
        signal.SIGFPE,
        lambda path: aperio(
            path, {"ImageLength": 14433, "SamplesPerPixel": 2}, {"ImageWidth": 65071}
        ),
    ),
}


@pytest.fixture(params=CRASHES)
def killer(request, tmp_path):
    died_of, make = CRASHES[request.param]
    return died_of, make(tmp_path / "killer.svs")


@needs_signals
class TestCrashes:
    def test_without_guard_the_process_dies(self, killer):
        died_of, path = killer
        done = subprocess.run([sys.executable, "-c", UNGUARDED, path], capture_output=True)
        assert done.returncode == -died_of

    def test_the_header_check_alone_refuses(self, killer):
        with pytest.raises(SlideOpenError):
            guard.check_header(str(killer[1]))

    def test_the_child_alone_refuses(self, killer):
        died_of, path = killer
        verdict = probe.ask(str(path))
        assert verdict.asked
        assert verdict.refusal.startswith(f"OpenSlide crashes on this file ({died_of.name}")

    def test_open_slide_says_it_in_one_line(self, killer):
        with pytest.raises(SlideOpenError) as caught:
            open_slide(killer[1])
        message = str(caught.value)
        assert "\n" not in message
        assert str(killer[1]) in message
        assert "damaged" in message or "smaller tiles" in message

    def test_what_only_the_child_sees_is_refused_too(self, killer, monkeypatch):
        died_of, path = killer
        monkeypatch.setattr(guard, "check_header", lambda path: ())
        with pytest.raises(SlideOpenError, match=f"OpenSlide crashes .*{died_of.name}"):
            open_slide(path)
        # A refusal is not kept: it is asked about again.
        with pytest.raises(SlideOpenError, match="OpenSlide crashes"):
            open_slide(path)


@needs_signals
def test_a_tile_of_16_gib_is_refused_whatever_this_machine_has(tmp_path):
    path = one_huge_tile(tmp_path / "a.tif", 65536)
    assert path.stat().st_size < 2000
    with pytest.raises(SlideOpenError, match="tiles are 65536 x 65536 pixels"):
        open_slide(path)
    assert "SIGABRT" in probe.ask(str(path)).refusal


class TestHeaderRules:
    @pytest.mark.parametrize(
        ("tags", "reason"),
        [
            ({"ImageWidth": 0}, "claims 0 x 256 pixels"),
            ({"ImageLength": 2**21 + 1}, "claims 256 x 2097153 pixels"),
            ({"ImageWidth": 2**32 - 1}, "claims 4294967295 x 256 pixels"),
            ({"TileWidth": 0}, "tiles are 0 x 64"),
            ({"TileLength": 8}, "tiles are 64 x 8"),
            ({"TileWidth": 4112}, "tiles are 4112 x 64"),
            ({"ImageWidth": 257}, r"claims 257 x 256 pixels, which are 20 tiles, and lists 16"),
            ({"SamplesPerPixel": 5}, "5 samples per pixel"),
            ({"BitsPerSample": 32}, "32-bit samples"),
        ],
    )
    def test_refuses(self, tmp_path, tags, reason):
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, noise(256, 256), tile=(64, 64), photometric="rgb", metadata=None)
        patch_tags(path, 0, **tags)
        with pytest.raises(SlideOpenError, match=reason):
            guard.check_header(str(path))

    @pytest.mark.parametrize(("kind", "bits"), [(np.float16, 16), (np.float32, 32), (np.int32, 32)])
    def test_refuses_what_opens_and_never_reads(self, tmp_path, kind, bits):
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, np.ones((64, 64), kind), tile=(64, 64), metadata=None)
        with pytest.raises(SlideOpenError, match=f"{bits}-bit samples, which OpenSlide cannot"):
            open_slide(path)

    def test_planar_files_need_a_tile_per_sample(self, tmp_path):
        path = tmp_path / "a.tif"
        planes = np.zeros((3, 256, 256), np.uint8)
        tifffile.imwrite(path, planes, tile=(64, 64), photometric="rgb", metadata=None)
        (only,) = guard.check_header(str(path))
        assert only.number(tiffheader.PLANAR) == 2
        patch_tags(path, 0, SamplesPerPixel=4)
        with pytest.raises(SlideOpenError, match="64 tiles, and lists 48"):
            guard.check_header(str(path))

    def test_a_tag_stated_twice(self, tmp_path):
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, noise(256, 256), tile=(64, 64), photometric="rgb", metadata=None)
        with tifffile.TiffFile(path) as tiff:
            software = tiff.pages[0].tags["Software"].offset
        with path.open("r+b") as file:
            file.seek(software)
            file.write(np.array([322], "<u2").tobytes())
        with pytest.raises(SlideOpenError, match="states tag 322 twice"):
            guard.check_header(str(path))

    def test_files_without_tiff_headers_are_left_to_the_child(self, tmp_path):
        path = tmp_path / "a.dcm"
        path.write_bytes(bytes(128) + b"DICM")
        assert guard.check_header(str(path)) == ()

    def test_a_z_stack_of_many_directories_passes(self, tmp_path):
        path = tmp_path / "stack.tif"
        planes = np.zeros((100, 64, 64), np.uint8)
        tifffile.imwrite(path, planes, tile=(64, 64), photometric="minisblack")
        assert len(guard.check_header(str(path))) == 100
        with open_slide(path) as slide:
            assert slide.levels[0].shape == (64, 64)


class TestProbe:
    @pytest.fixture
    def good(self, tmp_path):
        return str(write_tiff(tmp_path / "good.tif", [noise(100, 100)]))

    def test_a_good_slide(self, good):
        assert probe.ask(good) == probe.Verdict(asked=True)

    def test_no_slide_is_no_death(self, tmp_path):
        path = tmp_path / "a.svs"
        path.write_bytes(b"nothing")
        assert probe.ask(str(path)) == probe.Verdict(asked=True)

    def test_a_read_error_is_a_warning(self, data_dir):
        path = data_dir / "slides" / "openslide-python" / "unreadable.svs"
        verdict = probe.ask(str(path))
        assert verdict.refusal is None
        assert verdict.warning == "Bogus marker length"
        with open_slide(path) as slide:
            assert slide.warnings[-1].startswith("a part of it cannot be read: ")

    def test_a_name_that_is_no_text(self, good, tmp_path):
        if sys.platform != "linux":
            pytest.skip("file names are bytes on Linux only")
        name = os.fsencode(tmp_path) + b"/\xff\xfe new\nline.tif"
        os.rename(good, name)
        assert probe.ask(os.fsdecode(name)) == probe.Verdict(asked=True)
        with open_slide(name) as slide:
            assert slide.read_region(0, 0, 0, 9, 9).shape == (9, 9, 3)

    @needs_signals
    def test_silence_refuses(self, tmp_path):
        os.mkfifo(tmp_path / "silent.svs")  # OpenSlide waits for ever for its first byte
        begun = time.monotonic()
        verdict = probe.ask(str(tmp_path / "silent.svs"), timeout_s=1.5)
        assert time.monotonic() - begun < 60
        assert verdict.asked
        assert verdict.refusal.startswith("OpenSlide did not answer within 1.5 s - copy the slide")

    def test_no_interpreter_no_verdict(self, good, monkeypatch):
        monkeypatch.setattr(sys, "frozen", True, raising=False)
        assert probe.ask(good) == probe.Verdict(asked=False)
        with open_slide(good) as slide:
            assert slide.read_region(0, 0, 0, 5, 5).shape == (5, 5, 3)

    @pytest.mark.parametrize("executable", ["", None, "/opt/napari/napari", "/gone/python3"])
    def test_an_application_that_is_no_python(self, good, monkeypatch, executable):
        monkeypatch.setattr(sys, "executable", executable)
        assert probe.ask(good) == probe.Verdict(asked=False)

    def test_a_child_that_cannot_import_openslide_says_nothing(self, good, monkeypatch):
        monkeypatch.setattr(probe, "_import_path", list)
        assert probe.ask(good) == probe.Verdict(asked=False)

    def test_the_child_sees_nothing_of_the_users_environment(self, good, tmp_path, monkeypatch):
        (tmp_path / "openslide.py").write_text("raise SystemExit('not the real one')")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        assert probe.ask(good) == probe.Verdict(asked=True)


class TestVerdicts:
    @pytest.fixture(autouse=True)
    def own_file(self, tmp_path, monkeypatch):
        path = tmp_path / "cache" / "opened-slides.json"
        monkeypatch.setattr(verdicts, "location", lambda: path)
        verdicts.forget()
        yield path
        verdicts.forget()

    def test_the_child_is_asked_once(self, tmp_path, monkeypatch):
        path = write_tiff(tmp_path / "a.tif", [noise(100, 100)])
        asked = []
        real = probe.ask
        monkeypatch.setattr(probe, "ask", lambda path: asked.append(path) or real(path))
        for _ in range(3):
            open_slide(path).close()
        assert asked == [str(path)]
        verdicts.forget()  # as a new process would
        open_slide(path).close()
        assert len(asked) == 1
        path.write_bytes(path.read_bytes() + b"more")
        open_slide(path).close()
        assert len(asked) == 2

    def test_a_warning_is_kept(self, own_file):
        verdicts.remember("ab" * 32, "Bogus marker length")
        verdicts.forget()
        assert verdicts.recall("ab" * 32) == (True, "Bogus marker length")
        assert verdicts.recall("cd" * 32) == (False, None)
        assert [p.name for p in own_file.parent.iterdir()] == [own_file.name]

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", "null", '{"format": 1}', '{"known": 5}', "[" * 100_000]
    )
    def test_a_broken_file_is_as_good_as_none(self, own_file, text):
        own_file.parent.mkdir()
        own_file.write_text(text)
        assert verdicts.recall("ab" * 32) == (False, None)
        verdicts.remember("ab" * 32, None)
        verdicts.forget()
        assert verdicts.recall("ab" * 32) == (True, None)

    def test_another_openslide_is_asked_again(self, own_file):
        verdicts.remember("ab" * 32, None)
        stored = json.loads(own_file.read_text())
        assert openslide.__library_version__ in stored["format"]
        own_file.write_text(json.dumps({**stored, "format": "of another version"}))
        verdicts.forget()
        assert verdicts.recall("ab" * 32) == (False, None)

    def test_the_oldest_leave_first(self, own_file, monkeypatch):
        monkeypatch.setattr(verdicts, "MOST", 3)
        for name in "abcde":
            verdicts.remember(name, None)
        assert list(json.loads(own_file.read_text())["known"]) == ["c", "d", "e"]

    def test_a_cache_that_cannot_be_written_costs_nothing_else(self, tmp_path, monkeypatch):
        in_the_way = tmp_path / "file"
        in_the_way.write_text("not a folder")
        monkeypatch.setattr(verdicts, "location", lambda: in_the_way / "opened-slides.json")
        verdicts.forget()
        path = write_tiff(tmp_path / "a.tif", [noise(100, 100)])
        with open_slide(path) as slide:
            assert verdicts.recall(slide.fingerprint) == (True, None)


FUZZ = """
import os, resource, sys, openslide
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
for path in sys.argv[1:]:
    print(path, flush=True)
    try:
        with openslide.OpenSlide(path) as slide:
            width, height = slide.dimensions
            for level in range(slide.level_count):
                slide.read_region((0, 0), level, (64, 64))
                slide.read_region((width // 2, height // 2), level, (64, 64))
    except Exception:
        pass
print("alive")
"""
INTERESTING = (0, 1, 2, 15, 16, 255, 4096, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)


def mutate(raw, entries, rng):
    """Change 1 to 4 things: mostly tag entries, some bytes; seldom cut the end off."""
    raw = bytearray(raw)
    for _ in range(rng.integers(1, 5)):
        what = rng.random()
        if what < 0.6:
            at = int(rng.choice(entries))
            part, size = ((8, 4), (4, 4), (2, 2), (0, 2))[rng.choice(4, p=(0.7, 0.15, 0.1, 0.05))]
            value = int(rng.choice(INTERESTING)) if rng.random() < 0.7 else rng.integers(2**32)
            raw[at + part : at + part + size] = (int(value) % 256**size).to_bytes(size, "little")
        elif what < 0.9:
            raw[rng.integers(len(raw))] = rng.integers(256)
        else:
            del raw[int(rng.integers(8, len(raw))) :]
            entries = [at for at in entries if at + 12 <= len(raw)]
            if not entries:
                break
    return bytes(raw)


@needs_signals
@pytest.mark.parametrize("kind", ["zlib", "lzw", "jpeg"])
def test_nothing_that_passes_the_header_check_kills(tmp_path, kind):
    rng = np.random.default_rng(11)
    base = tmp_path / "base.svs"
    if kind == "jpeg":
        write_aperio(base, [tissue(256, 256), tissue(128, 128)], tile=64)
    else:
        write_tiff(base, [noise(256, 256), noise(128, 128)], tile=64, compression=kind)
    with tifffile.TiffFile(base) as tiff:
        entries = [tag.offset for page in tiff.pages for tag in page.tags]
    passed = []
    for index in range(250):
        path = tmp_path / f"{index}.svs"
        path.write_bytes(mutate(base.read_bytes(), entries, rng))
        try:
            guard.check_header(str(path))
        except SlideOpenError:
            continue
        passed.append(str(path))
    assert len(passed) > 50
    done = subprocess.run([sys.executable, "-c", FUZZ, *passed], capture_output=True, timeout=300)
    last = done.stdout.decode().splitlines()[-1]
    assert done.returncode == 0, f"died at {last}: {done.stderr.decode()[-300:]}"
