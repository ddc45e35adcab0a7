"""A stage for each test."""

from collections.abc import Iterator

import pytest

from tests.e2e.helpers import Stage


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Processes and proxies that end with the test."""
    with Stage() as stage:
        yield stage
