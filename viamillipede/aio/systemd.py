"""What a service manager gives and wants to be told: sockets that listen already, readiness, status, watchdog.

The protocols of sd_listen_fds(3) and sd_notify(3), as any supervisor may speak them. The variables are taken out
of the environment, so that the commands that this process starts do not take them for theirs.
"""

import errno
import os
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from viamillipede.errors import UsageError

FIRST_FD = 3  # SD_LISTEN_FDS_START
SOCKETS_MAX = 64  # more descriptors than this were not meant
STATUS_BYTES_MAX = 512
_INSTEAD = "; let the socket unit have ListenStream=PORT and Accept=no"


def listen_sockets(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The listening TCP sockets that this process was started with, non-blocking and not to be inherited; maybe none.

    LISTEN_PID, LISTEN_FDS and what belongs to them are removed from `environ`. Raises UsageError for a count that is
    none, and for a descriptor that is anything else than a TCP socket that listens.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    for name in ("LISTEN_FDNAMES", "LISTEN_PIDFDID"):
        environ.pop(name, None)
    if not pid or not count or _number("LISTEN_PID", pid) != os.getpid():
        return []
    number = _number("LISTEN_FDS", count)
    if number > SOCKETS_MAX:
        raise UsageError(f"LISTEN_FDS={count} is more than {SOCKETS_MAX} sockets")
    found: list[socket.socket] = []
    try:
        for fd in range(FIRST_FD, FIRST_FD + number):
            found.append(_listening(fd))
    except UsageError:
        for sock in found:
            sock.close()
        raise
    for sock in found:
        sock.set_inheritable(False)
        sock.setblocking(False)
    return found


def _number(variable: str, text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise UsageError(f"{variable}={text!r} is not a number; leave that variable to the service manager")
    return int(text)


def _listening(fd: int) -> socket.socket:
    """The socket `fd`, which must be a TCP socket that listens. Raises UsageError, and closes nothing then."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        what = "is not open" if error.errno == errno.EBADF else "is no socket"
        raise UsageError(f"descriptor {fd}, given by the service manager, {what}{_INSTEAD}") from error
    wrong = ""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        wrong = "is no TCP socket"
    elif not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        wrong = "does not listen"
    if wrong:
        sock.detach()
        raise UsageError(f"descriptor {fd}, given by the service manager, {wrong}{_INSTEAD}")
    return sock


@dataclass(frozen=True, slots=True)
class Service:
    """What the manager has given to this process."""

    sockets: list[socket.socket]  # to listen on; none: it is for us to open one
    notifier: "Notifier"

    @staticmethod
    def taken(environ: MutableMapping[str, str]) -> "Service":
        """Out of the environment; the first who asks gets it. Raises UsageError."""
        return Service(listen_sockets(environ), Notifier(environ))

    def close(self) -> None:
        """Idempotent."""
        self.notifier.close()
        for sock in self.sockets:
            sock.close()


class Notifier:
    """Tells the service manager how this process is. Without one it does nothing.

    Never waits and never raises: a manager that does not listen must not hold up a stream. That the service is
    ready, or stops, is not lost by that: it is said again with what is said next. `watchdog_us` is how often
    `ping` wants to be called, in microseconds; 0: never.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Take NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID out of `environ`."""
        self._address = _notify_address(environ.pop("NOTIFY_SOCKET", ""))
        self.watchdog_us = _watchdog_us(environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", ""))
        self._socket: socket.socket | None = None
        self._owed = ""  # what must be known, and could not be said yet
        self._status = ""
        if self._address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        else:
            self.watchdog_us = 0

    def ready(self) -> None:
        """From now on connections are answered."""
        self._say("READY=1\n", owed=True)

    def status(self, text: str) -> None:
        """One line for who asks how the service is; said only when it is another one."""
        line = " ".join(text.split()).encode(errors="replace")[:STATUS_BYTES_MAX].decode(errors="ignore")
        if line != self._status and self._say(f"STATUS={line}\n"):
            self._status = line

    def ping(self) -> None:
        """This process still works; to be called every `watchdog_us`."""
        self._say("WATCHDOG=1\n")

    def stopping(self) -> None:
        """The end has begun."""
        self._say("STOPPING=1\n", owed=True)

    def close(self) -> None:
        """Say nothing any more, and give the descriptor back; idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _say(self, text: str, owed: bool = False) -> bool:
        """Whether it could be said at once."""
        if self._socket is None:
            return True
        if owed:
            self._owed, text = self._owed.replace(text, "") + text, ""
        try:
            self._socket.sendto((self._owed + text).encode(), self._address)
        except OSError:  # its queue is full, or nobody is there any more; either may pass
            return False
        self._owed = ""
        return True


def _notify_address(text: str) -> Any:
    """The address of a Unix socket, abstract behind an @; None: there is none that can be spoken to."""
    if text.startswith("/"):
        return text
    if text.startswith("@") and len(text) > 1:
        return b"\0" + os.fsencode(text[1:])
    return None


def _watchdog_us(period: str, pid: str) -> int:
    """Half of the manager's patience; 0 where it has no such wish, or not towards this process."""
    if not period.isascii() or not period.isdecimal() or len(period) > 18:
        return 0
    if pid and pid != str(os.getpid()):
        return 0
    return int(period) // 2
