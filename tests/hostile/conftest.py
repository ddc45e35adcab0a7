"""With and without a key; stages as in tests/e2e."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.commands import Marks
from tests.e2e.helpers import Stage
from tests.hostile.peer import KEY
from viamillipede.config import Secret
from viamillipede.secret import spell_key


@dataclass(frozen=True)
class Lock:
    """What the program is told, and what the peer needs."""

    key: bytes | None
    words: tuple[object, ...]


@pytest.fixture(params=["clear", "keyed"])
def lock(request: pytest.FixtureRequest, tmp_path: Path) -> Lock:
    """With and without a key."""
    return Lock(None, ()) if request.param == "clear" else keyed(tmp_path)


@pytest.fixture
def with_key(tmp_path: Path) -> Lock:
    """With a key."""
    return keyed(tmp_path)


def keyed(folder: Path) -> Lock:
    """The words that give the key."""
    path = folder / "key"
    path.touch(mode=0o600)
    path.write_text(spell_key(Secret(KEY)) + "\n")
    return Lock(KEY, ("key", path))


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Processes that end with the test."""
    with Stage() as stage:
        yield stage


@pytest.fixture
def marks(tmp_path: Path) -> Marks:
    """Where the commands of a test leave their marks."""
    folder = tmp_path / "marks"
    folder.mkdir()
    return Marks(folder)
