"""Which leg is dialled next and where: scouts, the first round, doubted legs, dead homes."""

import random
from dataclasses import dataclass

import pytest

from viamillipede.config import DIAL_FIRST, SETUPS_MAX, Address
from viamillipede.protocol.address_book import AddressBook
from viamillipede.protocol.dialling import Dialling


@dataclass
class Leg:
    """A leg that is up."""

    rank: int
    doubted: bool = False


class Caller:
    """Dialling with the legs that are up. `contacted`: a leg was up once."""

    def __init__(self, *targets: int, moving: bool = True, contacted: bool = True) -> None:
        self.book = AddressBook(tuple(Address(name, 1) for name in "abcdefgh"[: len(targets)]))
        self.dialling = Dialling(self.book, targets, moving)
        self.legs: dict[int, Leg] = {}
        self.contacted = contacted

    def dials(self, now_us: int = 0) -> list[tuple[int, int]]:
        """Everything that is to be dialled now."""
        found = []
        while (wanted := self.dialling.next(self.legs, self.contacted, now_us)) is not None:
            found.append(wanted)
            assert len(found) <= 4096, "the same leg again and again"
        return found

    def succeed(self, leg: int) -> None:
        """The attempt brought a leg."""
        rank = self.dialling.under_way[leg]
        self.dialling.on_over(leg)
        self.book.on_accepted(rank)
        self.legs[leg] = Leg(rank)
        self.contacted = True

    def fail(self, leg: int, now_us: int = 0) -> int:
        """It did not; when the address may be dialled again."""
        rank = self.dialling.under_way[leg]
        self.dialling.on_over(leg)
        self.book.on_failed(rank, "no answer", False, now_us, 0.5)
        return self.book.states[rank].retry_us

    def settle(self, now_us: int = 0) -> None:
        """Every attempt succeeds, until there is nothing more to dial."""
        while self.dials(now_us) or self.dialling.under_way:
            for leg in list(self.dialling.under_way):
                self.succeed(leg)


def homes(dials: list[tuple[int, int]], count: int) -> list[int]:
    """How many legs were dialled at each address."""
    return [sum(rank == each for _, rank in dials) for each in range(count)]


# Legs and their homes -----------------------------------------------------------------------------------


