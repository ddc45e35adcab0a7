"""What a service manager hands over and is told, with real sockets; and our units, with the tools of systemd."""

import contextlib
import fcntl
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from viamillipede.aio import systemd
from viamillipede.aio.systemd import FIRST_FD, SOCKETS_MAX, STATUS_BYTES_MAX, Notifier, listen_sockets
from viamillipede.config import RxConfig
from viamillipede.errors import Exit, UsageError
from viamillipede.settings import parse

PATIENCE_S = 20
ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "scripts" / "packaging"

# Sockets that are handed over. ------------------------------------------------------------------------------


def given(count: int | str) -> dict[str, str]:
    """The environment of a process that is given so many descriptors."""
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(count), "LISTEN_FDNAMES": "a:b", "PATH": "/bin"}


@pytest.fixture
def first(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Where the descriptors begin here: 3 belongs to the test's own process. What stands there is closed at the end."""
    start = 900
    monkeypatch.setattr(systemd, "FIRST_FD", start)
    yield start
    for fd in range(start, start + 4):
        try:
            os.close(fd)
        except OSError:
            continue


def place(sock: socket.socket, fd: int) -> None:
    """Hand `sock` over as `fd`, as an exec would: to be inherited, in blocking mode."""
    os.dup2(sock.fileno(), fd, inheritable=True)
    os.set_blocking(fd, True)
    sock.close()


def listener(host: str = "127.0.0.1") -> socket.socket:
    """A TCP socket that listens on a port of the kernel's choice."""
    return socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def test_the_first_descriptor_is_that_of_the_protocol() -> None:
    assert FIRST_FD == 3


@pytest.mark.parametrize(
    "environ",
    [{}, {"LISTEN_FDS": "1"}, {"LISTEN_PID": "1"}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, given(0)],
    ids=["nothing", "no pid", "no count", "another process", "none"],
)
def test_without_an_offer_there_are_no_sockets(environ: dict[str, str]) -> None:
    environ = dict(environ)
    assert listen_sockets(environ) == []
    assert not [name for name in environ if name.startswith("LISTEN")]


def has_ipv6() -> bool:
    """Whether this host's loopback has it."""
    try:
        listener("::1").close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    "other", ["127.0.0.1", pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6"))]
)
def test_sockets_are_taken_over(first: int, other: str) -> None:
    place(listener(), first)
    place(listener(other), first + 1)
    environ = given(2)
    sockets = listen_sockets(environ)
    try:
        assert environ == {"PATH": "/bin"}
        assert [sock.fileno() for sock in sockets] == [first, first + 1]
        assert [sock.getsockname()[0] for sock in sockets] == ["127.0.0.1", other]
        for sock in sockets:
            assert fcntl.fcntl(sock, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
            assert sock.gettimeout() == 0
            assert not os.get_blocking(sock.fileno())
            with socket.create_connection(sock.getsockname()[:2], PATIENCE_S) as ours:
                sock.setblocking(True)
                theirs, _ = sock.accept()
                with theirs:
                    ours.sendall(b"x")
                    assert theirs.recv(1) == b"x"
    finally:
        for sock in sockets:
            sock.close()


def not_listening() -> socket.socket:
    """A TCP socket with an address alone."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind(("127.0.0.1", 0))
    return sock


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (not_listening, "does not listen"),
        (lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "is no TCP socket"),
        (lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), "is no TCP socket"),
    ],
)
def test_a_socket_of_another_kind_is_refused(first: int, make: object, words: str) -> None:
    assert callable(make)
    place(listener(), first)
    place(make(), first + 1)
    with pytest.raises(UsageError, match=rf"descriptor {first + 1}, given .*, {words}; let the socket unit have"):
        listen_sockets(given(2))


def test_a_descriptor_that_is_no_socket_is_refused(first: int) -> None:
    with open(os.devnull) as file:
        os.dup2(file.fileno(), first)
    with pytest.raises(UsageError, match=rf"descriptor {first}, .* is no socket"):
        listen_sockets(given(1))
    os.close(first)
    with pytest.raises(UsageError, match=rf"descriptor {first}, .* is not open"):
        listen_sockets(given(1))


@pytest.mark.parametrize("count", ["one", "-1", "1.0", str(SOCKETS_MAX + 1), "9" * 30, "²"])
def test_a_count_that_is_none_is_refused(count: str) -> None:
    with pytest.raises(UsageError, match=r"^LISTEN_FDS="):
        listen_sockets(given(count))


# What the manager is told. ----------------------------------------------------------------------------------


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A service manager's socket, and what NOTIFY_SOCKET says of it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        if request.param == "abstract":
            sock.bind("")  # the kernel chooses a name
            name = "@" + sock.getsockname()[1:].decode()
        else:
            name = str(tmp_path / "notify")
            sock.bind(name)
        sock.settimeout(PATIENCE_S)
        yield sock, name


def nothing_more(sock: socket.socket) -> bool:
    """Whether all that was sent has been read."""
    sock.setblocking(False)
    try:
        return not sock.recv(4096)
    except BlockingIOError:
        return True
    finally:
        sock.settimeout(PATIENCE_S)


def test_the_manager_is_told(manager: tuple[socket.socket, str]) -> None:
    sock, name = manager
    environ = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "5000000", "WATCHDOG_PID": str(os.getpid()), "PATH": "/bin"}
    notifier = Notifier(environ)
    assert environ == {"PATH": "/bin"}
    assert notifier.watchdog_us == 2_500_000
    notifier.ready()
    notifier.status("2 streams,\n8 legs")
    notifier.status("2 streams, 8 legs")
    notifier.ping()
    notifier.stopping()
    notifier.close()
    notifier.close()
    notifier.ping()
    said = [sock.recv(4096) for _ in range(4)]
    assert said == [b"READY=1\n", b"STATUS=2 streams, 8 legs\n", b"WATCHDOG=1\n", b"STOPPING=1\n"]
    assert nothing_more(sock)


def test_a_status_is_cut_at_a_character(manager: tuple[socket.socket, str]) -> None:
    sock, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.status("x" + "é" * STATUS_BYTES_MAX)
    notifier.close()
    assert sock.recv(4096).decode() == f"STATUS=x{'é' * ((STATUS_BYTES_MAX - 1) // 2)}\n"


def test_a_manager_that_does_not_read_is_told_later_and_not_waited_for(manager: tuple[socket.socket, str]) -> None:
    sock, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        sent = 0
        try:
            while True:
                other.sendto(b"noise", b"\0" + name[1:].encode() if name.startswith("@") else name)
                sent += 1
        except BlockingIOError:
            assert sent
    for _ in range(2):
        notifier.ready()
    notifier.status("waits")
    notifier.stopping()
    for _ in range(sent):
        assert sock.recv(4096) == b"noise"
    assert nothing_more(sock)
    notifier.status("waits")  # it was not said the first time
    notifier.close()
    assert sock.recv(4096) == b"READY=1\nSTOPPING=1\nSTATUS=waits\n"


def test_a_manager_that_is_gone_does_no_harm(tmp_path: Path) -> None:
    for name in (str(tmp_path / "absent"), "@absent", f"/{'long' * 100}"):
        notifier = Notifier({"NOTIFY_SOCKET": name})
        notifier.ready()
        notifier.stopping()
        notifier.close()


@pytest.mark.parametrize("name", ["", "relative", "@", "vsock:2:1234"])
def test_without_a_manager_nothing_is_said(name: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000000"})
    notifier.ready()
    notifier.close()
    assert notifier.watchdog_us == 0


@pytest.mark.parametrize(
    ("period", "pid", "expected"),
    [("", "", 0), ("1000001", "", 500_000), ("8", "1", 0), ("soon", "", 0), ("-8", "", 0), ("9" * 30, "", 0)],
)
def test_the_watchdog(period: str, pid: str, expected: int) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": "/run/absent", "WATCHDOG_USEC": period, "WATCHDOG_PID": pid})
    notifier.close()
    assert notifier.watchdog_us == expected


# With the tools of systemd. ---------------------------------------------------------------------------------


def needs(tool: str) -> pytest.MarkDecorator:
    """Skip where systemd's tool is not installed."""
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"needs {tool}")


STAND_IN = """
import os
from viamillipede.aio.systemd import Notifier, listen_sockets
[sock] = listen_sockets(os.environ)
notifier = Notifier(os.environ)
sock.setblocking(True)
notifier.ready()
connection, _ = sock.accept()
connection.sendall(repr(sorted(name for name in os.environ if name[:4] in ("LIST", "NOTI"))).encode())
"""


@contextlib.contextmanager
def activated(tmp_path: Path, *command: str, **variables: str) -> Iterator[tuple[Any, Any, socket.socket]]:
    """A program that the first connection starts, writing into a file: address, process, and its manager's socket."""
    name = str(tmp_path / "notify")
    with listener() as chosen:  # the activator does not take port 0
        address = chosen.getsockname()
    said = {"NOTIFY_SOCKET": name, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), **variables}
    passed = [word for variable, text in said.items() for word in ("-E", f"{variable}={text}")]
    activator = ["systemd-socket-activate", "-l", "{}:{}".format(*address), *passed, sys.executable, *command]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, open(tmp_path / "output", "wb") as output:
        manager.bind(name)
        manager.settimeout(PATIENCE_S)
        with subprocess.Popen(
            [word.replace("PORT", str(address[1])) for word in activator],
            stdout=output,
            stderr=subprocess.PIPE,
        ) as process:
            try:
                assert process.stderr is not None
                assert b"Listening on" in process.stderr.readline()
                yield address, process, manager
            finally:
                process.kill()


