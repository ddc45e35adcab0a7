"""Greetings, calls, answers, hellos and headers as bytes: what is taken can be said again, and is then the same."""

import contextlib
from collections.abc import Callable

import xxhash

from viamillipede.errors import FrameError
from viamillipede.protocol import hello
from viamillipede.protocol.wire import (
    ANSWER_BYTES,
    CALL_BYTES,
    FROM_RX,
    FROM_TX,
    GREETING_BYTES,
    HEADER_BYTES,
    MAGIC,
    VERSION,
    Kind,
    check_prefix_untrusted,
    decode_ack_untrusted,
    decode_answer_untrusted,
    decode_call_untrusted,
    decode_greeting_untrusted,
    decode_header_untrusted,
    decode_legs_untrusted,
    decode_reason,
    encode_header,
)

from .script import Script

SIZES = (GREETING_BYTES, ANSWER_BYTES, CALL_BYTES, HEADER_BYTES)


def run(data: bytes) -> None:
    """One opening, whose prefix and hash are mended or not."""
    script = Script(data)
    what, shape = script.byte() % 6, script.byte()
    if what < len(SIZES):
        found = bytearray(script.take(SIZES[what]).ljust(SIZES[what], b"\0"))
        if shape & 1:
            found[: len(MAGIC) + 1] = MAGIC + bytes([VERSION])
        if shape & 2 or what == 3:
            found[:2] = b"vm"
        if shape & 4:
            found[-8:] = xxhash.xxh3_64_digest(bytes(found[:-8]))
    else:
        found = bytearray(script.rest())
    with contextlib.suppress(FrameError):
        READERS[what](found)


def _greeting(found: bytearray) -> None:
    greeting = decode_greeting_untrusted(found)
    assert decode_greeting_untrusted(bytearray(greeting.encode())) == greeting
    assert greeting.name.isascii() and "/" not in greeting.name and not greeting.name.startswith((".", "-"))


def _answer(found: bytearray) -> None:
    check_prefix_untrusted(found)
    answer = decode_answer_untrusted(found)
    assert decode_answer_untrusted(bytearray(answer.encode())) == answer


def _call(found: bytearray) -> None:
    call = decode_call_untrusted(found)
    assert decode_call_untrusted(bytearray(call.encode())) == call and call.rank < call.ranks


def _header(found: bytearray) -> None:
    for allowed in (FROM_TX, FROM_RX):
        with contextlib.suppress(FrameError):
            header = decode_header_untrusted(found, allowed)
            assert header.kind in allowed
            again = encode_header(header.kind, header.length, header.seq, header.offset, header.payload_hash)
            assert decode_header_untrusted(again, allowed) == header


def _hello(found: bytearray) -> None:
    if len(found) < hello.HELLO_BYTES:
        return
    said = hello.decode_hello_untrusted(found[: hello.HELLO_BYTES])
    assert hello.decode_hello_untrusted(bytearray(said.encode())) == said
    payload = bytes(found[hello.HELLO_BYTES :][: hello.PAYLOAD_BYTES])
    for reader in (hello.decode_offer, hello.decode_choice):
        with contextlib.suppress(FrameError):
            reader(payload)


def _payload(found: bytearray) -> None:
    """Payloads behind a header that was right."""
    text = decode_reason(found)
    assert all(c.isprintable() or c == "\n" for c in text)
    if len(found) >= 2:
        decode_legs_untrusted(found[: len(found) // 2 * 2])
    size = (len(found) - 32) // 16 * 16
    if size >= 0:
        fields = encode_header(Kind.ACK, 32 + size, int.from_bytes(found[:1], "big"), 0, 0)
        header = decode_header_untrusted(fields, FROM_RX)
        ack = decode_ack_untrusted(header, found[: 32 + size])
        assert all(start < end for start, end in ack.ranges)


READERS: tuple[Callable[[bytearray], None], ...] = (_greeting, _answer, _call, _header, _hello, _payload)
