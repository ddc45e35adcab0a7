"""The sender's window: what was read, is in flight, has arrived, must be sent again, is worth hedging.

Offsets of the stream, in order:

    written <= (frames in flight or arrived) <= cut_end <= head <= written + limit

`written` comes from rx and opens the window. [cut_end, head) has been read and is not yet a frame.
A frame that has not arrived is queued (no leg that is trusted carries it) or carried (by one leg, or
by more when it was hedged); `check()` tests that. Its bytes stay in the ring until rx has written
them, so it can be sent again at any time without a copy being kept.
"""

import heapq
from collections import deque
from collections.abc import Iterator

import xxhash

from viamillipede.config import FILL_US, FRAMES_MAX, WINDOW_BYTES_START
from viamillipede.errors import FrameError
from viamillipede.protocol.rangeset import RangeSet
from viamillipede.protocol.ring import Ring
from viamillipede.protocol.wire import Ack, Kind, encode_header


class Frame:
    """One numbered slice of the stream, on its way. `legs`: who carries a copy now."""

    __slots__ = (
        "arrived",
        "first_us",
        "header",
        "kind",
        "legs",
        "length",
        "offset",
        "queued",
        "sends",
        "sent_us",
        "seq",
        "whole",
    )

    def __init__(self, kind: Kind, seq: int, offset: int, length: int, payload_hash: int) -> None:
        self.kind, self.seq, self.offset, self.length = kind, seq, offset, length
        self.header = encode_header(kind, length, seq, offset, payload_hash)
        self.legs: set[int] = set()
        self.arrived = self.queued = False
        self.whole = False  # a socket has taken all of a copy: rx can have it
        self.sends = 0
        self.first_us = 0  # when the first copy was given to a leg
        self.sent_us = 0  # when the latest copy was given to a leg

    def __repr__(self) -> str:
        return f"<Frame {self.seq} {self.kind.name} {self.offset}+{self.length} on {sorted(self.legs)}>"


