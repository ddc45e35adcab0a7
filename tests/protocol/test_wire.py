"""The codec: what was encoded comes back, what was damaged does not, and version 1 never changes."""

import random
import struct
import tracemalloc
from pathlib import Path

import pytest
import xxhash
from hypothesis import example, given
from hypothesis import strategies as st

from viamillipede.config import ACK_RANGES_MAX, FRAME_BYTES_MAX, MIB, REASON_BYTES_MAX, WINDOW_BYTES_MIN
from viamillipede.errors import FrameError
from viamillipede.protocol.wire import (
    ANSWER_BYTES,
    CONTROL_BYTES_MAX,
    FROM_RX,
    FROM_TX,
    GREETING_BYTES,
    HEADER_BYTES,
    MAGIC,
    PREFIX_BYTES,
    VERSION,
    Ack,
    Answer,
    ControlDecoder,
    Greeting,
    Header,
    Kind,
    Verdict,
    Waiting,
    check_prefix_untrusted,
    decode_ack_untrusted,
    decode_answer_untrusted,
    decode_greeting_untrusted,
    decode_header_untrusted,
    decode_reason,
    encode_control,
    encode_header,
    encode_reason,
)

U64 = st.integers(0, (1 << 64) - 1)
GOLDEN = Path(__file__).parents[1] / "data" / "frames_v1.bin"
GREETING = Greeting(bytes(range(16)), 7, b"receiver", b"word", 1, 1 << 26, 1 << 20)
ANSWER = Answer(Verdict.BUSY, 1, b"receiver", 1 << 25)
EVERY_KIND = FROM_TX | FROM_RX


def signed(fields: bytes) -> bytes:
    """Fields with the hash that makes them believed."""
    return fields + struct.pack("!Q", xxhash.xxh3_64_intdigest(fields))


