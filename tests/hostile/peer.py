"""The other side of a connection, in the hands of a test: plain sockets, sealed where there is a key.

Everything is said rightly unless the caller says something else. Waits are bounded by PATIENCE_S.
"""

import contextlib
import os
import socket
import struct
import time
from typing import Self

from viamillipede.config import KEY_BYTES, MIB
from viamillipede.protocol import hello
from viamillipede.protocol.hello import Hello, Mode
from viamillipede.protocol.noise import Handshake, hkdf
from viamillipede.protocol.sealing import Opener, Sealer
from viamillipede.protocol.wire import (
    ANSWER_BYTES,
    FROM_RX,
    FROM_TX,
    GREETING_BYTES,
    HEADER_BYTES,
    RECORD_BYTES,
    TAG_BYTES,
    Answer,
    Call,
    Greeting,
    Header,
    Kind,
    Opening,
    Verdict,
    decode_answer_untrusted,
    decode_greeting_untrusted,
    decode_header_untrusted,
    encode_header,
)

LOOPBACK = "127.0.0.1"
PATIENCE_S = 60.0  # on a busy machine too
KEY, OTHER_KEY = bytes(range(KEY_BYTES)), bytes(KEY_BYTES)
RECEIVER = b"receiver"
SUITE = 1
_LINGER_ZERO = struct.pack("ii", 1, 0)


class Closed(Exception):
    """The program has closed the connection."""


class Line:
    """A connection to the program, and what seals it, if anything does."""

    def __init__(
        self, sock: socket.socket, sealer: Sealer | None = None, opener: Opener | None = None, secret: bytes = b""
    ) -> None:
        self.sock, self.sealer, self.opener, self.secret = sock, sealer, opener, secret

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    # ---- saying ---------------------------------------------------------------------------------
    def raw(self, data: bytes) -> None:
        """These bytes, as they are. Closed."""
        try:
            self.sock.sendall(data)
        except (ConnectionError, BrokenPipeError):
            raise Closed from None

    def say(self, data: bytes) -> None:
        """Whole messages, or an opening, one record each where it is sealed. Closed."""
        if self.sealer is None:
            self.raw(data)
        elif data[:2] == b"vm" and data[2:4] != b"lp":
            self.raw(self.sealer.messages(data))
        else:
            self.raw(self.sealer.opening(data))

    def head(self, kind: Kind, length: int, seq: int = 0, offset: int = 0, payload_hash: int = 0) -> None:
        """A header alone. Closed."""
        header = encode_header(kind, length, seq, offset, payload_hash)
        self.raw(header if self.sealer is None else self.sealer.opening(header))

    def part(self, data: bytes) -> None:
        """What follows upon a header: a payload, or some of it, in records as they must be. Closed."""
        for start in range(0, len(data), RECORD_BYTES):
            piece = data[start : start + RECORD_BYTES]
            self.raw(piece if self.sealer is None else self.sealer.opening(piece))

    def half_close(self) -> None:
        """Nothing more comes from here."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break it."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        self.sock.close()

    # ---- hearing --------------------------------------------------------------------------------
    def exactly(self, count: int) -> bytes:
        """So many bytes, as they come. Closed, TimeoutError."""
        heard = bytearray()
        while len(heard) < count:
            try:
                data = self.sock.recv(count - len(heard))
            except ConnectionError:
                raise Closed from None
            if not data:
                raise Closed
            heard += data
        return bytes(heard)

    def opening(self, count: int) -> bytes:
        """A greeting, a call or an answer. Closed, TimeoutError."""
        if self.opener is None:
            return self.exactly(count)
        return self.opener.opening(self.exactly(count + TAG_BYTES))

    def message(self) -> tuple[Header, bytes]:
        """The next message. Closed, TimeoutError."""
        header = decode_header_untrusted(self._bytes(HEADER_BYTES), FROM_RX | FROM_TX)
        return header, self._bytes(header.length)

    def _bytes(self, count: int) -> bytes:
        if self.opener is None:
            return self.exactly(count)
        heard = bytearray(count)
        view = memoryview(heard)
        while view:
            try:
                done = self.opener.read_into(self.sock.recv_into, view)
            except ConnectionError:
                raise Closed from None
            if not done:
                raise Closed
            view = view[done:]
        return bytes(heard)

    def until(self, kind: Kind) -> tuple[Header, bytes]:
        """The next message of a kind; what comes before is thrown away. Closed, TimeoutError."""
        while True:
            header, payload = self.message()
            if header.kind is kind:
                return header, payload

    def is_closed(self, within_s: float = PATIENCE_S) -> bool:
        """Whether the program closes it in time; what it says until then is thrown away."""
        end_s = time.monotonic() + within_s
        self.sock.settimeout(within_s)
        try:
            while self.sock.recv(1 << 16):
                if time.monotonic() >= end_s:
                    return False
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        finally:
            self.sock.settimeout(PATIENCE_S)
        return True


# Coming to a program that listens ----------------------------------------------------------------------------


def connect(port: int, source: str = LOOPBACK) -> socket.socket:
    """A connection to the program, from this address."""
    return socket.create_connection((LOOPBACK, port), PATIENCE_S, source_address=(source, 0))


def knock(
    sock: socket.socket, key: bytes | None, opening: Opening, secret: bytes = b"", line: Line | None = None
) -> Line:
    """Say hello, on `line` if that is given, where there is a key, or the `secret` of a leg before. Refused, Closed."""
    line = line or Line(sock)
    if key is None:
        return line
    mode = Mode.JOIN if secret else Mode.FIRST
    head = Hello(mode, handle_of(secret) if secret else hello.NO_HANDLE).encode()
    noise = Handshake(True, hello.HANDSHAKE_CIPHER, secret or key, os.urandom(KEY_BYTES), head)
    line.raw(head + noise.write(hello.encode_offer(SUITE, opening)))
    welcome = line.exactly(hello.WELCOME_BYTES)
    if welcome[5] != Verdict.ACCEPTED:
        rest = line.exactly(ANSWER_BYTES - hello.WELCOME_BYTES)
        raise Refused(decode_answer_untrusted(bytearray(welcome + rest)).verdict)
    noise.read(line.exactly(hello.MESSAGE_BYTES))
    ours, theirs, more = noise.split(hello.SUITES[SUITE])
    return Line(sock, Sealer(ours), Opener(theirs), secret or more)


class Refused(Exception):
    """The program does not let us in; `args[0]` is its Verdict."""


def handle_of(secret: bytes) -> bytes:
    """How a hello names the secret of a leg that was up before."""
    return hkdf(secret, b"handle", 2)[0][: hello.HANDLE_BYTES]


def greeting(
    session: bytes,
    leg: int = 0,
    *,
    name: str = "",
    window_bytes: int = 4 * MIB,
    features: int = 0,
    receiver: bytes = b"",
) -> Greeting:
    """A greeting that rx accepts."""
    return Greeting(
        session, leg, receiver or bytes(8), bytes(4), features, window_bytes, min(MIB, max(1, window_bytes)), name
    )


def as_tx(port: int, key: bytes | None, greets: Greeting, secret: bytes = b"", source: str = LOOPBACK) -> Line:
    """A leg to an rx that listens: it has accepted. Refused, Closed."""
    sock = connect(port, source)
    with contextlib.ExitStack() as stack:
        stack.enter_context(sock)
        line = knock(sock, key, Opening.GREETING, secret)
        line.say(greets.encode())
        verdict = decode_answer_untrusted(bytearray(line.opening(ANSWER_BYTES))).verdict
        if verdict is not Verdict.ACCEPTED:
            raise Refused(verdict)
        stack.pop_all()
    return line


def calling(
    port: int, key: bytes | None, leg: int = 0, secret: bytes = b"", receiver: bytes = RECEIVER, rank: int = 0,
    ranks: int = 1,
) -> tuple[Line, Greeting]:  # fmt: skip
    """A call to a tx that listens, which has greeted; it waits for the answer. Refused, Closed."""
    sock = connect(port)
    with contextlib.ExitStack() as stack:
        stack.enter_context(sock)
        line = knock(sock, key, Opening.CALL, secret)
        line.say(Call(receiver, leg, rank, ranks, bytes(4)).encode())
        verdict = decode_answer_untrusted(bytearray(line.opening(ANSWER_BYTES))).verdict
        if verdict is not Verdict.ACCEPTED:
            raise Refused(verdict)
        greets = decode_greeting_untrusted(bytearray(line.opening(GREETING_BYTES)))
        stack.pop_all()
    return line, greets


# A program that comes to us ----------------------------------------------------------------------------------


def listener() -> socket.socket:
    """A socket that listens on a port of the kernel's choice."""
    sock = socket.create_server((LOOPBACK, 0), backlog=128)
    sock.settimeout(PATIENCE_S)
    return sock


