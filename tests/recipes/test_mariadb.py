"""mariabackup of a running server; what arrives is prepared, started and asked."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.recipes.book import recipe
from tests.recipes.helpers import Hosts, missing, needs
from tests.recipes.servers import MariaDB

REASON = missing(mariadbd="mariadb-server", mariadb_install_db="mariadb-server", mariadb="mariadb-client") or missing(
    mariabackup="mariadb-backup", mbstream="mariadb-backup"
)
pytestmark = [pytest.mark.slow, needs(REASON)]
BACKUP = recipe("A MariaDB server")
FILL = (
    "CREATE DATABASE book; USE book; CREATE TABLE deed (number INT PRIMARY KEY, text CHAR(32), padding TEXT)"
    " ENGINE=InnoDB; INSERT INTO deed SELECT seq, MD5(seq), REPEAT('x', seq % 500) FROM seq_1_to_20000"
)
SUM = "SELECT COUNT(*), SUM(number), BIT_XOR(CRC32(CONCAT(number, text, padding))) FROM book.deed"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    """A server with a table in it, up and running."""
    server = MariaDB(tmp_path_factory.mktemp("original"))
    server.init()
    with server.up():
        server.query(FILL)
        yield server


def use(hosts: Hosts, options: Path) -> None:
    """Let mariabackup find its server: what an administrator writes into /etc/mysql."""
    found = hosts.call("sh", "-c", "command -v mariabackup").stdout.strip()
    hosts.program("mariabackup", f'exec {found} --defaults-file={options} "$@"')


def test_a_server(hosts: Hosts, original: MariaDB) -> None:
    use(hosts, original.options)
    received, sent = hosts.succeed(BACKUP, {"/restore": str(hosts.target)}, {})
    assert "completed OK!" in sent.said and "completed OK!" in received.said
    expected = original.query(SUM)
    assert expected.startswith("20000\t")
    restored = MariaDB(hosts.folder, hosts.target)
    with restored.up():
        assert restored.query(SUM) == expected
        restored.query("INSERT INTO book.deed VALUES (0, 'it can be written', '')")
        assert restored.query(SUM).startswith("20001\t")
    assert original.query(SUM) == expected


def test_a_backup_that_fails_is_not_prepared(hosts: Hosts, original: MariaDB) -> None:
    use(hosts, original.options)
    cut = {
        "mariabackup --backup --stream=xbstream": "sh -c 'mariabackup --backup --stream=xbstream | head -c 1M; exit 3'"
    }
    received, sent = hosts.cook(BACKUP, {"/restore": str(hosts.target)}, cut)
    assert (sent.status, received.status) == (7, 8), sent.said + received.said
    assert "--prepare" not in received.said and not (hosts.target / "ib_logfile0").exists()


def test_mbstream_does_not_notice_that_files_are_missing(hosts: Hosts) -> None:
    """What the page warns of: a stream of two files that ends behind the first one is fine with it."""
    for name in ("one", "two"):
        (hosts.source / name).write_bytes(name.encode() * 1000)
    create = f"cd {hosts.source}; mbstream -c"
    one, both = hosts.folder / "one.xb", hosts.folder / "both.xb"
    hosts.call("sh", "-c", f"{create} one > {one}; {create} one two > {both}")
    assert both.read_bytes().startswith(one.read_bytes()) and both.stat().st_size > one.stat().st_size
    hosts.call("sh", "-c", f"head -c {one.stat().st_size} {both} | mbstream -x -C {hosts.target}")
    assert [path.name for path in hosts.target.iterdir()] == ["one"]