@needs("systemd-socket-activate")
def test_started_by_a_connection(tmp_path: Path) -> None:
    with activated(tmp_path, "-c", STAND_IN) as (address, process, manager):
        with socket.create_connection(address, PATIENCE_S) as connection:
            assert connection.recv(4096) == b"[]"
        assert manager.recv(4096) == b"READY=1\n"
        assert process.wait(PATIENCE_S) == 0


def transmit(address: Any, data: bytes, *words: str) -> int:
    """The exit status of a tx that sends `data` there."""
    command = [sys.executable, "-m", "viamillipede", "tx", address[0], str(address[1]), "verbose", "0", *words]
    return subprocess.run(command, input=data, cwd=ROOT, timeout=2 * PATIENCE_S, check=False).returncode


@needs("systemd-socket-activate")
@pytest.mark.slow
def test_rx_as_a_service(tmp_path: Path) -> None:
    words = ("-m", "viamillipede", "rx", "PORT")
    with activated(tmp_path, *words) as (address, process, manager):
        assert transmit(address, b"data") == 0
        assert process.wait(PATIENCE_S) == 0
        assert (tmp_path / "output").read_bytes() == b"data"
        assert manager.recv(4096) == b"READY=1\n"
        assert manager.recv(4096).endswith(b"STOPPING=1\n")


