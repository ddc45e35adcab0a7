"""The process that forks one process per stream, for an rx that keeps on serving.

It is forked itself before there is an event loop, a thread or a stream, and runs no loop of its own: so what it forks
starts clean, with all modules loaded, in milliseconds. It has a session of its own; signals come from its parent.
When its parent ends, by whatever, it ends the streams.

    parent -> spawner   Start and a doorway (SCM_RIGHTS), or the number of a signal for all streams
    spawner -> parent   Ended
"""

import contextlib
import os
import pickle
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from viamillipede.aio.doorway import pair
from viamillipede.config import COMMAND_END_US, FAREWELL_US, GREETING_US, KIB, S_US, RxConfig
from viamillipede.errors import Exit
from viamillipede.standard_streams import outcome_of, write_stderr

_MESSAGE_BYTES_MAX = 4 * KIB
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
END_US = FAREWELL_US + COMMAND_END_US + S_US  # what a stream needs to end in order


@dataclass(frozen=True, slots=True)
class Start:
    """Fork a stream; `label` is for its messages."""

    number: int
    label: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A stream has ended; `status` as a shell has it: 128 and the number of a signal."""

    number: int
    status: int


class Spawner:
    """The parent's end. To be made before there is a loop or a thread."""

    def __init__(
        self,
        config: RxConfig,
        serve: Callable[[RxConfig, socket.socket, str], int],
        forget: Callable[[], None],
    ) -> None:
        """`serve` runs a stream in its process, `forget` gives up what only the parent is to have."""
        self._control, theirs = pair()
        self._numbers = 0
        self.pid = os.fork()
        if not self.pid:
            self._control.close()
            forget()
            os.setsid()
            os._exit(outcome_of("viamillipede rx", lambda: _Forker(theirs, config, serve).run()))
        theirs.close()

    def fileno(self) -> int:
        """Readable: `ended` has something."""
        return self._control.fileno()

    def start(self, label: str) -> tuple[int, socket.socket]:
        """A new stream: its number and its doorway. OSError."""
        self._numbers += 1
        ours, theirs = pair()
        ours.setblocking(False)
        with theirs:
            socket.send_fds(self._control, [pickle.dumps(Start(self._numbers, label))], [theirs.fileno()])
        return self._numbers, ours

    def signal(self, number: int) -> None:
        """Send it to all streams. OSError: the spawner has ended."""
        self._control.send(pickle.dumps(number))

    def ended(self) -> Ended | None:
        """The next stream that has ended; None: the spawner has."""
        try:
            message = self._control.recv(_MESSAGE_BYTES_MAX)
        except ConnectionResetError:  # something that we have said was never read
            return None
        return pickle.loads(message) if message else None

    def close(self) -> None:
        """End the spawner, and what it has forked, and wait for that."""
        self._control.close()
        os.waitpid(self.pid, 0)


class _Forker:
    """The spawner itself."""

    def __init__(
        self, control: socket.socket, config: RxConfig, serve: Callable[[RxConfig, socket.socket, str], int]
    ) -> None:
        self._control, self._serve = control, serve
        self._config = replace(
            config, keep=False, wait_us=GREETING_US, metrics=None
        )  # its transmitter is there already
        self._numbers: dict[int, int] = {}  # pid -> number
        self._wakeup, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self._handlers = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}  # for the streams
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)

    def run(self) -> int:
        """Until the parent has ended."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wakeup, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if self._wakeup in ready:
                os.read(self._wakeup, KIB)
                self._reap()
            if self._control.fileno() in ready and not self._obey():
                break
        poll.unregister(self._control)
        end = time.monotonic() + END_US / S_US  # the streams hear it at their doorways
        while self._numbers:
            if (left_s := end - time.monotonic()) <= 0:
                self._signal(signal.SIGKILL)
            if poll.poll(max(0.1, left_s) * 1000):
                os.read(self._wakeup, KIB)
            self._reap()
        return 0

    def _obey(self) -> bool:
        """Do what the parent wants. Whether it is still there."""
        try:
            message, fds, _, _ = socket.recv_fds(self._control, _MESSAGE_BYTES_MAX, 1)
        except ConnectionResetError:  # it has not read all that it was told
            return False
        if not message:
            return False
        wish = pickle.loads(message)
        if isinstance(wish, int):
            self._signal(wish)
            return True
        with socket.socket(fileno=fds[0]) as doorway:
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # the stream shall not miss one before it has handlers
            try:
                pid = os.fork()
                if not pid:
                    os._exit(self._become(wish, doorway))
                self._numbers[pid] = wish.number
            except OSError as error:  # no memory, too many processes: the transmitter comes again
                write_stderr(f"viamillipede rx: cannot begin a stream: {error.strerror}\n")
                self._tell(Ended(wish.number, Exit.LIMIT))
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        return True

    def _become(self, start: Start, doorway: socket.socket) -> int:
        """The stream's process, from here to its end."""
        self._control.close()
        signal.set_wakeup_fd(-1)
        os.close(self._wakeup)
        os.close(self._waker)
        for number, handler in {**self._handlers, signal.SIGCHLD: signal.SIG_DFL}.items():
            signal.signal(number, handler)
        for number in (signal.SIGUSR1, signal.SIGUSR2):  # until it has a dump to show
            signal.signal(number, signal.SIG_IGN)
        speaker = f"viamillipede rx {start.label}"
        return outcome_of(speaker, lambda: self._run(doorway, start.label))

    def _run(self, doorway: socket.socket, label: str) -> int:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        return self._serve(self._config, doorway, label)

    def _signal(self, number: int) -> None:
        for pid in self._numbers:
            os.kill(pid, number)

    def _reap(self) -> None:
        while self._numbers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            number = self._numbers.pop(pid)
            self._tell(Ended(number, code if code >= 0 else 128 - code))

    def _tell(self, ended: Ended) -> None:
        with contextlib.suppress(BrokenPipeError):  # the parent has ended: nobody wants to know
            self._control.send(pickle.dumps(ended))
