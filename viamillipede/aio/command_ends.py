"""A command's output as the source, a command's input as the sink: as a pipe is, but the command's status counts."""

import fcntl
import os
from collections.abc import Callable, Mapping, Sequence

from viamillipede.aio.command import Command
from viamillipede.aio.descriptors import PIPE_BYTES
from viamillipede.aio.log import Log
from viamillipede.aio.sink import CAN_SPLICE, Blocked, PipeSink
from viamillipede.aio.source import PolledSource
from viamillipede.errors import LocalIOError


def _pipe(ours: int) -> tuple[int, int]:
    """A pipe, of the size that suits us, whose end `ours`, 0 or 1, does not block. LocalIOError: there is none."""
    try:
        ends = os.pipe()
    except OSError as error:
        raise LocalIOError(f"no pipe for the command: {error.strerror}") from error
    os.set_blocking(ends[ours], False)
    try:
        fcntl.fcntl(ends[ours], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except (OSError, AttributeError):
        pass  # not Linux, or over the user's limit: it stays as it is
    return ends


class CommandSource:
    """See source.Source. It ends when the pipe does and the command has exited with 0; `on_failed`: it did not."""

    def __init__(
        self, argv: Sequence[str], log: Log, on_ready: Callable[[], None], on_failed: Callable[[LocalIOError], None]
    ) -> None:
        self.command = Command(argv, "source", log, self._on_exit)
        self._on_ready, self._on_failed = on_ready, on_failed
        self._piped: PolledSource | None = None
        self._fd = -1

    def start(self, environ: Mapping[str, str]) -> None:
        """Run the command. LocalIOError."""
        self._fd, theirs = _pipe(0)
        fd = self._fd
        try:
            self.command.start(environ, stdout=theirs)
        finally:
            os.close(theirs)
        self._piped = PolledSource(fd, lambda view: os.readv(fd, [view]), self._on_ready)

    def read_into(self, view: memoryview) -> int | None:
        """See source.Source."""
        count = None if self._piped is None else self._piped.read_into(view)
        return None if count == 0 and self.command.status != 0 else count

    def _on_exit(self) -> None:
        if self.command.status:
            self._on_failed(LocalIOError(self.command.how()))
        else:
            self._on_ready()

    def close(self) -> None:
        """Forget it. Idempotent."""
        if self._piped is not None:
            self._piped.disarm()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self.command.close()


class _Pipe:
    """What PipeSink wants of a descriptors.PipeEnd."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        """Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class CommandSink:
    """See sink.Sink. Takes nothing before `start`, nor when the command reads no more: then its status will tell."""

    can_direct = CAN_SPLICE

    def __init__(
        self,
        argv: Sequence[str],
        log: Log,
        on_open: Callable[[], None],
        on_gone: Callable[[], None],
        on_exit: Callable[[], None],
    ) -> None:
        self.command = Command(argv, "sink", log, on_exit)
        self._on_open, self._on_gone = on_open, on_gone
        self._pipe = _Pipe(-1)
        self._piped: PipeSink | None = None
        self._gone = False

    def start(self, environ: Mapping[str, str]) -> None:
        """Run the command. LocalIOError."""
        theirs, ours = _pipe(1)
        try:
            self.command.start(environ, stdin=theirs, held=ours)
        except LocalIOError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._pipe = _Pipe(ours)
        self._piped = PipeSink(self._pipe, self.command.let_go, self._on_open, self._lose)

    def _lose(self) -> None:
        self._gone = True
        self._on_gone()

    def direct(self, fd: int, count: int) -> int | Blocked:
        """See sink.Sink."""
        if self._piped is None or self._gone:
            return Blocked.OUTPUT
        try:
            return self._piped.direct(fd, count)
        except LocalIOError:  # `on_gone` is about to be called
            return Blocked.OUTPUT

    def write(self, view: memoryview) -> int | None:
        """See sink.Sink."""
        if self._piped is None or self._gone:
            return None
        try:
            return self._piped.write(view)
        except LocalIOError:
            return None

    def arm(self) -> None:
        """See sink.Sink."""
        if self._piped is not None and not self._gone:
            self._piped.arm()

    def drained(self) -> bool:
        """See sink.Sink. Once it is closed there is nothing left to be taken."""
        return self._piped is None or self._pipe.fd < 0 or self._piped.drained()

    def close(self) -> None:
        """See sink.Sink."""
        if self._piped is not None:
            self._piped.close()

    def release(self) -> None:
        """Forget it. Idempotent."""
        if self._piped is not None:
            self._piped.release()
        self.command.close()
