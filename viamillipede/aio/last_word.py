"""What tx says at last: that it knows of the end, or why it gives up. rx should hear it whatever its legs are up to."""

import asyncio
import contextlib
from typing import TYPE_CHECKING

from viamillipede.aio.handshake import enter, greet
from viamillipede.aio.sockets import DialError, dial
from viamillipede.config import FAREWELL_US, HEARTBEAT_US, KIB, S_US, THREADS_MAX
from viamillipede.errors import FrameError
from viamillipede.protocol.wire import Opening, Verdict

if TYPE_CHECKING:
    from viamillipede.aio.tx import Transmitter

FAREWELL_LEG = THREADS_MAX  # the number of the leg that only carries it
WASTE_BYTES = 64 * KIB


class LastWord:
    """Said on a fresh leg, which is dialled, or waited for. `message`: for each leg that comes then; b"": not yet."""

    def __init__(self, program: "Transmitter") -> None:
        self._program = program
        self.message = b""
        self._heard = asyncio.Event()  # rx has closed a leg on which it was said

    def on_heard(self) -> None:
        """rx has closed a leg on which all was said."""
        if self.message:
            self._heard.set()

    async def say(self, message: bytes) -> None:
        """Say it on a fresh leg too: on the others it may stand behind frames that nobody reads.

        Returns when rx has closed such a leg, which is what it does once it has understood.
        """
        if self._program.listener is None:
            await self._on_fresh_leg(message)
            return
        self.message = message
        with contextlib.suppress(TimeoutError):  # rx that reads has heard it by now
            async with asyncio.timeout(HEARTBEAT_US / S_US):
                await self._heard.wait()
        for connection in self._program.connections.values():
            connection.drop("closed, to be heard on a fresh one", closed_by_peer=False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_US / S_US):
                await self._heard.wait()

    async def _on_fresh_leg(self, message: bytes) -> None:
        program = self._program
        for state in program.session.book.states:
            if not state.worked:
                continue
            with contextlib.suppress(DialError, FrameError, OSError):  # another address, or nobody: we end anyhow
                with await dial(state.address, state.address.via or program.config.bind) as sock:
                    channel = await enter(sock, program.keys, Opening.GREETING)
                    answer = await greet(channel, program.session.greeting(FAREWELL_LEG))
                    if answer.verdict is Verdict.ACCEPTED:
                        await program.loop.sock_sendall(sock, channel.sealed_messages(message))
                        while await program.loop.sock_recv(sock, WASTE_BYTES):
                            pass
                        return
