"""The first words on a connection: greetings and calls in any pieces, answers, and who is not one of us."""

import asyncio
import socket
from typing import Any

import pytest

from tests.aio.drive import RECEIVER, Peer, greeting, turns
from viamillipede.aio import handshake as module
from viamillipede.aio.handshake import (
    AnotherVersion,
    ClosedEarly,
    OpeningRefused,
    answering,
    call,
    greet,
    hear_call,
    hear_greeting,
    refuse,
)
from viamillipede.aio.sockets import close_with_reset
from viamillipede.config import MIB, MS_US
from viamillipede.errors import FrameError
from viamillipede.protocol.wire import (
    ANSWER_BYTES,
    CALL_BYTES,
    GREETING_BYTES,
    VERSION,
    Answer,
    Call,
    Verdict,
    decode_answer_untrusted,
    decode_greeting_untrusted,
)

CALL = Call(RECEIVER, 5, 1, 2, b"mill")
ACCEPTED = Answer(Verdict.ACCEPTED, 0, RECEIVER, 64 * MIB)


async def hear(pair: Any, said: bytes, step: int = 1000, shut: bool = True, hearing: Any = hear_greeting) -> Any:
    """What `hearing` makes of these bytes, sent in steps."""
    task = asyncio.create_task(hearing(pair[0]))
    for start in range(0, len(said), step):
        pair[1].send(said[start : start + step])
        await asyncio.sleep(0)
    if shut:
        pair[1].shutdown(socket.SHUT_WR)
    return await task


@pytest.mark.parametrize("step", [1, 7, 1000])
async def test_a_greeting_in_pieces(pair: Any, step: int) -> None:
    assert await hear(pair, greeting(5), step, shut=False) == decode_greeting_untrusted(greeting(5))


async def test_nothing_behind_the_greeting_is_taken(pair: Any) -> None:
    await hear(pair, greeting() + b"next")
    assert pair[0].recv(10) == b"next"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "closed before it greeted"),
        (greeting()[:1], "closed in its greeting"),
        (greeting()[: GREETING_BYTES - 1], "closed in its greeting"),
        (b"G", "not viamillipede"),
        (b"vmlP", "not viamillipede"),
        (greeting()[:-1] + b"\0", "damaged greeting"),
        (bytes([*b"vmlp", VERSION + 1]), f"version {VERSION + 1} of the protocol, we {VERSION}"),
        (bytes([*b"vmlp", 0]), f"version 0 of the protocol, we {VERSION}"),
        (greeting(session=bytes(16)), "values that cannot be"),
    ],
)
@pytest.mark.parametrize("step", [1, 1000])
async def test_a_greeting_that_is_none(pair: Any, said: bytes, reason: str, step: int) -> None:
    with pytest.raises(FrameError, match=reason):
        await hear(pair, said, step)


async def test_noise_is_refused_without_waiting_for_more(pair: Any) -> None:
    with pytest.raises(FrameError, match="not viamillipede"):
        await hear(pair, b"GET", shut=False)


async def test_a_greeting_that_does_not_come(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GREETING_US", 20 * MS_US)
    with pytest.raises(TimeoutError):
        await hear(pair, greeting()[:-1], shut=False)


async def test_a_connection_that_breaks_while_greeting(pair: Any) -> None:
    task = asyncio.create_task(hear_greeting(pair[0]))
    await turns(1)
    close_with_reset(pair[1])
    with pytest.raises(ConnectionResetError):
        await task


# Calls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 7, 1000])
async def test_a_call_in_pieces(pair: Any, step: int) -> None:
    assert await hear(pair, CALL.encode(), step, shut=False, hearing=hear_call) == CALL


async def test_nothing_behind_a_call_is_taken(pair: Any) -> None:
    assert await hear(pair, CALL.encode() + b"next", hearing=hear_call) == CALL
    assert pair[0].recv(10) == b"next"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "closed before it called"),
        (CALL.encode()[: CALL_BYTES - 1], "closed in its call"),
        (b"\x16\x03\x01", "not viamillipede"),
        (CALL.encode()[:-1] + b"\0", "damaged call"),
        (bytes([*b"vmlp", VERSION + 1]), f"version {VERSION + 1} of the protocol, we {VERSION}"),
        (Call(RECEIVER, 0, 2, 2, b"mill").encode(), "values that cannot be"),
        (bytes([*b"vmlp", VERSION, 77]) + bytes(34), "damaged call"),
    ],
)
async def test_a_call_that_is_none(pair: Any, said: bytes, reason: str) -> None:
    with pytest.raises(FrameError, match=reason):
        await hear(pair, said, hearing=hear_call)


