"""What a hostile rx can do to the tx that has come to it, each under its name.

A lie gets a listener to which tx dials. After it tx is left alone, and must end by itself: with one of the statuses
that stand beside it, and never with 0.
"""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from random import Random

from tests.e2e.helpers import MIB
from tests.hostile.peer import RECEIVER, Closed, Line, accept, as_rx, listener
from viamillipede.config import ACK_RANGES_MAX, REASON_BYTES_MAX
from viamillipede.errors import Exit
from viamillipede.protocol.wire import (
    FEATURE_XXH3,
    GREETING_BYTES,
    Ack,
    Answer,
    Greeting,
    Kind,
    Verdict,
    Waiting,
    encode_control,
    encode_reason,
)

STREAM_BYTES = 3 * MIB
WINDOW = 4 * MIB
HUGE = (1 << 64) - 1
FLOOD = 10_000
WHILE_S = 1.5  # of doing nothing
COMES_AGAIN_S = 0.5
LOST, FAILED, REFUSED = {Exit.PEER_LOST}, {Exit.REMOTE_FAILED}, {Exit.REFUSED, Exit.NO_CONTACT, Exit.PEER_LOST}
WRONG = {Exit.INTEGRITY}


class Spoilt:
    """A tx's way to us."""

    def __init__(self, key: bytes | None, seed: int) -> None:
        self.chance = Random(seed)
        self.socket, self.key = listener(), key
        self._secrets: dict[bytes, bytes] = {}
        self._lines: list[Line] = []
        self.greets: Greeting
        self.told = False  # the lie can be told: what tx closes now it closes for that

    def leg(self, answer: Answer | None = None) -> Line:
        """The next leg, on which rx has said how things stand. Closed."""
        self.told = False
        line, self.greets = as_rx(self.socket, self.key, self._secrets, answer)
        self._lines.append(line)
        line.say(_ack())
        self.told = True
        return line

    def begun(self) -> Line:
        """The same, and the first frame has come. Closed."""
        line = self.leg()
        self.told = False
        line.until(Kind.DATA)
        self.told = True
        return line

    def greeted(self) -> Line:
        """The next connection, up to the greeting, which is still to be answered. Closed."""
        line = accept(self.socket, self.key, self._secrets)
        self._lines.append(line)
        line.opening(GREETING_BYTES)
        self.told = True
        return line

    def close(self) -> None:
        """tx finds nobody any more."""
        self.socket.close()
        for line in self._lines:
            with contextlib.suppress(OSError):
                line.sock.shutdown(socket.SHUT_RDWR)
            line.sock.close()


Lie = Callable[[Spoilt], None]


def must_close(line: Line) -> None:
    """tx gives the leg up."""
    assert line.is_closed(), "the leg was not closed"


def _ack(arrived: int = 0, written: int = 0, ranges: tuple[tuple[int, int], ...] = (), **more: int) -> bytes:
    return Ack(arrived, written, Waiting.FRAME, arrived, ranges, **more).encode()


def _says(*messages: bytes) -> Lie:
    """Something that cannot be, when the first frame has come."""

    def lie(tx: Spoilt) -> None:
        line = tx.begun()
        for message in messages:
            line.say(message)
        must_close(line)

    return lie


def _head(kind: Kind, length: int) -> Lie:
    def lie(tx: Spoilt) -> None:
        line = tx.leg()
        line.head(kind, length)
        must_close(line)

    return lie


def _answers(answer: Answer) -> Lie:
    """An answer that cannot be."""

    def lie(tx: Spoilt) -> None:
        line = tx.greeted()
        line.say(answer.encode())
        must_close(line)

    return lie


