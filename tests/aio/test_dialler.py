"""Dialling for either role: what the session wants is attempted, and each way to fail is told to it in words."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.aio.drive import HOST, nonblocking_server, turns, until
from viamillipede.aio.channel import AnotherVersion, ClosedEarly, KnockRefused
from viamillipede.aio.clock import now_us
from viamillipede.aio.dialler import Dialler
from viamillipede.aio.log import Log
from viamillipede.config import MS_US, Address, RxConfig
from viamillipede.errors import FrameError, SessionRefused
from viamillipede.protocol.contact import Contact
from viamillipede.protocol.wire import VERSION, Answer, Verdict


@dataclass
class Up:
    """A leg that is up."""

    rank: int
    doubted: bool = False


class Session(Contact):
    """Wants two legs. `failed`: what it was told of attempts."""

    role, other, opening = "dialler", "listener", "hello"

    def __init__(self, port: int) -> None:
        addresses = (Address(HOST, port),)
        self.legs: dict[int, Up] = {}
        super().__init__(RxConfig(addresses=addresses), None, self.legs, 0)
        self.set_out(addresses, [2], moving=False)
        self.failed: list[tuple[str, bool]] = []

    def on_attempt_failed(
        self, rank: int, reason: str, refused: bool, now_us: int, jitter: float, reached: bool = False
    ) -> None:
        """See Contact."""
        self.failed.append((reason, refused))
        super().on_attempt_failed(rank, reason, refused, now_us, jitter, reached)


class Stage:
    """What a dialler needs of a program. `result`: what comes of an introduction."""

    def __init__(self, port: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.log = Log("rx", 0)
        self.session = Session(port)
        self.dialler = Dialler(self, self.session, None, self.introduce)  # type: ignore[arg-type]
        self.tasks: set[asyncio.Task[None]] = set()
        self.errors: list[BaseException] = []
        self.result: str | Exception = ""
        self.met: list[tuple[socket.socket, int, int]] = []
        self.wanted = True

    def wants_legs(self) -> bool:
        """As Program.wants_legs."""
        return self.wanted

    def spawn(self, coroutine: Any) -> "asyncio.Task[None]":
        """As Program.spawn."""
        task = asyncio.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: "asyncio.Task[None]") -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.errors.append(error)

    async def introduce(self, sock: socket.socket, leg: int, rank: int) -> str:
        """As the test says."""
        self.met.append((sock, leg, rank))
        if isinstance(self.result, Exception):
            raise self.result
        if not self.result:
            self.session.legs[leg] = Up(rank)
        return self.result


@contextlib.asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """A dialler, and a server that takes whatever comes."""
    with nonblocking_server() as server:
        made = Stage(server.getsockname()[1])
        try:
            yield made
        finally:
            made.wanted = False
            for task in list(made.tasks):
                task.cancel()
            await asyncio.gather(*made.tasks, return_exceptions=True)
            for sock, _, _ in made.met:
                sock.close()


async def test_what_is_wanted_is_dialled_and_an_owned_socket_stays_open() -> None:
    async with stage() as made:
        made.dialler.dial()
        assert made.session.dialling.under_way == {0: 0, 1: 0}
        await until(lambda: len(made.met) == 2 and not made.tasks)
        await turns()
        assert sorted((leg, rank) for _, leg, rank in made.met) == [(0, 0), (1, 0)]
        assert made.session.failed == [] and not made.session.dialling.under_way
        assert all(sock.fileno() >= 0 for sock, _, _ in made.met)


@pytest.mark.parametrize(
    ("result", "reason", "refused"),
    [
        ("the listener is busy", "the listener is busy", False),
        (FrameError("not viamillipede"), "no viamillipede listener: not viamillipede", False),
        (ClosedEarly("closed before it answered"), "closed before it answered", True),
        (TimeoutError(), "connected, but no answer", False),
        (ConnectionResetError(104, "reset"), "Connection reset by peer", True),
        (OSError(113, "unreachable"), "No route to host", False),
    ],
)
async def test_each_way_to_fail(result: Any, reason: str, refused: bool) -> None:
    async with stage() as made:
        made.result = result
        made.dialler.dial()
        await until(lambda: made.session.failed)
        assert made.session.failed[0] == (reason, refused)
        assert made.met[0][0].fileno() < 0  # closed
        await until(lambda: made.session.book.states[0].failures >= 1)


async def test_who_speaks_another_version_is_refused_for_good() -> None:
    async with stage() as made:
        made.result = AnotherVersion(9)
        made.dialler.dial()
        await until(lambda: made.errors)
        assert isinstance(made.errors[0], SessionRefused)
        assert f"the listener speaks version 9 of the protocol, we {VERSION}" in str(made.errors[0])
        assert made.met[0][0].fileno() < 0


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (Verdict.KEY, "the listener has another key, or a phrase; both sides need the same"),
        (Verdict.KEYLESS, "the listener has neither a key nor a phrase, and we have a key; say it there too"),
    ],
)
async def test_who_has_another_key_refuses_for_good(verdict: Verdict, words: str) -> None:
    async with stage() as made:
        made.result = KnockRefused(Answer(verdict))
        made.dialler.dial()
        await until(lambda: made.errors)
        assert isinstance(made.errors[0], SessionRefused) and words in str(made.errors[0])
        assert made.met[0][0].fileno() < 0


@pytest.mark.parametrize("verdict", [Verdict.KEY, Verdict.KEYED, Verdict.KEYLESS, Verdict.UNKNOWN, Verdict.LATER])
async def test_once_there_was_contact_a_refusal_that_anybody_can_forge_is_one_more_try(verdict: Verdict) -> None:
    async with stage() as made:
        made.session.on_reached(0)
        made.result = KnockRefused(Answer(verdict))
        made.dialler.dial()
        await until(lambda: made.session.failed and not made.tasks)
        assert not made.errors and made.session.book.states[0].failures >= 1


@pytest.mark.parametrize("verdict", [Verdict.KEY, Verdict.KEYED, Verdict.KEYLESS, Verdict.UNKNOWN, Verdict.LATER])
async def test_alone_only_who_does_not_know_our_stream_says_that_ours_is_gone(verdict: Verdict) -> None:
    """As if its port refused: it may be another process there, or nobody's word but that of who is on the way."""
    async with stage() as made:
        session = made.session
        session.on_reached(0)
        session.on_cut_off(0, True, False, now_us(), 0.5)
        made.result = KnockRefused(Answer(verdict))
        made.dialler.dial()
        await until(lambda: session.failed and not made.tasks)
        unknown = verdict is Verdict.UNKNOWN
        assert session.failed[0][1] is unknown and session.presence.gone is unknown
        assert not made.errors and made.met[0][0].fileno() < 0
        words = "the listener does not know our stream; it may have been started anew"
        assert (session.failed[0][0] == words) is unknown


