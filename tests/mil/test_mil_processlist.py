"""The process list, and the slides of a configuration."""

from __future__ import annotations

import csv

import pytest
from pipeline_made import millab_sections, write_yaml

from napari_wsi_heatmap.errors import HeatmapError
from napari_wsi_heatmap.mil.config import read_config
from napari_wsi_heatmap.mil.configkinds import LONGEST_NAME
from napari_wsi_heatmap.mil.makelist import make_process_list
from napari_wsi_heatmap.mil.processlist import box_of, read_rows
from napari_wsi_heatmap.mil.segmentation import COLUMNS, Segmentation
from napari_wsi_heatmap.mil.slidelist import Entry, Refused, bare, entries_of
from napari_wsi_heatmap.mil.yamlfile import ConfigError


@pytest.fixture
def listed(tmp_path):
    """Entries of a configuration with this list, over folders with these (empty) slides."""

    def listing(text, *, slides=("a.tif", "b.tif"), **data):
        folder = tmp_path / "slides"
        folder.mkdir(exist_ok=True)
        for name in slides:
            (folder / name).touch()
        sections = millab_sections(tmp_path)
        if text is not None:
            (tmp_path / "list.csv").write_text(text)
            sections["data_arguments"]["process_list"] = "list.csv"
        sections["data_arguments"] |= data
        return entries_of(read_config(write_yaml(tmp_path / "config.yaml", sections)))

    return listing


def ids(entries):
    return [entry.slide_id for entry in entries]


def refused(entries):
    (entry,) = [entry for entry in entries if isinstance(entry, Refused)]
    assert "\n" not in str(entry.error)
    return str(entry.error)


# R11, R16, R17


def test_ids_with_and_without_ending(listed):
    entries = listed("slide_id,label,process\na.tif,normal,1\nb,tumor,1\n")
    assert ids(entries) == ["a", "b"]
    assert [entry.label for entry in entries] == ["normal", "tumor"]
    assert [entry.slide.name for entry in entries] == ["a.tif", "b.tif"]


def test_slides_that_are_not_to_be_processed(listed):
    assert ids(listed("slide_id,process\na,0\nb,1.0\n")) == ["b"]
    assert ids(listed("slide_id,process\na,False\nb,\n")) == ["b"]
    with pytest.raises(ConfigError, match=r"process of a is 'maybe'.*1 or 0"):
        listed("slide_id,process\na,maybe\n")
    with pytest.raises(ConfigError, match="no slide is to be processed"):
        listed("slide_id,process\na,0\n")


def test_a_list_of_ids_and_files_alone(listed):
    (entry,) = listed("slide_id,features_path,coords_path\na,f/a.pt,c/a.h5\n")
    assert (entry.label, entry.features, entry.coords) == ("Unspecified", "f/a.pt", "c/a.h5")


def test_empty_cells_count_as_absent(listed):
    header = "slide_id,label,features_path,coords_path,x1,y1,x2,y2,sthresh"
    (entry,) = listed(f"{header}\na,,,,,,,,\n")
    assert entry == Entry("a", "Unspecified", entry.slide)


def test_without_a_list_all_slides_of_the_folder(listed):
    assert ids(listed(None, slides=("b.tif", "a.TIF", "c.txt", ".hidden.tif"))) == ["a", "b"]


def test_ids_stay_text(listed):
    assert ids(listed("slide_id\n007\n1e5\n", slides=("007.tif", "1e5.tif"))) == ["007", "1e5"]


def test_a_list_as_a_spreadsheet_saves_it(listed):
    entries = listed("\ufeffslide_id;label\r\n a ;normal\r\n\r\nb;\r\n;\r\n")
    assert [(e.slide_id, e.label) for e in entries] == [("a", "normal"), ("b", "Unspecified")]


def test_labels_that_are_numbers_get_their_names(listed):
    entries = listed("slide_id,label\na,1\nb,0.0\n")
    assert [entry.label for entry in entries] == ["tumor", "normal"]


