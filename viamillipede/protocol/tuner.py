"""How many legs an address gets when the user leaves it to us: more while that makes it faster.

An address starts with a few legs. While all of them are busy (the network is what limits, not the
source or rx's output) and their round trips show no queue (the network's, too, has nothing left to
carry when one stands), the number is doubled, round by round; when a round was not faster than the
one before, the number before is taken and kept. On a long road without a queue legs are slow because
they meet losses, and are just losing what slow start had won: there the rate of one round says little,
and the number is doubled all the same, as long as each leg has a few segments in flight. States of an
address:

    growing --not faster, a queue, or legs idle--> settled
    settled --all busy, no queue--> growing, unless that was in vain less than PROBE_US ago
    settled --a queue, after TRY_US--> growing once: a network that throttles connections one by one queues them, too
    settled --slower than it was--> growing
    settled --now and then--> shrinking (half as many) --slower--> settled as before
                                                       --as fast--> settled with fewer
    settled --nothing to send for IDLE_US--> settled with one leg

A round lasts several of the address's round trips, and its second half is what is measured: new
legs must be dialled, accepted and out of slow start by then.
"""

from enum import Enum

from viamillipede.config import KIB, MIB, MS_US, S_US, THREADS_AUTO_MAX, THREADS_MAX

LEGS_START = 8  # of all addresses ...
LEGS_START_MIN = 4  # ... but of each at least
ROUND_US_MIN = 400 * MS_US
ROUND_US_MAX = 2 * S_US
ROUND_TRIPS = 3
QUEUE_US_MIN = 5 * MS_US
LONG_US = 5 * MS_US  # a round trip that would show a queue: without one, legs are slow because they meet losses
FLIGHT_BYTES_MIN = 8 * KIB  # per leg and round trip: with less, losses cost a leg a timeout and company costs all
QUEUE_SHARE = 5  # a queue that takes more than this part of the round trip: the road is full
BUSY_PERCENT = 50  # of a round: all legs were busy
FASTER_PERCENT = 104  # of the rate before is faster
MUCH_FASTER_PERCENT = 140  # with twice as many: then what queued were single legs, not the road
AS_FAST_PERCENT = 97
SLOWER_PERCENT = 88  # than it was when it settled: the legs have met losses, or the road has changed
UP_PERCENT = 75  # of the legs that are wanted have to be up after a round, or no more can be had
TRY_US = 4 * S_US  # then it is tried once whether a road that seemed full from the start is
SHRINK_US = 5 * S_US  # after that time with one number half of it is tried
PROBE_US = 60 * S_US  # what was in vain is not tried again before this
IDLE_US = 5 * S_US
FORGETS = 128  # the best rate of a settled address is forgotten by this part of it each round: rounds are not equal


class State(Enum):
    """What the tuner does with an address."""

    GROWING = "growing"
    SETTLED = "settled"
    SHRINKING = "shrinking"


