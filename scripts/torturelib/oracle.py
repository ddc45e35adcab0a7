"""What must come of a plan, and whether it did. Everything here is known before the run, but for the judgement."""

import functools
import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import xxhash

from .content import Content
from .plan import HELD_BYTES, MIB, Fault, Kind, Plan

COMPLETE, USAGE, NO_CONTACT, REFUSED, PEER_LOST, LOCAL_IO, REMOTE_FAILED, LIMIT = 0, 2, 3, 4, 5, 7, 8, 9
SIGNALLED = {"term": 143, "int": 130, "hup": 129}
KILLED = -9
FIXED_BYTES = 64 * MIB  # of memory, beside the window: the manual's promise
SLOWEST = 1 * MIB  # bytes per second, on a busy machine
START_S = 60  # for what an idle machine does in a second

DIGEST = re.compile(r"\b(sha256|xxh3-128) ([0-9a-f]+)")
NOISE = re.compile(r"Traceback|Exception ignored|was never awaited|was destroyed|Warning:|unexpected|please report")
CLOSING = re.compile(r"^viamillipede (?:tx|rx): (incomplete, )?(?:[\d.]+ \w+ \((\d+) bytes\)|(\d+) B) in ", re.M)
ENDS_AT = re.compile(r"the other process is gone; the stream ends incomplete at byte (\d+)")

Pair = tuple[int | None, int | None]  # statuses of tx and rx; None: there was no such process


@dataclass
class Ended:
    """How one side ended. status: None if it did not in time. said: its standard error, or the ends of it."""

    status: int | None
    said: str
    noise: list[str] = field(default_factory=list)
    peak_bytes: int = 0


@dataclass
class Result:
    """What was seen of a run."""

    tx: Ended | None = None
    rx: Ended | None = None
    fed: int = 0
    arrived: int = 0
    differs: int | None = None  # the first byte that is another one than was sent
    clean: bool | None = None  # whether the sink's command saw the end of its input and lived on; None: no such sink
    late: list[Fault] = field(default_factory=list)  # faults that came when one of the processes had ended
    left: list[str] = field(default_factory=list)  # processes that outlived the run
    hung: str = ""  # what did not end in time
    wrong: list[str] = field(default_factory=list)  # what else was not as it must be

    @property
    def pair(self) -> Pair:
        """Both statuses."""
        return (self.tx.status if self.tx else None), (self.rx.status if self.rx else None)


def expected(plan: Plan) -> frozenset[Pair]:
    """The statuses with which tx and rx may end. More than one pair only where a fault races with the end."""
    if plan.kind is not Kind.TRANSFER:
        return frozenset({_meeting(plan)})
    fault = plan.fatal
    if not plan.overflows and fault is None:
        return frozenset({(COMPLETE, COMPLETE)})
    tx, rx = _ended_by(fault) if fault is not None else (REMOTE_FAILED, LOCAL_IO)
    pairs: set[Pair] = {(tx, rx)}
    unread = HELD_BYTES if plan.sink.kind == "command" else 0  # what a sink's command can be rid of without a reader
    if fault is not None and fault.hold == "read" and fault.who == "tx":
        pairs.add((tx, COMPLETE))  # rx may have got all of it, and only its reader has not
    if fault is not None and fault.hold == "read" and plan.size - fault.at <= unread:  # nothing may be left to do ...
        pairs.add((COMPLETE, COMPLETE))
        if fault.who == "rx":
            pairs.add((COMPLETE, rx))  # ... but to end, when tx knows already
    if fault is not None and fault.hold == "race":  # it may come after the end, or while one side is ending already
        ends_tx = fault.who == "tx" or fault.kind.startswith("source")
        pairs |= {(COMPLETE, COMPLETE), (tx, COMPLETE) if ends_tx else (COMPLETE, rx)}
    if plan.shaky:  # without a leg nobody can be told why
        pairs |= {(_untold(tx), _untold(rx)) for tx, rx in pairs}
    return frozenset(pairs)


def _ended_by(fault: Fault) -> Pair:
    """The statuses when this ends a transfer that is under way."""
    if fault.kind == "kill":
        return (KILLED, PEER_LOST) if fault.who == "tx" else (PEER_LOST, KILLED)
    if fault.kind in SIGNALLED:
        status = SIGNALLED[fault.kind]
        return (status, REMOTE_FAILED) if fault.who == "tx" else (REMOTE_FAILED, status)
    if fault.kind in ("source fails", "source killed"):
        return LOCAL_IO, REMOTE_FAILED
    assert fault.kind in ("reader dies", "sink fails", "sink killed"), fault.kind
    return REMOTE_FAILED, LOCAL_IO


def _untold(status: int | None) -> int | None:
    """The status of a side that was not told why the other one has failed."""
    return PEER_LOST if status == REMOTE_FAILED else status


def _meeting(plan: Plan) -> Pair:
    """The statuses when no stream comes about."""
    if plan.kind is Kind.STRANGE:  # who dials is refused, who listens waits for somebody else
        return (REFUSED, LIMIT) if plan.dials == "tx" else (NO_CONTACT, REFUSED)
    if plan.kind is Kind.USAGE:
        status = USAGE
    elif plan.faults:
        status = SIGNALLED[plan.faults[0].kind]
    else:
        status = NO_CONTACT if plan.missing == "rx" else LIMIT
    return (status, None) if plan.missing == "rx" else (None, status)


