"""The far end: `viamillipede far-end`, which ssh runs for the near end.

Its standard input and output are the control channel and nobody else's: they are moved away before anything runs, and
what would be written to standard output goes to standard error, which ssh carries too. A thread waits for the end of
the control channel's input; when it comes before that of the transfer, this process ends as SIGTERM ends it.
"""

import contextlib
import fcntl
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

from viamillipede.aio import command as commands
from viamillipede.aio.sockets import check_congestion, listen
from viamillipede.aio.systemd import Notifier, Service
from viamillipede.config import RxConfig, TxConfig
from viamillipede.errors import Exit, Failure, LocalIOError, NoContact, SessionRefused, UsageError
from viamillipede.protocol.wire import VERSION
from viamillipede.secret import parse_key
from viamillipede.settings import Said, check_command
from viamillipede.ssh.messages import (
    REQUEST_BYTES_MAX,
    Answer,
    Ending,
    NotUnderstood,
    Request,
    another_version,
    decode,
    encode,
)
from viamillipede.ssh.words import FAR_END, read_far
from viamillipede.standard_streams import HINT, PROGRAM, complain, write_stderr

_HIGH = 10  # descriptors from here on are in nobody's way
_ALONE = f"{FAR_END!r} is what 'viamillipede to' and 'viamillipede from' run through ssh; it is nothing to type"
_LOOPBACK = "127.0.0.1"


class Channel:
    """The control channel, moved away from standard input and output."""

    def __init__(self) -> None:
        self._input = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, _HIGH)
        self._output = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, _HIGH)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
        self._lock = threading.Lock()
        self._over = False

    def request(self) -> bytes:
        """The first line that is not empty, b"" if there is none. NotUnderstood for one that is too long."""
        heard = b""
        while b"\n" not in heard.lstrip(b"\n"):
            piece = os.read(self._input, 65536)
            if not piece:
                return b""
            heard += piece
            if len(heard) > REQUEST_BYTES_MAX:
                raise NotUnderstood("the request is too long")
        return heard.lstrip(b"\n").partition(b"\n")[0]

    def say(self, message: Answer | Ending) -> None:
        """Tell the near end, if it is still there: when it is not, this ends anyhow."""
        data = encode(message)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while data:
                data = data[os.write(self._output, data) :]

    def watch(self) -> None:
        """From now on the end of the input is our end."""
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def _watch(self) -> None:
        with contextlib.suppress(OSError):  # the connection was reset: that is an end too
            while os.read(self._input, 65536):
                pass
        with self._lock:
            if not self._over:
                os.kill(os.getpid(), signal.SIGTERM)

    def over(self) -> None:
        """The transfer has ended: what becomes of the near end is no concern any more."""
        with self._lock:
            self._over = True


def far_end(environ: Mapping[str, str], files: Callable[[], Said]) -> int:
    """Do what the near end asks for; the exit status. `files`: what configuration files say. Raises UsageError."""
    if os.isatty(0) or os.isatty(1):
        raise UsageError(_ALONE)
    channel = Channel()
    try:
        line = channel.request()
        if not line:
            write_stderr(f"{PROGRAM}: {_ALONE}\n{HINT}")
            return int(Exit.USAGE)
        request, config, sockets = _prepare(line, environ, files)
    except Failure as failure:
        channel.say(Answer(status=int(failure.exit_status), error=str(failure)))
        return int(failure.exit_status)
    if request.brought:
        os.environ.pop("SHIV_ROOT", None)  # where we are unpacked is no concern of the command
    channel.say(Answer(port=int(sockets[0].getsockname()[1]), pid=os.getpid()))
    channel.watch()
    commands.QUOTED_LINES = 0  # what our command says goes through ssh: at the near end it was read there
    ending = _run(config, Service(sockets, Notifier({})))
    channel.over()
    channel.say(ending)
    return ending.status


def _prepare(
    line: bytes, environ: Mapping[str, str], files: Callable[[], Said]
) -> tuple[Request, TxConfig | RxConfig, list[socket.socket]]:
    """All that can go wrong before the answer. Raises Failure."""
    try:
        request = decode(Request, line)
    except NotUnderstood as error:
        raise SessionRefused(another_version(str(error))) from error
    if request is None:
        raise SessionRefused(another_version("what it was asked is no request"))
    if request.wire != VERSION:
        raise SessionRefused(another_version(f"it speaks version {VERSION}, and we {request.wire}"))
    if request.role not in ("rx", "tx"):
        raise SessionRefused(another_version(f"it knows no {request.role!r}"))
    config = read_far(request.role, request.words, environ, files())
    config = replace(
        config, key=parse_key(request.key), command=check_command(request.command), verbose=request.verbose
    )
    check_congestion(config.congestion)
    return request, config, _listen(request)


def _listen(request: Request) -> list[socket.socket]:
    """The first port of those that are asked for that is free. NoContact."""
    bind = _LOOPBACK if request.loopback else None
    low, high = request.ports
    for port in range(low, high):
        with contextlib.suppress(NoContact):
            return listen(bind, port)
    try:
        return listen(bind, high)
    except NoContact as error:
        if not high:
            raise
        if low == high:
            raise NoContact(f"{error}; say several with port LOW-HIGH, and the first free one is taken") from error
        raise NoContact(f"{error}, nor on any other one from {low}; say more of them with port LOW-HIGH") from error


def _run(config: TxConfig | RxConfig, service: Service) -> Ending:
    """The transfer, from start to end. What goes wrong is told to the near end, which says it."""
    try:
        if isinstance(config, TxConfig):
            from viamillipede.aio.tx import transmit

            return Ending(transmit(config, service))
        from viamillipede.aio.receive import receive

        return Ending(receive(config, service=service))
    except Failure as failure:
        lines = str(failure).splitlines() or [""]
        if isinstance(failure, LocalIOError):
            del lines[1:]  # our command's standard error was passed on already
        return Ending(int(failure.exit_status), "\n".join(lines))
    except Exception as error:
        if os.environ.get("VIAMILLIPEDE_DEBUG") == "1":
            raise
        what = f"unexpected {type(error).__name__}: {error}"
        complain(f"{PROGRAM} {FAR_END}", f"{what} (a bug; please report it with VIAMILLIPEDE_DEBUG=1)")
        return Ending(int(Exit.UNEXPECTED), what)
