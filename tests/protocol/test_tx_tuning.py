"""The session and its tuners: what it tells them, how many legs are dialled and retired for them."""

import pytest

from tests.protocol.drive import HOSTS, Sender, message
from viamillipede.config import (
    FILL_US,
    KIB,
    LEG_DOUBTED_US,
    LEG_SILENT_US,
    MIB,
    MS_US,
    S_US,
    THREADS_AUTO,
    TICK_US,
    TxConfig,
)
from viamillipede.protocol.pacing import BURST_US
from viamillipede.protocol.send_window import Frame
from viamillipede.protocol.tuner import State, Tuner
from viamillipede.protocol.tx_session import RETIRED
from viamillipede.protocol.wire import HEADER_BYTES, Waiting

ONE = HOSTS[:1]


class Heard(Tuner):
    """A tuner that does as the test says, and remembers what it was told."""

    def __init__(self, legs: int) -> None:
        super().__init__(1, 0)
        self.legs = legs
        self.told: list[tuple[int, int, bool, int, int]] = []  # delivered, legs up, busy, round trip, queue

    def on_tick(self, delivered: int, up: int, busy: bool, rtt_us: int, queue_us: int, now_us: int) -> None:
        """See Tuner."""
        self.told.append((delivered, up, busy, rtt_us, queue_us))


def tuned(*legs: int) -> tuple[Sender, list[Heard]]:
    """A session with a path for each number; these legs are up, and idle."""
    config = TxConfig(addresses=HOSTS[: len(legs)], threads=THREADS_AUTO, window_bytes=64 * KIB, frame_bytes=KIB)
    sender = Sender(config)
    heard = [Heard(count) for count in legs]
    sender.tx.tuners[:] = heard
    sender.tx.dialling.targets[:] = legs
    dial(sender)
    return sender, heard


def dial(sender: Sender, now_us: int = 0) -> list[int]:
    """Every leg that is wanted now comes up; which they were."""
    up = []
    while (wanted := sender.tx.next_dial(now_us)) is not None:
        leg, rank = wanted
        sender.up(leg, now_us, rank=rank)
        sender.tx.dialling.on_over(leg)
        up.append(leg)
    return up


def give(sender: Sender, count: int, now_us: int = 0) -> list[tuple[int, Frame]]:
    """So many legs get a frame, and their sockets have not taken it yet."""
    sender.input(bytes(count * KIB), now_us)
    given: list[tuple[int, Frame]] = []
    while len(given) < count and (assignment := sender.tx.next_assignment(now_us)) is not None:
        given.append(assignment)
        sender.input(bytes((count - len(given)) * KIB), now_us)
    assert len(given) == count
    return given


def take(sender: Sender, given: list[tuple[int, Frame]], now_us: int) -> None:
    """Their sockets take it."""
    for leg, frame in given:
        sender.tx.on_progress(leg, len(message(sender, frame)), now_us)
        sender.tx.on_idle(leg)


def tick(sender: Sender, now_us: int) -> list[tuple[int, str]]:
    """Time passes."""
    replace = sender.tx.on_timer(now_us)
    sender.tx.check()
    return replace


# How many are wanted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("addresses", "threads", "targets"), [(1, 0, [8]), (2, 0, [4, 4]), (2, 5, [3, 2]), (2, 1, [1, 1])]
)
def test_auto_is_the_default_and_a_number_is_a_number(addresses: int, threads: int, targets: list[int]) -> None:
    config = (
        TxConfig(addresses=HOSTS[:addresses], threads=threads) if threads else TxConfig(addresses=HOSTS[:addresses])
    )
    sender = Sender(config)
    assert sender.tx.dialling.targets == targets
    assert len(sender.tx.tuners) == (0 if threads else addresses)
    for now_us in range(TICK_US, 20 * S_US, TICK_US):
        tick(sender, now_us)  # without a leg nothing can be learnt
    assert sender.tx.dialling.targets == targets


def test_the_legs_follow_the_tuner() -> None:
    sender, (first, second) = tuned(2, 3)
    assert sorted(sender.tx.legs) == [0, 1, 2, 3, 5]
    first.legs, second.legs = 4, 1
    assert dial(sender, TICK_US) == []
    replace = tick(sender, TICK_US)
    assert sender.tx.dialling.targets == [4, 1]
    assert replace == [(3, RETIRED), (5, RETIRED)]
    assert dial(sender, TICK_US) == [4, 6]


