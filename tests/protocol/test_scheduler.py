"""The most preferred leg that can take bytes takes the next frame; weights share, limits hold up."""

import random
from typing import Any

import pytest

from viamillipede.config import KIB, MIB, S_US, Address
from viamillipede.protocol.scheduler import BEHIND_BYTES_MAX, Scheduler

NOW_US = 100 * S_US


def scheduler(*terms: dict[str, Any], limit_bytes: int = 0) -> Scheduler:
    """One for addresses on these terms."""
    return Scheduler([Address("h", 1, **each) for each in terms], limit_bytes)


def shares(made: Scheduler, counts: int, size: int = KIB, now_us: int = NOW_US) -> list[int]:
    """Frames of `size` bytes are given to whoever is next, and each leg is idle again at once: bytes by address."""
    given = [0] * len(made.paths)
    for _ in range(counts):
        leg = made.best(now_us)
        assert leg is not None
        rank = next(rank for rank, path in enumerate(made.paths) if leg in path.idle)
        made.on_given(rank, size, now_us)
        given[rank] += size
    return given


# Preference ---------------------------------------------------------------------------------------------


def test_the_first_address_is_filled_first() -> None:
    made, order = scheduler({}, {}, {}), []
    assert made.best(NOW_US) is None and made.legs(NOW_US) == [] and len(made) == 0
    ranks = {0: 1, 7: 0, 3: 0, 1: 2}
    for leg, rank in ranks.items():
        made.add(rank, leg)
    assert made.legs(NOW_US) == [3, 7, 0, 1] and len(made) == 4
    while (leg_now := made.best(NOW_US)) is not None:
        order.append(leg_now)
        made.on_given(ranks[leg_now], MIB, NOW_US)
        made.discard(ranks[leg_now], leg_now)
    assert order == [3, 7, 0, 1] and len(made) == 0


def test_adding_and_discarding_twice_change_nothing() -> None:
    made = scheduler({}, {})
    made.discard(0, 1)
    for _ in range(2):
        made.add(0, 5)
    for rank, leg in [(0, 4), (0, 6), (1, 5)]:
        made.discard(rank, leg)
    assert made.legs(NOW_US) == [5]
    for _ in range(2):
        made.discard(0, 5)
    assert made.legs(NOW_US) == []


def test_an_address_is_saturated_when_none_of_its_legs_can_take_anything() -> None:
    made = scheduler({}, {})
    made.add(1, 1)
    assert [made.saturated(rank) for rank in (0, 1)] == [True, False]


# Weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 16 * KIB, MIB])
def test_neighbours_with_weights_share_by_weight(size: int) -> None:
    made = scheduler({"weight": 3}, {"weight": 1}, {"weight": 2})
    for rank in range(3):
        made.add(rank, rank)
    given = shares(made, 600, size)
    assert all(abs(each - wanted * size) <= 2 * size for each, wanted in zip(given, (300, 100, 200), strict=True))


@pytest.mark.parametrize("weights", [(1000, 600), (1000, 999), (7, 1000), (1, 1000), (1000, 1)])
def test_large_weights_and_small_frames_share_exactly(weights: tuple[int, int]) -> None:
    made = scheduler(*({"weight": weight} for weight in weights))
    for rank in range(2):
        made.add(rank, rank)
    size, counts = KIB + 28, 20_000
    given = shares(made, counts, size)
    for each, weight in zip(given, weights, strict=True):
        assert abs(each - counts * size * weight / sum(weights)) <= 2 * size


def test_a_weight_alone_changes_nothing() -> None:
    made = scheduler({"weight": 5}, {}, {"weight": 1})
    for rank in range(3):
        made.add(rank, rank)
    assert shares(made, 10) == [10 * KIB, 0, 0]
    made.discard(0, 0)
    assert shares(made, 10) == [0, 10 * KIB, 0]
    made.discard(1, 1)
    assert shares(made, 10) == [0, 0, 10 * KIB]


