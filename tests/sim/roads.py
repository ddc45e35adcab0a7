"""Roads: what the connections to one address share. A bottleneck with a rate, a queue that drops its tail, loss, a
delay; perhaps a cap for each connection; times when nothing comes through, and changes of the rate.

The queue is a virtual clock: a packet that enters knows at once when it leaves. Its end is not sharp, or flows that
move in step would always lose the same packets. Loss strikes behind the queue, and evenly: every so many segments
one is lost, which makes two runs over the same road comparable.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.sim.links import Clock
from viamillipede.config import CONNECT_US, DIAL_AGAIN_US, S_US

SEGMENT = 1448
HEADER_BYTES = 52  # IP and TCP, of each segment
QUEUE_BYTES_MIN = 16 * 1500


@dataclass(frozen=True, slots=True)
class RoadPlan:
    """What a road is like. Rates in bytes per second, headers included; times from the beginning of the world."""

    rate: int
    delay_us: int  # one way
    queue_us: int
    loss: float  # of a segment
    back_rate: int
    rto_us_max: int = 120 * S_US  # as the kernel has it, or as it can be told
    cap: int = 0  # of each connection; 0: none
    downs: tuple[tuple[int, int], ...] = ()  # (from, to): black hole, both ways
    rates: tuple[tuple[int, int], ...] = ()  # (when, rate from then on)

    def up_us(self, end_us: int) -> int:
        """For how long it is up in [0, end_us)."""
        return end_us - sum(max(0, min(to, end_us) - since) for since, to in self.downs)


class Lane:
    """One direction of a road."""

    def __init__(self, clock: Clock, rng: random.Random, rate: int, plan: RoadPlan) -> None:
        self._clock, self._rng, self._plan = clock, rng, plan
        self.rate, self.delay_us = rate, plan.delay_us
        self._free_us = clock.now_us  # when all that has entered has left
        self._until_lost = self._draw_loss() * rng.random()  # segments
        self.carried_bytes = self.dropped = self.lost = 0

    def _draw_loss(self) -> float:
        return self._rng.uniform(0.5, 1.5) / self._plan.loss if self._plan.loss else float("inf")

    def wire_bytes(self, size: int) -> int:
        """With headers."""
        return size + HEADER_BYTES * -(-size // SEGMENT)

    def wait_us(self) -> int:
        """How long the queue is now."""
        return max(0, self._free_us - self._clock.now_us)

    def carry(self, size: int) -> int | None:
        """How long so many bytes take to the other end; None: they are lost."""
        wire = self.wire_bytes(size)
        queued_us = self.wait_us()
        queue_bytes = max(self._plan.queue_us * self.rate // S_US, QUEUE_BYTES_MIN)
        queued_bytes = queued_us * self.rate // S_US
        if queued_bytes and queued_bytes + wire > queue_bytes * self._rng.uniform(0.8, 1):
            self.dropped += 1
            return None
        passed_us = queued_us + wire * S_US // self.rate
        self._free_us = self._clock.now_us + passed_us
        self._until_lost -= -(-size // SEGMENT)
        if self._until_lost < 0:
            self._until_lost = self._draw_loss()
            self.lost += 1
            return None
        self.carried_bytes += wire
        return passed_us + self.delay_us


class Road:
    """Both directions, and whether anything comes through."""

    def __init__(self, clock: Clock, rng: random.Random, plan: RoadPlan) -> None:
        self.clock, self.plan = clock, plan
        self.cap, self.cap_queue_us = plan.cap, S_US // 4
        self.down = False
        self.there = Lane(clock, rng, plan.rate, plan)
        self.back = Lane(clock, rng, plan.back_rate, plan)
        for since_us, to_us in plan.downs:
            clock.after(since_us, lambda: self._set_down(True))
            clock.after(to_us, lambda: self._set_down(False))
        for at_us, rate in plan.rates:
            clock.after(at_us, lambda rate=rate: self._set_rate(rate))  # type: ignore[misc]

    def _set_down(self, down: bool) -> None:
        self.down = down

    def _set_rate(self, rate: int) -> None:
        self.there.rate = rate

    def round_trip_us(self) -> int:
        """Of a packet that enters now."""
        return self.there.wait_us() + self.there.delay_us + self.back.wait_us() + self.back.delay_us

    def dial(self, established: Callable[[], None], failed: Callable[[], None]) -> None:
        """As the real shell does it: a try every DIAL_AGAIN_US, beside those before; the first that is there counts."""
        ends_us = self.clock.now_us + CONNECT_US
        over = False

        def attempt() -> None:
            nonlocal over
            if over:
                return
            if self.clock.now_us >= ends_us:
                over = True
                failed()
                return
            if not self.down:
                self.clock.after(self.round_trip_us(), answered)
            self.clock.after(DIAL_AGAIN_US, attempt)

        def answered() -> None:
            nonlocal over
            if not over and not self.down:
                over = True
                established()

        attempt()