class Tuner:
    """One address of so many. `legs` is how many it is to have, `why` says why in a few words."""

    def __init__(self, addresses: int, now_us: int) -> None:
        self.legs_max = max(1, min(THREADS_AUTO_MAX, THREADS_MAX // addresses))
        self.legs = min(max(LEGS_START_MIN, LEGS_START // addresses), self.legs_max)
        self.state = State.GROWING
        self.why = "at the start"
        self._before = (0, 0)  # legs and rate in the round before
        self._rate = 0  # with which it settled
        self._slow_rounds = self._resume_legs = 0
        self._since_us = self._useful_us = now_us
        self._shrink_us = self._grow_us = self._try_us = 0  # not before
        self._trying = False  # to grow although the road seems full
        self._round_us = ROUND_US_MIN
        self._middle_up = 0  # legs, in the middle of the round
        self._began_us = 0  # the first round begins with the first leg

    def __repr__(self) -> str:
        return f"<Tuner {self.legs} legs, {self.state.value}: {self.why}>"

    def _begin(self, now_us: int, delivered: int) -> None:
        self._began_us, self._middle_us = now_us, 0
        self._mark = delivered
        self._ticks = self._busy_ticks = self._queue_ticks = 0

    def on_tick(self, delivered: int, up: int, busy: bool, rtt_us: int, queue_us: int, now_us: int) -> None:
        """To be called every TICK_US while the address has legs.

        delivered: bytes brought so far. up: how many legs there are. busy: all of them are, though there is more
        to send and rx takes it. rtt_us: the legs' round trip, of which queue_us are spent in queues; 0 when unknown.
        """
        if not self._began_us:
            self._begin(now_us, delivered)
        self._ticks += 1
        self._busy_ticks += busy
        self._queue_ticks += queue_us > QUEUE_US_MIN and QUEUE_SHARE * queue_us > rtt_us
        if delivered != self._mark or busy:
            self._useful_us = now_us
        if not self._before[0]:  # in the first round the round trip is not known from the start
            self._round_us = max(self._round_us, min(ROUND_TRIPS * rtt_us, ROUND_US_MAX))
        elapsed_us = now_us - self._began_us
        if not self._middle_us and 2 * elapsed_us >= self._round_us:
            self._middle_us, self._mark, self._middle_up = now_us, delivered, up
        if elapsed_us < self._round_us or not self._middle_us or now_us == self._middle_us:
            return
        rate = (delivered - self._mark) * S_US // (now_us - self._middle_us)
        saturated = 100 * self._busy_ticks >= BUSY_PERCENT * self._ticks
        full = 100 * self._queue_ticks >= BUSY_PERCENT * self._ticks
        self._round_us = min(max(ROUND_US_MIN, ROUND_TRIPS * rtt_us), ROUND_US_MAX)
        self._begin(now_us, delivered)
        if 100 * up < UP_PERCENT * self.legs and self.state is State.GROWING and self._before[0]:
            if up > self._middle_up:
                return  # they are coming: another round
            self._settle(max(up, 1), rate, f"of {self.legs} only {up} came up", now_us)
            self._grow_us = now_us + PROBE_US
        elif self.state is State.GROWING:
            self._grown(rate, saturated, full, rtt_us, now_us)
        elif self.state is State.SHRINKING:
            self._shrunk(rate, saturated, now_us)
        else:
            self._settled(rate, saturated, full, now_us)

    def _grown(self, rate: int, saturated: bool, full: bool, rtt_us: int, now_us: int) -> None:
        """Previous states: settled, growing. Next: growing, settled."""
        legs, rate_before = self._before
        faster = 100 * rate >= FASTER_PERCENT * rate_before
        if not saturated:
            self._settle(self.legs, rate, "they are not all busy", now_us)
        elif full and not (self._trying and 100 * rate >= MUCH_FASTER_PERCENT * rate_before):
            self._settle(legs if self._trying else self.legs, rate, f"{_spell(rate)} fill the road", now_us)
            self._try_us = now_us + (PROBE_US if legs else TRY_US)
        elif not faster and (rtt_us < LONG_US or rate * rtt_us // S_US < self.legs * FLIGHT_BYTES_MIN):
            why = f"{self.legs} brought {_spell(rate)}, {legs} had brought {_spell(rate_before)}"
            self._settle(legs, rate_before, why, now_us)
            self._grow_us = now_us + PROBE_US
        elif self.legs >= self.legs_max:
            self._settle(self.legs, rate, "the most there may be", now_us)
        else:
            self._grow(rate)

    def _grow(self, rate: int) -> None:
        self.state, self._before = State.GROWING, (self.legs, rate)
        self.legs = min(2 * self.legs, self.legs_max)
        self.why = f"{self._before[0]} brought {_spell(rate)}, do more bring more?"

    def _settle(self, legs: int, rate: int, why: str, now_us: int) -> None:
        self.state, self.legs, self._rate, self.why = State.SETTLED, legs, rate, why
        self._since_us, self._slow_rounds = now_us, 0

    def _settled(self, rate: int, saturated: bool, full: bool, now_us: int) -> None:
        """Previous states: any. Next: settled, growing, shrinking."""
        if not saturated:
            self._slow_rounds = 0
            if now_us - self._useful_us >= IDLE_US and self.legs > 1:
                self._resume_legs = self.legs
                self._settle(1, 0, "nothing to carry", now_us)
            return
        if not self._rate and self._resume_legs:
            self._settle(self._resume_legs, rate, "as many as before the pause", now_us)
            return
        self._slow_rounds = self._slow_rounds + 1 if 100 * rate < SLOWER_PERCENT * self._rate else 0
        may_grow = now_us >= self._grow_us or self._slow_rounds >= 2
        self._rate = max(self._rate - self._rate // FORGETS, rate)
        if (now_us >= self._try_us if full else may_grow) and self.legs < self.legs_max:
            self._trying = full
            self._grow(rate)
        elif self.legs > 1 and now_us >= max(self._since_us + SHRINK_US, self._shrink_us):
            self.state, self._before = State.SHRINKING, (self.legs, rate)
            self.legs //= 2
            self._round_us = ROUND_US_MAX  # legs that meet losses become slower one by one
            self.why = f"{self._before[0]} brought {_spell(rate)}, do fewer bring as much?"

    def _shrunk(self, rate: int, saturated: bool, now_us: int) -> None:
        """Previous state: settled. Next: settled."""
        legs, rate_before = self._before
        if saturated and 100 * rate >= AS_FAST_PERCENT * rate_before:
            self._settle(self.legs, rate, f"as fast as {legs}", now_us)
            self._grow_us = now_us + PROBE_US
        elif not saturated:
            self._settle(legs, rate_before, "they are not all busy", now_us)
        else:
            why = f"{self.legs} brought only {_spell(rate)}, {legs} had brought {_spell(rate_before)}"
            self._shrink_us = now_us + PROBE_US
            self._settle(legs, rate_before, why, now_us)


def _spell(rate: int) -> str:
    return f"{rate / MIB:.1f} MiB/s"
