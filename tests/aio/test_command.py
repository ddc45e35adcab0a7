"""A child process from its start to its end: its group, its guardian, what it says, and how its end is told."""

import asyncio
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.aio.drive import take, turns, until
from viamillipede.aio import command as module
from viamillipede.aio.command import LINE_BYTES_MAX, QUOTED_BYTES, QUOTED_LINES, Command
from viamillipede.aio.log import Log
from viamillipede.config import MS_US, REASON_BYTES_MAX
from viamillipede.errors import LocalIOError


class Heard(Log):
    """What was said, instead of saying it."""

    def __init__(self) -> None:
        super().__init__("tx", 0)
        self.written = ""
        self.said: list[str] = []

    def write(self, text: str) -> None:
        """See Log."""
        self.written += text

    def say(self, level: int, text: str) -> None:
        """See Log."""
        self.said.append(text)


class Begun:
    """A command that was started, and how often its end was told."""

    def __init__(self, *argv: str, **start: Any) -> None:
        self.log, self.exits = Heard(), 0
        self.command = Command(argv, "sink", self.log, self._on_exit)
        self.command.start({"MARK": "of this test"}, **start)

    def _on_exit(self) -> None:
        assert self.command.ended.is_set()
        self.exits += 1

    @property
    def process(self) -> psutil.Process:
        """The child."""
        return psutil.Process(self.command._process.pid)

    async def ended(self) -> int:
        """Its status, after all was told."""
        await self.command.ended.wait()
        self.command.close()
        assert self.exits == 1 and self.command.status is not None
        return self.command.status

    async def kill(self) -> None:
        """The test is over."""
        self.command.signal(signal.SIGKILL)
        await self.ended()


