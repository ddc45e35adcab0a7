"""Knock and admit over a connection: who has the key, the phrase or a leg's secret comes in, and nobody else."""

import asyncio
import base64
import os
import socket
import time
from typing import Any

import pytest
from spake2 import SPAKE2_B

from tests.aio.drive import Peer, greeting, tcp_pair
from tests.aio.knocks import (
    ANOTHER,
    KEY,
    PHRASE,
    WRONG,
    admit,
    begun,
    comes_in,
    hello_of,
    meet,
    recorded,
    together,
    verdict,
    with_key,
    with_phrase,
)
from viamillipede.aio import keys as module
from viamillipede.aio.channel import ClosedEarly, KnockRefused
from viamillipede.aio.keys import PHRASES_BURST, SLOW_NS, Keys
from viamillipede.aio.refusals import KeyRefused, OpeningRefused
from viamillipede.config import LEGS_MAX
from viamillipede.errors import FrameError
from viamillipede.protocol import hello
from viamillipede.protocol.hello import HELLO_BYTES, MESSAGE_BYTES, Hello, Mode
from viamillipede.protocol.noise import NotSealedForUs
from viamillipede.protocol.wire import GREETING_BYTES, TAG_BYTES, Answer, Opening, Verdict

# Who comes in -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [with_key, with_phrase])
@pytest.mark.parametrize("opening", [Opening.GREETING, Opening.CALL])
async def test_with_the_same_secret_both_directions_are_sealed(make: Any, opening: Opening) -> None:
    async with together(make(), make(), opening) as (here, there):
        assert there.opening is opening and here.secret == there.secret and len(here.secret) == 32
        for one, other in ((here, there), (there, here)):
            await one.say(greeting(5))
            assert await other.hear(GREETING_BYTES, "closed") == greeting(5)
        await here.say(greeting(6))
        record = await Peer(there.sock).exactly(GREETING_BYTES + TAG_BYTES)
        assert greeting(6)[:8] not in record and there.opener.opening(record) == greeting(6)


@pytest.mark.parametrize("make", [with_key, with_phrase])
async def test_two_connections_have_nothing_in_common(make: Any) -> None:
    ours, theirs = make(), make()
    async with together(ours, theirs) as (one, _), together(ours, theirs) as (other, _):
        assert one.secret != other.secret
        assert one.sealed(greeting()) != other.sealed(greeting())


@pytest.mark.parametrize(
    ("ours", "theirs", "words", "told"),
    [
        (with_key(), with_key(ANOTHER), "it has another key", Verdict.KEY),
        (with_phrase(), with_phrase(WRONG), "it has another phrase", Verdict.KEY),
        (with_key(), with_phrase(), "it comes with a key, and we have a phrase", Verdict.KEY),
        (with_phrase(), with_key(), "it comes with a phrase, and we have a key", Verdict.KEY),
    ],
    ids=["another key", "another phrase", "key to phrase", "phrase to key"],
)
async def test_whose_secret_is_another_hears_it(ours: Keys, theirs: Keys, words: str, told: Verdict) -> None:
    found = await meet(ours, theirs)
    assert verdict(found) is told
    assert isinstance(found[1], KeyRefused) and str(found[1]) == words


@pytest.mark.parametrize("make", [with_key, with_phrase])
async def test_who_listens_has_to_prove_it_as_well(make: Any, pair: Any) -> None:
    """It says ACCEPTED, and makes up the rest."""
    keys, peer = make(), Peer(pair[1])
    task = asyncio.create_task(keys.knock(pair[0], Opening.GREETING))
    if make is with_phrase:
        await peer.say(hello.encode_welcome() + SPAKE2_B(WRONG, idA=b"viamillipede", idB=b"viamillipede").start())
    await peer.say(hello.encode_welcome() + os.urandom(MESSAGE_BYTES))
    with pytest.raises(FrameError):
        await task


async def test_a_welcome_of_another_hello_is_refused(pair: Any) -> None:
    """What was recorded once: it answers another ephemeral key."""
    async with recorded(with_key()) as (_, welcome):
        await Peer(pair[1]).say(welcome)
        with pytest.raises(NotSealedForUs, match="it does not have our key"):
            await with_key().knock(pair[0], Opening.GREETING)


