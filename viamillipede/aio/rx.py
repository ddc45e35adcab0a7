"""rx: the legs to standard output. Packet flow:

1. A connection greets within GREETING_US and is accepted, or is a stranger; or we dial, and are greeted.
2. `work` drives a leg step by step (session.step): header to memory, payload to the output
   directly or to memory, until its socket is empty, its frame must wait, or the output is full.
3. `_drain` writes what is in memory and due. Then legs whose turn has come are driven (2).
4. `after` sends what tx must know: requests, acknowledgements, the end.
5. All written, the reader has taken it: the output is closed, DONE is said on every leg.
"""

import asyncio
import os
import socket

from viamillipede.aio import report
from viamillipede.aio.channel import Channel
from viamillipede.aio.clock import now_us
from viamillipede.aio.dialler import Dialler
from viamillipede.aio.doorway import Doorway
from viamillipede.aio.handshake import call, enter, hear_greeting
from viamillipede.aio.hasher import Hasher
from viamillipede.aio.listener import Listener
from viamillipede.aio.log import EVENT, WARNING
from viamillipede.aio.observer import Observer
from viamillipede.aio.program import Program
from viamillipede.aio.refusals import OpeningRefused, refuse
from viamillipede.aio.rx_leg import STEPS_MAX, RxConnection
from viamillipede.aio.sink import READER_GONE, Sink
from viamillipede.aio.snapshots import Rates, rx_snapshot
from viamillipede.aio.systemd import Service
from viamillipede.aio.waiting import RxWaits, is_stall, rx_waits_for
from viamillipede.config import KIB, LINGER_US, MS_US, RANKS_MAX, S_US, Address, RxConfig
from viamillipede.errors import (
    Failure,
    FrameError,
    LimitReached,
    LocalIOError,
    PeerLost,
    RemoteFailed,
    SessionRefused,
    UsageError,
)
from viamillipede.protocol.reassembly import Plan
from viamillipede.protocol.rx_session import RxSession
from viamillipede.protocol.wire import Answer, Greeting, Kind, Opening, Verdict, encode_reason

DRAIN_POLL_US_MIN, DRAIN_POLL_US_MAX = 1 * MS_US, 50 * MS_US
GONE_GRACE_US = 1 * S_US  # for the end frame, when the reader left having read everything so far
SAMPLE_EVERY_TICKS = 3
WASTE_BYTES = 256 * KIB

REFUSALS = {
    Verdict.CHECKPHRASE: "it has another checkphrase",
    Verdict.BUSY: "it belongs to another stream",
    Verdict.UNKNOWN: "it looks for another receiver",
    Verdict.NAME: "its stream has another name than those that are taken",
    Verdict.MALFORMED: "its greeting has values that cannot be",
}


