"""A YAML file read as plain values: no code, no bombs, no key that silently counts twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from napari_wsi_heatmap.errors import HeatmapError, one_line

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 1 << 20
"""Bytes of a configuration at most."""
MOST_VALUES = 20_000
"""Values at most, aliases counted as what they stand for."""
DEEPEST = 20


class ConfigError(HeatmapError, ValueError):
    """A configuration or a process list that cannot be used."""


def read_bytes(path: Path, what: str) -> bytes:
    """Read a small file whole.

    Raises
    ------
    ConfigError
        If it is missing, no file, too large or not readable.
    """
    try:
        if not path.is_file():
            gone = "is no file" if path.exists() else "does not exist"
            raise ConfigError(f"{what} {gone}", path, "check the path")
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"{what} cannot be read: {error.strerror}", path) from error
    if len(content) > LARGEST:
        raise ConfigError(f"{what} is larger than 1 MB", path, "give the right file")
    return content


def parse(content: bytes, path: Path) -> dict[str, Any]:
    """Read YAML whose outermost value is a mapping.

    Raises
    ------
    ConfigError
        In one line, with the number of the line in the file where it is known.
    """
    import yaml

    try:
        loader = yaml.SafeLoader(content)
        node = loader.get_single_node()
        if node is not None:
            _Check(path).visit(node)
        found = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        where = error.problem_mark or error.context_mark
        raise ConfigError(f"no YAML: {error.problem}{_line(where)}", path) from error
    # What a scalar stands for is found by regular expressions: a date may be none, an int endless.
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"no YAML: {one_line(error, 150)}", path) from error
    if not isinstance(found, dict):
        what = "it is empty" if found is None else f"it holds a {type(found).__name__}"
        raise ConfigError(what, path, "give sections such as exp_arguments:")
    return found


def _line(mark: Any) -> str:
    return "" if mark is None else f" (line {mark.line + 1})"


class _Check:
    """Walks the nodes before anything is made of them; each once, however often it stands there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sizes: dict[int, int] = {}
        self._open: set[int] = set()

    def visit(self, node: Any, depth: int = 0) -> int:
        """Return how many values a node stands for."""
        if id(node) in self._sizes:
            return self._sizes[id(node)]
        if id(node) in self._open:
            self._refuse("an alias stands within what it stands for", node)
        if depth > DEEPEST:
            self._refuse("it is nested too deeply", node)
        self._open.add(id(node))
        size = 1 + sum(self.visit(child, depth + 1) for child in self._children(node))
        self._open.discard(id(node))
        if size > MOST_VALUES:
            self._refuse(f"its aliases stand for more than {MOST_VALUES:,} values", node)
        self._sizes[id(node)] = size
        return size

    def _children(self, node: Any) -> list[Any]:
        if not isinstance(node.value, list):
            return []
        if all(not isinstance(child, tuple) for child in node.value):
            return list(node.value)
        self._refuse_doubles(node)
        return [part for pair in node.value for part in pair]

    def _refuse_doubles(self, node: Any) -> None:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key.value, str) and key.value in seen:
                self._refuse(f"the key {key.value!r} stands there twice", key)
            if isinstance(key.value, str) and key.value != "<<":
                seen.add(key.value)

    def _refuse(self, what: str, node: Any) -> NoReturn:
        raise ConfigError(f"{what}{_line(node.start_mark)}", self._path, "write it out plainly")
