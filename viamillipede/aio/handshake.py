"""The first words on a connection: call, greeting, answer; each within GREETING_US, checked before it is believed.

    tx dials, rx listens                        rx dials, tx listens
    tx: greeting                                rx: call
    rx: answer                                  tx: answer, and if it accepts, greeting
                                                rx: answer

Whoever listens and refuses says why, in an answer.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from viamillipede.config import FAREWELL_US, GREETING_US, S_US
from viamillipede.errors import FrameError
from viamillipede.protocol.wire import (
    ANSWER_BYTES,
    GREETING_BYTES,
    OPENING_BYTES,
    PREFIX_BYTES,
    VERSION,
    Answer,
    Call,
    Greeting,
    ImpossibleOpening,
    Opening,
    Verdict,
    check_prefix_untrusted,
    decode_answer_untrusted,
    decode_call_untrusted,
    decode_greeting_untrusted,
)


class AnotherVersion(FrameError):
    """The other side speaks a version that we do not."""

    def __init__(self, version: int) -> None:
        super().__init__(f"speaks version {version} of the protocol, we {VERSION}")


class ClosedEarly(FrameError):
    """The connection ended before all was said."""


class OpeningRefused(FrameError):
    """A viamillipede, but not one for us; it is told why."""

    def __init__(self, reason: str, answer: Answer) -> None:
        super().__init__(reason)
        self.answer = answer


# Hearing ---------------------------------------------------------------------------------------
async def _hear(sock: socket.socket, count: int, ended: str, received: bytes | bytearray = b"") -> bytearray:
    """`received`, and the bytes up to `count` of them; checked as they come for who speaks at all."""
    loop = asyncio.get_running_loop()
    heard = bytearray(received)
    while len(heard) < count:
        data = await loop.sock_recv(sock, count - len(heard))
        if not data:
            raise ClosedEarly(ended)
        heard += data
        version = check_prefix_untrusted(heard)
        if len(heard) >= PREFIX_BYTES and version != VERSION:
            raise AnotherVersion(version)
    return heard


async def _hear_opening(sock: socket.socket, wanted: Opening) -> Greeting | Call:
    """What a new connection opens with; of the kind that is wanted, or OpeningRefused."""
    noun, verb = ("greeting", "greeted") if wanted is Opening.GREETING else ("call", "called")
    try:
        async with asyncio.timeout(GREETING_US / S_US):
            first = await _hear(sock, 1, f"closed before it {verb}")
            head = await _hear(sock, PREFIX_BYTES + 1, f"closed in its {noun}", first)
            opening = Opening(head[PREFIX_BYTES]) if head[PREFIX_BYTES] in OPENING_BYTES else wanted
            said = await _hear(sock, OPENING_BYTES[opening], f"closed in its {noun}", head)
        found = decode_greeting_untrusted(said) if opening is Opening.GREETING else decode_call_untrusted(said)
    except AnotherVersion as error:
        raise OpeningRefused(f"it {error}", Answer(Verdict.VERSION)) from error
    except ImpossibleOpening as error:
        raise OpeningRefused(str(error), Answer(Verdict.MALFORMED)) from error
    if opening is not wanted:
        role = "receiver" if opening is Opening.CALL else "transmitter"
        raise OpeningRefused(f"it is a {role}, as we are", Answer(Verdict.ROLE))
    return found


async def hear_greeting(sock: socket.socket) -> Greeting:
    """rx listens: the greeting of a new connection. FrameError, OpeningRefused, OSError, TimeoutError."""
    greeting = await _hear_opening(sock, Opening.GREETING)
    assert isinstance(greeting, Greeting)
    return greeting


async def hear_call(sock: socket.socket) -> Call:
    """tx listens: the call of a new connection. FrameError, OpeningRefused, OSError, TimeoutError."""
    found = await _hear_opening(sock, Opening.CALL)
    assert isinstance(found, Call)
    return found


async def _hear_answer(sock: socket.socket) -> Answer:
    return decode_answer_untrusted(await _hear(sock, ANSWER_BYTES, "closed before it answered"))


# Asking ----------------------------------------------------------------------------------------
async def greet(sock: socket.socket, greeting: bytes, lasts_us: int = GREETING_US) -> Answer:
    """tx: greet, with tx's own answer before if rx has called; rx's answer. FrameError, OSError, TimeoutError."""
    async with asyncio.timeout(lasts_us / S_US):
        await asyncio.get_running_loop().sock_sendall(sock, greeting)
        return await _hear_answer(sock)


async def call(sock: socket.socket, message: bytes, lasts_us: int = GREETING_US) -> tuple[Answer, Greeting | None]:
    """rx: call; tx's answer, and its greeting if it has accepted. FrameError, OSError, TimeoutError."""
    async with asyncio.timeout(lasts_us / S_US):
        await asyncio.get_running_loop().sock_sendall(sock, message)
        answer = await _hear_answer(sock)
        if answer.verdict is not Verdict.ACCEPTED:
            return answer, None
        return answer, decode_greeting_untrusted(await _hear(sock, GREETING_BYTES, "closed before it greeted"))


# Refusing --------------------------------------------------------------------------------------
async def refuse(sock: socket.socket, answer: Answer) -> None:
    """Say why, and read on until the other side leaves: closing first could destroy the answer."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(TimeoutError, OSError):  # it need not listen
        async with asyncio.timeout(FAREWELL_US / S_US):
            await loop.sock_sendall(sock, answer.encode())
            sock.shutdown(socket.SHUT_WR)
            while await loop.sock_recv(sock, GREETING_BYTES):
                pass


@contextlib.asynccontextmanager
async def answering(sock: socket.socket) -> AsyncIterator[None]:
    """Whoever is refused in here hears why."""
    try:
        yield
    except OpeningRefused as refused:
        await refuse(sock, refused.answer)
        raise
