"""Standard input, whatever it is, behind one interface that never blocks.

`read_into` returns how many bytes it read, 0 at the end, or None: nothing now, `on_ready` will be
called. It raises LocalIOError when the input fails.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from typing import Protocol

from viamillipede.aio.descriptors import PipeEnd, Worker, is_pipe, is_socket, open_socket, read_waiting
from viamillipede.config import MIB
from viamillipede.errors import LocalIOError

FILE_READ_BYTES = 1 * MIB


class Source(Protocol):
    """Where the stream comes from."""

    def read_into(self, view: memoryview) -> int | None:
        """Read what there is, at most len(view) bytes."""


class PolledSource:
    """A pipe or a socket: the loop says when there is something."""

    def __init__(self, fd: int, read: Callable[[memoryview], int], on_ready: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._fd, self._read, self._on_ready = fd, read, on_ready
        self._armed = False

    def read_into(self, view: memoryview) -> int | None:
        """See Source."""
        try:
            return self._read(view)
        except BlockingIOError:
            if not self._armed:
                self._armed = True
                self._loop.add_reader(self._fd, self._ready)
            return None
        except OSError as error:
            raise LocalIOError(f"cannot read the input: {error.strerror}") from error

    def _ready(self) -> None:
        self.disarm()
        self._on_ready()

    def disarm(self) -> None:
        """Forget about readiness."""
        if self._armed:
            self._armed = False
            self._loop.remove_reader(self._fd)


class FileSource:
    """A file, a device, a terminal: read ahead by a thread, since no loop can poll it."""

    def __init__(self, fd: int, on_ready: Callable[[], None]) -> None:
        self._fd, self._on_ready = fd, on_ready
        self._worker = Worker(asyncio.get_running_loop(), "input")
        self._buffer = memoryview(bytearray(FILE_READ_BYTES))
        self._start = self._end = 0
        self._busy = self._at_end = False
        self._error: OSError | None = None

    def read_into(self, view: memoryview) -> int | None:
        """See Source."""
        if self._start < self._end:
            count = min(len(view), self._end - self._start)
            view[:count] = self._buffer[self._start : self._start + count]
            self._start += count
            if self._start == self._end:
                self._submit()
            return count
        if self._error is not None:
            raise LocalIOError(f"cannot read the input: {self._error.strerror}") from self._error
        if self._at_end:
            return 0
        self._submit()
        return None

    def _submit(self) -> None:
        if not self._busy and not self._at_end:
            self._busy = True
            self._worker.submit(lambda: read_waiting(self._fd, self._buffer), self._on_result)

    def _on_result(self, result: int | OSError) -> None:
        self._busy = False
        if isinstance(result, OSError):
            self._error, self._at_end = result, True
        else:
            self._start, self._end, self._at_end = 0, result, not result
        self._on_ready()


@contextlib.contextmanager
def open_source(fd: int, on_ready: Callable[[], None]) -> Iterator[Source]:
    """The source that suits what `fd` is."""
    if is_pipe(fd):
        end = PipeEnd(fd, os.O_RDONLY)
        piped = PolledSource(end.fd, lambda view: os.readv(end.fd, [view]), on_ready)
        try:
            yield piped
        finally:
            piped.disarm()
            end.close()
    elif is_socket(fd):
        with open_socket(fd) as sock:
            polled = PolledSource(fd, lambda view: sock.recv_into(view, 0, socket.MSG_DONTWAIT), on_ready)
            try:
                yield polled
            finally:
                polled.disarm()
    else:
        yield FileSource(fd, on_ready)
