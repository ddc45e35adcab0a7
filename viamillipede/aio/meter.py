"""How fast it goes."""

from viamillipede.aio.clock import now_us
from viamillipede.config import S_US


class Meter:
    """The rate of the last seconds, and when the last progress was, from samples of a byte count."""

    def __init__(self) -> None:
        self.rate = 0  # bytes per second
        self.progress_us = 0  # when the count was last seen to have grown
        self._count = 0
        self._bytes = 0
        self._since_us = now_us()

    def sample(self, count: int, now: int) -> None:
        """The count is `count` now."""
        if count != self._count:
            self._count, self.progress_us = count, now
        elapsed_us = now - self._since_us
        if elapsed_us >= S_US:
            self.rate = (count - self._bytes) * S_US // elapsed_us
            self._bytes, self._since_us = count, now
