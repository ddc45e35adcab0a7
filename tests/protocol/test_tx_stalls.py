"""When the transmitter takes more of the window into use: only when the window is what stops idle legs."""

import pytest

from tests.protocol.drive import HOSTS, Sender
from viamillipede.config import MIB, S_US, TICK_US, WINDOW_STALL_PERIOD_US, WINDOW_STALL_US, TxConfig
from viamillipede.protocol.tx_leg import FRAME_BYTES_LEAST
from viamillipede.protocol.wire import Waiting

SIZE = FRAME_BYTES_LEAST  # of each frame: nothing is known of the legs


def big() -> Sender:
    """One leg, and a window that has not grown yet."""
    sender = Sender(TxConfig(addresses=HOSTS, threads=8, window_bytes=64 * MIB, frame_bytes=MIB))
    sender.up(0)
    return sender


def growth(sender: Sender, before: int) -> int:
    """How often the window has doubled."""
    return (sender.tx.window.limit_bytes // before).bit_length() - 1


def starve(sender: Sender, frames: int, now_us: int) -> None:
    """rx has written so many frames, and acknowledges it."""
    sender.ack(0, frames, frames * SIZE, now_us)


@pytest.mark.parametrize(
    ("stalled_us", "waiting", "grows"),
    [
        (WINDOW_STALL_US, Waiting.FRAME, 1),
        (WINDOW_STALL_US - 1, Waiting.FRAME, 0),
        (WINDOW_STALL_US, Waiting.OUTPUT, 0),
    ],
)
def test_the_window_grows_only_when_it_stalls_idle_legs(stalled_us: int, waiting: Waiting, grows: int) -> None:
    sender = big()
    sender.fill(7)
    before = sender.tx.window.limit_bytes
    for now_us in (7, 8, 9):
        assert sender.sent(now_us) == []  # an idle leg and a full window
    sender.ack(0, 1, SIZE, 7 + stalled_us, waiting)
    assert growth(sender, before) == grows


@pytest.mark.parametrize(("pause_us", "grows"), [(WINDOW_STALL_PERIOD_US // 8, 1), (WINDOW_STALL_PERIOD_US + 1, 0)])
def test_stalls_add_up_within_a_period_and_are_forgotten_after_it(pause_us: int, grows: int) -> None:
    sender, now_us = big(), 0
    sender.fill(0)
    before = sender.tx.window.limit_bytes
    for written in (1, 2):
        assert sender.sent(now_us) == []
        now_us += WINDOW_STALL_US // 2 + 1
        starve(sender, written, now_us)
        now_us += pause_us
        sender.fill(now_us)
    assert growth(sender, before) == grows


def test_the_window_does_not_grow_when_every_leg_is_busy() -> None:
    sender = big()
    while sender.tx.window.room_bytes():
        sender.input(bytes(MIB))
        if (assignment := sender.tx.next_assignment(0)) is not None and sender.tx.window.room_bytes():
            sender.tx.on_sample(0, sender.tx.legs[0].backlog_bytes(), 0)
            sender.tx.on_idle(assignment[0])
    assert not len(sender.tx.scheduler)
    before = sender.tx.window.limit_bytes
    sender.tx.on_timer(TICK_US)
    starve(sender, 1, TICK_US + 1)
    assert growth(sender, before) == 0


def test_the_window_grows_while_a_stall_lasts() -> None:
    sender = big()
    sender.fill(0)
    before = sender.tx.window.limit_bytes
    assert sender.sent(0) == []
    sender.tx.on_timer(WINDOW_STALL_US - 1)
    assert growth(sender, before) == 0
    sender.tx.on_timer(WINDOW_STALL_US)
    assert growth(sender, before) == 1
    sender.tx.on_timer(TICK_US)  # there is room now
    assert growth(sender, before) == 1


def test_the_window_does_not_grow_while_rx_waits_for_its_output() -> None:
    sender = big()
    sender.fill(0)
    before = sender.tx.window.limit_bytes
    sender.ack(0, 1, 0, 0, Waiting.OUTPUT)
    assert sender.sent(0) == []
    for now_us in range(0, 10 * S_US, TICK_US):
        sender.ack(0, 1, 0, now_us, Waiting.OUTPUT)
        sender.tx.on_timer(now_us)
    assert growth(sender, before) == 0


def test_time_in_which_the_window_had_room_is_no_stall() -> None:
    sender = big()
    sender.fill(0)
    before = sender.tx.window.limit_bytes
    assert sender.sent(0) == []
    sender.tx.on_timer(TICK_US)
    assert growth(sender, before) == 1
    now_us = 10 * S_US  # the source paused
    while sender.tx.window.room_bytes():
        sender.input(bytes(sender.tx.window.room_bytes()), now_us)
        assert sender.sent(now_us)
    starve(sender, 1, now_us + 2)
    assert growth(sender, before) == 1
