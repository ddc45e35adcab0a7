"""Legs that may be lost: what they carry is sent on others too, and is not forgotten, whatever happens next."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocol.test_send_window import ack, full, put, send, window
from viamillipede.protocol.send_window import SendWindow


def test_what_a_doubted_leg_carries_is_queued_and_its_copies_still_count() -> None:
    made = full()
    made.on_leg_doubted(0)
    made.check()
    assert made.carries(0) == 4
    assert [f.seq for f in made.on_ack(ack(0, 0, ((1, 2),)))] == [1]  # the copy of the doubted leg
    assert [send(made, 1).seq for _ in range(3)] == [0, 2, 3]
    assert made.next_lost() is None
    assert all(frame.legs == {0, 1} for frame in made.unarrived())
    assert (made.carries(0), made.carries(1), made.retransmitted_frames) == (3, 3, 3)


def test_what_a_leg_carries_that_is_trusted_again_need_not_be_sent_again() -> None:
    made = full()
    made.on_leg_doubted(0)
    assert send(made, 1).seq == 0
    made.on_leg_trusted(0)
    made.check()
    assert made.next_lost() is None
    made.on_leg_doubted(0)  # and again
    made.check()
    assert [send(made, 1).seq for _ in range(3)] == [1, 2, 3]
    assert made.next_lost() is None


def test_a_frame_that_a_trusted_leg_carries_too_is_not_queued() -> None:
    made = full()
    oldest = made.oldest()
    assert oldest is not None
    made.assign(oldest, 1, 5)
    made.on_leg_doubted(0)
    assert [send(made, 2).seq for _ in range(3)] == [1, 2, 3]
    assert made.next_lost() is None
    made.on_leg_doubted(1)  # now that one too
    made.check()
    assert send(made, 3).seq == 0 and oldest.legs == {0, 1, 3}


@pytest.mark.parametrize("lost", [0, 1])
def test_a_leg_lost_leaves_to_the_other_what_it_carried(lost: int) -> None:
    made = full()
    made.on_leg_doubted(0)
    for _ in range(4):
        send(made, 1)
    assert made.on_leg_lost(lost) == (4 if lost else 0)  # the doubted one alone is not enough
    made.check()
    again = [send(made, 2).seq for _ in range(4 if lost else 0)]
    assert again == ([0, 1, 2, 3] if lost else []) and made.next_lost() is None


def test_a_doubted_leg_that_is_lost_is_not_doubted_when_it_is_back() -> None:
    made = full()
    made.on_leg_doubted(0)
    made.on_leg_lost(0)
    for _ in range(4):
        send(made, 0)
    assert made.next_lost() is None
    assert all(not frame.queued and frame.legs == {0} for frame in made.unarrived())


def test_resend_of_the_copy_of_a_trusted_leg_queues_what_else_only_doubted_ones_carry() -> None:
    made = full()
    made.on_leg_doubted(0)
    frame = send(made, 1)
    made.on_leg_trusted(0)
    made.on_resend(frame.seq, 1)
    assert made.next_lost() is None  # the other copy is good
    made.on_leg_doubted(0)
    assert send(made, 1) is frame


def test_doubt_and_trust_of_a_leg_that_carries_nothing_change_nothing() -> None:
    made = full()
    made.on_leg_doubted(7)
    made.on_leg_trusted(7)
    made.on_leg_trusted(8)
    made.check()
    assert made.next_lost() is None


# Any history --------------------------------------------------------------------------------------------

LEGS = 3
STEPS = st.tuples(
    st.sampled_from(["send", "doubt", "trust", "lose", "resend", "arrive", "copy"]),
    st.integers(0, LEGS - 1),
    st.integers(0, 15),
)


class Model:
    """What the window must do, said in sets: `on[seq]` are the legs that carry a frame that has not arrived."""

    def __init__(self) -> None:
        self.made: SendWindow = window(16 * 1024, 1024)
        self.on: dict[int, set[int]] = {}
        self.doubted: set[int] = set()

    def homeless(self) -> list[int]:
        """What must be sent now, in this order."""
        return sorted(seq for seq, legs in self.on.items() if legs <= self.doubted)

    def step(self, what: str, leg: int, seq: int) -> None:
        """Something happens; the order of the frames that are to be sent is checked whenever one is sent."""
        made = self.made
        if what == "send" and leg not in self.doubted:
            put(made, bytes(1024)) if not self.homeless() else None
            if (frame := made.next_lost() or made.cut(1024, 0)) is not None:
                assert frame.seq == (self.homeless() or [frame.seq])[0]
                made.assign(frame, leg, 0)
                self.on.setdefault(frame.seq, set()).add(leg)
        elif what == "copy" and seq in self.on and leg not in self.on[seq] | self.doubted:
            frame = next(frame for frame in made.unarrived() if frame.seq == seq)
            if not frame.queued:
                made.assign(frame, leg, 0)
                self.on[seq].add(leg)
        elif what == "doubt":
            made.on_leg_doubted(leg)
            self.doubted.add(leg)
        elif what == "trust":
            made.on_leg_trusted(leg)
            self.doubted.discard(leg)
        elif what == "lose":
            made.on_leg_lost(leg)
            self.doubted.discard(leg)
            for legs in self.on.values():
                legs.discard(leg)
        elif what == "resend" and seq in self.on:
            made.on_resend(seq, leg)
            self.on[seq].discard(leg)
        elif what == "arrive" and seq in self.on and seq > made.arrived_next:
            made.on_ack(ack(made.arrived_next, 0, ((seq, seq + 1),)))
            del self.on[seq]
        made.check()
        assert [frame.seq for frame in made.unarrived()] == sorted(self.on)
        assert [made.carries(each) for each in range(LEGS)] == [
            sum(each in legs for legs in self.on.values()) for each in range(LEGS)
        ]


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.lists(STEPS, max_size=60))
def test_whatever_legs_do_exactly_what_no_trusted_one_carries_is_sent_again(steps: list[tuple[str, int, int]]) -> None:
    model = Model()
    for step in steps:
        model.step(*step)
    expected, found = model.homeless(), []
    while (frame := model.made.next_lost()) is not None:
        found.append(frame.seq)
        model.made.assign(frame, LEGS, 0)  # a leg that nobody doubts
    assert found == expected
