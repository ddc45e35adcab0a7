"""The program around the command line: help, version, failures as one line, terminals, closed streams."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from viamillipede import __version__, cli
from viamillipede.cli import main
from viamillipede.config import KIB, MIB, Address, DoctorConfig, RxConfig, TxConfig
from viamillipede.errors import Failure, LocalIOError, RemoteFailed, UsageError
from viamillipede.words import USAGE

TX = ("tx", "host", "8834")
RX = ("rx", "8834")
HINT = "Try 'viamillipede --help'.\n"


# main. -----------------------------------------------------------------------------------------
Install = Callable[[str, str, object], None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a stand-in where `main` imports from; no terminals, no variables of the environment, no files."""
    monkeypatch.setattr(os, "isatty", lambda fd: False)
    monkeypatch.setattr(cli, "places", lambda environ: [])
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
    install("viamillipede.aio.receive", "receive", program)
    install("viamillipede.aio.keeper", "keep", program)
    install("viamillipede.doctor", "examine", program)
    assert main([*TX, "threads", "3"]) == 8
    monkeypatch.setattr(sys, "argv", ["viamillipede", *RX, "verbose", "5"])
    monkeypatch.setenv("VIAMILLIPEDE_WINDOW", "1M")
    assert main() == 0
    assert main(["doctor", "host", "8834"]) == 0
    assert main([*RX, "keep", "--", "sh"]) == 0
    assert seen == [
        TxConfig(addresses=(Address("host", 8834),), threads=3),
        RxConfig(port=8834, verbose=5, window_bytes=MIB),
        DoctorConfig(Address("host", 8834)),
        RxConfig(port=8834, window_bytes=MIB, keep=True, command=("sh",)),
    ]


def test_main_imports_only_what_it_runs(install: Install) -> None:
    install("viamillipede.aio.tx", "transmit", raising(AssertionError("must not run")))
    install("viamillipede.aio.receive", "receive", lambda asked: 0)
    assert main(list(RX)) == 0


@pytest.mark.parametrize("failure", [*Failure.__subclasses__(), Failure], ids=lambda failure: failure.__name__)
def test_failures_are_one_line_and_what_it_quotes(
    failure: type[Failure], install: Install, capfd: pytest.CaptureFixture[str]
) -> None:
    install("viamillipede.aio.receive", "receive", raising(failure("first\nsecond\n\n  third")))
    assert main(list(RX)) == failure.exit_status
    out, err = capfd.readouterr()
    assert out == ""
    quoted = "viamillipede rx: first\n  | second\n  | \n  |   third\n"
    told = {
        UsageError: f"viamillipede: first second    third\n{HINT}",
        LocalIOError: "viamillipede rx: first\n",  # what it quotes is of our own command: it was passed on already
    }
    assert err == told.get(failure, quoted)


def test_a_failure_without_a_word(install: Install, capfd: pytest.CaptureFixture[str]) -> None:
    install("viamillipede.aio.receive", "receive", raising(Failure()))
    assert main(list(RX)) == 1
    assert capfd.readouterr() == ("", "viamillipede rx: \n")


def test_a_failure_as_json(install: Install, capfd: pytest.CaptureFixture[str]) -> None:
    for program, failure in (("rx", UsageError("first\nsecond")), ("tx", RemoteFailed("first\nsecond"))):
        install("viamillipede.aio.receive", "receive", raising(failure))
        install("viamillipede.aio.tx", "transmit", raising(failure))
        argv = RX if program == "rx" else TX
        assert main([*argv, "json"]) == failure.exit_status
        out, err = capfd.readouterr()
        said = json.loads(err)
        assert (out, err.count("\n"), err.isascii()) == ("", 1, True)
        assert (said["type"], said["level"], said["text"]) == ("message", 0, "first\nsecond")
        assert said["role"] == program


