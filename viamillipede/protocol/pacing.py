"""How fast something may go: bytes per second, exact on average, a frame at a time."""

from viamillipede.config import KIB, MS_US, S_US

BURST_US = 100 * MS_US  # what was not used is forgotten after this
FRAME_FRACTION = 10  # a frame takes about a tenth of a second of the limit
FRAME_BYTES_LEAST = 1 * KIB


class Pacer:
    """A limit in bytes per second; 0: none.

    A frame may go as soon as those before it are paid for, and is paid for afterwards (a token bucket
    whose tokens may be owed), so that the limit holds for frames of any size.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._paid_us = 0  # when what was sent will have been paid for

    def ready_us(self) -> int:
        """When the next frame may go."""
        return self._paid_us

    def spend(self, count: int, now_us: int) -> None:
        """`count` bytes go now."""
        if self.limit_bytes:
            cost_us = -(-count * S_US // self.limit_bytes)  # rounded up: the limit is a bound
            self._paid_us = max(self._paid_us, now_us - BURST_US) + cost_us

    def frame_bytes(self, frame_bytes: int) -> int:
        """The size of a frame that would be `frame_bytes` without a limit."""
        if not self.limit_bytes:
            return frame_bytes
        return min(frame_bytes, max(FRAME_BYTES_LEAST, self.limit_bytes // FRAME_FRACTION))
