"""When rx acknowledges: a while after something has come, or at once when it was much."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viamillipede.config import ACK_BYTES, ACK_DELAY_US, KIB, MIB
from viamillipede.protocol.ack_timer import AckTimer

WINDOW = 64 * MIB


def test_nothing_is_due_before_anything_has_come() -> None:
    timer = AckTimer(WINDOW)
    assert timer.deadline_us is None and not timer.due(1 << 60)


def test_little_is_collected_for_a_while_from_the_first_of_it() -> None:
    timer = AckTimer(WINDOW)
    timer.arrived_bytes = 100
    timer.on_progress(0, True, 1000)
    timer.arrived_bytes = 200
    timer.on_progress(100, True, 1500)
    assert timer.deadline_us == 1000 + ACK_DELAY_US
    assert not timer.due(1000 + ACK_DELAY_US - 1) and timer.due(1000 + ACK_DELAY_US)


def test_the_middle_of_a_frame_is_no_news() -> None:
    timer = AckTimer(WINDOW)
    timer.on_progress(0, False, 1000)
    assert timer.deadline_us is None


@pytest.mark.parametrize("window_bytes", [64 * KIB, 4 * ACK_BYTES, WINDOW])
@pytest.mark.parametrize("between", [True, False])
@pytest.mark.parametrize("what", ["arrived", "written"])
def test_much_is_acknowledged_at_once(window_bytes: int, between: bool, what: str) -> None:
    timer, much = AckTimer(window_bytes), min(ACK_BYTES, window_bytes // 4)

    def come(count: int, now_us: int) -> None:
        timer.arrived_bytes = count if what == "arrived" else 0
        timer.on_progress(count if what == "written" else 0, between, now_us)

    come(much - 1, 1000)
    assert not timer.due(1000)
    come(much, 1001)
    assert timer.due(1001)
    timer.on_acked(much if what == "written" else 0)
    assert timer.deadline_us is None and not timer.due(1 << 60)
    come(2 * much - 1, 2000)  # what was told does not count again
    assert not timer.due(2000)
    come(2 * much, 2001)
    assert timer.due(2001)


@given(st.lists(st.tuples(st.integers(0, 3 * MIB), st.integers(0, 3 * MIB), st.booleans(), st.integers(0, 5000))))
def test_no_byte_between_frames_waits_longer_than_the_delay(steps: list[tuple[int, int, bool, int]]) -> None:
    """As rx has it: asked whenever something has come, and at its deadline."""
    timer, written, now_us, untold_us = AckTimer(WINDOW), 0, 0, None
    for arrived, wrote, between, later_us in steps:
        now_us += later_us
        if untold_us is not None and now_us >= untold_us + ACK_DELAY_US:
            assert timer.due(now_us)
        if timer.due(now_us):
            timer.on_acked(written)
            untold_us = None
        timer.arrived_bytes += arrived
        written += wrote
        timer.on_progress(written, between, now_us)
        if between and untold_us is None:
            untold_us = now_us
        assert not (arrived >= ACK_BYTES or wrote >= ACK_BYTES) or timer.due(now_us)
