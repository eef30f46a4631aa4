"""What all tests share."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from napari_wsi_heatmap.models import trust
from napari_wsi_heatmap.slides import verdicts

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of clusters that tests start themselves: see `napari_wsi_heatmap.cohort.cluster.CONFIG`.
os.environ["DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED"] = "False"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real slides and golden results, which not every clone has."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("WSI_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no test data: set WSI_TEST_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def tools_dir(data_dir: Path) -> Path:
    """Folder of the programs that make broken slides, beside the test data."""
    folder = data_dir.parent / "tools"
    if not (folder / "make_bad.py").is_file():
        pytest.skip(f"no makers of test slides in {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def verdicts_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep what tests learn about slides out of the user's cache folder."""
    path = tmp_path_factory.mktemp("verdicts") / "opened-slides.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verdicts, "location", lambda: path)
        verdicts.forget()
        yield path
    verdicts.forget()


@pytest.fixture(autouse=True)
def trusted_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """Keep consent out of the user's configuration folder; each test begins without any."""
    path = tmp_path_factory.getbasetemp() / f"trusted-{uuid.uuid4().hex}"
    monkeypatch.setattr(trust, "folder", lambda: path)
    return path
