"""Standard output, whatever it is, behind one interface that never blocks.

`write` returns how many bytes it took, or None: nothing now, `on_open` will be called. A pipe also
takes bytes straight from a socket (`direct`), without their passing through this process. Failures
are LocalIOError: the reader went away, the disk is full.
"""

import array
import asyncio
import contextlib
import fcntl
import os
import select
import socket
import sys
import termios
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Protocol

from viamillipede.aio.descriptors import Closer, PipeEnd, Worker, is_pipe, is_socket, open_socket, write_waiting
from viamillipede.errors import LocalIOError

SPLICE_F_MOVE, SPLICE_F_NONBLOCK = 1, 2
READER_GONE = "the program that reads the output went away"  # said on both hosts
CAN_SPLICE = sys.platform == "linux" and hasattr(os, "splice")


class Blocked(Enum):
    """Which end of a direct move could not go on."""

    INPUT = "input"
    OUTPUT = "output"


class Sink(Protocol):
    """Where the stream goes."""

    can_direct: bool

    def direct(self, fd: int, count: int) -> int | Blocked:
        """Move at most `count` bytes from the socket `fd`; 0: the socket has ended. OSError: the socket failed."""

    def write(self, view: memoryview) -> int | None:
        """Take some of `view`; after None it must be offered again, unchanged."""

    def arm(self) -> None:
        """Call `on_open` as soon as the output takes bytes."""

    def drained(self) -> bool:
        """Whether the reader has taken everything, as far as that can be known."""

    def close(self) -> None:
        """End the output, so that its reader sees the end."""


def _failed(error: OSError) -> LocalIOError:
    if isinstance(error, BrokenPipeError | ConnectionResetError):
        return LocalIOError(READER_GONE)
    return LocalIOError(f"cannot write the output: {error.strerror}")


class PolledSink:
    """A pipe or a socket."""

    def __init__(
        self, fd: int, send: Callable[[memoryview], int], end: Callable[[], None], on_open: Callable[[], None]
    ) -> None:
        self.can_direct = False
        self._loop = asyncio.get_running_loop()
        self._fd, self._send, self._end, self._on_open = fd, send, end, on_open
        self._armed = False

    def direct(self, fd: int, count: int) -> int | Blocked:
        """See Sink."""
        raise NotImplementedError("only a pipe takes bytes from a socket")

    def write(self, view: memoryview) -> int | None:
        """See Sink."""
        try:
            return self._send(view)
        except BlockingIOError:
            self.arm()
            return None
        except OSError as error:
            raise _failed(error) from error

    def arm(self) -> None:
        """See Sink."""
        if not self._armed:
            self._armed = True
            self._loop.add_writer(self._fd, self._open)

    def _open(self) -> None:
        self.disarm()
        self._on_open()

    def disarm(self) -> None:
        """Forget about readiness."""
        if self._armed:
            self._armed = False
            self._loop.remove_writer(self._fd)

    def drained(self) -> bool:
        """See Sink."""
        return True

    def close(self) -> None:
        """See Sink."""
        self.disarm()
        with contextlib.suppress(OSError):  # the peer has closed first
            self._end()


class Pipe(Protocol):
    """The write end of a pipe."""

    fd: int  # below 0: closed

    def close(self) -> None:
        """Idempotent."""


class PipeSink(PolledSink):
    """A pipe; `end` closes what else keeps it open: the descriptor that the process was given."""

    def __init__(
        self, pipe: Pipe, end: Callable[[], None], on_open: Callable[[], None], on_gone: Callable[[], None]
    ) -> None:
        fd = pipe.fd
        super().__init__(fd, lambda view: os.write(fd, view), end, on_open)
        self.can_direct = CAN_SPLICE
        self._pipe, self._on_gone = pipe, on_gone
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._pending = array.array("i", [0])
        self._loop.add_reader(fd, self._gone)  # the write end of a pipe is "readable" when nobody can read it any more

    def _gone(self) -> None:
        self._loop.remove_reader(self._fd)
        self._on_gone()

    def direct(self, fd: int, count: int) -> int | Blocked:
        """See Sink. Linux's splice(2): pages move from the socket to the pipe, nothing is copied."""
        try:
            return os.splice(fd, self._fd, count, flags=SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
        except BlockingIOError:  # which of the two ends was not ready?
            return Blocked.INPUT if self._poll.poll(0) else Blocked.OUTPUT
        except BrokenPipeError as error:
            raise _failed(error) from error

    def drained(self) -> bool:
        """See Sink."""
        fcntl.ioctl(self._fd, termios.FIONREAD, self._pending)
        return not self._pending[0]

    def close(self) -> None:
        """See Sink. Both descriptors, or the reader would not see the end."""
        self.release()
        self._end()

    def release(self) -> None:
        """Leave the pipe as it was found. Idempotent."""
        if self._pipe.fd >= 0:
            self.disarm()
            self._loop.remove_reader(self._fd)
            self._pipe.close()


class FileSink:
    """A file, a device, a terminal: written by a thread, since no loop can poll it."""

    def __init__(self, fd: int, closer: Closer, on_open: Callable[[], None]) -> None:
        self.can_direct = False
        self._fd, self._closer, self._on_open = fd, closer, on_open
        self._worker = Worker(asyncio.get_running_loop(), "output")
        self._busy = False
        self._result: int | OSError | None = None

    def direct(self, fd: int, count: int) -> int | Blocked:
        """See Sink."""
        raise NotImplementedError("only a pipe takes bytes from a socket")

    def write(self, view: memoryview) -> int | None:
        """See Sink. The thread's result is handed out when the same bytes are offered again."""
        if self._result is not None:
            result, self._result = self._result, None
            if isinstance(result, OSError):
                raise _failed(result) from result
            return result
        if not self._busy:
            self._busy = True
            self._worker.submit(lambda: write_waiting(self._fd, view), self._on_result)
        return None

    def _on_result(self, result: int | OSError) -> None:
        self._busy = False
        self._result = result
        self._on_open()

    def arm(self) -> None:
        """See Sink. The thread's result is what opens it."""

    def drained(self) -> bool:
        """See Sink."""
        return not self._busy

    def close(self) -> None:
        """See Sink. Some file systems report a failed write only here."""
        try:
            self._closer.close()
        except OSError as error:
            raise _failed(error) from error


@contextlib.contextmanager
def open_sink(fd: int, on_open: Callable[[], None], on_gone: Callable[[], None]) -> Iterator[Sink]:
    """The sink that suits what `fd` is; `on_gone`: nobody will ever read what is written."""
    closer = Closer(fd)
    try:
        if is_pipe(fd):
            pipe = PipeSink(PipeEnd(fd, os.O_WRONLY), closer.close, on_open, on_gone)
            try:
                yield pipe
            finally:
                pipe.release()
        elif is_socket(fd):
            with open_socket(fd) as sock:
                polled = PolledSink(
                    fd,
                    lambda view: sock.send(view, socket.MSG_DONTWAIT),
                    lambda: sock.shutdown(socket.SHUT_WR),
                    on_open,
                )
                try:
                    yield polled
                finally:
                    polled.disarm()
        else:
            yield FileSink(fd, closer, on_open)
    finally:
        closer.release()
