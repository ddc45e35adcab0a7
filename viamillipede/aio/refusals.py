"""Connections that are refused, and how they are told why."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from viamillipede.aio.channel import Channel
from viamillipede.config import FAREWELL_US, S_US
from viamillipede.errors import FrameError
from viamillipede.protocol.wire import GREETING_BYTES, Answer, Verdict


class OpeningRefused(FrameError):
    """A viamillipede, but not one for us; it is told why, sealed if the channel is."""

    def __init__(self, reason: str, answer: Answer, channel: Channel | None = None) -> None:
        super().__init__(reason)
        self.answer, self.channel = answer, channel


class KeyRefused(OpeningRefused):
    """A viamillipede whose key, or lack of one, is not ours."""

    def __init__(self, reason: str, verdict: Verdict = Verdict.KEY) -> None:
        super().__init__(reason, Answer(verdict))


async def refuse(channel: Channel, answer: Answer) -> None:
    """Say why, and read on until the other side leaves: closing first could destroy the answer."""
    loop, sock = asyncio.get_running_loop(), channel.sock
    with contextlib.suppress(TimeoutError, OSError):  # it need not listen
        async with asyncio.timeout(FAREWELL_US / S_US):
            await channel.say(answer.encode())
            sock.shutdown(socket.SHUT_WR)
            while await loop.sock_recv(sock, GREETING_BYTES):
                pass


@contextlib.asynccontextmanager
async def answering(sock: socket.socket) -> AsyncIterator[None]:
    """Whoever is refused in here hears why."""
    try:
        yield
    except OpeningRefused as refused:
        await refuse(refused.channel or Channel(sock), refused.answer)
        raise
