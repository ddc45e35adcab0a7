"""A network that caps every connection, as a process of its own, so that the test's processor time stays the test's.

    python -m tests.e2e.throttle '{"target": 8834, "rate": 30000, ...}'

It says its port on standard output. When its standard input ends it says there what it has seen, as JSON, and ends.
One thread looks at all connections once a tick and moves what their rates allow: 200 of them cost a tenth of a core.
"""

import collections
import contextlib
import json
import select
import selectors
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
TICK_S = 0.02
PIECE = 1400  # bytes that are moved at least, unless fewer are there; and the segments' size: loopback's is huge
BUFFER = 1024  # least of each socket that holds what goes to rx: what hides there is not on the slow connection
DOWN_PIECE = 64 << 10
BURST_S = 0.1  # what was not used of a rate may be used for so long


@dataclass
class Terms:
    """Rates in bytes per second, towards rx; what rx says is only delayed. Every `slow_every`-th runs at `slow_rate`.

    `line`: of all connections together.
    """

    target: int
    rate: float
    line: float = 1e12
    slow_every: int = 0
    slow_rate: float = 0.0
    delay_s: float = 0.0

    def buffer(self) -> int:
        """What a socket must hold so that no tick finds it empty; bytes, of which the kernel takes half for itself."""
        return max(BUFFER, int(4 * self.rate * TICK_S))

    def rate_of(self, number: int) -> float:
        """The number-th connection's rate, counted from 0."""
        return self.slow_rate if self.slow_every and number % self.slow_every == self.slow_every - 1 else self.rate


@dataclass
class Seen:
    """What a throttle has seen: when it accepted each connection, what each has brought to rx, and its own cost."""

    accepted_s: list[float] = field(default_factory=list)
    passed: list[int] = field(default_factory=list)
    cpu_s: float = 0.0

    def most_within(self, span_s: float) -> int:
        """The most connections that were accepted within any such span."""
        times = sorted(self.accepted_s)
        return max(sum(start <= each < start + span_s for each in times) for start in times)


class Bucket:
    """What a rate allows to move now."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self.left = self._most = max(rate * BURST_S, 2 * PIECE)

    def refill(self, seconds: float) -> None:
        """Time has passed."""
        self.left = min(self._most, self.left + self._rate * seconds)


class Flow:
    """One direction of a connection: read, delayed, written."""

    def __init__(self, source: socket.socket, sink: socket.socket, delay_s: float) -> None:
        self.source, self.sink, self._delay_s = source, sink, delay_s
        self._line: collections.deque[tuple[float, bytes]] = collections.deque()
        self._bytes = 0
        self.passed = 0
        self.ended = False

    def read(self, most: int, now: float) -> int:
        """Take at most so many bytes; how many it was. OSError."""
        if self.ended or self._bytes >= DOWN_PIECE:
            return 0
        with contextlib.suppress(BlockingIOError):
            data = self.source.recv(most)
            self.ended = not data
            self._line.append((now + self._delay_s, data))
            self._bytes += len(data)
            return len(data)
        return 0

    def write(self, now: float) -> None:
        """Pass on what has been under way for long enough. OSError."""
        while self._line and self._line[0][0] <= now:
            due_s, data = self._line[0]
            if not data:
                self.sink.shutdown(socket.SHUT_WR)
            else:
                try:
                    count = self.sink.send(data)
                except BlockingIOError:
                    return
                self.passed += count
                self._bytes -= count
                if count < len(data):
                    self._line[0] = (due_s, data[count:])
                    return
            self._line.popleft()

    def done(self) -> bool:
        """Whether the end has been passed on."""
        return self.ended and not self._line


class Connection:
    """Two flows."""

    def __init__(self, number: int, near: socket.socket, far: socket.socket, terms: Terms) -> None:
        self.number = number
        self.up, self.down = Flow(near, far, terms.delay_s), Flow(far, near, terms.delay_s)
        self.bucket = Bucket(terms.rate_of(number))


class Network:
    """All connections, and the line they share."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self.seen = Seen()
        self._line = Bucket(terms.line)
        self._connections: list[Connection] = []
        self._selector = selectors.DefaultSelector()
        self._server = socket.socket()
        # Set before it listens: those that are accepted inherit it.
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, terms.buffer())
        self._server.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, PIECE)
        self._server.bind(("127.0.0.1", 0))
        self._server.listen(1024)
        self._server.setblocking(False)
        self.port = int(self._server.getsockname()[1])

    def run(self, until: int) -> None:
        """Until the descriptor `until` has something to read, or its end."""
        then = time.monotonic()
        while not select.select([until], [], [], TICK_S)[0]:
            now = time.monotonic()
            self._accept(now)
            self._line.refill(now - then)
            for connection in self._connections:
                connection.bucket.refill(now - then)
            then = now
            self._move(now)

    def _accept(self, now: float) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                near, _ = self._server.accept()
                far = socket.socket()
                far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._terms.buffer())
                far.connect(("127.0.0.1", self._terms.target))
                connection = Connection(len(self.seen.passed), near, far, self._terms)
                for sock, flow in ((near, connection.up), (far, connection.down)):
                    sock.setblocking(False)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._selector.register(sock, selectors.EVENT_READ, (connection, flow))
                self._connections.append(connection)
                self.seen.accepted_s.append(now)
                self.seen.passed.append(0)

    def _move(self, now: float) -> None:
        readable = [key.data for key, _ in self._selector.select(0)]
        first = int(now / TICK_S) % len(readable) if readable else 0  # nobody is always the first at the line
        for connection, flow in readable[first:] + readable[:first]:
            try:
                if flow is connection.down:
                    flow.read(DOWN_PIECE, now)
                elif min(connection.bucket.left, self._line.left) >= PIECE:
                    count = flow.read(int(min(connection.bucket.left, self._line.left)), now)
                    connection.bucket.left -= count
                    self._line.left -= count
                if flow.ended:
                    self._selector.unregister(flow.source)
            except OSError:
                self._close(connection, reset=True)
        for connection in list(self._connections):
            try:
                connection.up.write(now)
                connection.down.write(now)
            except OSError:
                self._close(connection, reset=True)
            self.seen.passed[connection.number] = connection.up.passed
            if connection.up.done() and connection.down.done():
                self._close(connection, reset=False)

    def _close(self, connection: Connection, reset: bool) -> None:
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        for sock in (connection.up.source, connection.down.source):
            if sock in self._selector.get_map():
                self._selector.unregister(sock)
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()


class Throttle:
    """The process, for a test: listens on `port` from `with` on; `end` tells what it has seen."""

    def __init__(self, **terms: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.throttle", json.dumps(asdict(Terms(**terms)))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True,
        )  # fmt: skip
        self.port = 0

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        return self

    def end(self) -> Seen:
        """End it; all its connections break."""
        said, _ = self.process.communicate(timeout=30)
        assert self.process.returncode == 0
        return Seen(**json.loads(said))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def main() -> None:
    """Be the process."""
    network = Network(Terms(**json.loads(sys.argv[1])))
    print(network.port, flush=True)
    network.run(sys.stdin.fileno())
    network.seen.cpu_s = time.process_time()
    print(json.dumps(asdict(network.seen)))


if __name__ == "__main__":
    main()
