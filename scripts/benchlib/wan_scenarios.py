"""The networks of `scripts/bench wan`, who runs over each, and what is expected of us there.

A time is counted from the start of tx. What is ideal follows from the links, the bytes and the events alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tests.netlab import Link

MIB = 1 << 20
PAYLOAD = 1448 / 1500  # the part of a full packet that TCP has for its user
AUTO, NC, MBUFFER, MPTCP = "ours", "nc", "mbuffer", "mptcp"
TIMEOUT_IDEALS, TIMEOUT_START_S = 20, 30.0  # a run that takes longer has failed


def ours(legs: int) -> str:
    """Our program with so many legs; without a number (AUTO) it decides by itself."""
    return f"{AUTO}-{legs}"


def iperf3(connections: int) -> str:
    """iperf3 with so many connections."""
    return f"iperf3-{connections}"


@dataclass(frozen=True, slots=True)
class Event:
    """What happens to a link at a time: new values for fields of Link, or `up` False or True."""

    at_s: float
    link: int
    up: bool | None = None
    rate_mbit: float | None = None


@dataclass(frozen=True, slots=True)
class Proxy:
    """In front of rx: the caps of tests/netlab/throttle.py, in bytes per second."""

    connection: float
    line: float
    slow_every: int = 0
    slow: float = 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """An expectation of one contender.

    what: `seconds`, `share` (of ideal), or a figure of wan_run. beside: the goal is a factor to the best of these.
    """

    contender: str
    what: str
    goal: float
    at_least: bool = False
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of networks. source_mbit: how fast the source is, 0: as fast as it is read. ceiling: bytes per second
    that a proxy lets through. once: contenders so slow that one run has to do."""

    name: str
    about: str
    links: tuple[Link, ...]
    total_bytes: int
    contenders: tuple[str, ...]
    targets: tuple[Target, ...] = ()
    once: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    congestion: str = "cubic"
    source_mbit: float = 0.0
    proxy: Proxy | None = None
    ceiling: float = 0.0
    first_only: tuple[str, ...] = field(default=())  # contenders that are told of the first link only

    @property
    def ideal_s(self) -> float:
        """How long it takes if every link carries all it can, without handshakes and slow start."""
        ideal = self.total_bytes / self.ceiling if self.ceiling else self._carried_at(self.total_bytes)
        return max(ideal, self.total_bytes * 8 / (self.source_mbit * 1e6) if self.source_mbit else 0.0)

    def carried_until(self, end_s: float) -> float:
        """The bytes of payload that the links could carry until then."""
        return sum((until - since) * rate for since, until, rate in self._phases(end_s))

    def _carried_at(self, total_bytes: float) -> float:
        for since, until, rate in self._phases(float("inf")):
            if total_bytes <= rate * (until - since):
                return since + total_bytes / rate
            total_bytes -= rate * (until - since)
        raise ValueError(f"{self.name}: the links never carry it all")

    def _phases(self, end_s: float) -> Sequence[tuple[float, float, float]]:
        """Times between events, with the bytes per second that all links carry in them."""
        rates, up = [link.rate_mbit for link in self.links], [True] * len(self.links)
        phases, since = [], 0.0
        for event in (*self.events, None):
            until = min(end_s, event.at_s) if event else end_s
            total = sum(rate for rate, works in zip(rates, up, strict=True) if works)
            if until > since:
                phases.append((since, until, total * 125_000 * PAYLOAD))
            since = max(since, until)
            if event is not None and event.up is not None:
                up[event.link] = event.up
            if event is not None and event.rate_mbit is not None:
                rates[event.link] = event.rate_mbit
        return phases

    @property
    def timeout_s(self) -> float:
        """How long a run may take."""
        return TIMEOUT_START_S + TIMEOUT_IDEALS * self.ideal_s


def outage(link: int, since_s: float, until_s: float) -> tuple[Event, Event]:
    """A link that is gone for a while."""
    return Event(since_s, link, up=False), Event(until_s, link, up=True)


LONG = Link(rate_mbit=100, delay_ms=50, loss=0.001, queue_ms=100)
UNEQUAL = (Link(100, 5), Link(50, 20), Link(25, 40))
THREE = (Link(400, 5), Link(200, 5), Link(100, 5))
FLAP_S, FLAPPING_S = 2, 60
FIXED = (ours(4), ours(8), ours(16))

