"""The transmitter's shell, as thin as the real one: it dials, reads, sends and asks the session."""

from tests.sim.hasher import Hasher
from tests.sim.record import Sent
from tests.sim.setting import Joined, Sim
from viamillipede.config import GREETING_US, KIB, TICK_US, WAITS_US, Address, TxConfig
from viamillipede.errors import FrameError, IntegrityError
from viamillipede.protocol.send_window import Frame
from viamillipede.protocol.tx_session import RETIRED, TxSession
from viamillipede.protocol.wire import (
    ANSWER_BYTES,
    Kind,
    Verdict,
    decode_answer_untrusted,
    encode_control,
    encode_waits,
)

FOREVER_US = 10**12
NOTSENT_BYTES_MIN, SAMPLE_EVERY_TICKS = 16 * KIB, 3  # as the real shell has them
BEAT, BYE = encode_control(Kind.BEAT), encode_control(Kind.BYE)


class TxConnection:
    """tx's end of a connection: its answer so far, and what waits for room in the socket."""

    def __init__(self, connection: Joined, leg: int, rank: int) -> None:
        self.connection, self.leg, self.rank = connection, leg, rank
        self.answer = bytearray()
        self.up = False
        self.busy = False  # with a frame
        self.informed = False  # rx has said on this leg how things stand
        self.outgoing: list[tuple[memoryview, bool]] = []  # bytes, and whether damage to them is noticed


