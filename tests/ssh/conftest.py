"""A host behind a real sshd, and near ends."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.ssh import Sshd
from tests.ssh.helpers import Ends, Host


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """An sshd with keys and a configuration of its own, for this test."""
    tmp_path.chmod(0o700)
    with Sshd(tmp_path) as sshd:
        yield Host(tmp_path, sshd)


@pytest.fixture
def ends(host: Host) -> Iterator[Ends]:
    """Near ends, which end before the host does."""
    ends = Ends(host)
    yield ends
    ends.release()