def test_legs_are_at_home_in_turn_and_wanted_up_to_the_target_of_their_home() -> None:
    dialling = Caller(3, 1, 0).dialling
    assert [dialling.home(leg) for leg in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert [leg for leg in range(30) if dialling.wanted(leg)] == [0, 1, 3, 6]


def test_an_address_is_alive_while_a_leg_to_it_is_up_that_nobody_doubts() -> None:
    caller = Caller(2, 2, 2)
    caller.legs = {0: Leg(0, True), 3: Leg(0), 1: Leg(1, True)}
    assert caller.dialling.alive(caller.legs) == [True, False, False]


# The first contact --------------------------------------------------------------------------------------


def test_before_anything_is_known_every_address_gets_a_round() -> None:
    caller = Caller(3, 20, contacted=False)
    dials = caller.dials()
    assert homes(dials, 2) == [3, DIAL_FIRST]
    assert all(caller.dialling.home(leg) == rank for leg, rank in dials)
    assert len({leg for leg, _ in dials}) == len(dials)


def test_after_the_first_failure_only_the_scout_is_dialled() -> None:
    caller = Caller(20, contacted=False)
    dials = caller.dials()
    retry_us = max(caller.fail(leg) for leg, _ in dials)
    assert caller.dials(retry_us - 1) == []
    assert caller.dials(retry_us) == [(0, 0)]
    assert caller.dials(retry_us) == []  # it is under way
    retry_us = caller.fail(0, retry_us)
    assert caller.dials(retry_us) == [(0, 0)]


def test_the_scout_is_not_dialled_twice_while_the_first_round_is_under_way() -> None:
    caller = Caller(20, contacted=False)
    dials = caller.dials()
    assert dials[0] == (0, 0)
    retry_us = caller.fail(5)
    assert caller.dials(retry_us) == []
    for leg, _ in dials:
        if leg != 5:
            caller.dialling.on_over(leg)
    assert caller.dials(retry_us) == [(0, 0)]


def test_once_there_was_contact_an_address_of_which_nothing_is_known_gets_its_scout() -> None:
    caller = Caller(4, 4)
    caller.legs = {0: Leg(0)}
    assert homes(caller.dials(), 2) == [3, 1]


# All that is wanted, ramped -----------------------------------------------------------------------------


def test_a_limited_number_of_connections_is_set_up_at_a_time() -> None:
    caller = Caller(200)
    assert caller.dials() == [(0, 0)]
    caller.succeed(0)
    dials = caller.dials()
    assert len(dials) == SETUPS_MAX
    for number, (leg, _) in enumerate(dials):
        caller.succeed(leg)
        assert len(caller.dials()) == 1, number
    caller.settle()
    assert sorted(caller.legs) == list(range(200))
    assert caller.dials() == [] and caller.dialling.surplus(caller.legs) == []


def test_the_limit_holds_for_each_address() -> None:
    caller = Caller(100, 100)
    caller.legs = {0: Leg(0), 1: Leg(1)}
    assert homes(caller.dials(), 2) == [SETUPS_MAX, SETUPS_MAX]


def test_a_leg_that_is_lost_is_dialled_again() -> None:
    caller = Caller(3, 3)
    caller.settle()
    del caller.legs[2]
    assert caller.dials() == [(2, 0)]
    caller.succeed(2)
    caller.dialling.targets[1] = 4  # more are wanted
    assert caller.dials() == [(7, 1)]


def test_an_address_that_must_wait_is_not_dialled() -> None:
    caller = Caller(3, 3)
    caller.settle()
    caller.book.on_cut(0, 0, 0.5)
    del caller.legs[2], caller.legs[3]
    assert caller.dials() == [(3, 1)]
    assert caller.dials(caller.book.states[0].retry_us) == [(2, 0)]


# Doubted legs, dead homes -------------------------------------------------------------------------------


def test_beside_the_doubted_legs_of_an_address_its_scout_alone_is_tried() -> None:
    caller = Caller(3, 3)
    caller.settle()
    for leg in (1, 3, 5):
        caller.legs[leg].doubted = True
    assert caller.dials() == [(1, 1)]
    caller.succeed(1)
    assert caller.dials() == []  # the address is alive, and the others may still come back
    del caller.legs[3]
    assert caller.dials() == [(3, 1)]


def test_beside_a_doubted_leg_nothing_is_tried_while_others_are_up() -> None:
    caller = Caller(3)
    caller.settle()
    for leg in (0, 1):
        caller.legs[leg].doubted = True
        assert caller.dials() == []
    caller.legs[2].doubted = True
    assert caller.dials() == [(0, 0)]


def dead_home(moving: bool = True) -> tuple[Caller, int]:
    """Three addresses, of which the first two are gone; when the second may be dialled again."""
    caller = Caller(3, 3, 3, moving=moving)
    caller.settle()
    for leg in (0, 1, 3, 4, 6, 7):
        del caller.legs[leg]
    dials = caller.dials()
    assert [dial for dial in dials if dial[1] != 2] == [(0, 0), (1, 1)]
    return caller, caller.fail(1)


def test_legs_whose_home_does_not_answer_go_to_the_most_preferred_address_that_is_alive() -> None:
    caller, retry_us = dead_home()
    assert caller.dialling.under_way == {0: 0, 3: 2, 6: 2, 4: 2, 7: 2}
    for leg in (3, 4, 6):
        caller.succeed(leg)
    assert caller.dials(retry_us) == [(1, 1)]
    caller.succeed(0)
    caller.fail(7)
    assert caller.dials() == [(7, 0)]  # better than the third


def test_legs_do_not_leave_a_home_of_which_nothing_is_known_yet() -> None:
    caller = Caller(3, 3)
    caller.legs = {1: Leg(1), 3: Leg(1), 5: Leg(1)}
    assert caller.dials() == [(0, 0)]
    caller.fail(0)
    assert caller.dials() == [(2, 1), (4, 1)]


def test_legs_stay_at_home_when_they_are_not_to_move() -> None:
    caller, _ = dead_home(moving=False)
    assert caller.dials() == [] and caller.dialling.under_way == {0: 0}


def test_legs_do_not_move_to_an_address_that_has_not_answered_yet() -> None:
    caller = Caller(3, 3, contacted=False)
    for leg, rank in caller.dials():
        if rank == 0:
            caller.fail(leg)
    assert caller.dials() == [] and set(caller.dialling.under_way) == {1, 3, 5}


def test_a_doubted_leg_is_not_sent_elsewhere_before_it_is_given_up() -> None:
    caller = Caller(2, 2)
    caller.settle()
    caller.legs[0].doubted = caller.legs[2].doubted = True
    assert caller.dials() == [(0, 0)]
    caller.fail(0)
    assert caller.dials() == []
    del caller.legs[2]
    assert caller.dials() == [(2, 1)]


def test_legs_go_home_when_it_is_back() -> None:
    caller, retry_us = dead_home()
    for leg in (3, 4, 6, 7):
        caller.succeed(leg)
    assert caller.dialling.surplus(caller.legs) == []
    caller.fail(0)
    assert caller.dials(retry_us) == [(0, 0), (1, 1)]
    caller.succeed(1)
    assert sorted(caller.dialling.surplus(caller.legs)) == [4, 7]
    caller.legs[1].doubted = True
    assert caller.dialling.surplus(caller.legs) == []  # not quite
    caller.legs[1].doubted = False
    del caller.legs[4]
    assert caller.dials(retry_us) == [(4, 1)]


def test_what_is_not_wanted_any_more_is_surplus() -> None:
    caller = Caller(3, 3)
    caller.settle()
    caller.dialling.targets[:] = [1, 2]
    assert sorted(caller.dialling.surplus(caller.legs)) == [2, 4, 5]
    del caller.legs[2]
    assert caller.dials() == []


# Any history --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(50))
def test_whatever_happens_all_that_is_wanted_comes_up_in_the_end(seed: int) -> None:
    chance = random.Random(seed)
    caller = Caller(*(chance.randrange(1, 30) for _ in range(chance.randrange(1, 5))), contacted=False)
    dialling, dead, now_us = caller.dialling, set[int](), 0
    count = len(dialling.targets)
    for _ in range(200):
        now_us += chance.randrange(50_000)
        before = set(dialling.under_way)
        for leg, rank in caller.dials(now_us):
            assert dialling.wanted(leg) and leg not in before and caller.book.states[rank].retry_us <= now_us
            assert leg not in caller.legs or caller.legs[leg].doubted
            assert rank == dialling.home(leg) or (leg >= count and dialling.alive(caller.legs)[rank])
        assert all(load <= SETUPS_MAX for load in homes(list(dialling.under_way.items()), count))
        for leg, rank in list(dialling.under_way.items()):
            if chance.random() < 0.2:
                caller.fail(leg, now_us) if rank in dead else caller.succeed(leg)
        if chance.random() < 0.1:
            dead ^= {chance.randrange(count)}
        surplus = set(dialling.surplus(caller.legs))
        for leg, state in list(caller.legs.items()):
            if leg in surplus or (state.doubted and chance.random() < 0.3):
                del caller.legs[leg]
            else:
                state.doubted = state.rank in dead
    for leg in list(dialling.under_way):
        caller.fail(leg, now_us)
    for rounds in range(3):
        now_us += 10_000_000
        caller.legs = {leg: state for leg, state in caller.legs.items() if not state.doubted}
        caller.settle(now_us)
        for leg in dialling.surplus(caller.legs):
            del caller.legs[leg]
        assert rounds < 2 or all(dialling.home(leg) == state.rank for leg, state in caller.legs.items())
    assert sorted(caller.legs) == [leg for leg in range(count * 30) if dialling.wanted(leg)]
