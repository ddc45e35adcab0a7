"""TCP as the core sees it: in order, or cut. Bytes arrive in random pieces, after a delay, at a rate.

A stream is one direction of a connection: tx's socket buffer -> the wire -> rx's socket buffer. An
unread receive buffer blocks the sender, as flow control does. A fault strikes at an exact byte.
"""

import random
from collections.abc import Callable
from functools import partial
from typing import Protocol

from viamillipede.config import S_US


class Clock(Protocol):
    """Virtual time."""

    now_us: int

    def after(self, delay_us: int, step: Callable[[], None]) -> None:
        """Do `step` in `delay_us`."""


class Stream:
    """One direction of a connection. `on_readable` and `on_writable` are called as poll would tell."""

    def __init__(self, clock: Clock, rng: random.Random, rate: int, delay_us: int, send_bytes: int,
                 receive_bytes: int, low_water_bytes: int, piece_bytes: int) -> None:  # fmt: skip
        self._clock, self._rng = clock, rng
        self.rate, self._delay_us, self._piece_bytes = rate, delay_us, piece_bytes
        self._send_bytes, self._receive_bytes, self._low_water = send_bytes, receive_bytes, low_water_bytes
        self._unsent, self._here = bytearray(), bytearray()
        self._in_flight = 0
        self._link_busy = False
        self.sent_bytes = 0  # bytes that left the sender, ever
        self.fault_at: int | None = None  # the byte before which `on_fault` is called
        self.on_fault: Callable[[], None] = lambda: None
        self.on_readable: Callable[[], None] = lambda: None
        self.on_writable: Callable[[], None] = lambda: None
        self.moved_us = clock.now_us  # when something left last, or could have
        self.hole = False  # nothing leaves any more
        self.corrupt_next = False
        self.ending = False  # no byte follows those in flight
        self.ended = False  # the receiver has been told so
        self.cut = False  # reset: everything is lost

    # ---- the sender -----------------------------------------------------------------------------
    def send(self, data: memoryview | bytes, may_corrupt: bool) -> int:
        """How many bytes the socket took. Corruption strikes only what the receiver can notice."""
        count = min(len(data), self._send_bytes - len(self._unsent) - self._in_flight)
        if count <= 0 or self.cut or self.ending or len(self._unsent) >= self._low_water:
            return 0
        taken = bytearray(data[:count])
        if self.corrupt_next and may_corrupt:
            self.corrupt_next = False
            taken[self._rng.randrange(count)] ^= 1 << self._rng.randrange(8)
        if not self.unacked_bytes():
            self.moved_us = self._clock.now_us  # there was nothing to move before
        self._unsent += taken
        self._transmit()
        return count

    def limit_unsent(self, count: int) -> None:
        """Not here: the link's own limit was drawn."""

    def writable(self) -> bool:
        """As poll tells with TCP_NOTSENT_LOWAT."""
        return len(self._unsent) < self._low_water and len(self._unsent) + self._in_flight < self._send_bytes

    def unacked_bytes(self) -> int:
        """What the sender's kernel still holds."""
        return len(self._unsent) + self._in_flight

    def close(self) -> None:
        """The sender closes in order: what it sent arrives, then the end."""
        if not self._unsent:
            self._end()
        else:
            self.fault_at, self.on_fault = self.sent_bytes + len(self._unsent), self._end

    def end_here(self) -> None:
        """What is in flight arrives, the rest is lost, then comes the end."""
        self._unsent.clear()
        self._end()

    def _end(self) -> None:
        if not self.ending:
            self.ending = True
            self._clock.after(self._delay_us, self._tell_end)

    def _tell_end(self) -> None:
        if not self.cut and not self.hole:
            self.ended = True
            self.on_readable()

    def reset(self) -> None:
        """Everything that was not read is lost, on both ends and between them."""
        self.cut = True
        self._unsent.clear()
        self._here.clear()

    def resume(self) -> None:
        """After a hole, or a change of the rate."""
        self._transmit()
        if self.ending and not self.ended:
            self._clock.after(self._delay_us, self._tell_end)

    # ---- the wire -------------------------------------------------------------------------------
    def _transmit(self) -> None:
        if self._link_busy or self.hole or self.cut:
            return
        if self.fault_at is not None and self.sent_bytes >= self.fault_at:
            self.fault_at = None
            self.on_fault()
            if self.hole or self.cut:
                return
        count = min(len(self._unsent), self._receive_bytes - self._in_flight - len(self._here))
        if count <= 0:
            return
        largest = self._piece_bytes if self._rng.random() < 0.9 else 60
        largest = min(largest, max(self.rate // 5, 100))  # a slow link is busy with one packet, not with a buffer
        count = min(count, self._rng.randint(1 + largest // 2, largest))
        if self.fault_at is not None:
            count = min(count, self.fault_at - self.sent_bytes)
        data = bytes(self._unsent[:count])
        del self._unsent[:count]
        self.sent_bytes += count
        self._in_flight += count
        self._link_busy = True
        self.moved_us = self._clock.now_us
        busy_us = count * S_US // self.rate + 1
        self._clock.after(busy_us, self._link_free)
        self._clock.after(busy_us + self._delay_us, partial(self._arrive, data))

    def _link_free(self) -> None:
        self._link_busy = False
        self._transmit()
        if not self.cut and self.writable():
            self.on_writable()

    def _arrive(self, data: bytes) -> None:
        self._in_flight -= len(data)
        if self.cut:
            return
        self._here += data
        self.on_readable()
        self._transmit()
        if not self.cut and self.writable():
            self.on_writable()

    # ---- the receiver ---------------------------------------------------------------------------
    def receive(self, count_max: int) -> bytes:
        """Up to so many bytes; b"" when there are none: see `ended` and `cut`."""
        data = bytes(self._here[:count_max])
        del self._here[:count_max]
        if data:
            self._transmit()
        return data

    def readable_bytes(self) -> int:
        """What the receiver's kernel holds."""
        return len(self._here)


class Connection:
    """Both directions of one leg's TCP connection, which has been established."""

    def __init__(self, leg: int, key: int, forward: Stream, back: Stream) -> None:
        self.leg, self.key, self.forward, self.back = leg, key, forward, back
        self.broken = False  # by a reset: whoever touches it next notices

    def reset(self) -> None:
        """Both ends will notice; everything that was not read is lost."""
        self.broken = True
        self.forward.reset()
        self.back.reset()

    def round_trip_us(self) -> tuple[int, int]:
        """The kernel's smoothed and its least round trip; here it does not tell."""
        return 0, 0

    def streams(self) -> tuple[Stream, Stream]:
        """tx -> rx, rx -> tx."""
        return self.forward, self.back
