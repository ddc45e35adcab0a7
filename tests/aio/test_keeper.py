"""The listening process of an rx that keeps on serving; the processes of its streams are played by hand."""

import asyncio
import os
import pickle
import select
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest

from tests.aio.drive import HOST, SESSION, Peer, connect, greeting, turns, until
from tests.aio.knocks import KEY, with_key
from tests.aio.played import PlayedSpawner
from tests.aio.test_doorway import snapshot
from viamillipede.aio import keeper as module
from viamillipede.aio.doorway import DONE
from viamillipede.aio.keeper import ENDED_MAX, Keeper
from viamillipede.aio.log import VERBOSE_STEPS
from viamillipede.aio.spawner import Ended, Spawner
from viamillipede.aio.systemd import Service
from viamillipede.config import LEGS_MAX, MS_US, RxConfig, Secret
from viamillipede.errors import HungUp, LimitReached, PeerLost, Terminated
from viamillipede.protocol.wire import (
    ANSWER_BYTES,
    Opening,
    Verdict,
    decode_answer_untrusted,
)


class Play:
    """A keeper that runs, its spawner, and who connects."""

    def __init__(self, **words: Any) -> None:
        self.spawner = PlayedSpawner()
        config = RxConfig(**({"verbose": 0, "bind": HOST, "keep": True, "command": ("cat",)} | words))  # type: ignore[arg-type]
        self.keeper = Keeper(config, cast(Spawner, self.spawner), Service.taken(dict(os.environ)))
        self.said: list[str] = []
        self.keeper.log.say = lambda level, text: self.said.append(text)  # type: ignore[method-assign]
        self.task = asyncio.create_task(self.keeper.run())
        self.socks: list[socket.socket] = []

    async def come(self, leg: int = 0, **values: Any) -> Peer:
        """Connect and greet."""
        assert self.keeper.receiver.port
        peer = await connect(self.keeper.receiver.port)
        self.socks.append(peer.sock)
        await peer.say(greeting(leg, **values))
        return peer

    async def verdict(self, leg: int = 0, **values: Any) -> Verdict:
        """Greet, and be refused by the keeper itself."""
        peer = await self.come(leg, **values)
        answer = decode_answer_untrusted(await peer.exactly(ANSWER_BYTES))
        peer.sock.close()
        return answer.verdict

    async def begin(self, session: int, **values: Any) -> int:
        """The first leg of a stream; its number."""
        number = len(self.spawner.labels) + 1
        await self.come(session=bytes([session]) * 16, **values)
        await until(lambda: len(self.spawner.labels) == number)
        sock, _, _ = await self.spawner.handed(number)
        sock.close()
        return number

    async def end(self, number: int, status: int = 0) -> None:
        """The process of a stream has ended."""
        self.spawner.doorways[number].close()
        self.spawner.tell(Ended(number, status))
        await until(lambda: number not in self.keeper.streams)


@asynccontextmanager
async def play(**words: Any) -> AsyncIterator[Play]:
    """However the test goes, all is given back."""
    made = Play(**words)
    await turns()
    try:
        yield made
    finally:
        made.keeper.fail(Terminated("the test is over"))
        made.keeper.hurry.set()
        await asyncio.gather(made.task, return_exceptions=True)
        for stream in made.keeper.streams.values():
            made.keeper._forget(stream)
        made.keeper.loop.remove_reader(made.spawner.fileno())
        made.keeper.close(lambda: "closed")
        made.spawner.close()
        for sock in made.socks:
            sock.close()


# Who comes --------------------------------------------------------------------------------------------------


async def test_a_connection_is_handed_to_its_stream_and_is_open_nowhere_else() -> None:
    async with play(streams=2) as made:
        first = await made.come(0, name="db1")
        await until(lambda: made.spawner.labels)
        sock, heard, address = await made.spawner.handed(1)
        assert (heard.session, heard.leg, heard.name) == (SESSION, 0, "db1")
        assert (address.host, address.port) == first.sock.getsockname()[:2]
        await made.come(1, name="db1", receiver=b"receiver")
        again, heard, _ = await made.spawner.handed(1)
        assert heard.leg == 1 and made.spawner.labels == ["db1"]
        for each in (sock, again):
            each.close()
        assert await first.end() == b"", "the keeper has kept nothing of it"


async def test_streams_are_told_apart_and_named() -> None:
    async with play(streams=2) as made:
        assert await made.begin(1) == 1
        assert await made.begin(2, name="db1") == 2
        assert made.spawner.labels == ["01010101", "db1"]
        assert [stream.session[0] for stream in made.keeper.streams.values()] == [1, 2]


