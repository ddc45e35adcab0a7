"""The first words on a connection: call, greeting, answer; each within GREETING_US, checked before it is believed.

Where there is a key, whoever dials proves before that it has it, and hears that proved; see keys.py.

    tx dials, rx listens                        rx dials, tx listens
    tx: greeting                                rx: call
    rx: answer                                  tx: answer, and if it accepts, greeting
                                                rx: answer

Whoever listens and refuses says why, in an answer.
"""

import asyncio
import socket
from typing import TYPE_CHECKING

from viamillipede.aio.channel import AnotherVersion, Channel, hear
from viamillipede.aio.refusals import KeyRefused, OpeningRefused
from viamillipede.config import GREETING_US, S_US, Config
from viamillipede.protocol.wire import (
    ANSWER_BYTES,
    GREETING_BYTES,
    OPENING_BYTES,
    PREFIX_BYTES,
    Answer,
    Call,
    Greeting,
    ImpossibleOpening,
    Opening,
    Verdict,
    decode_answer_untrusted,
    decode_call_untrusted,
    decode_greeting_untrusted,
)

if TYPE_CHECKING:  # else who has no key would wait for the library
    from viamillipede.aio.keys import Keys


# Hearing ---------------------------------------------------------------------------------------
async def _enter(sock: socket.socket, wanted: Opening, keys: "Keys | None", host: str) -> tuple[Channel, bytearray]:
    """The channel on which the opening is said, and what of that was heard; who lacks our key does not come in."""
    noun, verb = ("greeting", "greeted") if wanted is Opening.GREETING else ("call", "called")
    first = await hear(sock, 1, f"closed before it {verb}")
    head = await hear(sock, PREFIX_BYTES + 1, f"closed in its {noun}", first)
    if head[PREFIX_BYTES] == Opening.HELLO:
        if keys is None:
            raise KeyRefused("it has a key or a phrase, and we have neither", Verdict.KEYLESS)
        return await keys.admit(sock, head, host), bytearray()
    if keys is not None:
        raise KeyRefused("it has neither a key nor a phrase, and we have one", Verdict.KEYED)
    opening = Opening(head[PREFIX_BYTES]) if head[PREFIX_BYTES] in OPENING_BYTES else wanted
    return Channel(sock, opening=opening), head


async def _hear_opening(
    sock: socket.socket, wanted: Opening, keys: "Keys | None", host: str
) -> tuple[Greeting | Call, Channel]:
    """What a new connection opens with; of the kind that is wanted, or OpeningRefused."""
    noun = wanted.name.lower()
    channel = Channel(sock)
    try:
        async with asyncio.timeout(GREETING_US / S_US):
            channel, head = await _enter(sock, wanted, keys, host)
            opening = wanted if channel.opening is None else channel.opening
            said = await channel.hear(OPENING_BYTES[opening], f"closed in its {noun}", head)
        found = decode_greeting_untrusted(said) if opening is Opening.GREETING else decode_call_untrusted(said)
    except AnotherVersion as error:
        raise OpeningRefused(f"it {error}", Answer(Verdict.VERSION), channel) from error
    except ImpossibleOpening as error:
        raise OpeningRefused(str(error), Answer(Verdict.MALFORMED), channel) from error
    if opening is not wanted:
        role = "receiver" if opening is Opening.CALL else "transmitter"
        raise OpeningRefused(f"it is a {role}, as we are", Answer(Verdict.ROLE), channel)
    return found, channel


async def hear_greeting(sock: socket.socket, keys: "Keys | None", host: str) -> tuple[Greeting, Channel]:
    """rx listens: the greeting of a new connection. FrameError, OpeningRefused, OSError, TimeoutError."""
    greeting, channel = await _hear_opening(sock, Opening.GREETING, keys, host)
    assert isinstance(greeting, Greeting)
    return greeting, channel


async def hear_call(sock: socket.socket, keys: "Keys | None", host: str) -> tuple[Call, Channel]:
    """tx listens: the call of a new connection. FrameError, OpeningRefused, OSError, TimeoutError."""
    found, channel = await _hear_opening(sock, Opening.CALL, keys, host)
    assert isinstance(found, Call)
    return found, channel


async def _hear_answer(channel: Channel) -> Answer:
    return decode_answer_untrusted(await channel.hear(ANSWER_BYTES, "closed before it answered"))


# Keys ------------------------------------------------------------------------------------------
def open_keys(config: Config) -> "Keys | None":
    """What a program with this configuration proves its right with; None: it has neither key nor phrase."""
    if config.key is None and config.phrase is None:
        return None
    from viamillipede.aio.keys import Keys

    return Keys(config)


# Asking ----------------------------------------------------------------------------------------
async def enter(sock: socket.socket, keys: "Keys | None", opening: Opening, lasts_us: int = GREETING_US) -> Channel:
    """We have dialled, and will say `opening`. KnockRefused, FrameError, OSError, TimeoutError."""
    if keys is None:
        return Channel(sock)
    async with asyncio.timeout(lasts_us / S_US):
        return await keys.knock(sock, opening)


async def greet(channel: Channel, *messages: bytes, lasts_us: int = GREETING_US) -> Answer:
    """tx: greet, with tx's own answer before if rx has called; rx's answer. FrameError, OSError, TimeoutError."""
    async with asyncio.timeout(lasts_us / S_US):
        await channel.say(*messages)
        return await _hear_answer(channel)


async def call(channel: Channel, message: bytes, lasts_us: int = GREETING_US) -> tuple[Answer, Greeting | None]:
    """rx: call; tx's answer, and its greeting if it has accepted. FrameError, OSError, TimeoutError."""
    async with asyncio.timeout(lasts_us / S_US):
        await channel.say(message)
        answer = await _hear_answer(channel)
        if answer.verdict is not Verdict.ACCEPTED:
            return answer, None
        return answer, decode_greeting_untrusted(await channel.hear(GREETING_BYTES, "closed before it greeted"))
