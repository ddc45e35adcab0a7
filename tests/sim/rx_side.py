"""The receiver's shell, as thin as the real one: it steps legs, writes the output, sends what the session says."""

from tests.sim.hasher import Hasher
from tests.sim.output import Pipe
from tests.sim.record import Arrived
from tests.sim.setting import Joined, Sim
from viamillipede.config import GREETING_US, TICK_US, RxConfig
from viamillipede.errors import FrameError, IntegrityError
from viamillipede.protocol.reassembly import Plan
from viamillipede.protocol.rx_session import Action, RxSession
from viamillipede.protocol.waiting_legs import RxLeg
from viamillipede.protocol.wire import GREETING_BYTES, Verdict, decode_greeting_untrusted

FOREVER_US = 10**12
BACKLOG_BYTES = 4096  # more than this unsent: an acknowledgement on this leg would be of no use


class RxConnection:
    """rx's end of a connection: its greeting so far, its leg, and what waits for room in the socket."""

    def __init__(self, connection: Joined) -> None:
        self.connection = connection
        self.greeting = bytearray()
        self.leg: RxLeg | None = None
        self.backlog = bytearray()
        self.polled = True  # for reading; a leg that waits is not
        self.wasted = 0  # bytes thrown away so far
        self.waits: tuple[object, int] = (None, 0)  # with which copy, since when


