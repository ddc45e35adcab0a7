"""The first words on a connection: greetings and calls in any pieces, answers, and who is not one of us."""

import asyncio
import socket
from typing import Any

import pytest

from tests.aio.drive import HOST, RECEIVER, Peer, greeting, turns, until
from viamillipede.aio import handshake as module
from viamillipede.aio.channel import AnotherVersion, Channel, ClosedEarly
from viamillipede.aio.handshake import call, enter, greet, hear_call, hear_greeting, open_keys
from viamillipede.aio.refusals import KeyRefused, OpeningRefused
from viamillipede.aio.sockets import close_with_reset
from viamillipede.config import MIB, MS_US, RxConfig, Secret, TxConfig
from viamillipede.errors import FrameError
from viamillipede.protocol.wire import (
    CALL_BYTES,
    GREETING_BYTES,
    VERSION,
    Answer,
    Call,
    Opening,
    Verdict,
    decode_greeting_untrusted,
)

CALL = Call(RECEIVER, 5, 1, 2, b"mill")
ACCEPTED = Answer(Verdict.ACCEPTED, 0, RECEIVER, 64 * MIB)


async def hear(pair: Any, said: bytes, step: int = 1000, shut: bool = True, hearing: Any = hear_greeting) -> Any:
    """What `hearing` makes of these bytes, sent in steps."""
    task = asyncio.create_task(hearing(pair[0], None, HOST))
    for start in range(0, len(said), step):
        pair[1].send(said[start : start + step])
        await asyncio.sleep(0)
    if shut:
        pair[1].shutdown(socket.SHUT_WR)
    said_first, channel = await task
    assert channel.sock is pair[0] and repr(channel) == "<Channel in clear>"
    return said_first


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
    task = asyncio.create_task(hear_greeting(pair[0], None, HOST))
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
    bad[5] ^= 1  # a call becomes a greeting, and the other way round
    with pytest.raises(FrameError, match="damaged"):
        await hear(pair, bytes(bad), hearing=hearing)


# Asking -----------------------------------------------------------------------------------------------------


async def test_who_calls_hears_the_answer_and_the_greeting_and_no_more(pair: Any) -> None:
    peer = Peer(pair[1])
    task = asyncio.create_task(call(Channel(pair[0]), CALL.encode()))
    assert await peer.exactly(CALL_BYTES) == CALL.encode()
    await peer.say(ACCEPTED.encode() + greeting(5) + b"next")
    assert await task == (ACCEPTED, decode_greeting_untrusted(greeting(5)))
    assert pair[0].recv(10) == b"next"


async def test_who_calls_and_is_refused_waits_for_no_greeting(pair: Any) -> None:
    await Peer(pair[1]).say(Answer(Verdict.BUSY).encode())
    assert await call(Channel(pair[0]), CALL.encode()) == (Answer(Verdict.BUSY), None)


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
        await call(Channel(pair[0]), CALL.encode())


@pytest.mark.parametrize("said", [b"", ACCEPTED.encode()])
async def test_a_tx_that_says_nothing_more(pair: Any, said: bytes) -> None:
    await Peer(pair[1]).say(said)
    with pytest.raises(TimeoutError):
        await call(Channel(pair[0]), CALL.encode(), 20 * MS_US)


async def test_who_greets_hears_the_answer_and_no_more(pair: Any) -> None:
    await Peer(pair[1]).say(ACCEPTED.encode() + b"next")
    assert await greet(Channel(pair[0]), greeting()) == ACCEPTED
    assert pair[0].recv(10) == b"next"


async def test_what_is_said_before_the_greeting_goes_first(pair: Any) -> None:
    peer = Peer(pair[1])
    task = asyncio.create_task(greet(Channel(pair[0]), ACCEPTED.encode(), greeting()))
    assert await peer.exactly(len(ACCEPTED.encode()) + GREETING_BYTES) == ACCEPTED.encode() + greeting()
    await peer.say(ACCEPTED.encode())
    assert await task == ACCEPTED


# Keys -------------------------------------------------------------------------------------------------------


class Vestibule:
    """In the place of keys: what it was asked, and a channel that opens with `opening`; `hold`: or never."""

    def __init__(self, opening: Opening = Opening.GREETING, hold: bool = False) -> None:
        self.opening, self.hold = opening, hold
        self.admitted: list[tuple[bytes, str]] = []
        self.knocked: list[Opening] = []

    async def admit(self, sock: socket.socket, head: bytearray, host: str) -> Channel:
        """See Keys."""
        self.admitted.append((bytes(head), host))
        if self.hold:
            await asyncio.sleep(3600)
        return Channel(sock, opening=self.opening)

    async def knock(self, sock: socket.socket, opening: Opening) -> Channel:
        """See Keys."""
        self.knocked.append(opening)
        if self.hold:
            await asyncio.sleep(3600)
        return Channel(sock, opening=opening)


