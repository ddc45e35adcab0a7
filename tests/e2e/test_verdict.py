"""Where the time goes: each part of the way is made the bottleneck; both sides must say so, in words and in JSON."""

import os
import pty
import re
import signal
import subprocess
import time
import tty
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.commands import python, sh
from tests.e2e.helpers import KIB, LOOPBACK, MIB, Stage
from tests.e2e.verdict import (
    CORES,
    JSON,
    MB,
    MUCH,
    blame,
    blame_core,
    dumps,
    ends,
    fast,
    feed,
    paced,
    read,
    starved,
    throttle,
    zeros,
)

# ---- the source ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [20 * KIB, 400 * KIB], ids=["steady", "bursts"])
def test_a_slow_source(stage: Stage, piece: int) -> None:
    rx = stage.rx(*JSON)
    tx = stage.tx(rx, *JSON)
    read(stage, rx.output)
    feed(tx, paced(1 * MB, piece=piece))
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
    feed(tx, paced(0.5 * MB))
    blame("the source", tx, rx)


def test_a_source_slower_than_the_limit(stage: Stage) -> None:
    rx = stage.rx(*JSON)
    tx = stage.tx(rx, *JSON, "limit", "1M")
    read(stage, rx.output)
    feed(tx, paced(0.5 * MB))
    blame("the source", tx, rx)


# ---- the sink ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [4 * KIB, MIB], ids=["fine", "coarse"])
def test_a_slow_reader_of_a_pipe(stage: Stage, piece: int) -> None:
    rx = stage.rx(*JSON)
    tx = stage.tx(rx, *JSON, "window", "256k")
    read(stage, rx.output, 2 * MB, piece)
    feed(tx, fast())
    blame("the sink", tx, rx)


def test_a_slow_command(stage: Stage) -> None:
    slow = "import os, time\nwhile os.read(0, 200_000): time.sleep(0.1)"
    rx = stage.rx(*JSON, *python(slow), stdout=subprocess.DEVNULL)
    tx = stage.tx(rx, *JSON, "window", "256k")
    feed(tx, fast())
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
    feed(tx, fast())
    blame("the sink", tx, rx)


def test_a_command_that_has_much_to_do_in_the_end(stage: Stage) -> None:
    rx = stage.rx(*JSON, *sh("cat >/dev/null; sleep 2.5"), stdout=subprocess.DEVNULL)
    tx = stage.tx(rx, *JSON)
    feed(tx, [bytes(MIB)])
    blame("the sink", tx, rx, dump=False)


# ---- the network ---------------------------------------------------------------------------------------------


def test_a_slow_network(stage: Stage) -> None:
    rx = stage.rx(*JSON)
    network = throttle(stage, rx, rate=1 * MB, line=1 * MB)
    tx = stage.tx(network, *JSON, "window", "256k")
    read(stage, rx.output)
    feed(tx, fast())
    ours, theirs = blame("the network", tx, rx)
    assert (ours.path, theirs.path) == (f"{LOOPBACK}:{network.port}", LOOPBACK)


def test_a_long_way_with_a_small_window(stage: Stage) -> None:
    """The legs are idle nearly all the time: what is waited for is on its way."""
    rx = stage.rx(*JSON)
    network = throttle(stage, rx, rate=100 * MB, delay_s=0.1)
    tx = stage.tx(network, *JSON, "window", "128k")
    read(stage, rx.output)
    feed(tx, fast())
    ours, _ = blame("the network", tx, rx)
    assert ours.path == f"{LOOPBACK}:{network.port}"


def test_an_outage(stage: Stage) -> None:
    rx = stage.rx(*JSON)
    proxy = stage.proxy(rx)
    tx = stage.tx(proxy, *JSON, "window", "64k")
    read(stage, rx.output)
    feed(tx, paced(0.5 * MB, 4))
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
    feed(tx, fast())
    ours, _ = blame("the network", tx, rx)
    assert ours.path == " and ".join(sorted(f"{LOOPBACK}:{ports[rank]}" for rank in named))


def test_a_second_path_that_has_room_left(stage: Stage) -> None:
    """What the first cannot take the second does, and the source is not held up."""
    rx = stage.rx(*JSON)
    ports = [throttle(stage, rx, rate=rate, line=rate).port for rate in (0.3 * MB, 20 * MB)]
    tx = stage.tx_words("tx", LOOPBACK, ports[0], "tx", LOOPBACK, ports[1], *JSON, "threads", 2)
    read(stage, rx.output)
    feed(tx, paced(1 * MB, 3))
    blame("the source", tx, rx)


# ---- a core, the limit -----------------------------------------------------------------------------------------


def test_what_costs_a_core_of_tx(stage: Stage) -> None:
    """Tiny frames cost the side that cuts them most."""
    rx = stage.rx(*JSON, *sh("cat >/dev/null"), stdout=subprocess.DEVNULL)
    tx = stage.tx(rx, *JSON, "frame", "1k", *zeros(), stdin=subprocess.DEVNULL)
    blame_core("a core of tx", tx, rx)


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
    feed(tx, paced(3 * MB, 4))
    with starved({"tx": tx, "rx": rx}[role]):
        time.sleep(3)
    for verdict in ends(tx, rx):
        (other,) = {"tx", "rx"} - {role}
        ours, theirs = (verdict.shares.get(f"a core of {each}", 0.0) for each in (role, other))
        assert ours >= 0.2 * (1 - theirs), verdict


def test_the_limit(stage: Stage) -> None:
    rx = stage.rx(*JSON)
    tx = stage.tx(rx, *JSON, "limit", "1M")
    read(stage, rx.output)
    feed(tx, fast())
    blame("the limit that was set", tx, rx)


def test_the_limit_of_a_path(stage: Stage) -> None:
    rx = stage.rx(*JSON)
    tx = stage.tx_words("tx", LOOPBACK, rx.port, "limit", "1M", *JSON)
    read(stage, rx.output)
    feed(tx, fast())
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
    feed(tx, in_turn(paced(0.2 * MB, 2.0), fast(1.5)))
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
    feed(tx, in_turn(paced(0.2 * MB, 1.5), fast(0.5)))
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
