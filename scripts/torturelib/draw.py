"""From a seed to a plan. The same seed gives the same plan wherever the same things are possible."""

import dataclasses
import random
from collections.abc import Sequence

from .disturb import Faults, Scene
from .plan import KIB, MIB, NEVER, SIGNALS, Break, Fault, Hop, Kind, Pace, Plan, Sink, Source

KINDS = {Kind.TRANSFER: 92, Kind.ALONE: 4, Kind.STRANGE: 2, Kind.USAGE: 2}  # in parts of 100
SIZES = ((0, 0, 4), (1, 100, 8), (100, 64 * KIB, 18), (64 * KIB, 4 * MIB, 36), (4 * MIB, 40 * MIB, 28))
SIZES_LARGE = (40 * MIB, 300 * MIB, 6)
PROXIED_MAX = 48 * MIB  # what goes through the proxy is moved by us, and slowly
FILE_MAX = 64 * MIB  # what is stored
FRAMES_MAX = 6000  # of a run: each costs some hundred microseconds on either side
WINDOWS_MAX = 2000  # how often a stream may fill its window
WINDOWS = (64 * KIB, 128 * KIB, 300_000, 1 * MIB, 4 * MIB, 16 * MIB, 256 * MIB)
WINDOW_DEFAULT, FRAME_DEFAULT, FRAME_MIN = 64 * MIB, 1 * MIB, 1 * KIB
USAGE = (
    "threads 0", "threads 5000", "window 1k", "frame 64M", "nonsense", "wait 5x", "verbose 21", "threads", "weight 2",
    "checkphrase abc", "chaos-kind bend", "chaos 5 chaos-kind corrupt", "limit 50Mb/s", "congestion none-such",
    "threads 2 threads 3",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Abilities:
    """What can be done here, and what the program can do."""

    disks: bool = False  # mount a small file system that nobody else sees
    ss: bool = False  # cut living connections
    ipv6: bool = False
    congestions: tuple[str, ...] = ()
    commands: bool = False  # -- COMMAND
    digest: bool = False
    keys: bool = False


class Drawing:
    """One plan in the making. `dice` is asked in the same order each time."""

    def __init__(self, seed: int, can: Abilities) -> None:
        self.seed, self.can = seed, can
        self.dice = random.Random(f"plan {seed}")

    # ---- dice -----------------------------------------------------------------------------------
    def chance(self, share: float) -> bool:
        """True in this share of all cases."""
        return self.dice.random() < share

    def between(self, low: float, high: float) -> float:
        """Something in between, small ones as likely as large ones."""
        return float(low * (high / low) ** self.dice.random())

    def pick(self, weights: dict[str, float]) -> str:
        """A key, as often as its weight says."""
        return self.dice.choices(list(weights), list(weights.values()))[0]

    # ---- parts ----------------------------------------------------------------------------------
    def size(self, most: int) -> int:
        """Bytes of the stream."""
        low, high, _ = self.dice.choices(table := (*SIZES, SIZES_LARGE), [weight for *_, weight in table])[0]
        return min(most, int(self.between(low, high + 1)) if low else 0)

    def pace(self, size: int, share: float) -> Pace:
        """How something is fed or read."""
        if not self.chance(share):
            return Pace(self.dice.choice((64 * KIB, 256 * KIB, 256 * KIB, 1 * MIB, 5000)) if size < 30 * MIB else MIB)
        if self.chance(0.4):  # bursts
            piece, pause_s, pieces = int(self.between(10_000, 2_000_000)), self.between(0.05, 0.4), 6
        else:
            piece, pause_s, pieces = int(self.between(1, 30_000)), self.between(0.001, 0.03), 60
        return Pace(piece, pause_s, min(size, piece * pieces))

    def source(self, size: int) -> Source:
        """What tx reads."""
        kind = self.pick({"pipe": 60, "file": 12, "command": 28 if self.can.commands else 0})
        if kind == "file":
            return Source(kind)
        return Source(kind, self.pace(size, 0.3), *self.command(kind))

    def sink(self, size: int) -> Sink:
        """What rx writes to."""
        kinds: dict[str, float] = {"pipe": 55, "file": 10, "append": 4, "/dev/full": 2, "full": 8 * self.can.disks}
        kind = self.pick(kinds | {"command": 28 * self.can.commands})
        if kind == "/dev/full":
            return Sink(kind, capacity=0)
        if kind == "full":
            pages = self.dice.randint(1, max(2, size // 2048))
            capacity = 4 * KIB * pages
            if size and self.chance(0.3):  # just enough, or just too little
                capacity = (size + 4 * KIB - 1) // (4 * KIB) * 4 * KIB
            return Sink(kind, capacity=capacity)
        if kind in ("file", "append"):
            return Sink(kind)
        rests = sorted(self.dice.randint(0, size) for _ in range(self.dice.choice((0, 0, 0, 0, 1, 1, 2))))
        stops = tuple((at, self.between(0.05, 3)) for at in rests)
        return Sink(kind, self.pace(size, 0.2), NEVER, *self.command(kind), stops)

    def command(self, kind: str) -> tuple[bool, float, bool]:
        """Of a source or a sink: does it ignore SIGTERM, how long does it outlive its pipe, has it a helper?"""
        if kind != "command":
            return False, 0.0, False
        return self.chance(0.04), self.between(0.05, 1) if self.chance(0.1) else 0.0, self.chance(0.3)

    def hops(self, proxied: bool, size: int) -> tuple[Hop, ...]:
        """The paths."""
        hosts = ["127.0.0.1", "127.0.0.2", "localhost"] + ["::1"] * self.can.ipv6
        hops: list[Hop] = []
        weighted = self.chance(0.15)
        for number in range(self.dice.choices((1, 2, 3, 4), (60, 25, 10, 5))[0]):
            host = self.dice.choice(hosts if number or self.chance(0.3) else hosts[:1])
            through = proxied and (not hops or self.chance(0.5))
            terms: list[str] = []
            if self.chance(0.1) and not through and host.startswith("127"):
                terms += ["via", self.dice.choice(("lo", "127.0.0.1", "127.0.0.7"))]
            if weighted:
                terms += ["weight", str(self.dice.randint(1, 9))]
            if self.chance(0.08):
                terms += ["limit", str(int(max(100_000, size / self.between(0.3, 1.5))))]
            breaks: tuple[Break | None, ...] = ()
            if through and self.chance(0.6):
                breaks = tuple(self.broken() for _ in range(self.dice.randint(1, 12)))
            hops.append(Hop("127.0.0.1" if through else host, tuple(terms), through, breaks))
        if self.chance(0.06):
            hops.insert(self.dice.randint(0, len(hops)), Hop("127.0.0.3", refusing=True))
        return tuple(hops)

    def broken(self) -> Break | None:
        """What a proxy does to one connection."""
        kind = self.pick({"reset": 5, "close": 4, "deaf": 1, "": 3})
        if not kind:
            return None
        up = self.chance(0.8)
        return Break(kind, up, int(self.between(1, 5 * MIB if up else 3000)))

    def flipped(self, hop: Hop) -> Hop:
        """On a sealed leg a changed bit is noticed like a broken connection; in a hello it is another key."""
        breaks = tuple(
            dataclasses.replace(each, kind="flip", after=each.after + 1000) if each and self.chance(0.3) else each
            for each in hop.breaks
        )
        return dataclasses.replace(hop, breaks=breaks)

    # ---- words ----------------------------------------------------------------------------------
    def window(self, size: int) -> int:
        """0: not said."""
        fitting = [one for one in WINDOWS if size <= one * WINDOWS_MAX]
        return self.dice.choice(fitting) if self.chance(0.4) else 0

    def frame(self, size: int, window: int) -> int:
        """0: not said."""
        low = max(FRAME_MIN, size // FRAMES_MAX)
        high = min(16 * MIB, window // 4)
        return int(self.between(low, high)) if self.chance(0.35) and low < high else 0

    def threads(self) -> tuple[str, ...]:
        """Mostly a few."""
        count = self.pick({"": 30, "few": 45, "many": 20, "auto": 5})
        if not count or count == "auto":
            return ("threads", "auto") if count else ()
        return "threads", str(self.dice.randint(1, 4) if count == "few" else self.dice.randint(5, 32))

    def chaos(self, size: int, frame: int, checksum: bool) -> tuple[str, ...]:
        """Legs that are broken by tx itself. What stalls takes seconds to be noticed, so there are fewer of these."""
        if not self.chance(0.12):
            return ()
        kind = self.dice.choice(("close", "reset", "stall", "truncate", "all") + ("corrupt",) * checksum)
        operations = 200 + 6 * size // frame
        least = max(100, operations / 5) if kind in ("stall", "all") else max(20, operations / 150)
        return "chaos", str(int(self.between(least, least + 3000))), "chaos-kind", kind


def draw(seed: int, can: Abilities) -> Plan:
    """The plan of a seed."""
    drawing = Drawing(seed, can)
    kind = drawing.dice.choices(list(KINDS), list(KINDS.values()))[0]
    if kind is Kind.TRANSFER:
        return _transfer(drawing)
    if kind is Kind.USAGE:
        who = drawing.dice.choice(("tx", "rx"))
        words = tuple(drawing.dice.choice(USAGE).split())
        if can.commands and drawing.chance(0.3):
            words = ("--", "/nobody/has/such-a-command")
        if who == "tx":
            return Plan(seed, kind, missing="rx", tx_words=words)
        return Plan(seed, kind, missing="tx", rx_words=words)
    plan = Plan(seed, kind, drawing.size(MIB), dials=drawing.dice.choice(("tx", "rx")), verbose=(3, 3))
    if kind is Kind.STRANGE:
        waits = ("wait", "4s")
        several: list[tuple[str, ...]] = [(), ("checkphrase", "abcd"), ("checkphrase", "abce")]
        if can.keys and drawing.chance(0.6):
            several = [(), ("key", "@one"), ("key", "@two"), ("phrase", "@three"), ("phrase", "@four")]
        tx, rx = drawing.dice.sample(several, 2)
        return _reword(plan, (*tx, *waits), (*rx, *waits), first="listening", wait_s=(4.0, 4.0))
    wait_s = round(drawing.between(0.3, 2.5), 1)
    faults: tuple[Fault, ...] = ()
    missing = drawing.dice.choice(("tx", "rx"))
    if drawing.chance(0.5):
        who = "tx" if missing == "rx" else "rx"
        faults = (Fault(drawing.dice.choice(SIGNALS), 0, "race", who=who, delay_s=drawing.between(0.001, 0.3)),)
        wait_s = 60.0
    words = ("wait", f"{wait_s}s")
    return _reword(plan, words, words, missing=missing, faults=faults, wait_s=(wait_s, wait_s))


def _reword(plan: Plan, tx: Sequence[str], rx: Sequence[str], **changes: object) -> Plan:
    """The plan with these words, beside those that say what it has been drawn as."""
    tx_words, rx_words = list(tx), list(rx)
    for words, verbose in ((tx_words, plan.verbose[0]), (rx_words, plan.verbose[1])):
        words += ["verbose", str(verbose)] if verbose != 1 else []
    return dataclasses.replace(plan, tx_words=tuple(tx_words), rx_words=tuple(rx_words), **changes)  # type: ignore[arg-type]


def _transfer(drawing: Drawing) -> Plan:
    """A stream, and what happens to it."""
    chance, dice, can = drawing.chance, drawing.dice, drawing.can
    proxied = chance(0.18)
    size = drawing.size(PROXIED_MAX if proxied else 1 << 40)
    source, sink = drawing.source(size), drawing.sink(size)
    if "file" in (source.kind, sink.kind) or sink.kind in ("append", "full"):
        size = min(size, FILE_MAX)
    windows = drawing.window(size), drawing.window(size)
    frame = drawing.frame(size, min(windows[0] or WINDOW_DEFAULT, windows[1] or WINDOW_DEFAULT))
    in_use = frame or min(FRAME_DEFAULT, (windows[0] or WINDOW_DEFAULT) // 4)
    checksum = dice.choice(("", "", "", "tx", "rx"))
    tx: list[str] = [*drawing.threads(), *drawing.chaos(size, in_use, checksum == "tx")]
    rx: list[str] = []
    for words, window in ((tx, windows[0]), (rx, windows[1])):
        words += ["window", str(window)] if window else []
    tx += ["frame", str(frame)] if frame else []
    if checksum:
        (tx if checksum == "tx" else rx).append("checksum")
    if chance(0.15):
        tx += ["checkphrase", "mill"]
        rx += ["checkphrase", "mill"]
    if chance(0.08):
        tx += ["limit", str(int(max(100_000, size / drawing.between(0.3, 2))))]
    if can.congestions and chance(0.1):
        (tx if chance(0.5) else rx).extend(["congestion", dice.choice(can.congestions)])
    digest = dice.choice(("", "", "", "", "sha256", "xxh3", "auto")) if can.digest else ""
    if digest:
        for words in (tx, rx) if chance(0.5) else (tx,):
            words += ["digest", digest]
    dials = "tx" if chance(0.75) else "rx"
    hops = _spoken(drawing.hops(proxied, size), dials)
    secret = drawing.pick({"": 55, "key": 35, "phrase": 10}) if can.keys else ""
    for words in (tx, rx) if secret else ():
        words += [secret, "@one"]
    if secret:
        hops = tuple(drawing.flipped(hop) for hop in hops)
    scene = Scene(size, source, sink, dials, proxied, "chaos" in tx or any(hop.breaks for hop in hops), can.ss)
    faults = Faults(drawing.dice, scene).draw()
    verbose = dice.choice((1, 1, 1, 2, 3)), dice.choice((0, 1, 1, 2, 3, 5))
    if any(fault.at == 0 for fault in faults):  # the first contact must be told
        verbose = max(2, verbose[0]), max(2, verbose[1])
    regroup_s, outage_s = scene.patience(dice, faults)
    patience = [*(["regroup", f"{regroup_s}s"] if regroup_s != 10 else [])]
    patience += ["outage", f"{outage_s:.0f}s"] if outage_s != 900 else []
    first, late_s = dice.choice(("listening", "both", "both", "tx", "rx")), drawing.between(0.05, 1.5)
    plan = Plan(drawing.seed, Kind.TRANSFER, size, source, sink, dials, hops, first=first, late_s=late_s,
                faults=faults, regroup_s=regroup_s, outage_s=outage_s, verbose=verbose, digest=digest,
                window=(windows[0] or WINDOW_DEFAULT, windows[1] or WINDOW_DEFAULT))  # fmt: skip
    return _reword(plan, [*tx, *patience], [*rx, *patience])


def _spoken(hops: tuple[Hop, ...], dials: str) -> tuple[Hop, ...]:
    """The paths with the words that are allowed there: rx, where it dials, decides nothing but `via`."""
    if dials == "tx":
        return hops
    return tuple(dataclasses.replace(hop, terms=hop.terms[:2] if hop.terms[:1] == ("via",) else ()) for hop in hops)
