"""Readiness: one suite for both pollers, in both loops. Callbacks fire once for each time they are asked for."""

import asyncio
import contextlib
import os
import select
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.aio.drive import Pipe, fill, tcp_pair, turns, until
from viamillipede.aio import poller as module
from viamillipede.aio.poller import READ, WRITE, EpollPoller, Poller, Watch, open_poller
from viamillipede.aio.sockets import close_with_reset

Pair = tuple[socket.socket, socket.socket]


class Watched:
    """A socket that notes what fires. `then`: what its callbacks do besides."""

    def __init__(self, poller: Poller, sock: socket.socket, then: Callable[[], None] = lambda: None) -> None:
        self.poller, self.sock, self.then = poller, sock, then
        self.fired: list[int] = []
        self.watch: Watch = poller.watch(sock.fileno(), lambda: self._on(READ), lambda: self._on(WRITE))

    def _on(self, event: int) -> None:
        self.fired.append(event)
        self.then()

    def want(self, *events: int) -> None:
        """As Poller.want, several at once."""
        for event in events:
            self.poller.want(self.watch, event)

    def close(self) -> None:
        """As a leg that is lost."""
        self.poller.forget(self.watch)
        self.sock.close()


@contextlib.contextmanager
def polling(kind: type[Poller]) -> Iterator[Poller]:
    """A poller of the running loop, closed at the end."""
    poller = kind(asyncio.get_running_loop())
    try:
        yield poller
    finally:
        poller.close()


async def test_a_callback_fires_once_for_each_want(poller_type: type[Poller], pair: Pair) -> None:
    with polling(poller_type) as poller:
        watched = Watched(poller, pair[0])
        pair[1].send(b"x")
        await turns()
        assert watched.fired == []  # not wanted yet
        for count in (1, 2):
            watched.want(READ, READ)  # twice is once
            await until(lambda: watched.fired)
            await turns()
            assert watched.fired == [READ] * count  # although it is still readable
        watched.close()


async def test_nothing_fires_before_its_time(poller_type: type[Poller], pair: Pair) -> None:
    with polling(poller_type) as poller:
        watched = Watched(poller, pair[0])
        fill(pair[0].send)
        watched.want(READ, WRITE)
        await turns()
        assert watched.fired == []
        pair[1].send(b"x")
        await until(lambda: watched.fired)
        assert watched.fired == [READ]
        while not watched.fired[1:]:  # the WRITE that is still wanted comes when the other end makes room
            with contextlib.suppress(BlockingIOError):
                pair[1].recv(1 << 20)
            await asyncio.sleep(0)
        await turns()
        assert watched.fired == [READ, WRITE]
        watched.close()


async def test_both_events_fire_each_once(poller_type: type[Poller], pair: Pair) -> None:
    with polling(poller_type) as poller:
        watched = Watched(poller, pair[0])
        pair[1].send(b"x")
        watched.want(WRITE, READ)
        await until(lambda: len(watched.fired) >= 2)
        await turns()
        assert sorted(watched.fired) == [READ, WRITE]
        watched.close()


@pytest.mark.parametrize("events", [(READ,), (WRITE,), (READ, WRITE)])
async def test_whoever_wants_anything_finds_out_about_the_end(
    poller_type: type[Poller], pair: Pair, events: tuple[int, ...]
) -> None:
    with polling(poller_type) as poller:
        watched = Watched(poller, pair[0])
        fill(pair[0].send)
        watched.want(*events)
        await turns()
        assert watched.fired == []
        close_with_reset(pair[1])
        await until(lambda: len(watched.fired) >= len(events))
        await turns()
        assert sorted(watched.fired) == list(events)
        watched.close()


@pytest.mark.parametrize("event", [READ, WRITE])
async def test_an_end_that_is_neither_readable_nor_writable_is_found(
    poller_type: type[Poller], pipe: Pipe, event: int
) -> None:
    """epoll says only that a pipe without writer hung up, and that a full one without reader has an error."""
    fired: list[int] = []
    os.set_blocking(pipe.write_fd, False)
    fill(lambda block: os.write(pipe.write_fd, block))
    with polling(poller_type) as poller:
        if event == READ:
            os.read(pipe.read_fd, 1 << 20)
        watched = poller.watch(
            pipe.read_fd if event == READ else pipe.write_fd, lambda: fired.append(READ), lambda: fired.append(WRITE)
        )
        poller.want(watched, event)
        await turns()
        assert fired == []
        (pipe.close_write if event == READ else pipe.close_read)()
        await until(lambda: fired)
        await turns()
        assert fired == [event]
        poller.forget(watched)


async def test_an_end_that_came_before_it_was_wanted_is_found(poller_type: type[Poller], pair: Pair) -> None:
    with polling(poller_type) as poller:
        watched = Watched(poller, pair[0])
        close_with_reset(pair[1])
        await turns()
        assert watched.fired == []
        watched.want(READ)
        await until(lambda: watched.fired)
        with pytest.raises(ConnectionResetError):
            pair[0].recv(1)
        watched.close()


