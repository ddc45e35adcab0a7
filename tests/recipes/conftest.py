"""Two hosts for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.recipes.helpers import Hosts


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    """They end with the test."""
    hosts = Hosts(tmp_path)
    yield hosts
    hosts.close()
