"""Legs whose frame is not due: who waits with unread bytes in its socket, and when that must end.

Leaving a frame in its socket costs nothing while the output is what limits the stream. But an
unread socket stops its sender, and a frame that was sent again may stand behind the one that
waits. So when a frame has waited for ASIDE_US although the output was open, all that is not due is
read *aside*, into memory: from then on at once (`read_ahead`), not each frame after a wait of its
own, or a leg would bring one frame per ASIDE_US. Reading ahead ends when the output blocks, or when
CALM_FRAMES in a row would have become due within ASIDE_US anyway: then it only costs copies.
"""

from collections import deque

from viamillipede.config import ASIDE_US, CALM_FRAMES, LEG_DOUBTED_US, REASON_BYTES_MAX
from viamillipede.protocol.reassembly import Copy, Plan
from viamillipede.protocol.wire import HEADER_BYTES, Header


class RxLeg:
    """One accepted connection. `number` is tx's name for it, `key` ours: numbers come back, keys do not."""

    __slots__ = (
        "acked_bytes", "acked_us", "bytes_discarded", "bytes_received", "control", "copy", "doubted", "got", "head",
        "header", "heard_us", "key", "number", "outbox", "plan", "rank", "sent_us", "since_us", "told_bytes", "useful",
        "waiting_since_us",
    )  # fmt: skip

    def __init__(self, key: int, number: int, now_us: int, rank: int = 0) -> None:
        self.key, self.number, self.rank = key, number, rank
        self.head = memoryview(bytearray(HEADER_BYTES))
        self.control = memoryview(bytearray(REASON_BYTES_MAX))
        self.got = 0  # bytes of the header or control payload that are here
        self.header: Header | None = None  # of a control message
        self.copy: Copy | None = None
        self.plan = Plan.WAIT
        self.outbox: deque[bytes] = deque()  # for the shell to send, besides acknowledgements
        self.bytes_received = self.bytes_discarded = 0
        self.told_bytes = self.acked_bytes = 0  # what the socket took, and what of it the other host has
        self.doubted = False  # it does not get what we say: another one is dialled beside it
        self.useful = False  # yet
        self.since_us = self.sent_us = self.heard_us = self.acked_us = now_us
        self.waiting_since_us = 0

    def on_sample(self, unacked_bytes: int, now_us: int, listening: bool = False) -> None:
        """The kernel's word on how much of what we said the other host has not acknowledged yet.

        That is the only evidence against a leg that we do not read. One that we do read must say something:
        the other host may be a proxy, which acknowledges whatever is behind it.
        """
        acked_bytes = self.told_bytes - unacked_bytes
        if acked_bytes > self.acked_bytes or not unacked_bytes:
            self.acked_bytes, self.acked_us = acked_bytes, now_us
        fine_us = self.heard_us if listening else max(self.acked_us, self.heard_us)
        self.doubted = now_us - fine_us >= LEG_DOUBTED_US


class WaitingLegs:
    """Who waits for which frame, in the order in which they began to."""

    def __init__(self, now_us: int) -> None:
        self.read_ahead = False
        self.asides = 0  # frames read aside
        self._waiting: dict[int, RxLeg] = {}  # key -> leg
        self._waiting_for: dict[int, list[RxLeg]] = {}  # frame -> legs
        self._runnable: deque[RxLeg] = deque()
        self._aside_since_us: dict[int, int] = {}  # frames read aside that are not due yet
        self._calm = 0  # frames in a row that were read aside for nothing
        self._open_since_us: int | None = now_us  # None: the output is blocked

    def __contains__(self, leg: RxLeg) -> bool:
        return leg.key in self._waiting

    def must_wait(self, leg: RxLeg, copy: Copy, now_us: int) -> bool:
        """The copy is not due: whether the leg waits, or, False, reads it aside."""
        if self.read_ahead:
            self._set_aside(copy, now_us)
            return False
        if leg.key not in self._waiting:
            leg.waiting_since_us = now_us
            self._waiting[leg.key] = leg
            self._waiting_for.setdefault(copy.header.seq, []).append(leg)
        return True

    def _set_aside(self, copy: Copy, since_us: int) -> None:
        copy.aside = True
        self.asides += 1
        self._aside_since_us.setdefault(copy.header.seq, since_us)

    def stop(self, leg: RxLeg) -> None:
        """The leg waits no more; it need not have waited."""
        if self._waiting.pop(leg.key, None) is not None and leg.copy is not None:
            others = self._waiting_for[leg.copy.header.seq]
            others.remove(leg)
            if not others:
                del self._waiting_for[leg.copy.header.seq]

    def wake(self, seq: int) -> None:
        """Whoever waits with a copy of this frame may run: it is due, or here already."""
        for leg in list(self._waiting_for.get(seq, ())):
            self.stop(leg)
            self._runnable.append(leg)

    def take_runnable(self) -> RxLeg | None:
        """A leg that need not wait any more; None if there is none. It may be lost by now."""
        return self._runnable.popleft() if self._runnable else None

    def on_due(self, before: int, due_seq: int, now_us: int) -> None:
        """The frames [before, due_seq) have passed: was it worth while to read them aside?"""
        for seq in range(before + 1, due_seq + 1) if self._aside_since_us else ():
            since_us = self._aside_since_us.pop(seq, None)
            if since_us is not None:
                self._calm = self._calm + 1 if now_us - since_us < ASIDE_US else 0
        if self._calm >= CALM_FRAMES:
            self.read_ahead, self._calm = False, 0

    def on_output(self, open_since_us: int | None) -> None:
        """Since when the output has been open; None: it is blocked, and unread bytes cost nothing."""
        self._open_since_us = open_since_us
        if open_since_us is None:
            self.read_ahead, self._calm = False, 0

    def deadline_us(self) -> int | None:
        """When `expire` has something to do."""
        if self._open_since_us is None or not self._waiting:
            return None
        longest = next(iter(self._waiting.values()))
        return max(longest.waiting_since_us, self._open_since_us) + ASIDE_US

    def expire(self, now_us: int) -> None:
        """A frame has waited for too long while the output starved: read ahead, beginning with all that waits."""
        deadline_us = self.deadline_us()
        if deadline_us is None or now_us < deadline_us:
            return
        self.read_ahead, self._calm = True, 0
        for leg in list(self._waiting.values()):
            assert leg.copy is not None, "a leg without a copy waits"
            self._set_aside(leg.copy, leg.waiting_since_us)
            self.stop(leg)
            self._runnable.append(leg)

    def check(self, legs: dict[int, RxLeg]) -> None:
        """Both indexes say the same, and only of legs that live."""
        waiting = [leg for each in self._waiting_for.values() for leg in each]
        assert sorted(leg.key for leg in waiting) == sorted(self._waiting)
        assert all(key in legs for key in self._waiting)
        for seq, each in self._waiting_for.items():
            assert each and all(leg.copy is not None and leg.copy.header.seq == seq for leg in each)
