"""What a slide says about itself, for programs and for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import one_line
from napari_wsi_heatmap.slides.icc import profile_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_wsi_heatmap.slides.base import Level, Slide


def slide_facts(slide: Slide) -> dict[str, Any]:
    """Everything about a slide as plain values; shapes and positions are (y, x)."""
    return {
        "path": slide.path,
        "name": slide.name,
        "format": slide.format,
        "compression": slide.compression,
        "backend": slide.backend,
        "why_this_backend": slide.why or None,
        "levels": [
            {"shape": list(level.shape), "downsample": list(level.downsample),
             "tile": list(level.tile)}
            for level in slide.levels
        ],
        "mpp": None if slide.mpp is None else list(slide.mpp),
        "mpp_source": slide.mpp_source,
        "objective_power": slide.objective_power,
        "bounds": list(slide.bounds),
        "background": list(slide.background),
        "colours": slide.colours,
        "icc_profile": profile_name(slide.icc_profile),
        "associated_images": list(slide.associated_images),
        "warnings": list(slide.warnings),
        "fingerprint": slide.fingerprint,
        "properties": dict(slide.properties),
    }  # fmt: skip


def slide_lines(slide: Slide) -> Iterator[str]:
    """The same in a few lines, the most important first."""
    yield one_line(slide.name)
    for title, text in _parts(slide):
        yield f"  {title:<11} {one_line(text, 400)}"


def _parts(slide: Slide) -> Iterator[tuple[str, str]]:
    yield "format", slide.format or "unknown"
    if slide.compression:
        yield "compression", slide.compression
    yield "read by", f"{slide.backend} ({slide.why})" if slide.why else slide.backend
    yield "size", _size(slide)
    yield "pixel size", _pixel_size(slide)
    for index, level in enumerate(slide.levels):
        yield "levels" if index == 0 else "", _level(index, level)
    yield "scanned", _bounds(slide)
    yield "background", "RGB {} {} {}".format(*slide.background)
    yield "colours", _colours(slide)
    yield "images", ", ".join(slide.associated_images) or "none"
    for index, warning in enumerate(slide.warnings):
        yield "warnings" if index == 0 else "", warning


def _size(slide: Slide) -> str:
    height, width = slide.levels[0].shape
    text = f"{height} × {width} px (height × width)"
    if slide.mpp is None:
        return text
    return text + f", {height * slide.mpp[0] / 1000:.3g} × {width * slide.mpp[1] / 1000:.3g} mm"


def _pixel_size(slide: Slide) -> str:
    power = "" if slide.objective_power is None else f", objective {slide.objective_power:g}x"
    if slide.mpp is None:
        return f"not known{power}"
    y, x = slide.mpp
    text = f"{y:.4g}" if f"{y:.4g}" == f"{x:.4g}" else f"{y:.4g} × {x:.4g}"
    source = f" ({slide.mpp_source})" if slide.mpp_source else ""
    return f"{text} µm{source}{power}"


def _level(index: int, level: Level) -> str:
    (height, width), (down_y, down_x) = level.shape, level.downsample
    down = f"{down_y:g}" if down_y == down_x else f"{down_y:.6g} × {down_x:.6g}"
    return (
        f"{index}: {height} × {width}, downsample {down}, tiles {level.tile[0]} × {level.tile[1]}"
    )


def _bounds(slide: Slide) -> str:
    y, x, height, width = slide.bounds
    if (height, width) == slide.levels[0].shape:
        return "all of it"
    return f"{height} × {width} px at y {y}, x {x}"


def _colours(slide: Slide) -> str:
    profile = profile_name(slide.icc_profile)
    if profile is None:
        return f"{slide.colours}, no ICC profile"
    if profile in slide.colours:
        return slide.colours
    return f"{slide.colours}; ICC profile: {profile}"
