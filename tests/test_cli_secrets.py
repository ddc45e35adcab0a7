"""Keys and phrases of the program as a process: a fresh key, what is asked, what is shown, what commands inherit."""

import fcntl
import os
import pty
import resource
import select
import signal
import stat
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from viamillipede import cli
from viamillipede.cli import main
from viamillipede.config import KEY_PREFIX, Secret
from viamillipede.secret import fresh_key, parse_key, read_key_file, spell_key
from viamillipede.settings import AnyConfig

PROGRAM = (sys.executable, "-m", "viamillipede")
HERE = Path(__file__).resolve().parent.parent
PATIENCE_S = 60
PHRASE = "correct horse"
RX = ("rx", "0", "phrase", "ask")


@pytest.fixture(autouse=True)
def no_files_and_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cli, "places", lambda environ: [tmp_path / "config"])
    for name in [name for name in os.environ if name.startswith("VIAMILLIPEDE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "some.key"
    path.touch(0o600)
    path.write_text(spell_key(fresh_key()))
    return path


# A fresh key. -----------------------------------------------------------------------------------------------
def test_a_fresh_key_in_a_file(tmp_path: Path) -> None:
    keys = []
    for name, before in (("new", None), ("shared", 0o666), ("private", 0o400)):
        path = tmp_path / name
        if before is not None:
            path.touch()
            path.chmod(0o600)
        with path.open("wb") as file:
            if before is not None:
                path.chmod(before)
            subprocess.run([*PROGRAM, "key"], stdout=file, check=True, cwd=HERE, timeout=PATIENCE_S)
        assert stat.S_IMODE(path.stat().st_mode) == (before if before == 0o400 else 0o600)
        keys.append(read_key_file(str(path)))
    assert len(set(keys)) == 3


def test_a_fresh_key_in_a_pipe(capfd: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run([*PROGRAM, "key"], capture_output=True, text=True, check=True, cwd=HERE, timeout=PATIENCE_S)
    comment, text = done.stdout.splitlines()
    assert (comment[:2], done.stderr) == ("# ", "")
    parse_key(text)


def test_a_fresh_key_is_asked_for_alone(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "FILE"]) == 2
    out, err = capfd.readouterr()
    assert (out, "a fresh key: viamillipede key > FILE" in err) == ("", True)
    assert main(["key", "--help"]) == 0
    assert KEY_PREFIX not in capfd.readouterr().out


@pytest.mark.parametrize("prefix", ["", KEY_PREFIX])
def test_a_key_that_is_an_argument_of_to_is_not_repeated(prefix: str, capfd: pytest.CaptureFixture[str]) -> None:
    bare = spell_key(fresh_key()).removeprefix(KEY_PREFIX)
    for argv in (["to", "far", prefix + bare], ["from", prefix + bare], ["to", "far", "log", prefix + bare]):
        assert main([*argv, "--", "cat"]) == 2
        out, err = capfd.readouterr()
        assert (out, bare in err) == ("", False)
        assert err.startswith("viamillipede: a key is no argument, for all users of this host can see it there")


# At a terminal. ---------------------------------------------------------------------------------------------
def _at_the_terminal() -> None:
    fcntl.ioctl(2, termios.TIOCSCTTY, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # SIGQUIT would leave one


class Terminal:
    """A process whose terminal this is; its standard output, unless that is the terminal too, is a pipe."""

    def __init__(self, *argv: str, stdout: int | None = None) -> None:
        self.fd, theirs = pty.openpty()
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=theirs if stdout is None else stdout,
            stderr=theirs,
            cwd=HERE,
            start_new_session=True,
            preexec_fn=_at_the_terminal,
        )
        os.close(theirs)
        self.heard = b""

    def hear(self, text: bytes, times: int = 1) -> None:
        """Until it has said this so often."""
        deadline = time.monotonic() + PATIENCE_S
        while self.heard.count(text) < times:
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self.fd], [], [], left)[0], f"it only said {self.heard!r}"
            self.heard += os.read(self.fd, 4096)

    def end(self) -> int:
        """Its status; all that it has said is in `heard`."""
        status = self.process.wait(PATIENCE_S)
        while select.select([self.fd], [], [], 0)[0]:
            try:
                self.heard += os.read(self.fd, 4096)
            except OSError:  # EIO: nobody holds the other end
                break
        return status

    def close(self) -> None:
        """Nothing is left of it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self.fd)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def test_a_fresh_key_on_the_screen(terminals: list[Terminal]) -> None:
    terminals.append(terminal := Terminal(*PROGRAM, "key"))
    terminal.hear(b"'viamillipede key > FILE' keeps it in a file")
    assert terminal.end() == 0
    assert KEY_PREFIX.encode() in terminal.heard


ASK = "from viamillipede.secret import ask_phrase; print(len(ask_phrase().data))"
PROMPT = b"viamillipede: phrase, 8 characters at least, the same at both ends (not shown): "
SHORT = "viamillipede: a phrase has at least 8 characters; take a longer one"


@pytest.mark.parametrize(("typed", "said"), [(PHRASE, "13"), ("\xe9" * 8, "16")])
def test_a_phrase_is_typed_unseen(terminals: list[Terminal], typed: str, said: str) -> None:
    terminals.append(terminal := Terminal(sys.executable, "-c", ASK))
    terminal.hear(PROMPT)
    os.write(terminal.fd, f"{typed}\n".encode())
    assert terminal.end() == 0
    assert terminal.heard.split(PROMPT)[1].decode().split() == [said], "and nothing else is to be seen"


def test_a_phrase_that_is_too_short_is_asked_for_again(terminals: list[Terminal]) -> None:
    terminals.append(terminal := Terminal(sys.executable, "-c", ASK))
    for times, typed in enumerate(("", "seven x", PHRASE), 1):
        terminal.hear(PROMPT, times)
        os.write(terminal.fd, f"{typed}\n".encode())
    assert terminal.end() == 0
    _, *between, last = terminal.heard.split(PROMPT)
    assert (between, last) == ([f"\r\n{SHORT}\r\n".encode()] * 2, b"\r\n13\r\n")


def test_a_phrase_that_stays_too_short_is_refused(terminals: list[Terminal]) -> None:
    terminals.append(terminal := Terminal(*PROGRAM, *RX, stdout=subprocess.DEVNULL))
    for times in (1, 2, 3):
        terminal.hear(PROMPT, times)
        os.write(terminal.fd, b"seven x\n")
    assert terminal.end() == 2
    assert terminal.heard.count(PROMPT) == 3
    assert terminal.heard.split(PROMPT)[3].startswith(f"\r\n{SHORT}\r\nTry ".encode())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT])
def test_who_is_ended_while_it_asks_leaves_the_terminal_as_it_was(
    terminals: list[Terminal], number: signal.Signals
) -> None:
    terminals.append(terminal := Terminal(*PROGRAM, *RX, stdout=subprocess.DEVNULL))
    before = termios.tcgetattr(terminal.fd)
    terminal.hear(PROMPT)
    assert not termios.tcgetattr(terminal.fd)[3] & termios.ECHO
    terminal.process.send_signal(number)
    assert terminal.end() == (130 if number == signal.SIGINT else -number)
    assert termios.tcgetattr(terminal.fd) == before and before[3] & termios.ECHO
    assert terminal.heard.endswith(PROMPT + b"\r\n"), "the shell begins a line"


def test_a_signal_that_is_ignored_does_not_end_it(terminals: list[Terminal]) -> None:
    terminals.append(terminal := Terminal("sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable, "-c", ASK))
    terminal.hear(PROMPT)
    terminal.process.send_signal(signal.SIGHUP)
    os.write(terminal.fd, f"{PHRASE}\n".encode())
    assert terminal.end() == 0


@pytest.mark.parametrize(
    ("typed", "status", "said"),
    [(b"\x04", 2, "viamillipede: no phrase was typed"), (b"\x03", 130, "")],
)
def test_a_phrase_that_is_not_typed(terminals: list[Terminal], typed: bytes, status: int, said: str) -> None:
    terminals.append(terminal := Terminal(*PROGRAM, *RX, stdout=subprocess.DEVNULL))
    terminal.hear(PROMPT)
    os.write(terminal.fd, typed)
    assert terminal.end() == status
    after = [line for line in terminal.heard.split(PROMPT)[1].decode().splitlines() if line.strip("\r ^C")]
    assert after[:1] == ([said] if said else [])
    assert "Traceback" not in terminal.heard.decode()


def test_nobody_is_asked_for_what_cannot_be(terminals: list[Terminal]) -> None:
    terminals.append(terminal := Terminal(*PROGRAM, *RX))  # it would write to the terminal
    assert terminal.end() == 2
    assert b"standard output is a terminal" in terminal.heard
    assert PROMPT not in terminal.heard


def test_there_is_no_terminal() -> None:
    done = subprocess.run(
        [*PROGRAM, "rx", "0", "phrase", "ask"], input=f"{PHRASE}\n", capture_output=True, text=True, cwd=HERE,
        start_new_session=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    said = "viamillipede: there is no terminal to ask at; write the phrase into a file and say phrase FILE"
    assert done.stderr.splitlines()[0] == said


# What is handed on, and what is shown. ----------------------------------------------------------------------
@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[AnyConfig]:
    """What rx is run with."""
    from viamillipede.aio import receive

    configs: list[AnyConfig] = []

    def stand_in(config: AnyConfig) -> int:
        assert "VIAMILLIPEDE_KEY" not in os.environ
        child = subprocess.run(["env"], capture_output=True, text=True, check=True)
        assert KEY_PREFIX not in child.stdout
        configs.append(config)
        return 0

    monkeypatch.setattr(receive, "receive", stand_in)
    monkeypatch.setattr(os, "isatty", lambda fd: False)
    return configs


def test_commands_do_not_inherit_the_key(
    key: Path, seen: list[AnyConfig], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    other = fresh_key()
    monkeypatch.setenv("VIAMILLIPEDE_KEY", spell_key(other))
    assert main(["rx", "0"]) == 0
    monkeypatch.setenv("VIAMILLIPEDE_KEY", spell_key(other))
    assert main(["rx", "0", "key", str(key)]) == 0, "also where another one is used"
    assert [config.key for config in seen] == [other, read_key_file(str(key))]
    assert capfd.readouterr() == ("", "")
    assert KEY_PREFIX not in f"{seen}" and "\\x" not in f"{[config.key for config in seen]}"


@pytest.mark.parametrize("stdin", ["pipe", "file"])
def test_a_key_on_standard_input(key: Path, stdin: str) -> None:
    """What is wrong with it comes before anything else that takes time."""
    key.write_text(key.read_text()[:-1])
    with key.open("rb") as opened:
        done = subprocess.run(
            [*PROGRAM, "rx", "0", "key", "/dev/stdin"], capture_output=True, text=True, cwd=HERE, timeout=PATIENCE_S,
            **({"stdin": opened} if stdin == "file" else {"input": key.read_text()}),
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("viamillipede: key: /dev/stdin: a key has 48 letters"), done.stderr
    assert key.read_text()[30:40] not in done.stderr


def test_show_config_shows_files_only(
    key: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def shown(*argv: str) -> list[list[str]]:
        assert main(["rx", "0", *argv, "show-config"]) == 0
        out, err = capfd.readouterr()
        assert (KEY_PREFIX in out, err) == (False, "")
        lines = [line.rpartition(" # ") for line in out.splitlines()]
        return [[line.strip(), where] for line, _, where in lines if line.lstrip("# ").startswith(("key", "phrase"))]

    no_key, no_phrase = ["# key FILE", "not said"], ["# phrase FILE", "not said"]
    assert shown() == [no_key, no_phrase]
    assert shown("key", "absent") == [["key absent", "command line"], no_phrase], "it is not read"
    assert shown("phrase", "ask") == [no_key, ["phrase ask", "command line"]]
    monkeypatch.setenv("VIAMILLIPEDE_KEY_FILE", str(key))
    assert shown() == [[f"key {key}", "VIAMILLIPEDE_KEY_FILE"], no_phrase]
    assert shown("phrase", "ask") == [no_key, ["phrase ask", "command line"]], "what does not count is not shown"
    monkeypatch.delenv("VIAMILLIPEDE_KEY_FILE")
    (tmp_path / "config").write_text("phrase some\n")
    assert shown() == [no_key, [f"phrase {tmp_path}/some", f"{tmp_path}/config:1"]]
    monkeypatch.setenv("VIAMILLIPEDE_KEY", spell_key(Secret(bytes(range(32)))))
    assert shown() == [["# key, which is not shown", "VIAMILLIPEDE_KEY"], no_phrase]


def test_show_config_refuses_what_parse_would(
    key: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = spell_key(fresh_key())
    for argv, environ in (
        (["key", str(key), "phrase", "ask"], {}),
        (["key", text], {}),
        ([], {"VIAMILLIPEDE_KEY_FILE": text}),
        ([], {"VIAMILLIPEDE_KEY": text, "VIAMILLIPEDE_PHRASE": "ask"}),
    ):
        with monkeypatch.context() as context:
            for name, value in environ.items():
                context.setenv(name, value)
            assert main(["rx", "0", *argv, "show-config"]) == 2
        out, err = capfd.readouterr()
        assert (out, err.count("\n"), text[len(KEY_PREFIX) :] in err) == ("", 2, False)
