"""When the transmitter sends a second copy of a frame, and when it must not."""

from tests.protocol.drive import Sender
from tests.protocol.test_tx_session import LATE_US, busy_sender
from viamillipede.config import KIB
from viamillipede.protocol.wire import Kind, Waiting


def test_the_late_frame_of_a_full_window_is_hedged_on_the_best_other_leg() -> None:
    sender = busy_sender(3)
    assert sender.tx.next_assignment(LATE_US - 1) is None
    ((leg, frame), (other, same)) = sender.sent(LATE_US) + sender.sent(2 * LATE_US)
    assert (leg, frame.seq, frame.legs) == (2, 0, {0, 1, 2})
    assert (other, same) == (1, frame)
    assert sender.tx.hedges == 2
    assert sender.sent(10 * LATE_US) == []  # copies are limited
    assert sender.tx.window.retransmitted_frames == 2


def test_nothing_is_hedged_while_the_window_has_room() -> None:
    sender = Sender()
    sender.up(0)
    sender.up(1, rank=1)
    sender.input(bytes(KIB))
    sender.sent()
    assert sender.sent(100 * LATE_US) == []


def test_the_tail_is_hedged_when_the_input_has_ended() -> None:
    sender = Sender()
    sender.up(0)
    sender.up(1, rank=1)
    sender.input(bytes(KIB))
    sender.tx.window.on_input_end()
    assert [frame.kind for _, frame in sender.sent()] == [Kind.DATA, Kind.END]
    assert [(leg, frame.seq) for leg, frame in sender.sent(LATE_US)] == [(1, 0)]


def test_nothing_is_hedged_while_rx_waits_for_its_output_and_the_clock_starts_after_that() -> None:
    sender = busy_sender(2)
    sender.ack(0, 1, 0, 5, Waiting.OUTPUT)
    assert sender.sent(100 * LATE_US) == []
    sender.ack(0, 1, 0, 100 * LATE_US, Waiting.FRAME)
    assert sender.sent(101 * LATE_US - 1) == []
    assert [(leg, frame.seq) for leg, frame in sender.sent(101 * LATE_US)] == [(1, 1)]


def test_no_hedge_without_another_idle_leg() -> None:
    assert busy_sender(1).sent(LATE_US) == []
