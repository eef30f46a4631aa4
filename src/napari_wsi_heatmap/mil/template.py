"""A commented configuration to be copied and edited, made from the table of keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.mil.configkeys import SAMPLE_KEYS, SECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_wsi_heatmap.mil.configkeys import Key

HEAD = """\
# Heatmaps of a MIL model over slides: napari-wsi-heatmap mil --config THIS_FILE
# Relative paths are tried from the working directory, then from the folder of this file.
# What is null may be left out. Files of CLAM and of MIL-Lab work as they are.
"""


def template() -> str:
    """Text of a configuration with every key that has an effect."""
    return "\n".join([HEAD, *_lines()]) + "\n"


def make_config(path: Path) -> None:
    """Write the template; never over a file.

    Raises
    ------
    ExportError
        If there is something at `path`, or no folder for it.
    StoreFullError
        If it cannot be written.
    """
    from napari_wsi_heatmap.exports.target import written_at_once
    from napari_wsi_heatmap.mil.experiment import refuse_existing

    refuse_existing(path)
    with written_at_once(path) as part:
        part.write_text(template(), encoding="utf-8")


def _lines() -> Iterator[str]:
    for name, section in SECTIONS.items():
        yield f"# {section.what}"
        yield f"{name}:"
        keys = [key for key in section.keys if not key.idle]
        if name == "sample_arguments":
            yield from _sample_lines(keys[0])
        else:
            yield from (line for key in keys for line in _key_lines(key, "  "))
        yield ""


def _sample_lines(samples: Key) -> Iterator[str]:
    yield f"  # {samples.effect}"
    yield f"  {samples.name}:"
    first, *others = SAMPLE_KEYS.keys
    yield f"    # {first.effect}"
    yield f"    - {first.name}: {_text(_shown(first))}"
    for key in others:
        yield from _key_lines(key, "      ")


def _key_lines(key: Key, indent: str) -> Iterator[str]:
    also = f" (also {', '.join(key.also)})" if key.also else ""
    only = f"; only with {key.only}" if key.only else ""
    yield f"{indent}# {key.effect}{also}{only}"
    yield f"{indent}{key.name}: {_text(_shown(key))}"


def _shown(key: Key) -> Any:
    return key.default if key.example is None else key.example


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    return str(value)


def markdown() -> str:
    """All keys as tables, for the page of the documentation."""
    lines = []
    for name, section in (*SECTIONS.items(), ("sample_arguments.samples", SAMPLE_KEYS)):
        lines += [f"### {name}", "", f"{section.what[0].upper()}{section.what[1:]}.", ""]
        lines += ["| key | default | effect |", "|---|---|---|"]
        lines += [_row(key) for key in section.keys]
        lines.append("")
    return "\n".join(lines)


def _row(key: Key) -> str:
    names = ", ".join(f"`{name}`" for name in (key.name, *key.also))
    default = "required" if key.required else _default(key.default)
    only = f" (only with {key.only})" if key.only else ""
    effect = f"none: {key.idle}" if key.idle else f"{key.effect}{only}"
    return f"| {names} | {default} | {effect} |"


def _default(value: Any) -> str:
    if value is None or value == ():
        return ""
    return f"`{_text(value[0] if isinstance(value, tuple) else value)}`"
