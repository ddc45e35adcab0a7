"""pg_basebackup of a running cluster; what arrives is verified, started and asked."""

from collections.abc import Iterator

import pytest

from tests.recipes.book import recipe
from tests.recipes.helpers import Hosts, needs
from tests.recipes.servers import Postgres, give_away, postgres_folder, public_folder

FOLDER = postgres_folder()
pytestmark = [pytest.mark.slow, needs("" if FOLDER else "needs postgresql")]
BACKUP = recipe("A PostgreSQL cluster")
FILL = (
    "CREATE TABLE deed AS SELECT number, md5(number::text) AS text, repeat('x', number % 500) AS padding"
    " FROM generate_series(1, 20000) AS number; CREATE INDEX ON deed (text); CHECKPOINT"
)
SUM = "SELECT count(*), md5(string_agg(number || text || padding, '' ORDER BY number)) FROM deed"


@pytest.fixture
def original() -> Iterator[Postgres]:
    """A cluster with a table in it, up and running."""
    with public_folder() as folder:
        cluster = Postgres(folder / "data", folder)
        cluster.init()
        with cluster.up():
            cluster.query(FILL)
            yield cluster


def prepare(hosts: Hosts, original: Postgres) -> None:
    """Let the commands of the recipe find PostgreSQL's programs, and pg_basebackup the cluster."""
    hosts.env |= original.env | {"PATH": f"{hosts.bin}:{FOLDER}:{hosts.env['PATH']}"}


def test_a_cluster(hosts: Hosts, original: Postgres) -> None:
    prepare(hosts, original)
    with public_folder() as folder:
        restored = Postgres(folder / "restored", folder)
        restored.data.mkdir()
        received, _ = hosts.succeed(BACKUP, {"/restore": str(restored.data)}, {})
        assert "backup successfully verified" in received.out
        give_away(restored.data)
        expected = original.query(SUM)
        assert expected.startswith("20000|")
        with restored.up():
            assert restored.query(SUM) == expected
            restored.query("INSERT INTO deed VALUES (0, 'it can be written', '')")
            assert restored.query(SUM).startswith("20001|")
        assert original.query(SUM) == expected


def test_two_tablespaces_are_refused(hosts: Hosts, original: Postgres) -> None:
    prepare(hosts, original)
    with public_folder() as place:
        original.query(f"CREATE TABLESPACE elsewhere LOCATION '{place}'")
        try:
            received, sent = hosts.cook(BACKUP, {"/restore": str(hosts.target)}, {})
        finally:
            original.query("DROP TABLESPACE elsewhere")
    assert (sent.status, received.status) == (7, 8), sent.said + received.said
    assert "can only write single tablespace to stdout" in sent.said
    assert "verified" not in received.out, "what stands behind a transfer that failed is not done"
