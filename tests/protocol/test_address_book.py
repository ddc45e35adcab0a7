"""When an address may be dialled again, and what is said about one that does not work."""

import pytest

from viamillipede.config import BACKOFF_UNREACHED_US_MAX, BACKOFF_US_MAX, BACKOFF_US_MIN, Address
from viamillipede.protocol.address_book import AddressBook

BEGUN_US = 1000


def book(count: int = 1) -> AddressBook:
    """Addresses a, b, c ... of which nothing is known."""
    return AddressBook(tuple(Address(name, 1) for name in "abcdefgh"[:count]))


def waits_after_failures(count: int, refused: bool) -> list[int]:
    """How long the address must wait after each of so many attempts that failed one after the other."""
    made, now_us, waits = book(), BEGUN_US, []
    for _ in range(count):
        made.on_failed(0, "no", refused, now_us, 0.999999)
        waits.append(made.states[0].retry_us - now_us)
        now_us = made.states[0].retry_us
    assert made.states[0].failures == count
    return waits


@pytest.mark.parametrize(("refused", "limit_us"), [(True, BACKOFF_US_MAX), (False, BACKOFF_UNREACHED_US_MAX)])
def test_back_off_doubles_up_to_its_limit(refused: bool, limit_us: int) -> None:
    waits = waits_after_failures(30, refused)
    expected = [min(limit_us, BACKOFF_US_MIN << i) for i in range(30)]
    assert all(abs(wait - wanted) <= 10 for wait, wanted in zip(waits, expected, strict=True))


def test_a_network_that_is_down_is_tried_more_often_than_a_host_that_refuses() -> None:
    assert waits_after_failures(9, refused=False)[-1] < waits_after_failures(9, refused=True)[-1] // 4


def test_jitter_spreads_over_the_upper_half() -> None:
    waits = []
    for jitter in (0.0, 0.5):
        made = book()
        made.on_failed(0, "refused", True, 0, jitter)
        waits.append(made.states[0].retry_us)
    assert waits == [BACKOFF_US_MIN // 2, BACKOFF_US_MIN * 3 // 4]


def test_attempts_under_way_together_count_once() -> None:
    made = book()
    for _ in range(8):
        made.on_failed(0, "refused", True, BEGUN_US, 0.5)
    retry_us = made.states[0].retry_us
    made.on_failed(0, "no route", False, BEGUN_US + 1, 0.5)
    assert (made.states[0].failures, made.states[0].retry_us) == (1, retry_us)
    assert made.failures() == ["a:1: no route"]  # the latest reason is told all the same
    made.on_failed(0, "refused", True, retry_us, 0.5)
    assert made.states[0].failures == 2


def test_an_answer_ends_the_back_off() -> None:
    made = book(2)
    made.on_failed(0, "refused", True, 0, 0.5)
    made.on_failed(1, "refused", True, 0, 0.5)
    made.on_accepted(0)
    assert [state.retry_us > 0 for state in made.states] == [False, True]
    assert [state.failures for state in made.states] == [0, 1]
    assert [state.worked for state in made.states] == [True, False]
    assert made.failures() == ["b:1: refused"]


def test_every_address_that_failed_is_named() -> None:
    made = AddressBook((Address("a", 1), Address("::1", 2), Address("c", 3)))
    made.on_failed(0, "refused", True, 0, 0.0)
    made.on_failed(1, "timed out", False, 0, 0.0)
    assert made.failures() == ["a:1: refused", "[::1]:2: timed out"]


def test_what_a_receiver_answered_is_not_forgotten() -> None:
    made, said = book(), []
    made.states[0].refusal = "busy"
    made.on_failed(0, "busy", False, 0, 0.0)
    said += made.failures()
    made.on_failed(0, "refused", True, 0, 0.0)
    said += made.failures()
    made.on_accepted(0)
    made.on_failed(0, "refused", True, 0, 0.0)
    said += made.failures()
    assert said == ["a:1: busy", "a:1: refused (before: busy)", "a:1: refused"]


def test_legs_that_are_cut_as_soon_as_they_are_up_make_the_address_wait_longer_and_longer() -> None:
    made, now_us, waits = book(), 0, []
    state = made.states[0]
    for _ in range(8):
        made.on_accepted(0)
        made.on_cut(0, now_us, 0.0)
        made.on_cut(0, now_us, 0.0)  # another leg, at the same time: counts once
        waits.append(state.retry_us - now_us)
        now_us = state.retry_us
    assert waits == [min(BACKOFF_US_MAX, BACKOFF_US_MIN << n) // 2 for n in range(8)]
    made.on_cut(0, now_us, 0.0)
    made.on_accepted(0)
    assert state.retry_us > now_us  # that it answers says nothing new
    made.on_useful(0)
    made.on_accepted(0)
    assert (state.cuts, state.retry_us) == (0, 0)