async def test_what_the_legs_of_a_stream_belong_together_by_is_kept_once_and_as_long_as_it_lasts() -> None:
    async with play(streams=2, key=Secret(KEY)) as made:
        keys, ours = made.keeper.keys, with_key(dials=True)
        assert keys is not None
        for leg in range(3):
            peer = await connect(made.keeper.receiver.port)
            made.socks.append(peer.sock)
            channel = await ours.knock(peer.sock, Opening.GREETING)
            await channel.say(greeting(leg))
            await until(lambda: made.spawner.labels)
            await until(lambda: select.select([made.spawner.doorways[1]], [], [], 0)[0])
            for fd in socket.recv_fds(made.spawner.doorways[1], 1000, 1)[1]:
                os.close(fd)
            ours.on_leg(channel.secret)
        (stream,) = made.keeper.streams.values()
        await until(lambda: len(stream.handles) == 1)
        assert stream.handles == [*keys._joins] and not keys._join
        await made.end(1)
        assert not keys._joins


@pytest.mark.parametrize(
    "values, verdict",
    [
        ({"checkphrase": b"else"}, Verdict.CHECKPHRASE),
        ({"leg": LEGS_MAX}, Verdict.MALFORMED),
        ({"receiver": b"somebody"}, Verdict.UNKNOWN),
        ({"name": "web1"}, Verdict.NAME),
        ({"name": "DB1"}, Verdict.NAME),
        ({"name": ""}, Verdict.NAME),
    ],
)
async def test_who_is_refused_at_once(values: dict[str, Any], verdict: Verdict) -> None:
    async with play(names="db*", checkphrase=b"true") as made:
        right: dict[str, Any] = {"checkphrase": b"true", "name": "db1"}
        assert await made.verdict(**(right | values)) is verdict
        await until(lambda: made.keeper.strangers == 1)
        assert not made.spawner.labels
        await made.come(0, **right)
        await until(lambda: made.spawner.labels == ["db1"])


async def test_a_stranger_is_counted() -> None:
    async with play() as made:
        peer = await connect(made.keeper.receiver.port)
        made.socks.append(peer.sock)
        await peer.say(b"GET / HTTP/1.1\r\n\r\n")
        await until(lambda: made.keeper.strangers == 1)
        assert not made.spawner.labels


async def test_more_streams_than_it_serves_are_told_busy_until_one_is_done() -> None:
    async with play(streams=2) as made:
        one, _ = await made.begin(1), await made.begin(2)
        assert await made.verdict(session=b"3" * 16) is Verdict.BUSY
        made.spawner.doorways[one].send(DONE)
        await until(lambda: not made.keeper.streams[one].active)
        await made.begin(3)  # though the process of the first is still there
        assert await made.verdict(session=b"4" * 16) is Verdict.BUSY
        await made.end(3)
        await made.begin(4)


async def test_legs_of_a_stream_that_is_done_go_to_it_until_it_has_ended() -> None:
    """Its transmitter may not know yet."""
    async with play() as made:
        one = await made.begin(1)
        made.spawner.doorways[one].send(DONE)
        await until(lambda: not made.keeper.streams[one].active)
        await made.come(1, session=bytes([1]) * 16, receiver=b"receiver")
        sock, heard, _ = await made.spawner.handed(one)
        assert heard.leg == 1
        sock.close()


@pytest.mark.parametrize("status", [0, 7, 137])
async def test_a_stream_that_has_ended_does_not_begin_again(status: int) -> None:
    async with play() as made:
        await made.end(await made.begin(1), status)
        assert await made.verdict(session=bytes([1]) * 16) is Verdict.UNKNOWN
        await made.begin(2)


async def test_a_stream_that_never_began_may_come_again() -> None:
    """It found no transmitter, or could not be forked."""
    async with play() as made:
        await made.end(await made.begin(1), 9)
        assert await made.begin(1) == 2


async def test_only_the_latest_streams_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ENDED_MAX >= 1000
    monkeypatch.setattr(module, "ENDED_MAX", 2)
    async with play() as made:
        for session in (1, 2, 3):
            await made.end(await made.begin(session))
        assert await made.verdict(session=bytes([2]) * 16) is Verdict.UNKNOWN
        assert await made.verdict(session=bytes([3]) * 16) is Verdict.UNKNOWN
        await made.begin(1)


async def test_a_leg_for_a_stream_that_is_just_ending_is_closed() -> None:
    async with play() as made:
        one = await made.begin(1)
        made.spawner.doorways[one].close()
        await until(lambda: made.keeper.streams[one].doorway.fileno() < 0)
        peer = await made.come(1, session=bytes([1]) * 16)
        assert await peer.end() == b""
        await made.end(one)


async def test_a_stream_that_cannot_be_started_is_not_there() -> None:
    async with play() as made:
        made.spawner.refuses = True
        peer = await made.come()
        assert await peer.end() == b"" and not made.keeper.streams
        assert not made.task.done()


# How they end -----------------------------------------------------------------------------------------------


