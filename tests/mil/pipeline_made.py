"""Slides, features and configurations for the MIL pipeline, as CLAM's and MIL-Lab's users have."""

from __future__ import annotations

import h5py
import numpy as np
import torch
import yaml
from mil_made import D, clam, features, millab_abmil

from made_files import write_script
from made_slides import strided, write_tiff

SIDE, PATCH = (768, 1024), 64
NAMES = ("normal_1", "tumor_1", "tumor_2")


def stained(seed=0, tissue=True):
    """(768, 1024, 3) uint8: glass with an ellipse of stained tissue, and a hole in it."""
    y, x = np.mgrid[: SIDE[0], : SIDE[1]]
    noise = np.random.default_rng(seed).integers(-12, 13, (*SIDE, 3))
    pixels = np.full((*SIDE, 3), 240) + noise // 6
    if tissue:
        away = ((y - 384) / 300) ** 2 + ((x - 512) / 400) ** 2
        hole = ((y - 384) / 60) ** 2 + ((x - 512) / 60) ** 2
        inside = (away < 1) & (hole > 1)
        pixels[inside] = (np.array((190, 90, 160)) + noise)[inside]
    return pixels.clip(0, 255).astype(np.uint8)


def write_slide(path, seed=0, tissue=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_tiff(path, strided(stained(seed, tissue), 4))


def grid(step=PATCH):
    """(N, 2) (x, y) of patches that touch the ellipse."""
    found = [
        (x, y)
        for y in range(64, 704, step)
        for x in range(128, 896, step)
        if ((y + 32 - 384) / 300) ** 2 + ((x + 32 - 512) / 400) ** 2 < 1
    ]
    return np.array(found, np.int32)


def write_features(folder, name, seed=0, length=D, **attributes):
    """`h5_files` and `pt_files` as CLAM writes them."""
    coords = grid()
    found = features(len(coords), seed, length)
    for sub in ("h5_files", "pt_files"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    torch.save(torch.from_numpy(found), folder / "pt_files" / f"{name}.pt")
    with h5py.File(folder / "h5_files" / f"{name}.h5", "w") as file:
        file["features"] = found
        file["coords"] = coords
        file["coords"].attrs.update(attributes)
    return found, coords


def write_yaml(path, sections):
    path.write_text(yaml.safe_dump(sections, sort_keys=False))
    return path


def millab_sections(folder):
    """As MIL-Lab's heatmap template has them, with the paths of the made files."""
    return {
        "exp_arguments": {
            "n_classes": 2,
            "save_exp_code": "HEATMAP_DEMO",
            "raw_save_dir": str(folder / "raw"),
            "production_save_dir": str(folder / "production"),
            "batch_size": 256,
        },
        "data_arguments": {
            "data_dir": str(folder / "slides"),
            "slide_ext": ".tif",
            "features_dir": str(folder / "features" / "h5_files"),
            "process_list": None,
            "data_dir_key": "source",
            "label_dict": {"normal": 0, "tumor": 1},
        },
        "patching_arguments": {
            "patch_size": PATCH, "overlap": 0.0, "patch_level": 0, "custom_downsample": 1,
        },
        "model_arguments": {
            "ckpt_path": str(folder / "best_model.pth"),
            "model_type": "abmil",
            "n_classes": 2,
            "in_dim": D,
            "attention_dim": 256,
            "dropout": 0.25,
            "encoder": "uni",
            "postfix": "",
        },
        "heatmap_arguments": {
            "vis_level": -1,
            "alpha": 0.4,
            "blank_canvas": False,
            "save_orig": True,
            "save_ext": "png",
            "convert_to_percentiles": True,
            "blur": False,
            "binarize": False,
            "binary_thresh": -1,
            "custom_downsample": 1,
            "cmap": "jet",
        },
        "sample_arguments": {
            "samples": [
                {"name": "top_attention_patches", "sample": True, "k": 4, "mode": "topk", "seed": 1}
            ]
        },
    }  # fmt: skip


def make_millab(folder, names=NAMES):
    """Three slides, their features, a checkpoint of the fork's trainer, a configuration."""
    for seed, name in enumerate(names):
        write_slide(folder / "slides" / f"{name}.tif", seed)
        write_features(folder / "features", name, seed)
    state = {f"model.{k}": v for k, v in millab_abmil(classes=2).items()}
    torch.save({"model_state_dict": state, "best_epoch": 3}, folder / "best_model.pth")
    return write_yaml(folder / "config.yaml", millab_sections(folder))


class Encoder(torch.nn.Module):
    """(N, 3, H, W) -> (N, 12): means of quarters, by colour."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        quarters = torch.nn.functional.avg_pool2d(batch, batch.shape[2] // 2)
        return quarters.flatten(1) * 4 - 2


def clam_sections(folder):
    """As CLAM's heatmap template has them, with the paths of the made files."""
    return {
        "exp_arguments": {
            "n_classes": 3,
            "save_exp_code": "HEATMAP_OUTPUT",
            "raw_save_dir": str(folder / "raw"),
            "production_save_dir": str(folder / "production"),
            "batch_size": 16,
        },
        "data_arguments": {
            "data_dir": str(folder / "slides"),
            "data_dir_key": "source",
            "process_list": "heatmap_demo_dataset.csv",
            "preset": "presets/bwh_biopsy.csv",
            "slide_ext": ".tif",
            "label_dict": {"LUAD": 0, "LSCC": 1},
        },
        "patching_arguments": {
            "patch_size": PATCH, "overlap": 0.5, "patch_level": 0, "custom_downsample": 1,
        },
        "encoder_arguments": {
            "model_name": str(folder / "encoder.pt"), "target_img_size": 32,
        },
        "model_arguments": {
            "ckpt_path": str(folder / "s_0_checkpoint.pt"),
            "model_type": "clam_mb",
            "initiate_fn": "initiate_model",
            "model_size": "small",
            "drop_out": 0.0,
            "embed_dim": D,
        },
        "heatmap_arguments": {
            "vis_level": 1,
            "alpha": 0.4,
            "blank_canvas": False,
            "save_orig": True,
            "save_ext": "jpg",
            "use_ref_scores": True,
            "blur": False,
            "use_center_shift": True,
            "use_roi": False,
            "calc_heatmap": True,
            "binarize": False,
            "binary_thresh": -1,
            "custom_downsample": 1,
            "cmap": "jet",
        },
        "sample_arguments": {
            "samples": [
                {"name": "topk_high_attention", "sample": True, "seed": 1, "k": 3, "mode": "topk"}
            ]
        },
    }  # fmt: skip


def make_clam(folder):
    """Two slides, an encoder, CLAM-MB with three classes, a process list, a configuration."""
    for seed, name in enumerate(("slide_a", "slide_b")):
        write_slide(folder / "slides" / f"{name}.tif", seed)
    torch.save(clam(3), folder / "s_0_checkpoint.pt")
    write_script(folder / "encoder.pt", Encoder())
    lists = folder / "heatmaps" / "process_lists"
    lists.mkdir(parents=True)
    (lists / "heatmap_demo_dataset.csv").write_text(
        "slide_id,label,process,a_t,keep_ids\nslide_a.tif,LUAD,1,,\nslide_b.tif,1,1,0.5,none\n"
    )
    return write_yaml(folder / "clam.yaml", clam_sections(folder))
