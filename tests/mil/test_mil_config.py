"""The YAML of the MIL pipeline: what it may say, and one line for what it may not."""

from __future__ import annotations

import re

import pytest
import yaml
from pipeline_made import clam_sections, millab_sections, write_yaml

from napari_wsi_heatmap.errors import HeatmapError
from napari_wsi_heatmap.mil.colours import colour_table
from napari_wsi_heatmap.mil.config import read_config
from napari_wsi_heatmap.mil.configkeys import SAMPLE_KEYS, SECTIONS
from napari_wsi_heatmap.mil.template import make_config, markdown, template
from napari_wsi_heatmap.mil.yamlfile import ConfigError

DOCS = "docs/mil.md"


@pytest.fixture
def sections(tmp_path):
    return millab_sections(tmp_path)


@pytest.fixture
def read(tmp_path):
    def reading(sections):
        return read_config(write_yaml(tmp_path / "config.yaml", sections))

    return reading


@pytest.fixture
def refused(tmp_path):
    """Read text or sections that must be refused in one line; give the line."""

    def refusing(content):
        path = tmp_path / "bad.yaml"
        text = content if isinstance(content, (str, bytes)) else yaml.safe_dump(content)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ConfigError) as caught:
            read_config(path)
        line = str(caught.value)
        assert "\n" not in line
        assert str(path) in line
        return line

    return refusing


# R7 to R14: what a configuration says


def test_a_file_of_millab_is_understood_unchanged(read, sections):
    config = read(sections)
    assert config.experiment["save_exp_code"] == "HEATMAP_DEMO"
    assert config.data["slide_ext"] == (".tif",)
    assert config.data["process_list"] is None
    assert config.data["label_dict"] == {"normal": 0, "tumor": 1}
    assert config.model["in_dim"] == 12
    assert config.model["attention_dim"] == 256
    assert not config.encodes
    heatmap = config.heatmap
    assert (heatmap["vis_level"], heatmap["alpha"], heatmap["cmap"]) == (-1, 0.4, "jet")
    assert (heatmap["save_orig"], heatmap["save_ext"]) == (True, "png")
    (sample,) = config.samples
    assert (sample.name, sample.k, sample.mode, sample.seed) == (
        "top_attention_patches",
        4,
        "topk",
        1,
    )
    assert sorted(config.notices) == [
        "exp_arguments.batch_size has no effect: the features are read from files",
        "model_arguments.dropout has no effect: it belongs to training",
        "model_arguments.encoder has no effect: encoder_arguments.model_name says what makes "
        "features",
        "model_arguments.postfix has no effect: it is read from the checkpoint's tensors",
    ]


def test_a_file_of_clam_is_understood_unchanged(read, tmp_path):
    config = read(clam_sections(tmp_path))
    assert config.encodes
    assert config.encoder["target_img_size"] == 32
    assert config.model["in_dim"] == 12
    assert config.patching["overlap"] == 0.5
    assert config.heatmap["calc_heatmap"] is True
    assert config.heatmap["use_roi"] is False
    assert config.heatmap["save_ext"] == "jpg"
    told = {notice.split(" has no effect")[0] for notice in config.notices}
    assert told == {f"model_arguments.{key}" for key in ("initiate_fn", "model_size", "drop_out")}


def test_sections_that_are_missing_have_their_defaults(read, sections):
    for name in ("patching_arguments", "heatmap_arguments", "sample_arguments"):
        del sections[name]
    config = read(sections)
    assert config.heatmap["save_orig"] is True
    assert config.heatmap["convert_to_percentiles"] is True
    assert config.patching["patch_size"] is None
    assert config.samples == ()


def test_what_must_be_said_is_asked_for_by_name(refused, sections):
    for section, key in (
        ("exp_arguments", "save_exp_code"),
        ("data_arguments", "data_dir"),
        ("model_arguments", "ckpt_path"),
    ):
        fewer = sections | {section: {k: v for k, v in sections[section].items() if k != key}}
        assert f"{section}.{key} is missing" in refused(fewer)
    assert "exp_arguments.save_exp_code is missing" in refused({"heatmap_arguments": None})


def test_unknown_keys_are_told_with_what_may_be_meant(read, sections):
    sections["heatmap_arguments"] |= {"alhpa": 0.2, "ckpt_path": "a", "qqqq": 1}
    sections["sample_arguments"]["samples"][0]["mod"] = "topk"
    sections["heatmap_argument"] = {}
    told = [notice for notice in read(sections).notices if "not known" in notice]
    assert told == [
        "the key heatmap_arguments.alhpa is not known: did you mean alpha?",
        "the key heatmap_arguments.ckpt_path is not known: it belongs to model_arguments",
        "the key heatmap_arguments.qqqq is not known",
        "the section heatmap_argument is not known: did you mean heatmap_arguments?",
        "the key sample_arguments.samples[0].mod is not known: did you mean mode?",
    ]