_LOSSY = Scenario(
    "lossy",
    "100 Mbit/s, 100 ms round trip, 0.1 % loss both ways, cubic",
    (LONG,),
    64 * MIB,
    (AUTO, ours(16), ours(32), ours(64), iperf3(4), iperf3(16), NC),
    (Target(AUTO, "seconds", 6.8), Target(ours(16), "seconds", 7.2)),
    once=(NC,),
)
_UNEQUAL = Scenario(
    "unequal",
    "100, 50 and 25 Mbit/s with 5, 20 and 40 ms one way",
    UNEQUAL,
    64 * MIB,
    (AUTO, ours(3), *FIXED, NC, MBUFFER, iperf3(4), MPTCP),
    (Target(AUTO, "seconds", 3.5), Target(AUTO, "seconds", 1.0, beside=(MPTCP,))),
)
_PREFERENCE = Scenario(
    "preference",
    "a source of 300 Mbit/s, links of 400, 200 and 100 Mbit/s",
    THREE,
    256 * MIB,
    (AUTO, ours(6)),
    tuple(Target(one, "first_share", 0.95, at_least=True) for one in (AUTO, ours(6))),
    source_mbit=300,
)

SCENARIOS = (
    _LOSSY,
    replace(
        _LOSSY,
        name="lossy1",
        about="the same with 1 % loss",
        links=(replace(LONG, loss=0.01),),
        contenders=(AUTO, ours(16), ours(32), ours(64), iperf3(16)),
        targets=tuple(Target(one, "seconds", 1.0, beside=(iperf3(16),)) for one in (AUTO, ours(16))),
        once=(),
    ),
    replace(
        _LOSSY,
        name="lossy-bbr",
        about="0.1 % loss again, with bbr",
        congestion="bbr",
        contenders=(AUTO, ours(4), ours(16), NC, MBUFFER, iperf3(4), iperf3(16)),
        targets=(Target(AUTO, "seconds", 6.5), Target(ours(16), "seconds", 6.5)),
        once=(),
    ),
    _UNEQUAL,
    Scenario(
        "very-unequal",
        "100 Mbit/s with 5 ms beside 1 Mbit/s with 300 ms; not slower than the first alone",
        (Link(100, 5), Link(1, 300)),
        64 * MIB,
        (AUTO, ours(4), "ours-4-first", NC, MPTCP),
        tuple(Target(one, "seconds", 1.02, beside=("ours-4-first", NC)) for one in (AUTO, ours(4))),
        first_only=("ours-4-first",),
    ),
    Scenario(
        "aggregate",
        "400, 200 and 100 Mbit/s, 5 ms one way",
        THREE,
        512 * MIB,
        (AUTO, ours(3), ours(6), ours(12), iperf3(4), MPTCP),
        tuple(Target(one, "share", 0.95, at_least=True) for one in (AUTO, ours(6))),
    ),
    _PREFERENCE,
    replace(
        _PREFERENCE,
        name="throttled",
        about="the same; the first link at a tenth from 3 to 8 s",
        total_bytes=432 * MIB,
        events=(Event(3, 0, rate_mbit=40), Event(8, 0, rate_mbit=400)),
        targets=(Target(AUTO, "spill_s", 2.0), Target(AUTO, "return_s", 2.0)),
    ),
    replace(
        _UNEQUAL,
        name="one-down",
        about="unequal, the first link gone from 1.5 to 6.5 s",
        contenders=(AUTO, ours(3), ours(6), ours(12), MPTCP),
        events=outage(0, 1.5, 6.5),
        targets=(Target(AUTO, "seconds", 6.5), Target(ours(6), "seconds", 6.5)),
    ),
    Scenario(
        "only-down",
        "200 Mbit/s, 1 ms, gone from 2 to 7 s",
        (Link(200, 1),),
        128 * MIB,
        (AUTO, ours(4), ours(8), NC, MBUFFER, iperf3(4)),
        (Target(AUTO, "seconds", 11.6), Target(ours(4), "seconds", 11.6)),
        events=outage(0, 2, 7),
    ),
    Scenario(
        "flap",
        f"100 Mbit/s, 10 ms, {FLAP_S} s up, {FLAP_S} s gone, for a minute",
        (Link(100, 10),),
        256 * MIB,
        (AUTO, ours(8), NC),
        (Target(AUTO, "carried", 0.7, at_least=True),),
        events=tuple(Event(at, 0, up=at % (2 * FLAP_S) == 0) for at in range(FLAP_S, FLAPPING_S + 1, FLAP_S)),
    ),
    Scenario(
        "per-connection",
        "30 kB/s for each connection, 4 MB/s in all, 20 ms round trip",
        (Link(1000, 10),),
        80_000_000,
        (AUTO, ours(64), ours(200)),
        (Target(ours(200), "share", 0.95, at_least=True), Target(ours(200), "peak_mib", 100e6 / MIB)),
        once=(AUTO, ours(64)),
        proxy=Proxy(30e3, 4e6),
        ceiling=4e6,
    ),
    Scenario(
        "slow-tail",
        "20 legs of 200 kB/s each, but every tenth a tenth of it",
        (Link(1000, 10),),
        36_400_000,
        (ours(20),),
        (Target(ours(20), "beyond_s", 1.0),),
        proxy=Proxy(200e3, 1e9, slow_every=10, slow=20e3),
        ceiling=18 * 200e3 + 2 * 20e3,
    ),
)
