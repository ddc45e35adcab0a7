"""Where the time goes: each part of the way is made the bottleneck; both sides must say so, in words and in JSON."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.commands import python, sh
from tests.e2e.helpers import KIB, LOOPBACK, MIB, Side, Stage, read_some
from tests.e2e.throttle import Throttle

MB = 1_000_000
JSON = ("json", "interval", "200ms")
LASTS_S = 2.5  # a source
LATER = r'"type":"progress".*"elapsed_seconds":(1\.[2-9]|[2-9]|[1-9]\d)'  # by then it must be clear
MUCH_LATER = r'"type":"progress".*"elapsed_seconds":([3-9]|[1-9]\d)'
CONTACT = '"type":"progress".*"contacted":true'
MUCH = 0.5  # of the time
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
        found.append(verdict)
    return found


def blame(what: str, tx: Side, rx: Side, dump: bool = True) -> list[Verdict]:
    """Both sides must say that this was it, in the middle and at the end; their verdicts at the end.

    Where others keep the machine busy a core is waited for as well, rightly. Of the other time it must be most.
    """
    told = (dumps(tx, rx) if dump else []) + ends(tx, rx)
    for number, verdict in enumerate(told):
        shares = {name: share for name, share in verdict.shares.items() if name not in CORES}
        last = number >= len(told) - 2
        assert shares and max(shares, key=shares.__getitem__) == what, verdict
        assert shares[what] >= (MUCH if last else 0.4) * sum(shares.values()), verdict
    return told[-2:]


def blame_core(what: str, *told: Verdict) -> None:
    """Cores were waited for most, and of the two this one."""
    for verdict in told:
        cores = {name: verdict.shares.get(name, 0.0) for name in CORES}
        assert verdict.worst == what and sum(cores.values()) >= MUCH, verdict


# ---- the source ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [20 * KIB, 400 * KIB], ids=["steady", "bursts"])
def test_a_slow_source(stage: Stage, piece: int) -> None:
    rx = stage.rx(*JSON)
    tx = stage.tx(rx, *JSON)
    read(stage, rx.output)
    tx.feed(paced(1 * MB, piece=piece))
    blame("the source", tx, rx)


def test_a_slow_source_that_is_a_command(stage: Stage) -> None:
    rx = stage.rx(*JSON)
    slow = "import os, time\nfor _ in range(14): os.write(1, bytes(100_000)); time.sleep(0.2)"
    tx = stage.tx(rx, *JSON, *python(slow), stdin=subprocess.DEVNULL)
    read(stage, rx.output)
    blame("the source", tx, rx)


def test_a_source_slower_than_a_slow_network(stage: Stage) -> None:
    """What it gives is soon sent; while it is, that is not the network's fault."""
    rx = stage.rx(*JSON)
    tx = stage.tx(throttle(stage, rx, rate=2 * MB), *JSON, "threads", 2)
    read(stage, rx.output)
    tx.feed(paced(0.5 * MB))
    blame("the source", tx, rx)


def test_a_source_slower_than_the_limit(stage: Stage) -> None:
    rx = stage.rx(*JSON)
    tx = stage.tx(rx, *JSON, "limit", "1M")
    read(stage, rx.output)
    tx.feed(paced(0.5 * MB))
    blame("the source", tx, rx)


# ---- the sink ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [4 * KIB, MIB], ids=["fine", "coarse"])
def test_a_slow_reader_of_a_pipe(stage: Stage, piece: int) -> None:
    rx = stage.rx(*JSON)
    tx = stage.tx(rx, *JSON, "window", "256k")
    read(stage, rx.output, 2 * MB, piece)
    tx.feed(fast())
    blame("the sink", tx, rx)


def test_a_slow_command(stage: Stage) -> None:
    slow = "import os, time\nwhile os.read(0, 200_000): time.sleep(0.1)"
    rx = stage.rx(*JSON, *python(slow), stdout=subprocess.DEVNULL)
    tx = stage.tx(rx, *JSON, "window", "256k")
    tx.feed(fast())
    blame("the sink", tx, rx)


def test_a_slow_device(stage: Stage) -> None:
    """What is no pipe is written by a thread, which waits."""
    master, slave = pty.openpty()
    stage.exit.callback(os.close, master)
    tty.setraw(slave)
    rx = stage.rx(*JSON, "force", stdout=slave)
    os.close(slave)
    tx = stage.tx(rx, *JSON, "window", "64k")
    read(stage, master, 0.5 * MB, 4 * KIB)
    tx.feed(fast())
    blame("the sink", tx, rx)


