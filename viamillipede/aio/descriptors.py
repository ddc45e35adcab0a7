"""Standard input and output as what they are: pipes, sockets, or files that cannot be polled.

A pipe is opened anew through /proc, because O_NONBLOCK belongs to the open file description, which
other processes share: the shell's, or our own stderr after `2>&1`. Where that cannot be done, the
flag is set on the shared one and taken back at the end.
"""

import asyncio
import contextlib
import fcntl
import os
import queue
import select
import socket
import stat
import threading
from collections.abc import Callable, Iterator

PIPE_BYTES = 1 << 20  # the most that an ordinary user may ask for (/proc/sys/fs/pipe-max-size)


def is_pipe(fd: int) -> bool:
    """Whether `fd` is a pipe or a FIFO."""
    return stat.S_ISFIFO(os.fstat(fd).st_mode)


def is_socket(fd: int) -> bool:
    """Whether `fd` is a socket."""
    return stat.S_ISSOCK(os.fstat(fd).st_mode)


def read_waiting(fd: int, view: memoryview) -> int:
    """For a thread: read, waiting for as long as it takes, also when somebody made the file non-blocking. OSError."""
    while True:
        try:
            return os.readv(fd, [view])
        except BlockingIOError:
            _wait_for(fd, select.POLLIN)


def write_waiting(fd: int, view: memoryview) -> int:
    """For a thread: write some of it, waiting for as long as it takes. OSError."""
    while True:
        try:
            return os.write(fd, view)
        except BlockingIOError:
            _wait_for(fd, select.POLLOUT)


def _wait_for(fd: int, event: int) -> None:
    poll = select.poll()
    poll.register(fd, event)
    poll.poll()


class PipeEnd:
    """A non-blocking descriptor of the pipe behind `shared_fd`. Raises OSError when there is none to be had."""

    def __init__(self, shared_fd: int, flags: int) -> None:
        self._shared_fd = shared_fd
        self._was_blocking: bool | None = None
        with contextlib.suppress(OSError, AttributeError):  # not Linux, or over the user's limit: it stays as it is
            fcntl.fcntl(shared_fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        try:
            self.fd = os.open(f"/proc/self/fd/{shared_fd}", flags | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # no /proc, another user's pipe (sudo), or nobody at the other end
            self.fd = shared_fd
            self._was_blocking = os.get_blocking(shared_fd)
            os.set_blocking(shared_fd, False)

    def close(self) -> None:
        """Give our descriptor back. Idempotent; the shared one stays open, as it was."""
        if self._was_blocking is not None:
            os.set_blocking(self._shared_fd, self._was_blocking)
        elif self.fd >= 0:
            os.close(self.fd)
        self.fd, self._was_blocking = -1, None


class Closer:
    """Closes a standard descriptor, but keeps its number taken: no socket shall get it.

    What that needs is opened at the start: at the end there may be no descriptor left.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def close(self) -> None:
        """OSError: some file systems report a failed write only here. Idempotent."""
        null, self._null = self._null, -1
        if null < 0:
            return
        try:
            os.close(self._fd)
        finally:
            os.dup2(null, self._fd)
            os.close(null)

    def release(self) -> None:
        """The standard descriptor stays as it is. Idempotent."""
        if self._null >= 0:
            os.close(self._null)
            self._null = -1


@contextlib.contextmanager
def open_socket(fd: int) -> Iterator[socket.socket]:
    """A socket object of its own for the socket behind `fd`; loops set O_NONBLOCK, which is taken back."""
    was_blocking = os.get_blocking(fd)
    with socket.socket(fileno=os.dup(fd)) as sock:
        try:
            yield sock
        finally:
            os.set_blocking(sock.fileno(), was_blocking)


class Worker:
    """One daemon thread that runs one blocking call at a time.

    A daemon, because a read from a dead network file system cannot be cancelled, and must not keep
    the program from ending (concurrent.futures joins its threads at exit).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop = loop
        self._calls: queue.SimpleQueue[tuple[Callable[[], int], Callable[[int | OSError], None]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, call: Callable[[], int], on_result: Callable[[int | OSError], None]) -> None:
        """Run `call` in the thread; its result, or its OSError, comes back in the loop."""
        self._calls.put((call, on_result))

    def _run(self) -> None:
        while True:
            call, on_result = self._calls.get()
            result: int | OSError
            try:
                result = call()
            except OSError as error:
                result = error
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits for this any more
                self._loop.call_soon_threadsafe(on_result, result)


class Crew:
    """Several workers; each call goes to the one whose turn it is."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str, count: int) -> None:
        self._workers = [Worker(loop, f"{name} {number}") for number in range(count)]
        self._turn = 0

    def submit(self, call: Callable[[], int], on_result: Callable[[int | OSError], None]) -> None:
        """See Worker."""
        self._turn = (self._turn + 1) % len(self._workers)
        self._workers[self._turn].submit(call, on_result)
