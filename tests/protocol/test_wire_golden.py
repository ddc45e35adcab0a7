"""The bytes of version 3 never change, and versions 1 and 2 are told that they are other versions."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import xxhash

from tests.protocol.test_control import conversation, encoded
from tests.protocol.test_wire import ANSWER, EVERY_KIND, GREETING
from tests.protocol.test_wire_calls import CALL
from viamillipede.aio.handshake import hear_call, hear_greeting
from viamillipede.aio.refusals import OpeningRefused
from viamillipede.config import LEGS_MAX
from viamillipede.errors import FrameError
from viamillipede.protocol.wire import (
    HEADER_BYTES,
    PREFIX_BYTES,
    Header,
    Kind,
    Verdict,
    check_prefix_untrusted,
    decode_answer_untrusted,
    decode_call_untrusted,
    decode_greeting_untrusted,
    decode_header_untrusted,
    encode_legs,
    encode_waits,
)

Hear = Callable[[socket.socket, None, str], Awaitable[object]]

GOLDEN = Path(__file__).parents[1] / "data" / "frames_v3.bin"
GREETING_END, ANSWER_END, CALL_END = 136, 176, 216
GREETING_V1 = bytes.fromhex(
    "766d6c7001000001000102030405060708090a0b0c0d0e0f" "7265636569766572" "00000007" "776f7264"
    "0000000004000000" "0000000000100000" "0000000000000000" "594b8674e9f3476d"
)  # fmt: skip
CALL_V1 = bytes.fromhex(
    "766d6c70" "01" "01" "0000" "7265636569766572" "00000007" "00000002" "00000003" "776f7264" "dbce4329df4f0005"
)  # fmt: skip
GREETING_V2 = bytes.fromhex(
    "766d6c7002000001000102030405060708090a0b0c0d0e0f726563656976657200000007776f72640000000004000000"
    "0000000000100000000000000000000064623140686f73743a6e696768746c792b322e74617200000000000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000bf49913151b2efb4"
)
CALL_V2 = bytes.fromhex("766d6c70020100007265636569766572000000070000000200000003776f7264b5820d05b354d676")

MESSAGES = [
    (Kind.DATA, 3, 3 << 20, b"payload"),
    (Kind.END, 4, (3 << 20) + 7, b""),
    (Kind.ABORT, 0, 0, b"the source failed\ninput failed"),
    (Kind.BYE, 0, 0, b""),
    (Kind.BEAT, 0, 0, b""),
    (Kind.LEGS, 5, 1, encode_legs(5, True, [1, 8, LEGS_MAX])[HEADER_BYTES:]),
    (Kind.LEAVE, 0, 0, b""),
    (Kind.SUM, 0, 0, bytes(range(32))),
    (Kind.WAITS, 0, 0, encode_waits([1, 20, 300, 4000, 50000, 1 << 40])[HEADER_BYTES:]),
    *conversation(),
]


def golden_bytes() -> bytes:
    """What the file was written from, once. Another result is another wire version."""
    return GREETING.encode() + ANSWER.encode() + CALL.encode() + encoded(MESSAGES)


def test_version_3_is_encoded_as_ever() -> None:
    assert {kind for kind, *_ in MESSAGES} == set(Kind)
    assert GOLDEN.read_bytes() == golden_bytes()


def test_version_3_is_decoded_as_ever() -> None:
    data = GOLDEN.read_bytes()
    assert decode_greeting_untrusted(data[:GREETING_END]) == GREETING
    assert decode_answer_untrusted(data[GREETING_END:ANSWER_END]) == ANSWER
    assert decode_call_untrusted(data[ANSWER_END:CALL_END]) == CALL
    position = CALL_END
    for kind, seq, offset, payload in MESSAGES:
        header = decode_header_untrusted(data[position : position + 40], EVERY_KIND)
        assert header == Header(kind, len(payload), seq, offset, xxhash.xxh3_64_intdigest(payload))
        assert data[position + 40 : position + 40 + header.length] == payload
        position += 40 + header.length
    assert position == len(data)


# Versions 1 and 2 ------------------------------------------------------------------------------------------------


def test_version_1_is_not_ours() -> None:
    assert len(GREETING_V1) == 72 and xxhash.xxh3_64_digest(GREETING_V1[:64]) == GREETING_V1[64:]
    for data in (GREETING_V1, GREETING_V1[:PREFIX_BYTES], CALL_V1):
        assert check_prefix_untrusted(data) == 1
    with pytest.raises(FrameError, match="another version's greeting"):
        decode_greeting_untrusted(GREETING_V1)
    with pytest.raises(FrameError, match="another version's call"):
        decode_call_untrusted(CALL_V1)


def test_version_2_is_not_ours() -> None:
    """Its openings are as long as ours, and their hashes are right: the version is all that tells."""
    for data, decode in ((GREETING_V2, decode_greeting_untrusted), (CALL_V2, decode_call_untrusted)):
        assert xxhash.xxh3_64_digest(data[:-8]) == data[-8:] and check_prefix_untrusted(data) == 2
        with pytest.raises(FrameError, match="another version's"):
            decode(data)


@pytest.mark.parametrize(
    ("data", "hear"),
    [(GREETING_V1, hear_greeting), (CALL_V1, hear_call), (GREETING_V2, hear_greeting), (CALL_V2, hear_call)],
    ids=["greeting 1", "call 1", "greeting 2", "call 2"],
)
def test_another_version_is_refused_with_the_verdict_version(data: bytes, hear: Hear) -> None:
    async def refused() -> OpeningRefused:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.send(data)
            with pytest.raises(OpeningRefused, match=f"it speaks version {data[4]} of the protocol, we 3") as caught:
                await hear(ours, None, "host")
            return caught.value

    assert asyncio.run(refused()).answer.verdict is Verdict.VERSION
