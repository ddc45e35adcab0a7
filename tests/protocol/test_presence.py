"""Every state of presence against every input, and the clock that runs in each."""

from collections.abc import Callable

import pytest

from viamillipede.config import ANSWER_US, BACKOFF_US_MAX, CONNECT_US, GREETING_US, S_US, UNHEARD_US
from viamillipede.protocol.presence import Absence, Presence

WAIT_US, REGROUP_US, OUTAGE_US = 60, 10, 900
START_US = 1000
EVENT_US = 1100


def presence(wait_us: int | None = WAIT_US) -> Presence:
    """Nobody has come yet."""
    return Presence(wait_us, REGROUP_US, OUTAGE_US, START_US)


def together(legs: int) -> Presence:
    """`legs` legs are up."""
    made = presence()
    for _ in range(legs):
        made.on_leg_up()
    return made


def alone(closed_by_peer: bool) -> Presence:
    """The last leg has been lost."""
    made = together(1)
    made.on_leg_lost(closed_by_peer, START_US + 50)
    return made


STATES: dict[str, Callable[[], Presence]] = {
    "waiting": presence,
    "one leg": lambda: together(1),
    "two legs": lambda: together(2),
    "alone, gone": lambda: alone(True),
    "alone, silence": lambda: alone(False),
}
INPUTS: dict[str, Callable[[Presence], None]] = {
    "leg up": lambda p: p.on_leg_up(),
    "closed": lambda p: p.on_leg_lost(True, EVENT_US),
    "lost": lambda p: p.on_leg_lost(False, EVENT_US),
    "refused": lambda p: p.on_refused(),
}
# (state, input) -> legs up, contacted, when the wait ends, what it means; "bug": the call is a bug of ours
Row = tuple[int, bool, int | None, Absence | None]
WAITING: Row = (0, False, START_US + WAIT_US, Absence.NO_CONTACT)
GONE_BEFORE: Row = (0, True, START_US + 50 + REGROUP_US, Absence.DEAD)
SILENT_BEFORE: Row = (0, True, START_US + 50 + OUTAGE_US, Absence.OUTAGE)
GONE_NOW: Row = (0, True, EVENT_US + REGROUP_US, Absence.DEAD)
SILENT_NOW: Row = (0, True, EVENT_US + OUTAGE_US, Absence.OUTAGE)
TABLE: dict[tuple[str, str], Row | str] = {
    ("waiting", "leg up"): (1, True, None, None),
    ("waiting", "closed"): "bug",
    ("waiting", "lost"): "bug",
    ("waiting", "refused"): WAITING,
    ("one leg", "leg up"): (2, True, None, None),
    ("one leg", "closed"): GONE_NOW,
    ("one leg", "lost"): SILENT_NOW,
    ("one leg", "refused"): (1, True, None, None),
    ("two legs", "leg up"): (3, True, None, None),
    ("two legs", "closed"): (1, True, None, None),
    ("two legs", "lost"): (1, True, None, None),
    ("two legs", "refused"): (2, True, None, None),
    ("alone, gone", "leg up"): (1, True, None, None),
    ("alone, gone", "closed"): "bug",
    ("alone, gone", "lost"): "bug",
    ("alone, gone", "refused"): GONE_BEFORE,
    ("alone, silence", "leg up"): (1, True, None, None),
    ("alone, silence", "closed"): "bug",
    ("alone, silence", "lost"): "bug",
    ("alone, silence", "refused"): GONE_BEFORE,
}


def test_the_table_is_whole() -> None:
    assert set(TABLE) == {(state, given) for state in STATES for given in INPUTS}


@pytest.mark.parametrize(("state", "given"), TABLE)
def test_each_state_with_each_input(state: str, given: str) -> None:
    made, expected = STATES[state](), TABLE[state, given]
    if isinstance(expected, str):
        with pytest.raises(AssertionError):
            INPUTS[given](made)
        return
    INPUTS[given](made)
    legs, contacted, deadline_us, absence = expected
    assert (made.legs_up, made.contacted, made.deadline_us()) == (legs, contacted, deadline_us)
    if deadline_us is None:
        assert made.absence(1 << 60) is None
    else:
        assert made.absence(deadline_us - 1) is None
        assert made.absence(deadline_us) is absence


