"""Standard input, output and error of real processes: terminals, closed ones and full ones."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.asking import RX, TX
from viamillipede.errors import LocalIOError

HINT = "Try 'viamillipede --help'.\n"


def run(*argv: str, shell: str = "", **streams: int) -> subprocess.CompletedProcess[str]:
    """`python -m viamillipede`, or with the redirections `shell` through sh, for 20 seconds at most."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("VIAMILLIPEDE_")}
    environ["XDG_CONFIG_HOME"] = "/nonexistent"
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    command = [sys.executable, "-m", "viamillipede", *argv]
    if shell:
        command = ["sh", "-c", f'exec "$@" {shell}', "sh", *command]
    return subprocess.run(command, **streams, env=environ, text=True, timeout=20, check=False)  # type: ignore[call-overload, no-any-return]


@pytest.fixture
def terminal() -> Iterator[int]:
    """The descriptor of a terminal."""
    ours, theirs = os.openpty()
    yield theirs
    os.close(ours)
    os.close(theirs)


def test_rx_refuses_a_terminal(terminal: int) -> None:
    ended = run(*RX, stdout=terminal)
    assert ended.returncode == 2
    assert ended.stderr == (
        f"viamillipede: standard output is a terminal; pipe it into something, or say force\n{HINT}"
    )


def test_tx_refuses_a_terminal(terminal: int) -> None:
    ended = run(*TX, stdin=terminal)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "viamillipede: standard input is a terminal; pipe something in: tar c /srv | viamillipede tx HOST PORT, "
        f"or: tar c /srv | viamillipede to DEST -- COMMAND\n{HINT}"
    )


def test_closed_streams_are_refused() -> None:
    ended = run(*RX, shell=">&-")
    assert (ended.returncode, ended.stderr) == (
        LocalIOError.exit_status,
        "viamillipede rx: standard output is closed; pipe it into something, or send it to a file\n",
    )
    ended = run(*TX, shell="<&-")
    assert (ended.returncode, ended.stderr) == (
        LocalIOError.exit_status,
        "viamillipede tx: standard input is closed; pipe something in\n",
    )


def test_no_socket_gets_the_number_of_a_standard_stream() -> None:
    code = "import os, viamillipede.cli as c; c.main(['--help']); os.write(3, str(os.dup(0)).encode())"
    command = ["sh", "-c", 'exec "$0" -c "$1" 3>&1 >&- 2>&- <&-', sys.executable, code]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (ended.returncode, ended.stdout) == (0, "4")


def test_standard_error_may_be_closed_or_full() -> None:
    assert run("--nonsense", shell="2>&-").returncode == 2
    assert run("--nonsense", shell="2>/dev/full").returncode == 2


def test_help_that_cannot_be_written() -> None:
    ended = run("--help", shell=">/dev/full")
    assert (ended.returncode, ended.stderr) == (7, "viamillipede: standard output: No space left on device\n")
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = run("--help", stdout=writer)
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (7, "viamillipede: standard output: Broken pipe\n")


def test_help_needs_no_event_loop() -> None:
    code = "import sys, viamillipede.cli as c; c.main(['--help']); sys.exit('uvloop' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=20, check=False).returncode == 0


def test_usage_error_of_the_process() -> None:
    ended = run(*RX, "--", "no-such-command")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"viamillipede: there is no command 'no-such-command' that can be run\n{HINT}"
    ended = run(*TX, "threads", "0")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"viamillipede: threads: '0' is not a whole number from 1 to 1024, nor auto\n{HINT}"