def sh(script: str, **start: Any) -> Begun:
    """A shell that was started."""
    return Begun("/bin/sh", "-c", script, **start)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands have 100 ms to end."""
    monkeypatch.setattr(module, "COMMAND_END_US", 100 * MS_US)
    yield


# How it ends ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script, status, how",
    [
        ("exit 0", 0, "exited with status 0"),
        ("exit 3", 3, "exited with status 3"),
        ("kill -TERM $$", -15, "was ended by SIGTERM"),
        ("kill -40 $$", -40, "was ended by signal 40"),
    ],
)
async def test_the_end_is_told_once_and_in_words(script: str, status: int, how: str) -> None:
    begun = sh(script)
    assert begun.command.started
    assert await begun.ended() == status
    assert begun.command.how() == f"the sink '/bin/sh -c {script}' {how}"
    begun.command.signal(signal.SIGTERM)  # nobody is there any more


async def test_what_it_gets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "too")
    begun = sh('echo "$MARK $OURS" >env; ps -o pid=,pgid=,sid= -p $$ >ids')
    assert await begun.ended() == 0
    assert (folder / "env").read_text() == "of this test too\n"
    assert len(set((folder / "ids").read_text().split())) == 1, "a session of its own"


@pytest.mark.parametrize("name", ["/there/is/no/such/command", "/etc/passwd", "/"])
async def test_what_cannot_be_run_leaves_nothing(name: str) -> None:
    with pytest.raises(LocalIOError, match=f"cannot run the sink '{name}': (No such file|Permission denied)"):
        Begun(name)
    assert not psutil.Process().children()


async def test_without_a_guardian_nothing_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Any = subprocess.Popen
    started: list[Any] = []

    def once(*args: Any, **kwargs: Any) -> Any:
        if started:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        started.append(real(*args, **kwargs))
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", once)
    with pytest.raises(LocalIOError, match="cannot run the sink '/bin/sh': Resource temporarily unavailable"):
        sh("sleep 60; : >survived")
    assert started[0].returncode == -9


async def test_without_a_descriptor_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    with (
        monkeypatch.context() as patched,
        pytest.raises(LocalIOError, match=r"cannot run the sink.*Too many open files"),
    ):
        patched.setattr(os, "pipe", none)
        sh("sleep 60")


async def test_before_its_start_there_is_nothing_to_end() -> None:
    command = Command(["/bin/sh"], "sink", Heard(), lambda: None)
    command.signal(signal.SIGTERM)
    await command.end(asyncio.Event())
    command.close()


@pytest.mark.parametrize(
    "argv, name",
    [
        (["zfs", "recv", "tank/fs"], "'zfs recv tank/fs'"),
        (["a", "b\nc\x1b"], r"'a b\nc\x1b'"),
        (["x" * 1000], f"'{'x' * (LINE_BYTES_MAX - 1)}...'"),
        (["ü" * 1000], f"'{'ü' * (LINE_BYTES_MAX // 2 - 1)}...'"),
    ],
)
async def test_its_name_has_a_line_and_a_length(argv: list[str], name: str) -> None:
    assert Command(argv, "sink", Heard(), lambda: None).name() == name


# What it says -----------------------------------------------------------------------------------------------


async def test_what_it_says_is_passed_on_as_it_comes(folder: Path) -> None:
    os.mkfifo("go")
    begun = sh(r"printf 'one\n\ntw' >&2; read -r x <go; printf 'o  \nthree' >&2")
    await until(lambda: begun.log.written == "one\n\n")
    (folder / "go").write_text("\n")
    await begun.ended()
    assert begun.log.written == "one\n\ntwo\nthree\n"
    assert begun.command.how().splitlines()[1:] == ["one", "two", "three"], "empty lines are not worth their place"


async def test_the_last_lines_are_kept() -> None:
    begun = sh("seq 1000 >&2")
    await begun.ended()
    assert begun.log.written.splitlines() == [str(number) for number in range(1, 1001)]
    assert begun.command.how().splitlines()[1:] == [str(number) for number in range(1001 - QUOTED_LINES, 1001)]


@pytest.mark.parametrize("letter", [b"a", "ü".encode(), b"\xff", b"\x1b"])
async def test_what_is_told_of_it_fits_a_message(folder: Path, letter: bytes) -> None:
    (folder / "said").write_bytes(b"".join(letter * 700 + b" %d\n" % number for number in range(9)))
    begun = sh("cat said >&2; exit 4 # " + "ü" * 600)
    await begun.ended()
    what, *lines = begun.command.how().splitlines()
    assert what.endswith("...' exited with status 4")
    assert [line.split()[-1] for line in lines] == [str(number) for number in range(9 - len(lines), 9)]
    assert QUOTED_BYTES - LINE_BYTES_MAX <= sum(len(line.encode()) + 1 for line in lines) <= QUOTED_BYTES
    assert len(begun.command.how().encode()) < REASON_BYTES_MAX
    assert len(begun.log.written.splitlines()) == 9


async def test_a_line_without_end_takes_no_memory() -> None:
    begun = sh("head -c 1000000 /dev/zero >&2; printf end >&2")
    await begun.ended()
    assert begun.log.written == "\0" * (LINE_BYTES_MAX - 3) + "end\n"


async def test_what_others_say_on_its_standard_error_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may write faster than it can be read: the pipe is never empty."""
    read_fd, write_fd = os.pipe()
    begun = sh("echo more >&2; read -r x", stdin=read_fd)
    os.close(read_fd)
    asyncio.get_running_loop().remove_reader(begun.command._stderr)
    reads: list[None] = []

    def read_nothing() -> None:
        reads.append(None)
        assert len(reads) < 10

    monkeypatch.setattr(begun.command, "_on_stderr", read_nothing)
    os.close(write_fd)
    assert await begun.ended() == 1
    assert len(reads) == 1, "once is as much as a pipe holds"


async def test_a_standard_error_that_stays_open_is_let_go_of() -> None:
    begun = sh("sleep 60 & exit 0")
    assert await begun.ended() == 0
    begun.command.close()  # twice is once
    os.killpg(begun.command._process.pid, signal.SIGKILL)


# How it is ended --------------------------------------------------------------------------------------------


async def test_a_signal_reaches_all_that_it_has_started(folder: Path) -> None:
    begun = sh("sleep 60 & sleep 60 & : >begun; wait")
    await until((folder / "begun").exists)
    family = [begun.process, *begun.process.children(recursive=True)]
    assert len(family) == 3
    began_s = time.monotonic()
    begun.command.signal(signal.SIGTERM)
    await begun.command.end(asyncio.Event())
    assert time.monotonic() - began_s < 4
    assert await begun.ended() == -15
    await until(lambda: not any(each.is_running() and each.status() != "zombie" for each in family))


