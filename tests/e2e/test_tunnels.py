"""Two ssh tunnels, a port each: not up yet, up before rx is, killed and restarted, up with nobody behind them."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.helpers import MIB, Side, Stage, read_all, read_exactly, some_bytes
from tests.e2e.ssh import Sshd, Tunnel, free_port, missing

MISSING = missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(MISSING != "", reason=MISSING)]

ADDRESSES = 2
WATCHED_S = 3
IDLE_SHARE = 0.2  # of a core, at most, for a process that only waits: a busy loop takes all of it
ATTEMPTS_MOST = 8  # of a leg at an address within that time: the back-off is 50 ms at first, doubles, and is jittered
FAILED_ATTEMPT = r"(refused|closed before it answered|reset by peer)"


@pytest.fixture
def tunnels(stage: Stage, tmp_path: Path) -> Iterator[tuple[Tunnel, Tunnel]]:
    """Two of them, which are not up."""
    tmp_path.chmod(0o700)
    with Sshd(tmp_path) as sshd:
        pair = sshd.tunnel(), sshd.tunnel()
        yield pair
        for tunnel in pair:
            tunnel.close()


def tx_through(stage: Stage, tunnels: tuple[Tunnel, Tunnel], *words: object) -> Side:
    """A tx that knows rx by the tunnels only."""
    a, b = tunnels
    return stage.tx_words("tx", "localhost", a.port, "tx", "localhost", b.port, "verbose", 3, *words)


def processor_s(side: Side) -> float:
    """What it has used so far."""
    fields = Path(f"/proc/{side.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def waits_calmly(threads: int, tx: Side, rx: Side | None = None) -> None:
    """For a while neither side uses much of a processor, and tx with so many legs does not dial all the time."""
    sides = [tx] if rx is None else [tx, rx]
    before, attempts = [processor_s(side) for side in sides], len(re.findall(FAILED_ATTEMPT, tx.said))
    time.sleep(WATCHED_S)
    for side, used_s in zip(sides, before, strict=True):
        assert processor_s(side) - used_s <= IDLE_SHARE * WATCHED_S, side.role
    attempts = len(re.findall(FAILED_ATTEMPT, tx.said)) - attempts
    assert 1 <= attempts <= ATTEMPTS_MOST * threads * ADDRESSES, "it tries, but not all the time"


def test_tunnels_that_are_up_before_rx_is(stage: Stage, tunnels: tuple[Tunnel, Tunnel]) -> None:
    """They accept, find nobody, and close: that is as if nobody had answered."""
    port = int(stage.hold(free_port()).getsockname()[1])
    for tunnel in tunnels:
        tunnel.up(port)
    tx = tx_through(stage, tunnels, "threads", 8)
    tx.feed([data := some_bytes(4 * MIB)])
    tx.hear(FAILED_ATTEMPT, times=2)
    waits_calmly(8, tx)
    rx = stage.rx(port=port)
    assert read_all(rx.output) == data
    tx.ends(0)
    rx.ends(0)


def test_tunnels_that_come_after_tx(stage: Stage, tunnels: tuple[Tunnel, Tunnel]) -> None:
    rx = stage.rx()
    tx = tx_through(stage, tunnels, "threads", 4)
    tx.feed([data := some_bytes(4 * MIB)])
    tx.hear("refused", times=2)
    for tunnel in tunnels:
        tunnel.up(rx.port)
    assert read_all(rx.output) == data
    tx.ends(0)
    rx.ends(0)


@pytest.mark.parametrize("which", ["one", "both"])
def test_tunnels_killed_and_restarted_in_the_middle(stage: Stage, tunnels: tuple[Tunnel, Tunnel], which: str) -> None:
    rx = stage.rx("regroup", "60s")
    for tunnel in tunnels:
        tunnel.up(rx.port)
    tx = tx_through(stage, tunnels, "threads", 4, "regroup", "60s")
    data, third = some_bytes(48 * MIB), 16 * MIB
    tx.feed([data])
    assert read_exactly(rx.output, third) == data[:third]
    killed = tunnels[: 1 if which == "one" else 2]
    for tunnel in killed:
        tunnel.down()
    tx.hear("refused")
    if which == "one":  # the other one carries on
        assert read_exactly(rx.output, third) == data[third : 2 * third]
    else:
        waits_calmly(4, tx, rx)
    ups = len(re.findall(r": up$", tx.said, re.MULTILINE))
    for tunnel in killed:
        tunnel.up(rx.port)
    tx.hear(r": up$", times=ups + 1)
    assert read_all(rx.output) == data[2 * third if which == "one" else third :]
    tx.ends(0)
    rx.ends(0)


def test_tunnels_that_accept_and_close_for_a_while(stage: Stage, tunnels: tuple[Tunnel, Tunnel]) -> None:
    """In the middle of a stream: what they lead to is gone, and they are still there."""
    rx = stage.rx("regroup", "60s")
    nobody = int(stage.hold(free_port()).getsockname()[1])
    for tunnel in tunnels:
        tunnel.up(rx.port)
    tx = tx_through(stage, tunnels, "threads", 8, "regroup", "60s")
    data = some_bytes(32 * MIB)
    tx.feed([data])
    assert read_exactly(rx.output, 8 * MIB) == data[: 8 * MIB]
    seen = len(re.findall(FAILED_ATTEMPT, tx.said))
    for target in (nobody, rx.port):
        for tunnel in tunnels:
            tunnel.down()
            tunnel.up(target)
        if target == nobody:
            tx.hear(FAILED_ATTEMPT, times=seen + 8)
            waits_calmly(8, tx, rx)
    assert read_all(rx.output) == data[8 * MIB :]
    tx.ends(0)
    rx.ends(0)
    assert tx.closing("restarts?") > 0, "its legs were lost and came back"
