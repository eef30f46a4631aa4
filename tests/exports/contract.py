"""What every export must do: one suite, a subclass per format."""

from __future__ import annotations

import errno
import os
import signal
import stat
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from made import mean_rgb, noise_slide
from napari_wsi_heatmap.errors import ExportError, StoreFullError
from napari_wsi_heatmap.exports import FORMATS, choose_format, export
from napari_wsi_heatmap.heatmap import Heatmap
from napari_wsi_heatmap.states import FAILED


@contextmanager
def files_of_at_most(size):
    """A disk that is full after so many bytes of a file."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


class ExportContract:
    """Subclasses give `name`, the format's name in `FORMATS`, and `check`."""

    name: str

    def check(self, path, heatmap, slide):
        """Read the file back with another library and compare it with the heatmap."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def slide(cls):
        return noise_slide(300, 400)

    @pytest.fixture(scope="class")
    @classmethod
    def heatmap(cls, slide):
        settings = {"window": 64, "stride": 40, "tissue": "none", "roi": (0, 0, 300, 250)}
        return wh.compute_heatmap(slide, mean_rgb, progress=False, **settings)

    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / f"a map{self.row.endings[0]}"

    @property
    def named(self):
        """What must be said where the ending is another format's by default."""
        chosen = choose_format(Path(f"a{self.row.endings[0]}"))
        return {} if chosen is self.row else {"format": self.name}

    @staticmethod
    def contents(path):
        """All bytes of a file, or of the files of a folder."""
        if path.is_file():
            return path.read_bytes()
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return {str(file.relative_to(path)): file.read_bytes() for file in files}

    @property
    def row(self):
        return next(row for row in FORMATS if row.name == self.name)

    def test_says_what_the_heatmap_holds(self, heatmap, slide, path):
        assert export(heatmap, path, slide=slide, **self.named) == path
        self.check(path, heatmap, slide)

    def test_a_heatmap_exports_itself(self, heatmap, slide, path):
        assert heatmap.export(str(path), slide=slide, **self.named) == path
        self.check(path, heatmap, slide)

    def test_needs_no_slide(self, heatmap, path):
        export(heatmap, path, **self.named)
        self.check(path, heatmap, None)

    def test_the_ending_in_capitals_is_the_same(self, heatmap, path):
        shouted = path.with_suffix(path.suffix.upper())
        assert choose_format(shouted) is choose_format(path)
        assert export(heatmap, shouted, **self.named).exists()

    def test_the_format_may_be_named(self, heatmap, path):
        other = path.with_suffix(".something")
        assert export(heatmap, other, format=self.name) == other
        self.check(other, heatmap, None)

    def test_writing_again_gives_the_same_bytes(self, heatmap, slide, path):
        first = self.contents(export(heatmap, path, slide=slide, **self.named))
        assert self.contents(export(heatmap, path, slide=slide, **self.named)) == first

    def test_leaves_the_heatmap_alone(self, heatmap, path):
        values, state = heatmap.values.copy(), heatmap.state.copy()
        export(heatmap, path, **self.named)
        np.testing.assert_array_equal(heatmap.values, values)
        np.testing.assert_array_equal(heatmap.state, state)

    def test_is_replaced_only_when_the_new_one_is_whole(self, heatmap, path, monkeypatch):
        export(heatmap, path, **self.named)
        old = self.contents(path)

        def full(*_args):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StoreFullError, match="No space left on device"):
            export(heatmap, path, **self.named)
        assert self.contents(path) == old
        assert [file.name for file in path.parent.iterdir()] == [path.name]

    def test_what_is_not_ours_stays(self, heatmap, path):
        foreign = path / ".zattrs" if self.row.folder else path
        foreign.parent.mkdir(exist_ok=True)
        foreign.write_text("precious")
        with pytest.raises(ExportError, match=r"no such export of ours.*choose another name"):
            export(heatmap, path, **self.named)
        assert foreign.read_text() == "precious"
        export(heatmap, path, overwrite=True, **self.named)
        self.check(path, heatmap, None)

    @pytest.mark.skipif(os.name == "nt", reason="there are no pipes with names there")
    def test_a_pipe_is_not_waited_for(self, heatmap, path):
        os.mkfifo(path)
        with pytest.raises(ExportError, match=r"no such export of ours|there is a file"):
            export(heatmap, path, **self.named)

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
    def test_a_full_disk_is_one_line_and_leaves_nothing(self, heatmap, path):
        with files_of_at_most(64), pytest.raises(StoreFullError, match="cannot write: "):
            export(heatmap, path, **self.named)
        assert not list(path.parent.iterdir())

    def test_a_map_of_which_nothing_is_done(self, heatmap, slide, path):
        values, state = np.full_like(heatmap.values, np.nan), np.full_like(heatmap.state, FAILED)
        nothing = Heatmap(values, state, heatmap.frame, heatmap.run, None, heatmap.features)
        assert export(nothing, path, slide=slide, **self.named).exists()

    def test_leaves_no_other_file(self, heatmap, path):
        export(heatmap, path, **self.named)
        assert [file.name for file in path.parent.iterdir()] == [path.name]

    @pytest.mark.skipif(os.name == "nt", reason="Windows has other rights")
    def test_others_may_read_it_as_any_new_file(self, heatmap, path):
        usual = path.with_name("usual")
        if self.row.folder:
            usual.mkdir()
        else:
            usual.touch()
        export(heatmap, path, **self.named)
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)

    def test_a_folder_is_refused_where_a_file_is_to_be(self, heatmap, path):
        if self.row.folder:
            path.touch()
        else:
            path.mkdir()
        with pytest.raises(ExportError, match=r"there is a (folder|file)"):
            export(heatmap, path, **self.named)

    def test_a_link_is_refused(self, heatmap, path):
        victim = path.with_name("victim")
        victim.write_text("precious")
        path.symlink_to(victim)
        with pytest.raises(ExportError, match="there is a link"):
            export(heatmap, path, **self.named)
        assert victim.read_text() == "precious"

    def test_the_folder_must_be_there(self, heatmap, path):
        with pytest.raises(ExportError, match="no such folder"):
            export(heatmap, path.parent / "nowhere" / path.name, **self.named)

    def test_an_unknown_option_names_those_there_are(self, heatmap, path):
        with pytest.raises(ExportError, match=r"no option 'colour'.*there are"):
            export(heatmap, path, colour="red", **self.named)
        assert not path.exists()
