"""Connections that are refused: they hear why, in clear or sealed, and are left in time."""

import asyncio
import socket
from typing import Any

import pytest

from tests.aio.drive import Peer, turns
from viamillipede.aio import refusals as module
from viamillipede.aio.channel import Channel
from viamillipede.aio.refusals import KeyRefused, OpeningRefused, answering, refuse
from viamillipede.aio.sockets import close_with_reset
from viamillipede.config import MS_US
from viamillipede.protocol.noise import CipherState
from viamillipede.protocol.sealing import Opener, Sealer
from viamillipede.protocol.wire import ANSWER_BYTES, TAG_BYTES, Answer, Verdict, decode_answer_untrusted


async def test_who_is_refused_hears_why_though_it_has_said_more(pair: Any) -> None:
    peer = Peer(pair[1])
    await peer.say(bytes(1000))
    task = asyncio.create_task(refuse(Channel(pair[0]), Answer(Verdict.BUSY)))
    assert decode_answer_untrusted(await peer.exactly(ANSWER_BYTES)) == Answer(Verdict.BUSY)
    assert await peer.end() == b""
    assert not task.done()  # closing now could destroy the answer
    pair[1].shutdown(socket.SHUT_WR)
    await task


async def test_who_does_not_leave_is_left(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FAREWELL_US", 20 * MS_US)
    with pytest.raises(OpeningRefused, match="no"):
        async with answering(pair[0]):
            raise OpeningRefused("no", Answer(Verdict.BUSY))


async def test_who_is_gone_already_need_not_hear_it(pair: Any) -> None:
    close_with_reset(pair[1])
    await turns(1)
    await refuse(Channel(pair[0]), Answer(Verdict.BUSY))


async def test_who_has_come_through_the_handshake_is_refused_behind_it(pair: Any) -> None:
    """In clear, anybody on the way could say so."""
    sealer = Sealer(CipherState("AESGCM", bytes(32)))
    peer = Peer(pair[1])

    async def answer() -> None:
        with pytest.raises(OpeningRefused, match="no"):
            async with answering(pair[0]):
                raise OpeningRefused("no", Answer(Verdict.NAME), Channel(pair[0], sealer))

    task = asyncio.create_task(answer())
    record = await peer.exactly(ANSWER_BYTES + TAG_BYTES)
    opened = Opener(CipherState("AESGCM", bytes(32))).opening(record)
    assert decode_answer_untrusted(opened) == Answer(Verdict.NAME) and opened[:4] == b"vmlp" != record[:4]
    pair[1].shutdown(socket.SHUT_WR)
    await task


async def test_who_has_another_key_is_told_in_clear(pair: Any) -> None:
    peer = Peer(pair[1])

    async def answer() -> None:
        with pytest.raises(KeyRefused, match="it has another key"):
            async with answering(pair[0]):
                raise KeyRefused("it has another key")

    task = asyncio.create_task(answer())
    assert decode_answer_untrusted(await peer.exactly(ANSWER_BYTES)) == Answer(Verdict.KEY)
    pair[1].shutdown(socket.SHUT_WR)
    await task


async def test_whatever_else_goes_wrong_is_not_told(pair: Any) -> None:
    with pytest.raises(ConnectionResetError):
        async with answering(pair[0]):
            raise ConnectionResetError
    with pytest.raises(BlockingIOError):
        pair[1].recv(1)