@pytest.mark.parametrize(
    ("said", "hearing", "who"), [(CALL.encode(), hear_greeting, "receiver"), (greeting(), hear_call, "transmitter")]
)
async def test_two_of_the_same_role_are_told_so(pair: Any, said: bytes, hearing: Any, who: str) -> None:
    with pytest.raises(OpeningRefused, match=f"it is a {who}, as we are") as caught:
        await hear(pair, said, hearing=hearing)
    assert caught.value.answer == Answer(Verdict.ROLE)


@pytest.mark.parametrize(("said", "hearing"), [(CALL.encode(), hear_call), (greeting(), hear_greeting)])
async def test_a_flipped_bit_in_the_kind_of_an_opening_is_damage(pair: Any, said: bytes, hearing: Any) -> None:
    """Not the other role: that refusal is final."""
    bad = bytearray(said + bytes(GREETING_BYTES))
    bad[5] ^= 1
    with pytest.raises(FrameError, match="damaged"):
        await hear(pair, bytes(bad), hearing=hearing)


# Asking -----------------------------------------------------------------------------------------------------


async def test_who_calls_hears_the_answer_and_the_greeting_and_no_more(pair: Any) -> None:
    peer = Peer(pair[1])
    task = asyncio.create_task(call(pair[0], CALL.encode()))
    assert await peer.exactly(CALL_BYTES) == CALL.encode()
    await peer.say(ACCEPTED.encode() + greeting(5) + b"next")
    assert await task == (ACCEPTED, decode_greeting_untrusted(greeting(5)))
    assert pair[0].recv(10) == b"next"


async def test_who_calls_and_is_refused_waits_for_no_greeting(pair: Any) -> None:
    await Peer(pair[1]).say(Answer(Verdict.BUSY).encode())
    assert await call(pair[0], CALL.encode()) == (Answer(Verdict.BUSY), None)


@pytest.mark.parametrize(
    ("said", "error", "reason"),
    [
        (b"", ClosedEarly, "closed before it answered"),
        (ACCEPTED.encode()[:-1], ClosedEarly, "closed before it answered"),
        (ACCEPTED.encode() + greeting()[:-1], ClosedEarly, "closed before it greeted"),
        (b"SSH-2.0", FrameError, "not viamillipede"),
        (ACCEPTED.encode() + b"SSH-2.0", FrameError, "not viamillipede"),
        (b"vmlp\x09", AnotherVersion, "speaks version 9"),
        (ACCEPTED.encode() + CALL.encode() + bytes(GREETING_BYTES - CALL_BYTES), FrameError, "damaged greeting"),
    ],
)
async def test_an_answer_to_a_call_that_is_none(pair: Any, said: bytes, error: type[FrameError], reason: str) -> None:
    await Peer(pair[1]).say(said)
    pair[1].shutdown(socket.SHUT_WR)
    with pytest.raises(error, match=reason):
        await call(pair[0], CALL.encode())


@pytest.mark.parametrize("said", [b"", ACCEPTED.encode()])
async def test_a_tx_that_says_nothing_more(pair: Any, said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GREETING_US", 20 * MS_US)
    await Peer(pair[1]).say(said)
    with pytest.raises(TimeoutError):
        await call(pair[0], CALL.encode())


async def test_who_greets_hears_the_answer_and_no_more(pair: Any) -> None:
    await Peer(pair[1]).say(ACCEPTED.encode() + b"next")
    assert await greet(pair[0], greeting()) == ACCEPTED
    assert pair[0].recv(10) == b"next"


# Refusing ---------------------------------------------------------------------------------------------------


async def test_who_is_refused_hears_why_though_it_has_said_more(pair: Any) -> None:
    peer = Peer(pair[1])
    await peer.say(bytes(1000))
    task = asyncio.create_task(refuse(pair[0], Answer(Verdict.BUSY)))
    assert decode_answer_untrusted(await peer.exactly(ANSWER_BYTES)) == Answer(Verdict.BUSY)
    assert await peer.end() == b""
    assert not task.done()  # closing now could destroy the answer
    pair[1].shutdown(socket.SHUT_WR)
    await task


async def test_who_does_not_leave_is_left(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FAREWELL_US", 20 * MS_US)
    with pytest.raises(OpeningRefused, match="no"):
        async with answering(pair[0]):
            raise OpeningRefused("no", Answer(Verdict.BUSY))


async def test_who_is_gone_already_need_not_hear_it(pair: Any) -> None:
    close_with_reset(pair[1])
    await turns(1)
    await refuse(pair[0], Answer(Verdict.BUSY))
