"""Who has failed too often waits, and nobody else does, unless there are more hosts than are remembered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viamillipede.config import S_US
from viamillipede.protocol.attempts import ATTEMPT_US, ATTEMPTS_BURST, HOSTS_MAX, Attempts

NOW = 5 * S_US


def test_who_has_never_failed_may_try() -> None:
    assert Attempts().allowed("a", 0)


def test_so_many_may_fail_at_once_and_then_one_after_another() -> None:
    attempts, now = Attempts(), NOW
    for _ in range(ATTEMPTS_BURST):
        assert attempts.allowed("a", now)
        attempts.on_failed("a", now)
    assert not attempts.allowed("a", now) and not attempts.allowed("a", now + ATTEMPT_US - 1)
    for _ in range(3):
        now += ATTEMPT_US
        assert attempts.allowed("a", now)
        attempts.on_failed("a", now)
        assert not attempts.allowed("a", now)


def test_others_do_not_wait_for_that() -> None:
    attempts = Attempts(1, S_US)
    attempts.on_failed("a", NOW)
    assert not attempts.allowed("a", NOW) and attempts.allowed("b", NOW)


def test_after_a_while_nothing_is_held_against_it() -> None:
    attempts = Attempts(3, S_US)
    for _ in range(3):
        attempts.on_failed("a", NOW)
    for _ in range(3):
        assert attempts.allowed("a", NOW + 3 * S_US)
        attempts.on_failed("a", NOW + 3 * S_US)
    assert not attempts.allowed("a", NOW + 3 * S_US)


def test_what_was_feared_and_did_not_happen_is_taken_back() -> None:
    attempts = Attempts(2, S_US)
    for _ in range(20):
        assert attempts.allowed("a", NOW)
        attempts.on_failed("a", NOW)
        attempts.on_success("a")
    attempts.on_success("b")  # of which nothing was feared
    assert attempts.allowed("b", NOW)


@given(st.lists(st.tuples(st.integers(0, 2 * S_US), st.booleans()), max_size=60))
def test_nobody_ever_fails_more_often_than_the_burst_and_the_time_allow(events: list[tuple[int, bool]]) -> None:
    attempts, now, failed = Attempts(4, S_US), NOW, 0
    for pause, tries in events:
        now += pause
        if tries and attempts.allowed("a", now):
            attempts.on_failed("a", now)
            failed += 1
    assert failed <= 4 + (now - NOW) // S_US


@pytest.mark.parametrize("hosts", [HOSTS_MAX, 3 * HOSTS_MAX])
def test_no_more_hosts_are_remembered_than_there_is_room_for(hosts: int) -> None:
    attempts = Attempts(2, S_US)
    for number in range(hosts):
        attempts.on_failed(f"host {number}", NOW)
    assert len(attempts._clean_us) <= HOSTS_MAX + 1
    assert attempts.allowed("another", NOW) == (hosts == HOSTS_MAX), "those without a place are as one"
    attempts.on_failed("host 0", NOW)
    assert not attempts.allowed("host 0", NOW), "who has a place keeps it"


def test_those_that_are_clean_make_room() -> None:
    attempts = Attempts(2, S_US)
    for number in range(2 * HOSTS_MAX):
        attempts.on_failed(f"host {number}", NOW)
    attempts.on_failed("late", NOW + 10 * S_US)
    assert attempts.allowed("late", NOW + 10 * S_US) and attempts.allowed("later", NOW + 10 * S_US)
    attempts.on_failed("late", NOW + 10 * S_US)
    assert not attempts.allowed("late", NOW + 10 * S_US)
    assert attempts.allowed("later", NOW + 10 * S_US), "it has a place of its own again"