async def test_our_own_words_are_no_welcome(pair: Any) -> None:
    knocks = (with_key().knock(sock, Opening.GREETING) for sock in pair)
    found = await asyncio.gather(*knocks, return_exceptions=True)
    assert all(isinstance(each, FrameError) for each in found), found


@pytest.mark.parametrize("place", [6, 7, 8, 23, 24, 55, 56, 79])
async def test_no_changed_byte_of_a_hello_is_accepted(place: int, pair: Any) -> None:
    here, there = pair
    changing, changed = tcp_pair()
    with changing, changed:
        task = asyncio.create_task(with_key().knock(changing, Opening.GREETING))
        said = bytearray(await Peer(changed).exactly(HELLO_BYTES + MESSAGE_BYTES))
        said[place] ^= 1
        await Peer(here).say(bytes(said))
        here.shutdown(socket.SHUT_WR)
        with pytest.raises(FrameError):
            await admit(with_key(), there, "host")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_recorded_hello_brings_nobody_in(pair: Any) -> None:
    """It is answered, since it was good once; but what follows cannot be read, or said."""
    keys = with_key()
    async with recorded(keys) as (said, _):
        await Peer(pair[0]).say(said)
        channel = await admit(keys, pair[1], "host")
        assert channel.opener is not None
        with pytest.raises(NotSealedForUs):
            await channel.hear(GREETING_BYTES, "closed")


@pytest.mark.parametrize("count", [6, HELLO_BYTES - 1, HELLO_BYTES, HELLO_BYTES + MESSAGE_BYTES - 1])
async def test_a_hello_that_is_cut(count: int, pair: Any) -> None:
    await Peer(pair[0]).say((Hello(Mode.FIRST).encode() + bytes(MESSAGE_BYTES))[:count])
    pair[0].shutdown(socket.SHUT_WR)
    with pytest.raises(ClosedEarly, match="closed in its hello"):
        await admit(with_key(), pair[1], "host")


@pytest.mark.parametrize("message", [bytes(33), b"A" + bytes(32), b"B" + bytes(32), b"A" + b"\xff" * 32])
async def test_a_phrase_message_that_is_none(message: bytes, pair: Any) -> None:
    await Peer(pair[0]).say(Hello(Mode.PHRASE).encode() + message)
    with pytest.raises(FrameError, match="no phrase makes"):
        await admit(with_phrase(), pair[1], "host")


async def test_a_welcome_is_no_welcome_until_it_is_whole(pair: Any) -> None:
    await Peer(pair[1]).say(hello.encode_welcome())
    pair[1].shutdown(socket.SHUT_WR)
    with pytest.raises(ClosedEarly, match="closed before it answered"):
        await with_key().knock(pair[0], Opening.GREETING)


# Who belongs to a leg ---------------------------------------------------------------------------------------


async def test_later_legs_prove_that_they_belong_to_the_first_one() -> None:
    ours, theirs, handle = await begun()
    theirs._key = ANOTHER  # nobody looks at it any more
    async with together(ours, theirs) as (here, there):
        assert here.secret == there.secret == b"", "of such legs none makes a secret by which others belong to it"
        await here.say(greeting(1))
        assert await there.hear(GREETING_BYTES, "closed") == greeting(1)
        assert ours.on_leg(here.secret) == b""
    assert await hello_of(ours) == Hello(Mode.JOIN, handle)


async def test_legs_of_a_phrase_need_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs, _ = await begun(with_phrase)
    monkeypatch.setattr(module, "SPAKE2_A", None)
    for _ in range(2 * PHRASES_BURST):
        assert await comes_in(ours, theirs)


async def test_a_handle_alone_is_worth_nothing() -> None:
    ours, theirs, _ = await begun()
    ours._join = os.urandom(32)
    handle = next(iter(theirs._joins))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_handle", lambda secret: handle)
        found = await meet(ours, theirs)
    assert verdict(found) is Verdict.KEY and isinstance(found[1], KeyRefused)


