"""tx: standard input to the legs. Packet flow:

1. `pump` asks the session which leg sends which frame; whoever makes that answer change calls it:
   an idle leg, new input, an acknowledgement, the alarm.
2. No frame although a leg is idle: `_read_input` reads into the window, and the pump goes on.
3. The leg's connection sends header and payload with one system call, the rest when there is room.
4. What rx says goes to the session; DONE ends the program.
"""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator

import uvloop

from viamillipede.aio import report
from viamillipede.aio.channel import Channel
from viamillipede.aio.clock import now_us
from viamillipede.aio.command_ends import CommandSource
from viamillipede.aio.descriptors import Crew
from viamillipede.aio.dialler import Dialler
from viamillipede.aio.handshake import enter, hear_call
from viamillipede.aio.hasher import Hasher
from viamillipede.aio.last_word import LastWord
from viamillipede.aio.listener import Listener
from viamillipede.aio.log import EVENT
from viamillipede.aio.observer import Observer
from viamillipede.aio.program import Program
from viamillipede.aio.refusals import OpeningRefused
from viamillipede.aio.snapshots import Rates, tx_snapshot
from viamillipede.aio.sockets import check_congestion, raise_descriptor_limit, rtt_us, unacked_bytes
from viamillipede.aio.source import Source, open_source
from viamillipede.aio.systemd import Service
from viamillipede.aio.tx_leg import DONE, PIECE_BYTES, TxConnection
from viamillipede.aio.waiting import TxWaits, is_stall, tx_waits_for
from viamillipede.config import KIB, WAITS_US, Address, TxConfig
from viamillipede.errors import (
    Exit,
    Failure,
    FrameError,
    IntegrityError,
    NoContact,
    PeerLost,
    RemoteFailed,
    SessionRefused,
)
from viamillipede.protocol.chaos import Chaos
from viamillipede.protocol.contact import UNKNOWN
from viamillipede.protocol.tx_session import RETIRED, TxSession
from viamillipede.protocol.wire import (
    Answer,
    Kind,
    Opening,
    Verdict,
    encode_control,
    encode_reason,
    encode_waits,
    sealed_bytes,
)
from viamillipede.units import format_bytes

CREW = min(4, len(os.sched_getaffinity(0)) - 1) if hasattr(os, "sched_getaffinity") else 1
RECEIVE_BYTES = 64 * KIB
SAMPLE_EVERY_TICKS = 3  # when nobody tunes by it
SIGNAL_STATUS = 128  # and the number of the signal is the exit status after one

_REFUSALS = {
    Verdict.CHECKPHRASE: "it has another checkphrase",
    Verdict.BUSY: "it is another receiver than ours",
    Verdict.MALFORMED: "its call has values that cannot be",
}

BEAT, BYE, LEAVE = encode_control(Kind.BEAT), encode_control(Kind.BYE), encode_control(Kind.LEAVE)


