"""Commands for both ends, shells that leave marks in a folder, and the processes that all of it consists of."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from tests.e2e.helpers import Side, Stage, eventually

ENDS_WITHIN_S = 30  # the end of a failure; nothing in it takes longer than the 5 s of a stubborn command
Command = tuple[object, ...]


def sh(script: str, *arguments: object) -> Command:
    """A POSIX shell; "$1" is the first of `arguments`."""
    return ("--", "sh", "-c", script, "sh", *arguments)


def python(code: str, *arguments: object) -> Command:
    """A Python without anything that takes time to load; sys.argv[1] is the first of `arguments`."""
    return ("--", sys.executable, "-ISc", code, *arguments)


class Marks:
    """A folder in which commands leave files that say how far they came."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, name: str) -> Path:
        return self.folder / name

    def has(self, name: str) -> bool:
        """Whether that mark was left."""
        return self[name].exists()

    def appears(self, name: str) -> None:
        """Wait for it."""
        eventually(lambda: self.has(name), f"the mark {name}", ENDS_WITHIN_S)

    def text(self, name: str) -> str:
        """What it says."""
        return self[name].read_text()

    def keeping(self, after: str = "", before: str = "") -> Command:
        """A sink that writes all to the file `data`, and then, when its input has ended, the mark `eof`."""
        return sh(f'cd "$1"; : >begun; {before} cat >>data; : >eof; {after}', self.folder)

    def stubborn(self) -> Command:
        """As `keeping`, and it does not mind SIGTERM, which leaves the mark `asked`."""
        return python(STUBBORN, self.folder)


STUBBORN = """
import os, signal, sys
os.chdir(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: open("asked", "w").close())
open("begun", "w").close()
with open("data", "ab", 0) as data:
    while piece := os.read(0, 65536):
        data.write(piece)
open("eof", "w").close()
"""


class Family:
    """Processes and all that they have started, guardians included, as they are now."""

    def __init__(self, *sides: Side) -> None:
        self.began_s = time.monotonic()
        self._members: dict[psutil.Process, str] = {}
        for side in sides:
            root = psutil.Process(side.pid)
            for member in (root, *root.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    self._members[member] = " ".join(member.cmdline())

    def __len__(self) -> int:
        return len(self._members)

    def guardians(self) -> list[psutil.Process]:
        """The guardians among them."""
        return [member for member, said in self._members.items() if "kill -s TERM" in said]

    def living(self) -> list[str]:
        """Those that have not ended, in words."""
        return [f"{member.pid} {said}" for member, said in self._members.items() if lives(member)]

    def kill(self) -> None:
        """All of them, at once."""
        for member in self._members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()

    def ends(self, within_s: float) -> float:
        """All of them do; how long that took since they were asked who they are, in seconds."""
        eventually(lambda: not self.living(), f"the end of {self.living()}", within_s)
        return time.monotonic() - self.began_s


def lives(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended and that nobody has waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def run(
    stage: Stage, source: Command | None, sink: Command | None, rx: Iterable[object] = (), tx: Iterable[object] = ()
) -> tuple[Side, Side]:
    """rx and tx with these commands, or with pipes; `rx` and `tx`: their words."""
    receiver = stage.rx(*rx, *(sink or ()))
    transmitter = stage.tx(
        receiver, *tx, *(source or ()), stdin=subprocess.PIPE if source is None else subprocess.DEVNULL
    )
    return receiver, transmitter


def end_with(rx: Side, rx_status: int, tx: Side, tx_status: int) -> tuple[str, str]:
    """What they have said when they have ended so."""
    return rx.ends(rx_status, ENDS_WITHIN_S), tx.ends(tx_status, ENDS_WITHIN_S)
