"""One accepted connection at rx: its greeting, its reading, what it is told. The session decides."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from viamillipede.aio.clock import now_us
from viamillipede.aio.log import EVENT, LEG, OPERATION
from viamillipede.aio.poller import READ, WRITE, Watch
from viamillipede.aio.sink import Blocked
from viamillipede.aio.sockets import prepare_rx, why
from viamillipede.config import BROKEN_US, FAREWELL_US, GREETING_US, KIB, S_US
from viamillipede.errors import FrameError
from viamillipede.protocol.rx_session import Action
from viamillipede.protocol.waiting_legs import RxLeg
from viamillipede.protocol.wire import (
    GREETING_BYTES,
    PREFIX_BYTES,
    VERSION,
    Answer,
    Greeting,
    ImpossibleGreeting,
    Verdict,
    check_prefix_untrusted,
    decode_greeting_untrusted,
)

if TYPE_CHECKING:
    from viamillipede.aio.rx import Receiver

STEPS_MAX = 64  # of one leg before the others get a turn
PENDING_BYTES_MAX = 256 * KIB  # a tx that does not read what it is told is not one of ours


class GreetingRefused(FrameError):
    """A viamillipede transmitter, but not one for us; it is told why."""

    def __init__(self, reason: str, answer: Answer) -> None:
        super().__init__(reason)
        self.answer = answer


@contextlib.asynccontextmanager
async def answering(sock: socket.socket) -> AsyncIterator[None]:
    """Whoever is refused in here hears why; read on until it leaves, or closing could destroy the answer."""
    try:
        yield
    except GreetingRefused as refused:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError, OSError):  # it need not listen
            async with asyncio.timeout(FAREWELL_US / S_US):
                await loop.sock_sendall(sock, refused.answer.encode())
                sock.shutdown(socket.SHUT_WR)
                while await loop.sock_recv(sock, GREETING_BYTES):
                    pass
        raise


async def hear_greeting(sock: socket.socket) -> Greeting:
    """The greeting of a new connection. FrameError, GreetingRefused, OSError, TimeoutError."""
    loop = asyncio.get_running_loop()
    received = bytearray()
    async with asyncio.timeout(GREETING_US / S_US):
        while len(received) < GREETING_BYTES:
            data = await loop.sock_recv(sock, GREETING_BYTES - len(received))
            if not data:
                raise FrameError("closed before it greeted" if not received else "closed in its greeting")
            received += data
            version = check_prefix_untrusted(received)
            if len(received) >= PREFIX_BYTES and version != VERSION:
                raise GreetingRefused(
                    f"it speaks version {version} of the protocol, we {VERSION}", Answer(Verdict.VERSION)
                )
    try:
        return decode_greeting_untrusted(received)
    except ImpossibleGreeting as error:
        raise GreetingRefused(str(error), Answer(Verdict.MALFORMED)) from error


class RxConnection:
    """A leg's TCP connection, from the accepted greeting to its loss."""

    def __init__(self, program: "Receiver", sock: socket.socket, key: int, peer: str) -> None:
        self._program, self.sock, self._key, self.peer = program, sock, key, peer
        self._fd = sock.fileno()
        self._loop = program.loop
        self.open = False
        self._watch: Watch
        self._pending = bytearray()
        self._deaf: tuple[int, str, bool] | None = None  # since when and why tx cannot be told anything any more
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self.leg: RxLeg

    def __repr__(self) -> str:
        return f"leg {self.leg.number} from {self.peer}"

    async def run(self, greeting: Greeting, answer: Answer) -> None:
        """Until the leg is lost."""
        session = self._program.session
        prepare_rx(self.sock)
        try:
            self.sock.send(answer.encode())  # it fits an empty socket; no await between the decision and the leg
        except OSError:
            session.on_answer_lost()
            raise
        old = session.superseded(greeting.leg)
        if old is not None:
            self._program.connections[old.key].drop("superseded by a new connection", closed_by_peer=False)
        self.leg = session.on_leg_up(self._key, greeting.leg, now_us())
        self.open = True
        self._watch = self._program.poller.watch(self._fd, self._on_readable, self._flush)
        self._program.connections[self._key] = self
        self._program.log.say(LEG, f"{self!r}: up")
        try:
            self.listen()
            if self._program.leaving:
                self.leave()
            self._program.after()
            await self._lost
        finally:
            self.drop("closed", closed_by_peer=False)

    def drop(self, reason: str, closed_by_peer: bool) -> None:
        """The leg is lost. Idempotent."""
        if not self.open:
            return
        self.open = False
        self._program.poller.forget(self._watch)
        self.sock.close()
        del self._program.connections[self._key]
        self._program.session.on_leg_lost(self.leg, closed_by_peer, now_us())
        done = self._program.session.done  # however the other side closes it then
        level = LEG if done or self._program.outcome.done() else EVENT
        self._program.log.say(level, f"{self!r}: {'done' if done else reason}")
        if not self._lost.done():
            self._lost.set_result(None)
        self._program.after_soon()

    # ---- reading --------------------------------------------------------------------------------
    def listen(self) -> None:
        """Say when there is something to read."""
        if self.open:
            self._program.poller.want(self._watch, READ)

    def _on_readable(self) -> None:
        if self._program.leaving:
            self._throw_away()
        else:
            self._program.on_readable(self)

    def advance(self, now: int) -> bool:
        """The leg's next step. Whether another one may follow at once."""
        program, leg = self._program, self.leg
        action, what = program.session.step(leg, now)
        if action is Action.WAIT:
            return False
        try:
            if isinstance(what, memoryview):
                count: int | Blocked = self.sock.recv_into(what)
            else:
                count = program.sink.direct(self._fd, what)
        except BlockingIOError:
            count = Blocked.INPUT
        except OSError as error:
            self.drop(why(error), closed_by_peer=isinstance(error, ConnectionError))
            return False
        if isinstance(count, Blocked):
            if count is Blocked.INPUT:
                self.listen()
            else:
                program.on_output_blocked(self)
            return False
        if program.log.verbose >= OPERATION:
            program.log.say(OPERATION, f"{self!r}: {action.value} {count}")
        if not count:
            self.drop("closed by the transmitter", closed_by_peer=True)
            return False
        try:
            program.session.advance_untrusted(leg, count, now)
        except FrameError as error:
            self.drop(str(error), closed_by_peer=False)
            return False
        return True

    # ---- what tx is told ------------------------------------------------------------------------
    def tell(self, message: bytes) -> None:
        """Send a message as soon as the socket takes it."""
        if not self.open or self._deaf is not None:
            return
        if len(self._pending) > PENDING_BYTES_MAX:
            self.drop("it does not read what it is told", closed_by_peer=False)
            return
        self._pending += message
        if len(self._pending) == len(message):  # else the poller knows already
            self._flush()

    def _flush(self) -> None:
        try:
            while self._pending:
                del self._pending[: self.sock.send(self._pending)]
        except BlockingIOError:
            self._program.poller.want(self._watch, WRITE)
        except OSError as error:  # what tx said before is still in the socket: the end, or why it gave up
            self._pending.clear()
            if self._deaf is None:
                self._deaf = (now_us(), why(error), isinstance(error, ConnectionError))
                self.listen()

    def drop_if_deaf(self, now: int) -> None:
        """The leg broke a while ago, and what it had brought was not asked for: nobody needs it any more."""
        if self._deaf is not None and now - self._deaf[0] >= BROKEN_US:
            self.drop(self._deaf[1], self._deaf[2])

    def leave(self) -> None:
        """Throw away what comes until tx has closed: closing first could destroy what tx was told last."""
        self.listen()

    def _throw_away(self) -> None:
        try:
            if self.sock.recv_into(self._program.waste):
                self.listen()
                return
        except BlockingIOError:
            self.listen()
            return
        except OSError as error:
            self.drop(why(error), closed_by_peer=True)
            return
        self.drop("closed by the transmitter", closed_by_peer=True)
