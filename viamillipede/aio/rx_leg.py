"""One leg's connection at rx: its reading, what it is told. The session decides."""

import random
from typing import TYPE_CHECKING

from viamillipede.aio.channel import Channel
from viamillipede.aio.clock import now_us
from viamillipede.aio.log import EVENT, LEG, OPERATION
from viamillipede.aio.poller import READ, WRITE, Watch
from viamillipede.aio.sink import Blocked
from viamillipede.aio.sockets import prepare_rx, unacked_bytes, why
from viamillipede.config import BROKEN_US, KIB, Address
from viamillipede.errors import FrameError
from viamillipede.protocol.rx_session import Action
from viamillipede.protocol.waiting_legs import RxLeg
from viamillipede.protocol.wire import Answer, Greeting

if TYPE_CHECKING:
    from viamillipede.aio.rx import Receiver

STEPS_MAX = 64  # of one leg before the others get a turn
PENDING_BYTES_MAX = 256 * KIB  # a tx that does not read what it is told is not one of ours


class RxConnection:
    """A leg's TCP connection, from the accepted greeting to its loss."""

    def __init__(self, program: "Receiver", channel: Channel, key: int, peer: Address) -> None:
        self._program, self.sock, self._key, self.peer = program, channel.sock, key, peer
        self._channel, self._sealer, self._opener = channel, channel.sealer, channel.opener
        self._fd = self.sock.fileno()
        self.open = False
        self._watch: Watch
        self._pending = bytearray()
        self._deaf: tuple[int, str, bool] | None = None  # since when and why tx cannot be told anything any more
        self.leg: RxLeg

    def __repr__(self) -> str:
        return f"leg {self.leg.number} {'to' if self._program.session.dials else 'from'} {self.peer}"

    def up(self, greeting: Greeting, answer: Answer, rank: int) -> None:
        """Accept the greeting; the leg is up, in the place of one that tx has given up. OSError: it broke."""
        program, session = self._program, self._program.session
        try:
            prepare_rx(self.sock, self._program.config.congestion)
            # It fits an empty socket; there is no await between the decision and the leg.
            self.sock.send(self._channel.sealed(answer.encode()))
        except OSError:
            session.on_answer_lost()
            raise
        old = session.superseded(greeting.leg)
        if old is not None:
            program.connections[old.key].drop("superseded by a new connection", closed_by_peer=False)
        self.leg = session.on_leg_up(self._key, greeting.leg, now_us(), rank)
        self.open = True
        self._watch = program.poller.watch(self._fd, self._on_readable, self._flush)
        program.connections[self._key] = self
        program.moved_of.setdefault(self.peer.host, 0)
        program.log.say(LEG, f"{self!r}: up")
        self.listen()
        if program.leaving:
            self.leave()
        program.after_soon()  # not now: what that brings up is no failure of whoever has brought this connection

    def drop(self, reason: str, closed_by_peer: bool) -> None:
        """The leg is lost. Idempotent."""
        if not self.open:
            return
        self.open = False
        self._program.poller.forget(self._watch)
        self.sock.close()
        del self._program.connections[self._key]
        self._program.moved_of[self.peer.host] += self.leg.bytes_received
        self._program.session.on_leg_lost(self.leg, closed_by_peer, now_us(), random.random())
        done = self._program.session.done  # however the other side closes it then
        level = LEG if done or self._program.outcome.done() else EVENT
        self._program.log.say(level, f"{self!r}: {'done' if done else reason}")
        self._program.after_soon()
        self._program.dialler.dial_soon()

    # ---- reading --------------------------------------------------------------------------------
    def listen(self) -> None:
        """Say when there is something to read."""
        if self.open:
            self._program.poller.want(self._watch, READ)
            if self._opener is not None and self._opener.pending():  # of that the socket knows nothing
                self._program.loop.call_soon(self._on_readable)

    def _on_readable(self) -> None:
        if not self.open:
            return
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
                count: int | Blocked = (
                    self.sock.recv_into(what) if self._opener is None else self._opener.read_into(self._receive, what)
                )
            else:
                count = program.sink.direct(self._fd, what)
        except BlockingIOError:
            count = Blocked.INPUT
        except FrameError as error:
            self.drop(str(error), closed_by_peer=False)
            return False
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

    def _receive(self, view: memoryview) -> int:
        """Part of a record: that tx is alive is known before all of it is here."""
        count = self.sock.recv_into(view)
        self.leg.heard_us = now_us()
        return count

    # ---- what tx is told ------------------------------------------------------------------------
    def tell(self, message: bytes) -> None:
        """Send a message as soon as the socket takes it."""
        if not self.open or self._deaf is not None:
            return
        if len(self._pending) > PENDING_BYTES_MAX:
            self.drop("it does not read what it is told", closed_by_peer=False)
            return
        idle = not self._pending
        self._pending += message if self._sealer is None else self._sealer.messages(message)
        if idle:  # else the poller knows already
            self._flush()

    def _flush(self) -> None:
        try:
            while self._pending:
                count = self.sock.send(self._pending)
                self.leg.told_bytes += count
                del self._pending[:count]
        except BlockingIOError:
            self._program.poller.want(self._watch, WRITE)
        except OSError as error:  # what tx said before is still in the socket: the end, or why it gave up
            self._pending.clear()
            if self._deaf is None:
                self._deaf = (now_us(), why(error), isinstance(error, ConnectionError))
                self.leg.doubted = True
                self.listen()
                self._program.dialler.dial_soon()

    def sample(self, now: int) -> None:
        """Does the other host get what it is told?"""
        if self._deaf is None:
            self.leg.on_sample(unacked_bytes(self.sock), now, self._program.session.listens_to(self.leg, now))

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