@pytest.mark.parametrize("make", [with_key, with_phrase])
async def test_who_dials_keeps_to_its_first_leg_and_who_listens_knows_all(make: Any) -> None:
    ours, theirs, handle = await begun(make)
    assert not theirs._join and not ours._joins, "either would be a way in that nobody uses"
    assert ours.on_leg(os.urandom(32)) == b"" and not ours._joins, "of another address, before there was a stream"
    assert await hello_of(ours) == Hello(Mode.JOIN, handle)
    another = theirs.on_leg(os.urandom(32))
    assert set(theirs._joins) == {handle, another} and not theirs._join
    assert (await hello_of(theirs)).mode is not Mode.JOIN


@pytest.mark.parametrize("make", [with_key, with_phrase])
async def test_a_stream_that_is_not_known_is_said_to_be_unknown(make: Any) -> None:
    ours, theirs, handle = await begun(make)
    theirs.forget(handle)
    theirs.forget(handle)
    for _ in range(3):
        found = await meet(ours, theirs)
        assert verdict(found) is Verdict.UNKNOWN
        assert isinstance(found[1], OpeningRefused) and not isinstance(found[1], KeyRefused)


@pytest.mark.parametrize("make", [with_key, with_phrase])
@pytest.mark.parametrize("told", [verdict for verdict in Verdict if verdict is not Verdict.ACCEPTED])
async def test_no_refusal_makes_it_come_with_its_key_or_phrase_again(make: Any, told: Verdict) -> None:
    """Anybody can forge one: who has the key could take the stream over then, and phrases could be guessed."""
    ours, theirs, handle = await begun(make)
    for _ in range(3):
        here, there = tcp_pair()
        with here, there:
            await Peer(there).say(Answer(told).encode())
            with pytest.raises(KnockRefused) as caught:
                await ours.knock(here, Opening.GREETING)
            assert caught.value.answer.verdict is told
        assert await hello_of(ours) == Hello(Mode.JOIN, handle)
    theirs._key = theirs._phrase = ANOTHER
    assert await comes_in(ours, theirs)


async def test_the_secrets_that_are_kept_are_bounded_and_the_oldest_goes() -> None:
    keys = with_key()
    handles = [keys.on_leg(number.to_bytes(32)) for number in range(1, LEGS_MAX + 10)]
    assert len(set(handles)) == len(handles) and len(keys._joins) == LEGS_MAX
    assert handles[0] not in keys._joins and handles[-1] in keys._joins


# What is said of it -----------------------------------------------------------------------------------------


async def test_nothing_secret_is_shown() -> None:
    for make, data in ((with_key, KEY), (with_phrase, PHRASE)):
        ours, theirs = make(dials=True), make()
        async with together(ours, theirs) as (here, there):
            ours.on_leg(here.secret)
            theirs.on_leg(there.secret)
            states = here.export()
            assert states is not None
            shown = " ".join(map(repr, (ours, theirs, here, there, here.sealer, here.opener, states))) + str(states)
            for secret in (data, here.secret, states.ours[1], states.theirs[1]):
                for form in (secret.hex(), repr(secret)[2:-1], base64.b64encode(secret).decode()):
                    assert form not in shown


@pytest.mark.parametrize(("took", "bits"), [({1: 5, 2: 20}, 3), ({1: 20, 2: 5}, 2)], ids=["AES", "ChaCha"])
def test_the_suites_are_those_that_suit_the_processor(
    took: dict[int, int], bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "trial_ns", lambda: took)
    assert with_key()._suites == bits


def test_each_suite_is_tried_and_the_best_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0, 9, 10, 17, 20, 28, 30, 39, 0, 90, 100, 150, 200, 280, 300, 360])
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(times))
    assert module.trial_ns() == {1: 7, 2: 50}
    monkeypatch.undo()
    assert all(took > 0 for took in module.trial_ns().values())


@pytest.mark.parametrize(("took", "slow"), [(SLOW_NS, False), (SLOW_NS + 1, True)])
async def test_where_the_suite_of_a_leg_is_slow(took: int, slow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "trial_ns", lambda: {1: took, 2: took + 1000})
    ours = with_key()
    async with together(ours, with_key()) as (here, _):
        assert here.sealer.suite == "AESGCM" and ours.is_slow(here) is slow
