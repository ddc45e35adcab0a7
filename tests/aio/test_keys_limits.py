"""Who comes with another key or phrase too often waits, and disturbs nobody else."""

import asyncio
import contextlib
import os
import socket

import pytest
from spake2 import SPAKE2_A, SPAKE2_B

from tests.aio.drive import Peer, tcp_pair, until
from tests.aio.knocks import (
    ANOTHER,
    WRONG,
    Clock,
    admit,
    begun,
    comes_in,
    meet,
    recorded,
    together,
    verdict,
    with_key,
    with_phrase,
)
from viamillipede.aio import keys as module
from viamillipede.aio.channel import Channel, ClosedEarly
from viamillipede.aio.keys import PHRASE_US, PHRASES_BURST
from viamillipede.aio.refusals import KeyRefused, OpeningRefused
from viamillipede.errors import FrameError
from viamillipede.protocol.attempts import ATTEMPT_US, ATTEMPTS_BURST
from viamillipede.protocol.hello import (
    HELLO_BYTES,
    MESSAGE_BYTES,
    PHRASE_BYTES,
    Hello,
    Mode,
    encode_welcome,
)
from viamillipede.protocol.noise import NotSealedForUs
from viamillipede.protocol.wire import GREETING_BYTES, Answer, Opening, Verdict


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
    for _ in range(2 * ATTEMPTS_BURST):  # these do not make it any worse
        found = await meet(with_key(ANOTHER), listening)
        assert verdict(found) is Verdict.LATER and str(found[1]) == "it has come with another key too often"
        assert not isinstance(found[1], KeyRefused), "of whom that has been said before"
    assert verdict(await meet(with_key(ANOTHER), listening, "another host")) is Verdict.KEY
    clock.now += ATTEMPT_US - 1
    assert verdict(await meet(with_key(ANOTHER), listening)) is Verdict.LATER
    clock.now += 1
    assert verdict(await meet(with_key(ANOTHER), listening)) is Verdict.KEY
    assert verdict(await meet(with_key(ANOTHER), listening)) is Verdict.LATER


async def test_who_has_the_key_comes_in_at_once_whatever_others_of_the_host_have_tried(clock: Clock) -> None:
    listening = with_key()
    for _ in range(3 * ATTEMPTS_BURST):
        assert not await comes_in(with_key(ANOTHER), listening)
    for _ in range(3):
        assert await comes_in(with_key(), listening)
    assert verdict(await meet(with_key(ANOTHER), listening)) is Verdict.LATER, "that has made up for nothing"


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
    assert await comes_in(ours, theirs)
    assert verdict(await meet(with_key(ANOTHER), theirs)) is Verdict.KEY


async def test_wrong_phrases_of_everybody_together_are_limited(clock: Clock) -> None:
    listening = with_phrase()
    for number in range(PHRASES_BURST):
        assert verdict(await meet(with_phrase(WRONG), listening, f"host {number}")) is Verdict.KEY
    assert verdict(await meet(with_phrase(), listening, "one more")) is Verdict.LATER
    clock.now += PHRASE_US - 1
    assert verdict(await meet(with_phrase(), listening, "one more")) is Verdict.LATER
    clock.now += 1
    assert await comes_in(with_phrase(), listening, "one more")


async def test_a_right_phrase_is_given_back_as_soon_as_it_is_proved(clock: Clock) -> None:
    """Whatever comes of the connection then."""
    listening = with_phrase()
    for _ in range(3 * PHRASES_BURST):
        async with together(with_phrase(), listening):
            pass
    for _ in range(PHRASES_BURST):
        assert verdict(await meet(with_phrase(WRONG), listening)) is Verdict.KEY
    assert verdict(await meet(with_phrase(WRONG), listening)) is Verdict.LATER


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


