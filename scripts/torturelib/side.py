"""The processes of a run: started in sessions of their own, listened to, waited for one by one."""

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import subprocess
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from .oracle import NOISE, Ended

HEAD_LINES, TAIL_LINES = 200, 400  # of standard error that are kept in memory; all of it is in the run's folder
PR_SET_CHILD_SUBREAPER = 36
OURS: set[int] = set()  # processes that we have started, and wait for one by one


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own one ends, so that none is overlooked. OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def environment(folder: Path) -> dict[str, str]:
    """That of the program under test: nobody's configuration, and what is destroyed unfinished is told."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("VIAMILLIPEDE_")}
    return env | {"PYTHONWARNINGS": "default", "HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}


class Side:
    """One process. `ended` is its exit status, negative for a signal, once it is gone."""

    def __init__(self, name: str, argv: Sequence[str], folder: Path, stdin: int, stdout: int) -> None:
        self.name, self.argv = name, list(argv)
        loop = asyncio.get_running_loop()
        self._process = subprocess.Popen(
            self.argv, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, bufsize=0, cwd=folder,
            env=environment(folder), start_new_session=True,
        )  # fmt: skip
        self.pid = self._process.pid
        OURS.add(self.pid)
        self.ended: asyncio.Future[int] = loop.create_future()
        self.peak_bytes = 0
        self.noise: list[str] = []
        self._head: list[str] = []
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._rest = b""
        self._heard: list[tuple[re.Pattern[str], asyncio.Future[None]]] = []
        self._silent: asyncio.Future[None] = loop.create_future()  # done when it will say nothing any more
        self._log = (folder / f"{name}.stderr").open("wb")
        self._pidfd = os.pidfd_open(self.pid)
        loop.add_reader(self._pidfd, self._reap)
        assert self._process.stderr is not None
        self._stderr = self._process.stderr
        os.set_blocking(self._stderr.fileno(), False)
        loop.add_reader(self._stderr.fileno(), self._listen)

    @property
    def living(self) -> bool:
        """Whether it has not ended, or not been noticed to have."""
        return not self.ended.done()

    # ---- what it says ---------------------------------------------------------------------------
    @property
    def said(self) -> str:
        """Its standard error; of a long one, both ends."""
        return "\n".join([*self._head, *self._tail])

    def _listen(self) -> None:
        try:
            data = self._stderr.read(1 << 16)
        except BlockingIOError:
            return
        if data is None:
            return
        if not data:
            self._stop_listening()
            return
        self._log.write(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._on_line(line.decode(errors="replace"))

    def _on_line(self, line: str) -> None:
        (self._head if len(self._head) < HEAD_LINES else self._tail).append(line)
        if NOISE.search(line):
            self.noise.append(line)
        for pattern, future in self._heard:
            if not future.done() and pattern.search(line):
                future.set_result(None)

    def _stop_listening(self) -> None:
        if self._silent.done():
            return
        asyncio.get_running_loop().remove_reader(self._stderr.fileno())
        self._stderr.close()
        if self._rest:
            self._on_line(self._rest.decode(errors="replace"))
        self._log.close()
        self._silent.set_result(None)

    async def hear(self, pattern: str) -> bool:
        """Wait until a line matches; False: it has ended without."""
        compiled = re.compile(pattern)
        if any(compiled.search(line) for line in [*self._head, *self._tail]):
            return True
        heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._heard.append((compiled, heard))
        await asyncio.wait({heard, self._silent}, return_when=asyncio.FIRST_COMPLETED)
        return heard.done()

    # ---- how it ends ----------------------------------------------------------------------------
    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens when it has ended. It has its number until we have waited for it."""
        if self.living:
            os.kill(self.pid, number)

    def _reap(self) -> None:
        _, status, usage = os.wait4(self.pid, 0)
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        OURS.discard(self.pid)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self.peak_bytes = usage.ru_maxrss * 1024
        self.ended.set_result(self._process.returncode)

    async def end(self) -> int:
        """Wait for its end; the status."""
        await asyncio.wait({self.ended})  # whoever is cancelled in waiting must not cancel the future
        return self.ended.result()

    async def last_words(self, patience_s: float) -> None:
        """Wait until nobody can write on its standard error any more: neither it nor a process of its."""
        await asyncio.wait({self._silent}, timeout=patience_s)

    def outcome(self) -> Ended:
        """How it ended."""
        return Ended(None if self.living else self.ended.result(), self.said, self.noise, self.peak_bytes)

    async def release(self) -> None:
        """Kill it if it lives, and give everything back."""
        if self.living:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.signal(signal.SIGKILL)
        await self.end()
        self._stop_listening()


def _start(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


async def run_quietly(argv: Sequence[str]) -> tuple[int, str]:
    """Run a short command of the system; its status and what it printed, on either output."""
    process = _start(argv)
    OURS.add(process.pid)
    pidfd = os.pidfd_open(process.pid)
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_reader(pidfd, _set, ended)
    try:
        await ended  # what these commands print fits a pipe
    finally:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        if not ended.done():
            process.kill()
        said, _ = process.communicate()
        OURS.discard(process.pid)
    return process.returncode, said.decode(errors="replace")


# ---- descendants ---------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    """The children of a process, and theirs, without those that have ended."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split()):
                if (stat := _state(child)) and stat not in "ZX":
                    found.append(child)
                found += children(child)
    return found


def _state(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    return ""


def command_line(pid: int) -> str:
    """What was started; "" if it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def reap_orphans() -> None:
    """Wait for what has ended among those whom we have adopted, as init does. To be called on SIGCHLD: whoever looks
    whether a process group has become empty must not see what is dead.
    """
    for task in os.listdir("/proc/self/task"):
        for child in map(int, Path(f"/proc/self/task/{task}/children").read_text().split()):
            if child not in OURS:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(child, os.WNOHANG)


async def outlived(patience_s: float) -> list[str]:
    """Whatever descendant of ours still lives after so many seconds, in words; it is killed."""
    deadline = asyncio.get_running_loop().time() + patience_s
    while living := children(os.getpid()):
        if asyncio.get_running_loop().time() >= deadline:
            break
        await asyncio.sleep(0.01)
        reap_orphans()
    found = [f"process {pid}: {command_line(pid)}" for pid in living]
    while living:
        for pid in living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.01)
        reap_orphans()
        living = children(os.getpid())
    reap_orphans()
    return found
