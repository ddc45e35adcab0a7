"""Is the part of the window that is in use too small? Legs that are idle only because it is full say so.

A busy machine alone stops them for a moment, so it takes WINDOW_STALL_US of standing still within
WINDOW_STALL_PERIOD_US. While rx waits for its output a larger window would bring nothing.
"""

from viamillipede.config import WINDOW_STALL_PERIOD_US, WINDOW_STALL_US


class Stalls:
    """The time that was lost to a full window."""

    def __init__(self, now_us: int) -> None:
        self._full_since_us: int | None = None
        self._period_us = now_us  # when it began
        self._stalled_us = 0  # in this period

    def on_full(self, now_us: int) -> None:
        """Legs are idle, and the window is full."""
        if self._full_since_us is None:
            self._full_since_us = now_us

    def on_room(self) -> None:
        """The window has room."""
        self._full_since_us = None

    def too_small(self, output_blocked: bool, now_us: int) -> bool:
        """Whether it has been standing still for too long; what has been counted is forgotten then."""
        if self._full_since_us is None or output_blocked:
            return False
        stalled_us, self._full_since_us = now_us - self._full_since_us, now_us
        if now_us - self._period_us > WINDOW_STALL_PERIOD_US:
            self._period_us, self._stalled_us = now_us, 0
        self._stalled_us += stalled_us
        if self._stalled_us < WINDOW_STALL_US:
            return False
        self._stalled_us = 0
        return True
