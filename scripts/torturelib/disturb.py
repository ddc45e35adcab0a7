"""Which faults a plan gets, and at which bytes: benign ones, which must change nothing, and then one that ends it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from .plan import FATAL, HELD_BYTES, MIB, Fault, Sink, Source

HOLD_RACE = 0.12  # of the faults that end a transfer: so many may come too late
STRANGERS = 7  # kinds of them
_OWN_HOLD = {"reader dies": "read", "source fails": "feed", "sink fails": "self"}  # these are of the ends themselves
OURS_TO_READ = ("pipe", "command")  # sinks whose reader we are


@dataclass(frozen=True)
class Scene:
    """What a fault must fit."""

    size: int
    source: Source
    sink: Sink
    dials: str
    proxied: bool
    restless: bool  # legs break by themselves
    ss: bool

    @property
    def top(self) -> int:
        """How many bytes can come out."""
        return min(self.size, self.sink.capacity)

    def patience(self, dice: random.Random, faults: Sequence[Fault]) -> tuple[float, float]:
        """`regroup` and `outage`, in seconds, that none of the benign faults exhausts."""
        longest_s = max((fault.lasts_s for fault in faults), default=0.0)
        killed = any(fault.kind == "kill" for fault in faults)
        outage_s = 900.0
        if (killed and self.proxied) or dice.random() < 0.05:  # a proxy looks like a network that is silent
            outage_s = 20.0 + round(longest_s)
        calm = longest_s < 0.5 and not self.restless
        if calm and dice.random() < (0.9 if killed else 0.3):
            return round(1 + 2 * dice.random(), 1), outage_s
        if longest_s >= 4:  # legs may be cut before one side sleeps
            return 30.0, outage_s
        return (7.0 if killed else 10.0), outage_s


class Faults:
    """The faults of one plan."""

    def __init__(self, dice: random.Random, scene: Scene) -> None:
        self.dice, self.scene = dice, scene
        self.holds = ["feed"] * (scene.source.kind != "file") + ["read"] * (scene.sink.kind in OURS_TO_READ)

    def draw(self) -> tuple[Fault, ...]:
        """In the order in which they happen."""
        dice, scene = self.dice, self.scene
        count = dice.choices((0, 1, 2, 3, 5), (40, 30, 16, 10, 4))[0]
        ends = dice.random() < 0.5
        if scene.sink.kind == "/dev/full" or not self.holds:
            return ()
        offsets = sorted(self.offset() for _ in range(count))
        faults: list[Fault] = []
        for at in offsets:
            faults.append(self.held(self.benign(), max(at, faults[-1].gate if faults else 0)))
        if ends and (fatal := self.fatal(faults[-1].gate if faults else 0)) is not None:
            faults.append(fatal)
        elif scene.size and dice.random() < 0.06:  # at the very end nothing must be disturbed by being asked
            faults.append(Fault("dump", scene.top, "race", who=dice.choice(("tx", "rx")), number=dice.randint(1, 40)))
        return tuple(faults)

    def offset(self) -> int:
        """A byte of the stream, often near one of its ends."""
        top, dice = self.scene.top, self.dice
        near = dice.randint(0, min(top, 200_000))
        return dice.choice((dice.randint(0, top), dice.randint(0, top), near, top - near))

    def held(self, fault: Fault, at: int, holds: Sequence[str] = ()) -> Fault:
        """The fault at this byte, and what holds the stream back until it has happened."""
        dice, top = self.dice, self.scene.top
        hold = dice.choice(holds or self.holds)
        gate = at
        if hold == "feed":
            gate = dice.choices((at, dice.randint(at, top), top), (35, 50, 15))[0]
        delay_s = dice.choice((0.0, 0.0, 0.2 * dice.random()))
        return Fault(fault.kind, at, hold, gate, fault.who, delay_s, fault.lasts_s, fault.number)

    def benign(self) -> Fault:
        """One that must change nothing; at no byte yet."""
        dice, scene = self.dice, self.scene
        weights = {"stop": 30, "stranger": 10, "another": 4, "dump": 12, "verbose": 5, "cut legs": 30 * scene.ss}
        if scene.proxied:
            weights |= {"proxy reset": 20, "proxy hole": 12, "proxy dies": 10}
        kind = dice.choices(list(weights), list(weights.values()))[0]
        who, lasts_s, number = dice.choice(("tx", "rx")), 0.0, 0
        if kind == "stop":
            low, high = dice.choices(((0.02, 1.0), (1.0, 4.0), (4.0, 15.0)), (82, 14, 4))[0]
            lasts_s = low + (high - low) * dice.random()
        elif kind == "proxy hole":
            who, lasts_s = "", 0.05 + 5 * dice.random() ** 2
        elif kind == "proxy dies":
            who, lasts_s = "", 0.05 + 2 * dice.random() ** 2
        elif kind in ("cut legs", "proxy reset"):
            who, number = (who if kind == "cut legs" else ""), dice.choice((0, 0, 1, 1, 2, 3))
        elif kind == "stranger":
            who, number = "", dice.randrange(STRANGERS)
        elif kind == "another":
            who = scene.dials
        else:
            number = dice.randint(1, 7)
        return Fault(kind, 0, who=who, lasts_s=lasts_s, number=number)

    def fatal(self, after: int) -> Fault | None:
        """One that ends the transfer, at a byte behind `after`; None: there is no such byte."""
        dice, scene = self.dice, self.scene
        if scene.top == 0 or scene.size > scene.sink.capacity:  # it ends by itself
            return None
        ours = scene.sink.kind in OURS_TO_READ
        weights = {"kill": 30.0, "term": 12, "int": 8, "hup": 4, "reader dies": 22 * ours}
        for end, each in (("source", scene.source.kind), ("sink", scene.sink.kind)):
            if each == "command":
                weights |= {f"{end} fails": 25, f"{end} killed": 8}
        kind = dice.choices(list(weights), list(weights.values()))[0]
        assert kind in FATAL
        who = dice.choice(("tx", "rx")) if kind in ("kill", "term", "int", "hup") else ""
        # What holds back the reader alone does not keep tx from having sent it all.
        holds = self.holds[:1] if who == "tx" or kind == "source killed" else self.holds
        last = scene.top - ("read" in holds and kind not in _OWN_HOLD)
        if after >= last:
            return None
        near = last - dice.randint(0, min(3, last - after - 1))
        at = dice.choice((after + 1, dice.randint(after + 1, last), near))
        if kind == "reader dies" and scene.sink.kind == "command" and scene.size - at <= HELD_BYTES:
            at = scene.size  # or the rest stays in the pipe, and the command has done all it could
        if kind == "sink fails" and dice.random() < 0.5:
            at = scene.size  # it has taken all, and then it fails
        number = dice.randint(1, 125) if kind.endswith("fails") else 0
        if kind in _OWN_HOLD:
            return Fault(kind, at, _OWN_HOLD[kind], at, who, 0.0, 0.0, number)
        if dice.random() < HOLD_RACE:
            delay_s = dice.random() ** 2 * (0.05 + scene.size / (500 * MIB))
            return Fault(kind, at, "race", at, who, delay_s, 0.0, number)
        return self.held(Fault(kind, 0, who=who, number=number), at, holds)
