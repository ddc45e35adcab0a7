"""The processes of one run: started, watched, waited for one by one, and never left behind.

Every process is waited for by its own id (wait4), so CPU time is that of exactly tx, exactly rx.

Peak memory is the kernel's ru_maxrss. A process inherits that figure from whoever started it, so one that
is no larger than our own is replaced by the last VmHWM seen while the process lived (looked at often
at first, then 4 times a second).
"""

import fcntl
import os
import re
import resource
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import viamillipede

from .contenders import OURS

LISTEN_TIMEOUT_S = 30.0
FAILURE_GRACE_S = 3.0  # how long the others may still speak once one process has failed
LOOK_S_MIN = 0.01  # how soon memory is looked at again, at first; buffers are taken early
LOOK_S_MAX = 0.25
POLL_S = 0.001  # how often the kernel is asked whether a port listens
REASON_CHARS_MAX = 160

_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


class RunFailed(Exception):
    """The contender did not deliver; the message says what happened."""


class NotListening(RunFailed):
    """rx ended before it listened, perhaps because its port was taken meanwhile."""


@dataclass(frozen=True, slots=True)
class Side:
    """What one process cost: CPU in seconds (user and system), peak resident memory in bytes."""

    cpu_s: float
    peak_bytes: int


@contextmanager
def _signals_held() -> Iterator[None]:
    """SIGINT and SIGTERM wait for the end of the block, so that no process is started and then forgotten."""
    caught: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {one: signal.signal(one, lambda number, _: caught.append(number)) for one in signals}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        for number in caught:
            signal.raise_signal(number)


@contextmanager
def _confined(cores: Sequence[int]) -> Iterator[None]:
    """What is started in the block runs on these processors only; empty: on all that are ours."""
    own = os.sched_getaffinity(0)
    if cores:
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


class Stage:
    """A child process from start to exit."""

    def __init__(
        self, name: str, argv: Sequence[str], stdin: int, stdout: int | IO[bytes], cores: Sequence[int]
    ) -> None:
        self.name = name
        self.stderr: IO[bytes] = tempfile.TemporaryFile()  # the crew closes it
        try:
            with _confined(cores):
                self.process = subprocess.Popen(
                    argv, stdin=stdin, stdout=stdout, stderr=self.stderr, env=child_env(), start_new_session=True
                )
        except OSError as error:
            self.stderr.close()
            raise RunFailed(f"{name} cannot be started: {error}") from error
        self.pid = self.process.pid
        self.pidfd = os.pidfd_open(self.pid)
        self.exit_at: float | None = None
        self.side = Side(0.0, 0)
        self._seen_peak_bytes = 0

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self.process.returncode

    def look(self) -> None:
        """Remember the peak memory so far; it is gone once the process has exited."""
        with open(f"/proc/{self.pid}/status") as status:
            peak = _PEAK.search(status.read())
        if peak:  # no such line in a process that is just exiting
            self._seen_peak_bytes = int(peak[1]) * 1024

    def reap(self) -> None:
        """Take the exit status and the resources used; the process must have exited."""
        self.exit_at = time.perf_counter()
        with _signals_held():
            _, status, usage = os.wait4(self.pid, 0)
            self.process.returncode = os.waitstatus_to_exitcode(status)
            os.close(self.pidfd)
        peak_bytes = usage.ru_maxrss * 1024
        if peak_bytes <= _own_peak_bytes() and self._seen_peak_bytes:
            peak_bytes = self._seen_peak_bytes
        self.side = Side(usage.ru_utime + usage.ru_stime, peak_bytes)

    def said(self) -> str:
        """Everything it wrote to standard error."""
        self.stderr.seek(0)
        return self.stderr.read().decode(errors="replace")

    def failure(self) -> str:
        """How it failed, with its last words."""
        status = self.status if self.status is not None else 0
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"exited {status}"
        lines = [line.strip() for line in self.said().splitlines() if line.strip()]
        return f"{self.name} {how}" + (f": {lines[-1][:REASON_CHARS_MAX]}" if lines else "")


