"""A backup that is tried again when that may help, and gets its name only when it is whole."""

from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM

import pytest

from tests.e2e.helpers import MIB, eventually
from tests.recipes.book import recipe
from tests.recipes.helpers import Hosts, Shell
from tests.recipes.trees import assert_same, plant

pytestmark = pytest.mark.slow
NIGHTLY = recipe("Every night")
# It takes no time, and tells. With a file `gate` in the way it waits until that is gone.
SLEEP = 'echo "$1" >> {0}/pauses; while test -e {0}/gate; do {1} 0.05; done'


@pytest.fixture
def backup(hosts: Hosts) -> Iterator[Path]:
    """The folder of the receiving host; `sleep` is replaced."""
    real = hosts.call("sh", "-c", "command -v sleep").stdout.strip()
    hosts.program("sleep", SLEEP.format(hosts.folder, real))
    plant(hosts.source, bulk_bytes=MIB)
    yield hosts.target


def receiver(hosts: Hosts, **changes: str) -> Shell:
    """The receiving host's part, ready."""
    shell = hosts.shell("receiver", hosts.on(NIGHTLY.receiver, {"/backup": str(hosts.target)} | changes))
    shell.hear("listening on port")
    return shell


def sender(hosts: Hosts, packed: str = ".", **changes: str) -> Shell:
    """The sending host's part; `packed` is what tar is told to pack. It does not wait long for its receiver."""
    text = hosts.on(NIGHTLY.sender, {"/srv .": f"{hosts.source} {packed}"} | changes)
    return hosts.shell("sender", text, VIAMILLIPEDE_WAIT="300ms")


def pauses(hosts: Hosts) -> list[str]:
    """How long it would have slept, each time."""
    path = hosts.folder / "pauses"
    return path.read_text().split() if path.exists() else []


def stop(shell: Shell) -> None:
    """End a receiver that stays for the next stream."""
    shell.signal(SIGTERM)
    assert shell.ended().status == 128 + SIGTERM


def test_two_backups(hosts: Hosts, backup: Path) -> None:
    rx = receiver(hosts, db1="'db[12]'")
    for name in ("db1", "db2"):
        ended = sender(hosts, db1=name).ended()
        assert ended.status == 0, ended.said
        (arrived,) = backup.glob(f"{name}.*")
        assert arrived.name.count("-") == 2, "it has got its name, a date"
        assert_same(hosts.source, arrived)
    stop(rx)
    assert pauses(hosts) == []


def test_nobody_receives(hosts: Hosts, backup: Path) -> None:
    ended = sender(hosts).ended()
    assert ended.status == 3, ended.said
    assert pauses(hosts) == ["60", "300", "900", "0"]


def test_the_receiver_comes_late(hosts: Hosts, backup: Path) -> None:
    gate = hosts.folder / "gate"
    gate.touch()
    tx = sender(hosts)
    eventually(lambda: pauses(hosts) != [], "the first try fails")
    rx = receiver(hosts)
    gate.unlink()
    assert tx.ended().status == 0, tx.said
    stop(rx)
    assert pauses(hosts) == ["60"]
    (arrived,) = backup.iterdir()
    assert_same(hosts.source, arrived)


def test_a_name_that_is_refused_is_not_tried_again(hosts: Hosts, backup: Path) -> None:
    rx = receiver(hosts)
    ended = sender(hosts, db1="web1").ended()
    assert ended.status == 4, ended.said
    stop(rx)
    assert (pauses(hosts), list(backup.iterdir())) == ([], [])


@pytest.mark.parametrize("at", ["source", "sink"])
def test_half_a_backup_gets_no_name(hosts: Hosts, backup: Path, at: str) -> None:
    rx = receiver(hosts, **{} if at == "source" else {"tar x -C": "tar x --checkpoint-action=no -C"})
    ended = sender(hosts, packed=". ./not-there" if at == "source" else ".").ended()
    assert ended.status == (7 if at == "source" else 8), ended.said
    stop(rx)
    assert pauses(hosts) == []
    assert [path.name.count("-") for path in backup.iterdir()] in ([0], []), "it has no date"