def test_on_a_long_road_there_are_64_legs_in_a_few_seconds() -> None:
    """Real tuners: each leg brings a frame every tick, and all are busy. An address without a leg learns nothing."""
    config = TxConfig(addresses=HOSTS, threads=THREADS_AUTO, window_bytes=MIB, frame_bytes=KIB)
    sender = Sender(config)
    for leg in range(0, 8, 2):
        sender.up(leg)
    given: list[tuple[int, Frame]] = []
    for now_us in range(TICK_US, 6 * S_US, TICK_US):
        take(sender, given, now_us)
        sender.ack(0, sender.tx.window.next_seq, sender.tx.window.head, now_us)
        for leg in sender.tx.legs:
            sender.tx.on_rtt(leg, 100 * MS_US, 99 * MS_US)
            if leg:
                sender.ack(leg, sender.tx.window.next_seq, sender.tx.window.head, now_us)
        given = give(sender, len(sender.tx.legs), now_us)
        assert tick(sender, now_us) == []
        missing = [leg for leg in range(0, 2 * sender.tx.tuners[0].legs, 2) if leg not in sender.tx.legs]
        for leg in missing:
            sender.up(leg, now_us)
            given += give(sender, 1, now_us)
    assert len(sender.tx.legs) == 64 and sender.tx.dialling.targets == [64, 4]
    assert [tuner.state for tuner in sender.tx.tuners] == [State.SETTLED, State.GROWING]
    assert sender.tx.tuners[1].why == "at the start"


# What the tuner is told -----------------------------------------------------------------------------------------


def test_legs_are_busy_when_none_of_the_address_can_take_a_frame() -> None:
    sender, (first, second) = tuned(2, 1)
    given: list[tuple[int, Frame]] = []
    for count in (0, 1, 1, 1):
        given += give(sender, count)
        tick(sender, TICK_US)
    assert [busy for _, _, busy, _, _ in first.told] == [False, False, True, True]
    assert [busy for _, _, busy, _, _ in second.told] == [False, False, False, True]
    take(sender, given[:1], TICK_US)
    tick(sender, 2 * TICK_US)
    assert (first.told[-1][2], second.told[-1][2]) == (False, True)


def test_they_are_not_while_rx_waits_for_its_output() -> None:
    sender, (only,) = tuned(2)
    give(sender, 2)
    for waiting in (Waiting.OUTPUT, Waiting.FRAME):
        sender.ack(0, 0, 0, TICK_US, waiting)
        tick(sender, TICK_US)
    assert [busy for _, _, busy, _, _ in only.told] == [False, True]


