"""Which legs the transmitter replaces, and which it must leave alone."""

from tests.protocol.drive import Sender
from viamillipede.config import HEARTBEAT_US, KIB, LEG_DOUBTED_US, LEG_SILENT_US, LEG_STUCK_US, S_US, TICK_US, USEFUL_US
from viamillipede.protocol.tx_session import RETIRED
from viamillipede.protocol.wire import Waiting


def watch(
    sender: Sender, from_us: int, to_us: int, heard: dict[int, Waiting] | None = None
) -> list[tuple[int, int, str]]:
    """Ticks; rx says on the legs `heard` all the time that it waits. Returns (when, leg, why) for replaced ones."""
    found = []
    for now_us in range(from_us, to_us, TICK_US):
        for leg, waiting in (heard or {}).items():
            sender.ack(leg, sender.tx.window.arrived_next, sender.tx.window.written, now_us, waiting)
        for leg, why in sender.tx.on_timer(now_us):
            found.append((now_us, leg, why))
            sender.tx.on_leg_lost(leg, False, now_us)
            if heard:
                heard.pop(leg, None)
        sender.tx.check()
    return found


def two_legs(carrying: bool) -> Sender:
    """Two legs; the first carries frames that have not arrived, if `carrying`."""
    sender = Sender()
    sender.up(0)
    sender.up(1, rank=1)
    if carrying:
        sender.input(bytes(KIB))
        assert [leg for leg, _ in sender.sent()] == [0]
    return sender


def test_a_silent_leg_is_replaced() -> None:
    sender = two_legs(carrying=True)
    assert watch(sender, 0, 2 * LEG_SILENT_US, {1: Waiting.OUTPUT}) == [(LEG_SILENT_US, 0, "silent")]
    assert [leg for leg, _ in sender.sent(LEG_SILENT_US)] == [1]


def test_a_leg_that_is_heard_and_moves_nothing_it_carries_is_replaced() -> None:
    sender = two_legs(carrying=True)
    heard = {0: Waiting.FRAME, 1: Waiting.FRAME}
    assert watch(sender, 0, 2 * LEG_STUCK_US, heard) == [(LEG_STUCK_US, 0, "stuck")]


def test_no_leg_is_stuck_while_rx_waits_for_its_output_or_soon_after() -> None:
    sender = two_legs(carrying=True)
    assert watch(sender, 0, 100 * LEG_STUCK_US, {0: Waiting.OUTPUT, 1: Waiting.OUTPUT}) == []
    since_us = 100 * LEG_STUCK_US
    heard = {0: Waiting.FRAME, 1: Waiting.FRAME}
    assert watch(sender, since_us, since_us + 2 * LEG_STUCK_US, heard) == [(since_us + LEG_STUCK_US, 0, "stuck")]


def test_data_that_pauses_is_no_reason_to_replace_a_leg() -> None:
    sender = two_legs(carrying=False)
    assert watch(sender, 0, 3600 * S_US, {0: Waiting.FRAME, 1: Waiting.FRAME}) == []
    sender.input(bytes(10), 3600 * S_US)
    assert sender.sent(3600 * S_US)
    since_us = 3600 * S_US
    heard = {0: Waiting.FRAME, 1: Waiting.FRAME}  # the clock starts with what it carries
    assert watch(sender, since_us, since_us + LEG_STUCK_US, heard) == []


def test_any_sign_of_progress_keeps_a_leg() -> None:
    for sign in ("socket", "kernel", "arrival"):
        sender = two_legs(carrying=True)
        for _ in range(4):
            sender.input(bytes(KIB))
            sender.sent(now_us=5000)
        sender.tx.on_sample(0, 5000, 0)
        at_us = LEG_STUCK_US // 2
        heard = {0: Waiting.FRAME, 1: Waiting.FRAME}
        assert watch(sender, 0, at_us, heard) == []
        if sign == "socket":
            sender.tx.on_progress(0, 1, at_us)
        elif sign == "kernel":
            sender.tx.on_sample(0, 4999, at_us)
        else:
            sender.ack(1, 1, 0, at_us)
        assert watch(sender, at_us, at_us + 2 * LEG_STUCK_US, heard) == [(at_us + LEG_STUCK_US, 0, "stuck")], sign


