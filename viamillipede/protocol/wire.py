"""Everything that crosses a leg, byte by byte; big-endian, fixed sizes (viamillipede.7, WIRE FORMAT).

A leg opens with a greeting from tx and an answer from rx; if rx has dialled, with a call from rx and
tx's answer to that before. After that both directions carry messages: a header, then `length` bytes
of payload. Every call, greeting, answer and header ends in a hash of itself, which is checked before
anything in it is believed: one flipped bit in a length would otherwise stall a leg for ever.

greeting, 136 bytes               answer, 40 bytes                  header, 40 bytes
offset bytes field                offset bytes field                offset bytes field
     0     4 magic b"vmlp"             0     4 magic b"vmlp"             0     2 magic b"vm"
     4     1 version                   4     1 version                   2     1 kind (Kind)
     5     1 opening (Opening)         5     1 verdict (Verdict)         3     1 reserved, 0
     6     2 features (bits)           6     2 features of the session   4     4 length of the payload
     8    16 session                   8     8 receiver                  8     8 seq
    24     8 receiver, or 0           16     8 window, bytes            16     8 offset
    32     4 leg                      24     8 reserved, 0              24     8 payload_hash, xxh3-64
    36     4 checkphrase              32     8 hash, xxh3-64 of 0..32   32     8 header_hash, xxh3-64 of 0..32
    40     8 window, bytes
    48     8 frame, bytes at most     call, 40 bytes
    56     8 reserved, 0              offset bytes field                offset bytes field
    64    64 name, filled with 0           0     4 magic b"vmlp"            16     4 leg
   128     8 hash, xxh3-64 of 0..128       4     1 version                  20     4 rank of the path
                                           5     1 opening (Opening)        24     4 ranks: how many paths
                                           6     2 reserved, 0              28     4 checkphrase
                                           8     8 receiver                 32     8 hash, xxh3-64 of 0..32
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import xxhash

from viamillipede.config import (
    ACK_RANGES_MAX,
    DIGEST_BYTES_MAX,
    FRAME_BYTES_MAX,
    KIB,
    LEGS_MAX,
    NAME,
    NAME_BYTES_MAX,
    RANKS_MAX,
    REASON_BYTES_MAX,
    WINDOW_BYTES_MIN,
)
from viamillipede.errors import FrameError

VERSION = 3
MAGIC = b"vmlp"
HEADER_MAGIC = b"vm"
FEATURE_CHECKSUM = 1  # data frames carry the hash of their payload, rx verifies it before delivery
FEATURE_XXH3, FEATURE_SHA256 = 2, 4  # both sides compare this digest of the whole stream before success
FEATURES_KNOWN = FEATURE_CHECKSUM | FEATURE_XXH3 | FEATURE_SHA256

_GREETING = struct.Struct(f"!4sBBH16s8sI4sQQQ{NAME_BYTES_MAX}s")
_ANSWER = struct.Struct("!4sBBH8sQQ")
_CALL = struct.Struct("!4sBBH8sIII4s")
_HEADER = struct.Struct("!2sBBIQQQ")
_HASH = struct.Struct("!Q")
_ACK = struct.Struct("!QQQQ")
_RANGE = struct.Struct("!QQ")
_TARGET = struct.Struct("!H")
_WAITS = struct.Struct("!QQQQQQ")

TAG_BYTES = 16  # behind each record of a sealed leg (sealing.py)
RECORD_BYTES = 128 * KIB  # of a payload in one record: so much is held back until its tag is here, for each leg
PREFIX_BYTES = 5  # magic and version stand in the same place in every version
GREETING_BYTES = _GREETING.size + _HASH.size
ANSWER_BYTES = _ANSWER.size + _HASH.size
CALL_BYTES = _CALL.size + _HASH.size
HEADER_BYTES = _HEADER.size + _HASH.size
CONTROL_BYTES_MAX = _ACK.size + ACK_RANGES_MAX * _RANGE.size
# Wire facts: changing one changes VERSION.
assert (GREETING_BYTES, ANSWER_BYTES, CALL_BYTES, HEADER_BYTES) == (136, 40, 40, 40)
assert REASON_BYTES_MAX <= CONTROL_BYTES_MAX and RANKS_MAX * _TARGET.size <= REASON_BYTES_MAX


class Opening(IntEnum):
    """What whoever dials says first; the byte behind the prefix."""

    GREETING = 0  # from tx
    CALL = 1  # from rx
    HELLO = 2  # from whoever dials and has a key; what follows is sealed (hello.py)


OPENING_BYTES = {Opening.GREETING: GREETING_BYTES, Opening.CALL: CALL_BYTES}


class Kind(IntEnum):
    """What a message is. Below 16: from tx. From 16: from rx."""

    DATA = 1  # frame `seq`, the stream's bytes from `offset` on
    END = 2  # frame `seq`, empty; `offset` is the length of the whole stream
    ABORT = 3  # tx gives up; the payload says why
    BYE = 4  # tx has seen DONE and leaves
    BEAT = 5  # tx has nothing to send on this leg, and is alive
    LEGS = 6  # how many legs tx wants of an rx that dials; `seq`: the highest is the latest; see encode_legs
    LEAVE = 7  # tx closes this leg, which it does not need any more
    SUM = 8  # the answer to DIGEST: tx's digest
    WAITS = 9  # where the time went so far, as tx sees it; see Waits
    ACK = 16  # `seq`: all frames below arrived; `offset`: bytes written; see Ack for the payload
    RESEND = 17  # the copy of frame `seq` that this leg carried is no use: send it again
    DONE = 18  # the whole stream of `offset` bytes was accepted by the output
    REFUSAL = 19  # rx gives up; the payload says why
    DIGEST = 20  # rx's digest of the whole stream, of `offset` bytes


FROM_TX = frozenset({Kind.DATA, Kind.END, Kind.ABORT, Kind.BYE, Kind.BEAT, Kind.LEGS, Kind.LEAVE, Kind.SUM, Kind.WAITS})
FROM_RX = frozenset({Kind.ACK, Kind.RESEND, Kind.DONE, Kind.REFUSAL, Kind.DIGEST})


class Verdict(IntEnum):
    """rx's word on a greeting, or tx's on a call."""

    ACCEPTED = 0
    VERSION = 1  # it speaks another version
    CHECKPHRASE = 2  # the checkphrases differ
    BUSY = 3  # rx serves another session, tx another receiver
    UNKNOWN = 4  # tx speaks of a receiver that is not this process: rx was started anew
    MALFORMED = 5  # a greeting or a call whose values cannot be
    ROLE = 6  # a call to an rx, or a greeting to a tx: both have the same role
    NAME = 7  # rx does not take streams of this name
    KEYLESS = 8  # a hello to somebody who has no key
    KEYED = 9  # a greeting or a call in clear to somebody who has a key
    KEY = 10  # a hello with another key
    LATER = 11  # too many have come from there with another key


class Waiting(IntEnum):
    """What rx waits for, in an acknowledgement."""

    FRAME = 0
    OUTPUT = 1


class ImpossibleOpening(FrameError):
    """A greeting or a call: undamaged, of our version, and yet with values that this version does not know."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """The first bytes of a leg, from tx. `receiver` is zero until a receiver has answered once."""

    session: bytes
    leg: int
    receiver: bytes
    checkphrase: bytes
    features: int
    window_bytes: int
    frame_bytes: int
    name: str = ""

    def encode(self) -> bytes:
        """GREETING_BYTES bytes."""
        fields = _GREETING.pack(
            MAGIC, VERSION, Opening.GREETING, self.features, self.session, self.receiver,
            self.leg, self.checkphrase, self.window_bytes, self.frame_bytes, 0,
            self.name.encode(),
        )  # fmt: skip
        return fields + _HASH.pack(xxhash.xxh3_64_intdigest(fields))


@dataclass(frozen=True, slots=True)
class Call:
    """The first bytes of a connection that rx has dialled: would tx please greet, for this leg.

    rank: which of rx's `ranks` paths to tx this is, in the order of preference, from 0.
    """

    receiver: bytes
    leg: int
    rank: int
    ranks: int
    checkphrase: bytes

    def encode(self) -> bytes:
        """CALL_BYTES bytes."""
        fields = _CALL.pack(
            MAGIC, VERSION, Opening.CALL, 0, self.receiver, self.leg, self.rank, self.ranks, self.checkphrase
        )
        return fields + _HASH.pack(xxhash.xxh3_64_intdigest(fields))


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a greeting. `receiver` names the rx process, so that another one is noticed.

    tx answers a call with the same bytes: `receiver` is who has called, `window_bytes` tx's own.
    """

    verdict: Verdict
    features: int = 0
    receiver: bytes = bytes(8)
    window_bytes: int = 0

    def encode(self) -> bytes:
        """ANSWER_BYTES bytes."""
        fields = _ANSWER.pack(MAGIC, VERSION, self.verdict, self.features, self.receiver, self.window_bytes, 0)
        return fields + _HASH.pack(xxhash.xxh3_64_intdigest(fields))


