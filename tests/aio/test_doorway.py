"""Connections that another process has accepted: handed over with what they have said and where they come from."""

import asyncio
import os
import pickle
import socket
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any, cast

import pytest

from tests.aio.drive import SESSION, turns, until
from tests.aio.test_command import Heard
from viamillipede.aio.channel import Channel
from viamillipede.aio.doorway import DONE, MESSAGE_BYTES_MAX, MESSAGES_PER_TURN, Doorway, hand_over, pair, read_news
from viamillipede.aio.program import Program
from viamillipede.aio.refusals import OpeningRefused
from viamillipede.config import MIB, NAME_BYTES_MAX, Address
from viamillipede.errors import PeerLost
from viamillipede.protocol.noise import CipherState
from viamillipede.protocol.sealing import Opener, Sealer
from viamillipede.protocol.wire import ANSWER_BYTES, GREETING_BYTES, Answer, Greeting, Verdict, decode_answer_untrusted
from viamillipede.views.snapshot import Leg, Snapshot, Waits

GREETING = Greeting(SESSION, 3, bytes(8), b"abcd", 1, 64 * MIB, MIB, "n" * NAME_BYTES_MAX)
Taken = tuple[Channel, Address, Greeting]


class Surroundings:
    """What a doorway wants of its program."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.log = Heard()
        self.failures: list[BaseException] = []
        self.tasks: list[asyncio.Task[None]] = []

    def fail(self, error: BaseException) -> None:
        """See Program."""
        self.failures.append(error)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """See Program."""
        self.tasks.append(asyncio.create_task(coroutine))


class Open:
    """A doorway, and what came in by it."""

    def __init__(self, on_greeting: Callable[..., None] | None = None) -> None:
        self.outside, inside = pair()
        self.outside.setblocking(False)
        self.program, self.taken = Surroundings(), cast(list[Taken], [])
        self.doorway = Doorway(cast(Program, self.program), inside, on_greeting or self._take)
        self.doorway.start()

    def _take(self, *taken: Any) -> None:
        self.taken.append(cast(Taken, taken))

    def close(self) -> None:
        """The test is over."""
        self.doorway.stop()
        self.doorway.stop()
        self.outside.close()
        for channel, *_ in self.taken:
            channel.sock.close()


@pytest.fixture
def two() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        yield ours, theirs


def snapshot() -> Snapshot:
    """One with many legs."""
    leg = Leg(**{field: 0 for field in Leg.__dataclass_fields__})  # type: ignore[arg-type]
    numbers = {name: 0 for name in Snapshot.__dataclass_fields__}
    return replace(Snapshot(**numbers), role="rx", waits=Waits(), legs=(leg,) * 2000)  # type: ignore[arg-type]


# Connections ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%eth0"])
async def test_a_connection_comes_with_its_greeting_and_its_address(host: str, two: Any) -> None:
    ours, theirs = two
    opened = Open()
    hand_over(opened.outside, Channel(theirs), Address(host, 4711), GREETING)
    theirs.close()
    await until(lambda: opened.taken)
    (channel, address, greeting) = opened.taken[0]
    sock = channel.sock
    assert (address, greeting) == (Address(host, 4711), GREETING)
    assert sock.gettimeout() == 0
    ours.sendall(b"still the same one")
    await turns()
    assert sock.recv(100) == b"still the same one"
    opened.close()


async def test_a_sealed_connection_goes_on_where_it_was(two: Any) -> None:
    ours, theirs = two
    ours.setblocking(False)
    one, other = (bytes([number]) * 32 for number in (1, 2))
    here = Channel(ours, Sealer(CipherState("AESGCM", one)), Opener(CipherState("AESGCM", other)))
    there = Channel(theirs, Sealer(CipherState("AESGCM", other)), Opener(CipherState("AESGCM", one)))
    await here.say(GREETING.encode())
    theirs.setblocking(False)
    await there.hear(GREETING_BYTES, "closed")
    opened = Open()
    hand_over(opened.outside, there, Address("h", 1), GREETING)
    theirs.close()
    await until(lambda: opened.taken)
    taken, _, _ = opened.taken[0]
    await taken.say(Answer(Verdict.BUSY).encode())
    assert decode_answer_untrusted(await here.hear(ANSWER_BYTES, "closed")) == Answer(Verdict.BUSY)
    await here.say(GREETING.encode())
    assert await taken.hear(GREETING_BYTES, "closed") == GREETING.encode()
    opened.close()


async def test_many_come_at_once() -> None:
    opened, count = Open(), 2 * MESSAGES_PER_TURN + 1
    with socket.socket() as sock:
        for port in range(count):
            hand_over(opened.outside, Channel(sock), Address("h", port), GREETING)
    await until(lambda: len(opened.taken) == count)
    assert [address.port for _, address, _ in opened.taken] == list(range(count))
    opened.close()


async def test_more_than_it_takes_are_an_error_and_no_wait() -> None:
    opened = Open()
    opened.doorway._program.loop.remove_reader(opened.doorway._doorway.fileno())
    with socket.socket() as sock, pytest.raises(BlockingIOError):
        for port in range(10_000):
            hand_over(opened.outside, Channel(sock), Address("h", port), GREETING)
    opened.close()


async def test_who_is_refused_hears_why(two: Any) -> None:
    def refuse(*_: Any) -> None:
        raise OpeningRefused("the reason", Answer(Verdict.BUSY))

    ours, theirs = two
    opened = Open(refuse)
    hand_over(opened.outside, Channel(theirs), Address("h", 1), GREETING)
    theirs.close()
    ours.setblocking(False)
    answer = await asyncio.get_running_loop().sock_recv(ours, ANSWER_BYTES)
    assert decode_answer_untrusted(answer).verdict is Verdict.BUSY
    ours.close()
    await asyncio.gather(*opened.program.tasks)
    assert opened.program.log.said == ["refused a connection from h:1: the reason"]
    opened.close()


async def test_a_connection_that_breaks_is_no_failure_of_the_stream(two: Any) -> None:
    def fail(channel: Channel, *_: Any) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    ours, theirs = two
    opened = Open(fail)
    hand_over(opened.outside, Channel(theirs), Address("h", 1), GREETING)
    theirs.close()
    ours.setblocking(False)
    assert await asyncio.get_running_loop().sock_recv(ours, 1) == b"", "it was closed"
    await asyncio.gather(*opened.program.tasks)
    assert opened.program.log.said[0].startswith("refused a connection from h:1: ") and not opened.program.failures
    opened.close()


async def test_a_connection_that_got_lost_costs_only_itself(two: Any) -> None:
    """There was no descriptor left for it."""
    opened = Open()
    opened.outside.send(GREETING.encode() + b"1 h")
    hand_over(opened.outside, Channel(two[1]), Address("h", 2), GREETING)
    await until(lambda: opened.taken)
    assert [address.port for _, address, _ in opened.taken] == [2]
    assert opened.program.log.said == ["a connection was lost: too many descriptors are open"]
    opened.close()


@pytest.mark.parametrize("read", [True, False])
async def test_the_end_of_who_listens_is_noticed_once(read: bool) -> None:
    """Also when it had not read all that it was told, which is another end for the kernel."""
    opened = Open()
    opened.doorway.tell_done()
    if read:
        assert read_news(opened.outside) == DONE
    opened.outside.close()
    await until(lambda: opened.program.failures)
    await turns()
    assert len(opened.program.failures) == 1 and isinstance(opened.program.failures[0], PeerLost)
    opened.doorway.tell_done()
    assert opened.program.log.said[-1].startswith("who listens was not told: ")
    opened.close()


async def test_nothing_can_be_handed_over_to_who_has_ended() -> None:
    opened = Open()
    opened.doorway.stop()
    with socket.socket() as sock, pytest.raises(BrokenPipeError):
        hand_over(opened.outside, Channel(sock), Address("h", 1), GREETING)
    opened.close()


# News -------------------------------------------------------------------------------------------------------


async def test_news_are_done_or_how_things_stand_or_the_end() -> None:
    opened, whole = Open(), snapshot()
    with pytest.raises(BlockingIOError):
        read_news(opened.outside)
    opened.doorway.tell(whole)
    opened.doorway.tell_done()
    opened.doorway.tell(whole)
    without = replace(whole, legs=())
    assert [read_news(opened.outside) for _ in range(3)] == [without, DONE, without]
    opened.doorway.stop()
    assert read_news(opened.outside) is None
    opened.close()


async def test_news_that_nobody_reads_hold_up_nothing() -> None:
    opened = Open()
    opened.doorway.tell(snapshot())
    for _ in range(10_000):
        opened.doorway.tell_done()
        if opened.program.log.said:
            break
    assert opened.program.log.said == ["who listens was not told: Resource temporarily unavailable"]
    assert isinstance(read_news(opened.outside), Snapshot)
    opened.close()


async def test_a_message_may_be_long() -> None:
    one, other = pair()
    with one, other:
        text = pickle.dumps(os.urandom(MESSAGE_BYTES_MAX - 100))
        one.send(text)
        one.send(b"next")
        assert other.recv(MESSAGE_BYTES_MAX) == text and other.recv(MESSAGE_BYTES_MAX) == b"next"