HELLO = bytes([*b"vmlp", VERSION, Opening.HELLO])


def test_without_key_and_phrase_there_are_no_keys() -> None:
    assert open_keys(RxConfig()) is None
    for config in (RxConfig(key=Secret(bytes(32))), TxConfig(phrase=Secret(b"a phrase that is long"))):
        assert repr(open_keys(config)) == "<Keys>"


async def test_without_key_nothing_is_said_before_the_opening(pair: Any) -> None:
    channel = await enter(pair[0], None, Opening.GREETING)
    assert channel.sock is pair[0] and channel.sealer is None
    with pytest.raises(BlockingIOError):
        pair[1].recv(1)


async def test_who_has_a_key_knocks_before_the_opening(pair: Any) -> None:
    keys: Any = Vestibule()
    channel = await enter(pair[0], keys, Opening.CALL)
    assert channel.opening is Opening.CALL and keys.knocked == [Opening.CALL]


async def test_knocking_is_bounded_in_time(pair: Any) -> None:
    keys: Any = Vestibule(hold=True)
    with pytest.raises(TimeoutError):
        await enter(pair[0], keys, Opening.CALL, 20 * MS_US)


@pytest.mark.parametrize("hearing", [hear_greeting, hear_call])
async def test_a_hello_to_somebody_without_a_key_is_told_so_at_once(pair: Any, hearing: Any) -> None:
    pair[1].send(HELLO)
    with pytest.raises(KeyRefused, match="it has a key or a phrase, and we have neither") as caught:
        await hearing(pair[0], None, HOST)
    assert caught.value.answer == Answer(Verdict.KEYLESS) and caught.value.channel is None


@pytest.mark.parametrize(("hearing", "said"), [(hear_greeting, greeting()), (hear_call, CALL.encode())])
@pytest.mark.parametrize("count", [6, 1000])
async def test_an_opening_in_clear_to_somebody_with_a_key_is_told_so_at_once(
    pair: Any, hearing: Any, said: bytes, count: int
) -> None:
    keys: Any = Vestibule()
    pair[1].send(said[:count])
    with pytest.raises(KeyRefused, match="it has neither a key nor a phrase, and we have one") as caught:
        await hearing(pair[0], keys, HOST)
    assert caught.value.answer == Answer(Verdict.KEYED) and not keys.admitted


async def test_who_announces_a_greeting_to_a_tx_has_its_role(pair: Any) -> None:
    keys: Any = Vestibule(Opening.GREETING)
    pair[1].send(HELLO + greeting())
    with pytest.raises(OpeningRefused, match="it is a transmitter, as we are") as caught:
        await hear_call(pair[0], keys, HOST)
    assert caught.value.answer == Answer(Verdict.ROLE)


@pytest.mark.parametrize("step", [1, 1000])
async def test_behind_a_hello_what_was_announced_is_heard(pair: Any, step: int) -> None:
    keys: Any = Vestibule()
    task = asyncio.create_task(hear_greeting(pair[0], keys, "a host"))
    for start in range(0, len(HELLO), step):
        pair[1].send(HELLO[start : start + step])
        await asyncio.sleep(0)
    await until(lambda: keys.admitted)
    pair[1].send(greeting(5) + b"next")
    heard, channel = await task
    assert heard == decode_greeting_untrusted(greeting(5)) and channel.opening is Opening.GREETING
    assert keys.admitted == [(HELLO, "a host")] and pair[0].recv(10) == b"next"


async def test_who_announces_the_other_opening_has_our_role(pair: Any) -> None:
    keys: Any = Vestibule(Opening.CALL)
    pair[1].send(HELLO + CALL.encode())
    with pytest.raises(OpeningRefused, match="it is a receiver, as we are") as caught:
        await hear_greeting(pair[0], keys, HOST)
    assert caught.value.answer == Answer(Verdict.ROLE)
    assert caught.value.channel is not None, "it is told so behind the handshake, and nowhere else"


async def test_a_handshake_that_does_not_end(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GREETING_US", 20 * MS_US)
    keys: Any = Vestibule(hold=True)
    pair[1].send(HELLO)
    with pytest.raises(TimeoutError):
        await hear_greeting(pair[0], keys, HOST)