async def test_before_the_first_contact_who_does_not_know_our_stream_is_tried_again() -> None:
    async with stage() as made:
        made.result = KnockRefused(Answer(Verdict.UNKNOWN))
        made.dialler.dial()
        await until(lambda: made.session.failed and not made.tasks)
        assert not made.errors and not made.session.presence.gone
        made.result = ""
        while not made.session.legs:
            made.dialler.dial()
            await asyncio.sleep(0.001)


async def test_nobody_listens() -> None:
    with socket.socket() as closed:
        closed.bind((HOST, 0))
        made = Stage(closed.getsockname()[1])
        made.dialler.dial()
        await until(lambda: made.session.failed)
        assert made.session.failed[0] == ("Connection refused", True)
        made.wanted = False
        await until(lambda: not made.tasks)


async def test_when_no_leg_is_wanted_any_more_nothing_is_dialled_and_no_failure_counts() -> None:
    async with stage() as made:
        made.result = ClosedEarly("closed before it answered")
        made.dialler.dial()
        made.wanted = False
        await until(lambda: len(made.met) == 2 and not made.tasks)
        assert made.session.failed == []
        made.dialler.dial()
        made.dialler.dial_soon()
        made.dialler.dial_soon()
        await turns()
        assert len(made.met) == 2


async def test_an_attempt_that_is_cancelled_closes_its_socket() -> None:
    async with stage() as made:
        forever = asyncio.Event()

        async def wait(sock: socket.socket, leg: int, rank: int) -> str:
            made.met.append((sock, leg, rank))
            await forever.wait()
            return ""

        made.dialler._introduce = wait
        made.dialler.dial()
        await until(lambda: len(made.met) == 2)
        made.wanted = False
        for task in list(made.tasks):
            task.cancel()
        await until(lambda: not made.tasks)
        assert all(sock.fileno() < 0 for sock, _, _ in made.met)


async def test_an_attempt_from_before_the_first_contact_is_not_waited_for_much_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("viamillipede.aio.dialler.ANSWER_US", 50 * MS_US)
    async with stage() as made:
        silent = asyncio.Event()

        async def introduce(sock: socket.socket, leg: int, rank: int) -> str:
            made.met.append((sock, leg, rank))
            if len(made.met) <= 2 and leg == 0:
                await silent.wait()  # an answer that never comes
            made.session.legs[leg] = Up(rank)
            if not made.session.presence.contacted:
                made.session.on_reached(rank)
            return ""

        made.dialler = Dialler(made, made.session, None, introduce)  # type: ignore[arg-type]
        made.dialler.dial()
        await until(lambda: 1 in made.session.legs)
        assert 0 in made.session.dialling.under_way
        made.dialler.dial()  # as each tick does
        await until(lambda: 0 in made.session.legs)
        assert [leg for _, leg, _ in made.met].count(0) == 2 and made.session.failed == []
