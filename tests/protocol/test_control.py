"""A byte stream as messages: whole whatever the pieces, nothing but FrameError whatever the bytes."""

import random
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.protocol.test_wire import flipped
from viamillipede.errors import FrameError
from viamillipede.protocol.control import ControlDecoder
from viamillipede.protocol.wire import (
    FROM_TX,
    HEADER_BYTES,
    Ack,
    Kind,
    Waiting,
    encode_control,
    encode_reason,
    encode_waits,
)

Message = tuple[Kind, int, int, bytes]


def conversation() -> list[Message]:
    """A few messages of every kind that rx sends, empty payloads among them."""
    ack = Ack(3, 999, Waiting.OUTPUT, 3, ((5, 6), (8, 20)), 7_000_000, 11_000)
    return [
        (Kind.RESEND, 4, 0, b""),
        (Kind.ACK, 3, 999, ack.encode()[HEADER_BYTES:]),
        (Kind.DIGEST, 0, 1 << 40, bytes(range(16))),
        (Kind.DONE, 0, 1 << 40, b""),
        (Kind.REFUSAL, 0, 0, b"the sink failed\ndisk full"),
        (Kind.ACK, 0, 0, Ack(0, 0, Waiting.FRAME, 0).encode()[HEADER_BYTES:]),
    ]


def encoded(messages: list[Message]) -> bytes:
    """As they cross a leg."""
    return b"".join(encode_control(*each) for each in messages)


@given(st.lists(st.integers(1, 200), max_size=40))
@example([1] * 10_000)
@example([])
def test_messages_come_out_whole_whatever_the_pieces(sizes: list[int]) -> None:
    decoder, data = ControlDecoder(), encoded(conversation())
    found, rest = [], memoryview(data)
    for size in [*sizes, len(data)]:
        found += decoder.feed_untrusted(rest[:size])
        rest = rest[size:]
    assert [(h.kind, h.seq, h.offset, payload) for h, payload in found] == conversation()


def test_what_tx_says_is_cut_in_the_same_way() -> None:
    data = encode_control(Kind.SUM, payload=b"s" * 32) + encode_waits(range(6)) + encode_control(Kind.BYE)
    found = [(header.kind, len(payload)) for header, payload in ControlDecoder(FROM_TX).feed_untrusted(data)]
    assert found == [(Kind.SUM, 32), (Kind.WAITS, 48), (Kind.BYE, 0)]
    with pytest.raises(FrameError, match="unknown kind 8"):
        ControlDecoder().feed_untrusted(data)


@pytest.mark.parametrize("whole", [True, False])
def test_a_damaged_payload_is_refused(whole: bool) -> None:
    data = encode_reason(Kind.REFUSAL, "disk full")
    for bit in range(8 * HEADER_BYTES, 8 * len(data)):
        decoder, bad = ControlDecoder(), flipped(data, bit)
        with pytest.raises(FrameError, match="damaged payload"):
            for piece in [bad] if whole else [bad[i : i + 1] for i in range(len(bad))]:
                decoder.feed_untrusted(piece)


@given(st.randoms(use_true_random=False))
def test_mutated_bytes_raise_nothing_but_frame_error(chance: random.Random) -> None:
    data = encoded(conversation())
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
