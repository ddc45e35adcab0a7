"""A man in the middle: passes on, records and changes what crosses, in pieces of the sizes that it likes."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from tests.e2e.helpers import LOOPBACK, PATIENCE_S, Side, Stage
from tests.e2e.keyed import Lock
from tests.e2e.proxy import DOWN, UP
from viamillipede.protocol.hello import HELLO_BYTES, MESSAGE_BYTES, WELCOME_BYTES
from viamillipede.protocol.wire import ANSWER_BYTES, GREETING_BYTES, HEADER_BYTES, TAG_BYTES

_PIECE = 64 << 10
HELLO = HELLO_BYTES + MESSAGE_BYTES
GREETING = GREETING_BYTES + TAG_BYTES
WELCOME = WELCOME_BYTES + MESSAGE_BYTES
ANSWER = ANSWER_BYTES + TAG_BYTES
BEAT = HEADER_BYTES + TAG_BYTES  # all that a tx says that has nothing to say: one record

Edit = Callable[["Tapped", int, int, bytes], bytes | None]  # what is passed on of a piece; None: the end


def records(way: int) -> Iterator[int]:
    """Where the records end of a leg of a tx that has dialled, and has nothing to send; from rx as they come."""
    yield from (HELLO, GREETING) if way == UP else (WELCOME, ANSWER)
    while True:
        yield BEAT if way == UP else 0


def pieces(way: int) -> Iterator[int]:
    """As they come."""
    while True:
        yield 0


class Tapped:
    """A connection. `said`: what was said, from tx and from rx; UP is from whoever has dialled."""

    def __init__(self, middle: "Middle", number: int, near: socket.socket, far: socket.socket) -> None:
        self._middle, self.number, self.near, self.far = middle, number, near, far
        self.said = (bytearray(), bytearray())
        self.threads = [threading.Thread(target=self._pump, args=(way,), daemon=True) for way in (UP, DOWN)]
        for thread in self.threads:
            thread.start()

    def _pump(self, way: int) -> None:
        source, target = (self.near, self.far) if way == UP else (self.far, self.near)
        with contextlib.suppress(OSError):
            for number, size in enumerate((self._middle.cut if self.number < 2 else pieces)(way)):
                piece = _take(source, size)
                self.said[way].extend(piece)
                passed = self._middle.edit(self, way, number, piece) if piece else None
                if passed is None:
                    break
                target.sendall(passed)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def inject(self, way: int, data: bytes) -> None:
        """Say something that nobody has said."""
        (self.far if way == UP else self.near).sendall(data)

    def close(self) -> None:
        """Both ends, and the threads."""
        for sock in (self.near, self.far):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
        for sock in (self.near, self.far):
            sock.close()


def _take(sock: socket.socket, size: int) -> bytes:
    """`size` bytes, or what there is before the end; 0: what comes next."""
    if not size:
        return sock.recv(_PIECE)
    taken = b""
    while len(taken) < size and (piece := sock.recv(size - len(taken))):
        taken += piece
    return taken


class Middle:
    """Listens on `port`, a port of its own. `edit` is asked about every piece.

    cut: how long these are on the first two connections; later ones pass as they come.
    serve: what is done with a connection instead, by whoever pretends to be the other side.
    """

    def __init__(self, target: int, edit: Edit | None = None, cut: Callable[[int], Iterator[int]] = pieces) -> None:
        self._target = target
        self.edit: Edit = edit or (lambda link, way, number, piece: piece)
        self.cut = cut
        self.serve: Callable[[int, socket.socket], bool] = lambda number, sock: False
        self.links: list[Tapped] = []
        self.accepted = 0
        self._server = socket.create_server((LOOPBACK, 0), backlog=64)
        self.port: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        self._server.close()
        for link in self.links:
            link.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                number, self.accepted = self.accepted, self.accepted + 1
                if self.serve(number, near):
                    near.close()
                    continue
                try:
                    far = socket.create_connection((LOOPBACK, self._target), PATIENCE_S)
                except OSError:  # nobody is there
                    near.close()
                    continue
                far.settimeout(None)
                for sock in (near, far):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.links.append(Tapped(self, number, near, far))

    def crossed(self) -> bytes:
        """Everything that anybody has said."""
        return b"".join(bytes(said) for link in self.links for said in link.said)


def middle(stage: Stage, to: Side, edit: Edit | None = None, **options: Callable[[int], Iterator[int]]) -> Middle:
    """One in front of whoever listens."""
    return stage.exit.enter_context(Middle(to.port, edit, **options))


def pair(stage: Stage, key: Lock, edit: Edit | None = None, threads: int = 1) -> tuple[Side, Side, Middle]:
    """rx and tx with a man in the middle who knows where records begin, as long as nothing is sent."""
    rx = stage.rx(*key.words, "verbose", 3, "regroup", "60s")
    tapped = middle(stage, rx, edit, cut=records)
    tx = stage.tx(tapped, *key.words, "verbose", 3, "threads", threads, "regroup", "60s")
    return rx, tx, tapped


def say(to: Side, *what: bytes) -> bytes:
    """Make a connection, say this, and hear all that is answered until it is closed."""
    with socket.create_connection((LOOPBACK, to.port), 30) as sock:
        with contextlib.suppress(OSError):
            for each in what:
                sock.sendall(each)
            sock.shutdown(socket.SHUT_WR)
        heard = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := sock.recv(65536):
                heard += piece
        return heard