def test_both_spellings_of_a_key(read, refused, sections):
    model = sections["model_arguments"]
    model["embed_dim"] = model.pop("in_dim")
    model["attn_dim"] = model.pop("attention_dim")
    config = read(sections)
    assert (config.model["in_dim"], config.model["attention_dim"]) == (12, 256)
    model["in_dim"] = 13
    assert "in_dim and embed_dim" in refused(sections)


@pytest.mark.parametrize(
    ("section", "key", "value", "wanted"),
    [
        ("exp_arguments", "save_exp_code", "../out", "a plain name"),
        ("exp_arguments", "save_exp_code", "..", "a plain name"),
        ("exp_arguments", "save_exp_code", "/etc", "a plain name"),
        ("exp_arguments", "save_exp_code", True, "a plain name|text"),
        ("exp_arguments", "raw_save_dir", ["a"], "text"),
        ("exp_arguments", "n_classes", "two", "whole number"),
        ("exp_arguments", "n_classes", 1.5, "whole number"),
        ("data_arguments", "data_dir", {"a": ["b"]}, "text"),
        ("data_arguments", "data_dir", [], "a folder"),
        ("data_arguments", "slide_ext", {"a": 1}, "text"),
        ("data_arguments", "label_dict", ["normal"], "mapping of labels"),
        ("data_arguments", "label_dict", {"a": 0, "b": 0}, "each of its own"),
        ("patching_arguments", "overlap", 1.0, "below 1"),
        ("patching_arguments", "patch_size", 0, "at least 1"),
        ("heatmap_arguments", "alpha", 1.5, "0…1"),
        ("heatmap_arguments", "alpha", [0.4], "0…1"),
        ("heatmap_arguments", "alpha", float("nan"), "0…1"),
        ("heatmap_arguments", "blur", "perhaps", "true or false"),
        ("heatmap_arguments", "save_ext", "gif", "png, jpg, tiff"),
        ("heatmap_arguments", "binary_thresh", -2, "-1"),
        ("heatmap_arguments", "vis_level", -2, "at least -1"),
        ("heatmap_arguments", "custom_downsample", 0.5, "at least 1"),
        ("sample_arguments", "samples", {"name": "a"}, "a list"),
        ("sample_arguments", "samples", [{"k": 1}], "name"),
        ("sample_arguments", "samples", [{"name": "../a"}], "plain name"),
        ("sample_arguments", "samples", [{"name": "a", "mode": "best"}], "topk, bottomk, range"),
        ("sample_arguments", "samples", [{"name": "a", "k": 0}], "at least 1"),
        ("sample_arguments", "samples", [{"name": "a"}, {"name": "a"}], "a name of its own"),
    ],
)
def test_wrong_values_are_named_with_what_is_wanted(refused, sections, section, key, value, wanted):
    sections[section][key] = value
    line = refused(sections)
    assert f"{section}.{key}" in line
    assert re.search(wanted, line)


def test_values_in_other_clothes(read, sections):
    sections["heatmap_arguments"] |= {"alpha": "4e-1", "blur": "True", "save_ext": ".TIF"}
    sections["exp_arguments"]["save_exp_code"] = 123
    sections["data_arguments"]["slide_ext"] = ["svs", ".NDPI"]
    config = read(sections)
    assert (config.heatmap["alpha"], config.heatmap["blur"]) == (0.4, True)
    assert config.heatmap["save_ext"] == "tiff"
    assert config.experiment["save_exp_code"] == "123"
    assert config.data["slide_ext"] == (".svs", ".ndpi")


@pytest.mark.parametrize("cmap", ["jet", "coolwarm", "viridis", "plasma", "hot", "magma"])
def test_colour_maps_by_their_names(cmap):
    assert colour_table(cmap).shape == (256, 3)


def test_both_spellings_of_modes(read, sections):
    sections["sample_arguments"]["samples"] = [
        {"name": "low", "mode": "reverse_topk"},
        {"name": "some", "mode": "range_sample", "score_start": 0.4, "score_end": 0.6},
        {"name": "none", "sample": False},
    ]
    low, some, none = read(sections).samples
    assert (low.mode, some.mode, none.sample) == ("bottomk", "range", False)
    assert (low.k, low.seed, low.score_start, low.score_end) == (15, 1, 0, 1)


