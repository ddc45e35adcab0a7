"""A spawner that is played by hand."""

import pickle
import select
import socket
from collections import deque
from collections.abc import Callable

from tests.aio.drive import until
from viamillipede.aio.doorway import pair
from viamillipede.aio.spawner import Ended
from viamillipede.config import Address
from viamillipede.protocol.wire import GREETING_BYTES, Greeting, decode_greeting_untrusted


class PlayedSpawner:
    """In the place of a Spawner: what it was told, and the ends of the doorways that its streams have."""

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.doorways: dict[int, socket.socket] = {}
        self.signals: list[int] = []
        self.on_signal: Callable[[int], None] = lambda number: None
        self.refuses = False
        self._news: deque[Ended | None] = deque()
        self._ours, self._theirs = socket.socketpair()

    def fileno(self) -> int:
        """See Spawner."""
        return self._ours.fileno()

    def start(self, label: str) -> tuple[int, socket.socket]:
        """See Spawner."""
        if self.refuses:
            raise BrokenPipeError(32, "Broken pipe")
        self.labels.append(label)
        ours, theirs = pair()
        ours.setblocking(False)
        self.doorways[len(self.labels)] = theirs
        return len(self.labels), ours

    def signal(self, number: int) -> None:
        """See Spawner."""
        if self.refuses:
            raise BrokenPipeError(32, "Broken pipe")
        self.signals.append(number)
        self.on_signal(number)

    def ended(self) -> Ended | None:
        """See Spawner."""
        self._ours.recv(1)
        return self._news.popleft()

    def tell(self, news: Ended | None) -> None:
        """Say that a stream has ended, or that the spawner itself has."""
        self._news.append(news)
        self._theirs.send(b"!")

    def close(self) -> None:
        """The test is over."""
        for sock in (self._ours, self._theirs, *self.doorways.values()):
            sock.close()

    async def handed(self, number: int) -> tuple[socket.socket, Greeting, Address]:
        """The next connection that a stream is handed: it, its greeting and its address."""
        doorway = self.doorways[number]
        await until(lambda: select.select([doorway], [], [], 0)[0])
        message, fds, _, _ = socket.recv_fds(doorway, 1000, 1)
        heard = decode_greeting_untrusted(message[:GREETING_BYTES])
        address, sealed = pickle.loads(message[GREETING_BYTES:])  # of this process
        assert sealed is None, "nobody has a key here"
        return socket.socket(fileno=fds[0]), heard, address
