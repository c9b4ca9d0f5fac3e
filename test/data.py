"""Folder of the shared real images, which are not in the repository. Tests that need them are skipped without them."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[2] / 'shared' / 'data'


def shared_data(folder: str) -> Path:
    """Return the path of a folder (or file) of the shared data, or skip the test with its name."""
    path = SHARED_DATA / folder
    if not path.exists():
        pytest.skip(f'needs {folder} in ../shared/data beside the checkout')
    return path
