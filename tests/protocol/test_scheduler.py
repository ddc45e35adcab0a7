"""The most preferred idle leg takes the next frame."""

import pytest

from viamillipede.protocol.scheduler import Scheduler


def test_the_first_address_is_filled_first() -> None:
    scheduler = Scheduler()
    assert scheduler.best() is None
    for rank, leg in [(1, 0), (0, 7), (0, 3), (2, 1)]:
        scheduler.add(rank, leg)
    order = []
    while (leg_now := scheduler.best()) is not None:
        order.append(leg_now)
        scheduler.discard({0: 1, 7: 0, 3: 0, 1: 2}[leg_now], leg_now)
    assert order == [3, 7, 0, 1]
    assert len(scheduler) == 0


def test_excluded_legs_are_passed_over() -> None:
    scheduler = Scheduler()
    for leg in range(3):
        scheduler.add(0, leg)
    assert scheduler.best({0}) == 1
    assert scheduler.best([0, 1]) == 2
    assert scheduler.best(range(3)) is None
    assert len(scheduler) == 3


def test_discarding_who_is_not_here_changes_nothing() -> None:
    scheduler = Scheduler()
    scheduler.discard(0, 1)
    scheduler.add(0, 5)
    for rank, leg in [(0, 4), (0, 6), (1, 5)]:
        scheduler.discard(rank, leg)
    assert scheduler.best() == 5


def test_adding_twice_is_a_bug() -> None:
    scheduler = Scheduler()
    scheduler.add(0, 5)
    with pytest.raises(AssertionError):
        scheduler.add(0, 5)