def flipped(data: bytes, bit: int) -> bytes:
    """`data` with one bit turned over."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


greetings = st.builds(
    lambda session, leg, receiver, checkphrase, features, frame, more: Greeting(
        session, leg, receiver, checkphrase, features, frame + more, frame
    ),
    st.binary(min_size=16, max_size=16).filter(any),
    st.integers(0, (1 << 32) - 1),
    st.binary(min_size=8, max_size=8),
    st.binary(min_size=4, max_size=4),
    st.integers(0, 1),
    st.integers(1, FRAME_BYTES_MAX),
    st.integers(0, 1 << 40),
)
answers = st.builds(
    Answer,
    st.sampled_from(Verdict),
    st.integers(0, 1),
    st.binary(min_size=8, max_size=8).filter(any),
    st.integers(WINDOW_BYTES_MIN, 1 << 50),
)


@st.composite
def acks(draw: st.DrawFn) -> Ack:
    """Acknowledgements that rx could send."""
    lowest = arrived_next = draw(st.integers(0, 1 << 40))
    ranges = []
    for gap, length in draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=12)):
        ranges.append((lowest + gap, lowest + gap + length))
        lowest += gap + length
    return Ack(arrived_next, draw(U64), draw(st.sampled_from(Waiting)), draw(U64), tuple(ranges))


# Greeting and answer ------------------------------------------------------------------------------------


@given(greetings)
def test_a_greeting_comes_back(greeting: Greeting) -> None:
    data = greeting.encode()
    assert len(data) == GREETING_BYTES
    assert check_prefix_untrusted(data) == VERSION
    assert decode_greeting_untrusted(data) == greeting
    assert decode_greeting_untrusted(bytearray(data)) == greeting


@given(answers)
def test_an_answer_comes_back(answer: Answer) -> None:
    assert len(answer.encode()) == ANSWER_BYTES
    assert decode_answer_untrusted(answer.encode()) == answer


@pytest.mark.parametrize(
    "answer",
    [Answer(Verdict.ACCEPTED, 0, b"receiver", WINDOW_BYTES_MIN - 1), Answer(Verdict.ACCEPTED, 0, bytes(8), MIB)],
)
def test_an_acceptance_without_a_window_or_a_name_is_refused(answer: Answer) -> None:
    with pytest.raises(FrameError, match="acceptance with values that cannot be"):
        decode_answer_untrusted(answer.encode())


def test_every_flipped_bit_of_a_greeting_is_refused() -> None:
    for bit in range(8 * GREETING_BYTES):
        with pytest.raises(FrameError):
            decode_greeting_untrusted(flipped(GREETING.encode(), bit))


def test_every_flipped_bit_of_an_answer_is_refused() -> None:
    for bit in range(8 * ANSWER_BYTES):
        with pytest.raises(FrameError):
            decode_answer_untrusted(flipped(ANSWER.encode(), bit))


def raw_greeting(
    magic: bytes = MAGIC,
    version: int = VERSION,
    features: int = 0,
    session: bytes = b"s" * 16,
    window: int = 100,
    frame: int = 10,
) -> bytes:
    """A greeting with a right hash, whatever it says."""
    return signed(
        struct.pack("!4sBBH16s8sI4sQQQ", magic, version, 0, features, session, bytes(8), 0, bytes(4), window, frame, 0)
    )


def test_the_raw_greeting_of_these_tests_is_a_good_one() -> None:
    assert decode_greeting_untrusted(raw_greeting()).window_bytes == 100
    assert decode_greeting_untrusted(raw_greeting(window=10)).frame_bytes == 10
    assert decode_greeting_untrusted(raw_greeting(window=1 << 63, frame=FRAME_BYTES_MAX))


@pytest.mark.parametrize(
    "data",
    [
        raw_greeting(magic=b"HTTP"),
        raw_greeting(version=VERSION + 1),
        raw_greeting(version=0),
        raw_greeting(features=2),
        raw_greeting(features=0x8001),
        raw_greeting(session=bytes(16)),
        raw_greeting(frame=0),
        raw_greeting(frame=FRAME_BYTES_MAX + 1, window=1 << 30),
        raw_greeting(frame=101),
    ],
)
def test_a_greeting_of_impossible_values_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        decode_greeting_untrusted(data)


@pytest.mark.parametrize(("verdict", "features"), [(len(Verdict), 0), (255, 0), (0, 2)])
def test_an_answer_of_impossible_values_is_refused(verdict: int, features: int) -> None:
    with pytest.raises(FrameError):
        decode_answer_untrusted(signed(struct.pack("!4sBBH8sQQ", MAGIC, VERSION, verdict, features, bytes(8), 0, 0)))


def test_a_stranger_is_known_by_the_first_byte_that_is_not_ours() -> None:
    data = raw_greeting(version=9)
    for count in range(PREFIX_BYTES):
        assert check_prefix_untrusted(data[:count]) == VERSION  # nothing wrong so far
        with pytest.raises(FrameError):
            check_prefix_untrusted((data[:count] + b"G")[: len(MAGIC)] if count < len(MAGIC) else b"vmlG" + data)
    assert check_prefix_untrusted(data[:PREFIX_BYTES]) == 9


# Headers ------------------------------------------------------------------------------------------------


def possible(kind: Kind, length: int) -> bool:
    """What the manual says of the length of a message."""
    if kind is Kind.DATA:
        return 0 < length <= 16 << 20
    if kind is Kind.ACK:
        return length in range(16, 16 + 256 * 16 + 1, 16)
    if kind is Kind.LEGS:
        return length in range(2, 128 + 1, 2)
    return length <= (512 if kind in (Kind.ABORT, Kind.REFUSAL) else 0)


@given(st.sampled_from(Kind), st.integers(0, 20 << 20) | st.integers(0, 5000), U64, U64, U64)
def test_a_header_comes_back_if_its_length_is_possible(kind: Kind, length: int, seq: int, at: int, hash_: int) -> None:
    data = encode_header(kind, length, seq, at, hash_)
    assert len(data) == HEADER_BYTES
    if possible(kind, length):
        assert decode_header_untrusted(data, EVERY_KIND) == Header(kind, length, seq, at, hash_)
    else:
        with pytest.raises(FrameError):
            decode_header_untrusted(data, EVERY_KIND)


@pytest.mark.parametrize("kind", Kind)
def test_the_limits_of_each_length(kind: Kind) -> None:
    lengths = [0, 1, 2, 3, 15, 16, 17, 32, 127, 128, 129, 511, 512, 513, CONTROL_BYTES_MAX, CONTROL_BYTES_MAX + 16]
    for length in [*lengths, 16 << 20]:
        for tried in (length, length + 1):
            data = encode_header(kind, tried, 1, 2, 3)
            if possible(kind, tried):
                assert decode_header_untrusted(data, EVERY_KIND).length == tried
            else:
                with pytest.raises(FrameError):
                    decode_header_untrusted(data, EVERY_KIND)


def test_every_flipped_bit_of_a_header_is_refused() -> None:
    data = encode_header(Kind.DATA, 1000, 5, 6000, 77)
    for bit in range(8 * HEADER_BYTES):
        with pytest.raises(FrameError):
            decode_header_untrusted(flipped(data, bit), EVERY_KIND)


def test_each_side_takes_the_kinds_of_the_other_side_only() -> None:
    assert not FROM_TX & FROM_RX and FROM_TX | FROM_RX == set(Kind)
    for number in range(256):
        fields = signed(struct.pack("!2sBBIQQQ", b"vm", number, 0, 16, 0, 0, 0))
        short = signed(struct.pack("!2sBBIQQQ", b"vm", number, 0, 0, 0, 0, 0))
        for allowed in (FROM_TX, FROM_RX):
            if number in allowed:
                data = fields if number in (Kind.DATA, Kind.ACK, Kind.LEGS) else short
                assert decode_header_untrusted(data, allowed).kind == number
            else:
                for data in (fields, short):
                    with pytest.raises(FrameError):
                        decode_header_untrusted(data, allowed)


def test_a_header_of_another_magic_is_refused() -> None:
    with pytest.raises(FrameError):
        decode_header_untrusted(signed(struct.pack("!2sBBIQQQ", b"mv", 1, 0, 16, 0, 0, 0)), FROM_TX)


# Acknowledgements and reasons ---------------------------------------------------------------------------


@given(acks())
def test_an_acknowledgement_comes_back(ack: Ack) -> None:
    ((header, payload),) = ControlDecoder().feed_untrusted(ack.encode())
    assert (header.seq, header.offset) == (ack.arrived_next, ack.written_bytes)
    for form in (payload, bytearray(payload), memoryview(payload)):
        assert decode_ack_untrusted(header, form) == ack


def test_the_longest_acknowledgement_comes_back() -> None:
    ack = Ack(0, 0, Waiting.FRAME, 0, tuple((2 * i, 2 * i + 1) for i in range(1, ACK_RANGES_MAX + 1)))
    assert len(ack.encode()) == HEADER_BYTES + CONTROL_BYTES_MAX
    ((header, payload),) = ControlDecoder().feed_untrusted(ack.encode())
    assert decode_ack_untrusted(header, payload) == ack


@pytest.mark.parametrize("ranges", [((4, 6),), ((5, 6),), ((6, 6),), ((8, 7),), ((7, 9), (9, 10)), ((7, 9), (6, 20))])
def test_ranges_that_cannot_be_are_refused(ranges: tuple[tuple[int, int], ...]) -> None:
    ((header, payload),) = ControlDecoder().feed_untrusted(Ack(5, 0, Waiting.FRAME, 5, ranges).encode())
    with pytest.raises(FrameError):
        decode_ack_untrusted(header, payload)


def test_waiting_for_the_unknown_is_refused() -> None:
    header = Header(Kind.ACK, 16, 0, 0, 0)
    assert decode_ack_untrusted(header, struct.pack("!QQ", 1, 9)).waiting is Waiting.OUTPUT
    with pytest.raises(FrameError):
        decode_ack_untrusted(header, struct.pack("!QQ", 2, 9))


@given(st.text())
@example("lone surrogate \udcff, as file names hold it")
@example("ä" * REASON_BYTES_MAX)
@example("\x1b[2J\r\n\0\u202e\u2028")
def test_a_reason_is_cut_and_safe_to_print(reason: str) -> None:
    data = encode_reason(Kind.ABORT, reason)
    assert len(data) <= HEADER_BYTES + REASON_BYTES_MAX
    header = decode_header_untrusted(data[:HEADER_BYTES], FROM_TX)
    text = decode_reason(data[HEADER_BYTES:])
    assert text.isprintable() and "\n" not in text
    assert header.length == len(data) - HEADER_BYTES
    if reason.isprintable() and len(reason.encode(errors="replace")) <= REASON_BYTES_MAX:
        assert text == reason


@given(st.binary(max_size=REASON_BYTES_MAX))
def test_a_reason_of_any_bytes_is_safe_to_print(payload: bytes) -> None:
    for form in (payload, bytearray(payload), memoryview(payload)):
        assert decode_reason(form).isprintable()


# The stream of messages from rx -------------------------------------------------------------------------


def conversation() -> list[tuple[Kind, int, int, bytes]]:
    """A few messages of every kind that rx sends, empty payloads among them."""
    ack = Ack(3, 999, Waiting.OUTPUT, 3, ((5, 6), (8, 20)))
    return [
        (Kind.RESEND, 4, 0, b""),
        (Kind.ACK, 3, 999, ack.encode()[HEADER_BYTES:]),
        (Kind.DONE, 0, 1 << 40, b""),
        (Kind.REFUSAL, 0, 0, b"disk full"),
        (Kind.ACK, 0, 0, Ack(0, 0, Waiting.FRAME, 0).encode()[HEADER_BYTES:]),
    ]


@given(st.lists(st.integers(1, 200), max_size=40))
@example([1] * 10_000)
@example([])
def test_messages_come_out_whole_whatever_the_pieces(sizes: list[int]) -> None:
    decoder, data = ControlDecoder(), b"".join(encode_control(*each) for each in conversation())
    found, rest = [], memoryview(data)
    for size in [*sizes, len(data)]:
        found += decoder.feed_untrusted(rest[:size])
        rest = rest[size:]
    assert [(h.kind, h.seq, h.offset, payload) for h, payload in found] == conversation()


@pytest.mark.parametrize("whole", [True, False])
def test_a_damaged_payload_is_refused(whole: bool) -> None:
    data = encode_reason(Kind.REFUSAL, "disk full")
    for bit in range(8 * HEADER_BYTES, 8 * len(data)):
        decoder, bad = ControlDecoder(), flipped(data, bit)
        with pytest.raises(FrameError):
            for piece in [bad] if whole else [bad[i : i + 1] for i in range(len(bad))]:
                decoder.feed_untrusted(piece)


@given(st.randoms(use_true_random=False))
def test_mutated_bytes_raise_nothing_but_frame_error(chance: random.Random) -> None:
    data = b"".join(encode_control(*each) for each in conversation())
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(data))
        new = chance.randbytes(chance.randrange(50))  # in the place of none, as many, or more
        data = data[:at] + new + data[at + chance.choice([0, len(new), 50]) :] or b"?"
    try:
        found = ControlDecoder().feed_untrusted(data)
    except FrameError:
        return
    for header, payload in found:
        assert (header.kind, header.seq, header.offset, payload) in conversation()


def test_a_long_conversation_takes_no_memory() -> None:
    decoder, data = ControlDecoder(), encode_control(*conversation()[1])
    tracemalloc.start()
    try:
        for _ in range(2_000):
            decoder.feed_untrusted(data[:50])
            decoder.feed_untrusted(data[50:])
        assert tracemalloc.get_traced_memory()[0] < 32 << 10
    finally:
        tracemalloc.stop()


# Version 1, for ever ------------------------------------------------------------------------------------

GOLDEN_MESSAGES = [
    (Kind.DATA, 3, 3 << 20, b"payload"),
    (Kind.END, 4, (3 << 20) + 7, b""),
    (Kind.ABORT, 0, 0, b"input failed"),
    (Kind.BYE, 0, 0, b""),
    *conversation(),
]


def golden_bytes() -> bytes:
    """What tests/data/frames_v1.bin was written from, once. Another result is another wire version."""
    return GREETING.encode() + ANSWER.encode() + b"".join(encode_control(*each) for each in GOLDEN_MESSAGES)


def test_version_1_is_encoded_as_ever() -> None:
    assert GOLDEN.read_bytes() == golden_bytes()


def test_version_1_is_decoded_as_ever() -> None:
    data = GOLDEN.read_bytes()
    assert decode_greeting_untrusted(data[:72]) == GREETING
    assert decode_answer_untrusted(data[72:112]) == ANSWER
    position = 112
    for kind, seq, offset, payload in GOLDEN_MESSAGES:
        header = decode_header_untrusted(data[position : position + 40], EVERY_KIND)
        assert header == Header(kind, len(payload), seq, offset, xxhash.xxh3_64_intdigest(payload))
        assert data[position + 40 : position + 40 + header.length] == payload
        position += 40 + header.length
    assert position == len(data)
