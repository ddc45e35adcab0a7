"""A TCP proxy on loopback that breaks connections on purpose, at an exact byte or on command."""

import contextlib
import os
import queue
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

UP, DOWN = 0, 1  # from tx to rx; from rx to tx
_PIECE = 64 << 10
_LINGER_ZERO = struct.pack("ii", 1, 0)


@dataclass
class Fault:
    """What happens to a connection once `after` bytes have passed in a direction.

    reset, close: of both ends. half: only the receiving end of that direction sees the end. stall: that
    direction stops. deaf: both stop. flip: the next byte is damaged, and the connection goes on.
    """

    kind: str
    way: int = UP
    after: int = 0


@dataclass
class Pace:
    """How a connection passes on what comes from tx: pieces of `piece` bytes, `pause_s` between them."""

    piece: int = _PIECE
    pause_s: float = 0.0


class Link:
    """One connection through the proxy: an end at tx, an end at rx. Lives in the proxy's thread."""

    def __init__(
        self,
        number: int,
        ends: tuple[socket.socket, socket.socket],
        fault: Fault | None,
        pace: Pace,
        forget: Callable[[socket.socket], None],
    ) -> None:
        self.number, self.ends, self.fault, self.pace, self._forget = number, ends, fault, pace, forget
        self.passed = [0, 0]
        self.waiting = [b"", b""]  # read, not yet passed on
        self.ended = [False, False]  # nothing more comes
        self.told = [False, False]  # ... and the other end knows
        self.stopped = [False, False]
        self.discard = [False, False]
        self.next_s = 0.0
        self.moved_s = time.monotonic()  # when a byte came last, from either end
        self.gone = False

    def events(self, end: int, now: float) -> int:
        """What to wait for at this end: 0 is tx's, 1 is rx's; direction `end` comes from it."""
        events = 0
        if not self.stopped[end] and not self.waiting[end] and not self.ended[end]:
            events |= selectors.EVENT_READ
        other = 1 - end
        if self.waiting[other] and not self.stopped[other] and (other == DOWN or now >= self.next_s):
            events |= selectors.EVENT_WRITE
        return events

    def move(self, way: int, now: float) -> None:
        """Pass on what waits in a direction, up to the fault's byte."""
        data = self.waiting[way]
        if self.discard[way]:
            self.waiting[way] = b""
        elif data and not self.stopped[way] and (way == DOWN or now >= self.next_s):
            piece = data[: self.pace.piece] if way == UP else data
            fault = self.fault if self.fault is not None and self.fault.way == way else None
            if fault is not None:
                left = fault.after - self.passed[way]
                if left <= 0:
                    self.suffer(fault)
                    return
                piece = piece[:left]
            with contextlib.suppress(BlockingIOError):
                count = self.ends[1 - way].send(piece)
                self.passed[way] += count
                self.waiting[way] = data[count:]
                if way == UP and self.pace.pause_s:
                    self.next_s = now + self.pace.pause_s
        if self.ended[way] and not self.waiting[way] and not self.told[way]:
            self.told[way] = True
            self._say_end(1 - way)
        if all(self.told):
            self.close()

    def suffer(self, fault: Fault) -> None:
        """The fault happens now."""
        way = fault.way
        self.fault = None
        if fault.kind == "reset":
            self.close(reset=True)
        elif fault.kind == "close":
            self.discard = [True, True]
            self._say_end(0)
            self._say_end(1)
            self.told = [True, True]
            self.close()
        elif fault.kind == "half":
            self.discard[way] = self.told[way] = True
            self.waiting[way] = b""
            self._say_end(1 - way)
        elif fault.kind == "stall":
            self.stopped[way] = True
        elif fault.kind == "deaf":
            self.stopped = [True, True]
        else:
            assert fault.kind == "flip"
            data = self.waiting[way]
            self.waiting[way] = bytes([data[0] ^ 0x10]) + data[1:]

    def _say_end(self, end: int) -> None:
        with contextlib.suppress(OSError):
            self.ends[end].shutdown(socket.SHUT_WR)

    def close(self, reset: bool = False) -> None:
        """Both ends."""
        self.gone = True
        for sock in self.ends:
            self._forget(sock)
            if reset:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
            sock.close()