def test_they_are_not_when_rx_has_waited_for_its_output_for_a_good_part_of_the_tick() -> None:
    sender, (only,) = tuned(2)
    give(sender, 2)
    now_us = 0
    for part in (2, 5):  # half a tick, a fifth of one
        sender.ack(0, 0, 0, now_us, Waiting.OUTPUT)
        sender.ack(0, 0, 0, now_us + TICK_US // part, Waiting.FRAME)
        now_us += TICK_US
        tick(sender, now_us)
    assert [busy for _, _, busy, _, _ in only.told] == [False, True]


def test_a_limit_makes_nobody_busy() -> None:
    """More legs would not get more through it."""
    config = TxConfig(addresses=ONE, window_bytes=64 * KIB, frame_bytes=KIB, limit_bytes=KIB)
    sender = Sender(config)
    sender.tx.tuners[0] = only = Heard(2)
    sender.up(0)
    sender.up(1)
    give(sender, 1)
    sender.input(bytes(KIB))
    assert sender.tx.next_assignment(0) is None and sender.tx.deadline_us(0) is not None
    tick(sender, TICK_US)
    assert not only.told[-1][2]


def test_the_queue_is_what_the_round_trip_is_above_the_shortest_one_there_was() -> None:
    sender, (first, second) = tuned(3, 2)
    rtts = {0: (30, 20), 2: (50, 10), 4: (0, 0), 1: (7, 7), 3: (0, 0)}  # ms; leg 3 and 4 are not told of
    for leg, (rtt, least) in rtts.items():
        sender.tx.on_rtt(leg, rtt * MS_US, least * MS_US)
    tick(sender, TICK_US)
    assert first.told == [(0, 3, False, 40 * MS_US, 30 * MS_US)]
    assert second.told == [(0, 2, False, 7 * MS_US, 0)]
    for leg in (1, 3):
        sender.tx.on_rtt(leg, 0, 0)
    tick(sender, 2 * TICK_US)
    assert second.told[-1] == (0, 2, False, 0, 0)


def test_what_was_brought_is_what_the_next_hosts_have_acknowledged_by_address() -> None:
    sender, (first, second) = tuned(1, 1)
    for now_us, unacked in ((TICK_US, (KIB, KIB)), (2 * TICK_US, (KIB // 2, KIB)), (3 * TICK_US, (KIB // 2, 0))):
        for leg, count in enumerate(unacked):
            if now_us == TICK_US:
                sender.tx.on_progress(leg, KIB, now_us)
            sender.tx.on_sample(leg, count, now_us)
        tick(sender, now_us)
    assert [delivered for delivered, *_ in first.told] == [0, KIB // 2, KIB // 2]
    assert [delivered for delivered, *_ in second.told] == [0, 0, KIB]


def test_who_is_gone_says_nothing_about_the_road() -> None:
    """A network that is out makes no leg idle, and more legs would not help it."""
    sender, (first, second) = tuned(2, 1)
    give(sender, 3)
    now_us = 0
    while now_us < LEG_SILENT_US - TICK_US:
        now_us += TICK_US
        sender.ack(1, 0, 0, now_us)
        assert tick(sender, now_us) == []
    assert all(sender.tx.legs[leg].doubted for leg in (0, 2)) and not sender.tx.legs[1].doubted
    assert len(first.told) == LEG_DOUBTED_US // TICK_US
    assert len(second.told) == now_us // TICK_US
    assert {up for _, up, *_ in first.told} == {2}
    sender.ack(0, 0, 0, now_us)  # one of them is back
    tick(sender, now_us + TICK_US)
    assert first.told[-1][1] == 1
    assert len(first.told) == LEG_DOUBTED_US // TICK_US + 1


# Legs that retire -----------------------------------------------------------------------------------------------


def test_a_leg_retires_when_all_it_carries_has_arrived() -> None:
    sender, (only,) = tuned(3)
    given = give(sender, 3)
    only.legs = 1
    assert tick(sender, TICK_US) == []  # their sockets have not taken the frames
    assert [state.retiring for _, state in sorted(sender.tx.legs.items())] == [False, True, True]
    take(sender, given, TICK_US)
    assert [leg for leg, _ in sender.sent(TICK_US)] == []
    sender.input(bytes(4 * KIB), TICK_US)
    assert {leg for leg, _ in sender.sent(TICK_US)} == {0}, "who retires gets nothing more"
    assert tick(sender, 2 * TICK_US) == []  # nothing has arrived
    sender.tx.on_sample(1, 100, 2 * TICK_US)
    sender.ack(0, 3, 0, 2 * TICK_US)
    assert tick(sender, 3 * TICK_US) == [(2, RETIRED)]  # the other's kernel holds something
    assert sender.tx.on_leg_lost(2, False, 3 * TICK_US) == 0
    sender.tx.on_sample(1, 0, 3 * TICK_US)
    assert tick(sender, 4 * TICK_US) == [(1, RETIRED)]
    assert sender.tx.on_leg_lost(1, False, 4 * TICK_US) == 0
    assert tick(sender, 5 * TICK_US) == [] and dial(sender, 5 * TICK_US) == []


def test_a_leg_does_not_retire_in_the_middle_of_a_frame() -> None:
    """Though others have brought it."""
    sender, (only,) = tuned(2)
    given = give(sender, 2)
    only.legs = 1
    sender.ack(0, 2, 2 * KIB, TICK_US)
    assert not sender.tx.window.carries(1)
    assert tick(sender, TICK_US) == []
    take(sender, given, TICK_US)
    assert tick(sender, 2 * TICK_US) == [(1, RETIRED)]


def test_with_tuners_no_leg_takes_the_place_of_another_address() -> None:
    """The other's tuner would count what it brings, and it would have to go home."""
    for threads, strangers in ((THREADS_AUTO, False), (8, True)):
        sender = Sender(TxConfig(addresses=HOSTS, threads=threads, window_bytes=64 * KIB, frame_bytes=KIB))
        sender.tx.on_attempt_failed(1, "refused", True, 0, 0.5)
        assert any(leg % 2 for leg in dial(sender)) == strangers


def test_a_leg_that_is_wanted_again_before_it_is_gone_goes_on() -> None:
    sender, (only,) = tuned(2)
    given = give(sender, 2)
    only.legs = 1
    tick(sender, TICK_US)
    take(sender, given, TICK_US)
    assert sender.tx.legs[1].retiring and sender.tx.scheduler.legs(TICK_US) == [0]
    only.legs = 2
    assert tick(sender, 2 * TICK_US) == []
    assert not sender.tx.legs[1].retiring and sender.tx.scheduler.legs(2 * TICK_US) == [0, 1]


def test_a_leg_that_retires_and_falls_silent_is_given_up_like_any() -> None:
    sender, (only,) = tuned(2)
    take(sender, give(sender, 2), 0)
    only.legs = 1
    replaced: dict[int, str] = {}
    for now_us in range(TICK_US, LEG_SILENT_US + TICK_US, TICK_US):
        sender.ack(0, 0, 0, now_us)
        replaced |= dict(tick(sender, now_us))
    assert replaced == {1: "silent"}
    assert [leg for leg, _ in sender.sent(LEG_SILENT_US)] == [0], "what it carried goes to the other"


def test_a_leg_that_was_retired_and_is_dialled_again_is_no_restart() -> None:
    sender, (only,) = tuned(3)
    only.legs = 1
    for leg, why in tick(sender, TICK_US):
        assert why == RETIRED
        sender.tx.on_leg_lost(leg, False, TICK_US)
    assert sorted(sender.tx.legs) == [0]
    assert sender.tx.book.states[0].retry_us == 0, "it was no cut: nothing is to be waited for"
    only.legs = 3
    tick(sender, 2 * TICK_US)
    assert dial(sender, 2 * TICK_US) == [1, 2] and sender.tx.restarts == 0
    sender.tx.on_leg_lost(2, True, 2 * TICK_US)
    assert dial(sender, 5 * S_US) == [2] and sender.tx.restarts == 1
    assert sender.tx.legs_most == 3


# When a limit holds all up --------------------------------------------------------------------------------------


def limited(first: int, second: int, both: int) -> Sender:
    """Two paths with these limits; a leg of each is up."""
    addresses = tuple(
        type(host)(host.host, host.port, limit_bytes=limit) for host, limit in zip(HOSTS, (first, second), strict=True)
    )
    sender = Sender(TxConfig(addresses=addresses, threads=2, window_bytes=MIB, frame_bytes=64 * KIB, limit_bytes=both))
    sender.up(0)
    sender.up(1, rank=1)
    return sender


def test_the_session_says_when_a_limit_lets_it_go_on() -> None:
    sender = limited(100 * KIB, 0, 200 * KIB)
    now_us = S_US
    assert sender.tx.frame_bytes(0) == 10 * KIB and sender.tx.frame_bytes(1) == 16 * KIB
    sender.input(bytes(MIB), now_us)
    made = []
    while (some := sender.sent(now_us)) or now_us < 3 * S_US:
        made += some
        sender.input(bytes(MIB), now_us)
        due_us = sender.tx.deadline_us(now_us)
        assert due_us is not None and due_us > now_us, "the alarm would ring at once, and for ever"
        now_us = due_us
    given = [sum(frame.length for leg, frame in made if leg == which) for which in (0, 1)]
    seconds = (now_us - S_US) / S_US
    assert 0.9 * 200 * KIB * seconds <= sum(given) <= 200 * KIB * (seconds + 0.1) + 64 * KIB
    assert 0 < given[0] <= 100 * KIB * (seconds + 0.1) + 64 * KIB


def test_a_limit_counts_what_a_frame_needs_besides() -> None:
    sender = limited(0, 0, KIB)
    sender.input(bytes(KIB), S_US)
    assert sender.tx.next_assignment(S_US) is not None
    due_us = sender.tx.deadline_us(S_US)
    assert due_us is not None and 0 <= due_us - (2 * S_US + HEADER_BYTES * S_US // KIB - BURST_US) <= 1


def test_a_limit_of_one_path_is_no_reason_to_wait_for_it() -> None:
    sender = limited(KIB, 0, 0)
    sender.input(bytes(MIB), S_US)
    assert {leg for leg, _ in sender.sent(S_US)} == {0, 1}
    assert sender.tx.scheduler.best(S_US) == 1
    assert sender.tx.deadline_us(S_US) == S_US + FILL_US  # the rest, which waits to become a whole frame


def test_a_limit_that_is_lifted_and_nobody_idle_needs_no_alarm() -> None:
    sender = limited(KIB, KIB, 0)
    give_us = S_US
    sender.input(bytes(10 * KIB), give_us)
    assert sender.tx.next_assignment(give_us) is not None and sender.tx.next_assignment(give_us) is not None
    assert sender.tx.next_assignment(give_us) is None and sender.tx.deadline_us(give_us) is None