def test_several_endings(listed):
    entries = listed(None, slides=("a.tif", "b.svs", "c.ndpi"), slide_ext=[".svs", "tif"])
    assert ids(entries) == ["a", "b"]
    entries = listed("slide_id\na\nb\n", slide_ext=[".svs", "tif"])
    assert [entry.slide.name for entry in entries] == ["a.tif", "b.svs"]
    assert bare("TCGA-AA.0c1d.svs", (".svs",)) == "TCGA-AA.0c1d"
    assert bare("TCGA-AA.0c1d", (".svs",)) == "TCGA-AA.0c1d"


# R19


def test_several_folders_by_a_key(listed, tmp_path):
    for key in ("one", "two"):
        (tmp_path / key).mkdir()
        (tmp_path / key / f"{key}.tif").touch()
    folders = {"A": str(tmp_path / "one"), "B": str(tmp_path / "two")}
    text = "slide_id,centre,label\none,A,normal\ntwo,B,tumor\none_more,C,\n"
    entries = listed(text, data_dir=folders, data_dir_key="centre")
    assert [entry.slide.parent.name for entry in entries[:2]] == ["one", "two"]
    assert "'C', and data_dir has no such key" in refused(entries)
    assert ids(listed(None, data_dir=folders)) == ["one", "two"]
    with pytest.raises(ConfigError, match="no column 'source'"):
        listed(text, data_dir=folders)


def test_a_list_of_folders_is_searched_in_order(listed, tmp_path):
    for key in ("one", "two"):
        (tmp_path / key).mkdir()
        (tmp_path / key / f"{key}.tif").touch()
    folders = [str(tmp_path / "one"), str(tmp_path / "two")]
    assert ids(listed(None, data_dir=folders)) == ["one", "two"]
    assert ids(listed("slide_id\ntwo\n", data_dir=folders)) == ["two"]
    (tmp_path / "two" / "one.tif").touch()
    with pytest.raises(ConfigError, match=r"more than once: one \(.*one.tif"):
        listed(None, data_dir=folders)


# R18


def test_where_a_list_may_lie(tmp_path, monkeypatch, listed):
    (tmp_path / "heatmaps" / "process_lists").mkdir(parents=True)
    (tmp_path / "heatmaps" / "process_lists" / "demo.csv").write_text("slide_id\na\n")
    for named in ("demo.csv", "heatmaps/process_lists/demo.csv"):
        assert ids(listed(None, process_list=named)) == ["a"]
    with pytest.raises(ConfigError, match="process_list not found"):
        listed(None, process_list="none.csv")


# R23


def test_a_region_is_read_as_yx(listed):
    (entry,) = listed("slide_id,x1,y1,x2,y2\na,10,20,300,400\n")
    assert entry.box == (20, 10, 400, 300)


@pytest.mark.parametrize(
    "cells", ["10,20,,400", "10,20,5,400", "10,20,30,a", "-1,0,5,5", "0,0,inf,5", "nan,0,5,5"]
)
def test_a_region_that_is_none_refuses_its_slide_alone(listed, cells):
    entries = listed(f"slide_id,x1,y1,x2,y2\na,{cells}\nb,,,,\n")
    assert "x1, y1, x2, y2 are" in refused(entries)
    assert ids(entries) == ["a", "b"]


def test_no_region():
    assert box_of({"slide_id": "a"}) is None


# CLAM's columns


def test_columns_of_segmentation_win_over_the_preset(listed, tmp_path):
    (tmp_path / "preset.csv").write_text("sthresh,a_t,use_otsu\n20,7,TRUE\n")
    columns = "slide_id,sthresh,keep_ids,exclude_ids,contour_fn,max_n_holes"
    text = f'{columns}\na,8,"0,2",none,center,3.0\nb,,,,,\n'
    first, second = (e.segmentation for e in listed(text, preset="preset.csv"))
    assert second == Segmentation(sthresh=20, a_t=7, use_otsu=True)
    assert (first.sthresh, first.a_t, first.use_otsu) == (8, 7, True)
    assert (first.keep_ids, first.exclude_ids) == ((0, 2), ())
    assert (first.contour_fn, first.max_n_holes) == ("center", 3)
    assert set(COLUMNS) == set(first.plain)