async def test_the_ends_are_counted_and_told() -> None:
    async with play(streams=3) as made:
        for session, status in ((1, 0), (2, 7), (3, 0)):
            await made.begin(session, name=f"db{session}")
            await made.end(session, status)
        assert made.keeper.outcomes == {0: 2, 7: 1}
        told = [line for line in made.said if "stream db" in line and "begins" not in line]
        assert told == ["stream db1: complete", "stream db2: failed with status 7", "stream db3: complete"]


@pytest.mark.parametrize("failure, number", [(Terminated("x"), 15), (HungUp("x"), 1), (LimitReached("x"), 15)])
async def test_its_own_end_is_that_of_all(failure: Exception, number: int) -> None:
    """It leaves last, also when there was a time without streams before."""
    async with play(streams=2) as made:
        await made.end(await made.begin(1))
        await made.begin(2)
        await made.begin(3)
        made.keeper.fail(failure)
        await asyncio.gather(made.task, return_exceptions=True)
        assert made.spawner.signals == [number]
        settling = asyncio.create_task(made.keeper.settle())
        await made.end(2, 128 + number)
        await turns()
        assert not settling.done()
        await made.end(3, 128 + number)
        await settling
        assert sum(made.keeper.outcomes.values()) == 3


async def test_a_second_signal_is_passed_on() -> None:
    async with play() as made:
        await made.begin(1)
        made.keeper._on_stop(Terminated("x"))
        await asyncio.gather(made.task, return_exceptions=True)
        settling = asyncio.create_task(made.keeper.settle())
        await turns()
        made.keeper._on_stop(Terminated("x"))
        await until(lambda: made.spawner.signals == [signal.SIGTERM, signal.SIGTERM])
        await turns()
        assert not settling.done() and not made.keeper.hurry.is_set()
        await made.end(1, 143)
        await settling


async def test_streams_that_do_not_end_are_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "END_US", 50 * MS_US)
    async with play() as made:
        await made.begin(1)
        made.keeper.fail(Terminated("x"))
        await asyncio.gather(made.task, return_exceptions=True)
        await made.keeper.settle()


async def test_without_streams_there_is_nothing_to_settle() -> None:
    async with play() as made:
        made.keeper.fail(Terminated("x"))
        await asyncio.gather(made.task, return_exceptions=True)
        await made.keeper.settle()


async def test_without_the_spawner_it_ends() -> None:
    async with play() as made:
        await made.begin(1)
        made.spawner.refuses = True
        made.spawner.tell(None)
        with pytest.raises(PeerLost, match="the process that forks the streams has ended"):
            await made.task
        await made.keeper.settle()


async def test_who_comes_while_it_ends_is_told_busy() -> None:
    async with play(streams=2) as made:
        hold = asyncio.Event()

        async def farewell(failure: BaseException | None) -> None:
            await hold.wait()

        made.keeper.farewell = farewell  # type: ignore[method-assign]
        made.keeper.fail(Terminated("x"))
        assert await made.verdict() is Verdict.BUSY
        hold.set()


@pytest.mark.parametrize("when", ["at first", "after a stream"])
async def test_the_wait_is_for_who_comes_next(when: str) -> None:
    async with play(wait_us=300 * MS_US) as made:
        if when == "after a stream":
            await made.begin(1)
            await asyncio.sleep(0.5)  # what is tested is that nothing happens then
            assert not made.task.done()
            await made.end(1)
        with pytest.raises(LimitReached, match=r"no transmitter came within 0\.3 s"):
            await made.task


# How things stand -------------------------------------------------------------------------------------------


async def test_a_dump_is_for_all() -> None:
    async with play(streams=3) as made:
        await made.end(await made.begin(1), 7)
        await made.begin(2, name="db2")
        await made.begin(3, name="db3")
        made.spawner.doorways[2].send(DONE)
        await until(lambda: not made.keeper.streams[2].active)
        first, *streams = made.keeper.dump().splitlines()
        assert first == f"viamillipede rx: pid {os.getpid()}, 2 streams; ended: 1 with status 7"
        assert streams == ["  stream db2: done", "  stream db3: running"]
        assert made.spawner.signals == [signal.SIGUSR1]
        made.keeper.on_step()
        assert made.spawner.signals[-1] == signal.SIGUSR2 and made.keeper.log.verbose == VERBOSE_STEPS[1]


async def test_each_streams_latest_figures_are_kept() -> None:
    async with play() as made:
        await made.begin(1)
        assert made.keeper._snapshots() == ()
        for moved in (1, 2):
            figures = replace(snapshot(), legs=(), moved_bytes=moved)
            made.spawner.doorways[1].send(pickle.dumps(figures))
        await until(lambda: made.keeper._snapshots() and made.keeper._snapshots()[0].moved_bytes == 2)
        await made.end(1)
        assert made.keeper._snapshots() == ()
