"""Foundation encoders of pathology as a table: how each is built, what it sees, what it gives.

Sources are the models' own cards and the settings with which TRIDENT and CLAM extract features.
Weights are not part of this package; each has its own licence, and most ask to be agreed to on
Hugging Face.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

IMAGENET: Final = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: Final = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
BIOPTIMUS: Final = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
LUNIT: Final = ((0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464))

Pool = Literal["vector", "mean", "class", "class+mean"]
Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True)
class Encoder:
    """One foundation encoder."""

    title: str
    arch: str
    """Name in timm."""
    dim: int
    """D, the length of a window's feature vector."""
    repository: tuple[str, str]
    """Owner and name on Hugging Face."""
    file: str = "pytorch_model.bin"
    """Name of the weights there."""
    options: dict[str, Any] = field(default_factory=dict)
    """Given to timm; layers by their names."""
    statistics: Statistics = IMAGENET
    """Mean and standard deviation of what it takes."""
    size: int = 224
    """Pixels along what it takes."""
    field_um: float = 112.0
    """µm along what it sees: 224 px of 0.5 µm, or 256 px of these shrunk to 224."""
    pool: Pool = "vector"
    """How its output becomes a vector: it is one; the mean over pixels of its last feature map;
    the class token; or that and the mean of the patch tokens behind `prefix`."""
    prefix: int = 1
    """Tokens before those of the patches: the class token and registers."""
    unused: tuple[str, ...] = ()
    """Beginnings of the names of weights that are left out."""

    @property
    def mpp(self) -> float:
        """µm per pixel of what it takes."""
        return self.field_um / self.size


SHRUNK_UM: Final = 128.0
"""µm along 256 px of 0.5 µm."""
GATED_MLP: Final = {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}
VIRCHOW: Final = {
    "img_size": 224, "init_values": 1e-5, "num_classes": 0, "mlp_ratio": 5.3375,
    "global_pool": "", "dynamic_img_size": True, **GATED_MLP,
}  # fmt: skip
H_OPTIMUS: Final = {
    "img_size": 224, "init_values": 1e-5, "num_classes": 0, "global_pool": "token",
}  # fmt: skip
PLAIN: Final = {"num_classes": 0, "dynamic_img_size": True}
SAFE: Final = "model.safetensors"


def _kaiko(title: str, arch: str, dim: int, **options: Any) -> Encoder:
    name = arch.replace("_dinov2", "_224") if arch.endswith("_dinov2") else arch
    return Encoder(
        f"Kaiko {title}", arch, dim, ("1aurent", f"{name}.kaiko_ai_towards_large_pathology_fms"),
        SAFE, PLAIN | options, HALF, field_um=SHRUNK_UM,
    )  # fmt: skip


def _lunit(title: str, arch: str) -> Encoder:
    repository = "1aurent", f"{arch}.lunit_dino"
    return Encoder(f"Lunit DINO {title}", arch, 384, repository, SAFE, PLAIN, LUNIT)


ENCODERS: Final[dict[str, Encoder]] = {
    "resnet50-clam": Encoder(
        "ResNet-50 of CLAM, truncated after its third stage", "resnet50", 1024,
        ("timm", "resnet50.tv_in1k"), SAFE, {"features_only": True, "out_indices": (3,)},
        field_um=SHRUNK_UM, pool="mean", unused=("layer4.", "fc."),
    ),
    "uni": Encoder(
        "UNI", "vit_large_patch16_224", 1024, ("MahmoodLab", "UNI"),
        options={"init_values": 1e-5, **PLAIN}, field_um=SHRUNK_UM,
    ),
    "uni2": Encoder(
        "UNI2-h", "vit_giant_patch14_224", 1536, ("MahmoodLab", "UNI2-h"),
        options={
            "img_size": 224, "patch_size": 14, "depth": 24, "num_heads": 24, "init_values": 1e-5,
            "embed_dim": 1536, "mlp_ratio": 2.66667 * 2, "no_embed_class": True, "reg_tokens": 8,
            **PLAIN, **GATED_MLP,
        },
        field_um=SHRUNK_UM,
    ),
    "virchow": Encoder(
        "Virchow", "vit_huge_patch14_224", 2560, ("paige-ai", "Virchow"), options=VIRCHOW,
        pool="class+mean",
    ),
    "virchow2": Encoder(
        "Virchow2", "vit_huge_patch14_224", 2560, ("paige-ai", "Virchow2"),
        options=VIRCHOW | {"reg_tokens": 4}, pool="class+mean", prefix=5,
    ),
    "gigapath": Encoder(
        "Prov-GigaPath, its tile encoder", "vit_giant_patch14_dinov2", 1536,
        ("prov-gigapath", "prov-gigapath"),
        options={
            "img_size": 224, "patch_size": 16, "embed_dim": 1536, "depth": 40, "num_heads": 24,
            "init_values": 1e-5, "mlp_ratio": 5.33334, "num_classes": 0,
        },
    ),
    "hoptimus0": Encoder(
        "H-optimus-0", "vit_giant_patch14_reg4_dinov2", 1536, ("bioptimus", "H-optimus-0"),
        options=H_OPTIMUS, statistics=BIOPTIMUS,
    ),
    "hoptimus1": Encoder(
        "H-optimus-1", "vit_giant_patch14_reg4_dinov2", 1536, ("bioptimus", "H-optimus-1"),
        options=H_OPTIMUS, statistics=BIOPTIMUS,
    ),
    "gpfm": Encoder(
        "GPFM", "vit_large_patch14_dinov2", 1024, ("majiabo", "GPFM"), "GPFM.pth",
        {"img_size": 224, "init_values": 1e-5, "num_classes": 0},
    ),
    "kaiko-vits8": _kaiko("ViT-S/8", "vit_small_patch8_224", 384),
    "kaiko-vits16": _kaiko("ViT-S/16", "vit_small_patch16_224", 384),
    "kaiko-vitb8": _kaiko("ViT-B/8", "vit_base_patch8_224", 768),
    "kaiko-vitb16": _kaiko("ViT-B/16", "vit_base_patch16_224", 768),
    "kaiko-vitl14": _kaiko("ViT-L/14", "vit_large_patch14_reg4_dinov2", 1024, img_size=224),
    "lunit-vits8": _lunit("ViT-S/8", "vit_small_patch8_224"),
    "lunit-vits16": _lunit("ViT-S/16", "vit_small_patch16_224"),
}  # fmt: skip
"""By the name that `load_model` takes."""


def encoder_in(owner: str, name: str) -> str | None:
    """Name of the encoder whose weights a repository holds; None if there is none."""
    wanted = owner.lower(), name.lower()
    for key, encoder in ENCODERS.items():
        if tuple(part.lower() for part in encoder.repository) == wanted:
            return key
    return None