def test_bytes_that_the_kernel_still_holds_are_no_progress() -> None:
    sender = two_legs(carrying=True)
    sender.tx.on_sample(0, 100, 0)
    sender.tx.on_sample(0, 100, LEG_STUCK_US // 2)
    sender.tx.on_sample(0, 200, LEG_STUCK_US // 2)
    heard = {0: Waiting.FRAME, 1: Waiting.FRAME}
    assert watch(sender, 0, 2 * LEG_STUCK_US, heard) == [(LEG_STUCK_US, 0, "stuck")]


def test_our_own_sleep_is_not_the_silence_of_others() -> None:
    sender = two_legs(carrying=True)
    assert watch(sender, 0, S_US) == []
    asleep_until_us = 1000 * S_US
    assert watch(sender, asleep_until_us, asleep_until_us + LEG_SILENT_US) == []
    found = watch(sender, asleep_until_us + LEG_SILENT_US, asleep_until_us + 2 * LEG_SILENT_US)
    assert [(leg, why) for _, leg, why in found] == [(0, "silent"), (1, "silent")]  # heard nothing since we woke


def test_a_tick_that_is_a_little_late_is_no_sleep() -> None:
    sender = two_legs(carrying=False)
    for now_us in range(0, LEG_SILENT_US, S_US):
        assert sender.tx.on_timer(now_us) == []
    assert [why for _, why in sender.tx.on_timer(LEG_SILENT_US)] == ["silent", "silent"]


def test_a_leg_that_never_takes_its_first_bytes_is_stuck_although_it_carries_nothing() -> None:
    sender = two_legs(carrying=True)
    sender.ack(0, 1, 0, 0)
    sender.input(bytes(KIB))
    assert (assignment := sender.tx.next_assignment(0)) is not None and assignment[0] == 0  # and stays busy
    sender.tx.on_leg_lost(1, False, 0)
    sender.up(1)
    sender.input(bytes(KIB), 1)
    assert [leg for leg, _ in sender.sent(5000)] == [1]
    sender.ack(1, 3, 0, S_US)  # another leg brought it
    heard = {0: Waiting.FRAME, 1: Waiting.FRAME}
    found = watch(sender, S_US, S_US + 2 * LEG_STUCK_US, heard)
    assert [(leg, why) for _, leg, why in found] == [(0, "stuck")]


def test_idle_legs_say_that_tx_is_alive_and_busy_ones_need_not() -> None:
    sender = two_legs(carrying=False)
    assert sender.tx.heartbeats(HEARTBEAT_US - 1) == []
    sender.input(bytes(KIB))
    assignment = sender.tx.next_assignment(0)
    assert assignment is not None and assignment[0] == 0
    assert sender.tx.heartbeats(HEARTBEAT_US) == [1]  # what the first sends says as much
    sender.tx.on_idle(0)
    assert 1 not in sender.tx.heartbeats(2 * HEARTBEAT_US - 1)
    assert 1 in sender.tx.heartbeats(2 * HEARTBEAT_US)


def test_a_leg_lost_before_it_was_of_use_makes_its_address_wait() -> None:
    for useful in (False, True):
        sender = Sender()
        sender.up(0, 0)
        sender.fill(0)
        if useful:
            sender.ack(0, 1, 1 * KIB, 10)
        sender.tx.on_leg_lost(0, True, 20)
        assert sender.tx.book.states[0].cuts == (0 if useful else 1)


def test_a_leg_that_has_lived_for_a_while_was_of_use() -> None:
    sender = Sender()
    sender.up(0, 0)
    sender.ack(0, 0, 0, USEFUL_US)
    sender.tx.on_leg_lost(0, True, USEFUL_US)
    assert sender.tx.book.states[0].cuts == 0


# Legs that may be lost ----------------------------------------------------------------------------------


def doubted_leg() -> Sender:
    """Two legs; of the first, which carries three frames, nothing was heard for LEG_DOUBTED_US."""
    sender = two_legs(carrying=True)
    for _ in range(2):
        sender.input(bytes(KIB))
        sender.sent(now_us=5000)
    assert sender.tx.window.carries(0) == 3
    assert watch(sender, 0, LEG_DOUBTED_US + 1, {1: Waiting.FRAME}) == []
    assert sender.tx.legs[0].doubted and not sender.tx.legs[1].doubted
    return sender


def test_a_leg_is_doubted_when_nothing_was_heard_of_it_for_a_while_and_not_before() -> None:
    sender = two_legs(carrying=True)
    watch(sender, 0, LEG_DOUBTED_US - TICK_US, {0: Waiting.FRAME, 1: Waiting.FRAME})
    heard_us = LEG_DOUBTED_US - 2 * TICK_US
    sender.tx.on_timer(heard_us + LEG_DOUBTED_US - 1)
    assert not any(leg.doubted for leg in sender.tx.legs.values())
    sender.tx.on_timer(heard_us + LEG_DOUBTED_US)
    assert all(leg.doubted for leg in sender.tx.legs.values())
    assert not len(sender.tx.scheduler)


def test_what_a_doubted_leg_carries_goes_to_others_and_it_gets_nothing_more() -> None:
    sender = doubted_leg()
    assert [(leg, frame.seq) for leg, frame in sender.sent(LEG_DOUBTED_US)] == [(1, 0), (1, 1), (1, 2)]
    sender.input(bytes(KIB), LEG_DOUBTED_US)
    sender.tx.on_idle(0)  # its socket would take more
    assert [leg for leg, _ in sender.sent(LEG_DOUBTED_US + S_US)] == [1]
    assert sender.tx.next_assignment(LEG_DOUBTED_US + S_US) is None


def test_a_copy_of_a_doubted_leg_that_arrives_after_all_is_not_sent_again() -> None:
    sender = doubted_leg()
    sender.ack(1, 2, 0, LEG_DOUBTED_US)
    assert [frame.seq for _, frame in sender.sent(LEG_DOUBTED_US)] == [2]


def test_a_doubted_leg_that_is_heard_again_is_trusted_and_used() -> None:
    sender = doubted_leg()
    assert sender.tx.next_assignment(LEG_DOUBTED_US) is not None  # one frame has gone to the other
    sender.ack(0, 0, 0, LEG_DOUBTED_US + 1)
    assert not sender.tx.legs[0].doubted
    sender.input(bytes(KIB), LEG_DOUBTED_US)
    assert [(leg, frame.seq) for leg, frame in sender.sent(LEG_DOUBTED_US + S_US // 2)] == [(0, 3)]
    assert sender.tx.window.retransmitted_frames == 1
    assert watch(sender, LEG_DOUBTED_US + 1, 2 * LEG_DOUBTED_US, {1: Waiting.FRAME}) == []
    assert watch(sender, 2 * LEG_DOUBTED_US, 2 * LEG_DOUBTED_US + 2 * TICK_US, {1: Waiting.FRAME}) == []
    assert sender.tx.legs[0].doubted  # again


def test_a_doubted_leg_is_given_up_when_it_stays_silent_and_what_was_copied_is_not_sent_again() -> None:
    sender = doubted_leg()
    assert len(sender.sent(LEG_DOUBTED_US)) == 3
    found = watch(sender, LEG_DOUBTED_US, LEG_SILENT_US + 1, {1: Waiting.FRAME})
    assert found == [(LEG_SILENT_US, 0, "silent")]
    assert [leg for leg, _ in sender.sent(LEG_SILENT_US)] == []


def test_beside_a_doubted_leg_another_connection_is_set_up() -> None:
    sender = doubted_leg()
    while sender.tx.next_dial(0) is not None:
        pass
    assert sender.tx.dialling.under_way[0] == 0
    assert 1 not in sender.tx.dialling.under_way
    sender = two_legs(carrying=True)
    while sender.tx.next_dial(0) is not None:
        pass
    assert not {0, 1} & set(sender.tx.dialling.under_way)


def test_when_all_legs_are_doubted_nothing_is_sent_before_one_is_heard() -> None:
    sender = two_legs(carrying=True)
    assert watch(sender, 0, LEG_DOUBTED_US + 1) == []
    assert sender.sent(LEG_DOUBTED_US) == []
    sender.ack(1, 0, 0, LEG_DOUBTED_US + 5)
    assert [(leg, frame.seq) for leg, frame in sender.sent(LEG_DOUBTED_US + 5)] == [(1, 0)]


def test_a_leg_on_a_long_road_is_given_more_time() -> None:
    sender = two_legs(carrying=True)
    sender.tx.on_rtt(0, S_US, S_US // 2)
    heard = {1: Waiting.FRAME}
    assert watch(sender, 0, LEG_DOUBTED_US + 2 * S_US, heard) == []
    assert not sender.tx.legs[0].doubted
    found = watch(sender, LEG_DOUBTED_US + 2 * S_US, LEG_SILENT_US + 9 * S_US, heard)
    assert sender.tx.window.retransmitted_frames == 0 and found == [(LEG_SILENT_US + 4 * S_US, 0, "silent")]


def test_a_leg_on_a_long_road_may_be_without_progress_for_longer() -> None:
    sender = two_legs(carrying=True)
    sender.tx.on_rtt(0, S_US, S_US)
    heard = {0: Waiting.FRAME, 1: Waiting.FRAME}
    assert watch(sender, 0, 2 * LEG_STUCK_US + 8 * S_US, heard) == [(LEG_STUCK_US + 8 * S_US, 0, "stuck")]


# Legs that are not needed any more ----------------------------------------------------------------------


def test_a_surplus_leg_gets_nothing_more_and_is_closed_when_what_it_carries_has_arrived() -> None:
    sender = two_legs(carrying=True)
    sender.tx.dialling.targets[0] = 0
    heard = {0: Waiting.FRAME, 1: Waiting.FRAME}
    assert watch(sender, 0, 2 * TICK_US, heard) == []
    sender.input(bytes(KIB), TICK_US)
    assert [leg for leg, _ in sender.sent(2 * TICK_US)] == [1]
    sender.ack(1, 2, 2 * KIB, 2 * TICK_US)
    sender.tx.on_sample(0, 5, 2 * TICK_US)  # something is still on its way
    assert watch(sender, 2 * TICK_US, 4 * TICK_US, heard) == []
    sender.tx.on_sample(0, 0, 4 * TICK_US)
    assert watch(sender, 4 * TICK_US, 5 * TICK_US, heard) == [(4 * TICK_US, 0, RETIRED)]


def test_a_surplus_leg_that_is_needed_again_stays() -> None:
    sender = two_legs(carrying=True)
    sender.tx.dialling.targets[0] = 0
    heard = {0: Waiting.FRAME, 1: Waiting.FRAME}
    assert watch(sender, 0, 2 * TICK_US, heard) == []
    assert sender.tx.legs[0].retiring and 0 not in sender.tx.scheduler.legs(TICK_US)
    sender.tx.dialling.targets[0] = 4
    assert watch(sender, 2 * TICK_US, 3 * TICK_US, heard) == []
    assert not sender.tx.legs[0].retiring and 0 in sender.tx.scheduler.legs(TICK_US)


def test_a_surplus_leg_that_is_busy_is_not_closed() -> None:
    sender = two_legs(carrying=False)
    sender.input(bytes(KIB))
    assert sender.tx.next_assignment(0) is not None
    sender.ack(1, 1, KIB, 0)  # it was hedged, say: the socket has not taken all of it yet
    sender.tx.dialling.targets[0] = 0
    heard = {0: Waiting.FRAME, 1: Waiting.FRAME}
    assert watch(sender, 0, 3 * TICK_US, heard) == []
    sender.tx.on_idle(0)
    assert watch(sender, 3 * TICK_US, 4 * TICK_US, heard) == [(3 * TICK_US, 0, RETIRED)]


def test_a_leg_away_from_home_is_closed_when_its_home_is_back() -> None:
    sender = Sender()
    sender.up(1, rank=1)
    sender.up(3, rank=0)
    heard = {1: Waiting.FRAME, 3: Waiting.FRAME}
    sender.tx.legs[1].doubted = True
    sender.tx.on_timer(0)
    assert not sender.tx.legs[3].retiring
    assert watch(sender, 0, TICK_US, heard) == [(0, 3, RETIRED)]
