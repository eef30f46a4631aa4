"""Files of features as CLAM, TRIDENT, STAMP and MIL-Lab write them."""

from __future__ import annotations

import h5py
import numpy as np


def vectors(n=30, length=12, seed=0):
    return np.random.default_rng(seed).standard_normal((n, length)).astype(np.float32)


def corners(n=30, step=256, across=7):
    """(N, 2) int64 (x, y), as all these files have them."""
    at = np.arange(n)
    return np.stack([at % across, at // across], 1).astype(np.int64) * step


def write(path, features=None, coords=None, *, attrs=None, on_features=None, on_coords=None,
          name="features", **options):  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update(attrs or {})
        if features is not None:
            node = file.create_dataset(name, data=features, **options)
            node.attrs.update(on_features or {})
        if coords is not None:
            node = file.create_dataset("coords", data=coords)
            node.attrs.update(on_coords or {})
    return path


def clam(folder, name="a", n=30):
    """``h5_files/a.h5`` without attributes, ``patches/a.h5`` with CLAM's."""
    write(folder / f"h5_files/{name}.h5", vectors(n), corners(n).astype(np.int32),
          chunks=(4, 12), maxshape=(None, 12))  # fmt: skip
    attrs = {"patch_size": 128, "patch_level": 1, "downsample": (2.0, 2.0), "name": name,
             "downsampled_level_dim": (9, 7), "level_dim": (9, 7), "save_path": "x"}  # fmt: skip
    write(folder / f"patches/{name}.h5", None, corners(n), on_coords=attrs)
    return folder / f"h5_files/{name}.h5"


def trident(path, n=30):
    attrs = {"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40,
             "target_magnification": 20, "overlap": 0, "name": "a", "savetodir": "None",
             "level0_width": 5000, "level0_height": 4000}  # fmt: skip
    on_features = {"name": "a", "savetodir": "None", "encoder": "uni_v1"}
    return write(path, vectors(n).astype(np.float16), corners(n, 512), on_features=on_features,
                 on_coords=attrs, chunks=(1, 12))  # fmt: skip


def stamp(path, n=30, **attrs):
    """Places in µm, 0.25 µm per pixel: patches of 256 px are 64 µm wide."""
    said = {"stamp_version": "2.0.0", "extractor": "uni", "unit": "um", "tile_size_um": 64.0,
            "tile_size_px": 224, "code_hash": "x", "feat_type": "tile"}  # fmt: skip
    coords = (corners(n) * 0.25).astype(np.float32)
    return write(path, vectors(n).astype(np.float16), coords, attrs=said | attrs, name="feats")
