"""The program around the command line: help, version, failures as one line, terminals, closed streams."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from viamillipede import __version__
from viamillipede.cli import main
from viamillipede.config import MIB, Address, RxConfig, TxConfig
from viamillipede.errors import Failure, LocalIOError, UsageError
from viamillipede.words import USAGE

TX = ("tx", "host", "8834")
RX = ("rx", "8834")
HINT = "Try 'viamillipede --help'.\n"


# main. -----------------------------------------------------------------------------------------
Install = Callable[[str, str, object], None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a stand-in where `main` imports from; no terminals, no variables of the environment."""
    monkeypatch.setattr(os, "isatty", lambda fd: False)
    for name in [name for name in os.environ if name.startswith("VIAMILLIPEDE_")]:
        monkeypatch.delenv(name)

    def put(module: str, name: str, value: object) -> None:
        stand_in = ModuleType(module)
        setattr(stand_in, name, value)
        monkeypatch.setitem(sys.modules, module, stand_in)

    return put


def raising(error: BaseException) -> Callable[[object], int]:
    def program(_: object) -> int:
        raise error

    return program


def test_main_runs_the_programs(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def program(asked: object) -> int:
        seen.append(asked)
        return 8 if isinstance(asked, TxConfig) else 0

    install("viamillipede.aio.tx", "transmit", program)
    install("viamillipede.aio.rx", "receive", program)
    assert main([*TX, "threads", "3"]) == 8
    monkeypatch.setattr(sys, "argv", ["viamillipede", *RX, "verbose", "5"])
    monkeypatch.setenv("VIAMILLIPEDE_WINDOW", "1M")
    assert main() == 0
    assert seen == [
        TxConfig(addresses=(Address("host", 8834),), threads=3),
        RxConfig(port=8834, verbose=5, window_bytes=MIB),
    ]


def test_main_imports_only_what_it_runs(install: Install) -> None:
    install("viamillipede.aio.tx", "transmit", raising(AssertionError("must not run")))
    install("viamillipede.aio.rx", "receive", lambda asked: 0)
    assert main(list(RX)) == 0


@pytest.mark.parametrize("failure", [*Failure.__subclasses__(), Failure], ids=lambda failure: failure.__name__)
def test_failures_are_one_line(failure: type[Failure], install: Install, capfd: pytest.CaptureFixture[str]) -> None:
    install("viamillipede.aio.rx", "receive", raising(failure("first\nsecond")))
    assert main(list(RX)) == failure.exit_status
    out, err = capfd.readouterr()
    assert out == ""
    told = f"viamillipede: first second\n{HINT}" if failure is UsageError else "viamillipede rx: first second\n"
    assert err == told


def test_interrupt_is_quiet(install: Install, capfd: pytest.CaptureFixture[str]) -> None:
    install("viamillipede.aio.tx", "transmit", raising(KeyboardInterrupt()))
    assert main(list(TX)) == 130
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("debug", ["0", "1"])
def test_a_bug(
    debug: str, install: Install, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("viamillipede.aio.tx", "transmit", raising(ZeroDivisionError("oh\nno")))
    monkeypatch.setenv("VIAMILLIPEDE_DEBUG", debug)
    assert main(list(TX)) == 1
    *before, last = capfd.readouterr().err.splitlines()
    assert last == (
        "viamillipede tx: unexpected ZeroDivisionError: oh no (a bug; please report it with VIAMILLIPEDE_DEBUG=1)"
    )
    assert before[:1] == (["Traceback (most recent call last):"] if debug == "1" else [])


def test_no_arguments(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "Usage:",
        "  viamillipede rx PORT [options]",
        "  viamillipede tx listen PORT [options]",
        "  viamillipede (tx HOST PORT)... [options]",
        "  viamillipede (rx HOST PORT)... [options]",
        "  viamillipede (--help | --version)",
        HINT.strip(),
    ]


@pytest.mark.parametrize("argv", [["--help"], ["help"], [*RX, "help"], ["tx", "--help"], [*RX, "nonsense", "-h"]])
def test_help(argv: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    assert capfd.readouterr() == (USAGE, "")


def test_version(install: Install, capfd: pytest.CaptureFixture[str]) -> None:
    install("viamillipede.protocol.wire", "VERSION", 7)
    for argv in (["--version"], ["version"], [*RX, "version"]):
        assert main(argv) == 0
        assert capfd.readouterr() == (f"viamillipede {__version__}, wire version 7\n", "")


def test_a_variable_that_is_no_word_is_warned_of(
    install: Install, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("viamillipede.aio.rx", "receive", lambda asked: 0)
    for name, text in (("THREAD", "4"), ("ZZZZ", "1"), ("THREADS", "4"), ("DEBUG", "1"), ("EMPTY", ""), ("VIA", "x")):
        monkeypatch.setenv(f"VIAMILLIPEDE_{name}", text)
    assert main([*RX, "verbose", "0"]) == 0
    assert capfd.readouterr() == ("", "")
    assert main(list(RX)) == 0
    assert capfd.readouterr().err.splitlines() == [
        "viamillipede rx: no word has the variable VIAMILLIPEDE_THREAD; did you mean VIAMILLIPEDE_THREADS?",
        "viamillipede rx: VIAMILLIPEDE_VIA means nothing; say 'via ADDRESS' behind the HOST PORT that it is for",
        "viamillipede rx: no word has the variable VIAMILLIPEDE_ZZZZ",
    ]


def test_version_is_that_of_the_wire(capfd: pytest.CaptureFixture[str]) -> None:
    from viamillipede.protocol.wire import VERSION

    assert main(["--version"]) == 0
    assert capfd.readouterr().out.endswith(f", wire version {VERSION}\n")


def test_usage_error_of_main(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*RX, "thread", "4"]) == 2
    assert capfd.readouterr() == ("", f"viamillipede: unknown word 'thread'; did you mean 'threads'?\n{HINT}")


# Real processes, terminals, closed and full descriptors. ---------------------------------------
def run(*argv: str, shell: str = "", **streams: int) -> subprocess.CompletedProcess[str]:
    """`python -m viamillipede`, or with the redirections `shell` through sh, for 20 seconds at most."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("VIAMILLIPEDE_")}
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
    assert ended.stderr.startswith("viamillipede: standard input is a terminal; pipe something in")


def test_force_writes_to_a_terminal(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("viamillipede.aio.rx", "receive", lambda asked: 0)
    monkeypatch.setattr(os, "isatty", lambda fd: True)
    assert main([*RX, "force"]) == 0
    assert main(list(RX)) == 2


def test_only_the_own_end_may_not_be_a_terminal(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("viamillipede.aio.rx", "receive", lambda asked: 0)
    install("viamillipede.aio.tx", "transmit", lambda asked: 0)
    monkeypatch.setattr(os, "isatty", lambda fd: fd == 0)
    assert main(list(RX)) == 0
    monkeypatch.setattr(os, "isatty", lambda fd: fd == 1)
    assert main(list(TX)) == 0


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
    ended = run(*TX, "threads", "0")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"viamillipede: threads: '0' is not a whole number from 1 to 1024, nor auto\n{HINT}"
