"""What a seed draws for a world of roads: which kind, the roads, the legs, the stream."""

import random
from dataclasses import dataclass, fields, replace

from tests.sim.options import Reader, Source
from tests.sim.roads import SEGMENT, RoadPlan
from viamillipede.config import FRAMES_MAX, KIB, MIB, MS_US, RTO_US_MAX, S_US

MBIT = 125_000  # bytes per second
PACKETS_MOST = 12_000  # of one stream: what a seed may cost
FEW_LEGS = 0.8
THROTTLED = 10  # to this part of its rate
TOTAL_BYTES_MIN, TOTAL_BYTES_MAX = 4 * MIB, 96 * MIB


@dataclass(frozen=True, slots=True)
class Kind:
    """A class of worlds, and what is demanded of the core in it.

    efficiency: the time of the ideal sender over ours, at least, once `slack_us` has been taken off ours.
    tail_us: how much longer than the ideal sender's the end may take. silent_us: how long the output may pause while
    a road is open. first: at least this part of the bytes goes over the first road. calm: no leg may be replaced.
    """

    weight: float
    efficiency: float
    slack_us: int
    tail_us: int = S_US
    silent_us: int = 3 * S_US
    first: float = 0
    calm: bool = False


KINDS = {
    "clean": Kind(6, 0.78, S_US // 2, calm=True),  # least on slow roads, where the first legs already queue
    "unequal": Kind(3, 0.8, S_US // 2, calm=True),
    "lossy": Kind(4, 0.75, S_US),
    "capped": Kind(2, 0.85, S_US, calm=True),
    "outage": Kind(3, 0.75, S_US, silent_us=2 * S_US),  # of one of several roads
    "alone": Kind(2, 0.8, 3 * S_US // 2, silent_us=2 * S_US),  # of the only road, or of all at once
    "flapping": Kind(1, 0.7, S_US, tail_us=2 * S_US, silent_us=2 * S_US),
    "throttled": Kind(2, 0.7, S_US),  # the rate falls and rises again
    "crowded": Kind(1, 0.5, 5 * S_US, tail_us=10 * S_US, silent_us=10 * S_US),  # no room for so many connections
    "preferred": Kind(1, 0.9, S_US, first=0.85, calm=True),  # the source is slower than the first road
    "blocked": Kind(1, 0.9, S_US, calm=True),  # the reader is slower than the roads
}


@dataclass(frozen=True, slots=True)
class RoadOptions:
    """One world. Everything that happens in it follows from these and from the seed."""

    seed: int
    kind: str
    total_bytes: int
    tx_window: int
    rx_window: int
    frame_bytes: int
    tx_checksum: bool
    rx_checksum: bool
    direct: bool
    threads: int  # 0: tx tunes itself
    reader: Reader | None  # None: takes everything at once
    source: Source
    check_every: int
    roads: tuple[RoadPlan, ...]
    frames_max: int = FRAMES_MAX
    tx_digest: str = "auto"
    rx_digest: str = "auto"
    damaged: str = ""

    @property
    def addresses(self) -> int:
        """One for each road."""
        return len(self.roads)

    def bound_us(self) -> int:
        """How long the source and the reader take, whatever the roads do."""
        source, reader = self.source, self.reader
        return max(
            self.total_bytes * source.gap_us // source.piece,
            (self.total_bytes - reader.pipe_bytes) * S_US // reader.rate if reader is not None else 0,
        )

    def efficiency_least(self) -> float:
        """What is demanded. Of one or two flows on a road it is chance how soon they are out of slow start."""
        few = 0 < self.threads <= 2 * len(self.roads)
        return KINDS[self.kind].efficiency * (FEW_LEGS if few else 1)

    def describe(self) -> str:
        """One line per option."""
        lines = [f"  {f.name} = {getattr(self, f.name)}" for f in fields(self) if f.name != "roads"]
        return "\n".join(lines + [f"  road {i}: {road}" for i, road in enumerate(self.roads)])


def _log_uniform(rng: random.Random, low: float, high: float) -> float:
    return float(low * (high / low) ** rng.random())


def _draw_road(rng: random.Random, rate: int, rto_us_max: int, loss: float = 0, cap: int = 0) -> RoadPlan:
    return RoadPlan(
        rate=rate,
        delay_us=int(_log_uniform(rng, 1, 150) * MS_US),
        queue_us=int(_log_uniform(rng, 10, 200) * MS_US),
        loss=loss,
        back_rate=max(rate // rng.choice((1, 1, 10)), MBIT),
        cap=cap,
        rto_us_max=rto_us_max,
    )


def _draw_rates(rng: random.Random, kind: str, count: int) -> list[int]:
    if kind == "unequal":
        first = _log_uniform(rng, 20, 400)
        rates = [first] + [max(first / _log_uniform(rng, 2, 100), 1) for _ in range(count - 1)]
        rng.shuffle(rates)
    else:
        most = _log_uniform(rng, 5, 400 if kind != "crowded" else 20)
        rates = [most / _log_uniform(rng, 1, 4) for _ in range(count)]
    return [int(rate * MBIT) for rate in rates]


def _with_faults(rng: random.Random, kind: str, roads: list[RoadPlan], run_us: int) -> list[RoadPlan]:
    """Down times and changes of the rate, within the time that the stream needs."""
    begin_us = int(run_us * rng.uniform(0.1, 0.5))
    long_us = rng.choice((S_US, 3 * S_US, 5 * S_US, 20 * S_US))
    victim = rng.randrange(len(roads))
    downs: tuple[tuple[int, int], ...] = ()
    rates: tuple[tuple[int, int], ...] = ()
    victims = range(victim, victim + 1)
    if kind in ("outage", "alone"):
        downs = ((begin_us, begin_us + long_us),)
        victims = range(len(roads)) if kind == "alone" else victims
    elif kind == "flapping":
        downs = tuple((at, at + 2 * S_US) for at in range(begin_us, begin_us + 40 * S_US, 4 * S_US))
    elif kind == "throttled":
        rate = roads[victim].rate
        rates = ((begin_us, rate // THROTTLED), (begin_us + long_us, rate))
    for i in victims if downs or rates else ():
        roads[i] = replace(roads[i], downs=downs, rates=rates)
    return roads


def _cost_bytes(roads: list[RoadPlan], threads: int) -> int:
    """How many bytes may go over these roads, that it costs no more than a seed may."""
    each = max(threads // len(roads), 1)
    total = sum(road.rate for road in roads)
    size = 0.0
    for road in roads:
        window = road.rate * (2 * road.delay_us + road.queue_us / 2) / S_US / each
        if road.cap:
            window = min(window, road.cap * (2 * road.delay_us + 125 * MS_US) / S_US)
        size += min(max(window / 8, SEGMENT), 45 * SEGMENT) * road.rate / total
    return int(PACKETS_MOST * size)


def _room(kind: str, roads: list[RoadPlan]) -> int:
    """So many connections have room for a few segments each on every road, whatever becomes of its rate."""
    least = min(road.rate * (2 * road.delay_us + road.queue_us) // S_US for road in roads)
    return max(least // (4 * SEGMENT) // (THROTTLED if kind == "throttled" else 1), 1) * len(roads)


def _draw_threads(rng: random.Random, kind: str, roads: list[RoadPlan]) -> int:
    """0 where tx is to find the number."""
    count = len(roads)
    if kind in ("crowded", "capped"):
        return rng.choice((16, 32, 64))
    if rng.random() < 0.35:
        return 0
    threads = rng.choice((1, 2, 4, 8, 8, 16, 16, 32, 64))
    if kind == "lossy":
        threads = max(threads, 4 * count)  # fewer are no match for it, and differ much from run to run
    return max(min(threads, _room(kind, roads)), count)


def draw(seed: int) -> RoadOptions:
    """The world of a seed."""
    rng = random.Random(seed)
    kind = rng.choices(list(KINDS), [each.weight for each in KINDS.values()])[0]
    count = {"alone": 1, "capped": 1, "crowded": 1}.get(kind) or rng.choices((1, 2, 3, 4), (3, 4, 2, 1))[0]
    if kind in ("outage", "flapping", "unequal", "preferred"):
        count = max(count, 2)
    loss = _log_uniform(rng, 0.0001, 0.01) if kind == "lossy" else 0
    rto_us_max = rng.choice((RTO_US_MAX, 120 * S_US))  # a new kernel, or an old one
    roads = [_draw_road(rng, rate, rto_us_max, loss) for rate in _draw_rates(rng, kind, count)]
    run_us = int(rng.uniform(3, 12) * S_US)
    threads = _draw_threads(rng, kind, roads)
    if kind == "capped":
        share = roads[0].rate / threads
        roads = [replace(roads[0], cap=max(int(share * rng.choice((0.2, 0.9, 1.5, 4))), 8 * KIB))]
    capacity = sum(min(road.rate, road.cap * threads) if road.cap else road.rate for road in roads)
    total = min(capacity * run_us // S_US, _cost_bytes(roads, threads or 16 * count), TOTAL_BYTES_MAX)
    total = max(total, TOTAL_BYTES_MIN if kind != "capped" else 512 * KIB) + rng.randrange(1000)
    roads = _with_faults(rng, kind, roads, total * S_US // capacity)
    window = rng.choice((64, 64, 32)) * MIB
    reader, source = None, Source(64 * KIB, 0, 0, 0)
    if kind == "preferred":
        roads = [replace(road, delay_us=min(road.delay_us, 30 * MS_US)) for road in roads]  # soon out of slow start
        source = Source(max(roads[0].rate * 7 // 1000, 1), 10 * MS_US, 0, 0)
        total = min(total, 8 * S_US * source.piece // source.gap_us)
    elif kind == "blocked":
        reader = Reader(MIB, capacity * 7 // 10, 0, 0)
    return RoadOptions(
        seed=seed,
        kind=kind,
        total_bytes=total,
        tx_window=window,
        rx_window=window,
        frame_bytes=rng.choice((MIB, MIB, 256 * KIB)),
        tx_checksum=rng.random() < 0.2,
        rx_checksum=False,
        direct=rng.random() < 0.75,
        threads=threads,
        reader=reader,
        source=source,
        check_every=500,
        roads=tuple(roads),
    )
