"""Dialling, for either role: the session says which leg is wanted where, this sets the connections up."""

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from viamillipede.aio.channel import AnotherVersion, ClosedEarly, KnockRefused
from viamillipede.aio.clock import now_us
from viamillipede.aio.log import LEG
from viamillipede.aio.sockets import DialError, dial, why
from viamillipede.config import ANSWER_US, S_US
from viamillipede.errors import FrameError
from viamillipede.protocol.contact import Contact
from viamillipede.protocol.wire import Verdict

if TYPE_CHECKING:
    from viamillipede.aio.program import Program


def _give_up(attempts: "set[asyncio.Task[None]]") -> None:
    """These may wait for ever for an answer that a fresh attempt gets at once, and keep that from being made."""
    for task in attempts:
        task.cancel()


class Dialler:
    """A program's attempts to get legs.

    introduce: makes leg `leg` of a connection to the address `rank`, which it owns from then on, and returns
    ""; else it returns why not, or raises (FrameError, OSError, TimeoutError).
    """

    def __init__(
        self,
        program: "Program",
        session: Contact,
        bind: str | None,
        introduce: Callable[[socket.socket, int, int], Awaitable[str]],
    ) -> None:
        self._program, self._session, self._bind, self._introduce = program, session, bind, introduce
        self._scheduled = False
        self._patient: set[asyncio.Task[None]] = set()  # attempts from before the first contact, which wait long

    def dial(self) -> None:
        """Set up the connections that are to be set up now."""
        if self._patient and self._session.presence.contacted:
            patient, self._patient = self._patient, set()
            self._program.loop.call_later(ANSWER_US / S_US, _give_up, patient)
        while self._program.wants_legs() and (wanted := self._session.next_dial(now_us())) is not None:
            leg, rank = wanted
            task = self._program.spawn(self._attempt(leg, rank))
            if task is None:
                return
            if not self._session.presence.contacted:
                self._patient.add(task)
                task.add_done_callback(self._patient.discard)

    def dial_soon(self) -> None:
        """Dial from the loop, once, when the caller is done."""
        if not self._scheduled:
            self._scheduled = True
            self._program.loop.call_soon(self._dial_now)

    def _dial_now(self) -> None:
        self._scheduled = False
        self.dial()

    async def _attempt(self, leg: int, rank: int) -> None:
        """Dial the address and be accepted; the leg is up then, in the place of one that was doubted. Or not."""
        program, session = self._program, self._session
        address = session.book.states[rank].address
        try:
            sock = await dial(address, address.via or self._bind)
            up = False
            try:
                reason = await self._meet(sock, leg, rank)
                up = not reason
            finally:
                if not up:
                    sock.close()
            if reason:
                raise DialError(reason, refused=False, reached=True)
        except DialError as error:
            if not program.wants_legs():
                return  # the other side has left, as it should
            session.on_attempt_failed(rank, str(error), error.refused, now_us(), random.random(), error.reached)
            program.log.say(LEG, f"leg {leg} to {address}: {error}")
        finally:
            session.dialling.on_over(leg)
            self.dial_soon()

    async def _meet(self, sock: socket.socket, leg: int, rank: int) -> str:
        """Why there is no leg, "" if there is one. DialError."""
        other = self._session.other
        try:
            return await self._introduce(sock, leg, rank)
        except KnockRefused as error:
            reason = self._session.on_verdict(rank, error.answer.verdict)
            if error.answer.verdict is Verdict.UNKNOWN:  # as if the port refused: nobody has proved who says that
                raise DialError(reason, refused=True, reached=True) from error
            return reason
        except AnotherVersion as error:
            return self._session.on_refused_for_good(rank, f"the {other} {error}")
        except ClosedEarly as error:
            raise DialError(str(error), refused=True) from error
        except TimeoutError as error:
            raise DialError("connected, but no answer", refused=False) from error
        except FrameError as error:
            return f"no viamillipede {other}: {error}"
        except OSError as error:
            raise DialError(why(error), isinstance(error, ConnectionError)) from error
