"""One leg at tx as the session sees it: what it carries, how fast, and how long a frame will still take.

A leg is a pipe: what is given to it *drains* in order. Only rx's word that a frame arrived says that
the frame, and all that was given before it, has drained; the kernel's word says merely that the next
host has it, which may be a proxy or a tunnel that hoards megabytes. The rate is sampled as BBR does:
what drained while a frame was on its way, over the time that took (draft-cheng-iccrg-delivery-rate-
estimation), from the latest drain before the frame was given, so that a pause of the source does not count.
"""

from dataclasses import dataclass

from viamillipede.config import KIB, S_US
from viamillipede.protocol.control import ControlDecoder
from viamillipede.protocol.send_window import Frame
from viamillipede.protocol.wire import HEADER_BYTES

FRAME_BYTES_LEAST = 16 * KIB  # also until a leg's rate is known: a throttled leg must not hoard more
FRAME_FRACTION = 20  # a frame occupies its leg for about a twentieth of a second
HOARD_FRAMES = 2  # between the next host's kernel and rx there may be so many: at least a tenth of a second of the leg
UNKNOWN_US = 1 * S_US  # how long a frame takes on a leg that has not brought any


@dataclass(slots=True)
class _Given:
    """A frame in the pipe. `end`: of its bytes, counted over the leg's life; the rest: how it was when given."""

    frame: Frame
    end: int
    given_us: int
    drained_bytes: int
    drained_us: int