class Transmitter(Program):
    """The tx program."""

    def __init__(self, config: TxConfig, service: Service | None = None) -> None:
        super().__init__("tx", config, service=service)
        self.config = config
        self.session = TxSession(config, os.urandom(16), now_us())
        self.presence = self.session.presence
        self.chaos = Chaos(config.chaos, config.chaos_kind, config.checksum)
        self.contact = asyncio.Event()
        self.receive_buffer = memoryview(bytearray(RECEIVE_BYTES))
        self.crew: Crew | None = None  # who seals frames, where that takes long
        self.buffers: list[memoryview] = []  # that no sealed frame is in
        self.connections: dict[int, TxConnection] = {}  # of every leg that was ever dialled
        self.source: Source
        self._input_waits = False  # for its next bytes
        self.hasher = Hasher(None, self.pump_soon)
        self._pump_scheduled = False
        self._ticks = 0
        self._tuner_told: dict[int, str] = {}
        self._window_told = self._window_bytes = 0
        self.rates = Rates()
        self.books = TxWaits(self, self.began_us)
        self.observer = Observer(config, self.log, lambda: tx_snapshot(self), self.began_us)
        self._waits_told_us = self.began_us
        self.news = report.ContactNews(self.log, config.wait_us, "receiver")
        self.dialler = Dialler(self, self.session, config.bind, self._introduce)
        if not config.addresses:
            self.listener = Listener(self, config.bind, config.port, self._welcome)
        self.last_word = LastWord(self)

    def start(self) -> None:
        """See Program."""
        if self.listener is not None:
            self.listener.start()
        self.dialler.dial()

    def stop(self) -> None:
        """See Program."""
        super().stop()
        for connection in self.connections.values():
            connection.drop("closed", closed_by_peer=False)

    # ---- new legs -------------------------------------------------------------------------------
    async def _introduce(self, sock: socket.socket, leg: int, rank: int) -> str:
        """See Dialler."""
        channel = await enter(sock, self.keys, Opening.GREETING, self.session.answer_us())
        return await self._greet(channel, leg, rank)

    async def _greet(self, channel: Channel, leg: int, rank: int, *before: bytes) -> str:
        """Why there is no leg; "" if there is one."""
        if leg not in self.connections:
            self.connections[leg] = TxConnection(self, leg, self.session.book.states[rank].address)
        reason = await self.connections[leg].introduce(channel, rank, *before)
        if not reason and self.keys is not None:
            self.keys.on_leg(channel.secret)
            self.cipher = channel.cipher
            if self.crew is None and CREW and self.keys.is_slow(channel):
                self.crew = Crew(self.loop, "seal", CREW)
        return reason

    def take_buffer(self) -> memoryview:
        """Memory for what is sealed; to be put back into `buffers`, where it waits for the next piece of a frame."""
        return self.buffers.pop() if self.buffers else memoryview(bytearray(sealed_bytes(PIECE_BYTES)))

    async def _welcome(self, sock: socket.socket, peer: Address) -> None:
        """See Listener. An rx calls, and we greet."""
        session = self.session
        call, channel = await hear_call(sock, self.keys, peer.host)
        verdict = session.on_call(call, peer, now_us())
        if verdict is not Verdict.ACCEPTED:
            raise OpeningRefused(_REFUSALS[verdict], Answer(verdict), channel)
        if self.keys is not None:  # already: where the answer to our greeting is lost, rx alone knows of the leg
            self.keys.on_leg(channel.secret)
        try:
            accepted = Answer(Verdict.ACCEPTED, 0, call.receiver, self.config.window_bytes)
            reason = await self._greet(channel, call.leg, call.rank, accepted.encode())
        finally:
            session.on_call_over()
        if reason:
            raise FrameError(reason)

    # ---- the pump -------------------------------------------------------------------------------
    def pump(self) -> None:
        """Give idle legs their frames, as long as there is something to send."""
        session = self.session
        while not self.outcome.done():
            assignment = session.next_assignment(now_us())
            if assignment is not None:
                leg, frame = assignment
                self.connections[leg].send(frame, session.window.payload(frame))
            elif not len(session.scheduler) or not self._read_input():
                break
        now = now_us()
        self.books.on_pumped(now)
        self.set_alarm(session.deadline_us(now))

    def pump_soon(self) -> None:
        """Pump from the loop, once, when the caller is done."""
        if not self._pump_scheduled:
            self._pump_scheduled = True
            self.loop.call_soon(self._pump_now)

    def _pump_now(self) -> None:
        self._pump_scheduled = False
        self.pump()

    def _read_input(self) -> bool:
        """Fill a frame, as far as the input has something. Whether it has brought anything new."""
        window = self.session.window
        view = None if self._input_waits or self.hasher.busy else window.input_view()
        if view is None:
            return False
        filled = 0
        while filled < len(view):
            count = self.source.read_into(view[filled:])
            if not count:
                break
            filled += count
        if filled:
            self.hasher.take(view[:filled])
            window.on_input(filled, now_us())
        if filled < len(view):
            if count is None:
                self._input_waits = True
            else:
                window.on_input_end()
                return True
        return filled > 0

    def on_input_ready(self) -> None:
        """The source has something, or has ended."""
        self._input_waits = False
        self.pump()

    def on_alarm(self) -> None:
        """See Program. A partly filled frame has waited long enough."""
        self.pump()

    # ---- what happens ---------------------------------------------------------------------------
    def on_leg_up(self, connection: TxConnection) -> None:
        """A leg was accepted."""
        if self.listener is not None:
            connection.say(self.last_word.message or self.session.wishes.message(self.session.dialling))
        if not self.contact.is_set():
            self.contact.set()
            self.contact_us = now_us()
            self.hasher = Hasher(self.session.digest.own, self._on_hashed)
            self.start_command(self.environment(self.session.session, str(connection.address), self.config.name))
            self.log.say(EVENT, f"first contact after {report.since(self.began_us)}")

    def on_message(self, connection: TxConnection) -> None:
        """rx has said something, and the session knows."""
        self._compare(connection)
        if self.session.done and not self.outcome.done():
            self.outcome.set_result(None)
        if self.session.window.limit_bytes != self._window_bytes:  # it has grown
            self._window_bytes = self.session.window.limit_bytes
            for connection in self.connections.values():
                connection.rebase()
        self.pump()

    def _compare(self, connection: TxConnection) -> None:
        """rx has told its digest: it shall hear ours, and here too they must be the same. IntegrityError."""
        answer = None if self.hasher.busy or connection.crowded() else self.session.digest.answer()
        if answer is not None:  # else rx asks again
            connection.say(answer)
            self.session.digest.check()

    def _on_hashed(self) -> None:
        """The thread has taken what it was given, perhaps the last of it."""
        if self.session.digest.answer() is not None:
            for connection in self.connections.values():
                if connection.sock is not None and connection.silent():
                    self._compare(connection)
                    break
        self.pump()

    def on_tick(self, now: int) -> None:
        """See Program."""
        self._ticks += 1
        self.meter.sample(self.session.window.written, now)
        self.books.on_tick(now)
        if not self.contact.is_set():
            self.news.tell(self.session.book.failures(), now - self.began_us)
        if self._window_told != self.session.window.limit_bytes:
            self._window_told = self.session.window.limit_bytes
            self.log.say(EVENT, f"the window in use is {format_bytes(self._window_told)}")
        if self.session.tuners or self._ticks % SAMPLE_EVERY_TICKS == 0:
            for leg in list(self.session.legs):
                sock = self.connections[leg].sock
                if sock is not None:
                    self.session.on_sample(leg, unacked_bytes(sock), now)
                    self.session.on_rtt(leg, *rtt_us(sock))
        replace = self.session.on_timer(now)
        for rank, tuner in enumerate(self.session.tuners):
            address = self.session.book.states[rank].address
            if tuner.why != self._tuner_told.get(rank) and address is not UNKNOWN:
                self._tuner_told[rank] = tuner.why
                self.log.say(EVENT, f"{address}: {report.plural(tuner.legs, 'leg')}; {tuner.why}")
        for leg, reason in replace:
            if reason == RETIRED:
                self.connections[leg].say(LEAVE)
            self.connections[leg].drop(reason, closed_by_peer=False, reset=reason != RETIRED)
        for leg in self.session.heartbeats(now):
            self.connections[leg].say(BEAT)
        if self.listener is not None:
            self._tell_wishes(now)
        self._tell_waits(now)
        self.dialler.dial()
        self.pump()

    def _tell_waits(self, now: int) -> None:
        """rx shall know where the time goes; it is not worth a place behind a frame."""
        if now - self._waits_told_us < WAITS_US:
            return
        silent = next((each for each in self.connections.values() if each.sock is not None and each.silent()), None)
        if silent is not None:
            self._waits_told_us = now
            silent.say(encode_waits(self.books.waits.booked_us))

    def _tell_wishes(self, now: int) -> None:
        """How many legs rx is to dial; a leg that is stuck need not hear it more than once."""
        due = self.session.wishes.due(self.session.dialling, now)
        if due is not None:
            message, to_all = due
            open_ones = [c for c in self.connections.values() if c.sock is not None and not c.crowded()]
            open_ones.sort(key=lambda connection: not connection.silent())
            for connection in open_ones if to_all else open_ones[:1]:
                connection.say(message)

    # ---- the end --------------------------------------------------------------------------------
    async def farewell(self, failure: BaseException | None) -> None:
        """See Program. After success rx is told that we know; after a failure of ours, why."""
        up = [c for c in self.connections.values() if c.sock is not None]
        if failure is None:
            bye = encode_waits(self.books.waits.booked_us) + BYE
            said = 0
            for connection in up:
                if connection.silent():
                    connection.say(bye)
                    said += connection.sock is not None and connection.silent()
                connection.drop(DONE, closed_by_peer=False, reset=False)
            if not said:
                await self.last_word.say(bye)
            return
        untold = isinstance(failure, NoContact | SessionRefused | PeerLost | RemoteFailed)
        if untold or not self.contact.is_set():
            return
        reason = str(failure) if isinstance(failure, Failure) else f"unexpected error: {failure!r}"
        said = False
        # rx shall compare as well. After any other failure the thread may not have taken all of it.
        answer = (self.session.digest.answer() or b"") if isinstance(failure, IntegrityError) else b""
        message = answer + encode_reason(Kind.ABORT, reason)
        for connection in up:
            connection.say(message)
            if answer and connection.silent():  # rx fails of it too and waits for our end, as we should for its
                connection.drop("the digests differ", closed_by_peer=False, reset=False)
                said = True
        if not said:
            await self.last_word.say(message)

    def ending_signal(self, failure: BaseException) -> int:
        """See Program. The source gets what we got."""
        status = failure.exit_status if isinstance(failure, Failure) else 0
        return status - SIGNAL_STATUS if status > SIGNAL_STATUS else signal.SIGTERM

    def idle(self, now: int) -> tuple[int, bool]:
        """See Program. That there is no leg at all is told as an outage."""
        idle_us = now - (self.meter.progress_us or self.contact_us or now)
        together = self.presence.alone_since_us is None
        return idle_us, together and not self.outcome.done() and is_stall(idle_us, lambda: tx_waits_for(self, now))

    def dump(self) -> str:
        """See Program."""
        return report.dump_tx(self)


@contextlib.contextmanager
def _source(program: Transmitter) -> Iterator[Source]:
    """Standard input, or what the command writes, which is run at the first contact."""
    if not program.config.command:
        with open_source(0, program.on_input_ready) as source:
            yield source
        return
    of_command = CommandSource(program.config.command, program.log, program.on_input_ready, program.fail)
    program.command, program.command_end = of_command.command, of_command
    try:
        yield of_command
    finally:
        of_command.close()


async def _transmit(config: TxConfig, service: Service | None) -> None:
    program = Transmitter(config, service)
    status = "incomplete"
    try:
        with _source(program) as program.source:
            await program.run()
        status = ""
    finally:
        program.close(lambda: report.closing_tx(program, status))


def transmit(config: TxConfig, service: Service | None = None) -> int:
    """Run tx until its end; returns the exit status, or raises a Failure that carries one.

    `service`: sockets that listen already, if it is to listen.
    """
    check_congestion(config.congestion)
    raise_descriptor_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_transmit(config, service))
    return Exit.COMPLETE
