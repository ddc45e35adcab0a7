"""A stage for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.commands import Marks
from tests.e2e.helpers import Stage


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Processes and proxies that end with the test."""
    with Stage() as stage:
        yield stage


@pytest.fixture
def marks(tmp_path: Path) -> Marks:
    """Where the commands of a test leave their marks."""
    return Marks(tmp_path)
