"""Who comes with another key or phrase too often waits, and disturbs nobody else."""

import os
import socket

import pytest
from spake2 import SPAKE2_A

from tests.aio.drive import tcp_pair
from tests.aio.knocks import (
    ANOTHER,
    WRONG,
    Clock,
    admit,
    begun,
    comes_in,
    meet,
    recorded,
    verdict,
    with_key,
    with_phrase,
)
from viamillipede.aio import keys as module
from viamillipede.aio.channel import ClosedEarly
from viamillipede.aio.keys import PHRASE_US, PHRASES_BURST
from viamillipede.aio.refusals import KeyRefused
from viamillipede.config import S_US
from viamillipede.protocol.attempts import ATTEMPTS_BURST
from viamillipede.protocol.hello import MESSAGE_BYTES, Hello, Mode
from viamillipede.protocol.noise import NotSealedForUs
from viamillipede.protocol.wire import GREETING_BYTES, Verdict


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Of the keys."""
    made = Clock()
    monkeypatch.setattr(module, "now_us", lambda: made.now)
    return made


async def test_after_so_many_wrong_keys_a_host_waits_and_others_do_not(clock: Clock) -> None:
    listening = with_key()
    for _ in range(ATTEMPTS_BURST):
        assert verdict(await meet(with_key(ANOTHER), listening)) is Verdict.KEY
    for ours in (with_key(ANOTHER), with_key()):
        found = await meet(ours, listening)
        assert verdict(found) is Verdict.LATER and str(found[1]) == "too many have come with another key"
        assert not isinstance(found[1], KeyRefused), "nothing is known of it"
    assert await comes_in(with_key(), listening, "another host")
    clock.now += 1 * S_US
    assert await comes_in(with_key(), listening)


async def test_legs_that_belong_to_a_stream_are_not_held_up_by_that(clock: Clock) -> None:
    ours, theirs, _ = await begun()
    for _ in range(ATTEMPTS_BURST + 1):
        await meet(with_key(ANOTHER), theirs)
    assert await comes_in(ours, theirs)


async def test_who_pretends_to_belong_to_a_stream_costs_nobody_anything(clock: Clock) -> None:
    """Anybody on the way knows the handle."""
    ours, theirs, handle = await begun()
    for _ in range(2 * ATTEMPTS_BURST):
        here, there = tcp_pair()
        with here, there:
            here.sendall(Hello(Mode.JOIN, handle).encode() + os.urandom(MESSAGE_BYTES))
            here.shutdown(socket.SHUT_WR)
            with pytest.raises(KeyRefused):
                await admit(theirs, there, "host")
    assert await comes_in(ours, theirs) and await comes_in(with_key(), theirs)


async def test_wrong_phrases_of_everybody_together_are_limited(clock: Clock) -> None:
    listening = with_phrase()
    for number in range(PHRASES_BURST):
        assert verdict(await meet(with_phrase(WRONG), listening, f"host {number}")) is Verdict.KEY
    assert verdict(await meet(with_phrase(), listening, "one more")) is Verdict.LATER
    clock.now += PHRASE_US - 1
    assert verdict(await meet(with_phrase(), listening, "one more")) is Verdict.LATER
    clock.now += 1
    assert await comes_in(with_phrase(), listening, "one more")


async def test_a_right_phrase_is_given_back(clock: Clock) -> None:
    listening = with_phrase()
    for _ in range(3 * PHRASES_BURST):
        assert await comes_in(with_phrase(), listening)


async def test_phrases_that_are_tried_at_the_same_time_count_before_they_are_proved(clock: Clock) -> None:
    """Or a thousand connections could each make their guess."""
    listening, left = with_phrase(), []
    for _ in range(PHRASES_BURST):
        here, there = tcp_pair()
        left += [here, there]
        here.sendall(Hello(Mode.PHRASE).encode() + SPAKE2_A(WRONG, idA=b"viamillipede", idB=b"viamillipede").start())
        here.shutdown(socket.SHUT_WR)
        with pytest.raises(ClosedEarly):
            await admit(listening, there, "host")
    assert verdict(await meet(with_phrase(), listening, "another")) is Verdict.LATER
    for sock in left:
        sock.close()


async def test_a_hello_that_is_replayed_counts_and_its_opening_would_have_cleared_it(clock: Clock) -> None:
    """Else a recorded one could have the listener compute as often as somebody likes."""
    listening = with_key()
    async with recorded(listening) as (said, _):
        pass
    for _ in range(ATTEMPTS_BURST - 1):  # the one that was recorded has not proved itself here
        here, there = tcp_pair()
        with here, there:
            here.sendall(said)
            channel = await admit(listening, there, "host")
            with pytest.raises(NotSealedForUs):
                await channel.hear(GREETING_BYTES, "closed")
    assert verdict(await meet(with_key(), listening)) is Verdict.LATER
    assert await comes_in(with_key(), listening, "another host")


async def test_who_came_with_a_right_key_is_not_counted(clock: Clock) -> None:
    listening = with_key()
    for _ in range(3 * ATTEMPTS_BURST):
        assert await comes_in(with_key(), listening)


async def test_who_answers_cannot_guess_without_limit_either(clock: Clock) -> None:
    """Each of our messages tells whoever answers whether its guess was right."""
    ours = with_phrase()
    for _ in range(PHRASES_BURST):
        assert verdict(await meet(ours, with_phrase(WRONG))) is Verdict.KEY
    for answering in (with_phrase(WRONG), with_phrase()):
        found, _ = await meet(ours, answering)
        assert "too many have answered there who did not know the phrase" in str(found)
    clock.now += PHRASE_US
    assert await comes_in(ours, with_phrase())
    assert await comes_in(ours, with_phrase()), "what was proved does not count"
