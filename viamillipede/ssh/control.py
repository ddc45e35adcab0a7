"""The ssh that carries the control channel: its start, the answer that it brings, and its end.

Until the answer it belongs to the terminal as any ssh does, so that it may ask for a password there: it stays in our
process group and session. On Linux the kernel ends it when we are killed; everywhere its standard input, of which
only we have the other end, ends then, which ends the far end. Its standard error is ours, or an Aside.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, TracebackType
from typing import Self, TypeVar

from viamillipede.errors import Failure, HungUp, NoContact, PeerLost, Terminated
from viamillipede.ssh.aside import Aside
from viamillipede.ssh.messages import LINE_BYTES_MAX, NOISE_BYTES_MAX, Answer, Ending, decode

OPTIONS = ("-T", "-o", "RemoteCommand=none")  # no terminal over there, and what is run is for us to say
READ_BYTES = 64 << 10
TOLD_S = 2.0  # how long an ssh that was told to end may take
_PR_SET_PDEATHSIG = 1
_Message = TypeVar("_Message", Answer, Ending)


class Ended(Exception):
    """ssh's output has ended without the message. `status`: as subprocess has it; None: it has not ended itself."""

    def __init__(self, status: int | None) -> None:
        super().__init__(status)
        self.status = status


class Ssh:
    """One ssh process with a pipe to and from it; `aside`: its standard error. A context that leaves none behind."""

    def __init__(
        self, command: Sequence[str], options: Sequence[str], dest: str, remote: str, aside: Aside | None = None
    ) -> None:
        """Start it. NoContact: there is no such program."""
        argv = [*command, *OPTIONS, *options, dest, remote]
        try:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None if aside is None else aside.theirs,
                bufsize=0, preexec_fn=dying_with(os.getpid()),
            )  # fmt: skip
        except OSError as error:
            raise NoContact(f"cannot run {command[0]!r}: {error.strerror}; 'ssh-command' says another one") from error
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        os.set_blocking(self._stdin.fileno(), False)
        self._aside = aside
        self._heard = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.end(0.0)
        self._stdout.close()

    @property
    def pid(self) -> int:
        """Of the process here."""
        return self._process.pid

    def exchange(self, kind: type[_Message], data: bytes = b"", timeout_s: float | None = None) -> _Message:
        """Write all of `data`, and read until a message of this kind comes; what else comes is passed over.

        Raises Ended, TimeoutError, NotUnderstood; PeerLost for more noise than could be meant.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        rest, skipped = memoryview(data), 0
        while True:
            *lines, self._heard = self._heard.split(b"\n")
            while lines:
                line = lines.pop(0)
                message = decode(kind, line)
                if message is not None:
                    self._heard = b"\n".join([*lines, self._heard])
                    return message
                skipped += len(line) + 1
            if skipped > NOISE_BYTES_MAX or len(self._heard) > LINE_BYTES_MAX:
                raise PeerLost("what ssh brings is not from viamillipede; does a login script over there print that?")
            rest = self._step(rest, deadline)

    def _step(self, rest: memoryview, deadline: float | None) -> memoryview:
        """Wait, then write what can be written and read what is there; what is left to write. Ended, TimeoutError."""
        poll = select.poll()
        poll.register(self._stdout, select.POLLIN)
        aside = self._aside.ours if self._aside is not None and not self._aside.has_thread else -1
        if aside >= 0:
            poll.register(aside, select.POLLIN)
        if rest:
            poll.register(self._stdin, select.POLLOUT)
        ready = dict(poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000))
        if not ready or (deadline is not None and time.monotonic() > deadline):
            raise TimeoutError
        if aside in ready and self._aside is not None:
            self._aside.pass_on()
        if rest and self._stdin.fileno() in ready:
            try:
                rest = rest[os.write(self._stdin.fileno(), rest) :]
            except BrokenPipeError:
                rest = rest[:0]  # nobody reads it; why, its output or its status will tell
        if self._stdout.fileno() in ready:
            piece = os.read(self._stdout.fileno(), READ_BYTES)
            if not piece:
                raise Ended(self._status_soon())
            self._heard += piece
        return rest

    def _status_soon(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(TOLD_S)
        return None

    def has_ended(self) -> bool:
        """Whether it has, without being told to."""
        return self._process.poll() is not None

    def let_go(self) -> None:
        """End its standard input, and with that what it runs. Idempotent."""
        self._stdin.close()

    def end(self, patience_s: float) -> int:
        """See to it that it ends: by itself in that time, or else. Its status, as subprocess has it. Idempotent."""
        self.let_go()
        deadline = time.monotonic() + patience_s
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                self._process.send_signal(number)
                deadline = time.monotonic() + TOLD_S
            try:
                self._wait_draining(deadline)
                break
            except TimeoutError:
                continue
        return self._process.wait()

    def _wait_draining(self, deadline: float) -> None:
        """Wait for its end; what it still brings must not hold it up. TimeoutError."""
        while self._process.poll() is None:
            poll = select.poll()
            poll.register(self._stdout, select.POLLIN)
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            if not poll.poll(left_s * 1000):
                raise TimeoutError
            if not os.read(self._stdout.fileno(), READ_BYTES):
                try:
                    self._process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    raise TimeoutError from None


def dying_with(parent: int) -> Callable[[], None] | None:
    """To be called in a child between fork and exec: the kernel ends it when we die, however that comes about."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # we died just before
            os._exit(1)

    return ask


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP raise Terminated and HungUp in here, as SIGINT raises KeyboardInterrupt."""
    failures: dict[signal.Signals, Failure] = {
        signal.SIGTERM: Terminated("terminated"),
        signal.SIGHUP: HungUp("hung up"),
    }

    def stop(number: int, _frame: FrameType | None) -> None:
        raise failures[signal.Signals(number)]

    before = {number: signal.getsignal(number) for number in failures}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:  # nohup: we are to go on without the terminal
                signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
