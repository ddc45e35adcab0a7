"""The clock of the shell. uvloop's own moves in steps of a millisecond, too coarse for round trips."""

import time


def now_us() -> int:
    """Microseconds since some point in the past; never goes back, and does not care what the wall clock does."""
    return time.monotonic_ns() // 1000