def test_a_command_that_has_much_to_do_in_the_end(stage: Stage) -> None:
    rx = stage.rx(*JSON, *sh("cat >/dev/null; sleep 2.5"), stdout=subprocess.DEVNULL)
    tx = stage.tx(rx, *JSON)
    tx.feed([bytes(MIB)])
    blame("the sink", tx, rx, dump=False)


# ---- the network ---------------------------------------------------------------------------------------------


def test_a_slow_network(stage: Stage) -> None:
    rx = stage.rx(*JSON)
    network = throttle(stage, rx, rate=1 * MB, line=1 * MB)
    tx = stage.tx(network, *JSON, "window", "256k")
    read(stage, rx.output)
    tx.feed(fast())
    ours, theirs = blame("the network", tx, rx)
    assert (ours.path, theirs.path) == (f"{LOOPBACK}:{network.port}", LOOPBACK)


def test_a_long_way_with_a_small_window(stage: Stage) -> None:
    """The legs are idle nearly all the time: what is waited for is on its way."""
    rx = stage.rx(*JSON)
    network = throttle(stage, rx, rate=100 * MB, delay_s=0.1)
    tx = stage.tx(network, *JSON, "window", "128k")
    read(stage, rx.output)
    tx.feed(fast())
    ours, _ = blame("the network", tx, rx)
    assert ours.path == f"{LOOPBACK}:{network.port}"


def test_an_outage(stage: Stage) -> None:
    rx = stage.rx(*JSON)
    proxy = stage.proxy(rx)
    tx = stage.tx(proxy, *JSON, "window", "64k")
    read(stage, rx.output)
    tx.feed(paced(0.5 * MB, 4))
    tx.hear(CONTACT)
    proxy.cut()
    time.sleep(2.5)
    proxy.mend()
    blame("the network", tx, rx, dump=False)


@pytest.mark.parametrize(
    ("slow", "other", "window", "named"),
    [
        ({"rate": 100 * MB, "delay_s": 0.1}, {"rate": 100 * MB}, "128k", [0]),
        ({"rate": 1 * MB, "line": 1 * MB}, {"rate": 0.5 * MB, "line": 0.5 * MB}, "1M", [0, 1]),
        ({"rate": 1 * MB, "line": 1 * MB}, None, "256k", [0]),
    ],
    ids=["the preferred one is far away", "both are full", "one does not work"],
)
def test_which_of_two_paths(
    stage: Stage, slow: dict[str, Any], other: dict[str, Any] | None, window: str, named: list[int]
) -> None:
    rx = stage.rx(*JSON)
    ports = [throttle(stage, rx, **slow).port, throttle(stage, rx, **other).port if other else 1]
    tx = stage.tx_words("tx", LOOPBACK, ports[0], "tx", LOOPBACK, ports[1], *JSON, "window", window, "threads", 2)
    read(stage, rx.output)
    tx.feed(fast())
    ours, _ = blame("the network", tx, rx)
    assert ours.path == " and ".join(sorted(f"{LOOPBACK}:{ports[rank]}" for rank in named))


def test_a_second_path_that_has_room_left(stage: Stage) -> None:
    """What the first cannot take the second does, and the source is not held up."""
    rx = stage.rx(*JSON)
    ports = [throttle(stage, rx, rate=rate, line=rate).port for rate in (0.3 * MB, 20 * MB)]
    tx = stage.tx_words("tx", LOOPBACK, ports[0], "tx", LOOPBACK, ports[1], *JSON, "threads", 2)
    read(stage, rx.output)
    tx.feed(paced(1 * MB, 3))
    blame("the source", tx, rx)


# ---- a core, the limit -----------------------------------------------------------------------------------------


def test_what_costs_a_core_of_tx(stage: Stage) -> None:
    """Tiny frames cost the side that cuts them most."""
    rx = stage.rx(*JSON, *sh("cat >/dev/null"), stdout=subprocess.DEVNULL)
    tx = stage.tx(rx, *JSON, "frame", "1k", *zeros(), stdin=subprocess.DEVNULL)
    blame_core("a core of tx", *dumps(tx, rx), *ends(tx, rx))


def test_what_costs_both_cores(stage: Stage) -> None:
    """A digest that is slow is taken in a thread; who waits for that waits for a core."""
    rx = stage.rx(*JSON, *sh("cat >/dev/null"), stdout=subprocess.DEVNULL)
    tx = stage.tx(rx, *JSON, "digest", "sha256", *zeros(), stdin=subprocess.DEVNULL)
    for verdict in dumps(tx, rx) + ends(tx, rx):
        assert sum(verdict.shares.get(name, 0) for name in CORES) >= MUCH, verdict


