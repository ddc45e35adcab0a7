"""Sources, sinks and networks of a known rate, and what both sides say of them at the end."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tests.e2e.commands import sh
from tests.e2e.helpers import KIB, MIB, Side, Stage, read_some
from tests.e2e.throttle import Throttle

MB = 1_000_000
JSON = ("json", "interval", "200ms")
LASTS_S = 2.5  # a source
LATER = r'"type":"progress".*"elapsed_seconds":(1\.[2-9]|[2-9]|[1-9]\d)'  # by then it must be clear
MUCH_LATER = r'"type":"progress".*"elapsed_seconds":([3-9]|[1-9]\d)'
CONTACT = '"type":"progress".*"contacted":true'
MUCH, SOME = 0.5, 0.25  # of the time; and in the middle, when the beginning counts and the last word is under way
CORES = ("a core of tx", "a core of rx")
FIELDS = {
    "the source": "source", "the network": "network", "a core of tx": "core", "a core of rx": "core",
    "the sink": "sink", "the limit that was set": "limit",
}  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """In words, taken apart."""

    worst: str
    path: str
    shares: dict[str, float]


def parsed(text: str) -> Verdict:
    """The last verdict in a text; each part must be in its place."""
    found = re.findall(r"bottleneck: ([a-z ]+?)(?: \(([^)]*)\))?, (\d+) % of the time((?:; [a-z ]+ \d+ %)*)", text)
    assert found, text
    worst, path, share, others = found[-1]
    shares = {name: int(more) / 100 for name, more in re.findall(r"; ([a-z ]+) (\d+) %", others)}
    assert worst in FIELDS and shares.keys() <= FIELDS.keys() - {worst}
    assert sorted(shares.values(), reverse=True) == list(shares.values())
    shares = {worst: int(share) / 100, **shares}
    assert sum(shares.values()) <= 1.04, "rounded"
    return Verdict(worst, path, shares)


# ---- made to measure -----------------------------------------------------------------------------------------


def paced(rate: float, seconds: float = LASTS_S, piece: int = 20 * KIB) -> Iterator[bytes]:
    """A source of this rate."""
    began, count = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        yield bytes(piece)
        count += piece
        time.sleep(max(0.0, began + count / rate - time.monotonic()))


def fast(seconds: float = 1.5) -> Iterator[bytes]:
    """A source that gives as much as is taken; what the pipe holds then lasts for a while."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        yield bytes(256 * KIB)


def feed(tx: Side, pieces: Iterable[bytes]) -> None:
    """From the first contact on: what a pipe holds by then would be no source of any rate."""
    tx.hear(CONTACT)
    tx.feed(pieces)


def zeros(seconds: float = LASTS_S) -> tuple[object, ...]:
    """The same as a command."""
    return sh('timeout "$1" cat /dev/zero; true', seconds)


def read(stage: Stage, fd: int, rate: float = 0.0, piece: int = MIB) -> None:
    """Have a thread read a descriptor to its end, in pieces, at a rate; 0: as fast as it can."""
    own = os.dup(fd)

    def run() -> None:
        began, count = time.monotonic(), 0
        with contextlib.suppress(OSError):  # that is how a terminal ends
            while data := read_some(own, piece):
                count += len(data)
                if rate:
                    time.sleep(max(0.0, began + count / rate - time.monotonic()))
        os.close(own)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    stage.exit.callback(thread.join)  # what writes there is gone by then


def throttle(stage: Stage, rx: Side, **terms: Any) -> Throttle:
    """A network in front of rx."""
    made = stage.exit.enter_context(Throttle(target=rx.port, **terms))
    assert isinstance(made, Throttle)
    return made


@contextlib.contextmanager
def starved(side: Side) -> Iterator[None]:
    """It has one core, and that is others'."""
    core = {min(os.sched_getaffinity(0))}
    spin = [sys.executable, "-ISc", "while True: pass"]
    rivals = [subprocess.Popen(spin) for _ in range(6)]
    try:
        for rival in rivals:
            os.sched_setaffinity(rival.pid, core)
        for task in os.listdir(f"/proc/{side.pid}/task"):
            os.sched_setaffinity(int(task), core)
            os.sched_setscheduler(int(task), os.SCHED_IDLE, os.sched_param(0))
        yield
    finally:
        for rival in rivals:
            rival.kill()
            rival.wait()


# ---- what is said --------------------------------------------------------------------------------------------


def lines(side: Side) -> list[dict[str, Any]]:
    """What it has said; all of it is JSON."""
    return [json.loads(line) for line in side.said.splitlines()]


def dumps(*sides: Side) -> list[Verdict]:
    """What each of them says in the middle of it."""
    found = []
    for side in sides:
        side.hear(LATER)
        side.signal(signal.SIGUSR1)
        found.append(parsed(side.hear("waiting for: .*bottleneck: .*")[0]))
    return found


def ends(*sides: Side) -> list[Verdict]:
    """They end well; the verdict of each, which is the same everywhere."""
    found = []
    for side in sides:
        side.ends(0)
        *_, closing, end = lines(side)
        assert end["type"] == "end" and closing["type"] == "message" and end["verdict"] in closing["text"]
        verdict, waits = parsed(closing["text"]), end["waits"]
        assert verdict == parsed(end["verdict"])
        shares = {field: 0.0 for field in FIELDS.values()}
        for name, share in verdict.shares.items():
            shares[FIELDS[name]] += share
        for field, share in shares.items():
            assert abs(waits[field] - share) < 0.025, "what is left out of the words, and rounded there"
        assert waits["network_path"] == verdict.path or verdict.worst != "the network"
        if verdict.worst.startswith("a core of "):
            assert verdict.worst == f"a core of {waits['core_side']}"
        found.append(replace(verdict, path=waits["network_path"]))
    return found


def blame(what: str, tx: Side, rx: Side, dump: bool = True) -> list[Verdict]:
    """Both sides must say that this was it, in the middle and at the end; their verdicts at the end.

    Where others keep the machine busy a core is waited for as well, rightly. Of the other time it must be most.
    """
    told = (dumps(tx, rx) if dump else []) + ends(tx, rx)
    for number, verdict in enumerate(told):
        shares = {name: share for name, share in verdict.shares.items() if name not in CORES}
        last = number >= len(told) - 2
        assert shares.get(what, 0.0) >= (MUCH if last else SOME) * sum(shares.values()) > 0, verdict
    return told[-2:]


def blame_core(what: str, tx: Side, rx: Side) -> None:
    """Cores were waited for most, and of the two this one; in the middle of it less will do, as in `blame`."""
    told = dumps(tx, rx) + ends(tx, rx)
    for number, verdict in enumerate(told):
        cores = {name: verdict.shares.get(name, 0.0) for name in CORES}
        assert max(cores, key=lambda name: cores[name]) == what, verdict
        assert sum(cores.values()) >= (MUCH if number >= len(told) - 2 else SOME), verdict