def port_of(sock: socket.socket) -> int:
    """Where it listens."""
    return int(sock.getsockname()[1])


def accept(listening: socket.socket, key: bytes | None, secrets: dict[bytes, bytes]) -> Line:
    """The next connection, let in; `secrets`: of the legs that were up before, by their handles. Closed."""
    sock, _ = listening.accept()
    sock.settimeout(PATIENCE_S)
    line = Line(sock)
    if key is None:
        return line
    with contextlib.ExitStack() as stack:
        stack.enter_context(sock)
        head = line.exactly(hello.HELLO_BYTES)
        secret = secrets.get(head[8 : hello.HELLO_BYTES], b"")
        message = line.exactly(hello.MESSAGE_BYTES)
        if head[6] == Mode.JOIN and not secret:  # of a leg that was up elsewhere
            line.raw(Answer(Verdict.UNKNOWN).encode())
            raise Closed
        noise = Handshake(False, hello.HANDSHAKE_CIPHER, secret or key, os.urandom(KEY_BYTES), head)
        noise.read(message)
        line.raw(hello.encode_welcome() + noise.write(hello.encode_choice(SUITE)))
        stack.pop_all()
    ours, theirs, more = noise.split(hello.SUITES[SUITE])
    if not secret:
        secrets[handle_of(more)] = more
    return Line(sock, Sealer(ours), Opener(theirs), more)


def as_rx(
    listening: socket.socket, key: bytes | None, secrets: dict[bytes, bytes], answers: Answer | None = None
) -> tuple[Line, Greeting]:
    """A leg of a tx that dials: it has greeted, and is accepted. Closed, TimeoutError."""
    line = accept(listening, key, secrets)
    greets = decode_greeting_untrusted(bytearray(line.opening(GREETING_BYTES)))
    line.say((answers or Answer(Verdict.ACCEPTED, 0, RECEIVER, 64 * MIB)).encode())
    return line, greets
