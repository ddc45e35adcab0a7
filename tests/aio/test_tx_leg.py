"""One leg at tx: dialling, the answer in any shape, frames out in any pieces, faults on purpose."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.aio.drive import (
    HOST,
    RECEIVER,
    Peer,
    Pipe,
    accept_leg,
    all_arrived,
    give,
    nonblocking_server,
    transfer,
    transmitting,
    turns,
    until,
)
from viamillipede.aio import handshake
from viamillipede.aio.sockets import close_with_reset
from viamillipede.config import KIB, MIB, MS_US, Address
from viamillipede.protocol.chaos import KINDS
from viamillipede.protocol.wire import (
    GREETING_BYTES,
    HEADER_BYTES,
    Answer,
    Kind,
    Verdict,
    encode_control,
)

ACCEPTED = Answer(Verdict.ACCEPTED, 0, RECEIVER, 64 * MIB).encode()


@contextlib.asynccontextmanager
async def dialled(pipe: Pipe, **words: Any) -> AsyncIterator[tuple[Any, "asyncio.Task[None]", Peer, socket.socket]]:
    """A transmitter whose leg has greeted, and waits for its answer."""
    with nonblocking_server() as server:
        async with transmitting(pipe.read_fd, server.getsockname()[1], **words) as (program, task):
            sock, _ = await asyncio.get_running_loop().sock_accept(server)
            with sock:
                peer = Peer(sock)
                await peer.exactly(GREETING_BYTES)
                yield program, task, peer, server


def failure(program: Any) -> str:
    """Why the latest attempt failed; "" if it did not, or there was none."""
    return "; ".join(program.session.book.failures())


# The answer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 5, 39])
async def test_an_answer_in_pieces(pipe: Pipe, size: int) -> None:
    async with dialled(pipe) as (program, _, peer, _):
        for start in range(0, len(ACCEPTED), size):
            assert program.connections[0].sock is None
            await peer.say(ACCEPTED[start : start + size])
            await turns(1)
        await until(lambda: program.connections[0].sock)
        assert program.session.legs_most == 1


async def test_what_follows_the_answer_at_once_is_heard(pipe: Pipe) -> None:
    async with dialled(pipe) as (program, _, peer, _):
        await peer.say(ACCEPTED + all_arrived(0, 0))
        await until(lambda: program.connections[0].sock)
        state = program.session.legs[0]
        heard_us = state.heard_us
        await peer.say(all_arrived(0, 0))
        await until(lambda: state.heard_us > heard_us)
        assert program.session.restarts == 0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "no viamillipede receiver: not viamillipede"),
        (ACCEPTED[:-1] + b"\xff", "no viamillipede receiver: damaged answer"),
        (Answer(Verdict.MALFORMED).encode(), "the receiver found our greeting malformed"),
        (ACCEPTED[:20], "closed before it answered"),
        (b"", "closed before it answered"),
    ],
)
async def test_an_answer_that_is_none(pipe: Pipe, answer: bytes, reason: str) -> None:
    """Also a forwarded port that accepts and closes at once: the next attempt may reach the receiver."""
    async with dialled(pipe) as (program, task, peer, server):
        await peer.say(answer)
        peer.sock.shutdown(socket.SHUT_WR)
        await until(lambda: failure(program))
        assert failure(program).startswith(f"{HOST}:{server.getsockname()[1]}: {reason}")
        assert await peer.end() == b""
        again, _ = await accept_leg(server)
        with again.sock:
            await until(lambda: program.connections[0].sock)
        assert not task.done()


async def test_a_reset_instead_of_an_answer(pipe: Pipe) -> None:
    async with dialled(pipe) as (program, _, peer, _):
        close_with_reset(peer.sock)
        await until(lambda: failure(program))
        assert "Connection reset by peer" in failure(program)


async def test_no_answer_at_all(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "GREETING_US", 30 * MS_US)
    async with dialled(pipe) as (program, _, peer, _):
        assert await peer.end() == b""  # tx has closed
        assert "connected, but no answer" in failure(program)


async def test_one_dead_address_is_named_and_the_other_carries(pipe: Pipe) -> None:
    os.write(pipe.write_fd, b"x")
    with nonblocking_server() as server, socket.socket() as closed:
        closed.bind((HOST, 0))
        port, dead = server.getsockname()[1], closed.getsockname()[1]
        async with transmitting(pipe.read_fd, dead, port, threads=2) as (program, _):
            peer, heard = await accept_leg(server)
            with peer.sock:
                assert heard.leg == 1  # at home there; leg 0 goes on trying its own
                assert (await peer.hear(Kind.DATA))[1] == b"x"
                await until(lambda: program.session.book.states[0].failures >= 2)
            assert failure(program).startswith(f"{HOST}:{dead}: Connection refused")
            assert repr(program.connections[1]) == f"leg 1 to {Address(HOST, port)}"


# Up ---------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def up(pipe: Pipe, **words: Any) -> AsyncIterator[tuple[Any, "asyncio.Task[None]", Peer]]:
    """A transmitter whose leg was accepted."""
    async with dialled(pipe, **words) as (program, task, peer, _):
        await peer.say(ACCEPTED + all_arrived(0, 0))
        await until(lambda: program.connections[0].sock)
        yield program, task, peer


async def test_a_frame_larger_than_the_socket_goes_in_pieces(pipe: Pipe) -> None:
    content = os.urandom(2 * MIB)
    async with up(pipe) as (program, _, peer), asyncio.TaskGroup() as group:
        program.connections[0].sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * KIB)
        group.create_task(give(pipe.write_fd, content))
        received, largest = bytearray(), 0
        while len(received) < len(content):
            header, payload = await peer.message()
            assert (header.kind, header.offset) == (Kind.DATA, len(received))
            received += payload
            largest = max(largest, header.length)
            await peer.say(all_arrived(header.seq + 1, len(received)))
        assert bytes(received) == content
        assert largest >= 64 * KIB


@pytest.mark.parametrize(
    "said",
    [b"x" * HEADER_BYTES, encode_control(Kind.DONE, offset=5), encode_control(Kind.DATA)],
    ids=["noise", "done before the end", "a kind of tx's own"],
)
async def test_a_receiver_that_talks_nonsense_loses_the_leg_and_no_more(pipe: Pipe, said: bytes) -> None:
    async with up(pipe) as (program, task, peer):
        await peer.say(said)
        with pytest.raises(ConnectionResetError):
            while await peer.end():
                pass
            pytest.fail("closed, not reset")
        await until(lambda: program.connections[0].restarts == 1)
        assert not task.done()


async def test_dropping_a_leg_twice_is_dropping_it_once(pipe: Pipe) -> None:
    async with up(pipe) as (program, _, _):
        connection = program.connections[0]
        connection.drop("once", closed_by_peer=False)
        connection.drop("twice", closed_by_peer=False)
        assert connection.restarts == 1 and program.session.presence.legs_up == 0


async def test_a_last_word_goes_behind_the_frame(pipe: Pipe) -> None:
    async with up(pipe) as (program, _, peer):
        connection = program.connections[0]
        assert connection.silent()
        os.write(pipe.write_fd, b"frame")
        await until(lambda: program.session.window.head)
        connection.say(encode_control(Kind.BYE))
        assert (await peer.message())[1] == b"frame"
        assert (await peer.message())[0].kind is Kind.BYE


# Chaos ------------------------------------------------------------------------------------------------------

QUICKLY = {"frame_bytes": 16 * KIB, "threads": 3}


@pytest.mark.parametrize("kind", [kind for kind in (*KINDS, "all") if kind not in ("stall", "all")])
async def test_a_fault_costs_a_leg_and_not_a_byte(kind: str) -> None:
    content = os.urandom(2 * MIB)
    output, rx, tx = await transfer(content, {}, chaos=13, chaos_kind=kind, checksum=kind == "corrupt", **QUICKLY)
    assert output == content
    assert tx.chaos.faults >= 3
    if kind == "corrupt":
        assert rx.session.reassembly.corrupted + rx.session.restarts >= 1
    else:
        assert tx.session.restarts + sum(c.sock is None for c in tx.connections.values()) >= 1
    assert tx.session.window.retransmitted_frames >= 1


async def test_a_leg_that_stalls_is_noticed_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("viamillipede.protocol.tx_session.LEG_SILENT_US", 200 * MS_US)
    monkeypatch.setattr("viamillipede.protocol.rx_session.HEARTBEAT_US", 50 * MS_US)
    content = os.urandom(MIB)
    output, _, tx = await transfer(content, {}, chaos=40, chaos_kind="stall", **QUICKLY)
    assert output == content
    assert tx.chaos.faults >= 1


@pytest.mark.parametrize("kind", ["close", "truncate"])
async def test_a_fault_on_a_leg_that_broke_by_itself(pipe: Pipe, kind: str) -> None:
    async with up(pipe) as (program, task, peer):
        connection = program.connections[0]
        close_with_reset(peer.sock)
        connection._buffers = [memoryview(bytes(100))]
        assert connection._suffer(connection.sock, kind) is False
        assert connection.sock is None
        await turns()
        assert not task.done()


async def test_damage_is_done_to_what_is_sent_and_not_to_what_is_kept(pipe: Pipe) -> None:
    async with up(pipe) as (program, _, _):
        connection, kept = program.connections[0], memoryview(bytearray(b"kept"))
        connection._buffers = [memoryview(b"head"), kept]
        assert connection._suffer(connection.sock, "corrupt") is True
        sent = bytes(connection._buffers[1])
        assert bytes(kept) == b"kept" and sum(a != b for a, b in zip(sent, b"kept", strict=True)) == 1
        connection._buffers = []
