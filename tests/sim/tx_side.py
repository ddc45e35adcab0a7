"""The transmitter's shell, as thin as the real one: it dials, reads, sends and asks the session."""

from typing import TYPE_CHECKING

from tests.sim.links import Connection
from viamillipede.config import BACKOFF_US_MIN, CONNECT_US, GREETING_US, LEG_STUCK_US, TICK_US, Address, TxConfig
from viamillipede.errors import FrameError
from viamillipede.protocol.send_window import Frame
from viamillipede.protocol.tx_session import TxSession
from viamillipede.protocol.wire import ANSWER_BYTES, Kind, Waiting, decode_answer_untrusted, encode_control

if TYPE_CHECKING:
    from tests.sim.world import World

FOREVER_US = 10**12


class TxConnection:
    """tx's end of a connection: its answer so far, and what waits for room in the socket."""

    def __init__(self, connection: Connection, leg: int, rank: int) -> None:
        self.connection, self.leg, self.rank = connection, leg, rank
        self.answer = bytearray()
        self.up = False
        self.busy = True  # with a frame, as the session sees it
        self.outgoing: list[tuple[memoryview, bool]] = []  # bytes, and whether damage to them is noticed


class TxSide:
    """Drives a TxSession in virtual time."""

    def __init__(self, world: "World") -> None:
        self.world, self.options = world, world.options
        options = world.options
        config = TxConfig(
            checksum=options.tx_checksum, window_bytes=options.tx_window, frame_bytes=options.frame_bytes,
            threads=len(options.links), wait_us=FOREVER_US, outage_us=FOREVER_US, regroup_us=FOREVER_US,
            addresses=tuple(Address("host", 1 + i) for i in range(options.addresses)),
        )  # fmt: skip
        self.session = TxSession(config, b"session of a sim", world.now_us)
        self.connections: dict[int, TxConnection] = {}  # leg -> its connection, also before it is up
        self.replaced = 0
        self.limit_bytes = 0  # of the window at first contact
        self._rx_waits_us = 0  # when rx was last seen waiting for its output
        self._input_left = options.total_bytes
        self._available = 0  # bytes that the source has ready
        self._until_pause = options.source.pause_every
        self._source_armed = False
        self._fill_us = -1
        self._said_bye = False
        for leg in range(len(options.links)):
            self._dial(leg)
        world.after(TICK_US, self._tick)
        world.after(0, self._produce)

    # ---- connections ----------------------------------------------------------------------------
    def _dial(self, leg: int) -> None:
        if not self.session.done:
            rank, at_us = self.session.book.pick(leg, self.world.now_us)
            self.world.after(max(0, at_us - self.world.now_us), lambda: self._connect(leg, rank))

    def _connect(self, leg: int, rank: int) -> None:
        world = self.world
        if self.session.done:
            return
        outcome = world.connect_outcome(leg, rank)
        round_trip_us = self.options.links[leg].delay_us + self.options.links[leg].back_delay_us
        if outcome == "timeout":
            world.after(CONNECT_US, lambda: self._attempt_failed(leg, rank, "no answer", False))
        elif outcome == "refused":
            world.after(round_trip_us, lambda: self._attempt_failed(leg, rank, "refused", True))
        elif outcome == "closed":
            world.after(2 * round_trip_us, lambda: self._attempt_failed(leg, rank, "closed at once", False))
        else:
            world.after(round_trip_us, lambda: self._connected(leg, rank))

    def _attempt_failed(self, leg: int, rank: int, reason: str, refused: bool) -> None:
        self.session.on_attempt_failed(rank, reason, refused, self.world.now_us, self.world.rng.random())
        self._dial(leg)

    def _connected(self, leg: int, rank: int) -> None:
        if self.session.done:
            return
        mine = TxConnection(self.world.connect(leg), leg, rank)
        self.connections[leg] = mine
        connection = mine.connection
        connection.back.on_readable = lambda: self._readable(mine)
        connection.forward.on_writable = lambda: self._writable(mine)
        mine.outgoing.append((memoryview(self.session.greeting(leg)), True))
        self._flush(mine)
        self.world.after(GREETING_US, lambda: self._greeting_timeout(mine))

    def _greeting_timeout(self, mine: TxConnection) -> None:
        if not mine.up and self.connections.get(mine.leg) is mine:
            self.lose(mine, "no answer to the greeting", False)

    def lose(self, mine: TxConnection, reason: str, closed_by_peer: bool) -> None:
        """The connection is of no more use; the leg dials again."""
        if self.connections.get(mine.leg) is not mine:
            return
        world, leg = self.world, mine.leg
        del self.connections[leg]
        world.note(f"tx: leg {leg}: {reason}")
        world.close_from_tx(mine.connection)
        if mine.up:
            self.session.on_leg_lost(leg, closed_by_peer, world.now_us)
            world.after(BACKOFF_US_MIN, lambda: self._dial(leg))
        else:
            self._attempt_failed(leg, mine.rank, reason, False)
        self.pump()

    # ---- what comes back ------------------------------------------------------------------------
    def _readable(self, mine: TxConnection) -> None:
        if self.connections.get(mine.leg) is not mine:
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
            except FrameError as error:
                self.world.count("frame errors at tx")
                self.lose(mine, str(error), False)
                return
            if self.connections.get(mine.leg) is not mine:
                return
        if back.ended or mine.connection.broken:
            self.lose(mine, "closed by rx", True)
            return
        self.pump()

    def _on_answer(self, mine: TxConnection, data: bytes) -> None:
        mine.answer += data
        if len(mine.answer) < ANSWER_BYTES:
            return
        answer = decode_answer_untrusted(mine.answer)
        refusal = self.session.on_answer(mine.leg, mine.rank, answer, self.world.now_us)
        assert not refusal, refusal
        mine.up = True
        self.limit_bytes = self.limit_bytes or self.session.window.limit_bytes
        self.world.note(f"tx: leg {mine.leg} is up")
        self._offer(mine)

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
        fill_us = session.window.fill_deadline_us()
        limited = session.window.next_seq - session.window.arrived_next >= self.options.frames_max
        assert fill_us is None or fill_us > now_us or limited or not len(session.scheduler), (
            "bytes wait beside an idle leg"
        )
        if fill_us is not None and fill_us > now_us and fill_us != self._fill_us:
            self._fill_us = fill_us
            self.world.after(fill_us - now_us, self.pump)

    def _send(self, leg: int, frame: Frame) -> None:
        mine = self.connections[leg]
        assert not mine.outgoing and not mine.busy, "a leg that is busy was chosen"
        payload = self.session.window.payload(frame) if frame.length else memoryview(b"")
        assert len(payload) == frame.length, "a payload must lie in one piece"
        mine.busy = True
        mine.outgoing = [(memoryview(frame.header), True)]
        if frame.length:
            mine.outgoing.append((payload, self.session.checksum))
        if frame.sends > 1 and self.session.window.limit_bytes > self.limit_bytes:
            self.world.count("sent again after growth")
        self.world.note(f"tx: leg {leg} sends {frame!r} for the {frame.sends}. time")
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
        if mine.up:
            self._offer(mine)

    def _offer(self, mine: TxConnection) -> None:
        if not mine.outgoing and mine.connection.forward.writable() and self.session.legs[mine.leg].busy:
            mine.busy = False
            self.session.on_idle(mine.leg)

    def _writable(self, mine: TxConnection) -> None:
        if self.connections.get(mine.leg) is mine:
            self._flush(mine)
            self.pump()

    def _say_bye(self) -> None:
        if self._said_bye:
            return
        self._said_bye = True
        for mine in list(self.connections.values()):
            mine.outgoing.append((memoryview(encode_control(Kind.BYE)), True))
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
            view = window.input_view()
            if view is None:
                return
            assert len(view), "an empty view looks like the end of the input"
            count = min(len(view), self._available, self._input_left)
            start = self.options.total_bytes - self._input_left
            view[:count] = self.world.source[start : start + count]
            window.on_input(count, self.world.now_us)
            self._input_left -= count
            self._available -= count
            self._until_pause -= count
        if not self._input_left:
            window.on_input_end()
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
        if self.world.rx.session.waiting() is Waiting.OUTPUT:
            self._rx_waits_us = now_us
        for mine in self.connections.values():
            if mine.up:
                self.session.on_sample(mine.leg, mine.connection.forward.unacked_bytes(), now_us)
                self._check_moves(mine)
        for leg, reason in self.session.on_timer(now_us):
            self.replaced += 1
            self.world.count("replaced " + reason)
            self.lose(self.connections[leg], reason, False)
        self.pump()
        self.world.after(TICK_US, self._tick)

    def _check_moves(self, mine: TxConnection) -> None:
        """A leg that has bytes and moves none is replaced, whoever delivered its frames meanwhile."""
        forward = mine.connection.forward
        if forward.hole and forward.unacked_bytes():
            since_us = max(forward.moved_us, self._rx_waits_us)
            assert self.world.now_us - since_us < 3 * LEG_STUCK_US, f"leg {mine.leg} moves nothing and is kept"