class TxLeg:
    """One leg that rx has accepted. Times in microseconds, rate in bytes per second."""

    __slots__ = (
        "_acked_before", "_full_us", "_pipe", "acked_bytes", "busy", "bytes_sent", "decoder", "doubted",
        "drained_bytes", "drained_us",
        "given_bytes", "heard_us", "latency_us", "latest", "leg", "progress_us", "rank", "rate", "retiring",
        "retransmitted",
        "rtt_us", "rtt_us_min", "said_us", "since_us", "unacked_bytes", "useful",
    )  # fmt: skip

    def __init__(self, leg: int, rank: int, now_us: int) -> None:
        self.leg, self.rank, self.since_us = leg, rank, now_us
        self.heard_us = self.progress_us = self.said_us = self.drained_us = now_us
        self.decoder = ControlDecoder()
        self.latest: Frame | None = None  # what it was given last
        self.busy = True  # until on_idle
        self.useful = False  # yet
        self.doubted = False  # nothing was heard of it for a while: others carry copies of its frames
        self.retiring = False  # carries what it has, gets nothing more
        self.bytes_sent = self.retransmitted = self.rate = 0
        self.unacked_bytes = self.acked_bytes = 0  # by the other host's kernel, as ours last told
        self.rtt_us = self.rtt_us_min = 0  # as the kernel last told; 0: unknown
        self.given_bytes = self.drained_bytes = 0
        self.latency_us = 0  # the shortest time from given to arrived, which creeps up when it is not met again
        self._acked_before = self._full_us = 0  # when there was nothing in the pipe last
        self._pipe: dict[int, _Given] = {}  # seq -> what is on its way, oldest first

    # ---- what it carries ------------------------------------------------------------------------
    def give(self, frame: Frame, now_us: int) -> None:
        """The frame goes into the pipe."""
        if not self._pipe:
            self.drained_us = self._full_us = now_us
            self._acked_before = self.acked_bytes
        self.latest = frame
        self.given_bytes += HEADER_BYTES + frame.length
        self._pipe.pop(frame.seq, None)  # rx asked for it again
        self._pipe[frame.seq] = _Given(frame, self.given_bytes, now_us, self.drained_bytes, self.drained_us)

    def on_arrived(self, seq: int, measure: bool, now_us: int) -> None:
        """The copy of the frame that this leg carried has arrived; `measure`: nothing but the leg held it up."""
        given = self._pipe.get(seq)
        if given is None:
            return
        for each in list(self._pipe):
            del self._pipe[each]
            if each == seq:
                break
        if measure:
            self._measure(given, now_us)
        self.drained_bytes, self.drained_us = given.end, now_us

    def _measure(self, given: _Given, now_us: int) -> None:
        latency_us = max(1, now_us - given.given_us)
        if not self.latency_us or latency_us < self.latency_us:
            self.latency_us = latency_us
        else:
            self.latency_us += (latency_us - self.latency_us) // 16
        count = given.end - given.drained_bytes
        rate = count * S_US // max(1, now_us - given.drained_us)
        if not self.rate:
            self.rate = rate
        elif count >= FRAME_BYTES_LEAST or rate > self.rate:  # a source that trickles says nothing about the leg
            self.rate = (3 * self.rate + rate) // 4

    def on_sample(self, unacked_bytes: int, now_us: int) -> int:
        """The kernel's word on how much of what was sent the next host has not acknowledged yet.

        Returns how much it has acknowledged since the last word.
        """
        gained_bytes = max(0, self.bytes_sent - unacked_bytes - self.acked_bytes)
        if gained_bytes:
            self.progress_us = now_us
            self.acked_bytes += gained_bytes
        self.unacked_bytes = unacked_bytes
        if not unacked_bytes:  # what others brought has left the pipe as well
            for seq, given in list(self._pipe.items()):
                if not given.frame.arrived:
                    break
                del self._pipe[seq]
                self.drained_bytes, self.drained_us = given.end, now_us
                self.rate = self._rate_or_guess(now_us)
        return gained_bytes

    def _rate_or_guess(self, now_us: int) -> int:
        """Without a frame that was timed: what the next host has taken since there was something to take."""
        return self.rate or (self.acked_bytes - self._acked_before) * S_US // max(1, now_us - self._full_us)

    # ---- what can be expected of it -------------------------------------------------------------
    def backlog_bytes(self) -> int:
        """What is in the pipe, as far as is known."""
        return self.given_bytes - self.drained_bytes

    def hoards(self) -> bool:
        """Something on the way takes more than it passes on: no more for now."""
        limit_bytes = HOARD_FRAMES * self.frame_bytes()
        if self.backlog_bytes() - self.unacked_bytes <= limit_bytes:
            return False
        left = [
            each.frame.length for each in self._pipe.values() if not each.frame.arrived
        ]  # others may have brought it
        return len(left) > HOARD_FRAMES and sum(left) - self.unacked_bytes > limit_bytes

    def frame_bytes(self) -> int:
        """The frame size that suits the leg's measured rate; the window caps it."""
        return max(FRAME_BYTES_LEAST, 1 << (self.rate // FRAME_FRACTION).bit_length())

    def remaining_us(self, seq: int, since_us: int, now_us: int) -> int:
        """How long the copy of a frame will still take. `since_us`: before that rx did not read.

        Overdue, it is expected to take as long again as it is overdue: a leg that became slow, or a
        dead one, looks worse all the time.
        """
        given = self._pipe.get(seq)
        rate = self._rate_or_guess(now_us)
        if given is None or not rate or (not self.rate and not self.unacked_bytes):
            # Never timed; and when the next host has taken it all, its rate is no guess at what is behind it.
            return now_us - max(since_us, given.given_us if given else self.drained_us)
        return abs(self._done_us(given, rate, since_us) - now_us)

    def overdue(self, seq: int, since_us: int, now_us: int) -> bool:
        """Whether the copy of a frame has taken twice as long as it should have; see `remaining_us`."""
        given = self._pipe.get(seq)
        if given is None or not self.rate:
            return False
        begin_us = max(given.given_us, since_us)
        return now_us - begin_us > 2 * (self._done_us(given, self.rate, since_us) - begin_us)

    def _done_us(self, given: _Given, rate: int, since_us: int) -> int:
        """When a copy should have arrived."""
        left_us = (given.end - self.drained_bytes) * S_US // rate
        return max(max(self.drained_us, since_us) + left_us, max(given.given_us, since_us) + self.latency_us)

    def offer_us(self, length: int, now_us: int) -> int:
        """How long a frame of `length` bytes would take if it were given to the leg now."""
        if not self.rate and not self._pipe:
            return UNKNOWN_US
        rate = self._rate_or_guess(now_us)
        latency_us = min(self.latency_us or UNKNOWN_US, self.rtt_us or UNKNOWN_US)
        return latency_us + (self.backlog_bytes() + length) * S_US // max(1, rate)