class TxSide:
    """Drives a TxSession in virtual time."""

    def __init__(self, world: Sim) -> None:
        self.world, self.options = world, world.options
        options = world.options
        config = TxConfig(
            checksum=options.tx_checksum, digest=options.tx_digest,
            window_bytes=options.tx_window, frame_bytes=options.frame_bytes,
            threads=options.threads, wait_us=FOREVER_US, outage_us=FOREVER_US, regroup_us=FOREVER_US,
            addresses=tuple(Address("host", 1 + i) for i in range(options.addresses)),
        )  # fmt: skip
        self.session = TxSession(config, b"session of a sim", world.now_us)
        self.connections: dict[int, TxConnection] = {}  # leg -> its connection, once it is up
        self._pending: dict[int, TxConnection] = {}  # ... before it is, perhaps beside one that is doubted
        self.replaced = 0
        self.disagreed = False  # with rx about the digest
        self._hasher = Hasher(world, None, self.pump, "tx")
        self.limit_bytes = 0  # of the window at first contact
        self.input_end_us = self.written_at_input_end = 0  # when all had been read, and what rx had written by then
        self._input_left = options.total_bytes
        self._available = 0  # bytes that the source has ready
        self._until_pause = options.source.pause_every
        self._source_armed = False
        self._alarm_us = -1
        self._ticks = 0
        self._tuner_told: dict[int, str] = {}
        self._said_bye = False
        self.dial()
        world.after(TICK_US, self._tick)
        world.after(0, self._produce)

    # ---- connections ----------------------------------------------------------------------------
    def dial(self) -> None:
        """Set up the connections that are to be set up now."""
        while not self.session.done and (wanted := self.session.next_dial(self.world.now_us)) is not None:
            self._attempt(*wanted)

    def _attempt(self, leg: int, rank: int) -> None:
        self.world.dial(
            leg,
            rank,
            lambda: self._connected(leg, rank),
            lambda reason, refused: self._attempt_failed(leg, rank, reason, refused),
        )

    def _attempt_failed(self, leg: int, rank: int, reason: str, refused: bool) -> None:
        self.session.on_attempt_failed(rank, reason, refused, self.world.now_us, self.world.rng.random())
        self._over(leg)

    def _over(self, leg: int) -> None:
        self.session.dialling.on_over(leg)
        self.world.after(0, self.dial)

    def _connected(self, leg: int, rank: int) -> None:
        if self.session.done:
            return
        mine = self._pending[leg] = TxConnection(self.world.connect(leg, rank), leg, rank)
        connection = mine.connection
        connection.back.on_readable = lambda: self._readable(mine)
        connection.forward.on_writable = lambda: self._writable(mine)
        mine.outgoing.append((memoryview(self.session.greeting(leg)), True))
        self._flush(mine)
        self.world.after(GREETING_US, lambda: self._greeting_timeout(mine))

    def _greeting_timeout(self, mine: TxConnection) -> None:
        if self._pending.get(mine.leg) is mine:
            self.lose(mine, "no answer to the greeting", False)

    def _open(self, mine: TxConnection) -> bool:
        return self.connections.get(mine.leg) is mine or self._pending.get(mine.leg) is mine

    def lose(self, mine: TxConnection, reason: str, closed_by_peer: bool) -> None:
        """The connection is of no more use."""
        if not self._open(mine):
            return
        world, leg = self.world, mine.leg
        world.note(f"tx: leg {leg}: {reason}")
        if mine.up:
            del self.connections[leg]
            world.close_from_tx(mine.connection, reason != RETIRED)
            if world.record is not None:
                world.record.lost.append((world.now_us, leg, reason))
            self.session.on_leg_lost(leg, closed_by_peer, world.now_us, world.rng.random())
            world.after(0, self.dial)
        else:
            del self._pending[leg]
            world.close_from_tx(mine.connection, True)
            self._attempt_failed(leg, mine.rank, reason, closed_by_peer)
        self.pump()

    # ---- what comes back ------------------------------------------------------------------------
    def _readable(self, mine: TxConnection) -> None:
        if not self._open(mine):
            return
        back, now_us = mine.connection.back, self.world.now_us
        while True:
            data = back.receive(ANSWER_BYTES - len(mine.answer) if not mine.up else 4096)
            if not data:
                break
            try:
                if not mine.up:
                    self._on_answer(mine, data)
                else:
                    self.session.on_bytes_untrusted(mine.leg, data, now_us)
                    if not mine.informed:  # before, it might send what arrived long ago
                        mine.informed = True
                        self.session.on_idle(mine.leg)
                    self._compare(mine)
            except FrameError as error:
                self.world.count("frame errors at tx")
                self.lose(mine, str(error), False)
                return
            if not self._open(mine):
                return
        if back.ended or mine.connection.broken:
            self.lose(mine, "closed by rx", True)
            return
        self.pump()

    def _compare(self, mine: TxConnection) -> None:
        """rx may have told its digest; it does so again while it hears nothing."""
        answer = None if self._hasher.busy else self.session.digest.answer()
        if answer is None:
            return
        self._say(mine, answer)
        try:
            self.session.digest.check()
        except IntegrityError:
            if not self.options.damaged:
                raise
            self.disagreed = True

    def _on_answer(self, mine: TxConnection, data: bytes) -> None:
        mine.answer += data
        if len(mine.answer) < ANSWER_BYTES:
            return
        answer = decode_answer_untrusted(mine.answer)
        leg = mine.leg
        if answer.verdict is Verdict.ACCEPTED and leg in self.connections:  # rx has given up the one before
            self.lose(self.connections[leg], "replaced by a fresh connection", False)
        refusal = self.session.on_answer(leg, mine.rank, answer, self.world.now_us)
        assert not refusal, refusal
        mine.up = True
        self.connections[leg] = self._pending.pop(leg)
        if not self.limit_bytes:
            self.limit_bytes = self.session.window.limit_bytes
            self._hasher = Hasher(self.world, self.session.digest.own, self.pump, "tx")
        self.world.note(f"tx: leg {leg} is up, to address {mine.rank}")
        if self.world.record is not None:
            self.world.record.up.append((self.world.now_us, leg, mine.rank))
        self._over(leg)

    # ---- what goes out --------------------------------------------------------------------------
    def pump(self) -> None:
        """Read and send as much as window and sockets allow."""
        session, now_us = self.session, self.world.now_us
        if session.done:
            self._say_bye()
            return
        while True:
            self._read_input()
            assignment = session.next_assignment(now_us)
            if assignment is None:
                break
            self._send(*assignment)
        alarm_us = session.deadline_us(now_us)
        assert alarm_us is None or alarm_us > now_us, "an alarm that would spin: something waits beside an idle leg"
        if alarm_us is not None and alarm_us != self._alarm_us:
            self._alarm_us = alarm_us
            self.world.after(alarm_us - now_us, self.pump)

    def _send(self, leg: int, frame: Frame) -> None:
        mine = self.connections[leg]
        assert not mine.busy, "a leg that is busy was chosen"
        payload = self.session.window.payload(frame) if frame.length else memoryview(b"")
        assert len(payload) == frame.length, "a payload must lie in one piece"
        mine.busy = True
        mine.connection.forward.limit_unsent(max(self.session.frame_bytes(leg), NOTSENT_BYTES_MIN))
        mine.outgoing.append((memoryview(frame.header), True))
        if frame.length:
            mine.outgoing.append((payload, self.session.checksum))
        if frame.sends > 1 and self.session.window.limit_bytes > self.limit_bytes:
            self.world.count("sent again after growth")
        self.world.note(f"tx: leg {leg} sends {frame!r} for the {frame.sends}. time")
        if self.world.record is not None:
            how = "new" if frame.sends == 1 else "again" if len(frame.legs) == 1 else "hedged"
            self.world.record.sent.append(Sent(self.world.now_us, leg, frame.seq, frame.length, how))
        self._flush(mine)

    def _flush(self, mine: TxConnection) -> None:
        while mine.outgoing:
            piece, noticed = mine.outgoing[0]
            count = mine.connection.forward.send(piece, noticed)
            if not count:
                return
            if mine.up:
                self.session.on_progress(mine.leg, count, self.world.now_us)
            if count < len(piece):
                mine.outgoing[0] = piece[count:], noticed
            else:
                del mine.outgoing[0]
        if mine.busy:
            mine.busy = False
            if self.session.legs[mine.leg].hoards():  # as far as is known
                self._on_sample(mine)
            self.session.on_idle(mine.leg)

    def _on_sample(self, mine: TxConnection) -> None:
        self.session.on_sample(mine.leg, mine.connection.forward.unacked_bytes(), self.world.now_us)

    def _writable(self, mine: TxConnection) -> None:
        if self._open(mine):
            self._flush(mine)
            self.pump()

    def _say_bye(self) -> None:
        if self._said_bye:
            return
        self._said_bye = True
        for mine in [*self.connections.values(), *self._pending.values()]:
            self._say(mine, BYE)

    def _say_waits(self) -> None:
        """On one leg, if any has room for it."""
        free = [mine for mine in self.connections.values() if not mine.outgoing]
        for mine in free[:1]:
            self._say(mine, encode_waits([self._ticks] * 6))

    def _say(self, mine: TxConnection, message: bytes) -> None:
        """Behind the current frame if there is one."""
        mine.outgoing.append((memoryview(message), True))
        self._flush(mine)

    # ---- input ----------------------------------------------------------------------------------
    def _produce(self) -> None:
        """The source has something again."""
        source = self.options.source
        self._source_armed = False
        self._available = self._input_left if not source.gap_us and not source.pause_every else source.piece
        if source.pause_every:
            self._available = max(1, min(self._available, self._until_pause))
        self.pump()

    def _read_input(self) -> None:
        """As the real shell does: nothing is read before the first contact."""
        window, source = self.session.window, self.options.source
        if not self.session.presence.contacted or window.ended:
            return
        while self._input_left and self._available:
            view = None if self._hasher.busy else window.input_view()
            if view is None:
                return
            assert len(view), "an empty view looks like the end of the input"
            count = min(len(view), self._available, self._input_left)
            start = self.options.total_bytes - self._input_left
            view[:count] = self.world.source[start : start + count]
            self._hasher.take(view[:count])
            window.on_input(count, self.world.now_us)
            self._input_left -= count
            self._available -= count
            self._until_pause -= count
        if not self._input_left:
            window.on_input_end()
            self.input_end_us, self.written_at_input_end = self.world.now_us, window.written
        elif not self._available and not self._source_armed:
            self._source_armed = True
            delay_us = source.gap_us
            if source.pause_every and self._until_pause <= 0:
                self._until_pause = source.pause_every
                delay_us = source.pause_us
            self.world.after(delay_us, self._produce)

    # ---- time -----------------------------------------------------------------------------------
    def _tick(self) -> None:
        if self.session.done:
            return
        now_us = self.world.now_us
        self._ticks += 1
        if self.session.tuners or not self._ticks % SAMPLE_EVERY_TICKS:
            for mine in self.connections.values():
                self._on_sample(mine)
                self.session.on_rtt(mine.leg, *mine.connection.round_trip_us())
        self.world.on_tx_tick()
        replace = self.session.on_timer(now_us)
        for rank, tuner in enumerate(self.session.tuners):
            if tuner.why != self._tuner_told.get(rank):
                self._tuner_told[rank] = tuner.why
                self.world.note(f"tx: address {rank}: {tuner.legs} legs; {tuner.why}")
        for leg, reason in replace:
            self.replaced += reason != RETIRED
            self.world.count("replaced " + reason if reason != RETIRED else "retired")
            self.lose(self.connections[leg], reason, False)
        for leg in self.session.heartbeats(now_us):
            self._say(self.connections[leg], BEAT)
        if not self._ticks % (WAITS_US // TICK_US):
            self._say_waits()
        self.dial()
        self.pump()
        self.world.after(TICK_US, self._tick)