async def test_who_has_said_no_more_than_that_it_has_a_phrase_counts_before_anything_is_computed(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening = with_phrase()
    monkeypatch.setattr(module, "SPAKE2_B", None)
    with contextlib.ExitStack() as stack:
        coming = []
        for _ in range(3 * PHRASES_BURST):
            here, there = (stack.enter_context(sock) for sock in tcp_pair())
            here.sendall(Hello(Mode.PHRASE).encode())
            coming.append(asyncio.create_task(admit(listening, there, "host")))
        await until(lambda: sum(task.done() for task in coming) >= 2 * PHRASES_BURST)
        waiting = [task for task in coming if not task.done()]
        assert len(waiting) == PHRASES_BURST
        for task in waiting:
            task.cancel()
        for refused in await asyncio.gather(*coming, return_exceptions=True):
            if not isinstance(refused, asyncio.CancelledError):
                assert isinstance(refused, OpeningRefused) and refused.answer == Answer(Verdict.LATER)
                assert str(refused) == "too many have come with another phrase"


async def test_wrong_phrases_at_the_same_time_are_as_many_guesses_as_one_after_the_other(clock: Clock) -> None:
    listening = with_phrase()
    found = await asyncio.gather(*(meet(with_phrase(WRONG), listening, f"{n}") for n in range(3 * PHRASES_BURST)))
    told = [verdict(each) for each in found]
    assert told.count(Verdict.KEY) == PHRASES_BURST and told.count(Verdict.LATER) == 2 * PHRASES_BURST


async def test_a_hello_that_is_replayed_does_not_count(clock: Clock) -> None:
    """It has the key, though not whoever says it again; that one cannot make the host of the other wait."""
    listening = with_key()
    async with recorded(listening) as (said, _):
        pass
    for _ in range(3 * ATTEMPTS_BURST):
        here, there = tcp_pair()
        with here, there:
            here.sendall(said)
            channel = await admit(listening, there, "host")
            with pytest.raises(NotSealedForUs):
                await channel.hear(GREETING_BYTES, "closed")
    assert await comes_in(with_key(), listening)
    for _ in range(ATTEMPTS_BURST):
        assert verdict(await meet(with_key(ANOTHER), listening)) is Verdict.KEY


async def test_who_came_with_a_right_key_is_not_counted(clock: Clock) -> None:
    listening = with_key()
    for _ in range(3 * ATTEMPTS_BURST):
        assert await comes_in(with_key(), listening)
    for _ in range(ATTEMPTS_BURST):
        assert verdict(await meet(with_key(ANOTHER), listening)) is Verdict.KEY
    assert verdict(await meet(with_key(ANOTHER), listening)) is Verdict.LATER, "nor does it make up for others"


async def test_who_answers_cannot_guess_without_limit_either(clock: Clock) -> None:
    """Each of our messages tells whoever answers whether its guess was right."""
    ours = with_phrase(dials=True)
    for _ in range(PHRASES_BURST):
        assert verdict(await meet(ours, with_phrase(WRONG))) is Verdict.KEY
    for answering in (with_phrase(WRONG), with_phrase()):
        found, _ = await meet(ours, answering)
        assert "too many have answered there who did not know the phrase" in str(found)
    clock.now += PHRASE_US
    for _ in range(2 * PHRASES_BURST):
        assert await comes_in(ours, with_phrase()), "what was proved does not count"


async def test_who_answers_our_knocks_at_the_same_time_cannot_guess_more_often(clock: Clock) -> None:
    """Nobody is told whether a guess was right before all of them have guessed."""
    ours, heard, guessed = with_phrase(dials=True), [], asyncio.Event()
    count = 3 * PHRASES_BURST

    async def guess(sock: socket.socket) -> bool:
        """An impostor's. Whether it is told something by which it can tell whether that was right."""
        peer = Peer(sock)
        heard.append(await peer.exactly(HELLO_BYTES + PHRASE_BYTES))
        if len(heard) == count:
            guessed.set()
        await guessed.wait()
        await peer.say(encode_welcome() + SPAKE2_B(WRONG, idA=b"viamillipede", idB=b"viamillipede").start())
        with sock:
            try:
                return len(await peer.exactly(MESSAGE_BYTES)) > 0
            except EOFError:
                return False

    async def knock(sock: socket.socket) -> Channel:
        with sock:
            return await ours.knock(sock, Opening.GREETING)

    pairs = [tcp_pair() for _ in range(count)]
    guesses = asyncio.gather(*(guess(there) for _, there in pairs))
    knocks = asyncio.gather(*(knock(here) for here, _ in pairs), return_exceptions=True)
    assert (await guesses).count(True) == PHRASES_BURST
    refused = await knocks
    assert all(isinstance(each, FrameError) for each in refused)
    assert sum("too many have answered" in str(each) for each in refused) == count - PHRASES_BURST
