"""A slide that gets another label: nothing stays under the old one but what others have made."""

from __future__ import annotations

from pipeline_made import make_clam, make_millab

from napari_wsi_heatmap.mil.config import read_config
from napari_wsi_heatmap.mil.pipeline import run_config


def run(config, **settings):
    outcomes = list(run_config(read_config(config), device="cpu", **settings))
    assert [outcome.error for outcome in outcomes] == [""] * len(outcomes)
    return outcomes


def names(folder):
    found = (path.relative_to(folder) for path in folder.rglob("*") if ".zarr/" not in str(path))
    return sorted(map(str, found))


def relabelled(config, listed, text):
    listed.write_text(text)
    return run(config, trust=True)


def test_all_that_was_written_moves_to_the_new_label(tmp_path, monkeypatch):
    config = make_millab(tmp_path, ("normal_1",))
    listed = tmp_path / "list.csv"
    config.write_text(config.read_text().replace("process_list: null", f"process_list: {listed}"))
    relabelled(config, listed, "slide_id,label\nnormal_1,benign\n")
    before = {root: names(tmp_path / root) for root in ("raw", "production")}
    folder = tmp_path / "production" / "HEATMAP_DEMO" / "benign"
    mine = folder / "normal_1_original.png"
    relabelled(config, listed, "slide_id,label\nnormal_1,malign\n")
    for root, found in before.items():
        now = names(tmp_path / root)
        assert now == sorted(name.replace("benign", "malign") for name in found)
    folder.mkdir()
    mine.write_bytes(b"mine")
    relabelled(config, listed, "slide_id,label\nnormal_1,benign\n")
    changed = tmp_path / "production" / "HEATMAP_DEMO" / "benign" / "normal_1_heatmap.png"
    changed.write_bytes(b"edited")
    relabelled(config, listed, "slide_id,label\nnormal_1,malign\n")
    assert names(folder) == ["normal_1_heatmap.png"]


def test_features_that_were_made_are_not_made_again(tmp_path, monkeypatch):
    config = make_clam(tmp_path)
    monkeypatch.chdir(tmp_path)
    listed = tmp_path / "heatmaps" / "process_lists" / "heatmap_demo_dataset.csv"
    relabelled(config, listed, "slide_id,label\nslide_a,LUAD\n")
    raw = tmp_path / "raw" / "HEATMAP_OUTPUT"
    made = {p: p.stat().st_mtime_ns for p in raw.glob("LUAD/*/*.zarr/features/**/*") if p.is_file()}
    assert made
    relabelled(config, listed, "slide_id,label\nslide_a,LSCC\n")
    assert not (raw / "LUAD").exists()
    for path, when in made.items():
        assert (raw / "LSCC" / path.relative_to(raw / "LUAD")).stat().st_mtime_ns == when