def test_the_states_of_the_table_are_what_they_are_called() -> None:
    assert STATES["alone, silence"]().deadline_us() == SILENT_BEFORE[2]
    assert STATES["alone, gone"]().deadline_us() == GONE_BEFORE[2]


def test_without_a_limit_the_first_contact_is_waited_for_for_ever() -> None:
    made = presence(None)
    assert made.deadline_us() is None
    assert made.absence(1 << 60) is None


def test_evidence_is_forgotten_when_a_leg_comes_back() -> None:
    made = alone(True)
    made.on_leg_up()
    assert not made.gone
    made.on_leg_lost(False, EVENT_US)
    assert made.absence(EVENT_US + REGROUP_US) is None
    assert made.absence(EVENT_US + OUTAGE_US) is Absence.OUTAGE


@pytest.mark.parametrize(("regroup_us", "unheard_us"), [(1, UNHEARD_US), (UNHEARD_US + 1, UNHEARD_US + 1)])
def test_who_has_not_heard_more_than_a_greeting_waits_until_the_other_side_has_tried_again(
    regroup_us: int, unheard_us: int
) -> None:
    there = Presence(WAIT_US, regroup_us, 900 * S_US, START_US)
    assert there.heard, "unless somebody says otherwise"
    there.heard = False
    assert there.deadline_us() == START_US + WAIT_US, "which is no matter before the first contact"
    there.on_leg_up()
    there.on_leg_lost(True, EVENT_US)
    assert there.deadline_us() == EVENT_US + unheard_us
    assert there.absence(EVENT_US + unheard_us - 1) is None
    assert there.absence(EVENT_US + unheard_us) is Absence.DEAD
    there.heard = True
    assert there.deadline_us() == EVENT_US + regroup_us


def test_for_an_outage_it_makes_no_difference_what_was_heard() -> None:
    made = alone(False)
    made.heard = False
    assert made.deadline_us() == SILENT_BEFORE[2]


def test_that_is_long_enough_for_an_attempt_that_is_never_answered_and_another_one() -> None:
    assert UNHEARD_US >= CONNECT_US + GREETING_US + BACKOFF_US_MAX and UNHEARD_US > 2 * ANSWER_US


def test_the_last_leg_is_the_evidence() -> None:
    made = together(2)
    made.on_leg_lost(True, EVENT_US)
    made.on_leg_lost(False, EVENT_US + 1)
    assert made.absence(EVENT_US + 1 + REGROUP_US) is None


def test_a_leg_that_was_of_no_use_does_not_start_the_clock_anew() -> None:
    there = Presence(None, 10, 100, 0)
    there.on_leg_up()
    there.on_useful()
    there.on_leg_lost(True, 1000)
    for now_us in (1003, 1006, 1009):  # accepted, and cut at once
        there.on_leg_up()
        assert there.deadline_us() is None
        there.on_leg_lost(True, now_us)
        assert there.deadline_us() == 1010
    there.on_leg_up()
    there.on_useful()
    there.on_leg_lost(True, 2000)
    assert there.deadline_us() == 2010


def test_time_asleep_says_nothing_about_the_other_side() -> None:
    there = Presence(None, 10, 100, 0)
    there.on_leg_up()
    there.on_slept(5000)  # together: no clock runs
    assert there.deadline_us() is None
    there.on_useful()
    there.on_leg_lost(True, 1000)
    there.on_slept(5000)
    assert there.deadline_us() == 6010 and there.absence(6009) is None
    there.on_leg_up()
    there.on_slept(100)  # a leg of no use yet: the clock that was running goes on where it stood
    there.on_leg_lost(True, 6105)
    assert there.deadline_us() == 6110
