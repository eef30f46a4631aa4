"""What every export must do: one suite, a subclass per format."""

from __future__ import annotations

import errno
import os
import stat

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from made import mean_rgb, noise_slide
from napari_wsi_heatmap.errors import ExportError, StoreFullError
from napari_wsi_heatmap.exports import FORMATS, choose_format, export


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
    def row(self):
        return next(row for row in FORMATS if row.name == self.name)

    def test_says_what_the_heatmap_holds(self, heatmap, slide, path):
        assert export(heatmap, path, slide=slide) == path
        self.check(path, heatmap, slide)

    def test_a_heatmap_exports_itself(self, heatmap, slide, path):
        assert heatmap.export(str(path), slide=slide) == path
        self.check(path, heatmap, slide)

    def test_needs_no_slide(self, heatmap, path):
        export(heatmap, path)
        self.check(path, heatmap, None)

    def test_the_ending_in_capitals_is_the_same(self, heatmap, path):
        shouted = path.with_suffix(path.suffix.upper())
        assert choose_format(shouted) is self.row
        assert export(heatmap, shouted).exists()

    def test_the_format_may_be_named(self, heatmap, path):
        other = path.with_suffix(".something")
        assert export(heatmap, other, format=self.name) == other
        self.check(other, heatmap, None)

    def test_writing_again_gives_the_same_bytes(self, heatmap, slide, path):
        first = export(heatmap, path, slide=slide).read_bytes()
        assert export(heatmap, path, slide=slide).read_bytes() == first

    def test_leaves_the_heatmap_alone(self, heatmap, path):
        values, state = heatmap.values.copy(), heatmap.state.copy()
        export(heatmap, path)
        np.testing.assert_array_equal(heatmap.values, values)
        np.testing.assert_array_equal(heatmap.state, state)

    def test_is_replaced_only_when_the_new_one_is_whole(self, heatmap, path, monkeypatch):
        path.write_text("the old one")

        def full(*_args):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StoreFullError, match="No space left on device"):
            export(heatmap, path)
        assert path.read_text() == "the old one"
        assert [file.name for file in path.parent.iterdir()] == [path.name]

    def test_leaves_no_other_file(self, heatmap, path):
        export(heatmap, path)
        assert [file.name for file in path.parent.iterdir()] == [path.name]

    @pytest.mark.skipif(os.name == "nt", reason="Windows has other rights")
    def test_others_may_read_it_as_any_new_file(self, heatmap, path):
        usual = path.with_name("usual")
        usual.touch()
        export(heatmap, path)
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)

    def test_a_folder_is_refused(self, heatmap, path):
        path.mkdir()
        with pytest.raises(ExportError, match="there is a folder"):
            export(heatmap, path)

    def test_a_link_is_refused(self, heatmap, path):
        victim = path.with_name("victim")
        victim.write_text("precious")
        path.symlink_to(victim)
        with pytest.raises(ExportError, match="there is a link"):
            export(heatmap, path)
        assert victim.read_text() == "precious"

    def test_the_folder_must_be_there(self, heatmap, path):
        with pytest.raises(ExportError, match="no such folder"):
            export(heatmap, path.parent / "nowhere" / path.name)

    def test_an_unknown_option_names_those_there_are(self, heatmap, path):
        with pytest.raises(ExportError, match=r"no option 'colour'.*there are"):
            export(heatmap, path, colour="red")
        assert not path.exists()