def test_a_preset_of_clam_is_known_where_clam_is_not(listed):
    (entry, _) = listed(None, preset="presets/bwh_biopsy.csv")
    assert (entry.segmentation.a_t, entry.segmentation.max_n_holes) == (1, 2)
    with pytest.raises(ConfigError, match="preset not found"):
        listed(None, preset="presets/mine.csv")


@pytest.mark.parametrize(("column", "cell"), [
    ("sthresh", "300"), ("mthresh", "0"), ("use_otsu", "perhaps"), ("keep_ids", "a,b"),
    ("contour_fn", "five_pt"), ("seg_level", "-2"), ("a_t", "-1"), ("max_n_holes", "1.5"),
])  # fmt: skip
def test_a_column_that_cannot_be_refuses_its_slide_alone(listed, column, cell):
    entries = listed(f'slide_id,{column}\na,"{cell}"\nb,\n')
    line = refused(entries)
    assert f"column {column} is {cell!r}" in line
    assert "give " in line


# malformed


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the table is empty"),
        ("slideid,label\na,b\n", "no column slide_id: is it 'slideid'?"),
        ("a,b\n1,2\n", "no column slide_id"),
        ("slide_id,label,label\na,b,c\n", "column 'label' stands there twice"),
        ("slide_id,label\na,b,c\n", "line 2 has 3 cells under 2 column names"),
        ("slide_id,label\n,b\n", "a row has no slide_id"),
        ("slide_id\na\na.tif\n", "1 slide id stands there more than once: a"),
        ("slide_id\n" + "".join(f"{i}\n{i}\n" for i in range(9)), "9 slide ids"),
        ('slide_id\n"a\n', "no CSV table"),
        ("slide_id\na\0b\n", "no CSV table"),
    ],
    ids=range(10),
)
def test_malformed_lists(listed, text, why):
    try:
        line = refused(listed(text))
    except ConfigError as error:
        line = str(error)
        assert "\n" not in line
    assert why in line


@pytest.mark.parametrize("slide_id", [
    "../../secret", "/etc/passwd", "..", "sub/../../a", "a\\..\\b", "x" * (LONGEST_NAME + 1),
])  # fmt: skip
def test_ids_that_lead_out_of_the_folder(listed, slide_id):
    line = refused(listed(f"slide_id\n{slide_id}\nb\n"))
    assert "leads out of its folder" in line


@pytest.mark.parametrize("label", ["../up", "/tmp", "a/b", ".."])
def test_labels_that_lead_out_of_the_folder(listed, label):
    line = refused(listed(f"slide_id,label\na,{label}\nb,\n"))
    assert "label" in line
    assert "leads out of its folder" in line


def test_a_slide_that_is_not_there(listed, tmp_path):
    line = refused(listed("slide_id\na\nmissing\n"))
    assert "no slide missing.tif" in line
    assert str(tmp_path / "slides") in line


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"slide_id\n\xff\xfe\n")
    with pytest.raises(ConfigError, match="no CSV table"):
        read_rows(tmp_path / "a.csv")


# R32


def test_a_list_made_of_folders(tmp_path):
    slides, features = tmp_path / "slides", tmp_path / "features"
    for path in ("slides/a.svs", "slides/b.svs", "slides/c.tif", "features/pt_files/a.pt",
                 "features/h5_files/a.h5", "features/h5_files/c.h5"):  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    out = tmp_path / "list.csv"
    assert make_process_list(slides, features, out, (".svs",)) == (2, 1)
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["slide_id", "process", "features_path", "coords_path"]
    assert rows[0] == {
        "slide_id": "a",
        "process": "1",
        "features_path": str(features / "pt_files/a.pt"),
        "coords_path": str(features / "h5_files/a.h5"),
    }
    assert rows[1] == {"slide_id": "b", "process": "1", "features_path": "", "coords_path": ""}
    with pytest.raises(HeatmapError, match="there is a file already"):
        make_process_list(slides, features, out, (".svs",))
    assert make_process_list(slides, features / "h5_files", tmp_path / "2.csv", (".tif",)) == (1, 0)
    for wrong in ((slides, tmp_path / "none"), (tmp_path / "none", features), (features, features)):
        with pytest.raises(ConfigError):
            make_process_list(*wrong, tmp_path / "3.csv", (".svs",))