class RxSide:
    """Drives an RxSession in virtual time."""

    def __init__(self, world: Sim) -> None:
        self.world, self.options = world, world.options
        options = world.options
        config = RxConfig(
            checksum=options.rx_checksum, digest=options.rx_digest, window_bytes=options.rx_window, port=1,
            outage_us=FOREVER_US, regroup_us=FOREVER_US,
        )  # fmt: skip
        self.session = RxSession(config, b"receiver", options.direct, world.now_us)
        self.pipe: Pipe  # for the world to lay
        self.disagreed = False  # with tx about the digest
        self._hasher = Hasher(world, None, self.service, "rx")
        self.connections: dict[int, RxConnection] = {}
        self.stored_bytes = 0
        self._blocked: list[RxConnection] = []  # legs that would move bytes to the output, which is full
        self._timer_us = -1
        self._blocked_us = 0  # when the output was last seen blocked
        self._begun: dict[int, int] = {}  # connection -> the lowest frame that was read aside from it
        self._bringers: dict[int, int] = {}  # frame -> who brought its beginning
        self._services = 0
        world.after(TICK_US, self._tick)

    # ---- connections ----------------------------------------------------------------------------
    def accept(self, connection: Joined) -> None:
        """A connection was made."""
        mine = RxConnection(connection)
        self.connections[connection.key] = mine
        connection.forward.on_readable = lambda: self._readable(mine)
        connection.back.on_writable = lambda: self._flush(mine)
        self.world.after(GREETING_US, lambda: self._greeting_timeout(mine))

    def _greeting_timeout(self, mine: RxConnection) -> None:
        if mine.leg is None:
            self.lose(mine, "no greeting", False)

    def lose(self, mine: RxConnection, reason: str, closed_by_peer: bool) -> None:
        """The connection is of no more use."""
        if self.connections.pop(mine.connection.key, None) is None:
            return
        self.world.note(f"rx: leg {mine.connection.leg}: {reason}")
        if mine.leg is not None:
            if self._asks():
                self.world.count("cut before the digest was answered")
            self.session.on_leg_lost(mine.leg, closed_by_peer, self.world.now_us)
        self.world.close_from_rx(mine.connection)

    def _greet(self, mine: RxConnection, data: bytes) -> None:
        mine.greeting += data
        if len(mine.greeting) < GREETING_BYTES:
            return
        greeting = decode_greeting_untrusted(mine.greeting)
        answer = self.session.on_greeting(greeting)
        assert answer.verdict is Verdict.ACCEPTED, answer
        old = self.session.superseded(greeting.leg)
        if old is not None:
            self.world.count("superseded")
            self.lose(self.connections[old.key], "superseded", True)
        if not self.session.presence.contacted:
            self._hasher = Hasher(self.world, self.session.digest.own, self.service, "rx")
        mine.backlog += answer.encode()
        mine.leg = self.session.on_leg_up(mine.connection.key, greeting.leg, self.world.now_us)
        self.world.count("new leg asked for the digest", self._asks())

    def _asks(self) -> bool:
        return self.session.digest.asking and not self.session.digest.verified

    def _readable(self, mine: RxConnection) -> None:
        if mine.polled and mine.connection.key in self.connections:
            if mine.leg is None:
                self._read_greeting(mine)
            if mine.leg is not None:
                self._run(mine)
            self.service()

    def _read_greeting(self, mine: RxConnection) -> None:
        forward = mine.connection.forward
        while mine.leg is None:
            data = forward.receive(GREETING_BYTES - len(mine.greeting))
            if not data:
                if forward.ended or mine.connection.broken:
                    self.lose(mine, "closed before its greeting", True)
                return
            try:
                self._greet(mine, data)
            except FrameError as error:
                self.lose(mine, str(error), False)
                return

    # ---- legs -----------------------------------------------------------------------------------
    def _run(self, mine: RxConnection) -> None:
        """Step a leg until it has no bytes or must wait."""
        session, forward, leg = self.session, mine.connection.forward, mine.leg
        assert leg is not None
        mine.polled = True
        while mine.connection.key in self.connections:
            action, what = session.step(leg, self.world.now_us)
            if action is Action.WAIT:
                mine.polled = False
                if mine.waits[0] is not leg.copy:
                    mine.waits = leg.copy, self.world.now_us
                return
            wanted = what if isinstance(what, int) else len(what)
            assert wanted, "reading no bytes looks like the end of the connection"
            if not forward.readable_bytes():
                if forward.ended or mine.connection.broken:
                    self.world.count(
                        "cut in mid-frame" if leg.copy else "cut in mid-header" if leg.got else "cut between"
                    )
                    self.lose(mine, "closed by tx", True)
                return
            if self.world.rng.random() < 0.05:
                self.pipe.read_meanwhile()
            if isinstance(what, int):
                assert self.session.digest.own is None, "bytes went past the digest"
                if not self.pipe.room():
                    session.on_output_blocked(self.world.now_us)
                    mine.polled = False
                    self._blocked.append(mine)
                    return
                data = forward.receive(min(what, self.pipe.room()))
                assert self.pipe.write(data) == len(data)
            else:
                data = forward.receive(len(what))
                what[: len(data)] = data
                if leg.copy is not None and leg.plan is Plan.STORE:
                    self.stored_bytes += len(data)
            if not self._advance(mine, leg, len(data)):
                return
            self._drain()

    def _advance(self, mine: RxConnection, leg: RxLeg, count: int) -> bool:
        self._observe(mine, leg, count)
        had_copy, record = leg.copy, self.world.record
        try:
            self.session.advance_untrusted(leg, count, self.world.now_us)
        except FrameError as error:
            self.world.count("frame errors at rx")
            self.lose(mine, str(error), False)
            return False
        except IntegrityError:
            if not self.options.damaged:
                raise
            self.disagreed = True
            return False
        if record is not None and had_copy is not None and leg.copy is None:
            useful = leg.bytes_discarded - mine.wasted < had_copy.header.length or not had_copy.header.length
            record.arrived.append(Arrived(self.world.now_us, leg.number, had_copy.header.seq, useful))
            mine.wasted = leg.bytes_discarded
        if had_copy is None and leg.copy is not None:
            seq = leg.copy.header.seq
            if seq < self._begun.get(leg.key, 0) and seq == self.session.reassembly.due_seq:
                self.world.count("due frame behind one read aside")
        return True

    def _observe(self, mine: RxConnection, leg: RxLeg, count: int) -> None:
        """What the swarm has to cover."""
        copy, world = leg.copy, self.world
        if copy is None:
            return
        seq = copy.header.seq
        if copy.aside:
            self._begun[leg.key] = max(seq, self._begun.get(leg.key, 0))
        if leg.plan is Plan.DISCARD:
            world.count("discarded whole" if not copy.position else "discarded from the middle")
            return
        world.count("direct" if leg.plan is Plan.DIRECT else "stored")
        if copy.aside and leg.plan is Plan.DIRECT:
            world.count("aside, then direct")
        first = self._bringers.setdefault(seq, leg.key)
        if first != leg.key and copy.position < copy.header.length:
            self._bringers[seq] = leg.key
            world.count("a frame from two legs")

    # ---- output ---------------------------------------------------------------------------------
    def _drain(self) -> None:
        hasher, reassembly = self._hasher, self.session.reassembly
        while (view := reassembly.output_view()) is not None:
            assert len(view)
            if hasher.digest is not None:
                if hasher.taken == reassembly.written and not hasher.busy:
                    hasher.take(view)
                if hasher.busy:
                    return
                view = view[: hasher.taken - reassembly.written]
            count = self.pipe.write(view)
            if not count:
                self.session.on_output_blocked(self.world.now_us)
                return
            self.session.on_written(count, self.world.now_us)

    def on_pipe_room(self) -> None:
        """The reader has taken something."""
        if self.session.output_blocked and self.pipe.room():
            self.session.on_output_open(self.world.now_us)
            self._drain()
            blocked, self._blocked = self._blocked, []
            for mine in blocked:
                if mine.connection.key in self.connections:
                    self._run(mine)
        self.service()

    # ---- what tx is told ------------------------------------------------------------------------
    def service(self) -> None:
        """After anything: run who need not wait any more, end, acknowledge, set the timer."""
        session, now_us = self.session, self.world.now_us
        self._drain()
        while (leg := session.take_runnable()) is not None:
            self._run(self.connections[leg.key])
            self._drain()
        complete = session.reassembly.complete()
        if complete and not session.digest.asking:
            session.ask_digest()
            self.world.on_asked()
        verified = complete and session.digest.verified
        if verified and not session.done and (self.pipe.drained() or self.options.seed % 2):
            session.on_done()
        for _ in range(3):
            item = session.next_ack(now_us)
            if item is None:
                break
            self._say(self.connections[item[0].key], item[1])
        else:
            raise AssertionError("acknowledgements without end")
        while session.talkers:
            talker = self.connections.get(session.talkers.pop().key)
            if talker is not None:
                self._flush(talker)
        self._services += 1
        if session.output_blocked:
            self._blocked_us = now_us
        if not self._services % self.options.check_every:
            self._check_waiting()
        deadline_us = session.deadline_us()
        if deadline_us is not None and deadline_us != self._timer_us:
            self._timer_us = deadline_us
            self.world.after(max(0, deadline_us - now_us), self._on_deadline)

    def _check_waiting(self) -> None:
        """Whoever waits has a reason to, and not for long while the output starves: nobody was forgotten."""
        for mine in self.connections.values():
            if not mine.polled and mine not in self._blocked and mine.leg is not None and mine.leg.copy is not None:
                plan, count = self.session.reassembly.plan(mine.leg.copy)
                partly = plan is Plan.DISCARD and count < mine.leg.copy.left()  # another leg brings the same frame
                waits_us = self.world.now_us - max(mine.waits[1], self._blocked_us)
                assert waits_us < 4 * TICK_US, f"leg {mine.leg.number} is not read although the output starves"
                assert plan is Plan.WAIT or partly, f"leg {mine.leg.number} waits, but could {plan.value}"

    def _on_deadline(self) -> None:
        self._timer_us = -1
        self.session.on_timer(self.world.now_us)
        self.service()
        deadline_us = self.session.deadline_us()
        assert deadline_us is None or deadline_us > self.world.now_us, "a timer that would spin"

    def _say(self, mine: RxConnection, message: bytes) -> None:
        if len(mine.backlog) < BACKLOG_BYTES:
            mine.backlog += message
            self._flush(mine)

    def _flush(self, mine: RxConnection) -> None:
        if mine.connection.key not in self.connections:
            return
        if mine.leg is not None:
            while mine.leg.outbox and len(mine.backlog) < BACKLOG_BYTES:
                mine.backlog += mine.leg.outbox.popleft()
        while mine.backlog:
            if mine.connection.broken:
                self.lose(mine, "reset by tx", True)
                return
            count = mine.connection.back.send(bytes(mine.backlog), True)
            if not count:
                return
            del mine.backlog[:count]

    def _tick(self) -> None:
        if self.session.bye:
            return
        now_us = self.world.now_us
        self.session.on_timer(now_us)
        for leg in self.session.silent(now_us):
            self.lose(self.connections[leg.key], "silent", False)
        legs, message = self.session.heartbeats(now_us)
        self.world.count("digest asked for again", len(legs) * self._asks())
        for leg in legs:
            if leg.key in self.connections:
                self._say(self.connections[leg.key], message)
        self.service()
        self.world.after(TICK_US, self._tick)
