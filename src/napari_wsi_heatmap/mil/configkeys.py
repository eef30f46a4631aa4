"""The keys of a configuration of the MIL pipeline: a table, one row a key.

Both CLAM's spelling and MIL-Lab's are known. A key that has no effect here says why (`idle`); one
that has an effect only with an encoder, or only with features from files, says that (`only`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.mil.configkinds import (
    anything,
    ending,
    flag,
    folders,
    name,
    number,
    numbers_by_name,
    one_of,
    overlap,
    share_or_auto,
    text,
    whole,
)

if TYPE_CHECKING:
    from napari_wsi_heatmap.mil.configkinds import Check

ENCODER, FEATURES = "an encoder", "features from files"
"""Where the features come from: made from the slide, or read from files."""

_READ = "it is read from the checkpoint's tensors"
_TRAINING = "it belongs to training"


@dataclass(frozen=True)
class Key:
    """One key of a section."""

    name: str
    check: Check
    default: Any = None
    effect: str = ""
    """For people, one line."""
    idle: str = ""
    """Why the key has no effect here; empty if it has one."""
    only: str = ""
    """`ENCODER` or `FEATURES` if it has an effect only with these."""
    also: tuple[str, ...] = ()
    """Other spellings."""
    required: bool = False
    example: Any = None
    """What the template has, where that is not the default."""


@dataclass(frozen=True)
class Section:
    """One section of a configuration."""

    what: str
    keys: tuple[Key, ...]

    def key(self, spelling: str) -> Key | None:
        """Find a key by one of its spellings."""
        return next((key for key in self.keys if spelling in (key.name, *key.also)), None)


def _idle(name_: str, why: str) -> Key:
    return Key(name_, anything, idle=why)


EXPERIMENT = Section(
    "the experiment: its name, and where it is written",
    (
        Key("save_exp_code", name, required=True, example="HEATMAP_DEMO",
            effect="name of the experiment, and of its folders"),
        Key("raw_save_dir", text, "heatmaps/heatmap_raw_results",
            effect="folder for scores and features: {raw_save_dir}/{save_exp_code}/{label}/{id}/"),
        Key("production_save_dir", text, "heatmaps/heatmap_production_results",
            effect="folder for pictures, sampled patches and results.csv"),
        Key("n_classes", whole(1), effect="classes of the checkpoint; only checked against it"),
        Key("batch_size", whole(1), only=ENCODER, effect="patches that the encoder sees at once"),
    ),
)  # fmt: skip
DATA = Section(
    "the slides, and the features of their patches",
    (
        Key("data_dir", folders, required=True, example="slides",
            effect="folder of the slides; or a list of folders; or a mapping key: folder"),
        Key("data_dir_key", text, "source",
            effect="column of the process list that says which of several folders"),
        Key("process_list", text, effect="CSV of the slides to work on; null: all slides there"),
        Key("slide_ext", ending, (".svs",), example=".svs",
            effect="ending of the slides' files, or a list of endings"),
        Key("features_dir", text, "features", only=FEATURES, example="features/h5_files",
            effect="folder of {id}.pt or {id}.h5, made by CLAM, TRIDENT, STAMP or MIL-Lab"),
        Key("label_dict", numbers_by_name,
            effect="label: number; a label that is a number gets its name"),
        Key("preset", text, effect="CSV of one row with the columns of tissue segmentation"),
    ),
)  # fmt: skip
PATCHING = Section(
    "the patches; optional where the files of features say all of it",
    (
        Key("patch_size", whole(1), example=256, effect="pixels of a patch at patch_level"),
        Key("patch_level", whole(0), 0, effect="level of the slide's pyramid, 0 the finest"),
        Key("custom_downsample", whole(1), 1, effect="patches are so many times as large"),
        Key("overlap", overlap, 0.0,
            effect="share of a patch that its neighbour covers too: a finer map, and wider blur"),
    ),
)  # fmt: skip
ENCODING = Section(
    "the encoder that makes features from the slide; leave it out to read them from files",
    (
        Key("model_name", text, example=None,
            effect="resnet50_trunc, uni_v1, virchow2, … or a model file"),
        Key("target_img_size", whole(1), only=ENCODER,
            effect="pixels that a patch is resized to; null: what the encoder takes"),
        Key("weights", text, only=ENCODER,
            effect="file with the encoder's weights, or hf://owner/name@commit; null: the cache"),
    ),
)  # fmt: skip
MODEL = Section(
    "the trained MIL model; what it is, is read from its tensors",
    (
        Key("ckpt_path", text, required=True, example="checkpoint.pt", effect="the checkpoint"),
        Key("model_type", text, example=None,
            effect="abmil, clam_sb, clam_mb, transmil or dsmil; only checked"),
        Key("n_classes", whole(1), effect="only checked"),
        Key("in_dim", whole(1), also=("embed_dim",), effect="numbers a patch; only checked"),
        Key("attention_dim", whole(1), also=("attn_dim",),
            effect="only checked; another one is told, no error"),
        Key("heads", whole(1), also=("num_heads", "n_heads"), effect="only checked"),
        Key("gated", flag, also=("gate",), effect="only checked"),
        Key("attention", text,
            effect="score of a patch: TransMIL dot, nystrom; DS-MIL attention, instances"),
        Key("branch", whole(0), also=("attention_class",),
            effect="class whose attention is drawn; null: the predicted one"),
        Key("dropout", anything, idle=_TRAINING, also=("drop_out",)),
        _idle("model_size", _READ),
        _idle("initiate_fn", _READ),
        _idle("encoder", "encoder_arguments.model_name says what makes features"),
        _idle("postfix", _READ),
        _idle("bag_loss", _TRAINING),
        _idle("instance_loss_fn", _TRAINING),
        _idle("B", _TRAINING),
        _idle("k_sample", _TRAINING),
        _idle("subtyping", _TRAINING),
        _idle("no_inst_cluster", _TRAINING),
    ),
)  # fmt: skip
HEATMAP = Section(
    "the pictures",
    (
        Key("vis_level", whole(-1), -1,
            effect="level of the slide's pyramid to draw at; -1: about 32 times smaller"),
        Key("alpha", number(0, 1), 0.4, effect="0: the slide alone … 1: the colours alone"),
        Key("cmap", text, "jet", effect="colour map: jet, coolwarm, viridis, plasma, hot, …"),
        Key("convert_to_percentiles", flag, True, effect="colours by rank among the patches"),
        Key("display", one_of("minmax", "weights"), "minmax",
            effect="without percentiles: from smallest to largest score, or attention weight"),
        Key("use_ref_scores", flag, True, only=ENCODER,
            effect="ranks of overlapping patches are among those without overlap"),
        Key("blur", flag, False, effect="smooth the colours"),
        Key("binarize", flag, False, effect="draw what is above binary_thresh, in one colour"),
        Key("binary_thresh", share_or_auto, -1.0,
            effect="share in 0…1; -1: 1 / number of patches"),
        Key("blank_canvas", flag, False, effect="white instead of the slide"),
        Key("segment", flag, True, effect="colour only where tissue is found"),
        Key("custom_downsample", number(1), 1.0, effect="pictures are so many times smaller"),
        Key("save_orig", flag, True, effect="also the slide without colours"),
        Key("save_ext", one_of("png", "jpg", "tiff", also={
            "jpeg": "jpg", "tif": "tiff", ".png": "png", ".jpg": "jpg", ".tiff": "tiff",
            ".tif": "tiff", ".jpeg": "jpg"}), "png",
            effect="png, jpg, or tiff: a pyramid that slide viewers open"),
        Key("use_roi", flag,
            effect="only the box of columns x1, y1, x2, y2; null: where they are filled in"),
        Key("use_center_shift", flag, True, only=ENCODER,
            effect="a patch is taken if one of four points about its centre is tissue"),
        Key("calc_heatmap", flag, True, only=ENCODER,
            effect="draw patches that overlap by patching_arguments.overlap"),
    ),
)  # fmt: skip
SAMPLING = Section(
    "patches that are saved as pictures; optional",
    (Key("samples", anything, (), effect="a list; each has the keys below"),),
)
SAMPLE_KEYS = Section(
    "one sample",
    (
        Key("name", name, required=True, example="top_attention_patches",
            effect="name of its folder"),
        Key("sample", flag, True, effect="false: leave this sample out"),
        Key("mode", one_of("topk", "bottomk", "range", also={
            "reverse_topk": "bottomk", "range_sample": "range", "top_k": "topk",
            "bottom_k": "bottomk"}), "topk",
            effect="topk, bottomk (reverse_topk), range (range_sample)"),
        Key("k", whole(1), 15, effect="how many"),
        Key("seed", whole(0), 1, effect="of the choice within a range"),
        Key("score_start", number(0, 1), 0.0, effect="range: from this share of ranks …"),
        Key("score_end", number(0, 1), 1.0, effect="… to this one"),
    ),
)  # fmt: skip

SECTIONS: dict[str, Section] = {
    "exp_arguments": EXPERIMENT,
    "data_arguments": DATA,
    "patching_arguments": PATCHING,
    "encoder_arguments": ENCODING,
    "model_arguments": MODEL,
    "heatmap_arguments": HEATMAP,
    "sample_arguments": SAMPLING,
}
"""By their names in the file, in the order of the template."""
