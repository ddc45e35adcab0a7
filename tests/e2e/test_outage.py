"""No way through for a while: forgotten connections, all of them dropped without a word, a network that is gone."""

import re
import time

import pytest

from tests.e2e.helpers import MIB, PATIENCE_S, Side, Stage, eventually, read_all, read_exactly, some_bytes
from tests.e2e.proxy import Fault, Proxy

BACK_S = 5  # after the network is back the stream goes on within this time
NOTICED_S = 3  # a link that died without a word is noticed, and its frames moved, within this time
SLACK_S = 1  # for a machine that is busy with something else


def begin(stage: Stage, threads: int, *words: object) -> tuple[Side, Proxy, Side]:
    """rx, a proxy and tx with a stream that flows over all legs."""
    rx = stage.rx("verbose", 3, *words)
    proxy = stage.proxy(rx)
    tx = stage.tx(proxy, "threads", threads, "verbose", 3, *words)
    tx.write(b"before")
    assert read_exactly(rx.output, 6) == b"before"
    for side in (tx, rx):
        side.hear(r"leg \d+ .*: up$", times=threads)
    return rx, proxy, tx


def finish(rx: Side, tx: Side, rest: bytes = b"") -> None:
    """The stream ends, whole, with `rest`."""
    tx.end_input()
    assert read_all(rx.output) == rest
    tx.ends(0)
    rx.ends(0)


def arrives(rx: Side, data: bytes, within_s: float) -> None:
    """`data` is the next that comes out of rx, and in time."""
    began = time.monotonic()
    assert read_exactly(rx.output, len(data)) == data
    assert (took_s := time.monotonic() - began) < within_s, f"it took {took_s:.1f} s"


# ---- idle ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_idle_stream_is_not_forgotten(stage: Stage) -> None:
    """A firewall drops what was idle for 2 s: the legs are never idle for so long, so none is lost."""
    rx, proxy, tx = begin(stage, 3)
    proxy.forget_s = 2
    time.sleep(7)
    data = some_bytes(2 * MIB)
    tx.feed([data], then_close=False)
    arrives(rx, data, NOTICED_S)
    assert (proxy.forgotten, proxy.accepted) == (0, 3)
    finish(rx, tx)
    assert tx.closing("restarts?") == rx.closing("restarts?") == 0


@pytest.mark.slow
def test_an_idle_stream_comes_back_when_all_its_legs_are_forgotten(stage: Stage) -> None:
    """A firewall less patient than the heartbeats are frequent: each leg that is idle is dropped; nothing is lost."""
    rx, proxy, tx = begin(stage, 3)
    proxy.forget_s = 0.1
    eventually(lambda: proxy.forgotten >= 3, "all have been forgotten")
    for part in (b"one", b"two"):
        forgotten = proxy.forgotten
        tx.write(part)
        arrives(rx, part, NOTICED_S + BACK_S)
        eventually(lambda before=forgotten: proxy.forgotten > before, "and once more")  # type: ignore[misc]
    finish(rx, tx)
    assert proxy.accepted < 100, "a busy loop"


# ---- all at once ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_all_legs_are_dropped_without_a_word_and_new_ones_work(stage: Stage, busy: bool) -> None:
    rx, proxy, tx = begin(stage, 4)
    data = some_bytes(8 * MIB)
    if busy:  # some of it is in sockets and on its way when it happens
        tx.feed([data], then_close=False)
        assert read_exactly(rx.output, MIB) == data[:MIB]
    assert proxy.strike("deaf") == 4
    if not busy:
        tx.feed([data], then_close=False)
    arrives(rx, data[MIB:] if busy else data, NOTICED_S + SLACK_S)
    finish(rx, tx)
    assert tx.closing("restarts?") >= 1


# ---- nothing works -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("old", "for_s"), [("held", 4), ("dropped", 4), ("dropped", 8)])
def test_a_network_that_is_gone_for_a_while(stage: Stage, old: str, for_s: float) -> None:
    """Afterwards what was under way is repeated by the kernels, or not; connections begun meanwhile likewise."""
    rx, proxy, tx = begin(stage, 3)
    if old == "held":
        proxy.cut()
    else:
        proxy.plan = lambda number: Fault("deaf")
        proxy.strike("deaf")
    data = some_bytes(8 * MIB)
    tx.feed([data], then_close=False)
    time.sleep(for_s)
    accepted = proxy.accepted
    if old == "held":
        proxy.mend()
    else:
        proxy.plan = lambda number: None
    arrives(rx, data, BACK_S)
    finish(rx, tx)
    assert accepted < 3 + 3 * 10 * for_s, "a busy loop"


@pytest.mark.slow
def test_a_network_that_stays_gone_ends_both_sides(stage: Stage) -> None:
    rx, proxy, tx = begin(stage, 3, "outage", "3s")
    tx.write(b"after")
    assert read_exactly(rx.output, 5) == b"after"
    proxy.cut()
    assert re.search(r"^viamillipede tx: the network was down for too long; \d+ bytes", tx.ends(5), re.MULTILINE)
    said = rx.ends(5, PATIENCE_S)
    assert re.search(r"^viamillipede rx: the network was down for too long; .* byte 11$", said, re.MULTILINE)
