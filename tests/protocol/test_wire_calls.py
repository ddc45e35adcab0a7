"""The wire of an rx that dials: calls, and tx's wishes for legs."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.test_wire import GREETING, flipped, signed
from viamillipede.config import LEGS_MAX, RANKS_MAX
from viamillipede.errors import FrameError
from viamillipede.protocol.control import ControlDecoder
from viamillipede.protocol.wire import (
    CALL_BYTES,
    FROM_TX,
    GREETING_BYTES,
    MAGIC,
    VERSION,
    Call,
    Kind,
    check_prefix_untrusted,
    decode_call_untrusted,
    decode_greeting_untrusted,
    decode_legs_untrusted,
    encode_legs,
)

CALL = Call(b"receiver", 7, 2, 3, b"word")


def raw_call(receiver: bytes = b"receiver", leg: int = 0, rank: int = 0, ranks: int = 1, opening: int = 1) -> bytes:
    """A call with a right hash, whatever it says."""
    return signed(struct.pack("!4sBBH8sIII4s", MAGIC, VERSION, opening, 0, receiver, leg, rank, ranks, bytes(4)))


calls = st.integers(1, RANKS_MAX).flatmap(
    lambda ranks: st.builds(
        Call,
        st.binary(min_size=8, max_size=8).filter(any),
        st.integers(0, LEGS_MAX - 1),
        st.integers(0, ranks - 1),
        st.just(ranks),
        st.binary(min_size=4, max_size=4),
    )
)


@given(calls)
def test_a_call_comes_back(call: Call) -> None:
    data = call.encode()
    assert len(data) == CALL_BYTES
    assert check_prefix_untrusted(data) == VERSION
    assert decode_call_untrusted(data) == decode_call_untrusted(bytearray(data)) == call


def test_every_flipped_bit_of_a_call_is_refused() -> None:
    for bit in range(8 * CALL_BYTES):
        with pytest.raises(FrameError):
            decode_call_untrusted(flipped(CALL.encode(), bit))


@pytest.mark.parametrize(
    "values",
    [
        {"receiver": bytes(8)},
        {"leg": LEGS_MAX},
        {"leg": (1 << 32) - 1},
        {"rank": 1},
        {"ranks": 0},
        {"rank": 5, "ranks": 5},
        {"ranks": RANKS_MAX + 1},
        {"opening": 0},
        {"opening": 2},
    ],
)
def test_a_call_of_impossible_values_is_refused(values: dict[str, int]) -> None:
    assert decode_call_untrusted(raw_call(leg=LEGS_MAX - 1, rank=RANKS_MAX - 1, ranks=RANKS_MAX))
    with pytest.raises(FrameError, match="values that cannot be"):
        decode_call_untrusted(raw_call(**values))  # type: ignore[arg-type]


def test_another_versions_call_is_refused() -> None:
    with pytest.raises(FrameError, match="another version"):
        decode_call_untrusted(signed(bytes([*MAGIC, VERSION + 1, 1]) + bytes(26)))


def test_a_call_is_no_greeting_and_a_greeting_no_call() -> None:
    with pytest.raises(FrameError):
        decode_greeting_untrusted(CALL.encode() + bytes(GREETING_BYTES - CALL_BYTES))
    with pytest.raises(FrameError):
        decode_call_untrusted(GREETING.encode()[:CALL_BYTES])
    fields = bytearray(GREETING.encode()[:-8])
    fields[5] = 1
    with pytest.raises(FrameError, match="not a greeting"):
        decode_greeting_untrusted(signed(bytes(fields)))


@given(st.lists(st.integers(1, LEGS_MAX), min_size=1, max_size=RANKS_MAX), st.booleans())
def test_a_wish_for_legs_comes_back(targets: list[int], moving: bool) -> None:
    data = encode_legs(9, moving, targets)
    ((header, payload),) = ControlDecoder(FROM_TX).feed_untrusted(data)
    assert (header.kind, header.seq, header.offset) == (Kind.LEGS, 9, moving)
    assert decode_legs_untrusted(payload) == decode_legs_untrusted(memoryview(payload)) == targets


@pytest.mark.parametrize("payload", [b"\0\0", b"\0\1\0\0", b"\xff\xff", struct.pack("!H", LEGS_MAX + 1)])
def test_a_wish_that_cannot_be_is_refused(payload: bytes) -> None:
    with pytest.raises(FrameError, match="cannot be"):
        decode_legs_untrusted(payload)
