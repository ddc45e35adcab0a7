"""One leg's connection at rx: what it is told, how it is lost."""

import contextlib
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.aio.drive import Peer, Pipe, data, end, leg_to, receiving, take, until
from viamillipede.aio.clock import now_us
from viamillipede.aio.rx_leg import PENDING_BYTES_MAX, RxConnection
from viamillipede.aio.sockets import close_with_reset
from viamillipede.config import BROKEN_US, KIB, MIB
from viamillipede.protocol.wire import Kind, encode_control

# Up ---------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def up(pipe: Pipe) -> AsyncIterator[tuple[Any, RxConnection, Peer]]:
    """A receiver with one leg."""
    async with receiving(pipe.write_fd) as (program, _, port), leg_to(port, 3) as peer:
        await peer.hear(Kind.ACK)
        yield program, next(iter(program.connections.values())), peer


async def test_it_says_who_it_is(pipe: Pipe) -> None:
    async with up(pipe) as (_, connection, peer):
        assert repr(connection) == f"leg 3 from 127.0.0.1:{peer.sock.getsockname()[1]}"


async def test_it_is_lost_once(pipe: Pipe) -> None:
    async with up(pipe) as (program, connection, peer):
        connection.drop("once", closed_by_peer=False)
        connection.drop("twice", closed_by_peer=False)
        assert not program.connections and program.session.presence.legs_up == 0
        connection.tell(b"nobody hears this")
        connection.listen()
        assert not connection._pending
        assert await peer.end() == b""


@pytest.mark.parametrize("how", ["close", "reset", "noise", "half a header", "bye too early"])
async def test_however_it_is_lost_the_program_goes_on(pipe: Pipe, how: str) -> None:
    async with up(pipe) as (program, connection, peer):
        if how == "noise":
            await peer.say(os.urandom(1000))
        elif how == "half a header":
            await peer.say(data(0, 0, b"x")[:20])
            peer.sock.shutdown(socket.SHUT_WR)
        elif how == "bye too early":
            await peer.say(encode_control(Kind.BYE))
        elif how == "reset":
            close_with_reset(peer.sock)
        else:
            peer.sock.close()
        await until(lambda: not connection.open)
        assert not program.connections and not program.outcome.done()
        evidence = how in ("close", "reset", "half a header")
        assert program.session.presence.gone is evidence  # a leg that we close says nothing about tx


async def test_what_it_is_told_waits_for_room_and_stays_whole(pipe: Pipe) -> None:
    async with up(pipe) as (_, connection, peer):
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * KIB)
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
        told = 0
        while not connection._pending:  # until the socket is full
            connection.tell(encode_control(Kind.RESEND, told))
            told += 1
        for _ in range(1500):  # more than the socket takes at once
            connection.tell(encode_control(Kind.RESEND, told))
            told += 1
        for seq in range(told):
            assert (await peer.hear(Kind.RESEND))[0].seq == seq
        await until(lambda: not connection._pending)


async def test_a_tx_that_does_not_read_is_given_up(pipe: Pipe) -> None:
    async with up(pipe) as (_, connection, _):
        block = bytes(64 * KIB)
        for _ in range(10 * MIB // len(block)):
            connection.tell(block)
            assert len(connection._pending) <= PENDING_BYTES_MAX + len(block)
        assert not connection.open


async def test_telling_a_connection_that_broke_loses_it(pipe: Pipe) -> None:
    async with up(pipe) as (program, connection, peer):
        close_with_reset(peer.sock)
        connection.tell(b"x")  # the kernel may take one before it knows
        connection.tell(b"x")
        await until(lambda: not program.connections)


async def test_what_tx_said_before_its_leg_broke_is_still_heard(pipe: Pipe) -> None:
    async with up(pipe) as (program, connection, peer):
        await peer.say(data(0, 0, b"all") + end(1, 3))
        connection._deaf = (now_us(), "Broken pipe", True)  # a send has failed, before anything was read
        connection.tell(b"x")
        assert await take(pipe.read_fd, 3) == b"all"
        await until(lambda: program.session.done)


async def test_a_broken_leg_that_nobody_reads_is_lost_after_a_while(pipe: Pipe) -> None:
    async with up(pipe) as (program, connection, _):
        connection._deaf = (now_us(), "Broken pipe", True)
        connection.drop_if_deaf(now_us())
        assert connection.open
        connection.drop_if_deaf(now_us() + BROKEN_US)
        assert not program.connections
