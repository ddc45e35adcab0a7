"""Drives a tuner along a road: a function of the number of legs says what the road does in a tick."""

from collections.abc import Callable
from dataclasses import dataclass

from viamillipede.config import MIB, S_US, THREADS_MAX, TICK_US
from viamillipede.protocol.tuner import LONG_US, State, Tuner

SHORT_US = LONG_US - 1
SETTLED_US = 10 * S_US  # by then


@dataclass
class Road:
    """What a road does in a tick: bytes per second, whether all legs are busy, round trip, of which in queues.

    `up`: no more legs than these come up.
    """

    rate: int
    busy: bool = True
    rtt_us: int = 200
    queue_us: int = 0
    up: int = THREADS_MAX


Roads = Callable[[int], Road]  # by the number of legs


class Trip:
    """A tuner on a road, whose legs are there as soon as they are wanted. `changes`: when, and how many then."""

    def __init__(self, addresses: int = 1) -> None:
        self.now_us = 7 * S_US
        self.tuner = Tuner(addresses, self.now_us)
        self.delivered = 0
        self.changes: list[tuple[int, int]] = []
        self.began_us = self.now_us

    def go(self, roads: Roads, duration_us: int, tick_us: int = TICK_US) -> list[int]:
        """Go on for a while; the numbers of legs that were tried, the one at first and the one at last included."""
        numbers = [self.tuner.legs]
        for _ in range(duration_us // tick_us):
            road = roads(self.tuner.legs)
            self.delivered += road.rate * tick_us // S_US
            up = min(road.up, self.tuner.legs)
            self.tuner.on_tick(self.delivered, up, road.busy, road.rtt_us, road.queue_us, self.now_us)
            if self.tuner.legs != numbers[-1]:
                numbers.append(self.tuner.legs)
                self.changes.append((self.now_us, self.tuner.legs))
            assert self.tuner.why and 1 <= self.tuner.legs <= self.tuner.legs_max
            self.now_us += tick_us
        return numbers

    def settled(self, roads: Roads) -> "Trip":
        """It is settled, and no round of another state is left; for the stories of what happens later."""
        self.go(roads, SETTLED_US // 3)
        assert self.tuner.state is State.SETTLED
        return self


def flat(legs: int) -> Road:
    """Near, and as fast with one leg as with many."""
    return Road(10 * MIB)


def source(legs: int) -> Road:
    """There is less to send than any leg would take."""
    return Road(MIB, busy=False)


def empty(legs: int) -> Road:
    """There is nothing to send."""
    return Road(0, busy=False)


def capped(each: int, most: int, rtt_us: int = SHORT_US) -> Roads:
    """Each leg brings so much, all together no more than that."""
    return lambda legs: Road(min(legs * each, most), rtt_us=rtt_us)
