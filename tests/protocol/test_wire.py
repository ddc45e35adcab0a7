"""The codec: what was encoded comes back, and what was damaged does not."""

import string
import struct

import pytest
import xxhash
from hypothesis import example, given
from hypothesis import strategies as st

from viamillipede.config import (
    ACK_RANGES_MAX,
    DIGEST_BYTES_MAX,
    FRAME_BYTES_MAX,
    MIB,
    NAME_BYTES_MAX,
    REASON_BYTES_MAX,
    WINDOW_BYTES_MIN,
)
from viamillipede.errors import FrameError
from viamillipede.protocol.control import ControlDecoder
from viamillipede.protocol.wire import (
    ANSWER_BYTES,
    CONTROL_BYTES_MAX,
    FEATURES_KNOWN,
    FROM_RX,
    FROM_TX,
    GREETING_BYTES,
    HEADER_BYTES,
    MAGIC,
    PREFIX_BYTES,
    VERSION,
    Ack,
    Answer,
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
    decode_waits,
    encode_header,
    encode_reason,
    encode_waits,
)

U64 = st.integers(0, (1 << 64) - 1)
GREETING = Greeting(bytes(range(16)), 7, b"receiver", b"word", 1, 1 << 26, 1 << 20, "db1@host:nightly+2.tar")
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


WORD = string.ascii_letters + string.digits + "_@:+"
names = st.just("") | st.builds(str.__add__, st.sampled_from(WORD), st.text(WORD + ".-", max_size=NAME_BYTES_MAX - 1))
greetings = st.builds(
    lambda session, leg, receiver, checkphrase, features, frame, more, name: Greeting(
        session, leg, receiver, checkphrase, features, frame + more, frame, name
    ),
    st.binary(min_size=16, max_size=16).filter(any),
    st.integers(0, (1 << 32) - 1),
    st.binary(min_size=8, max_size=8),
    st.binary(min_size=4, max_size=4),
    st.integers(0, FEATURES_KNOWN),
    st.integers(1, FRAME_BYTES_MAX),
    st.integers(0, 1 << 40),
    names,
)
answers = st.builds(
    Answer,
    st.sampled_from(Verdict),
    st.integers(0, FEATURES_KNOWN),
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
    waiting = draw(st.sampled_from(Waiting))
    return Ack(arrived_next, draw(U64), waiting, draw(U64), tuple(ranges), draw(U64), draw(U64))


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
    name: bytes = b"",
) -> bytes:
    """A greeting with a right hash, whatever it says."""
    who = struct.pack("!4sBBH16s8sI4s", magic, version, 0, features, session, bytes(8), 0, bytes(4))
    return signed(who + struct.pack("!QQQ64s", window, frame, 0, name))


def test_the_raw_greeting_of_these_tests_is_a_good_one() -> None:
    assert decode_greeting_untrusted(raw_greeting()).window_bytes == 100
    assert decode_greeting_untrusted(raw_greeting(window=10)).frame_bytes == 10
    assert decode_greeting_untrusted(raw_greeting(window=1 << 63, frame=FRAME_BYTES_MAX))
    assert decode_greeting_untrusted(raw_greeting(features=7)).features == FEATURES_KNOWN
    assert decode_greeting_untrusted(raw_greeting(name=b"n" * 64)).name == "n" * 64


@pytest.mark.parametrize(
    "data",
    [
        raw_greeting(magic=b"HTTP"),
        raw_greeting(version=VERSION + 1),
        raw_greeting(version=0),
        raw_greeting(features=8),
        raw_greeting(features=0x8001),
        raw_greeting(session=bytes(16)),
        raw_greeting(frame=0),
        raw_greeting(frame=FRAME_BYTES_MAX + 1, window=1 << 30),
        raw_greeting(frame=101),
        raw_greeting(name=b"-rf"),
        raw_greeting(name=b".."),
        raw_greeting(name=b"a/b"),
        raw_greeting(name=b"a b"),
        raw_greeting(name=b"a\n"),
        raw_greeting(name=b"a\0b"),
        raw_greeting(name=b"\0a"),
        raw_greeting(name="n\u00e4me".encode()),
        raw_greeting(name=b"\xff" * 64),
    ],
)
def test_a_greeting_of_impossible_values_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        decode_greeting_untrusted(data)


@pytest.mark.parametrize(("verdict", "features"), [(len(Verdict), 0), (255, 0), (0, 8)])
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
        return length in range(32, 32 + 256 * 16 + 1, 16)
    if kind in (Kind.SUM, Kind.DIGEST):
        return 0 < length <= 64
    if kind is Kind.WAITS:
        return length == 48
    if kind is Kind.LEGS:
        return length in range(2, 128 + 1, 2)
    return length <= (2048 if kind in (Kind.ABORT, Kind.REFUSAL) else 0)


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
    lengths = [0, 1, 2, 3, 15, 16, 17, 31, 32, 47, 48, 63, 64, 127, 128, 129, 2047, 2048, 4096, 4112, 4128, 4144]
    assert CONTROL_BYTES_MAX == 4128 and DIGEST_BYTES_MAX == 64
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
        fields = signed(struct.pack("!2sBBIQQQ", b"vm", number, 0, 48, 0, 0, 0))
        short = signed(struct.pack("!2sBBIQQQ", b"vm", number, 0, 0, 0, 0, 0))
        for allowed in (FROM_TX, FROM_RX):
            if number in allowed:
                data = fields if possible(Kind(number), 48) else short
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
    header = Header(Kind.ACK, 32, 0, 0, 0)
    assert decode_ack_untrusted(header, struct.pack("!QQQQ", 1, 9, 7, 5)) == Ack(0, 0, Waiting.OUTPUT, 9, (), 7, 5)
    with pytest.raises(FrameError, match="waits for the unknown"):
        decode_ack_untrusted(header, struct.pack("!QQQQ", 2, 9, 7, 5))


@given(st.lists(U64, min_size=6, max_size=6))
def test_where_the_time_goes_comes_back(waits_us: list[int]) -> None:
    ((header, payload),) = ControlDecoder(FROM_TX).feed_untrusted(encode_waits(waits_us))
    assert (header.kind, header.seq, header.offset) == (Kind.WAITS, 0, 0)
    for form in (payload, bytearray(payload), memoryview(payload)):
        assert decode_waits(form) == tuple(waits_us)


def safe(text: str) -> bool:
    """Nothing in it moves a cursor, but for the ends of lines."""
    return text.replace("\n", "").isprintable()


@given(st.text())
@example("lone surrogate \udcff, as file names hold it")
@example("ä" * REASON_BYTES_MAX)
@example("\x1b[2J\r\n\0\u202e\u2028")
@example("the sink failed\nits last line\n")
def test_a_reason_is_cut_and_safe_to_print(reason: str) -> None:
    data = encode_reason(Kind.ABORT, reason)
    assert len(data) <= HEADER_BYTES + REASON_BYTES_MAX
    header = decode_header_untrusted(data[:HEADER_BYTES], FROM_TX)
    text = decode_reason(data[HEADER_BYTES:])
    assert safe(text) and header.length == len(data) - HEADER_BYTES
    if safe(reason) and len(reason.encode(errors="replace")) <= REASON_BYTES_MAX:
        assert text == reason


@given(st.binary(max_size=REASON_BYTES_MAX))
def test_a_reason_of_any_bytes_is_safe_to_print(payload: bytes) -> None:
    for form in (payload, bytearray(payload), memoryview(payload)):
        assert safe(decode_reason(form))
