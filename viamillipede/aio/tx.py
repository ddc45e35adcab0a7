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

import uvloop

from viamillipede.aio import report
from viamillipede.aio.clock import now_us
from viamillipede.aio.log import EVENT, WARNING
from viamillipede.aio.program import Program
from viamillipede.aio.sockets import DialError, dial, raise_descriptor_limit, rtt_us, unacked_bytes
from viamillipede.aio.source import Source, open_source
from viamillipede.aio.tx_leg import TxConnection
from viamillipede.config import KIB, THREADS_MAX, TxConfig
from viamillipede.errors import Exit, Failure, FrameError, NoContact, PeerLost, RemoteFailed, SessionRefused
from viamillipede.protocol.chaos import Chaos
from viamillipede.protocol.tx_session import RETIRED, TxSession
from viamillipede.protocol.wire import Kind, Verdict, encode_control, encode_reason
from viamillipede.units import format_bytes

RECEIVE_BYTES = 64 * KIB
SAMPLE_EVERY_TICKS = 3
FAREWELL_LEG = THREADS_MAX  # the number of the leg that only carries the news that tx gives up

BEAT, BYE = encode_control(Kind.BEAT), encode_control(Kind.BYE)


class Transmitter(Program):
    """The tx program."""

    def __init__(self, config: TxConfig) -> None:
        super().__init__("tx", config.verbose)
        self.config = config
        self.session = TxSession(config, os.urandom(16), now_us())
        self.presence = self.session.presence
        self.chaos = Chaos(config.chaos, config.chaos_kind, config.checksum)
        self.contact = asyncio.Event()
        self.contact_us = 0
        self.receive_buffer = memoryview(bytearray(RECEIVE_BYTES))
        self.connections: dict[int, TxConnection] = {}  # of every leg that was ever dialled
        self.source: Source
        self._input_waits = False  # for its next bytes
        self._pump_scheduled = self._dial_scheduled = False
        self._ticks = 0
        self._tuner_told: dict[int, str] = {}
        self._window_told = self._window_bytes = 0
        self.meter = report.Meter()
        self.news = report.ContactNews(self.log, config.wait_us)

    def start(self) -> None:
        """See Program."""
        self.dial()

    def stop(self) -> None:
        """See Program."""
        for connection in self.connections.values():
            connection.drop("closed", closed_by_peer=False)

    # ---- dialling -------------------------------------------------------------------------------
    def dial(self) -> None:
        """Set up the connections that are to be set up now."""
        while not self.outcome.done() and (wanted := self.session.next_dial(now_us())) is not None:
            leg, rank = wanted
            if leg not in self.connections:
                self.connections[leg] = TxConnection(self, leg)
            self.spawn(self.connections[leg].attempt(rank))

    def dial_soon(self) -> None:
        """Dial from the loop, once, when the caller is done."""
        if not self._dial_scheduled:
            self._dial_scheduled = True
            self.loop.call_soon(self._dial_now)

    def _dial_now(self) -> None:
        self._dial_scheduled = False
        self.dial()

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
        self.set_alarm(session.deadline_us(now_us()))

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
        view = None if self._input_waits else window.input_view()
        if view is None:
            return False
        filled = 0
        while filled < len(view):
            count = self.source.read_into(view[filled:])
            if not count:
                break
            filled += count
        if filled:
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
    def on_leg_up(self) -> None:
        """A leg was accepted."""
        if not self.contact.is_set():
            self.contact.set()
            self.contact_us = now_us()
            self.log.say(EVENT, f"first contact after {report.since(self.began_us)}")

    def on_message(self) -> None:
        """rx has said something, and the session knows."""
        if self.session.done and not self.outcome.done():
            self.outcome.set_result(None)
        if self.session.window.limit_bytes != self._window_bytes:  # it has grown
            self._window_bytes = self.session.window.limit_bytes
            for connection in self.connections.values():
                connection.rebase()
        self.pump()

    def on_tick(self, now: int) -> None:
        """See Program."""
        self._ticks += 1
        self.meter.sample(self.session.window.written, now)
        if not self.contact.is_set():
            self.news.tell(self.session.book.failures(), now - self.began_us)
        if self._window_told != self.session.window.limit_bytes:
            self._window_told = self.session.window.limit_bytes
            self.log.say(EVENT, f"the window in use is {format_bytes(self._window_told)}")
        if self._ticks % SAMPLE_EVERY_TICKS == 0:
            for leg in list(self.session.legs):
                sock = self.connections[leg].sock
                if sock is not None:
                    self.session.on_sample(leg, unacked_bytes(sock), now)
                    self.session.on_rtt(leg, *rtt_us(sock))
        replace = self.session.on_timer(now)
        for rank, tuner in enumerate(self.session.tuners):
            if tuner.why != self._tuner_told.get(rank):
                self._tuner_told[rank] = tuner.why
                address = self.session.book.states[rank].address
                self.log.say(EVENT, f"{address}: {report.plural(tuner.legs, 'leg')}; {tuner.why}")
        for leg, reason in replace:
            self.connections[leg].drop(reason, closed_by_peer=False, reset=reason != RETIRED)
        for leg in self.session.heartbeats(now):
            self.connections[leg].say(BEAT)
        self.dial()
        self.pump()

    # ---- the end --------------------------------------------------------------------------------
    async def farewell(self, failure: BaseException | None) -> None:
        """See Program. After success rx is told that we know; after a failure of ours, why."""
        up = [c for c in self.connections.values() if c.sock is not None]
        if failure is None:
            said = 0
            for connection in up:
                if connection.silent():
                    connection.say(BYE)
                    said += connection.sock is not None and connection.silent()
                connection.drop("done", closed_by_peer=False, reset=False)
            if not said:
                await self._farewell_leg(BYE)
            return
        untold = isinstance(failure, NoContact | SessionRefused | PeerLost | RemoteFailed)
        if untold or not self.contact.is_set():
            return
        reason = str(failure) if isinstance(failure, Failure) else f"unexpected error: {failure!r}"
        message = encode_reason(Kind.ABORT, reason)
        for connection in up:
            connection.say(message)
        await self._farewell_leg(message)

    async def _farewell_leg(self, message: bytes) -> None:
        """Say it on a leg of its own too: on the others it may stand behind frames that nobody reads.

        Returns when rx has closed that leg, which is what it does once it has understood.
        """
        for state in self.session.book.states:
            if not state.worked:
                continue
            with contextlib.suppress(DialError, FrameError, OSError):  # another address, or nobody: we end anyhow
                with await dial(state.address, state.address.via or self.config.bind) as sock:
                    answer = await TxConnection(self, FAREWELL_LEG).greet(sock)
                    if answer.verdict is Verdict.ACCEPTED:
                        await self.loop.sock_sendall(sock, message)
                        while await self.loop.sock_recv(sock, RECEIVE_BYTES):
                            pass
                        return

    def dump(self) -> str:
        """See Program."""
        return report.dump_tx(self)


async def _transmit(config: TxConfig) -> None:
    program = Transmitter(config)
    status = "incomplete"
    try:
        with open_source(0, program.on_input_ready) as program.source:
            await program.run()
        status = ""
    finally:
        program.log.say(WARNING, report.closing_tx(program, status))


def transmit(config: TxConfig) -> int:
    """Run tx until its end; returns the exit status, or raises a Failure that carries one."""
    raise_descriptor_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_transmit(config))
    return Exit.COMPLETE
