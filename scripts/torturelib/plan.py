"""What a run is made of: plain values that follow from a seed, and the same in words."""

import shlex
from dataclasses import dataclass, field
from enum import Enum

KIB, MIB = 1 << 10, 1 << 20
HELD_BYTES = 4096  # in the pipe between a sink's command and us, when its reader is to be held: the least there is
NEVER = 1 << 62  # a byte that no stream has

BENIGN = ("stop", "cut legs", "proxy reset", "proxy hole", "proxy dies", "stranger", "another", "dump", "verbose")
FATAL = ("kill", "term", "int", "hup", "reader dies", "source fails", "source killed", "sink fails", "sink killed")
UNSETTLING = ("stop", "cut legs", "proxy reset", "proxy hole", "proxy dies")  # they may cost all legs
SIGNALS = ("term", "int", "hup")


class Kind(Enum):
    """What a run is about."""

    TRANSFER = "transfer"  # both sides meet and move a stream, whatever happens to it
    ALONE = "alone"  # one side is missing
    STRANGE = "strange"  # they meet and do not belong together: another checkphrase, or key
    USAGE = "usage"  # one side is asked for something that cannot be done


@dataclass(frozen=True)
class Pace:
    """How something is written or read: the first `slow_bytes` in pieces, a pause after each; then at full speed."""

    piece: int = 256 * KIB
    pause_s: float = 0.0
    slow_bytes: int = 0

    def burst(self, done: int) -> int:
        """How much is moved next at once, when so much was already."""
        return 256 * KIB if 0 < self.slow_bytes <= done else self.piece

    def seconds(self) -> float:
        """How long the slow part takes at least."""
        return self.pause_s * (self.slow_bytes // max(1, self.piece))

    def __str__(self) -> str:
        if not self.slow_bytes:
            return "at full speed"
        return f"the first {self.slow_bytes} B in pieces of {self.piece} B every {self.pause_s * 1000:.0f} ms"


@dataclass(frozen=True)
class Source:
    """What tx reads. kind: pipe, file, or command (a shell that reads what we write)."""

    kind: str = "pipe"
    pace: Pace = Pace()
    stubborn: bool = False  # the command ignores SIGTERM
    linger_s: float = 0.0  # the command lives on for so long after it has closed its output
    helper: bool = False  # the command has started another process, which it ends when all is well


@dataclass(frozen=True)
class Sink:
    """What rx writes to. kind: pipe, file, append, full (a file system of `capacity` bytes), /dev/full, or command."""

    kind: str = "pipe"
    pace: Pace = Pace()
    capacity: int = NEVER
    stubborn: bool = False
    linger_s: float = 0.0
    helper: bool = False
    rests: tuple[tuple[int, float], ...] = ()  # the reader stops at these bytes, for so many seconds


@dataclass(frozen=True)
class Fault:
    """Something that is done to the transfer once `at` bytes have come out of it.

    hold: what makes sure that it happens before the end. feed: the source gives no more than `gate` bytes, and does
    not end, until it is done; read: the reader takes no more than `at`; race: nothing, it may come too late; self: it
    happens by itself, at that byte.
    """

    kind: str
    at: int
    hold: str = "feed"
    gate: int = 0
    who: str = ""  # tx or rx
    delay_s: float = 0.0  # after `at` was reached
    lasts_s: float = 0.0  # stop, hole, dies
    number: int = 0  # how many, or which; of legs, signals, statuses

    def __str__(self) -> str:
        parts = [self.kind]
        parts += [f"of {self.who}"] if self.who else []
        parts += [f"({self.number})"] if self.number else []
        parts += [f"for {self.lasts_s:.2f} s"] if self.lasts_s else []
        held = {
            "feed": f", source held at byte {self.gate}",
            "read": ", reader held",
            "race": ", nothing held",
            "self": "",
        }
        after = f" and {self.delay_s * 1000:.0f} ms" if self.delay_s else ""
        return f"{' '.join(parts)} at byte {self.at}{after}{held[self.hold]}"


@dataclass(frozen=True)
class Break:
    """What a proxy does to a connection when so many bytes have passed in one direction (up: from who dials)."""

    kind: str  # reset, close, deaf, flip
    up: bool
    after: int


@dataclass(frozen=True)
class Hop:
    """One path: the host that is dialled, the words behind it, and what the proxy in between does, if there is one.

    breaks: for each connection in the order in which they come, what breaks it; the further ones are left in peace.
    """

    host: str
    terms: tuple[str, ...] = ()
    proxied: bool = False
    breaks: tuple[Break | None, ...] = ()
    refusing: bool = False  # nobody listens there


@dataclass(frozen=True)
class Plan:
    """A whole run."""

    seed: int
    kind: Kind = Kind.TRANSFER
    size: int = 0
    source: Source = Source()
    sink: Sink = Sink()
    dials: str = "tx"
    hops: tuple[Hop, ...] = (Hop("127.0.0.1"),)
    tx_words: tuple[str, ...] = ()
    rx_words: tuple[str, ...] = ()
    first: str = "both"  # tx, rx: that one is started first, by `late_s`; listening: once it listens
    late_s: float = 0.0
    faults: tuple[Fault, ...] = ()
    regroup_s: float = 10.0
    outage_s: float = 900.0
    wait_s: tuple[float, float] = (60.0, 1e9)  # of tx and of rx
    window: tuple[int, int] = (64 * MIB, 64 * MIB)  # of tx and of rx
    verbose: tuple[int, int] = (1, 1)
    missing: str = ""  # ALONE: which side
    digest: str = ""
    extras: tuple[str, ...] = field(default=())  # what else is unusual, for the tally

    @property
    def listens(self) -> str:
        """Which side."""
        return "rx" if self.dials == "tx" else "tx"

    @property
    def fatal(self) -> Fault | None:
        """What ends the transfer before its time."""
        return next((fault for fault in self.faults if fault.kind in FATAL), None)

    @property
    def shaky(self) -> bool:
        """Whether no leg may be up at the moment in which the transfer is ended."""
        at = self.faults.index(self.fatal) if self.fatal is not None else len(self.faults)
        if "chaos" in self.tx_words or any(hop.breaks for hop in self.hops):
            return True
        if not at or self.faults[at - 1].kind not in UNSETTLING:
            return False
        before = self.faults[at - 1]  # what comes out behind its gate has come over a leg that was up afterwards
        return self.fatal is not None and not (before.hold == "feed" and self.fatal.at > before.gate)

    @property
    def secret(self) -> tuple[str, ...]:
        """What both sides have, as words."""
        at = next((at for at, word in enumerate(self.tx_words) if word in ("key", "phrase")), -1)
        return self.tx_words[at : at + 2] if at >= 0 else ()

    @property
    def overflows(self) -> bool:
        """Whether the sink has not got room for the stream."""
        return self.size > self.sink.capacity

    def describe(self) -> list[str]:
        """The plan in words, a line each."""
        lines = [f"seed {self.seed}: {self.kind.value}, {self.size} B, {self.dials} dials"]
        if self.missing:
            lines.append(f"there is no {self.missing}")
        lines.append(f"source: {_end(self.source)}, {self.source.pace}")
        room = f" with room for {self.sink.capacity} B" if self.sink.capacity != NEVER else ""
        lines.append(f"sink: {_end(self.sink)}{room}, {self.sink.pace}")
        lines += [f"  the reader rests at byte {at} for {rest_s:.2f} s" for at, rest_s in self.sink.rests]
        for hop in self.hops:
            through = " through a proxy" if hop.proxied else ""
            refusing = ", where nobody listens" if hop.refusing else ""
            lines.append(f"path: {hop.host} {shlex.join(hop.terms)}{through}{refusing}")
            for number, each in enumerate(hop.breaks):
                if each is not None:
                    way = "from" if each.up else "to"
                    lines.append(f"  connection {number}: {each.kind} after {each.after} B {way} who dials")
        start = "as soon as it listens" if self.first == "listening" else f"{self.late_s:.2f} s later"
        first = self.listens if self.first == "listening" else self.first
        lines.append(
            "both are started at once" if first == "both" else f"{first} is started first, the other one {start}"
        )
        lines += [f"tx: {shlex.join(self.tx_words)}", f"rx: {shlex.join(self.rx_words)}"]
        return lines + [f"fault: {fault}" for fault in self.faults]


def _end(end: Source | Sink) -> str:
    """A source or a sink in words."""
    deaf = " that ignores SIGTERM" if end.stubborn else ""
    longer = f" that lives {end.linger_s:.2f} s longer than its pipe" if end.linger_s else ""
    helped = ", with a helper" if end.helper else ""
    return f"{end.kind}{deaf}{longer}{helped}"
