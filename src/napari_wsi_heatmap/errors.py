"""The tree of errors; each is one line: what, where, what to do.

::

    HeatmapError
    ├── SlideError
    │   ├── SlideOpenError (ValueError)       the file is no slide we can open; says why
    │   ├── SlideReadError (OSError)          a region cannot be read
    │   ├── SlideChangedError                 the file is not the one the run began with
    │   └── MissingMppError (ValueError)      no calibration where one is needed
    ├── GridError (ValueError)                no windows fit, or sizes that cannot work
    ├── ModelError
    │   ├── ModelLoadError (ValueError)       no such model, or one we do not load
    │   │   └── UntrustedModelError           the file is code, and nobody has agreed to it
    │   ├── ModelOutputError (ValueError)     output of a shape or type we cannot place
    │   ├── ModelRunError                     the model raised while it ran
    │   └── FeatureError (ValueError)         feature vectors that cannot be read or used
    ├── StoreError
    │   ├── StoreExistsError (FileExistsError)   the output is something else
    │   ├── StoreLockedError                  another process writes there
    │   ├── StoreFullError (OSError)          disk full, or the folder cannot be written
    │   └── PlanMismatchError (ValueError)    the store holds another plan
    └── ExportError (ValueError)

None derives from RuntimeError: napari's generator workers swallow those.
Cancelling a run is no error: the generator simply ends.
"""

from __future__ import annotations


def one_line(text: object, limit: int = 300) -> str:
    """Return `text` without line breaks or control characters, cut to `limit` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


class HeatmapError(Exception):
    """Base of all errors of this package.

    Parameters
    ----------
    what : str
        What went wrong.
    where : object, optional
        Slide, level, window, file: where it went wrong.
    do : str, optional
        What the user can do about it.
    """

    def __init__(self, what: str, where: object = None, do: str | None = None) -> None:
        self.what, self.where, self.do = what, where, do
        parts = [what, None if where is None else str(where), do]
        super().__init__(one_line(" - ".join(part for part in parts if part), limit=500))

    def __str__(self) -> str:
        # OSError subclasses would otherwise print a tuple of errno and text.
        return str(self.args[0])


class SlideError(HeatmapError):
    """Something is wrong with a slide."""


class SlideOpenError(SlideError, ValueError):
    """The file is not a slide that can be opened."""


class SlideReadError(SlideError, OSError):
    """A region of a slide cannot be read."""


class SlideChangedError(SlideError):
    """The slide's file is not the one that the run began with."""


class MissingMppError(SlideError, ValueError):
    """The slide states no usable size of its pixels, and one is needed."""


class GridError(HeatmapError, ValueError):
    """No windows fit the slide, or their sizes cannot work."""


class ModelError(HeatmapError):
    """Something is wrong with a model."""


class ModelLoadError(ModelError, ValueError):
    """The model cannot be found or is of a kind that is not loaded."""


class UntrustedModelError(ModelLoadError):
    """The model file is code, and there is no consent to load it.

    Parameters
    ----------
    what, where, do
        As for `HeatmapError`.
    sha256 : str
        Of the file: what consent is given to.
    kind : str
        What the file is, for people.
    """

    def __init__(self, what: str, where: object, do: str, sha256: str, kind: str) -> None:
        super().__init__(what, where, do)
        self.sha256, self.kind = sha256, kind


class ModelOutputError(ModelError, ValueError):
    """The model returned something that cannot be placed on a map."""


class ModelRunError(ModelError):
    """The model raised while it ran."""


class FeatureError(ModelError, ValueError):
    """Feature vectors that cannot be read, or that do not do for what is asked of them."""


class StoreError(HeatmapError):
    """Something is wrong with an output."""


class StoreExistsError(StoreError, FileExistsError):
    """The output path holds something else."""


class StoreLockedError(StoreError):
    """Another process writes this output."""


class StoreFullError(StoreError, OSError):
    """The output cannot be written: disk full, no permission, not reachable."""


class PlanMismatchError(StoreError, ValueError):
    """The output was begun with another plan."""


class ExportError(HeatmapError, ValueError):
    """The heatmap cannot be exported as asked."""