class SendWindow:
    """Frames not yet acknowledged, and the input that waits to become one. No I/O, no clock."""

    def __init__(self, window_bytes: int, frame_bytes: int, checksum: bool) -> None:
        self.frame_bytes = max(1, min(frame_bytes, window_bytes // 4))  # a few frames must fit
        # How much of the window is used now. The whole is this, doubled a few times: a frame in one piece
        # stays in one piece only if the ring's size is multiplied.
        self.limit_bytes, doublings = window_bytes, 0
        while self.limit_bytes // 2 >= max(WINDOW_BYTES_START, 4 * self.frame_bytes):
            self.limit_bytes, doublings = self.limit_bytes // 2, doublings + 1
        self.window_bytes = self.limit_bytes << doublings
        self.head = self.cut_end = self.written = 0
        self.next_seq = self.arrived_next = 0
        self.ended = False  # the input has ended, or was ended
        self.end_cut = False
        self.retransmitted_frames = self.retransmitted_bytes = 0
        self._checksum = checksum
        self._ring = Ring(self.limit_bytes, window_bytes)
        self._open_since_us = 0  # when the first byte of [cut_end, head) was read
        self._unarrived: dict[int, Frame] = {}
        self._order: deque[Frame] = deque()  # ascending; arrived ones are dropped lazily at the front
        self._lost: list[int] = []  # heap of queued frames
        self._carried: dict[int, set[int]] = {}  # leg -> frames
        self._doubted: set[int] = set()  # legs that may be lost
        self._arrived = RangeSet()  # beyond arrived_next

    # ---- input ----------------------------------------------------------------------------------
    def room_bytes(self) -> int:
        """How much more may be read before rx has written something. 0 stops the source: back-pressure."""
        return self.written + self.limit_bytes - self.head

    def input_view(self) -> memoryview | None:
        """Where the next bytes of the input go; None while nothing is wanted."""
        if self.ended or self.next_seq - self.arrived_next >= FRAMES_MAX:
            return None
        wanted_end = self.cut_end + self._frame_room(self.frame_bytes)
        end = min(wanted_end, self.head + self.room_bytes())
        return self._ring.view(self.head, end) if end > self.head else None

    def on_input(self, count: int, now_us: int) -> None:
        """`count` bytes were read into the view."""
        assert 0 < count <= self.room_bytes() and not self.ended
        if self.head == self.cut_end:
            self._open_since_us = now_us
        self.head += count

    def on_input_end(self) -> None:
        """The input has ended: what is open becomes the last frame, then comes the end frame."""
        self.ended = True

    def _frame_room(self, frame_bytes: int) -> int:
        """How long the next frame can be: its payload must lie in one piece."""
        return min(frame_bytes, self.frame_bytes, self._ring.contiguous_bytes(self.cut_end))

    # ---- frames out -----------------------------------------------------------------------------
    def next_lost(self) -> Frame | None:
        """The oldest frame that no trusted leg carries."""
        while self._lost:
            frame = self._unarrived.get(heapq.heappop(self._lost))
            if frame is not None:
                frame.queued = False
                if frame.legs <= self._doubted:
                    return frame
        return None

    def cut(self, frame_bytes: int, now_us: int) -> Frame | None:
        """A new frame of what was read, at most `frame_bytes` long, or None if it pays to wait.

        Nothing in flight: what there is goes at once. Otherwise a frame is filled, but waits no
        longer than FILL_US for that (Nagle's idea with a deadline, RFC 896).
        """
        if self.next_seq - self.arrived_next >= FRAMES_MAX:
            return None
        open_bytes = self.head - self.cut_end
        if not open_bytes:
            return self._cut_end_frame() if self.ended and not self.end_cut else None
        room = self._frame_room(frame_bytes)
        if open_bytes < room and not self.ended and self._unarrived:
            if self.room_bytes() and now_us < self._open_since_us + FILL_US:
                return None
        length = min(open_bytes, room)
        payload_hash = 0
        if self._checksum:
            payload_hash = xxhash.xxh3_64_intdigest(self._ring.view(self.cut_end, self.cut_end + length))
        frame = self._enter(Frame(Kind.DATA, self.next_seq, self.cut_end, length, payload_hash))
        self.cut_end += length
        self._open_since_us = now_us
        return frame

    def _cut_end_frame(self) -> Frame:
        self.end_cut = True
        return self._enter(Frame(Kind.END, self.next_seq, self.cut_end, 0, 0))

    def _enter(self, frame: Frame) -> Frame:
        self._unarrived[frame.seq] = frame
        self._order.append(frame)
        self.next_seq += 1
        return frame

    def fill_deadline_us(self) -> int | None:
        """When a partly filled frame goes as it is; None while there is none, or no frame may go."""
        if self.head == self.cut_end or self.next_seq - self.arrived_next >= FRAMES_MAX:
            return None
        return self._open_since_us + FILL_US

    def payload(self, frame: Frame) -> memoryview:
        """The frame's payload, in one piece."""
        return self._ring.view(frame.offset, frame.offset + frame.length)

    def assign(self, frame: Frame, leg: int, now_us: int) -> None:
        """`leg` carries a copy of the frame from now on."""
        assert leg not in frame.legs and not frame.arrived
        frame.legs.add(leg)
        self._carried.setdefault(leg, set()).add(frame.seq)
        if frame.sends:
            self.retransmitted_frames += 1
            self.retransmitted_bytes += frame.length
        else:
            frame.first_us = now_us
        frame.sends += 1
        frame.sent_us = now_us

    # ---- what comes back ------------------------------------------------------------------------
    def on_ack(self, ack: Ack) -> list[Frame]:
        """Take in what rx says; returns the frames that arrived since. FrameError if it never got them."""
        top = ack.ranges[-1][1] if ack.ranges else ack.arrived_next
        if max(top, ack.arrived_next) > self.next_seq or ack.written_bytes > self.cut_end:
            raise FrameError("an acknowledgement of what was never sent")
        new: list[Frame] = []
        if ack.arrived_next > self.arrived_next:
            self._take(self.arrived_next, ack.arrived_next, new)
            self.arrived_next = ack.arrived_next
            self._arrived.discard_below(ack.arrived_next)
        for start, end in ack.ranges:
            for low, high in list(self._arrived.missing(max(start, self.arrived_next), end)):
                self._take(low, high, new)
                self._arrived.add(low, high)
        oldest = self.oldest()  # it forgets what arrived, also when nobody asks for it
        if oldest is not None and ack.written_bytes > oldest.offset + oldest.length:
            raise FrameError("an acknowledgement of more written than has arrived")
        self.written = max(self.written, ack.written_bytes)
        return new

    def _take(self, start: int, end: int, new: list[Frame]) -> None:
        for seq in range(start, end):
            frame = self._unarrived.pop(seq, None)
            if frame is not None:
                frame.arrived = True
                for leg in frame.legs:
                    self._carried[leg].discard(seq)
                new.append(frame)

    def on_resend(self, seq: int, leg: int) -> None:
        """rx could not use the copy that `leg` carried."""
        frame = self._unarrived.get(seq)
        if frame is not None:
            self._drop_copy(frame, leg)
        elif seq >= self.next_seq:
            raise FrameError("a request for a frame that was never sent")

    def on_leg_lost(self, leg: int) -> int:
        """What only `leg` carried is queued again; returns how many frames. Idempotent."""
        lost = [self._unarrived[seq] for seq in sorted(self._carried.pop(leg, ()))]
        self._doubted.discard(leg)
        for frame in lost:
            self._drop_copy(frame, leg)
        return sum(frame.queued for frame in lost)

    def on_leg_doubted(self, leg: int) -> None:
        """`leg` may be lost: what it carries is queued, and its copies still count if they arrive."""
        self._doubted.add(leg)
        for seq in sorted(self._carried.get(leg, ())):
            self._queue_if_needed(self._unarrived[seq])

    def on_leg_trusted(self, leg: int) -> None:
        """It is not lost after all: what it carries need not be sent again."""
        self._doubted.discard(leg)

    def _drop_copy(self, frame: Frame, leg: int) -> None:
        frame.legs.discard(leg)
        self._carried.get(leg, set()).discard(frame.seq)
        self._queue_if_needed(frame)

    def _queue_if_needed(self, frame: Frame) -> None:
        if frame.legs <= self._doubted and not frame.queued:
            frame.queued = True
            heapq.heappush(self._lost, frame.seq)

    # ---- questions ------------------------------------------------------------------------------
    def oldest(self) -> Frame | None:
        """The oldest frame that has not arrived: what rx waits for, when it waits for a frame."""
        while self._order and self._order[0].arrived:
            self._order.popleft()
        return self._order[0] if self._order else None

    def unarrived(self) -> Iterator[Frame]:
        """The frames that have not arrived, oldest first."""
        self.oldest()
        return (frame for frame in self._order if not frame.arrived)

    def all_sent(self) -> bool:
        """Whether rx can have the whole stream."""
        return self.end_cut and all(frame.whole for frame in self.unarrived())

    def exhausted(self) -> bool:
        """Nothing new can be sent before something arrives or is written: the window is full, or the end is cut."""
        return self.end_cut or not self.room_bytes() or self.next_seq - self.arrived_next >= FRAMES_MAX

    def carries(self, leg: int) -> int:
        """How many frames on `leg` have not arrived."""
        return len(self._carried.get(leg, ()))

    def frames_in_flight(self) -> int:
        """How many frames have not arrived."""
        return len(self._unarrived)

    def grow(self) -> None:
        """Use twice as much of the window, up to what the user and rx allow."""
        self.limit_bytes = min(2 * self.limit_bytes, self.window_bytes)
        self._ring.reserve(self.written, self.written + self.limit_bytes)

    def check(self) -> None:
        """The invariant at the top of this file."""
        assert self.written <= self.cut_end <= self.head <= self.written + self.limit_bytes
        assert self.limit_bytes <= self._ring.size_bytes <= self.window_bytes
        for seq, frame in self._unarrived.items():
            assert frame.queued or not frame.legs <= self._doubted, f"{frame} is in no place"
            assert not frame.queued or seq in self._lost
            assert all(seq in self._carried[leg] for leg in frame.legs)
        assert sum(map(len, self._carried.values())) == sum(len(f.legs) for f in self._unarrived.values())
