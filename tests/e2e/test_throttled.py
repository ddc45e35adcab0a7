"""A network that caps each connection: many legs fill its line, slow ones do not hold up the end, memory is bounded."""

import time

import pytest

from tests.e2e.helpers import KIB, MIB, Stage, read_all, read_exactly, some_bytes
from tests.e2e.throttle import Throttle

MEMORY_BYTES = 100 * MIB
RAMP = 16  # connections to an address that may be under way at a time


@pytest.mark.slow
def test_200_legs_over_a_line_that_caps_each_of_them(stage: Stage) -> None:
    """30 kB/s each on a line of 4 MB/s, shortened to the seconds that a test may take."""
    rx = stage.rx()
    throttle = stage.exit.enter_context(Throttle(target=rx.port, rate=30_000, line=4_000_000, delay_s=0.02))
    tx = stage.tx(throttle, "threads", 200)
    data = some_bytes(12 * MIB)
    tx.feed([data], then_close=False)  # for as long as the memory is looked at
    assert read_exactly(rx.output, len(data)) == data
    for side in (tx, rx):
        assert side.peak_memory() <= MEMORY_BYTES, side.role
    tx.end_input()
    assert read_all(rx.output) == b""
    tx.ends(0)
    rx.ends(0)
    seen = throttle.end()
    assert len(seen.passed) >= 200 == tx.closing("legs?"), "one leg, one connection"
    assert sum(seen.passed) >= len(data)


@pytest.mark.slow
def test_slow_legs_do_not_hold_up_the_end(stage: Stage) -> None:
    """One leg in ten runs at a tenth of the others' speed: what it holds at the end comes by others.

    A frame of 16 KiB takes it 16 s, the whole stream with all the legs 4 s. Who waits for it is late by 12 s at least.
    """
    legs, rate, slow_rate, frame, ideal_s = 100, 10_000, 1_000, 16 * KIB, 4
    alone_s = frame / slow_rate
    rx = stage.rx()
    throttle = stage.exit.enter_context(
        Throttle(target=rx.port, rate=rate, slow_every=10, slow_rate=slow_rate, delay_s=0.01)
    )
    tx = stage.tx(throttle, "threads", legs, "frame", frame, "verbose", 3)
    tx.hear(r": up$", times=legs)
    data = some_bytes(ideal_s * (legs * 9 // 10 * rate + legs // 10 * slow_rate))
    began = time.monotonic()
    tx.feed([data])
    assert read_all(rx.output) == data
    took_s = time.monotonic() - began
    tx.ends(0)
    rx.ends(0)
    assert took_s - ideal_s < (alone_s - ideal_s) / 2, "it waited for a slow leg"
    assert min(throttle.end().passed[9:legs:10]) > 1_000, "which had something to bring"


@pytest.mark.slow
def test_new_connections_are_ramped(stage: Stage) -> None:
    """200 are wanted; a round trip is 50 ms, and so is the time within which only so many may come."""
    rx = stage.rx()
    throttle = stage.exit.enter_context(Throttle(target=rx.port, rate=1e6, delay_s=0.025))
    tx = stage.tx(throttle, "threads", 200, "verbose", 3)
    tx.hear(r": up$", times=200)
    tx.write(b"all are here")
    tx.end_input()
    assert read_all(rx.output) == b"all are here"
    tx.ends(0)
    rx.ends(0)
    seen = throttle.end()
    assert len(seen.accepted_s) >= 200
    assert seen.most_within(0.05) <= 4 * RAMP
