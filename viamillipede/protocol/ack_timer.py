"""When rx acknowledges: after ACK_DELAY_US, or as soon as enough has arrived or was written."""

from viamillipede.config import ACK_BYTES, ACK_DELAY_US


class AckTimer:
    """Of one stream; `window_bytes`: with a small one less must suffice."""

    def __init__(self, window_bytes: int) -> None:
        self._ack_bytes = min(ACK_BYTES, window_bytes // 4)
        self.deadline_us: int | None = None
        self.arrived_bytes = 0  # in whole frames, whichever
        self._acked_arrived = self._acked_written = 0

    def on_progress(self, written: int, between_frames: bool, now_us: int) -> None:
        """Something has arrived or was written. `written`: in all."""
        arrived = self.arrived_bytes - self._acked_arrived
        if arrived >= self._ack_bytes or written - self._acked_written >= self._ack_bytes:
            self.deadline_us = now_us
        elif self.deadline_us is None and between_frames:
            self.deadline_us = now_us + ACK_DELAY_US

    def due(self, now_us: int) -> bool:
        """Whether it is time."""
        return self.deadline_us is not None and now_us >= self.deadline_us

    def on_acked(self, written: int) -> None:
        """All was said."""
        self.deadline_us = None
        self._acked_arrived, self._acked_written = self.arrived_bytes, written
