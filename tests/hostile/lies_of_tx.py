"""What a hostile tx can do to an rx once it has been let in, each under its name.

A lie gets the stream that it may spoil. What it returns is the leg that rx must close for it, or None if rx may go on.
"""

from collections.abc import Callable
from random import Random

import xxhash

from tests.e2e.helpers import KIB, MIB
from tests.hostile.peer import Closed, Line, Refused, as_tx, greeting
from viamillipede.config import FRAME_BYTES_MAX, FRAMES_MAX, LEGS_MAX, REASON_BYTES_MAX
from viamillipede.protocol.wire import (
    FEATURE_CHECKSUM,
    HEADER_BYTES,
    Kind,
    Verdict,
    decode_ack_untrusted,
    encode_control,
    encode_header,
    encode_waits,
)

WINDOW = 4 * MIB
HUGE = (1 << 64) - 1
FLOOD = 20_000
BEAT, LEAVE, BYE = (encode_control(kind) for kind in (Kind.BEAT, Kind.LEAVE, Kind.BYE))


def data(seq: int, offset: int, payload: bytes, hashed: bool = True) -> bytes:
    """A frame."""
    payload_hash = xxhash.xxh3_64_intdigest(payload) if hashed else 0
    return encode_header(Kind.DATA, len(payload), seq, offset, payload_hash) + payload


def end(seq: int, offset: int) -> bytes:
    """The end frame."""
    return encode_control(Kind.END, seq, offset)


class Spoilt:
    """A stream of its own. `sent`: what of it may come out, as a whole or its beginning."""

    def __init__(self, port: int, key: bytes | None, name: str, seed: int) -> None:
        self.chance = Random(seed)
        self._port, self._key, self.name = port, key, name
        self._session, self._secret = self.chance.randbytes(16), b""
        self.lines: list[Line] = []
        self.sent = b""

    def leg(self, number: int = 0, window_bytes: int = WINDOW, features: int = 0) -> Line:
        """One more leg. Refused, Closed."""
        greets = greeting(
            self._session, number, name=self.name, window_bytes=window_bytes, features=features
        )  # fmt: skip
        line = as_tx(self._port, self._key, greets, self._secret)
        self._secret = line.secret
        self.lines.append(line)
        return line

    def begun(self) -> Line:
        """A leg that has brought frame 0, b"begun"."""
        line = self.leg()
        self.sent = b"begun"
        line.say(data(0, 0, b"begun"))
        return line

    def close(self) -> None:
        """Let go of it."""
        for line in self.lines:
            line.sock.close()


Lie = Callable[[Spoilt], Line | None]


def _head(kind: Kind, length: int, seq: int = 1, offset: int = 5) -> Lie:
    """A header that cannot be, behind a frame that can."""

    def lie(stream: Spoilt) -> Line:
        line = stream.begun()
        line.head(kind, length, seq, offset)
        return line

    return lie


def _says(message: bytes) -> Lie:
    """A message that cannot be."""

    def lie(stream: Spoilt) -> Line:
        line = stream.begun()
        line.say(message)
        return line

    return lie