def _flood(message: bytes) -> Lie:
    """The same again and again, without reading."""

    def lie(tx: Spoilt) -> None:
        line = tx.begun()
        for _ in range(FLOOD // 100):
            line.say(message * 100)

    return lie


def _whole(tx: Spoilt, features: int) -> Line:
    """All of the stream is read, on one leg, and acknowledged; the others are not let in."""
    line = tx.leg(Answer(Verdict.ACCEPTED, features, RECEIVER, 64 * MIB))
    while True:
        header, payload = line.message()
        if header.kind is Kind.DATA:
            line.say(_ack(header.seq + 1, header.offset + len(payload)))
        if header.kind is Kind.END:
            line.say(_ack(header.seq + 1, header.offset))
            return line


def _done_without_digest(tx: Spoilt) -> None:
    line = _whole(tx, FEATURE_XXH3)
    line.say(encode_control(Kind.DONE, offset=STREAM_BYTES))
    must_close(line)


def _other_digest(tx: Spoilt) -> None:
    line = _whole(tx, FEATURE_XXH3)
    line.say(encode_control(Kind.DIGEST, offset=STREAM_BYTES, payload=b"x" * 16))
    line.until(Kind.SUM)
    line.say(encode_control(Kind.DONE, offset=STREAM_BYTES))


def _digest_of_less(tx: Spoilt) -> None:
    line = _whole(tx, FEATURE_XXH3)
    line.say(encode_control(Kind.DIGEST, offset=STREAM_BYTES - 1, payload=b"x" * 16))
    must_close(line)


def _done_with_less(tx: Spoilt) -> None:
    line = _whole(tx, 0)
    line.say(encode_control(Kind.DONE, offset=STREAM_BYTES - 1))
    must_close(line)


def _other_receiver(tx: Spoilt) -> None:
    """The window shrinks with the second leg, and whoever answers it is another one."""
    tx.leg()
    tx.leg(Answer(Verdict.ACCEPTED, 0, RECEIVER, 64 << 10))
    must_close(tx.leg(Answer(Verdict.ACCEPTED, 0, b"somebody", 64 * MIB)))


def _huge_window(tx: Spoilt) -> None:
    """As much room as there can be, nothing is ever written, and nothing is read."""
    tx.leg(Answer(Verdict.ACCEPTED, 0, RECEIVER, HUGE))
    time.sleep(WHILE_S)


def _reads_nothing(tx: Spoilt) -> None:
    tx.leg()
    time.sleep(WHILE_S)


def _writes_nothing(tx: Spoilt) -> None:
    """All arrives, nothing is written: tx must hold on to it, and to no more than the window."""
    line = tx.leg()
    line.sock.settimeout(WHILE_S)
    with contextlib.suppress(TimeoutError):
        while True:
            header, _ = line.message()
            if header.kind is Kind.DATA:
                line.say(Ack(header.seq + 1, 0, Waiting.OUTPUT, 0).encode())


def _garbage(tx: Spoilt) -> None:
    """Any number of right bytes, then others."""
    messages = _ack() + _ack(1) + encode_control(Kind.RESEND, 0)
    if tx.chance.randrange(4) == 0:
        line = tx.greeted()
        line.raw(tx.chance.randbytes(tx.chance.randrange(1, 200)))
    else:
        line = tx.begun()
        right = messages if line.sealer is None else line.sealer.messages(messages)
        line.raw(right[: tx.chance.randrange(len(right))] + tx.chance.randbytes(5000))
    line.half_close()
    must_close(line)


def _reset(tx: Spoilt) -> None:
    tx.begun().reset()
    tx.socket.settimeout(COMES_AGAIN_S)
    with contextlib.suppress(TimeoutError):  # it need not come so often
        for _ in range(4):
            tx.leg().reset()


def _half_close(tx: Spoilt) -> None:
    line = tx.leg()
    line.half_close()
    must_close(line)


def _closes_at_once(tx: Spoilt) -> None:
    tx.greeted().half_close()
    tx.socket.settimeout(COMES_AGAIN_S)
    for _ in range(4):
        with contextlib.suppress(Closed, TimeoutError):
            tx.greeted().half_close()


def _control_characters(tx: Spoilt) -> None:
    line = tx.leg()
    line.say(encode_reason(Kind.REFUSAL, "\x1b[2J\x07 full\r" + "\u202e" * 10))


def _shown(tx: Spoilt) -> None:
    """Numbers that cannot be, which are shown."""
    line = tx.begun()
    line.say(_ack(0, 0, output_us=HUGE, core_us=HUGE))
    time.sleep(WHILE_S)


RANGES = tuple((2 * n, 2 * n + 1) for n in range(1, ACK_RANGES_MAX + 1))
LIES: dict[str, tuple[Lie, set[Exit]]] = {
    "ack.unsent": (_says(_ack(100_000)), LOST),
    "ack.all": (_says(_ack(HUGE, HUGE)), LOST),
    "ack.range": (_says(_ack(0, 0, ((1 << 62, 1 << 63),))), LOST),
    "ack.ranges": (_says(_ack(0, 0, RANGES)), LOST),
    "ack.written": (_says(_ack(0, STREAM_BYTES + 1)), LOST),
    "ack.back": (_says(encode_control(Kind.ACK, 0, 0, struct.pack("!8Q", 0, 0, 0, 0, 9, 8, 7, 6))), LOST),
    "ack.waits": (_says(encode_control(Kind.ACK, 0, 0, struct.pack("!4Q", 2, 0, 0, 0))), LOST),
    "ack.long": (_head(Kind.ACK, 32 + 16 * (ACK_RANGES_MAX + 1)), LOST),
    "ack.4G": (_head(Kind.ACK, (1 << 32) - 16), LOST),
    "resend.unsent": (_says(encode_control(Kind.RESEND, 1 << 40)), LOST),
    "done.empty": (_says(encode_control(Kind.DONE)), LOST),
    "done.early": (_says(_ack(1, 1), encode_control(Kind.DONE, offset=STREAM_BYTES - 1)), LOST),
    "done.less": (_done_with_less, LOST),
    "done.undigested": (_done_without_digest, LOST),
    "digest.other": (_other_digest, WRONG),
    "digest.less": (_digest_of_less, LOST),
    "digest.unasked": (_says(encode_control(Kind.DIGEST, offset=STREAM_BYTES, payload=b"x")), LOST),
    "data": (_says(encode_control(Kind.DATA, payload=b"x")), LOST),
    "beat": (_says(encode_control(Kind.BEAT)), LOST),
    "bye": (_says(encode_control(Kind.BYE)), LOST),
    "reason.long": (_head(Kind.REFUSAL, REASON_BYTES_MAX + 1), LOST),
    "reason": (_control_characters, FAILED),
    "answer.window": (_answers(Answer(Verdict.ACCEPTED, 0, RECEIVER, 1)), REFUSED),
    "answer.receiver": (_answers(Answer(Verdict.ACCEPTED, 0, bytes(8), 64 * MIB)), REFUSED),
    "answer.features": (_answers(Answer(Verdict.ACCEPTED, 1 << 15, RECEIVER, 64 * MIB)), REFUSED),
    "other.receiver": (_other_receiver, LOST),
    "window.huge": (_huge_window, LOST),
    "reads.nothing": (_reads_nothing, LOST),
    "writes.nothing": (_writes_nothing, LOST),
    "shown": (_shown, LOST),
    "flood.ack": (_flood(_ack()), LOST),
    "flood.resend": (_flood(encode_control(Kind.RESEND, 0)), LOST),
    "reset": (_reset, LOST),
    "half.close": (_half_close, LOST),
    "closes": (_closes_at_once, REFUSED),
    **{f"garbage.{number}": (_garbage, LOST | REFUSED) for number in range(6)},
}


class Played:
    """A lie on a thread of its own. `wrong`: what was wrong with how tx took it."""

    def __init__(self, name: str, key: bytes | None, seed: int) -> None:
        self.tx, self.wrong = Spoilt(key, seed), ""
        self._lie, self.statuses = LIES[name]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._lie(self.tx)
        except Closed:
            self.wrong = "" if self.tx.told else "it was closed before the lie was told"
        except (AssertionError, TimeoutError) as error:
            self.wrong = str(error) or repr(error)
        finally:
            self.tx.close()

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join()