async def test_one_event_can_be_forgotten_alone(poller_type: type[Poller], pair: Pair) -> None:
    with polling(poller_type) as poller:
        watched = Watched(poller, pair[0])
        watched.want(READ, WRITE)
        poller.forget(watched.watch, WRITE)
        await turns()
        assert watched.fired == []
        pair[1].send(b"x")
        await until(lambda: watched.fired)
        assert watched.fired == [READ]
        watched.want(WRITE)  # and asked for again
        await until(lambda: len(watched.fired) == 2)
        poller.forget(watched.watch)
        poller.forget(watched.watch)  # idempotent
        watched.close()


async def test_a_number_that_is_used_again_belongs_to_the_new_socket(poller_type: type[Poller]) -> None:
    with polling(poller_type) as poller:
        one, other = tcp_pair()
        old = Watched(poller, one)
        old.want(READ, WRITE)
        number = one.fileno()
        old.close()
        other.close()
        pair = tcp_pair()
        with pair[0], pair[1]:
            again = next(sock for sock in pair if sock.fileno() == number)
            peer = next(sock for sock in pair if sock is not again)
            new = Watched(poller, again)
            new.want(READ)
            await turns()
            assert new.fired == []
            peer.send(b"x")
            await until(lambda: new.fired)
            poller.forget(old.watch)  # too late to harm anybody
            new.want(READ)
            await until(lambda: len(new.fired) == 2)
            assert old.fired == []
            new.close()


async def test_a_callback_may_close_another_one_of_the_same_turn(poller_type: type[Poller]) -> None:
    pairs = [tcp_pair() for _ in range(3)]
    with polling(poller_type) as poller:
        watched: list[Watched] = []

        def close_all() -> None:
            for each in watched:
                each.close()

        watched += [Watched(poller, one, then=close_all) for one, _ in pairs]
        for each, (_, other) in zip(watched, pairs, strict=True):
            other.send(b"x")
            each.want(READ, WRITE)
        await until(lambda: any(each.fired for each in watched))
        await turns()
        assert sum(len(each.fired) for each in watched) == 1
    for _, other in pairs:
        other.close()


async def test_a_successor_opened_in_the_same_turn_is_served(poller_type: type[Poller]) -> None:
    victims = [tcp_pair(), tcp_pair()]
    with polling(poller_type) as poller, contextlib.ExitStack() as stack:
        watched: list[Watched] = []
        successors: list[Watched] = []

        def replace() -> None:
            if not successors:
                for each in watched:
                    each.close()
                one, other = tcp_pair()
                stack.enter_context(other)
                successors.append(Watched(poller, one))
                successors[0].want(READ)
                peers.append(other)

        peers: list[socket.socket] = []
        watched += [Watched(poller, one, then=replace) for one, _ in victims]
        for each, (_, other) in zip(watched, victims, strict=True):
            other.send(b"x")
            each.want(READ)
        await until(lambda: successors)
        await turns()
        new = successors[0]
        new.fired.clear()  # the number was in the same turn's list: one call too many is allowed, as ever
        new.want(READ)
        peers[0].send(b"x")
        await until(lambda: new.fired)
        assert new.sock.recv(2) == b"x"
        new.close()
    for _, other in victims:
        other.close()


async def test_a_callback_that_raises_costs_nobody_else_a_turn(poller_type: type[Poller]) -> None:
    pairs = [tcp_pair() for _ in range(3)]
    heard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context["exception"]))
    error = ZeroDivisionError("on purpose")

    def fail() -> None:
        raise error

    with polling(poller_type) as poller:
        watched = [Watched(poller, one, then=fail) for one, _ in pairs]
        for each, (_, other) in zip(watched, pairs, strict=True):
            other.send(b"x")
            each.want(READ, WRITE)
        await until(lambda: all(len(each.fired) == 2 for each in watched))
        await turns()
        assert heard == [error] * 6
        for each in watched:
            each.close()
    for _, other in pairs:
        other.close()


async def test_more_sockets_than_one_turn_takes(poller_type: type[Poller], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TURN_EVENTS", 4)
    with polling(poller_type) as poller, contextlib.ExitStack() as stack:
        watched = []
        for _ in range(21):
            one, other = tcp_pair()
            stack.enter_context(other)
            watched.append(Watched(poller, one))
            other.send(b"x")
            watched[-1].want(READ)
        await until(lambda: all(each.fired for each in watched))
        await turns()
        assert [each.fired for each in watched] == [[READ]] * 21
        for each in watched:
            each.close()


async def test_after_close_nothing_fires(poller_type: type[Poller], pair: Pair) -> None:
    with polling(poller_type) as poller:
        watched = Watched(poller, pair[0])
        watched.want(READ)
        poller.forget(watched.watch)
    pair[1].send(b"x")
    await turns()
    assert watched.fired == []


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="there is none here")
async def test_epoll_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.closing(open_poller(loop)) as best:
        assert type(best) is EpollPoller
    monkeypatch.setattr(module, "select", os)  # a module without epoll
    with contextlib.closing(open_poller(loop)) as other:
        assert type(other) is Poller