def limit_s(plan: Plan) -> float:
    """After how many seconds a run has hung. Generous: a busy machine is no fault, and nothing is lost by waiting."""
    words = dict(itertools.pairwise(plan.tx_words))
    # A plan whose words are wrong on purpose has limits that are no numbers, and moves nothing.
    limits = [int(text) // 2 for text in _limits(plan)] if plan.kind is not Kind.USAGE else []
    rate = min([SLOWEST, *limits])
    seconds = START_S + plan.size / rate + plan.late_s + plan.source.pace.seconds() + plan.sink.pace.seconds()
    seconds += sum(rest_s for _, rest_s in plan.sink.rests)
    seconds += sum(fault.lasts_s + fault.delay_s + 5 for fault in plan.faults)
    seconds += 5.0 * sum(each is not None for hop in plan.hops for each in hop.breaks)
    if words.get("chaos-kind") in ("stall", "all"):
        seconds += 60
    if any(fault.kind == "kill" for fault in plan.faults):
        seconds += plan.regroup_s + (plan.outage_s if plan.outage_s < 900 else 0)
    if plan.kind is not Kind.TRANSFER:
        seconds += min(60.0, max(plan.wait_s))
    return seconds


def _limits(plan: Plan) -> Iterator[str]:
    """Rates that the words set."""
    for words in (plan.tx_words, *(hop.terms for hop in plan.hops)):
        yield from (value for word, value in itertools.pairwise(words) if word == "limit" and value.isdecimal())


def judge(plan: Plan, result: Result) -> list[str]:
    """Everything about the result that must not be; empty: all is well."""
    found = list(result.wrong)
    if result.hung:
        found.append(f"it hung: {result.hung}")
    elif result.pair not in expected(plan):
        allowed = " or ".join(sorted(map(spell, expected(plan))))
        found.append(f"ended with {spell(result.pair)}, expected {allowed}")
    found += _judge_stream(plan, result)
    for role, ended, window in (("tx", result.tx, plan.window[0]), ("rx", result.rx, plan.window[1])):
        if ended is not None:
            found += [f"{role}: {complaint}" for complaint in _judge_side(plan, result, ended, window)]
    found += [f"left behind: {each}" for each in result.left]
    return found


def spell(pair: Pair) -> str:
    """A pair of statuses in words."""
    return ", ".join(f"{role} {status}" for role, status in zip(("tx", "rx"), pair, strict=True) if status is not None)


def _judge_stream(plan: Plan, result: Result) -> Iterator[str]:
    """The bytes: all of them where a side says so, a prefix of the stream in any case."""
    if result.differs is not None:
        yield f"byte {result.differs} is not the one that was sent ({result.arrived} arrived)"
    if result.arrived > plan.size:
        yield f"{result.arrived} bytes arrived, of {plan.size}"
    whole = result.arrived == plan.size
    if COMPLETE in result.pair and not whole:
        yield f"{spell(result.pair)}, but {result.arrived} bytes of {plan.size} arrived"
    if plan.overflows and plan.sink.capacity and not result.hung and result.arrived != plan.sink.capacity:
        yield f"the disk took {plan.sink.capacity} bytes, {result.arrived} arrived"
    if result.clean is None:
        return
    # rx ends its command's input when it has the end of the stream, however either side ends after that.
    ended = plan.fatal is None or plan.fatal.hold != "feed"
    if result.clean and not (whole and ended):
        yield "the sink's command took the end of its input for a success"
    if not result.clean and result.pair[1] == COMPLETE:
        yield "rx 0, but the sink's command did not come to its end"


def _judge_side(plan: Plan, result: Result, ended: Ended, window: int) -> Iterator[str]:
    """What one process said, and its memory."""
    yield from (f"said {line!r}" for line in ended.noise)
    if ended.peak_bytes > window + FIXED_BYTES:
        yield f"{ended.peak_bytes / MIB:.1f} MiB of memory, beside a window of {window / MIB:.1f} MiB"
    status = ended.status
    lines = ended.said.splitlines()
    if status is not None and status > 0 and not any(line.startswith("viamillipede") for line in lines):
        yield f"status {status} without a reason"
    stepped = any(fault.kind == "verbose" for fault in plan.faults)
    side = 0 if ended is result.tx else 1
    if status != COMPLETE or plan.verbose[side] < 1 or stepped:
        bytes_told = ENDS_AT.search(ended.said)
        if side == 1 and bytes_told and plan.sink.kind == "pipe" and plan.fatal and plan.fatal.kind == "kill":
            if int(bytes_told[1]) != result.arrived:
                yield f"it told of {bytes_told[1]} bytes, {result.arrived} arrived"
        return
    told = CLOSING.search(ended.said)
    if told is None:
        yield "status 0 without a closing line"
        return
    if told[1] or int(told[2] or told[3]) != plan.size:
        yield f"status 0 and a closing line that is wrong: {told[0]!r}"
    digest = DIGEST.search(ended.said, told.end())
    if digest is not None and digest[2] != _digest(plan, digest[1]):
        yield f"told the digest {digest[0]}, it is {_digest(plan, digest[1])}"
    if plan.digest in ("sha256", "xxh3") and (digest is None or not digest[1].startswith(plan.digest)):
        yield f"no digest was told, {plan.digest} was asked for"


@functools.lru_cache(4)
def _digest(plan: Plan, name: str) -> str:
    """What it must be, in hexadecimal digits."""
    found = hashlib.sha256() if name == "sha256" else xxhash.xxh3_128()
    for piece in Content(plan.seed).pieces(0, plan.size):
        found.update(piece)
    return found.hexdigest()


def counts_as_race(plan: Plan) -> bool:
    """Whether the stream may be complete although one side ended otherwise."""
    return any(COMPLETE in pair for pair in expected(plan)) and len(expected(plan)) > 1
