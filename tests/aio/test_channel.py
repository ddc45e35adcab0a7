"""A connection that is no leg yet, in clear and sealed: what is heard of it, and who goes on with it."""

import asyncio
import pickle
import socket
from typing import Any

import pytest

from tests.aio.drive import RECEIVER, Peer, greeting
from viamillipede.aio.channel import AnotherVersion, Channel, ClosedEarly, Sealed, hear
from viamillipede.config import MIB
from viamillipede.errors import FrameError
from viamillipede.protocol.noise import CipherState, NotSealedForUs
from viamillipede.protocol.sealing import Opener, Sealer
from viamillipede.protocol.wire import (
    ANSWER_BYTES,
    GREETING_BYTES,
    TAG_BYTES,
    VERSION,
    Answer,
    Kind,
    Verdict,
    encode_control,
)

ONE, OTHER = bytes(range(32)), bytes(range(32, 64))
ACCEPTED = Answer(Verdict.ACCEPTED, 0, RECEIVER, 64 * MIB).encode()


def sealed(pair: Any) -> tuple[Channel, Channel]:
    """Both ends of a sealed one."""

    def end(sock: socket.socket, ours: bytes, theirs: bytes) -> Channel:
        return Channel(sock, Sealer(CipherState("AESGCM", ours)), Opener(CipherState("AESGCM", theirs)), b"s" * 32)

    return end(pair[0], ONE, OTHER), end(pair[1], OTHER, ONE)


def clear(pair: Any) -> tuple[Channel, Channel]:
    """Both ends of one in clear."""
    return Channel(pair[0]), Channel(pair[1])


@pytest.mark.parametrize("kind", [clear, sealed])
@pytest.mark.parametrize("step", [1, 7, 1000])
async def test_what_is_said_is_heard_in_any_pieces(pair: Any, kind: Any, step: int) -> None:
    here, there = kind(pair)
    task = asyncio.create_task(there.hear(GREETING_BYTES, "closed"))
    said = here.sealed(greeting(5))
    for start in range(0, len(said), step):
        pair[0].send(said[start : start + step])
        await asyncio.sleep(0)
    assert await task == greeting(5)
    await there.say(ACCEPTED, greeting(6))
    assert await here.hear(ANSWER_BYTES, "closed") == ACCEPTED
    assert await here.hear(GREETING_BYTES, "closed") == greeting(6)


@pytest.mark.parametrize("kind", [clear, sealed])
async def test_nothing_behind_it_is_taken(pair: Any, kind: Any) -> None:
    here, there = kind(pair)
    await here.say(greeting())
    pair[0].send(b"next")
    await there.hear(GREETING_BYTES, "closed")
    assert pair[1].recv(10) == b"next"


async def test_a_sealed_one_says_nothing_in_clear(pair: Any) -> None:
    here, _ = sealed(pair)
    await here.say(greeting(), ACCEPTED)
    crossed = await Peer(pair[1]).exactly(GREETING_BYTES + ANSWER_BYTES + 2 * TAG_BYTES)
    assert b"vmlp" not in crossed and RECEIVER not in crossed
    message = encode_control(Kind.DONE, 0, 77)
    assert len(here.sealed_messages(message)) == len(message) + TAG_BYTES
    assert Channel(pair[0]).sealed_messages(message) == message


@pytest.mark.parametrize("kind", [clear, sealed])
async def test_who_closes_too_early_is_told_apart(pair: Any, kind: Any) -> None:
    here, there = kind(pair)
    pair[0].send(here.sealed(greeting())[:-1])
    pair[0].shutdown(socket.SHUT_WR)
    with pytest.raises(ClosedEarly, match="in the middle"):
        await there.hear(GREETING_BYTES, "in the middle")


async def test_what_is_not_sealed_is_not_heard(pair: Any) -> None:
    _, there = sealed(pair)
    await Peer(pair[0]).say(greeting() + bytes(TAG_BYTES))
    with pytest.raises(NotSealedForUs):
        await there.hear(GREETING_BYTES, "closed")


@pytest.mark.parametrize("kind", [clear, sealed])
async def test_another_version_is_noticed(pair: Any, kind: Any) -> None:
    here, there = kind(pair)
    await here.say(bytes([*b"vmlp", VERSION + 1]).ljust(ANSWER_BYTES, b"\0"))
    with pytest.raises(AnotherVersion, match=f"speaks version {VERSION + 1} of the protocol, we {VERSION}"):
        await there.hear(ANSWER_BYTES, "closed")


async def test_what_was_heard_already_counts(pair: Any) -> None:
    pair[0].send(b"lp" + bytes([VERSION]))
    assert await hear(pair[1], 5, "closed", b"vm") == bytes([*b"vmlp", VERSION])


async def test_noise_is_refused_as_it_comes_but_not_where_anything_may_come(pair: Any) -> None:
    pair[0].send(b"GET")
    with pytest.raises(FrameError, match="not viamillipede"):
        await hear(pair[1], 100, "closed")
    pair[0].send(b"GET")
    assert await hear(pair[1], 3, "closed", check=False) == b"GET"


async def test_another_process_goes_on_with_it(pair: Any) -> None:
    here, there = sealed(pair)
    await here.say(greeting())
    await there.hear(GREETING_BYTES, "closed")
    assert clear(pair)[0].export() is None and Channel.imported(pair[1], None).opener is None
    later = Channel.imported(pair[1], pickle.loads(pickle.dumps(there.export())))
    await here.say(greeting(1))
    assert await later.hear(GREETING_BYTES, "closed") == greeting(1)
    await later.say(ACCEPTED)
    assert await here.hear(ANSWER_BYTES, "closed") == ACCEPTED
    assert later.secret == b"", "by which others belong to it: only who has made it knows"


async def test_nothing_of_the_keys_is_shown(pair: Any) -> None:
    here, _ = sealed(pair)
    shown = f"{here!r} {here} {here.export()!r} {here.export()}"
    assert "sealed" in shown and "Sealed(...)" in shown
    assert repr(ONE)[2:-1] not in shown and ONE.hex() not in shown and "sss" not in shown
    assert isinstance(here.export(), Sealed)