class Receiver(Program):
    """The rx program."""

    def __init__(
        self,
        config: RxConfig,
        doorway: socket.socket | None = None,
        label: str = "",
        service: Service | None = None,
    ) -> None:
        super().__init__("rx", config, label, service)
        self.config = config
        if len(config.addresses) > RANKS_MAX:
            raise UsageError(f"{len(config.addresses)} paths are too many for an rx that dials, at most {RANKS_MAX}")
        if doorway is not None:
            self.doorway = Doorway(self, doorway, self.on_greeting)
        elif not config.addresses:
            self.listener = Listener(self, config.bind, config.port, self._welcome)
        self.dialler: Dialler
        self.sink: Sink
        self.session: RxSession
        self.connections: dict[int, RxConnection] = {}
        self._numbers = 0  # of connections so far
        self._environ: dict[str, str] = {}  # for a command that is still to be started
        self._output_waiters: list[RxConnection] = []
        self._after_scheduled = False
        self._closing = self._closed = False  # all was written; the output was closed
        self.hasher = Hasher(None, self.after_soon)
        self._verified = asyncio.Event()
        self._leaving_told = False  # there was a leg to say so on
        self.leaving = False  # we have failed: what still comes is thrown away
        self.waste = memoryview(bytearray(WASTE_BYTES))
        self._finished = asyncio.Event()  # tx knows that we are done, or can no longer be told
        self.moved_of: dict[str, int] = {}  # what lost legs brought, by the host that they came from
        self.rates = Rates()
        self.books = RxWaits(self, self.began_us)
        self.observer = Observer(config, self.log, lambda: rx_snapshot(self), self.began_us, alone=doorway is None)
        if self.doorway is not None:
            self.observer.share = self.doorway.tell
        self.news = report.ContactNews(self.log, config.wait_us, "transmitter")
        self._ticks = 0

    def use(self, sink: Sink) -> None:
        """The output is known: there can be a session."""
        self.sink = sink
        self.session = RxSession(self.config, os.urandom(8), sink.can_direct and self.keys is None, now_us())
        self.presence = self.session.presence
        self.dialler = Dialler(self, self.session, self.config.bind, self._introduce)

    def start(self) -> None:
        """See Program."""
        for entrance in (self.listener, self.doorway):
            if entrance is not None:
                entrance.start()
        self.dialler.dial()

    # ---- new legs -------------------------------------------------------------------------------
    async def _welcome(self, sock: socket.socket, peer: Address) -> None:
        """See Listener. A tx greets, and we answer."""
        greeting, channel = await hear_greeting(sock, self.keys, peer.host)
        self.on_greeting(channel, peer, greeting)

    def on_greeting(self, channel: Channel, peer: Address, greeting: Greeting) -> None:
        """A tx has greeted, and we answer. OpeningRefused, OSError."""
        answer = self.session.on_greeting(greeting)
        if answer.verdict is not Verdict.ACCEPTED:
            raise OpeningRefused(REFUSALS[answer.verdict], answer, channel)
        self._on_accepted(channel, peer, greeting, answer)

    async def _introduce(self, sock: socket.socket, leg: int, rank: int) -> str:
        """See Dialler. We call a tx that listens, it greets, and we answer."""
        session = self.session
        channel = await enter(sock, self.keys, Opening.CALL, session.answer_us())
        answer, greeting = await call(channel, session.call(leg, rank), session.answer_us())
        if greeting is None:
            return session.on_verdict(rank, answer.verdict)
        if greeting.leg != leg:
            raise FrameError("it greets for another leg than it was called for")
        answer = session.on_greeting(greeting)
        if answer.verdict is not Verdict.ACCEPTED:
            await refuse(channel, answer)
            return session.on_greeting_refused(rank, answer.verdict)
        self._on_accepted(channel, session.book.states[rank].address, greeting, answer, rank)
        return ""

    def _on_accepted(self, channel: Channel, peer: Address, greeting: Greeting, answer: Answer, rank: int = 0) -> None:
        first = not self.presence.contacted
        self._numbers += 1
        RxConnection(self, channel, self._numbers, peer).up(greeting, answer, rank)
        if self.keys is not None:
            self.keys.on_leg(channel.secret)
            self.cipher = channel.cipher
        self._leaving_told |= self.leaving
        if first:
            self.contact_us = now_us()
            self.log.say(EVENT, f"first contact, {'with' if self.session.dials else 'from'} {peer}")
            self.hasher = Hasher(self.session.digest.own, self._on_hashed)
            self._environ = self.environment(greeting.session, str(peer), greeting.name)

    def wants_legs(self) -> bool:
        """See Program. A tx that lost its legs must still hear how it ended."""
        return not self.outcome.done() or self.leaving or (self.session.done and not self.session.bye)

    # ---- from the legs to the output ------------------------------------------------------------
    def on_readable(self, connection: RxConnection) -> None:
        """The loop says that a leg has brought something."""
        self.work(connection)
        self.after()

    def work(self, connection: RxConnection) -> None:
        """Drive this leg, and then those whose turn has come by that."""
        current: RxConnection | None = connection
        while current is not None and not self.leaving:
            now = now_us()
            for _ in range(STEPS_MAX):
                if not current.open or not current.advance(now):
                    break
                if current.leg.plan is Plan.STORE or current.leg.copy is None:  # a whole frame may let others follow
                    self._drain()
            else:
                current.listen()  # more may be there: the loop comes back to it
            runnable = self.session.take_runnable()
            current = None if runnable is None else self.connections[runnable.key]

    def _drain(self) -> None:
        """Write what is in memory and due."""
        hasher, reassembly = self.hasher, self.session.reassembly
        if self.outcome.done():  # after a contradiction what is in memory need not be the stream
            return
        while (view := reassembly.output_view()) is not None:
            if hasher.active:  # what is written was taken before: the thread may need the memory for longer
                if hasher.taken == reassembly.written and not hasher.busy:
                    hasher.take(view)
                if hasher.busy:
                    return
                view = view[: hasher.taken - reassembly.written]
            count = self.sink.write(view)
            if count is None:
                self.session.on_output_blocked(now_us())
                return
            self.session.on_written(count, now_us())

    def _on_hashed(self) -> None:
        self._drain()
        self.after()

    def on_output_blocked(self, connection: RxConnection) -> None:
        """The output is full, and this leg has something for it."""
        self.session.on_output_blocked(now_us())
        self._output_waiters.append(connection)
        self.sink.arm()

    def on_output_open(self) -> None:
        """The output takes bytes again."""
        self.session.on_output_open(now_us())
        self._drain()
        waiters, self._output_waiters = self._output_waiters, []
        for connection in waiters:
            if connection.open:
                self.work(connection)
        self.after()

    def on_output_gone(self) -> None:
        """Nobody will read what we write. If all was read, the end may be on its way: `head -c` leaves like that.

        A command is about to exit then; its status says more.
        """
        delay_us = GONE_GRACE_US if self.command is not None or self.sink.drained() else 0
        self.loop.call_later(delay_us / S_US, self._fail_without_reader)

    def on_command_exit(self) -> None:
        """The sink has ended. If it has succeeded, and taken everything so far, the end may be on its way."""
        assert self.command is not None
        if self.command.status:
            self.fail(LocalIOError(self.command.how()))
        elif not self._closed:
            delay_us = GONE_GRACE_US if self.sink.drained() else 0
            self.loop.call_later(delay_us / S_US, self._fail_without_reader)

    def _fail_without_reader(self) -> None:
        if self._closing and self.sink.drained():
            return
        command = self.command
        if command is None:
            self.fail(LocalIOError(READER_GONE))
        elif command.status is None:
            self.fail(LocalIOError(f"the sink {command.name()} closed its input before the end of the stream"))
        else:
            what, *said = command.how().splitlines()
            self.fail(LocalIOError("\n".join([f"{what} before it had read the whole stream", *said])))

    # ---- what tx is told ------------------------------------------------------------------------
    def after(self) -> None:
        """Whatever has happened: drive who may run, tell who must know, set the alarm."""
        session = self.session
        while (runnable := session.take_runnable()) is not None:
            self.work(self.connections[runnable.key])
        if session.begun and self._environ:  # a tx that is done, and whose leg was late, says nothing
            environ, self._environ = self._environ, {}
            self.start_command(environ)
            self.sink.arm()  # bytes may wait for it
        now = now_us()
        while session.talkers:
            leg = session.talkers.pop()
            while leg.outbox and leg.key in self.connections:
                self.connections[leg.key].tell(leg.outbox.popleft())
        ack = session.next_ack(now)
        if ack is not None:
            self.connections[ack[0].key].tell(ack[1])
        if session.wished:
            session.wished = False
            self.dialler.dial_soon()
        if not self._closing and session.reassembly.complete():
            self._closing = True
            self.spawn(self._finish())
        if self._closing and session.digest.verified:
            self._verified.set()
        if session.bye or (self._leaving_told and not self.connections):
            self._finished.set()  # without BYE a tx that lost its legs comes back, and must hear that all is done
        self.books.on_worked(now)
        self.set_alarm(session.deadline_us())

    def after_soon(self) -> None:
        """Call `after` from the loop, once."""
        if not self._after_scheduled:
            self._after_scheduled = True
            self.loop.call_soon(self._after_now)

    def _after_now(self) -> None:
        self._after_scheduled = False
        self.after()

    def on_alarm(self) -> None:
        """See Program."""
        self.session.on_timer(now_us())
        self.after()

    def on_tick(self, now: int) -> None:
        """See Program."""
        self._ticks += 1
        self.meter.sample(self.session.reassembly.written, now)
        self.books.on_tick(now)
        if self.session.dials and not self.presence.contacted:
            self.news.tell(self.session.book.failures(), now - self.began_us)
        self.session.on_timer(now)
        for leg in self.session.silent(now):
            self.connections[leg.key].drop("silent", closed_by_peer=False)
        for connection in list(self.connections.values()):
            if self.session.dials and not self._ticks % SAMPLE_EVERY_TICKS:
                connection.sample(now)
            connection.drop_if_deaf(now)
        self.dialler.dial()
        quiet, message = self.session.heartbeats(now)
        for leg in quiet:
            self.connections[leg.key].tell(message)
        self.after()

    # ---- the end --------------------------------------------------------------------------------
    async def _finish(self) -> None:
        """Everything was written. Done is only what tx has sent, and what the reader has taken out of the pipe."""
        self.session.ask_digest()
        self.after()
        await self._verified.wait()
        poll_us = DRAIN_POLL_US_MIN
        while not self.sink.drained():  # no event tells when a pipe has become empty
            await asyncio.sleep(poll_us / S_US)
            poll_us = min(2 * poll_us, DRAIN_POLL_US_MAX)
        self._closed = True
        self.sink.close()
        if self.command is not None:
            await self.command.ended.wait()
            if self.command.status:
                return  # on_command_exit has said it
        self.session.on_done()
        self.after()
        if self.doorway is not None:
            self.doorway.tell_done()
        if not self.outcome.done():
            self.outcome.set_result(None)

    async def farewell(self, failure: BaseException | None) -> None:
        """See Program. After success stay until tx knows; after a failure of ours, tell every leg why."""
        if failure is None:
            try:
                async with asyncio.timeout(LINGER_US / S_US):
                    await self._finished.wait()
            except TimeoutError:
                self.log.say(WARNING, "complete, but the transmitter may not know")
            return
        if isinstance(failure, PeerLost | RemoteFailed | LimitReached | SessionRefused):
            return
        reason = str(failure) if isinstance(failure, Failure) else f"unexpected error: {failure!r}"
        self.leaving = True
        self._leaving_told = bool(self.connections)
        self.session.refuse(encode_reason(Kind.REFUSAL, reason))
        for connection in list(self.connections.values()):
            connection.leave()
        self.after()
        if self.presence.contacted:
            await self._finished.wait()

    def idle(self, now: int) -> tuple[int, bool]:
        """See Program. That there is no leg at all is told as an outage."""
        idle_us = now - (self.meter.progress_us or self.contact_us or now)
        together = self.presence.alone_since_us is None
        return idle_us, together and not self.outcome.done() and is_stall(idle_us, lambda: rx_waits_for(self, now))

    def dump(self) -> str:
        """See Program."""
        return report.dump_rx(self)

    def stop(self) -> None:
        """See Program."""
        super().stop()
        for connection in list(self.connections.values()):
            connection.drop("closed", closed_by_peer=False)
