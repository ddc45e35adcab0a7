"""A world of roads: both sessions on TCP connections that share bottlenecks, held against an ideal sender.

Goal: the stream uses what the roads can carry. Method: the same roads, from the same seed, carry connections that
always have something to send and are always read (`ideal_us`), and the time in which those bring as many bytes is
compared with ours. Besides: the output is the input, the transfer ends, the end is as fast as the middle, and while
one road is open the output never pauses for long.
"""

import random
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import NamedTuple

from tests.sim.agenda import BEGIN_US, Agenda
from tests.sim.ideal import ideal_us, lay_roads
from tests.sim.output import Drain, Metered
from tests.sim.record import Record
from tests.sim.road_options import KINDS, RoadOptions, draw
from tests.sim.roads import Road
from tests.sim.rx_side import RxSide
from tests.sim.setting import Joined
from tests.sim.tcp import Flow
from tests.sim.tx_side import TxSide
from tests.sim.watch import watch
from viamillipede.config import MIB, S_US, TICK_US

LATE_US_MAX = 60 * S_US  # after the ideal sender: then something hangs


class Repeated:
    """The stream's bytes: a random piece of odd length again and again, so that no two places nearby look alike."""

    def __init__(self, rng: random.Random) -> None:
        self._period = MIB + 7
        self._twice = rng.randbytes(self._period)
        self._twice *= 2

    def __getitem__(self, where: slice, /) -> bytes:
        start, size = where.start % self._period, where.stop - where.start
        if size <= self._period:
            return self._twice[start : start + size]
        return b"".join(self[at : min(at + MIB, where.stop)] for at in range(where.start, where.stop, MIB))


class RoadConnection:
    """See Joined."""

    def __init__(self, leg: int, key: int, road: Road) -> None:
        self.leg, self.key, self.road = leg, key, road
        self.forward, self.back = Flow(road, road.there, road.back), Flow(road, road.back, road.there)
        self.broken = False

    def round_trip_us(self) -> tuple[int, int]:
        """As the kernel tells tx."""
        return self.forward.srtt_us, self.forward.min_rtt_us


class Outcome(NamedTuple):
    """What came of a world. Times in microseconds."""

    kind: str
    efficiency_least: float
    ours_us: int
    ideal_us: int
    tail_us: int  # from the last byte read to the end
    tail_ideal_us: int
    silent_us: int  # the longest, while a road was open
    first: float  # the part of the bytes that went over the first road
    counts: Counter[str]

    def efficiency(self) -> float:
        """1: as fast as the ideal sender."""
        return self.ideal_us / self.ours_us

    def __str__(self) -> str:
        return (
            f"{self.kind:9} ours {self.ours_us / S_US:6.2f} s  ideal {self.ideal_us / S_US:6.2f} s  "
            f"efficiency {self.efficiency():.3f}  "
            f"tail {self.tail_us / S_US:.2f} (ideal {self.tail_ideal_us / S_US:.2f}) s  "
            f"silent {self.silent_us / S_US:.2f} s  first {self.first:.2f}"
        )