def _flood(message: bytes) -> Lie:
    """A message again and again, and rx's words are not read."""

    def lie(stream: Spoilt) -> None:
        line = stream.begun()
        for _ in range(FLOOD // 100):
            line.say(message * 100)

    return lie


def _contradicts(first: bytes, second: bytes) -> Lie:
    """Two legs say what cannot both be; of a frame that is here already nobody looks at a second copy."""

    def lie(stream: Spoilt) -> None:
        one, other = stream.begun(), stream.leg(1)
        one.say(first)
        while not decode_ack_untrusted(*one.until(Kind.ACK)).ranges:
            pass
        other.say(second + BEAT)

    return lie


def _other_length(stream: Spoilt) -> Line:
    """A frame that has begun to arrive is announced anew with another length."""
    one, other = stream.begun(), stream.leg(1)
    one.head(Kind.DATA, 100, 1, 5)
    other.head(Kind.DATA, 101, 1, 5)
    return one if one.is_closed(1) else other


def _overlaps(stream: Spoilt) -> None:
    line = stream.begun()
    line.say(data(2, 15, b"x" * 10) + data(3, 20, b"x" * 10))
    line.until(Kind.REFUSAL)


def _end_before_frames(stream: Spoilt) -> None:
    line = stream.begun()
    stream.sent += b"y" * 5 + b"late!"
    line.say(data(2, 10, b"late!") + data(1, 5, b"y" * 5) + end(2, 10) + end(3, 15) + end(4, 16))


def _damaged_header(stream: Spoilt) -> Line:
    line = stream.begun()
    header = bytearray(data(1, 5, b"x"))
    header[stream.chance.randrange(HEADER_BYTES)] ^= 0x40
    line.raw(bytes(header) if line.sealer is None else line.sealer.opening(bytes(header[:HEADER_BYTES])))
    return line


def _other_kind(stream: Spoilt) -> Line:
    line = stream.begun()
    header = bytearray(encode_control(Kind.BEAT))
    header[2] = 99
    header[-8:] = xxhash.xxh3_64_digest(bytes(header[:-8]))
    line.say(bytes(header))
    return line


def _damaged_control(stream: Spoilt) -> Line:
    line = stream.begun()
    line.head(Kind.WAITS, 48)
    line.part(bytes(48))
    return line


def _half_a_frame(stream: Spoilt, length: int = 100 * KIB) -> Line:
    line = stream.begun()
    line.head(Kind.DATA, length, 1, 5)
    stream.sent += b"z" * 1000
    line.part(b"z" * 1000) if line.sealer is None else line.raw(b"")
    return line


def _half_close(stream: Spoilt) -> Line:
    line = _half_a_frame(stream)
    line.half_close()
    return line


def _reset(stream: Spoilt) -> None:
    _half_a_frame(stream).reset()


def _resend_flood(stream: Spoilt) -> None:
    """Each copy is damaged, each is asked for again, and nobody listens."""
    line = stream.leg(features=FEATURE_CHECKSUM)
    for _ in range(FLOOD // 100):
        line.say(data(0, 0, b"x", hashed=False) * 100)


def _tiny_window(stream: Spoilt) -> Line:
    line = stream.leg(window_bytes=1)
    stream.sent = b"a"
    line.say(data(0, 0, b"a"))
    line.until(Kind.ACK)
    line.say(data(1, 1, b"more than one"))
    return line


def _huge_window(stream: Spoilt) -> Line:
    line = stream.leg(window_bytes=HUGE)
    line.head(Kind.DATA, 1, 1, 1 << 40)
    return line


def _most_of_the_window(stream: Spoilt) -> None:
    """Frames with holes: as much as rx can be made to hold, begun on many legs and never ended."""
    for number in range(16):
        line = stream.leg(number)
        line.head(Kind.DATA, 200 * KIB, 1 + number, 1000 + number * 200 * KIB)
        line.part(bytes(100 * KIB if line.sealer is None else 128 * KIB))


def _small_frames(stream: Spoilt) -> None:
    """Frames of a byte, all but the first one: as many as there may be at a time."""
    line = stream.leg()
    for start in range(1, FRAMES_MAX, 128):
        line.say(b"".join(data(seq, seq, b"x") for seq in range(start, min(FRAMES_MAX, start + 128))))


def _takes_over(stream: Spoilt) -> Line:
    """The same leg again and again."""
    first = stream.begun()
    for _ in range(50):
        stream.leg()
    return first


def _leg_number(stream: Spoilt) -> None:
    stream.begun()
    for number in (LEGS_MAX, (1 << 32) - 1):
        try:
            stream.leg(number)
        except Refused as refused:
            assert refused.args[0] is Verdict.MALFORMED
        else:
            raise AssertionError(f"leg {number} was let in")


def _garbage(stream: Spoilt) -> Line | None:
    """Any number of right bytes, then others."""
    stream.sent = b"0123456789"
    right = data(0, 0, b"0123") + BEAT + encode_waits([1] * 6) + data(1, 4, b"456789")
    cut = stream.chance.randrange(len(right))
    line = stream.leg()
    line.raw(right[:cut] if line.sealer is None else line.sealer.messages(right)[:cut])
    noise = stream.chance.randbytes(400)
    for payload, place in ((4, HEADER_BYTES + 4), (6, len(right))):
        if line.sealer is None and place - payload <= cut < place:  # it stands in the place of a payload: it was sent
            begins = stream.sent.index(b"0" if payload == 4 else b"4") + payload - (place - cut)
            stream.sent = stream.sent[:begins] + noise[: place - cut]
    line.raw(noise)
    return line


LIES: dict[str, Lie] = {
    "payload.4G": _head(Kind.DATA, (1 << 32) - 1),
    "payload.max": _head(Kind.DATA, FRAME_BYTES_MAX + 1),
    "payload.none": _head(Kind.DATA, 0),
    "frame.16M": _head(Kind.DATA, FRAME_BYTES_MAX),
    "offset.huge": _head(Kind.DATA, 1, 1, HUGE),
    "offset.past": _head(Kind.DATA, 1, 1, 0),
    "offset.window": _head(Kind.DATA, 2, 2, 5 + WINDOW - 1),
    "seq.huge": _head(Kind.DATA, 1, HUGE, 5),
    "seq.far": _head(Kind.DATA, 1, 1 + FRAMES_MAX, 5),
    "reason.long": _head(Kind.ABORT, REASON_BYTES_MAX + 1),
    "sum.long": _head(Kind.SUM, 1 << 20),
    "waits.long": _head(Kind.WAITS, 49),
    "beat.long": _head(Kind.BEAT, 1),
    "ack": _says(encode_control(Kind.ACK, payload=bytes(32))),
    "done": _says(encode_control(Kind.DONE, offset=5)),
    "bye": _says(BYE),
    "sum": _says(encode_control(Kind.SUM, payload=b"x" * 16)),
    "legs": _says(encode_control(Kind.LEGS, HUGE, 1, b"\xff\xff" * 64)),
    "end.elsewhere": _says(end(1, 6)),
    "end.twice": _contradicts(end(3, 15), end(3, 16)),
    "frame.twice": _contradicts(data(2, 15, b"one"), encode_header(Kind.DATA, 4, 2, 15, 0) + b"four"),
    "frame.other": _contradicts(data(2, 15, b"one"), data(2, 16, b"two")),
    "frame.length": _other_length,
    "overlap": _overlaps,
    "end.early": _end_before_frames,
    "header.damaged": _damaged_header,
    "header.kind": _other_kind,
    "control.damaged": _damaged_control,
    "half.close": _half_close,
    "reset": _reset,
    "flood.beat": _flood(BEAT),
    "flood.leave": _flood(LEAVE),
    "flood.waits": _flood(encode_waits([HUGE] * 6)),
    "flood.copies": _flood(data(0, 0, b"begun")),
    "flood.resend": _resend_flood,
    "window.tiny": _tiny_window,
    "window.huge": _huge_window,
    "window.full": _most_of_the_window,
    "frames.small": _small_frames,
    "leg.again": _takes_over,
    "leg.number": _leg_number,
    **{f"garbage.{number}": _garbage for number in range(12)},
}


def tell(stream: Spoilt, lie: Lie) -> str:
    """Tell it; what is wrong with how rx takes that, or ""."""
    try:
        must_close = lie(stream)
    except Closed:  # in the middle of it
        return ""
    if must_close is not None and not must_close.is_closed():
        return "the leg was not closed"
    return ""