def test_a_full_address_leaves_its_share_to_its_neighbours() -> None:
    """Nobody waits for it: the others share what it cannot take by their own weights."""
    made = scheduler({"weight": 100}, {"weight": 3}, {"weight": 1}, {})
    for rank in (1, 2, 3):
        made.add(rank, rank)
    assert shares(made, 400) == [0, 300 * KIB, 100 * KIB, 0]


def test_an_address_without_a_weight_is_filled_before_what_follows_and_parts_two_groups() -> None:
    made = scheduler({"weight": 1}, {"weight": 1}, {}, {"weight": 1}, {"weight": 3})
    for rank in range(5):
        made.add(rank, rank)
    assert shares(made, 100) == [50 * KIB, 50 * KIB, 0, 0, 0]
    made.discard(0, 0)
    assert shares(made, 10) == [0, 10 * KIB, 0, 0, 0]
    made.discard(1, 1)
    assert shares(made, 10) == [0, 0, 10 * KIB, 0, 0]
    made.discard(2, 2)
    assert shares(made, 100) == [0, 0, 0, 25 * KIB, 75 * KIB]


@pytest.mark.parametrize("weight", [1, 2])
def test_what_an_address_could_not_take_it_gets_later_but_only_a_little(weight: int) -> None:
    """By what it had not been given until then, at most BEHIND_BYTES_MAX, it is ahead of its share afterwards."""
    made = scheduler({"weight": 1}, {"weight": weight})
    made.add(0, 0)
    shares(made, 100, MIB)
    made.add(1, 1)
    made.discard(0, 0)
    shares(made, 1, 1)  # to be among those that take something
    made.add(0, 0)
    given = shares(made, 400, 64 * KIB)
    total = sum(given)
    behind = given[1] - total * weight / (1 + weight)
    assert 0.9 * BEHIND_BYTES_MAX / (1 + weight) <= behind <= 1.1 * BEHIND_BYTES_MAX / (1 + weight)


# Limits -------------------------------------------------------------------------------------------------


def run(made: Scheduler, seconds: int, size: int) -> list[int]:
    """Bytes by address when every leg is always idle."""
    given, now_us = [0] * len(made.paths), NOW_US
    while now_us < NOW_US + seconds * S_US:
        if (leg := made.best(now_us)) is not None:
            rank = next(rank for rank, path in enumerate(made.paths) if leg in path.idle)
            count = made.frame_bytes(rank, size)
            made.on_given(rank, count, now_us)
            given[rank] += count
        else:
            deadline_us = made.deadline_us(now_us)
            assert deadline_us is not None and deadline_us > now_us
            now_us = deadline_us
    return given


@pytest.mark.parametrize("size", [KIB, 64 * KIB, 4 * MIB])
def test_what_a_limited_address_may_not_carry_goes_to_the_next(size: int) -> None:
    made = scheduler({"limit_bytes": MIB}, {"limit_bytes": 2 * MIB})
    made.add(0, 0)
    made.add(1, 1)
    given = run(made, 20, size)
    for count, limit in zip(given, (MIB, 2 * MIB), strict=True):
        assert 20 * limit <= count <= 20 * limit + limit // 2


@pytest.mark.parametrize("size", [KIB, 4 * MIB])
def test_a_limit_of_all_holds_for_all(size: int) -> None:
    made = scheduler({"weight": 1}, {"weight": 1}, {}, limit_bytes=MIB)
    for rank in range(3):
        made.add(rank, rank)
    assert made.deadline_us(NOW_US) is None
    given = run(made, 20, size)
    assert 20 * MIB <= sum(given) <= 20 * MIB + MIB // 2
    assert given[2] == 0 and abs(given[0] - given[1]) <= 2 * size


