"""tx listens, in this process: its callers played by hand, and then both programs at once."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.aio.drive import (
    HOST,
    RECEIVER,
    Peer,
    Pipe,
    all_arrived,
    connect,
    give,
    receiving,
    take,
    transmitting,
    turns,
    until,
)
from viamillipede.aio import last_word as module
from viamillipede.config import KIB, MIB, MS_US
from viamillipede.errors import Interrupted, RemoteFailed
from viamillipede.protocol.wire import (
    ANSWER_BYTES,
    GREETING_BYTES,
    Answer,
    Call,
    Greeting,
    Kind,
    Verdict,
    decode_answer_untrusted,
    decode_greeting_untrusted,
    decode_legs_untrusted,
    decode_reason,
    encode_control,
    encode_reason,
)


@pytest.fixture
def output() -> Iterator[Pipe]:
    """A second pipe, for rx to write to."""
    made = Pipe(*os.pipe())
    yield made
    made.close()


# tx listens -----------------------------------------------------------------------------------------------------


async def call_to(port: int, leg: int = 0, rank: int = 0, ranks: int = 1) -> tuple[Peer, Greeting]:
    """A leg that tx has accepted and greeted, and that was answered."""
    peer = await connect(port)
    try:
        await peer.say(Call(RECEIVER, leg, rank, ranks, bytes(4)).encode())
        answer = decode_answer_untrusted(await peer.exactly(ANSWER_BYTES))
        assert (answer.verdict, answer.receiver) == (Verdict.ACCEPTED, RECEIVER)
        heard = decode_greeting_untrusted(await peer.exactly(GREETING_BYTES))
        assert (heard.leg, heard.receiver) == (leg, RECEIVER)
        await peer.say(Answer(Verdict.ACCEPTED, 0, RECEIVER, 64 * MIB).encode() + all_arrived(0, 0))
    except BaseException:
        peer.sock.close()
        raise
    return peer, heard


@contextlib.asynccontextmanager
async def listening(pipe: Pipe, **words: Any) -> AsyncIterator[tuple[Any, "asyncio.Task[None]", Peer, int]]:
    """A tx with one leg, and its port."""
    async with transmitting(pipe.read_fd, bind=HOST, **words) as (program, task):
        assert program.listener is not None
        port = program.listener.port
        peer, _ = await call_to(port)
        with peer.sock:
            await until(lambda: program.session.legs)
            yield program, task, peer, port


async def targets(peer: Peer) -> list[int]:
    """What tx wishes for, as it says next."""
    return decode_legs_untrusted((await peer.hear(Kind.LEGS))[1])


async def test_a_stream_of_a_tx_that_was_called(pipe: Pipe) -> None:
    os.write(pipe.write_fd, b"hello")
    pipe.close_write()
    async with listening(pipe, threads=3) as (program, task, peer, _):
        assert await targets(peer) == [3]
        assert (await peer.hear(Kind.DATA))[1] == b"hello"
        assert (await peer.hear(Kind.END))[0].offset == 5
        await peer.say(encode_control(Kind.DONE, offset=5))
        await peer.hear(Kind.BYE)
        assert await peer.end() == b""
        await task
        assert repr(program.connections[0]) == f"leg 0 to {HOST}:{peer.sock.getsockname()[1]}"


async def test_a_call_that_leads_to_no_leg_leaves_tx_to_others(pipe: Pipe) -> None:
    async with transmitting(pipe.read_fd, bind=HOST) as (program, _):
        assert program.listener is not None
        other = await connect(program.listener.port)
        with other.sock:
            await other.say(Call(b"somebody", 0, 0, 3, bytes(4)).encode())
            await other.exactly(ANSWER_BYTES + GREETING_BYTES)
        await until(lambda: program.strangers == 1)
        peer, _ = await call_to(program.listener.port)
        peer.sock.close()


async def test_a_wish_that_changes_is_told_on_every_leg_and_repeated_on_one(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(pipe) as (program, _, peer, port):
        other, _ = await call_to(port, 1)
        with other.sock:
            assert await targets(peer) == await targets(other) == [1]
            program.session.dialling.targets[0] = 2
            assert await targets(peer) == await targets(other) == [2]
            monkeypatch.setattr("viamillipede.protocol.calls.LEGS_AGAIN_US", 50 * MS_US)
            for _ in range(3):
                assert await targets(peer) == [2]


async def test_a_leg_that_is_stuck_does_not_collect_wishes(pipe: Pipe) -> None:
    async with listening(pipe) as (program, _, _, _):
        connection = program.connections[0]
        connection._buffers = [memoryview(b"head"), memoryview(b"payload"), memoryview(b"a wish")]
        program.session.dialling.targets[0] = 2
        program._tell_wishes(0)
        assert len(connection._buffers) == 3
        connection._buffers = []


async def test_a_call_for_a_leg_that_is_up_takes_its_place(pipe: Pipe) -> None:
    async with listening(pipe) as (program, _, peer, port):
        fresh, _ = await call_to(port)
        with fresh.sock:
            with contextlib.suppress(ConnectionResetError):
                await peer.end()
            await until(lambda: program.connections[0].restarts == 1 and program.connections[0].sock)
            assert len(program.session.legs) == 1
            os.write(pipe.write_fd, b"x")
            assert (await fresh.hear(Kind.DATA))[1] == b"x"


async def test_legs_of_the_first_path_are_preferred(pipe: Pipe) -> None:
    async with transmitting(pipe.read_fd, bind=HOST, threads=2) as (program, _):
        assert program.listener is not None
        later, _ = await call_to(program.listener.port, 1, rank=1, ranks=2)
        first, _ = await call_to(program.listener.port, 0, rank=0, ranks=2)
        with later.sock, first.sock:
            await until(lambda: len(program.session.scheduler) == 2)
            os.write(pipe.write_fd, b"x")
            assert (await first.hear(Kind.DATA))[1] == b"x"


async def test_rx_gives_up(pipe: Pipe) -> None:
    async with listening(pipe) as (_, task, peer, _):
        await peer.say(encode_reason(Kind.REFUSAL, "disk full"))
        with pytest.raises(RemoteFailed, match="the receiver gave up: disk full"):
            await task


async def test_a_signal_is_told_on_a_leg_that_rx_reads(pipe: Pipe) -> None:
    async with listening(pipe) as (program, task, peer, port):
        for leg, stuck in ((1, False), (2, True)):
            other, _ = await call_to(port, leg)
            await until(lambda: len(program.session.legs) == 2)
            if stuck:
                os.kill(os.getpid(), signal.SIGINT)
                await until(lambda: program.last_word.message)
                program.connections[leg]._buffers = [memoryview(b"what stands before")]
            other.sock.close()  # neither is a sign that rx has heard it
            await until(lambda: len(program.session.legs) == 1)
        assert decode_reason((await peer.hear(Kind.ABORT))[1]) == "interrupted"
        await turns(10)
        assert not task.done()  # closing first could destroy it
        peer.sock.close()
        with pytest.raises(Interrupted):
            await task


async def test_a_signal_is_told_behind_frames_that_nobody_reads(pipe: Pipe) -> None:
    """The leg is reset, rx sees that by its heartbeats and calls again, and hears it there."""
    async with listening(pipe, frame_bytes=16 * MIB) as (program, task, peer, port):
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        os.set_blocking(pipe.write_fd, False)
        while not program.connections[0]._buffers:  # until the leg takes no more
            with contextlib.suppress(BlockingIOError):
                os.write(pipe.write_fd, bytes(64 * KIB))
            await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGINT)
        await until(lambda: program.connections[0].sock is None)
        again, _ = await call_to(port)
        with again.sock:
            header, payload = await again.message()
            assert (header.kind, decode_reason(payload)) == (Kind.ABORT, "interrupted")
        with pytest.raises(Interrupted):
            await task


async def test_bye_is_said_on_a_leg_that_comes_when_the_others_were_full(pipe: Pipe) -> None:
    async with listening(pipe) as (program, task, peer, port):
        connection = program.connections[0]
        pipe.close_write()
        await peer.hear(Kind.END)
        connection._stalled = True  # nothing more gets out
        connection._buffers = [memoryview(b"stuck")]
        await peer.say(encode_control(Kind.DONE))
        await until(lambda: connection.sock is None)
        again, _ = await call_to(port)
        with again.sock:
            assert (await again.message())[0].kind is Kind.WAITS
            assert (await again.message())[0].kind is Kind.BYE
        await task


async def test_an_rx_that_is_gone_is_not_waited_for_long(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FAREWELL_US", 50 * MS_US)
    monkeypatch.setattr(module, "HEARTBEAT_US", 50 * MS_US)
    async with listening(pipe) as (program, task, peer, _):
        peer.sock.close()
        await until(lambda: not program.session.legs)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted):
            await task


# Both programs at once ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 3 * MIB + 7])
@pytest.mark.parametrize("threads", [1, 5])
async def test_a_transfer(pipe: Pipe, output: Pipe, size: int, threads: int) -> None:
    content = os.urandom(size)
    async with transmitting(pipe.read_fd, bind=HOST, threads=threads, frame_bytes=16 * KIB) as (tx, tx_task):
        assert tx.listener is not None
        async with receiving(output.write_fd, tx.listener.port) as (rx, rx_task, _), asyncio.TaskGroup() as group:
            await until(lambda: len(tx.session.legs) == threads)
            taken = group.create_task(take(output.read_fd))
            await give(pipe.write_fd, content)
            pipe.close_write()
            assert await taken == content
            await asyncio.gather(tx_task, rx_task)
        assert rx.session.bye and tx.session.done
        assert rx.session.legs_most == tx.session.legs_most == threads
        assert tx.strangers == tx.session.restarts == 0