class RoadWorld(Agenda):
    """Runs one seed. `run` raises AssertionError, or whatever the core raises, if the core is wrong."""

    def __init__(self, options: RoadOptions, log: Callable[[str], None] | None, record: Record | None) -> None:
        super().__init__()
        self.options, self._log, self.record = options, log, record
        self.rng = random.Random(options.seed + 1)
        self.source = Repeated(self.rng)
        self.counts: Counter[str] = Counter()
        self._keys = count()
        self._connections: dict[int, RoadConnection] = {}
        self._silent_us = 0
        self._written, self._moved_us = 0, 0
        self.tx_done_us = 0
        self.roads = lay_roads(self, options)
        for rank, plan in enumerate(options.roads):
            for since_us, to_us in plan.downs:
                self.after(since_us, lambda rank=rank: self._on_change(rank, "down"))  # type: ignore[misc]
                self.after(to_us, lambda rank=rank: self._on_change(rank, "up"))  # type: ignore[misc]
            for at_us, rate in plan.rates:
                text = f"{rate * 8 / 1e6:.0f} mbit"
                self.after(at_us, lambda rank=rank, text=text: self._on_change(rank, text))  # type: ignore[misc]
        self.tx = TxSide(self)
        self.rx = RxSide(self)
        room = self.rx.on_pipe_room
        self.rx.pipe = Drain(self, room) if options.reader is None else Metered(self, options.reader, room)
        self.after(TICK_US, self._tick)
        if record is not None:
            watch(self, self.tx, self.rx, record)

    # ---- see Sim --------------------------------------------------------------------------------
    def note(self, text: str) -> None:
        """A line of the story, for a verbose run."""
        if self._log is not None:
            self._log(f"{(self.now_us - BEGIN_US) / S_US:12.6f} {text}")

    def count(self, what: str, by: int = 1) -> None:
        """This has happened."""
        self.counts[what] += by

    def dial(self, leg: int, rank: int, up: Callable[[], None], failed: Callable[[str, bool], None]) -> None:
        """Try to connect, again and again until the real shell would lose its patience."""
        self.roads[rank].dial(up, lambda: failed("no answer", False))

    def connect(self, leg: int, rank: int) -> Joined:
        """What has been dialled. rx has accepted it."""
        connection = RoadConnection(leg, next(self._keys), self.roads[rank])
        self._connections[connection.key] = connection
        self.rx.accept(connection)
        return connection

    def close_from_tx(self, connection: Joined, reset: bool) -> None:
        """With a reset, which a road that is down swallows; what is given up in order has nothing left to send."""
        known = self._connections[connection.key]
        known.back.cut = True
        known.forward.abort()

    def close_from_rx(self, connection: Joined) -> None:
        """In order."""
        known = self._connections[connection.key]
        known.forward.cut = True
        known.back.abort()

    def on_asked(self) -> None:
        """See Sim."""

    def on_tx_tick(self) -> None:
        """See Sim; the demands here are on the whole."""

    # ---- the run --------------------------------------------------------------------------------
    def _on_change(self, rank: int, text: str) -> None:
        self.note(f"road {rank}: {text}")
        if self.record is not None:
            self.record.marks.append((self.now_us, f"road {rank} {text}"))

    def _tick(self) -> None:
        """How long the output has been silent; the time in which no road is open does not count."""
        written = self.rx.pipe.accepted
        if written != self._written or all(road.down for road in self.roads):
            self._written, self._moved_us = written, self.now_us
        if self._written and not self.rx.session.reassembly.complete():
            self._silent_us = max(self._silent_us, self.now_us - self._moved_us)
        if not self.tx.session.done:
            self.after(TICK_US, self._tick)

    def run(self, ideal_us: int) -> Outcome:
        """Until both sides have ended; what it was like."""
        options, tx, rx = self.options, self.tx.session, self.rx.session
        deadline_us = BEGIN_US + ideal_us + LATE_US_MAX
        steps = 0
        while not tx.done:
            self.step()
            steps += 1
            if not steps % options.check_every:
                tx.check()
                rx.check()
            assert self.now_us < deadline_us, f"liveness: no end {LATE_US_MAX // S_US} s after the ideal sender's"
        ours_us = self.now_us - BEGIN_US
        tx.check()
        rx.check()
        assert rx.done and self.rx.pipe.accepted == options.total_bytes, "the stream is short"
        tail_us = self.now_us - self.tx.input_end_us
        backlog = options.total_bytes - self.tx.written_at_input_end
        sent = [state.bytes_sent for state in tx.book.states]
        self.counts.update(
            {"steps": steps, "hedges": tx.hedges, "replaced": self.tx.replaced, "restarts": tx.restarts,
             "asides": rx.waiting_legs.asides, "sent again, bytes": tx.window.retransmitted_bytes,
             "bytes": options.total_bytes, "window": tx.window.limit_bytes}
        )  # fmt: skip
        return Outcome(
            kind=options.kind,
            efficiency_least=options.efficiency_least(),
            ours_us=ours_us,
            ideal_us=ideal_us,
            tail_us=tail_us,
            tail_ideal_us=ideal_us * backlog // options.total_bytes,
            silent_us=self._silent_us,
            first=sent[0] / sum(sent),
            counts=self.counts,
        )


def complaints(outcome: Outcome) -> list[str]:
    """What was demanded in vain."""
    kind = KINDS[outcome.kind]
    wrong = []
    if outcome.ideal_us < outcome.efficiency_least * (outcome.ours_us - kind.slack_us):
        wrong.append("slow")
    if outcome.tail_us > outcome.tail_ideal_us + kind.tail_us:
        wrong.append("tail")
    if outcome.silent_us > kind.silent_us:
        wrong.append("silent")
    if outcome.first < kind.first:
        wrong.append("not over the first road")
    if kind.calm and outcome.counts["replaced"]:
        wrong.append("a leg was replaced")
    return wrong


def run_seed(seed: int, log: Callable[[str], None] | None = None, record: Record | None = None) -> Outcome:
    """Simulate one seed. AssertionError if what is demanded is not there, or what the core raises."""
    options = draw(seed)
    if log is not None:
        log(f"seed {seed}\n{options.describe()}")
    outcome = RoadWorld(options, log, record).run(ideal_us(options))
    if log is not None:
        log(f"{outcome}\n{dict(outcome.counts)}")
    wrong = complaints(outcome)
    assert not wrong, f"{', '.join(wrong)}: {outcome}"
    return outcome
