"""What can be done about a port that is not reached, told while it is still being tried: `wait` may be long."""

import contextlib
import os
import socket
import stat
import threading
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Self

AFTER_S, LOOK_EVERY_S = 3.0, 0.25  # a network answers sooner, or not at all


class Hint:
    """A context: unless one of these ports is reached in AFTER_S, `say` is called once, by a thread. `said`: it was."""

    def __init__(self, ports: Collection[int], say: Callable[[], None], after_s: float = AFTER_S) -> None:
        self.said = False
        self._ports, self._say, self._after_s = frozenset(ports), say, after_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hint", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        for _ in range(round(self._after_s / LOOK_EVERY_S)):
            if self._over.wait(LOOK_EVERY_S) or reaches(self._ports):
                return
        self.said = True
        self._say()


def reaches(ports: Collection[int]) -> bool:
    """Whether a socket of this process is connected to one of them."""
    return any(_peer_port(int(name)) in ports for name in os.listdir("/dev/fd"))


def _peer_port(fd: int) -> int:
    """0 where there is none: no socket, not connected, of another family, or closed meanwhile by who uses it."""
    try:
        ours = os.dup(fd)  # it stays what it is while we look
    except OSError:
        return 0
    if not stat.S_ISSOCK(os.fstat(ours).st_mode):
        os.close(ours)
        return 0
    with socket.socket(fileno=ours) as sock, contextlib.suppress(OSError):
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            return int(sock.getpeername()[1])
    return 0