class Crew:
    """The processes of one run; when the run is over, none of them is left."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []

    def start(
        self, name: str, argv: Sequence[str], stdin: int, stdout: int | IO[bytes], cores: Sequence[int] = ()
    ) -> Stage:
        """cores: the processors that it may use; empty: all that we may. Raises RunFailed."""
        with _signals_held():
            stage = Stage(name, argv, stdin, stdout, cores)
            self.stages.append(stage)
        stage.look()
        return stage

    def wait(self, timeout_s: float) -> None:
        """Until all have exited. Raises RunFailed if one fails, or if they take longer than that."""
        deadline = time.perf_counter() + timeout_s
        late = f"it was not over after {timeout_s:.0f} s"
        look_s = LOOK_S_MIN
        while running := self._running():
            left_s = deadline - time.perf_counter()
            if left_s <= 0:
                break
            self._reap(running, min(left_s, look_s))
            look_s = min(2 * look_s, LOOK_S_MAX)
            if self._failed():
                deadline = min(deadline, time.perf_counter() + FAILURE_GRACE_S)
        if failed := self._failed():
            raise RunFailed("; ".join(stage.failure() for stage in failed))
        if running:
            raise RunFailed(f"{late}: {', '.join(stage.name for stage in running)} still running")

    def wait_listening(self, rx: Stage, port: int) -> None:
        """Until `port` listens, as the kernel tells; nobody connects to find out. Raises RunFailed."""
        deadline = time.perf_counter() + LISTEN_TIMEOUT_S
        while port not in listening_ports():
            self._reap([rx], POLL_S)
            if rx.status is not None:
                raise NotListening(f"{rx.failure()}, before it listened")
            if time.perf_counter() > deadline:
                raise RunFailed(f"{rx.name} did not listen within {LISTEN_TIMEOUT_S:.0f} s")

    def close(self) -> None:
        """Kill what still runs, with what it started; it can hardly have cleaned up by itself."""
        with _signals_held():
            for stage in self._running():
                os.killpg(stage.pid, signal.SIGKILL)  # not reaped yet: the number is still its own
                stage.reap()
        for stage in self.stages:
            stage.stderr.close()

    def _running(self) -> list[Stage]:
        return [stage for stage in self.stages if stage.status is None]

    def _failed(self) -> list[Stage]:
        """Those with a bad status, the cause before the source that was cut off by it."""
        failed = [stage for stage in self.stages if stage.status not in (None, 0)]
        return [stage for stage in failed if stage.name != "source"] or failed

    def _reap(self, stages: Sequence[Stage], timeout_s: float) -> None:
        poll = select.poll()
        for stage in stages:
            poll.register(stage.pidfd, select.POLLIN)
        exited = {fd for fd, _ in poll.poll(timeout_s * 1000)}
        for stage in stages:
            if stage.pidfd in exited:
                stage.reap()
            elif timeout_s > POLL_S:
                stage.look()


@contextmanager
def new_crew() -> Iterator[Crew]:
    """A crew that is dismissed at the end of the block, whatever happened in it."""
    crew = Crew()
    try:
        yield crew
    finally:
        crew.close()


@contextmanager
def pipe(size_bytes: int = 0) -> Iterator[tuple[int, int]]:
    """A pipe, 0: as the shell makes it. Our ends are closed after the block, or the readers never see the end."""
    ends = os.pipe()
    try:
        if size_bytes:
            fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, size_bytes)
        yield ends
    finally:
        for end in ends:
            os.close(end)


def child_env() -> dict[str, str]:
    """The environment without settings of ours that would change what is measured, in one language.

    `-m viamillipede` finds the package that we have imported, wherever the user stands.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith(f"{OURS.upper()}_")}
    here = os.path.dirname(os.path.dirname(os.path.abspath(viamillipede.__file__)))
    return env | {"LC_ALL": "C", "PYTHONPATH": here}


def parse_listening(text: str) -> set[int]:
    """The ports in state LISTEN of a table in the format of /proc/net/tcp."""
    rows = (line.split() for line in text.splitlines()[1:])
    return {int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and row[3] == "0A"}


def listening_ports() -> set[int]:
    """The TCP ports, IPv4 and IPv6, on which some process of this network namespace listens."""
    found: set[int] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if os.path.exists(table):  # no tcp6 where IPv6 is switched off
            with open(table) as lines:
                found |= parse_listening(lines.read())
    return found


def _own_peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
