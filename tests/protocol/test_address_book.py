"""Which address a leg dials, and when: preference, back-off, and a dead address that is tried again."""

from viamillipede.config import BACKOFF_US_MAX, BACKOFF_US_MIN, Address
from viamillipede.protocol.address_book import AddressBook


def book(count: int = 3) -> AddressBook:
    """Addresses a, b, c ... of which nothing is known."""
    return AddressBook(tuple(Address(name, 1) for name in "abcdefgh"[:count]))


def test_legs_are_at_home_in_turn() -> None:
    made = book()
    assert [made.home(leg) for leg in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert [made.pick(leg, 50) for leg in range(4)] == [(0, 50), (1, 50), (2, 50), (0, 50)]


def test_back_off_doubles_up_to_its_limit() -> None:
    made, now_us, waits = book(1), 1000, []
    for _ in range(30):
        made.on_failed(0, "refused", now_us, 0.999999)
        rank, at_us = made.pick(0, now_us)
        assert rank == 0
        waits.append(at_us - now_us)
        now_us = at_us
    assert all(abs(wait - min(BACKOFF_US_MAX, BACKOFF_US_MIN << i)) <= 10 for i, wait in enumerate(waits))
    assert made.states[0].failures == 30


def test_jitter_spreads_over_the_upper_half() -> None:
    waits = []
    for jitter in (0.0, 0.5):
        made = book(1)
        made.on_failed(0, "refused", 0, jitter)
        waits.append(made.pick(0, 0)[1])
    assert waits == [BACKOFF_US_MIN // 2, BACKOFF_US_MIN * 3 // 4]


def test_attempts_under_way_together_count_once() -> None:
    made = book(1)
    for _ in range(8):
        made.on_failed(0, "refused", 1000, 0.5)
    assert made.states[0].failures == 1
    made.on_failed(0, "no route", 1001, 0.5)
    assert made.states[0].failures == 1
    assert made.failures() == ["a:1: no route"]  # the latest reason is told all the same


def test_an_answer_ends_the_back_off() -> None:
    made = book(1)
    made.on_failed(0, "refused", 0, 0.5)
    made.on_accepted(0)
    assert made.pick(0, 1) == (0, 1)
    assert made.failures() == []
    assert made.states[0].worked


def test_the_scout_goes_on_dialling_home() -> None:
    made = book(2)
    made.on_accepted(0)
    made.on_failed(1, "refused", 0, 0.0)
    assert made.pick(1, 0) == (1, BACKOFF_US_MIN // 2)


def test_the_others_dial_the_most_preferred_address_that_answers() -> None:
    made = book(3)
    made.on_accepted(1)
    made.on_accepted(2)
    made.on_failed(0, "refused", 0, 0.0)
    assert made.pick(3, 0) == (1, 0)
    assert made.pick(3, BACKOFF_US_MIN) == (0, BACKOFF_US_MIN)  # home is worth a try again
    made.on_failed(1, "reset", 0, 0.0)
    assert made.pick(3, 0) == (2, 0)


def test_when_nobody_answers_the_soonest_is_dialled() -> None:
    made = book(3)
    made.on_failed(0, "refused", 0, 0.9)
    made.on_failed(1, "refused", 0, 0.1)
    made.on_failed(2, "refused", 0, 0.5)
    rank, at_us = made.pick(3, 0)
    assert (rank, at_us) == (1, made.states[1].retry_us)
    assert made.pick(3, made.states[0].retry_us - 1) == (1, made.states[0].retry_us - 1)


def test_every_address_that_failed_is_named() -> None:
    made = AddressBook((Address("a", 1), Address("::1", 2), Address("c", 3)))
    made.on_failed(0, "refused", 0, 0.0)
    made.on_failed(1, "timed out", 0, 0.0)
    assert made.failures() == ["a:1: refused", "[::1]:2: timed out"]


def test_what_a_receiver_answered_is_not_forgotten() -> None:
    made = book(1)
    made.states[0].refusal = "busy"
    made.on_failed(0, "busy", 0, 0.0)
    assert [failure.partition(": ")[2] for failure in made.failures()] == ["busy"]
    made.on_failed(0, "refused", 0, 0.0)
    assert [failure.partition(": ")[2] for failure in made.failures()] == ["refused (before: busy)"]
    made.on_accepted(0)
    made.on_failed(0, "refused", 0, 0.0)
    assert [failure.partition(": ")[2] for failure in made.failures()] == ["refused"]


def test_legs_that_are_cut_as_soon_as_they_are_up_make_the_address_wait_longer_and_longer() -> None:
    made = AddressBook((Address("a", 1),))
    now_us, waits = 0, []
    for _ in range(4):
        made.on_accepted(0)
        made.on_cut(0, now_us, 0.0)
        made.on_cut(0, now_us, 0.0)  # another leg, at the same time: counts once
        _, at_us = made.pick(0, now_us)
        waits.append(at_us - now_us)
        now_us = at_us
    assert waits == [BACKOFF_US_MIN // 2 << n for n in range(4)]
    made.on_cut(0, now_us, 0.0)
    assert made.pick(1, now_us) == made.pick(0, now_us) != (0, now_us)  # also for a leg that is no scout
    made.on_useful(0)
    made.on_accepted(0)
    assert made.pick(0, now_us) == (0, now_us)