# malformed files


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(8)
)
MERGED = "a: &a {x: 1}\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} {{<<: [{','.join(['*' + chr(97 + i)] * 10)}]}}\n"
    for i in range(8)
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        ("- a\n- b\n", "it holds a list"),
        ("just words", "it holds a str"),
        ("a: [1, 2", r"no YAML: .* \(line 1\)"),
        ("a:\n\t- 1\n", "no YAML"),
        (
            "exp_arguments: {}\nexp_arguments: {}\n",
            r"'exp_arguments' stands there twice \(line 2\)",
        ),
        ("exp_arguments:\n  a: 1\n  a: 2\n", r"'a' stands there twice \(line 3\)"),
        (BOMB, "aliases stand for more than 20,000 values"),
        (MERGED, "aliases stand for more than 20,000 values"),
        ("a: &a [*a]\n", "an alias stands within what it stands for"),
        ("a: " + "[" * 5000 + "]" * 5000, "no YAML|nested too deeply"),
        ("a: " + "[" * 50 + "]" * 50, "nested too deeply"),
        ("a: !!python/object/apply:os.system ['true']\n", "no YAML: could not determine"),
        ("a: 2024-99-99\n", "no YAML"),
        ("exp_arguments: 5\n", "exp_arguments is 5"),
        ("exp_arguments: [1]\n", "exp_arguments is"),
        (b"a: \xff\xfe", "no YAML"),
        (b"a: \x00", "no YAML"),
        ("a: " + "x" * (1 << 20), "larger than 1 MB"),
        ("a: 1\n---\nb: 2\n", "no YAML"),
    ],
    ids=range(20),
)
def test_malformed_files_are_refused_in_one_line(refused, text, why):
    assert re.search(why, refused(text))


def test_files_that_are_none(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        read_config(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match="is no file"):
        read_config(tmp_path)


def test_an_anchor_that_is_used_is_no_bomb(tmp_path, sections):
    text = yaml.safe_dump(sections) + "spare: &spare {alpha: 0.2}\nmore: *spare\n"
    (tmp_path / "a.yaml").write_text(text)
    assert len([n for n in read_config(tmp_path / "a.yaml").notices if "section" in n]) == 2


# R37: paths


def test_relative_paths_are_tried_here_then_beside_the_configuration(
    tmp_path, monkeypatch, sections
):
    home, here = tmp_path / "home", tmp_path / "here"
    for folder in (home, here):
        folder.mkdir()
    config = read_config(write_yaml(home / "config.yaml", sections))
    monkeypatch.chdir(here)
    (home / "a.csv").touch()
    assert config.find("a.csv", "process_list") == home / "a.csv"
    (here / "a.csv").touch()
    assert config.find("a.csv", "process_list") == here / "a.csv"
    assert config.find(str(home / "a.csv"), "process_list") == home / "a.csv"
    within = home / "heatmaps" / "process_lists"
    within.mkdir(parents=True)
    (within / "b.csv").touch()
    assert config.find("b.csv", "process_list", "heatmaps/process_lists") == within / "b.csv"
    with pytest.raises(ConfigError, match=r"ckpt_path not found") as caught:
        config.find("c.pt", "ckpt_path")
    for tried in (here / "c.pt", home / "c.pt"):
        assert str(tried) in str(caught.value)


# R7: the template


def test_the_template_is_read_without_a_word(tmp_path):
    make_config(tmp_path / "new.yaml")
    config = read_config(tmp_path / "new.yaml")
    assert config.notices == ()
    assert config.samples[0].name == "top_attention_patches"
    for section, keys in SECTIONS.items():
        for key in keys.keys:
            if not key.idle and key.example is None and section != "sample_arguments":
                assert config.values[section][key.name] == key.default


def test_the_template_explains_every_key():
    lines = template().splitlines()
    keys = [key for section in (*SECTIONS.values(), SAMPLE_KEYS) for key in section.keys]
    for key in keys:
        at = [i for i, line in enumerate(lines) if line.strip(" -").startswith(f"{key.name}:")]
        assert bool(at) != bool(key.idle), key.name
        assert all(lines[i - 1].strip().startswith("# ") for i in at)


def test_the_template_is_never_written_over_a_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("mine")
    with pytest.raises(HeatmapError, match="there is a file already"):
        make_config(tmp_path / "mine.yaml")
    assert (tmp_path / "mine.yaml").read_text() == "mine"


def test_every_key_has_an_effect_or_a_reason():
    for section in (*SECTIONS.values(), SAMPLE_KEYS):
        for key in section.keys:
            assert bool(key.effect) != bool(key.idle), key.name


def test_the_page_for_users_has_every_key(request):
    page = (request.config.rootpath / DOCS).read_text(encoding="utf-8")
    assert markdown() in page


# R41


def test_the_works_that_this_stands_on_are_cited(request):
    cited = yaml.safe_load((request.config.rootpath / "CITATION.cff").read_text(encoding="utf-8"))
    works = {work["title"]: work for work in cited["references"]}
    (lu,) = [work for work in works.values() if work.get("doi") == "10.1038/s41551-020-00682-w"]
    assert lu["authors"][0]["family-names"] == "Lu"
    assert (lu["year"], lu["volume"], lu["start"], lu["end"]) == (2021, 5, 555, 570)
    assert "PyDmed" in works
