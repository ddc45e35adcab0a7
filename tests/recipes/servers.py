"""Database servers of the tests' own: no TCP port, a socket in their folder, nothing that lasts longer than they."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.e2e.helpers import PATIENCE_S
from tests.recipes.helpers import search_path

POSTGRES_PROGRAMS = ("initdb", "postgres", "psql", "pg_basebackup", "pg_verifybackup")
POSTGRES_SETTINGS = {
    "listen_addresses": "", "fsync": "off", "full_page_writes": "off", "shared_buffers": "16MB", "max_wal_size": "64MB",
    "wal_level": "replica", "autovacuum": "off", "jit": "off",
}  # fmt: skip
MARIADB_OPTIONS = (
    "skip-networking", "skip-log-bin", "innodb-flush-log-at-trx-commit=0", "innodb-flush-method=nosync",
    "innodb-buffer-pool-size=16M", "innodb-log-file-size=16M", "key-buffer-size=1M", "performance-schema=OFF",
)  # fmt: skip


def postgres_folder() -> Path | None:
    """Where PostgreSQL's programs are, the newest version's; Debian keeps them out of PATH. None without them."""
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    candidates += [Path(folder) for folder in search_path().split(":")]
    complete = (each for each in candidates if all((each / name).is_file() for name in POSTGRES_PROGRAMS))
    return next(complete, None)


def unprivileged() -> str | None:
    """Who runs PostgreSQL, which refuses root: another user if we are root, else None, which is ourselves."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@contextlib.contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that other users can enter, with a name short enough for a socket in it, given to `unprivileged`."""
    path = Path(tempfile.mkdtemp(prefix="vm-recipe-"))
    try:
        give_away(path)
        path.chmod(0o755)
        yield path
    finally:
        shutil.rmtree(path)


def give_away(path: Path) -> None:
    """Make `unprivileged` the owner of it and of all that is below."""
    if user := unprivileged():
        for each in (path, *path.rglob("*")):
            shutil.chown(each, user, pwd.getpwnam(user).pw_gid)


def run(argv: Sequence[str | Path], user: str | None = None) -> str:
    """Run a program to its end, which must be good; its output."""
    done = subprocess.run(
        argv, user=user, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE_S, cwd="/"
    )
    assert done.returncode == 0, f"{argv} exits {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def server(
    argv: Sequence[str | Path], log: Path, is_up: Callable[[], bool], user: str | None, stop: signal.Signals
) -> Iterator[None]:
    """A server that is up; `stop` ends it."""
    with log.open("wb") as output:
        process = subprocess.Popen(argv, user=user, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/")
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not is_up():
            said = log.read_text(errors="replace")
            assert process.poll() is None, f"{argv[0]} ended:\n{said}"
            assert time.monotonic() < deadline, f"{argv[0]} is not up:\n{said}"
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(stop)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


class Postgres:
    """A cluster: its data and a socket for it. Everybody on this machine who can reach the socket may do anything."""

    def __init__(self, data: Path, sockets: Path) -> None:
        folder = postgres_folder()
        assert folder is not None
        self._bin, self.data, self.sockets, self._user = folder, data, sockets, unprivileged()
        self.env = {"PGHOST": str(sockets), "PGUSER": "postgres", "PGDATABASE": "postgres"}

    def init(self) -> None:
        """Make a new cluster."""
        options = ["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]
        run([self._bin / "initdb", *options, "--pgdata", self.data], self._user)

    @contextlib.contextmanager
    def up(self) -> Iterator[None]:
        """The server, as long as the `with` lasts."""
        settings = POSTGRES_SETTINGS | {"unix_socket_directories": str(self.sockets)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        argv: list[str | Path] = [self._bin / "postgres", "-D", self.data, *options]
        with server(argv, self.sockets / "log", self._answers, self._user, signal.SIGINT):
            yield

    def _psql(self, statement: str) -> list[str | Path]:
        return [self._bin / "psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", self.sockets,
                "-U", "postgres", "-d", "postgres", "-c", statement]  # fmt: skip

    def _answers(self) -> bool:
        return subprocess.run(self._psql("SELECT"), capture_output=True, stdin=subprocess.DEVNULL).returncode == 0

    def query(self, statement: str) -> str:
        """What it answers, as psql prints it."""
        return run(self._psql(statement)).strip()


class MariaDB:
    """A server with its data and a socket in `folder`; whoever can reach that may do anything."""

    def __init__(self, folder: Path, data: Path | None = None) -> None:
        self.data, self._socket, self.options = data or folder / "data", folder / "socket", folder / "my.cnf"
        self._log = folder / "log"
        access = [f"socket={self._socket}", "user=root"]  # the administrator: a name of its own, not of this machine
        server = [f"datadir={self.data}", f"pid-file={folder / 'pid'}", access[0], *MARIADB_OPTIONS]
        if os.geteuid() == 0:
            server.append("user=root")  # without, it refuses to be run by root
        text = "\n".join(["[mariadbd]", *server, "[client]", *access, "[mariabackup]", f"datadir={self.data}"])
        self.options.write_text(text + "\n")

    def init(self) -> None:
        """Make its data."""
        run([_find("mariadb-install-db"), f"--defaults-file={self.options}", "--skip-test-db", "--skip-name-resolve",
             "--auth-root-authentication-method=normal"])  # fmt: skip

    @contextlib.contextmanager
    def up(self) -> Iterator[None]:
        """The server, as long as the `with` lasts."""
        argv = [_find("mariadbd"), f"--defaults-file={self.options}"]
        with server(argv, self._log, self._answers, None, signal.SIGTERM):
            yield

    def _client(self, statement: str) -> list[str | Path]:
        return [_find("mariadb"), f"--defaults-file={self.options}", "-N", "-B", "-e", statement]

    def _answers(self) -> bool:
        done = subprocess.run(self._client("SELECT 1"), capture_output=True, stdin=subprocess.DEVNULL)
        return done.returncode == 0

    def query(self, statement: str) -> str:
        """What it answers: a line a row, columns between tabulators."""
        return run(self._client(statement)).strip()


def _find(program: str) -> str:
    found = shutil.which(program, path=search_path())
    assert found, program
    return found