@pytest.mark.parametrize("role", ["tx", "rx"])
def test_a_core_that_others_hold(stage: Stage, role: str) -> None:
    """It has not too much to do, and cannot do that: what it lacks is a core."""
    rx = stage.rx(*JSON)
    tx = stage.tx(rx, *JSON, "frame", "1k", "window", "256k")
    read(stage, rx.output)
    tx.feed(paced(3 * MB, 4))
    tx.hear(CONTACT)
    with starved({"tx": tx, "rx": rx}[role]):
        time.sleep(3)
    for verdict in ends(tx, rx):
        cores = {name: verdict.shares.get(name, 0.0) for name in CORES}
        assert max(cores, key=cores.__getitem__) == f"a core of {role}" and sum(cores.values()) >= 0.3, verdict


def test_the_limit(stage: Stage) -> None:
    rx = stage.rx(*JSON)
    tx = stage.tx(rx, *JSON, "limit", "1M")
    read(stage, rx.output)
    tx.feed(fast())
    blame("the limit that was set", tx, rx)


def test_the_limit_of_a_path(stage: Stage) -> None:
    rx = stage.rx(*JSON)
    tx = stage.tx_words("tx", LOOPBACK, rx.port, "limit", "1M", *JSON)
    read(stage, rx.output)
    tx.feed(fast())
    blame("the limit that was set", tx, rx)


# ---- several ---------------------------------------------------------------------------------------------------


def in_turn(*sources: Iterator[bytes]) -> Iterator[bytes]:
    """One behind the other."""
    for source in sources:
        yield from source


def test_half_the_time_the_source_and_half_the_sink(stage: Stage) -> None:
    rx = stage.rx(*JSON)
    tx = stage.tx(rx, *JSON, "window", "64k")
    read(stage, rx.output, 2 * MB, 64 * KIB)
    tx.feed(in_turn(paced(0.2 * MB, 2.0), fast(1.5)))
    for verdict in ends(tx, rx):
        assert 0.25 <= verdict.shares["the source"] <= 0.75, verdict
        assert 0.2 <= verdict.shares["the sink"] <= 0.75, verdict


def test_as_fast_as_the_machine_can(stage: Stage) -> None:
    """Nothing is slow but the machine itself; loopback is no network that anybody could mend."""
    rx = stage.rx(*JSON, *sh("cat >/dev/null"), stdout=subprocess.DEVNULL)
    tx = stage.tx(rx, *JSON, *zeros(), stdin=subprocess.DEVNULL)
    for verdict in ends(tx, rx):
        assert verdict.worst != "the network" and verdict.shares.get("the network", 0) < MUCH, verdict
        assert "the limit that was set" not in verdict.shares


def test_time_in_which_we_were_stopped_is_nobodys(stage: Stage) -> None:
    """Ctrl-Z on tx's terminal is neither the source's fault, which waits as well, nor the network's."""
    rx = stage.rx(*JSON)
    tx = stage.tx(throttle(stage, rx, rate=1 * MB, line=1 * MB), *JSON, "window", "64k")
    read(stage, rx.output)
    tx.feed(in_turn(paced(0.2 * MB, 1.5), fast(0.5)))
    tx.hear(r'"type":"progress".*"elapsed_seconds":(1\.[7-9]|[2-9])')  # the network is waited for now
    tx.signal(signal.SIGSTOP)
    time.sleep(2.5)
    tx.signal(signal.SIGCONT)
    ours = ends(tx, rx)[0]
    assert ours.shares["the source"] >= 0.3, "1.5 s of 3.3; the 2.5 s would make it 1.5 of 5.8"


def test_too_short_to_tell(stage: Stage) -> None:
    rx, tx = (side := stage.rx()), stage.tx(side)
    tx.feed([b"short"])
    read(stage, rx.output)
    for each in (tx, rx):
        assert "bottleneck" not in each.ends(0)


def test_the_closing_lines_in_words(stage: Stage) -> None:
    """What a person sees: the verdict has a line of its own, behind all the figures."""
    rx = stage.rx()
    tx = stage.tx(rx, "limit", "300k")
    read(stage, rx.output)
    tx.feed([bytes(400_000)])
    for side in (tx, rx):
        *_, closing, verdict = side.ends(0).splitlines()
        assert closing.startswith(f"viamillipede {side.role}: 390.6 KiB (400000 bytes) in ")
        assert re.fullmatch(
            rf"viamillipede {side.role}: bottleneck: the limit that was set, \d+ % of the time(; .*)?", verdict
        )