async def test_what_it_leaves_behind_is_waited_for_and_killed(folder: Path, brief: None) -> None:
    begun = sh('(trap "" TERM; : >begun; while :; do sleep 0.01; done) & wait')
    await until((folder / "begun").exists)
    child = begun.process.children()[0]
    began_s = time.monotonic()
    begun.command.signal(signal.SIGTERM)
    await begun.command.end(asyncio.Event())
    assert time.monotonic() - began_s >= 0.1
    assert await begun.ended() == -15, "it ended itself, but not all of it"
    await until(lambda: not child.is_running() or child.status() == "zombie")


async def test_who_does_not_mind_is_killed(folder: Path, brief: None) -> None:
    begun = sh('trap "" TERM; : >begun; while :; do sleep 0.01; done')
    await until((folder / "begun").exists)
    begun.command.signal(signal.SIGTERM)
    await begun.command.end(asyncio.Event())
    assert await begun.ended() == -9
    assert begun.log.said == []


async def test_in_a_hurry_it_has_no_time(folder: Path) -> None:
    begun = sh('trap "" TERM; : >begun; while :; do sleep 0.01; done')
    await until((folder / "begun").exists)
    begun.command.signal(signal.SIGTERM)
    hurry = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, hurry.set)
    began_s = time.monotonic()
    await begun.command.end(hurry)
    assert time.monotonic() - began_s < 3
    assert await begun.ended() == -9


async def test_what_is_not_ours_to_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = sh("sleep 60")

    def forbidden(pid: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(os, "killpg", forbidden)
        patched.setattr(module, "KILLED_US", 50 * MS_US)
        began_s = time.monotonic()
        begun.command.signal(signal.SIGTERM)
        await begun.command.end(asyncio.Event())
        assert time.monotonic() - began_s < 3
    assert len(begun.log.said) == 1
    pid = begun.command._process.pid
    assert "sink '/bin/sh -c sleep 60' runs as another user and cannot be ended from here" in begun.log.said[0]
    assert begun.log.said[0].endswith(f"it is left without input: kill {pid}")
    guardian = begun.command._guardian
    begun.command.close()
    assert guardian.poll() is None, "it holds what there is to hold"
    await begun.kill()


# The guardian -----------------------------------------------------------------------------------------------


async def test_only_when_told_so_the_guardian_lets_go_of_what_it_holds() -> None:
    read_fd, write_fd = os.pipe()
    begun = sh("sleep 60", held=write_fd)
    os.close(write_fd)
    reading = asyncio.create_task(take(read_fd))
    await turns(50)
    assert not reading.done()
    begun.command.let_go()
    assert await reading == b""
    os.close(read_fd)
    assert begun.command._guardian.poll() is None, "it is still needed"
    await begun.kill()
    assert begun.command._guardian.returncode == -9


async def test_without_its_guardian_all_goes_on() -> None:
    begun = sh("sleep 60")
    begun.command._guardian.kill()
    await until(lambda: psutil.Process(begun.command._guardian.pid).status() == "zombie")
    begun.command.let_go()
    await begun.kill()


def ignored_by(pid: int) -> set[int]:
    """The signals that it ignores."""
    match = re.search(r"SigIgn:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())
    assert match
    return {number for number in range(1, 65) if int(match[1], 16) >> (number - 1) & 1}


@pytest.mark.parametrize("stubborn", [False, True])
async def test_the_guardian_ends_it_when_we_are_gone(folder: Path, stubborn: bool, monkeypatch: Any) -> None:
    """Also when it was signalled itself. That is what the end of its input means."""
    monkeypatch.setattr(module, "_GUARDIAN", module._GUARDIAN.replace("n=50", "n=3"))
    child = '(trap ": >asked; exit" TERM; : >child; while :; do sleep 0.01; done) &'
    begun = sh(f'{child} trap "{"" if stubborn else "exit 9"}" TERM; : >begun; while :; do sleep 0.01; done')
    guardian = begun.command._guardian
    await until(lambda: (folder / "begun").exists() and (folder / "child").exists())
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    await until(lambda: ignored_by(guardian.pid).issuperset(signals))
    for number in signals:
        guardian.send_signal(number)
    assert guardian.stdin is not None
    guardian.stdin.close()
    await begun.command.ended.wait()
    assert begun.command.status == (-9 if stubborn else 9)
    assert await asyncio.to_thread(guardian.wait, 10) == 0
    assert (folder / "asked").exists(), "all that it has started is asked first"
    begun.command.close()
