"""Which leg is dialled next, and where: the legs that are wanted, ramped, and tried again.

Leg i is at home at address i modulo the number of addresses. The first leg of an address is its
scout. An address is *alive* while a leg to it is up that nobody doubts. To one that is not, the scout
alone is dialled, beside the leg that may still come back; to one that is, all that are missing, but at
most SETUPS_MAX connections are being set up at a time. Before the first contact every address gets
one round of DIAL_FIRST legs; with a key its scout alone, since the others prove that they belong to a
leg that is up. With a fixed number of legs, those whose home is dead dial the most preferred address
that is alive; they go home when it is back.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from viamillipede.config import DIAL_FIRST, SETUPS_MAX
from viamillipede.protocol.address_book import AddressBook


class Leg(Protocol):
    """What must be known of a leg that is up."""

    rank: int
    doubted: bool


class Dialling:
    """`targets`: how many legs are wanted at each address. `moving`: legs whose home is dead go elsewhere.

    scouts: before the first contact every address gets its scout alone.
    """

    def __init__(self, book: AddressBook, targets: Sequence[int], moving: bool, scouts: bool = False) -> None:
        self.book, self.targets, self.moving, self._scouts = book, list(targets), moving, scouts
        self.under_way: dict[int, int] = {}  # leg -> rank

    def home(self, leg: int) -> int:
        """The rank of the address at which `leg` is at home."""
        return leg % len(self.targets)

    def wanted(self, leg: int) -> bool:
        """Whether there is to be such a leg."""
        return leg // len(self.targets) < self.targets[self.home(leg)]

    def alive(self, legs: Mapping[int, Leg]) -> list[bool]:
        """Of each address, whether it has a leg that nobody doubts."""
        alive = [False] * len(self.targets)
        for leg in legs.values():
            alive[leg.rank] |= not leg.doubted
        return alive

    def next(self, legs: Mapping[int, Leg], contacted: bool, now_us: int) -> tuple[int, int] | None:
        """(leg, rank of the address) to dial now; it is under way until `on_over`. None: nothing for now."""
        alive = self.alive(legs)
        for rank, state in enumerate(self.book.states):
            if state.retry_us > now_us:
                continue
            under_way = sum(each == rank for each in self.under_way.values())
            if alive[rank]:
                limit = SETUPS_MAX
            else:
                limit = 1 if contacted or state.failures or self._scouts else DIAL_FIRST
            if under_way >= limit:
                continue
            leg = self._missing(rank, legs, scout_only=limit == 1)
            if leg is None and alive[rank] and self.moving:
                leg = self._displaced(alive, legs)
            if leg is not None:
                self.under_way[leg] = rank
                return leg, rank
        return None

    def _missing(self, rank: int, legs: Mapping[int, Leg], scout_only: bool) -> int | None:
        step = len(self.targets)
        for leg in range(rank, step if scout_only else rank + step * self.targets[rank], step):
            if self._is_missing(leg, legs, beside=scout_only):
                return leg
        return None

    def _is_missing(self, leg: int, legs: Mapping[int, Leg], beside: bool) -> bool:
        return leg not in self.under_way and (leg not in legs or (beside and legs[leg].doubted))

    def _displaced(self, alive: Sequence[bool], legs: Mapping[int, Leg]) -> int | None:
        """A leg, no scout, whose home does not answer."""
        step = len(self.targets)
        for home, state in enumerate(self.book.states):
            if not alive[home] and (state.failures or state.worked):
                for leg in range(home + step, home + step * self.targets[home], step):
                    if self._is_missing(leg, legs, beside=False):
                        return leg
        return None

    def on_over(self, leg: int) -> None:
        """The attempt has ended, one way or the other."""
        del self.under_way[leg]

    def surplus(self, legs: Mapping[int, Leg]) -> list[int]:
        """The legs to retire: not wanted any more, or away from a home that is alive."""
        alive = self.alive(legs)
        return [
            leg
            for leg, state in legs.items()
            if not self.wanted(leg) or (state.rank != self.home(leg) and alive[self.home(leg)])
        ]
