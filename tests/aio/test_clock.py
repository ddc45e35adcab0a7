"""The shell's clock: microseconds, the monotonic clock's, fine enough for round trips."""

import time
from itertools import pairwise

from viamillipede.aio.clock import now_us


def test_it_is_the_monotonic_clock_in_microseconds() -> None:
    before, now, after = time.monotonic_ns(), now_us(), time.monotonic_ns()
    assert isinstance(now, int)
    assert before // 1000 <= now <= after // 1000


def test_it_moves_in_steps_far_below_a_millisecond() -> None:
    samples = [now_us()]
    while samples[-1] < samples[0] + 2_000:
        samples.append(now_us())
    assert samples == sorted(samples)
    steps = [later - earlier for earlier, later in pairwise(samples) if later > earlier]
    assert sorted(steps)[len(steps) // 2] < 500