def test_a_failure_of_one_line(install: Install, capfd: pytest.CaptureFixture[str]) -> None:
    install("viamillipede.doctor", "examine", raising(LocalIOError("first")))
    assert main(["doctor"]) == 7
    assert capfd.readouterr() == ("", "viamillipede doctor: first\n")


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
        "  viamillipede rx PORT [options] [(-- COMMAND...)]",
        "  viamillipede tx listen PORT [options] [(-- COMMAND...)]",
        "  viamillipede (tx HOST PORT)... [options] [(-- COMMAND...)]",
        "  viamillipede (rx HOST PORT)... [options] [(-- COMMAND...)]",
        "  viamillipede to DEST [options] (-- COMMAND...)",
        "  viamillipede from DEST [options] (-- COMMAND...)",
        "  viamillipede doctor [HOST PORT] [options]",
        "  viamillipede completion (bash | zsh | fish)",
        "  viamillipede key",
        "  viamillipede (--help | --version | --show-config)",
        HINT.strip(),
    ]


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["help"],
        [*RX, "help"],
        ["tx", "--help"],
        [*RX, "nonsense", "-h"],
        ["doctor", "help"],
        ["doctor", "-h"],
        [*RX, "--help", "--", "no-such-command"],
    ],
)
def test_help(argv: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    assert capfd.readouterr() == (USAGE, "")


@pytest.mark.parametrize("asked", ["--help", "-h", "help", "--version", "version", "completion"])
def test_what_is_said_to_a_command_is_not_for_us(asked: str, install: Install) -> None:
    seen: list[object] = []

    def program(config: object) -> int:
        seen.append(config)
        return 0

    install("viamillipede.aio.receive", "receive", program)
    assert main([*RX, "--", "ls", asked]) == 0
    assert seen == [RxConfig(port=8834, command=("ls", asked))]


def test_a_command_that_cannot_be_run(install: Install, capfd: pytest.CaptureFixture[str]) -> None:
    install("viamillipede.aio.receive", "receive", raising(AssertionError("must not run")))
    assert main([*RX, "--", "no-such-command", "--help"]) == 2
    assert capfd.readouterr() == ("", f"viamillipede: there is no command 'no-such-command' that can be run\n{HINT}")


def test_completion(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    out, err = capfd.readouterr()
    assert (out.startswith("# bash completion for viamillipede"), err) == (True, "")
    for argv in (["completion"], ["completion", "ksh"], ["completion", "bash", "zsh"], [*TX, "completion", "bash"]):
        assert main(argv) == 2
        out, err = capfd.readouterr()
        assert (out, err.count("\n")) == ("", 2)
        assert "completion bash|zsh|fish" in err


def test_files_are_asked_last(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config"
    file.write_text("threads 4\nwindow 2M\nframe = 64k\nkeep\n", encoding="utf-8")
    monkeypatch.setattr(cli, "places", lambda environ: [file])
    monkeypatch.setenv("VIAMILLIPEDE_WINDOW", "1M")
    seen: list[object] = []

    def program(config: object) -> int:
        seen.append(config)
        return 0

    install("viamillipede.aio.tx", "transmit", program)
    assert main([*TX, "threads", "8"]) == 0
    address = Address("host", 8834)
    assert seen == [TxConfig(addresses=(address,), threads=8, window_bytes=MIB, frame_bytes=64 * KIB)]
    assert main(list(RX)) == 2
    what = "a command is needed, to be run for each stream: rx PORT keep -- COMMAND"
    assert capfd.readouterr().err == f"viamillipede: {file}:4: {what}\n{HINT}"
    file.write_text("threads many\n", encoding="utf-8")
    assert main([*TX]) == 2
    assert capfd.readouterr().err.startswith(f"viamillipede: {file}:1: threads: 'many' is not a whole number")


@pytest.mark.parametrize("spelling", ["show-config", "--show-config"])
def test_show_config(
    spelling: str,
    install: Install,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "config"
    file.write_text("threads 4\nwindow 2M\ncongestion bbr\n", encoding="utf-8")
    monkeypatch.setattr(cli, "places", lambda environ: [file])
    monkeypatch.setenv("VIAMILLIPEDE_WINDOW", "1M")
    install("viamillipede.aio.tx", "transmit", raising(AssertionError("must not run")))
    assert main([*TX, "threads", "8", "checksum", spelling, "--", "no-such-command"]) == 0
    out, err = capfd.readouterr()
    shown = [line.partition("#") for line in out.splitlines() if not line.startswith("#")]
    assert err == ""
    assert {(line.strip(), where.strip()) for line, _, where in shown} == {
        ("threads 8", "command line"),
        ("checksum yes", "command line"),
        ("window 1M", "VIAMILLIPEDE_WINDOW"),
        ("congestion bbr", f"{file}:3"),
    }
    assert main([spelling]) == 0
    assert f"threads 4{' ' * 24}# {file}:1\n" in capfd.readouterr().out
    assert main([*TX, "threads", "0", spelling]) == 2
    out, err = capfd.readouterr()
    assert (out, "'0' is not a whole number from 1 to 1024" in err) == ("", True), err


def test_version(install: Install, capfd: pytest.CaptureFixture[str]) -> None:
    install("viamillipede.protocol.wire", "VERSION", 7)
    for argv in (["--version"], ["version"], [*RX, "version"]):
        assert main(argv) == 0
        assert capfd.readouterr() == (f"viamillipede {__version__}, wire version 7\n", "")


def test_a_variable_that_is_no_word_is_warned_of(
    install: Install, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("viamillipede.aio.receive", "receive", lambda asked: 0)
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


# The ends of the stream on this host. ---------------------------------------------------------
def test_force_writes_to_a_terminal(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("viamillipede.aio.receive", "receive", lambda asked: 0)
    monkeypatch.setattr(os, "isatty", lambda fd: True)
    assert main([*RX, "force"]) == 0
    assert main(list(RX)) == 2


def test_with_a_command_the_standard_streams_may_be_terminals(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("viamillipede.aio.receive", "receive", lambda asked: 0)
    install("viamillipede.aio.tx", "transmit", lambda asked: 0)
    monkeypatch.setattr(os, "isatty", lambda fd: True)
    assert (main(list(RX)), main(list(TX))) == (2, 2)
    assert (main([*RX, "--", "sh"]), main([*TX, "--", "sh"])) == (0, 0)
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(os, "isatty", lambda fd: False)
    assert (main(list(RX)), main(list(TX))) == (7, 7)
    assert (main([*RX, "--", "sh"]), main([*TX, "--", "sh"])) == (0, 0)


def test_a_dashboard_needs_a_terminal(
    install: Install, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    install("viamillipede.aio.receive", "receive", lambda asked: 0)
    for argv in ([*RX, "dashboard"], [*RX, "dashboard", "--", "sh"]):
        assert main(argv) == 2
        assert capfd.readouterr().err.startswith("viamillipede: dashboard needs a terminal on standard error; say ")
        with monkeypatch.context() as context:
            context.setattr(os, "isatty", lambda fd: fd == 2)
            assert main(argv) == 0


def test_only_the_own_end_may_not_be_a_terminal(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("viamillipede.aio.receive", "receive", lambda asked: 0)
    install("viamillipede.aio.tx", "transmit", lambda asked: 0)
    monkeypatch.setattr(os, "isatty", lambda fd: fd == 0)
    assert main(list(RX)) == 0
    monkeypatch.setattr(os, "isatty", lambda fd: fd == 1)
    assert main(list(TX)) == 0