def test_a_limit_that_was_reached_leaves_nobody_to_ask() -> None:
    made = scheduler({}, {"limit_bytes": MIB}, limit_bytes=4 * MIB)
    made.add(0, 0)
    made.add(1, 1)
    made.on_given(1, MIB, NOW_US)
    assert made.legs(NOW_US) == [] and made.best(NOW_US) is None
    ready_us = made.deadline_us(NOW_US)
    assert ready_us is not None and NOW_US < ready_us <= NOW_US + S_US // 4
    assert made.legs(ready_us) == [0]
    assert made.deadline_us(ready_us) == NOW_US + S_US - S_US // 10  # a tenth of a second had been saved up
    assert made.legs(NOW_US + S_US) == [0, 1]
    made.discard(1, 1)
    assert made.deadline_us(ready_us) is None  # nobody there waits for it


@pytest.mark.parametrize(
    ("limit", "all_limit", "length"),
    [
        (0, 0, MIB),
        (MIB, 0, MIB // 10),
        (0, MIB, MIB // 10),
        (MIB, MIB // 2, MIB // 20),
        (KIB, 0, KIB),
        (1 << 40, 0, MIB),
    ],
)
def test_frames_are_short_where_little_may_go(limit: int, all_limit: int, length: int) -> None:
    made = scheduler({"limit_bytes": limit}, {}, limit_bytes=all_limit)
    assert made.frame_bytes(0, MIB) == length
    assert made.frame_bytes(0, 7) == 7
    assert made.frame_bytes(1, MIB) == (MIB if not all_limit else all_limit // 10)


def test_a_limit_of_the_first_address_is_waited_for_when_there_is_no_other() -> None:
    made = scheduler({"limit_bytes": MIB}, {"limit_bytes": 2 * MIB})
    made.add(0, 0)
    made.add(1, 1)
    assert made.deadline_us(NOW_US) is None
    made.on_given(0, MIB, NOW_US)
    assert made.best(NOW_US) == 1
    made.on_given(1, MIB, NOW_US)
    assert made.best(NOW_US) is None
    ready_us = NOW_US + S_US // 2 - S_US // 10
    assert made.deadline_us(NOW_US) == ready_us  # the other's, which comes first
    assert made.best(ready_us - 1) is None and made.best(ready_us) == 1


def test_a_limited_neighbour_leaves_its_share_to_the_others() -> None:
    made = scheduler({"weight": 3, "limit_bytes": MIB}, {"weight": 1})
    made.add(0, 0)
    made.add(1, 1)
    made.on_given(0, MIB, NOW_US)
    assert shares(made, 10) == [0, 10 * KIB]


def test_a_pause_is_not_made_up_for() -> None:
    made = scheduler({"limit_bytes": MIB})
    made.add(0, 0)
    run(made, 2, 16 * KIB)
    given, now_us = 0, NOW_US + 1000 * S_US
    while made.best(now_us) is not None:
        made.on_given(0, 16 * KIB, now_us)
        given += 16 * KIB
    assert MIB // 10 <= given <= MIB // 10 + 2 * 16 * KIB


@pytest.mark.parametrize("seed", range(20))
def test_the_best_is_always_among_those_who_can_and_may(seed: int) -> None:
    chance = random.Random(seed)
    terms = [
        {"weight": chance.choice((0, 1, 5)), "limit_bytes": chance.choice((0, 50 * KIB))}
        for _ in range(chance.randrange(1, 6))
    ]
    made, now_us, idle = scheduler(*terms, limit_bytes=chance.choice((0, MIB))), NOW_US, set[tuple[int, int]]()
    for _ in range(500):
        now_us += chance.randrange(10_000)
        rank = chance.randrange(len(terms))
        leg = rank + len(terms) * chance.randrange(4)
        if chance.random() < 0.5:
            made.add(rank, leg)
            idle.add((rank, leg))
        else:
            made.discard(rank, leg)
            idle.discard((rank, leg))
        best, legs = made.best(now_us), made.legs(now_us)
        assert (best is None) == (not legs) and (best is None or best in legs)
        assert set(legs) <= {leg for _, leg in idle} and len(made) == len(idle)
        assert made.legs(1 << 62) == [leg for _, leg in sorted(idle)]
        if best is not None:
            made.on_given(best % len(terms), chance.randrange(1, 20 * KIB), now_us)
        elif idle:
            assert made.deadline_us(now_us) is not None
