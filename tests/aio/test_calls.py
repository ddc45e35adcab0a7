"""rx dials, in this process: the tx that it calls is played by hand."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.aio.drive import (
    SESSION,
    Peer,
    Pipe,
    data,
    end,
    finish,
    greeting,
    nonblocking_server,
    receiving,
    take,
    until,
)
from viamillipede.config import MIB
from viamillipede.errors import Interrupted, PeerLost, SessionRefused
from viamillipede.protocol.wire import (
    ANSWER_BYTES,
    CALL_BYTES,
    Answer,
    Call,
    Kind,
    Verdict,
    decode_answer_untrusted,
    decode_call_untrusted,
    decode_reason,
    encode_legs,
)

# rx dials -----------------------------------------------------------------------------------------------------


async def called(server: socket.socket, verdict: Verdict = Verdict.ACCEPTED) -> tuple[Peer, Call]:
    """A connection of rx, and its call; answered like this."""
    sock, _ = await asyncio.get_running_loop().sock_accept(server)
    peer = Peer(sock)
    try:
        call = decode_call_untrusted(await peer.exactly(CALL_BYTES))
        receiver, window = (call.receiver, 64 * MIB) if verdict is Verdict.ACCEPTED else (bytes(8), 0)
        await peer.say(Answer(verdict, 0, receiver, window).encode())
    except BaseException:
        sock.close()
        raise
    return peer, call


async def greeted(server: socket.socket, session: bytes = SESSION) -> tuple[Peer, Call]:
    """A leg: rx has called, was greeted, and has accepted."""
    peer, call = await called(server)
    await peer.say(greeting(call.leg, session=session))
    answer = decode_answer_untrusted(await peer.exactly(ANSWER_BYTES))
    assert answer.verdict is Verdict.ACCEPTED and answer.receiver == call.receiver
    return peer, call


@contextlib.asynccontextmanager
async def dialled(pipe: Pipe, **words: Any) -> AsyncIterator[tuple[Any, "asyncio.Task[None]", Peer, socket.socket]]:
    """An rx with one leg, on which five bytes have come."""
    with nonblocking_server() as server:
        async with receiving(pipe.write_fd, server.getsockname()[1], **words) as (program, task, _):
            peer, call = await greeted(server)
            assert (call.leg, call.rank, call.ranks) == (0, 0, 1)
            with peer.sock:
                await peer.say(data(0, 0, b"hello"))
                assert await take(pipe.read_fd, 5) == b"hello"
                yield program, task, peer, server


async def test_a_stream_that_rx_has_called_for(pipe: Pipe) -> None:
    async with dialled(pipe) as (program, task, peer, _):
        await peer.say(data(1, 5, b" world") + end(2, 11))
        assert await take(pipe.read_fd) == b" world"
        await finish(peer, task, 11)
        assert program.session.legs_most == 1 and program.listener is None


async def test_rx_dials_what_tx_wishes_for_at_once(pipe: Pipe) -> None:
    async with dialled(pipe) as (program, task, peer, server):
        await peer.say(encode_legs(1, True, [3]))
        with contextlib.ExitStack() as stack:
            numbers = set()
            for _ in range(2):
                other, call = await greeted(server)
                stack.enter_context(other.sock)
                numbers.add(call.leg)
            assert numbers == {1, 2}
            await until(lambda: len(program.connections) == 3)
            await peer.say(end(1, 5))
            await finish(peer, task, 5)


async def test_a_leg_that_breaks_is_dialled_again_and_takes_its_place(pipe: Pipe) -> None:
    async with dialled(pipe) as (program, task, peer, server):
        peer.sock.close()
        again, call = await greeted(server)
        with again.sock:
            assert call.leg == 0
            await again.say(end(1, 5))
            await finish(again, task, 5)
        assert program.session.restarts == 1


async def test_a_leg_that_is_doubted_is_dialled_beside_and_superseded(pipe: Pipe) -> None:
    async with dialled(pipe) as (program, task, peer, server):
        connection = next(iter(program.connections.values()))
        connection.leg.doubted = True
        program.dialler.dial()
        fresh, call = await greeted(server)
        with fresh.sock:
            assert call.leg == 0
            await until(lambda: not connection.open)
            await peer.end()
            await fresh.say(end(1, 5))
            await finish(fresh, task, 5)


async def test_a_connection_that_broke_is_doubted_at_once(pipe: Pipe) -> None:
    async with dialled(pipe) as (program, _, _, server):
        connection = next(iter(program.connections.values()))
        connection._watch.on_readable = lambda: None  # as with an output that is blocked
        connection.sock.shutdown(socket.SHUT_WR)
        connection.tell(b"x")
        assert connection.leg.doubted
        connection.sample(0)
        fresh, _ = await greeted(server)
        fresh.sock.close()


async def test_done_is_said_to_a_tx_that_lost_its_legs_because_rx_calls_it(pipe: Pipe) -> None:
    async with dialled(pipe) as (_, task, peer, server):
        await peer.say(end(1, 5))
        await peer.hear(Kind.DONE)
        peer.sock.close()
        late, _ = await greeted(server)
        with late.sock:
            await finish(late, task, 5)


async def test_rx_that_fails_tells_it_on_a_leg_that_comes_late_too(pipe: Pipe) -> None:
    async with dialled(pipe) as (_, task, peer, server):
        await peer.say(encode_legs(1, True, [2]))
        late, _ = await called(server)
        with late.sock:
            os.kill(os.getpid(), signal.SIGINT)
            assert decode_reason((await peer.hear(Kind.REFUSAL))[1]) == "interrupted"
            await late.say(greeting(1))
            assert decode_answer_untrusted(await late.exactly(ANSWER_BYTES)).verdict is Verdict.ACCEPTED
            assert decode_reason((await late.hear(Kind.REFUSAL))[1]) == "interrupted"
        peer.sock.close()
        with pytest.raises(Interrupted):
            await task


async def test_rx_that_fails_calls_once_more_where_its_leg_may_be_dead(pipe: Pipe) -> None:
    async with dialled(pipe) as (program, task, peer, server):
        next(iter(program.connections.values())).leg.doubted = True
        os.kill(os.getpid(), signal.SIGINT)
        await peer.hear(Kind.REFUSAL)  # it has failed by now
        fresh, _ = await greeted(server)
        with fresh.sock:
            assert decode_reason((await fresh.hear(Kind.REFUSAL))[1]) == "interrupted"
        with pytest.raises(Interrupted):
            await task


@pytest.mark.parametrize("verdict", [Verdict.VERSION, Verdict.CHECKPHRASE, Verdict.ROLE])
async def test_a_refusal_that_is_final(pipe: Pipe, verdict: Verdict) -> None:
    with nonblocking_server() as server:
        async with receiving(pipe.write_fd, server.getsockname()[1]) as (_, task, _):
            peer, _ = await called(server, verdict)
            with peer.sock, pytest.raises(SessionRefused):
                await task


async def test_a_busy_tx_is_asked_again(pipe: Pipe) -> None:
    with nonblocking_server() as server:
        async with receiving(pipe.write_fd, server.getsockname()[1]) as (program, task, _):
            peer, _ = await called(server, Verdict.BUSY)
            with peer.sock:
                await until(lambda: program.session.book.failures())
            assert "busy" in program.session.book.failures()[0]
            again, _ = await greeted(server)
            with again.sock:
                await again.say(end(0, 0))
                await finish(again, task, 0)


async def test_a_tx_that_was_started_anew_is_told_and_ends_rx(pipe: Pipe) -> None:
    async with dialled(pipe) as (_, task, peer, server):
        peer.sock.close()
        other, _ = await called(server)
        with other.sock:
            await other.say(greeting(0, session=bytes(15) + b"x"))
            assert decode_answer_untrusted(await other.exactly(ANSWER_BYTES)) == Answer(Verdict.BUSY)
            other.sock.shutdown(socket.SHUT_WR)
            with pytest.raises(PeerLost, match="the transmitter was started anew"):
                await task
