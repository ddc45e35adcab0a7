"""A TCP proxy for a network that allows each connection a little only: python -m tests.netlab.throttle --help

Each connection has a rate, all together have another one, the line's. What may pass is handed out a hundred times a
second: to the connections in turn, each what its rate allows, until the line has no more for this turn. What a
connection did not use is gone, so a pause cannot be made up for. Only the way from those who connect to the target is
throttled; the way back, of acknowledgements, is free. It needs no privileges.
"""

import argparse
import contextlib
import selectors
import signal
import socket
import sys
import time
from dataclasses import dataclass, field

TICK_S = 0.01
PIECE_BYTES = 1 << 16
RECEIVE_BUFFER_BYTES = 16 << 10  # in front of the bottleneck; the kernel doubles it
BACKLOG = 1024


@dataclass(eq=False, slots=True)
class Connection:
    """One that was accepted and the one to the target that belongs to it."""

    near: socket.socket
    far: socket.socket
    rate: float  # bytes per second
    credit: float = 0.0  # bytes it may pass on now
    waiting: bytes = b""  # taken, not yet passed on
    ended: bool = False  # nothing more comes from the near end

    def close(self) -> None:
        """Both ends."""
        self.near.close()
        self.far.close()


@dataclass(slots=True)
class Throttle:
    """The proxy. Rates are bytes per second; of the connections, every `slow_every`-th has the rate `slow`."""

    listener: socket.socket
    target: tuple[str, int]
    connection_rate: float
    line_rate: float
    slow_every: int = 0
    slow_rate: float = 0.0
    accepted: int = 0
    connections: list[Connection] = field(default_factory=list)
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def run(self) -> None:
        """Until somebody ends the process."""
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ)
        before = time.monotonic()
        while True:
            pause_s = max(0.0, before + TICK_S - time.monotonic())
            for key, _ in self.selector.select(pause_s if self.connections else None):
                if key.fileobj is self.listener:
                    self._accept()
                else:
                    self._back(key.data)
            now = time.monotonic()
            if now - before >= TICK_S:
                self._forward(min(now - before, 10 * TICK_S))
                before = now

    def _accept(self) -> None:
        near, _ = self.listener.accept()
        far = socket.socket()
        try:
            far.connect(self.target)
        except OSError:  # nobody there: the near end learns it too
            near.close()
            far.close()
            return
        self.accepted += 1
        is_slow = self.slow_every and self.accepted % self.slow_every == 0
        connection = Connection(near, far, self.slow_rate if is_slow else self.connection_rate)
        for end in (near, far):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.selector.register(far, selectors.EVENT_READ, connection)
        self.connections.append(connection)

    def _forward(self, elapsed_s: float) -> None:
        """Hand out what the line carries in this time; who gets nothing any more comes first the next time."""
        line = self.line_rate * elapsed_s
        for connection in self.connections:
            # A piece is a whole number of bytes: the rest is kept, but no more than two turns' worth.
            allowed = connection.rate * elapsed_s
            connection.credit = min(connection.credit + allowed, 2 * allowed + 1)
        for _ in range(len(self.connections)):
            if line < 1:
                return
            connection = self.connections.pop(0)
            self.connections.append(connection)
            share = int(min(connection.credit, line))
            try:
                passed = self._pass(connection, share) if share else 0
            except OSError:
                self._drop(connection)
                continue
            connection.credit -= passed
            line -= passed

    def _pass(self, connection: Connection, share: int) -> int:
        if not connection.waiting and not connection.ended:
            with contextlib.suppress(BlockingIOError):
                connection.waiting = connection.near.recv(share)
                if not connection.waiting:
                    connection.ended = True
                    connection.far.shutdown(socket.SHUT_WR)
        passed = 0
        if connection.waiting:
            with contextlib.suppress(BlockingIOError):
                passed = connection.far.send(connection.waiting[:share])
                connection.waiting = connection.waiting[passed:]
        return passed

    def _back(self, connection: Connection) -> None:
        """What the target says; if the near end does not take it, the connection is of no use."""
        try:
            piece = connection.far.recv(PIECE_BYTES)
            if not piece or connection.near.send(piece) != len(piece):
                self._drop(connection)
        except OSError:
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        if connection in self.connections:
            self.connections.remove(connection)
            self.selector.unregister(connection.far)
            connection.close()


def _place(word: str) -> tuple[str, int]:
    host, _, port = word.rpartition(":")
    return host, int(port)


def main() -> None:
    """The command line; says where it listens, then runs until it is killed."""
    parser = argparse.ArgumentParser(prog="throttle", description="a TCP proxy that caps each connection")
    parser.add_argument("--listen", type=_place, default=("127.0.0.1", 0), metavar="HOST:PORT")
    parser.add_argument("--to", type=_place, required=True, metavar="HOST:PORT")
    parser.add_argument("--connection", type=float, required=True, metavar="BYTES_PER_S")
    parser.add_argument("--line", type=float, required=True, metavar="BYTES_PER_S", help="of all together")
    parser.add_argument("--slow-every", type=int, default=0, metavar="N", help="every N-th connection is slower")
    parser.add_argument("--slow", type=float, default=0.0, metavar="BYTES_PER_S", help="that much")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)  # inherited when accepting
        listener.bind(options.listen)
        listener.listen(BACKLOG)
        print(f"listening on port {listener.getsockname()[1]}", flush=True)
        Throttle(
            listener, options.to, options.connection, options.line, options.slow_every, options.slow or options.line
        ).run()


if __name__ == "__main__":
    main()
