"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real slides and golden results, which not every clone has."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("WSI_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no test data: set WSI_TEST_DATA to their folder")
    return folder
