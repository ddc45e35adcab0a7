"""The command behind `--`: a child process whose output, or input, is the stream.

It has a session of its own: a signal reaches all that it has started, and it has no terminal, so that what would ask
a question there fails instead of waiting for ever. Its standard error is passed on, and its last lines are kept, to be
told to the other side.

Should we be killed without a chance to end it, a guardian does that: a shell that waits for our end of a pipe to close
and then ends the command as we would have. It holds the command's input open meanwhile: an input that ended in the
middle of a stream would look like the end of it.
"""

import asyncio
import contextlib
import os
import select
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from viamillipede.aio.clock import now_us
from viamillipede.aio.descriptors import Worker
from viamillipede.aio.log import WARNING, Log
from viamillipede.config import COMMAND_END_US, KIB, MS_US, S_US
from viamillipede.errors import LocalIOError

QUOTED_LINES, QUOTED_BYTES = 8, 1500  # of its standard error, told to the other side
LINE_BYTES_MAX = 400  # of one of these
READ_BYTES = 64 * KIB
GONE_POLL_US = 50 * MS_US
KILLED_US = 1 * S_US  # for what was killed to be gone

# Its output is the command's input. "end": let go of that, the stream is whole. Who ends all our processes at once
# leaves the order to us, and one who is after those with our name (pkill -9 -f) shall not find the guardian.
_GUARDIAN = f"""
trap '' TERM INT HUP
while read -r word; do
    case $word in end) exec >/dev/null ;; esac
done
kill -s TERM -- "-$1"
n={COMMAND_END_US * 10 // S_US}
while [ $n -gt 0 ] && kill -s 0 -- "-$1"; do sleep 0.1; n=$((n - 1)); done
kill -s KILL -- "-$1"
# Not ours to end, and alive: its input stays open, or it would take this for the end of the stream.
while said=; IFS= read -r said <"/proc/$1/cmdline"; [ -n "$said" ]; do sleep 1; done
"""


