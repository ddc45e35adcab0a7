"""One simulated world: both sessions, their links and their faults, in virtual time.

Goal: whatever the links do, the output is a prefix of the input at every step, memory stays within
the window, and the transfer ends.
Method: the seed fixes everything; time is virtual. Faults strike until `faults_end_us`; from then
on links are perfect, except that dead legs stay dead but one, and a deadline holds that follows
from the drawn rates. In a calm world nothing may be sent twice (but for first guesses), and no leg replaced.
If a byte was damaged on its way into a digest, both sides find that, and nothing is called done.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import count
from unittest import mock

from tests.sim.links import Connection, Stream
from tests.sim.options import Options, draw
from tests.sim.output import Pipe
from tests.sim.record import Record
from tests.sim.rx_side import RxSide
from tests.sim.setting import Joined
from tests.sim.tx_side import TxSide
from tests.sim.watch import watch
from viamillipede.config import CONNECT_US, LATE_US_MIN, LEG_STUCK_US, LINGER_US, MS_US, S_US
from viamillipede.protocol import reassembly, send_window
from viamillipede.protocol.wire import Waiting

RECOVERY_US = 60 * S_US  # to notice dead legs, to back off, to connect: each a few seconds, and some after others
FOREVER_US = 10**12

# What a swarm has to have seen: each is a case that the design must get right.
COVERED = (
    "a damaged byte found", "a frame from two legs", "aside, then direct", "calm worlds", "corrupted and sent again",
    "cut before the digest was answered", "cut between", "cut in mid-frame", "cut in mid-header",
    "digest asked for again", "digest in a thread", "digests compared", "direct and stored in one stream",
    "discarded from the middle", "discarded whole", "due frame behind one read aside", "frame errors at rx",
    "frame errors at tx", "hedges", "new leg asked for the digest", "no digest", "reader pauses",
    "sent again after growth", "replaced silent", "replaced stuck", "superseded", "survivor alone", "window growth",
)  # fmt: skip


class World:
    """Runs one seed. `run` raises AssertionError, or whatever the core raises, if the core is wrong."""

    def __init__(self, options: Options, log: Callable[[str], None] | None, record: Record | None) -> None:
        self.options, self._log, self.record = options, log, record
        self.rng = random.Random(options.seed + 1)
        self._late = random.Random(f"late faults {options.seed}")
        self.now_us = S_US
        self.source = self.rng.randbytes(options.total_bytes)
        self.counts: Counter[str] = Counter()
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._faults_over = options.calm
        self._connections: dict[int, Connection] = {}  # that ever were
        self._live: dict[int, Connection] = {}  # that tx has not closed
        self._dead_legs: set[int] = set()
        self._dead_ranks: set[int] = set()
        self._slow_for_ever: set[Stream] = set()
        self.survivor = self.rng.randrange(options.addresses)  # a scout: the others wait until it is up
        self.tx = TxSide(self)
        self.rx = RxSide(self)
        self.rx.pipe = Pipe(self, options.reader, self.rx.on_pipe_room)
        self._rx_waits_us = 0  # when rx was last seen waiting for its output
        if record is not None:
            watch(self, self.tx, self.rx, record)
        if not options.calm:
            self.after(options.faults_end_us, self._end_faults)

    # ---- time -----------------------------------------------------------------------------------
    def after(self, delay_us: int, step: Callable[[], None]) -> None:
        """Do `step` in `delay_us`."""
        heapq.heappush(self._agenda, (self.now_us + delay_us, next(self._order), step))

    def note(self, text: str) -> None:
        """A line of the story, for a verbose run."""
        if self._log is not None:
            self._log(f"{self.now_us / S_US:12.6f} {text}")

    def count(self, what: str, by: int = 1) -> None:
        """Coverage: this has happened."""
        self.counts[what] += by

    def run(self) -> Counter[str]:
        """Until both sides have ended; what happened, for the swarm's coverage."""
        deadline_us = self.now_us + self._deadline_us()
        done_us = FOREVER_US * 10
        steps = 0
        while not self._over(done_us):
            self.now_us, _, step = heapq.heappop(self._agenda)
            step()
            steps += 1
            if not steps % self.options.check_every:
                self._check()
            if self.tx.session.done and done_us > FOREVER_US:
                done_us = self.now_us
            assert self.now_us < deadline_us, f"liveness: no end {RECOVERY_US // S_US} s after what the links permit"
        self._check()
        self._check_end()
        self.counts["steps"] += steps
        return self.counts

    def _over(self, done_us: int) -> bool:
        if self.rx.disagreed:
            return True
        if not self.tx.session.done:
            return False
        return self.rx.session.bye or not self.rx.session.legs or self.now_us > done_us + LINGER_US

    def _deadline_us(self) -> int:
        """Generous: what the survivor, the reader and the source need one after the other, four times."""
        options = self.options
        link, reader, source, total = options.links[self.survivor], options.reader, options.source, options.total_bytes
        round_trip_us = link.delay_us + link.back_delay_us
        window = min(options.tx_window, options.rx_window, options.window_start, link.receive_bytes, link.send_bytes)
        needed_us = (total + options.frame_bytes) * S_US // link.rate + (
            total // min(window, 2048) + 20
        ) * round_trip_us
        needed_us += (total // options.frame_bytes + 20) * 400 * S_US // link.back_rate  # acknowledgements
        if reader.rate:
            needed_us += total * S_US // reader.rate
        if reader.pause_every:
            needed_us += (total // reader.pause_every + 1) * reader.pause_us
        needed_us += (total // source.piece + 1) * source.gap_us
        if source.pause_every:
            needed_us += (total // source.pause_every + 1) * source.pause_us
        return options.faults_end_us + RECOVERY_US + 4 * needed_us

    # ---- checks ---------------------------------------------------------------------------------
    def _check(self) -> None:
        tx, rx = self.tx.session, self.rx.session
        tx.check()
        rx.check()
        assert tx.window.limit_bytes <= self.options.tx_window, "tx holds more than its window"
        assert rx.reassembly.memory_bytes() <= self.options.rx_window, "rx holds more than its window"
        assert rx.reassembly.written == self.rx.pipe.accepted, "rx miscounts what it wrote"
        assert tx.window.written <= rx.reassembly.written, "tx believes in more than was written"
        oldest = tx.window.oldest()
        if oldest is not None and oldest.length:
            assert len(tx.window.payload(oldest)) == oldest.length, "a frame was torn: it cannot be sent again"
        numbers = [leg.number for leg in rx.legs.values()]
        assert len(numbers) == len(set(numbers)), "a leg that was superseded is kept"
        assert tx.window.arrived_next <= rx.reassembly.due_seq, "tx believes in more than arrived"
        assert rx.digest.verified or not (rx.done or tx.done), "done before the digests were compared"
        assert tx.digest.compared or not rx.digest.verified, "rx has verified what tx has not"

    def _check_end(self) -> None:
        options, tx, rx, counts = self.options, self.tx.session, self.rx.session, self.counts
        for name, number in (
            ("hedges", tx.hedges),
            ("restarts", tx.restarts),
            ("corrupted and sent again", rx.reassembly.corrupted),
            ("asides", rx.waiting_legs.asides),
            ("window growth", tx.window.limit_bytes > self.tx.limit_bytes),
            ("direct and stored in one stream", rx.reassembly.direct_bytes > 0 and self.rx.stored_bytes > 0),
            ("survivor alone", len(self._dead_legs) == len(options.links) - 1 and len(options.links) > 1),
        ):
            counts[name] += int(number)
        if options.damaged:
            assert self.tx.disagreed and self.rx.disagreed, "a damaged byte was not found"
            counts["a damaged byte found"] += 1
            return
        counts["no digest" if rx.digest.own is None else "digests compared"] += 1
        assert str(tx.digest.own) == str(rx.digest.own)
        assert rx.done and self.rx.pipe.accepted == options.total_bytes, "the stream is short"
        assert rx.reassembly.total == options.total_bytes
        if options.fault_kinds == ("corrupt",) and not self._dead_legs:
            assert not self.tx.replaced, "a damaged frame was not asked for again: its leg had to be replaced"
        if options.calm:
            # Where a round trip is longer than that, the first guess at a leg's rate may make a frame look late.
            link = options.links[0]
            allowed = len(options.links) if link.delay_us + link.back_delay_us >= LATE_US_MIN else 0
            again = tx.window.retransmitted_frames
            assert again <= allowed, f"{again} frames were sent twice"
            assert not tx.restarts and not self.tx.replaced, "a leg was replaced in a calm world"
            assert not rx.resends and (allowed or not rx.reassembly.duplicate_bytes)
            assert rx.bye, "tx did not say bye"
            counts["calm worlds"] += 1

    # ---- links ----------------------------------------------------------------------------------
    def _outcome(self, leg: int, rank: int) -> str:
        """What becomes of an attempt to connect: established, refused, closed or timeout."""
        if leg in self._dead_legs:
            return "timeout"
        if rank in self._dead_ranks:
            return "refused"
        if not self._faults_over and self.rng.random() < self.options.refuse_chance:
            return self.rng.choice(("refused", "closed", "timeout"))
        return "established"

    def dial(self, leg: int, rank: int, up: Callable[[], None], failed: Callable[[str, bool], None]) -> None:
        """Try to connect. See Sim."""
        outcome = self._outcome(leg, rank)
        round_trip_us = self.options.links[leg].delay_us + self.options.links[leg].back_delay_us
        if outcome == "timeout":
            self.after(CONNECT_US, lambda: failed("no answer", False))
        elif outcome == "refused":
            self.after(round_trip_us, lambda: failed("refused", True))
        elif outcome == "closed":
            self.after(2 * round_trip_us, lambda: failed("closed at once", False))
        else:
            self.after(round_trip_us, up)

    def connect(self, leg: int, rank: int) -> Joined:
        """A new connection on the leg's path, with the fault it will meet."""
        link, piece = self.options.links[leg], self.options.piece_bytes
        rng = random.Random(self.rng.random())
        forward = Stream(self, rng, link.rate, link.delay_us, link.send_bytes, link.receive_bytes,
                         link.low_water_bytes, piece)  # fmt: skip
        back = Stream(self, rng, link.back_rate, link.back_delay_us, 16384, 65536, 16384, piece)
        connection = Connection(leg, next(self._order), forward, back)
        self._connections[connection.key] = self._live[connection.key] = connection
        self._arm_fault(connection)
        self.rx.accept(connection)
        return connection

    def _arm_fault(self, connection: Connection) -> None:
        """Perhaps let a fault wait for this connection."""
        if not self._faults_over and self.rng.random() < self.options.fault_chance:
            on_back = self.rng.random() < 0.25
            victim = connection.back if on_back else connection.forward
            distance = self.rng.expovariate(1 / (300 if on_back else self.options.fault_bytes))
            victim.fault_at = victim.sent_bytes + int(distance)
            victim.on_fault = partial(self._strike, connection, victim)

    def on_asked(self) -> None:
        """Faults strike when the digests are on their way, too: at some byte of the question, or of the answer."""
        if self._faults_over or self._late.random() >= self.options.fault_chance:
            return
        for connection in self._live.values():
            if self._late.random() < 0.8:
                victim = self._late.choice(connection.streams())
                victim.fault_at = victim.sent_bytes + self._late.randrange(120)
                victim.on_fault = partial(self._strike, connection, victim)

    def on_tx_tick(self) -> None:
        """A leg that has bytes and moves none is replaced, whoever delivered its frames meanwhile."""
        if self.rx.session.waiting() is Waiting.OUTPUT:
            self._rx_waits_us = self.now_us
        for mine in self.tx.connections.values():
            forward = self._live[mine.connection.key].forward
            if mine.up and forward.hole and forward.unacked_bytes():
                since_us = max(forward.moved_us, self._rx_waits_us)
                assert self.now_us - since_us < 3 * LEG_STUCK_US, f"leg {mine.leg} moves nothing and is kept"

    def close_from_tx(self, joined: Joined, reset: bool) -> None:
        """tx closes, with a reset as after an abort; a black hole swallows it."""
        connection = self._live.pop(joined.key)
        forward = connection.forward
        connection.back.cut = True
        if forward.hole or connection.broken:
            return
        if not reset:
            forward.close()
        elif self.rng.random() < 0.5:
            forward.end_here()
        else:
            self.after(self.options.links[connection.leg].delay_us, lambda: self._reset(connection))

    def close_from_rx(self, joined: Joined) -> None:
        """rx closes: tx reads the end, unless a black hole swallows it."""
        connection = self._connections[joined.key]
        if not connection.back.hole and not connection.broken:
            connection.back.end_here()

    def _reset(self, connection: Connection) -> None:
        connection.reset()
        connection.forward.on_readable()
        connection.back.on_readable()

    # ---- faults ---------------------------------------------------------------------------------
    def _strike(self, connection: Connection, victim: Stream) -> None:
        """The fault of this connection, at its byte."""
        if self._faults_over or connection.key not in self._live:
            return
        kind, rng = self.rng.choice(self.options.fault_kinds), self.rng
        self.count("fault: " + kind)
        self.note(f"fault: {kind} on leg {connection.leg}")
        if kind == "reset":
            self.after(0, lambda: self._reset(connection))
        elif kind == "close":
            for stream in connection.streams() if rng.random() < 0.7 else (victim,):
                stream.end_here()
        elif kind == "corrupt":
            victim.corrupt_next = True
            self._arm_fault(connection)
        elif kind == "trickle":
            rate, victim.rate = victim.rate, rng.randint(20, 1000)
            if connection.leg == self.survivor or rng.random() < self.options.comes_back:
                self.after(rng.randint(1, 20) * S_US, lambda: self._restore(victim, rate))
            else:
                self._slow_for_ever.add(victim)
        else:
            holes = connection.streams() if rng.random() < 0.4 else (victim,)
            for stream in holes:
                stream.hole = True
            if rng.random() < self.options.comes_back:
                self.after(rng.randint(10 * MS_US, 20 * S_US), lambda: self._unstall(connection))
            elif rng.random() < 0.3:
                self._dead_legs.add(connection.leg)

    def _restore(self, stream: Stream, rate: int) -> None:
        stream.rate = max(stream.rate, rate)
        stream.resume()

    def _unstall(self, connection: Connection) -> None:
        if connection.leg not in self._dead_legs:
            for stream in connection.streams():
                if stream.hole:
                    stream.hole = False
                    stream.resume()

    def _end_faults(self) -> None:
        """From now on: perfect links, or dead ones."""
        self._faults_over = True
        options = self.options
        home = self.survivor % options.addresses
        self._dead_ranks = {r for r in range(options.addresses) if r != home and self.rng.random() < 0.4}
        for leg in range(len(options.links)):
            if self.rng.random() < options.dead_share:
                self._dead_legs.add(leg)
        self._dead_legs.discard(self.survivor)
        self.note(f"faults are over; dead: legs {sorted(self._dead_legs)}, addresses {sorted(self._dead_ranks)}")
        for connection in list(self._live.values()):
            link = options.links[connection.leg]
            for stream, rate in zip(connection.streams(), (link.rate, link.back_rate), strict=True):
                stream.corrupt_next = False
                if stream not in self._slow_for_ever:
                    stream.rate = rate
                stream.hole = connection.leg in self._dead_legs
                stream.resume()


def run_seed(seed: int, log: Callable[[str], None] | None = None, record: Record | None = None) -> Counter[str]:
    """Simulate one seed; what happened, counted. Raises what is wrong."""
    options = draw(seed)
    if log is not None:
        log(f"seed {seed}\n{options.describe()}")
    with (
        mock.patch.object(send_window, "WINDOW_BYTES_START", options.window_start),
        mock.patch.object(reassembly, "WINDOW_BYTES_START", options.window_start),
        mock.patch.object(send_window, "FRAMES_MAX", options.frames_max),
        mock.patch.object(reassembly, "FRAMES_MAX", options.frames_max),
    ):
        return World(options, log, record).run()