@dataclass(frozen=True, slots=True)
class Header:
    """The head of a message; its fields mean what `Kind` says."""

    kind: Kind
    length: int
    seq: int
    offset: int
    payload_hash: int


@dataclass(frozen=True, slots=True)
class Ack:
    """The whole state of a receiver, so that a lost acknowledgement does not matter.

    arrived_next: every frame below has arrived. written_bytes: accepted by the output.
    ranges: half-open ranges of frames beyond arrived_next that arrived, ascending; the lowest
    ACK_RANGES_MAX of them. waiting_seq: the frame that rx waits for, when it waits for one.
    output_us, core_us: for how long rx has waited for its output so far, and used all of a core.
    """

    arrived_next: int
    written_bytes: int
    waiting: Waiting
    waiting_seq: int
    ranges: tuple[tuple[int, int], ...] = ()
    output_us: int = 0
    core_us: int = 0

    def encode(self) -> bytes:
        """Header and payload of the acknowledgement."""
        payload = _ACK.pack(self.waiting, self.waiting_seq, self.output_us, self.core_us)
        payload += b"".join(_RANGE.pack(*r) for r in self.ranges)
        return encode_control(Kind.ACK, self.arrived_next, self.written_bytes, payload)


def encode_header(kind: Kind, length: int, seq: int, offset: int, payload_hash: int) -> bytes:
    """HEADER_BYTES bytes."""
    fields = _HEADER.pack(HEADER_MAGIC, kind, 0, length, seq, offset, payload_hash)
    return fields + _HASH.pack(xxhash.xxh3_64_intdigest(fields))