class Command:
    """`argv`, from `start` to its end. `role`: "source" or "sink"; `on_exit`: called once it has ended."""

    def __init__(self, argv: Sequence[str], role: str, log: Log, on_exit: Callable[[], None]) -> None:
        self.argv, self._role, self._log, self._on_exit = argv, role, log, on_exit
        self._loop = asyncio.get_running_loop()
        self.started = False
        self._foreign = False  # it may not be signalled
        self.status: int | None = None  # as subprocess has it: below 0 it was that signal
        self.ended = asyncio.Event()
        self._lines: deque[str] = deque(maxlen=QUOTED_LINES)
        self._partial = b""
        self._process: subprocess.Popen[bytes]
        self._guardian: subprocess.Popen[bytes]
        self._stderr = -1
        self._stderr_poll = select.poll()

    # ---- from start to end ----------------------------------------------------------------------
    def start(
        self, environ: Mapping[str, str], stdin: int | None = None, stdout: int | None = None, held: int | None = None
    ) -> None:
        """Run it; None: our own descriptor. `held`: what the guardian keeps open too. LocalIOError: it cannot run."""
        try:
            self._stderr, stderr = os.pipe()
        except OSError as error:
            raise self._cannot_run(error) from error
        try:
            self._process = subprocess.Popen(
                self.argv, stdin=stdin, stdout=stdout, stderr=stderr,
                env={**os.environ, **environ}, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            os.close(self._stderr)
            raise self._cannot_run(error) from error
        finally:
            os.close(stderr)
        try:
            self._guardian = subprocess.Popen(
                ["/bin/sh", "-c", _GUARDIAN, "guardian", str(self._process.pid)],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL if held is None else held, stderr=subprocess.DEVNULL,
                cwd="/", start_new_session=True,
            )  # fmt: skip
        except OSError as error:  # it must not run unguarded
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            os.close(self._stderr)
            raise self._cannot_run(error) from error
        self.started = True
        os.set_blocking(self._stderr, False)
        self._stderr_poll.register(self._stderr, select.POLLIN)
        self._loop.add_reader(self._stderr, self._on_stderr)
        pid = self._process.pid
        Worker(self._loop, self._role).submit(lambda: _wait(pid), self._on_ended)

    def _cannot_run(self, error: OSError) -> LocalIOError:
        return LocalIOError(f"cannot run the {self._role} {self.argv[0]!r}: {error.strerror}")

    def _on_ended(self, _result: int | OSError) -> None:
        self.status = self._process.wait()
        if self._stderr >= 0 and self._stderr_poll.poll(0):
            self._on_stderr()  # once: as much as a pipe holds; what it has started may say more without end
        if self._partial:
            self._keep(self._partial)
        self.ended.set()
        self._on_exit()

    def signal(self, number: int) -> None:
        """Send it, and all that it has started, a signal. Nothing happens before its start."""
        if not self.started:
            return
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            pass  # all of it has ended
        except PermissionError:
            self._foreign = True

    def _is_gone(self) -> bool:
        """Whether it has ended, and all that it has started and that is ours to end."""
        if self.status is None:
            return not self.started
        try:
            os.killpg(self._process.pid, 0)
        except (ProcessLookupError, PermissionError):
            return True
        return not _has_living(self._process.pid)  # where nobody reaps orphans, dead ones stay in the group for ever

    async def end(self, hurry: asyncio.Event) -> None:
        """It was told to end: see to it that it does, and all that it has started, in COMMAND_END_US or a hurry."""
        deadline_us = now_us() + COMMAND_END_US
        while not (self._is_gone() or self._foreign or hurry.is_set()) and now_us() < deadline_us:
            with contextlib.suppress(TimeoutError):  # no event tells when a process group has become empty
                await asyncio.wait_for(hurry.wait(), GONE_POLL_US / S_US)
        if self._is_gone():
            return
        self.signal(signal.SIGKILL)
        with contextlib.suppress(TimeoutError):  # another user's, or a kernel that does not let go of it
            await asyncio.wait_for(self.ended.wait(), KILLED_US / S_US)
        if self.status is None:
            why = "runs as another user and cannot be ended from here" if self._foreign else "does not end"
            pid = self._process.pid
            self._log.say(WARNING, f"the {self._role} {self.name()} {why}; it is left without input: kill {pid}")

    def let_go(self) -> None:
        """The stream is whole: the guardian shall not hold the command's input open any more."""
        stdin = self._guardian.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):  # somebody has killed it
            os.write(stdin.fileno(), b"end\n")

    def close(self) -> None:
        """Dismiss the guardian, if the command has ended. Idempotent."""
        if not self.started:
            return
        self._forget_stderr()
        if self.status is not None:
            assert self._guardian.stdin is not None
            self._guardian.kill()
            self._guardian.wait()
            self._guardian.stdin.close()

    # ---- what it says ---------------------------------------------------------------------------
    def _on_stderr(self) -> None:
        """Pass it on, line by line."""
        try:
            data = os.read(self._stderr, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._forget_stderr()
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[-LINE_BYTES_MAX:]
        for line in lines:
            self._keep(line)

    def _forget_stderr(self) -> None:
        if self._stderr >= 0:
            self._loop.remove_reader(self._stderr)
            os.close(self._stderr)
            self._stderr = -1

    def _keep(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        self._log.write(text + "\n")
        if text:
            self._lines.append(_last(text, LINE_BYTES_MAX))

    # ---- how it ended ---------------------------------------------------------------------------
    def name(self) -> str:
        """The command as it was written, LINE_BYTES_MAX bytes of it."""
        said = repr(" ".join(self.argv)).encode()
        return said.decode() if len(said) <= LINE_BYTES_MAX else said[:LINE_BYTES_MAX].decode(errors="ignore") + "...'"

    def how(self) -> str:
        """How it ended, with the last lines of its standard error, each on a line of its own."""
        status = self.status or 0
        ended = f"exited with status {status}" if status >= 0 else f"was ended by {_signal_name(-status)}"
        said: list[str] = []
        left = QUOTED_BYTES
        for line in reversed(self._lines):
            left -= len(line.encode()) + 1
            if left < 0:
                break
            said.insert(0, line)
        return "\n".join([f"the {self._role} {self.name()} {ended}", *said])


def _has_living(group: int) -> bool:
    """Whether a process of the group is alive, as far as /proc tells; proc_pid_stat(5)."""
    try:
        pids = [name for name in os.listdir("/proc") if name.isdecimal()]
    except FileNotFoundError:  # not Linux
        return True
    for pid in pids:
        with contextlib.suppress(OSError, ValueError):  # it has just ended
            with open(f"/proc/{pid}/stat", "rb") as file:
                state, _, its_group = file.read().rpartition(b") ")[2].split()[:3]
            if int(its_group) == group and state not in (b"Z", b"X"):
                return True
    return False


def _wait(pid: int) -> int:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return 0


def _last(text: str, count: int) -> str:
    """The end of it, so many bytes at most."""
    return text.encode()[-count:].decode(errors="ignore")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
