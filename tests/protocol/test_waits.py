"""Where the time goes: each moment is booked once, to whom it belongs, and the verdict names the worst."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.drive import HOSTS, Sender
from viamillipede.config import KIB, MS_US, S_US, TICK_US, TxConfig
from viamillipede.protocol.control import ControlDecoder
from viamillipede.protocol.scheduler import Scheduler
from viamillipede.protocol.send_window import SendWindow
from viamillipede.protocol.waits import (
    CLEAR,
    CORE_BUSY,
    KNOWN_US,
    NAMES,
    UNSETTLED_US,
    Wait,
    Waits,
    tx_waits_for,
    verdict,
)
from viamillipede.protocol.wire import FROM_TX, decode_waits, encode_waits

BEGUN_US = 7 * S_US
IDLE = 0.1  # of a core


def booked(waits: Waits) -> dict[Wait, int]:
    """What is not 0."""
    return {wait: waits.booked_us[wait] for wait in Wait if waits.booked_us[wait]}


def ticks(waits: Waits, count: int, *, share: float = IDLE, sink_us: int = 0, core_us: int = 0) -> None:
    """So many ticks, in each of which the other side says the same of itself."""
    for _ in range(count):
        now_us = BEGUN_US + waits.total_us + TICK_US
        waits.on_tick(share, now_us, sink_us, core_us)


# Booking --------------------------------------------------------------------------------------------------


def test_nothing_counts_before_the_first_state() -> None:
    waits = Waits(Wait.TX_CORE)
    waits.on_tick(IDLE, BEGUN_US, TICK_US)
    assert (booked(waits), waits.total_us, waits.shares()) == ({}, 0, [0] * len(Wait))


def test_each_state_lasts_until_the_next() -> None:
    waits = Waits(Wait.TX_CORE)
    for at_us, state in [(0, Wait.SOURCE), (30, Wait.LIMIT), (35, Wait.LIMIT), (50, None), (60, Wait.SOURCE)]:
        waits.on_state(state, BEGUN_US + at_us)
    waits.on_tick(IDLE, BEGUN_US + 100)
    assert (booked(waits), waits.total_us) == ({Wait.SOURCE: 30 + 40, Wait.LIMIT: 20}, 100)
    assert waits.shares()[Wait.SOURCE] == 0.7 and waits.shares()[Wait.LIMIT] == 0.2
    waits.on_tick(IDLE, BEGUN_US + 150)  # the last state goes on
    assert (booked(waits), waits.total_us) == ({Wait.SOURCE: 30 + 40 + 50, Wait.LIMIT: 20}, 150)


def test_the_clock_may_begin_with_nothing_that_counts() -> None:
    waits = Waits(Wait.RX_CORE)
    waits.on_state(None, BEGUN_US)
    waits.on_tick(IDLE, BEGUN_US + 100)
    assert (booked(waits), waits.total_us) == ({}, 100)


def test_a_time_in_which_we_were_stopped_is_nobodys() -> None:
    waits = Waits(Wait.TX_CORE)
    waits.skip(BEGUN_US)  # nothing has begun
    waits.on_state(Wait.NETWORK, BEGUN_US + 100)
    waits.on_tick(IDLE, BEGUN_US + 150)
    waits.on_state(Wait.SOURCE, BEGUN_US + 160)
    waits.skip(BEGUN_US + 60 * S_US)
    waits.on_tick(IDLE, BEGUN_US + 60 * S_US + 30)  # the state is as it was
    assert (booked(waits), waits.total_us) == ({Wait.NETWORK: 50, Wait.SOURCE: 30}, 80)


@pytest.mark.parametrize("core", [Wait.TX_CORE, Wait.RX_CORE])
@pytest.mark.parametrize(("share", "busy"), [(CORE_BUSY - 0.01, False), (CORE_BUSY, True), (1.0, True)])
def test_a_busy_process_waits_for_its_core_whatever_it_seems_to_wait_for(core: Wait, share: float, busy: bool) -> None:
    waits = Waits(core)
    waits.on_state(Wait.NETWORK, BEGUN_US)
    waits.on_state(Wait.SOURCE, BEGUN_US + 40)
    waits.on_tick(share, BEGUN_US + 100, sink_us=30)
    assert booked(waits) == ({core: 100} if busy else {Wait.NETWORK: 10, Wait.SOURCE: 60, Wait.SINK: 30})
    waits.on_tick(IDLE, BEGUN_US + 200)  # only that tick
    assert waits.booked_us[Wait.SOURCE] == (100 if busy else 160)


# What the other side says ---------------------------------------------------------------------------------


def test_the_network_is_not_blamed_for_the_other_sides_output_and_core() -> None:
    waits = Waits(Wait.TX_CORE)
    waits.on_state(Wait.NETWORK, BEGUN_US)
    ticks(waits, 10, sink_us=60 * MS_US, core_us=10 * MS_US)
    assert booked(waits) == {Wait.NETWORK: 300 * MS_US, Wait.SINK: 600 * MS_US, Wait.RX_CORE: 100 * MS_US}


@pytest.mark.parametrize("late", range(2, UNSETTLED_US // TICK_US + 1))
def test_its_word_may_come_later(late: int) -> None:
    waits = Waits(Wait.TX_CORE)
    waits.on_state(Wait.NETWORK, BEGUN_US)
    for _ in range(3):
        ticks(waits, late - 1)
        ticks(waits, 1, sink_us=late * TICK_US)
    assert booked(waits) == {Wait.SINK: 3 * late * TICK_US}


def test_but_not_for_ever_and_it_moves_nothing_else() -> None:
    waits = Waits(Wait.TX_CORE)
    waits.on_state(Wait.NETWORK, BEGUN_US)
    ticks(waits, 20, sink_us=0)
    waits.on_state(Wait.SOURCE, BEGUN_US + waits.total_us)
    ticks(waits, 1, sink_us=50 * S_US, core_us=50 * S_US)
    left_us = 20 * TICK_US - UNSETTLED_US
    assert booked(waits) == {Wait.SOURCE: TICK_US, Wait.NETWORK: left_us, Wait.SINK: UNSETTLED_US}
    ticks(waits, 1, core_us=50 * S_US)
    assert waits.booked_us[Wait.RX_CORE] == 0


@given(
    st.lists(
        st.tuples(
            st.none() | st.sampled_from(Wait), st.integers(0, 200 * MS_US), st.booleans(), st.floats(0, 1),
            st.integers(0, 2 * S_US), st.integers(0, 2 * S_US),
        )
    )
)  # fmt: skip
def test_no_moment_is_booked_twice(steps: list[tuple[Wait | None, int, bool, float, int, int]]) -> None:
    waits, now_us = Waits(Wait.TX_CORE), BEGUN_US
    for state, later_us, tick, share, sink_us, core_us in steps:
        waits.on_state(state, now_us)
        now_us += later_us
        if tick:
            waits.on_tick(share, now_us, sink_us, core_us)
            assert waits.total_us == now_us - BEGUN_US
        assert min(waits.booked_us) >= 0 and sum(waits.booked_us) <= waits.total_us
        assert sum(waits.shares()) <= 1.000001
    _, payload = ControlDecoder(FROM_TX).feed_untrusted(encode_waits(waits.booked_us))[0]
    assert decode_waits(payload) == tuple(waits.booked_us[wait] for wait in Wait)


# What tx waits for ----------------------------------------------------------------------------------------


def test_what_tx_waits_for() -> None:
    config = TxConfig(addresses=HOSTS, threads=2, window_bytes=64 * KIB, frame_bytes=16 * KIB)
    sender = Sender(config)

    def waits_for() -> Wait:
        return tx_waits_for(sender.tx.scheduler, sender.tx.window, 0)

    assert waits_for() is Wait.NETWORK  # no leg
    sender.up(0)
    assert waits_for() is Wait.SOURCE
    sender.input(bytes(5))
    assert sender.tx.next_assignment(0) is not None
    assert waits_for() is Wait.NETWORK  # its leg is busy
    sender.tx.on_idle(0)
    assert waits_for() is Wait.SOURCE
    sender.fill()
    assert waits_for() is Wait.NETWORK  # the window is full
    sender.ack(0, 1, 5)
    assert waits_for() is Wait.SOURCE
    sender.tx.window.on_input_end()
    sender.sent()
    assert waits_for() is Wait.NETWORK  # all was sent


def test_a_limit_is_not_the_network() -> None:
    scheduler, window = Scheduler(HOSTS, limit_bytes=KIB), SendWindow(64 * KIB, KIB, False)
    scheduler.add(0, 0)
    scheduler.on_given(0, 100 * KIB, BEGUN_US)
    assert tx_waits_for(scheduler, window, BEGUN_US) is Wait.LIMIT
    scheduler.discard(0, 0)
    assert tx_waits_for(scheduler, window, BEGUN_US) is Wait.NETWORK
    scheduler.add(0, 0)
    assert tx_waits_for(scheduler, window, BEGUN_US + 1000 * S_US) is Wait.SOURCE


# The verdict ----------------------------------------------------------------------------------------------


def shares(**of: float) -> list[float]:
    """Parts of 1, by the names of Wait."""
    return [of.get(wait.name.lower(), 0.0) for wait in Wait]


@pytest.mark.parametrize("worst", Wait)
def test_the_verdict_names_the_worst(worst: Wait) -> None:
    for second in Wait:
        found = [0.004] * len(Wait)
        found[second], found[worst] = 0.05, 0.93
        path = "10.0.1.2:8834"
        where = f" ({path})" if worst is Wait.NETWORK else ""
        others = "" if second is worst else f"; {NAMES[second]} 5 %"
        assert verdict(found, S_US, path) == f"bottleneck: {NAMES[worst]}{where}, 93 % of the time{others}"


@pytest.mark.parametrize(
    ("found", "total_us", "path", "text"),
    [
        (shares(source=1), KNOWN_US - 1, "", ""),
        (shares(source=1), KNOWN_US, "", "bottleneck: the source, 100 % of the time"),
        (shares(source=CLEAR - 0.001, sink=0.09), S_US, "", "bottleneck: none in particular"),
        (shares(), S_US, "", "bottleneck: none in particular"),
        (shares(sink=CLEAR), S_US, "", "bottleneck: the sink, 10 % of the time"),
        (shares(network=0.5), S_US, "", "bottleneck: the network, 50 % of the time"),
        (shares(sink=0.5), S_US, "a:1", "bottleneck: the sink, 50 % of the time"),
        (
            shares(rx_core=0.6, limit=0.01, tx_core=0.3),
            S_US,
            "",
            "bottleneck: a core of rx, 60 % of the time; a core of tx 30 %; the limit that was set 1 %",
        ),
        (
            shares(network=0.7, source=0.0099),
            S_US,
            "[fe80::1%eth0]:1",
            "bottleneck: the network ([fe80::1%eth0]:1), 70 % of the time",
        ),
    ],
)
def test_the_verdict_in_words(found: list[float], total_us: int, path: str, text: str) -> None:
    assert verdict(found, total_us, path) == text


def test_every_order_gives_the_same_verdict_but_for_names() -> None:
    parts = (0.4, 0.3, 0.2, 0.05, 0.04, 0.01)
    for order in itertools.permutations(parts):
        text = verdict(list(order), S_US, "")
        named = [text.index(NAMES[wait]) for wait in sorted(Wait, key=lambda wait: -order[wait])]
        assert named == sorted(named) and text.startswith("bottleneck: ")


def test_each_wait_has_a_name_of_its_own() -> None:
    assert set(NAMES) == set(Wait) and len(set(NAMES.values())) == len(Wait) == 6