def payload_bytes(header: bytes | bytearray | memoryview) -> int:
    """How much payload a header announces; to be believed once the header was checked."""
    return int.from_bytes(header[4:8], "big")


def sealed_bytes(length: int) -> int:
    """How long a message with `length` bytes of payload is on a sealed leg."""
    return HEADER_BYTES + TAG_BYTES + length + TAG_BYTES * -(-length // RECORD_BYTES)


def encode_control(kind: Kind, seq: int = 0, offset: int = 0, payload: bytes = b"") -> bytes:
    """A whole message with a small payload, which is always hashed."""
    assert len(payload) <= CONTROL_BYTES_MAX
    return encode_header(kind, len(payload), seq, offset, xxhash.xxh3_64_intdigest(payload)) + payload


def encode_reason(kind: Kind, reason: str) -> bytes:
    """ABORT or REFUSAL, with as much of the reason as fits REASON_BYTES_MAX of UTF-8; it may have several lines."""
    return encode_control(kind, payload=reason.encode(errors="replace")[:REASON_BYTES_MAX])


def encode_legs(number: int, moving: bool, targets: Sequence[int]) -> bytes:
    """LEGS, the `number`-th that is not the same: how many legs are wanted on each path of rx, by rank.

    moving: legs whose path is dead shall dial the others.
    """
    assert 1 <= len(targets) <= RANKS_MAX and all(1 <= target <= LEGS_MAX for target in targets)
    return encode_control(Kind.LEGS, number, int(moving), b"".join(_TARGET.pack(target) for target in targets))


def decode_legs_untrusted(payload: bytes | bytearray | memoryview) -> list[int]:
    """The targets in the checked payload of LEGS. FrameError if one cannot be."""
    targets = [target for (target,) in _TARGET.iter_unpack(payload)]
    if not all(1 <= target <= LEGS_MAX for target in targets):
        raise FrameError("a wish for a number of legs that cannot be")
    return targets


def decode_reason(payload: bytes | bytearray | memoryview) -> str:
    """The reason as text that is safe to print: nothing but line ends moves a cursor."""
    text = bytes(payload).decode(errors="replace")
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def encode_waits(waits_us: Sequence[int]) -> bytes:
    """WAITS: microseconds in the order of waits.Wait."""
    return encode_control(Kind.WAITS, payload=_WAITS.pack(*waits_us))


def decode_waits(payload: bytes | bytearray | memoryview) -> tuple[int, ...]:
    """The microseconds in the checked payload of WAITS."""
    return _WAITS.unpack(payload)


def check_prefix_untrusted(data: bytes | bytearray) -> int:
    """The version in the first PREFIX_BYTES of a greeting or an answer. FrameError if the magic is wrong."""
    if data[:4] != MAGIC[: len(data)]:
        raise FrameError("not viamillipede")
    return data[4] if len(data) > 4 else VERSION


def _check_hash_untrusted(data: bytes | bytearray | memoryview, fields_bytes: int, what: str) -> None:
    if _HASH.unpack_from(data, fields_bytes)[0] != xxhash.xxh3_64_intdigest(data[:fields_bytes]):
        raise FrameError(f"damaged {what}: its hash is wrong")


def decode_greeting_untrusted(data: bytes | bytearray) -> Greeting:
    """GREETING_BYTES bytes of this VERSION. FrameError or ImpossibleOpening if they cannot be one."""
    if check_prefix_untrusted(data) != VERSION:
        raise FrameError("another version's greeting")
    _check_hash_untrusted(data, _GREETING.size, "greeting")
    _, _, opening, features, session, receiver, leg, checkphrase, window, frame, _, named = _GREETING.unpack_from(data)
    if opening != Opening.GREETING:
        raise FrameError("not a greeting")
    if features & ~FEATURES_KNOWN or not any(session) or not 1 <= frame <= FRAME_BYTES_MAX or window < frame:
        raise ImpossibleOpening("a greeting with values that cannot be")
    name = named.rstrip(b"\0").decode("ascii", errors="replace")
    if name and not NAME.fullmatch(name):
        raise ImpossibleOpening("a greeting with a name that cannot be")
    return Greeting(session, leg, receiver, checkphrase, features, window, frame, name)


def decode_call_untrusted(data: bytes | bytearray) -> Call:
    """CALL_BYTES bytes of this VERSION. FrameError or ImpossibleOpening if they cannot be one."""
    if check_prefix_untrusted(data) != VERSION:
        raise FrameError("another version's call")
    _check_hash_untrusted(data, _CALL.size, "call")
    _, _, opening, _, receiver, leg, rank, ranks, checkphrase = _CALL.unpack_from(data)
    if opening != Opening.CALL or not any(receiver) or leg >= LEGS_MAX or not rank < ranks <= RANKS_MAX:
        raise ImpossibleOpening("a call with values that cannot be")
    return Call(receiver, leg, rank, ranks, checkphrase)


def decode_answer_untrusted(data: bytes | bytearray) -> Answer:
    """ANSWER_BYTES bytes of this VERSION. FrameError if they cannot be an answer."""
    _check_hash_untrusted(data, _ANSWER.size, "answer")
    _, _, verdict, features, receiver, window, _ = _ANSWER.unpack_from(data)
    accepted = verdict == Verdict.ACCEPTED
    if features & ~FEATURES_KNOWN or verdict not in Verdict.__members__.values():
        raise FrameError("an answer with values that cannot be")
    if accepted and (window < WINDOW_BYTES_MIN or not any(receiver)):
        raise FrameError("an acceptance with values that cannot be")
    return Answer(Verdict(verdict), features, receiver, window)


def decode_header_untrusted(data: bytes | bytearray | memoryview, allowed: frozenset[Kind]) -> Header:
    """HEADER_BYTES bytes. FrameError if the hash is wrong or the values cannot be.

    A kind outside `allowed`, a payload longer than its kind may have, and an END with a payload
    are refused here, so nobody behind this function needs to ask again.
    """
    _check_hash_untrusted(data, _HEADER.size, "header")
    magic, number, _, length, seq, offset, payload_hash = _HEADER.unpack_from(data)
    if magic != HEADER_MAGIC or number not in allowed:
        raise FrameError(f"a message of unknown kind {number}")
    kind = Kind(number)
    if kind is Kind.DATA:
        possible = 1 <= length <= FRAME_BYTES_MAX
    elif kind is Kind.ACK:
        possible = _ACK.size <= length <= CONTROL_BYTES_MAX and (length - _ACK.size) % _RANGE.size == 0
    elif kind in (Kind.ABORT, Kind.REFUSAL):
        possible = length <= REASON_BYTES_MAX
    elif kind in (Kind.SUM, Kind.DIGEST):
        possible = 1 <= length <= DIGEST_BYTES_MAX
    elif kind is Kind.WAITS:
        possible = length == _WAITS.size
    elif kind is Kind.LEGS:
        possible = 1 <= length // _TARGET.size <= RANKS_MAX and length % _TARGET.size == 0
    else:
        possible = length == 0
    if not possible:
        raise FrameError(f"a message {kind.name} of {length} bytes cannot be")
    return Header(kind, length, seq, offset, payload_hash)


def decode_ack_untrusted(header: Header, payload: bytes | bytearray | memoryview) -> Ack:
    """The acknowledgement in a checked payload. FrameError if its ranges cannot be."""
    waiting, waiting_seq, output_us, core_us = _ACK.unpack_from(payload)
    ranges = tuple(_RANGE.iter_unpack(payload[_ACK.size :]))
    lowest = header.seq
    for start, end in ranges:
        if not lowest < start < end:
            raise FrameError("an acknowledgement with ranges that cannot be")
        lowest = end
    if waiting not in (Waiting.FRAME, Waiting.OUTPUT):
        raise FrameError("an acknowledgement that waits for the unknown")
    return Ack(header.seq, header.offset, Waiting(waiting), waiting_seq, ranges, output_us, core_us)