@needs("systemd-socket-activate")
@pytest.mark.slow
def test_rx_that_keeps_on_as_a_service(tmp_path: Path) -> None:
    sink = tmp_path / "rx.sink"
    sink.write_text(f'#!/bin/sh\n{{ cat; env; }} > "{tmp_path}/$VIAMILLIPEDE_NAME"\n')
    sink.chmod(0o755)
    words = ("-m", "viamillipede", "rx", "PORT", "keep", "--", str(sink))
    with activated(tmp_path, *words, WATCHDOG_USEC="1000000") as (address, process, manager):
        for name in ("one", "two"):
            assert transmit(address, b"data of " + name.encode() + b"\n", "name", name) == 0
            text = (tmp_path / name).read_text()
            assert text.startswith(f"data of {name}\n")
            assert not re.findall("^(?:NOTIFY|LISTEN|WATCHDOG)_", text, re.MULTILINE)
        assert manager.recv(4096) == b"READY=1\n"
        while manager.recv(4096) != b"WATCHDOG=1\n":
            continue
        process.terminate()
        assert process.wait(PATIENCE_S) == Exit.TERMINATED
        while not (said := manager.recv(4096)).endswith(b"STOPPING=1\n"):
            assert said.startswith((b"WATCHDOG=1\n", b"STATUS="))


@needs("systemd-analyze")
@pytest.mark.parametrize("damage", ["", "Wtchdog"])
def test_the_units_are_understood(tmp_path: Path, damage: str) -> None:
    for unit in UNITS.glob("viamillipede-*"):
        text = unit.read_text().replace("ExecStart=/usr/bin/viamillipede", "ExecStart=/bin/true")
        (tmp_path / unit.name).write_text(text.replace("Watchdog", damage or "Watchdog"))
    names = [str(tmp_path / f"viamillipede-rx@8834.{kind}") for kind in ("service", "socket")]
    done = subprocess.run(["systemd-analyze", "--man=no", "verify", *names], capture_output=True, text=True)
    if "Failed to initialize manager" in done.stderr:
        pytest.skip(f"systemd-analyze does not work here: {done.stderr.strip()}")
    assert ("Unknown key" in done.stderr) == bool(damage)
    assert damage or (done.stderr, done.returncode) == ("", 0)


def test_the_units_say_what_the_program_takes() -> None:
    service = (UNITS / "viamillipede-rx@.service").read_text()
    [command] = [line for line in service.splitlines() if line.startswith("ExecStart=")]
    words, behind = command.replace("%i", "8834").split(" -- ")
    executable, *argv = words.removeprefix("ExecStart=").split()
    assert (executable, behind) == ("/usr/bin/viamillipede", "/etc/viamillipede/rx-8834.sink")
    config = parse([*argv, "--", "true"], dict(re.findall(r" (VIAMILLIPEDE_[A-Z]+)=(\S+)\n", service)))
    assert isinstance(config, RxConfig)
    assert (config.port, config.keep, config.command) == (8834, True, ("true",))
    assert (config.streams, config.names, config.checkphrase) == (4, "db[0-9]*", b"blue")
    assert f"SuccessExitStatus={Exit.TERMINATED}\n" in service
    assert f"RestartPreventExitStatus={Exit.USAGE}\n" in service