class Proxy:
    """Listens on `port`, a port of its own. `plan(number)` may give the number-th connection a fault and a pace."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._server.setblocking(False)
        self.port = self._server.getsockname()[1]
        self.plan: Callable[[int], Fault | None] = lambda number: None
        self.pace: Callable[[int], Pace] = lambda number: Pace()
        self.faults = 0  # that have happened
        self.forget_s = float("inf")  # who was idle for so long is deaf from then on: a NAT that forgets
        self.forgotten = 0
        self.accepted = 0
        self.down = False  # nothing moves and nobody is accepted; what was sent meanwhile comes afterwards
        self.links: list[Link] = []
        self._selector = selectors.DefaultSelector()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._bell, self._ringer = os.pipe()
        self._running = True
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._selector.register(self._server, selectors.EVENT_READ)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._running = False
        os.write(self._ringer, b"!")
        self._thread.join(30)
        assert not self._thread.is_alive()
        for link in self.links:
            link.close()
        self._selector.close()
        self._server.close()
        os.close(self._bell)
        os.close(self._ringer)
        if self._error is not None and kind is None:
            raise self._error

    # ---- for the test's thread ------------------------------------------------------------------
    def call(self, function: Callable[[], Any]) -> Any:
        """Run it in the proxy's thread, between two events; returns its result."""
        done, result = threading.Event(), []

        def run() -> None:
            result.append(function())
            done.set()

        self._calls.put(run)
        os.write(self._ringer, b"!")
        assert done.wait(30), f"the proxy is stuck: {self._error!r}"
        return result[0]

    def strike(self, kind: str, way: int = UP, most: int = 1 << 30) -> int:
        """Do this to living connections now, the oldest first, at most so many; returns to how many."""

        def strike_all() -> int:
            living = [link for link in self.links if not link.gone][:most]
            for link in living:
                link.suffer(Fault(kind, way))
            return len(living)

        return int(self.call(strike_all))

    def living(self) -> int:
        """How many connections there are."""
        return int(self.call(lambda: sum(not link.gone for link in self.links)))

    def cut(self) -> None:
        """Take everything down, without a word to anybody: for those outside, packets vanish."""

        def cut() -> None:
            self.down = True
            self._selector.unregister(self._server)

        self.call(cut)

    def mend(self) -> None:
        """Up again. What waited goes on, as with the repeated packets of TCP."""

        def mend() -> None:
            self.down = False
            self._selector.register(self._server, selectors.EVENT_READ)

        self.call(mend)

    # ---- the thread -----------------------------------------------------------------------------
    def _run(self) -> None:
        try:
            while self._running:
                self._turn()
        except BaseException as error:
            self._error = error

    def _turn(self) -> None:
        now, timeout = time.monotonic(), None
        for link in self.links:
            if link.waiting[UP] and not link.stopped[UP] and now < link.next_s:
                timeout = min(link.next_s - now, timeout or 1.0)
            for end in (0, 1):
                self._watch(link, end, now)
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._server:
                self._accept()
            elif key.fileobj == self._bell:
                os.read(self._bell, 1)
                with contextlib.suppress(queue.Empty):
                    self._calls.get_nowait()()
            else:
                self._serve(key.data)
        for link in [link for link in self.links if link.gone]:
            self.links.remove(link)

    def _watch(self, link: Link, end: int, now: float) -> None:
        sock, events = link.ends[end], 0 if self.down else link.events(end, now)
        known = self._selector.get_map().get(sock)
        if known is None and events:
            self._selector.register(sock, events, link)
        elif known is not None and not events:
            self._selector.unregister(sock)
        elif known is not None and known.events != events:
            self._selector.modify(sock, events, link)

    def _accept(self) -> None:
        sock, _ = self._server.accept()
        try:
            other = socket.create_connection(("127.0.0.1", self._target), 30)
        except OSError:  # nobody there: that is how it looks from outside too
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
            sock.close()
            return
        number, self.accepted = self.accepted, self.accepted + 1
        for each in (sock, other):
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.links.append(Link(number, (sock, other), self.plan(number), self.pace(number), self._forget))

    def _serve(self, link: Link) -> None:
        if link.gone:
            return
        before, now = link.fault, time.monotonic()
        if now - link.moved_s >= self.forget_s:  # it is remembered by what passes, and by nothing else
            self.forgotten += 1
            link.suffer(Fault("deaf"))
            return
        link.moved_s = now
        try:
            self._pass(link, now)
        except OSError:  # one end was reset: so is the other
            link.close(reset=True)
        if before is not None and link.fault is None:
            self.faults += 1

    def _forget(self, sock: socket.socket) -> None:
        if self._selector.get_map().get(sock) is not None:
            self._selector.unregister(sock)

    def _pass(self, link: Link, now: float) -> None:
        for way in (UP, DOWN):
            if link.gone:
                return
            if not link.stopped[way] and not link.ended[way] and not link.waiting[way]:
                with contextlib.suppress(BlockingIOError):
                    link.waiting[way] = link.ends[way].recv(_PIECE)
                    link.ended[way] = not link.waiting[way]
            link.move(way, now)
