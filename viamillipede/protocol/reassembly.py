"""Frames in any order, in copies and in pieces -> the stream in order, once.

The unit is not the frame but the *copy*: what one leg is sending of one frame. Several legs may
carry copies of one frame; all that matters of a frame is `filled`, how much of its beginning is
here, whoever brought it. A copy that stands

    behind `filled`    is read and thrown away up to there,
    at `filled`        brings the next bytes: to the output directly if they are due, else to memory,
    beyond `filled`    (what it brought was thrown away as damaged) is useless: thrown away.

So a frame may come half from one leg and half from another, and a second copy never matters.
Offsets of the stream, in order:

    written <= ready_end <= (end of the last frame here) <= written + window

[written, ready_end) is in memory and may be written; `written == ready_end` is what permits to move
bytes from a socket to the output without touching them.
"""

from enum import Enum

import xxhash

from viamillipede.config import FRAMES_MAX, WINDOW_BYTES_START
from viamillipede.errors import FrameError, IntegrityError
from viamillipede.protocol.rangeset import RangeSet
from viamillipede.protocol.ring import Ring
from viamillipede.protocol.wire import Header, Kind


class Plan(Enum):
    """What to do with the next bytes of a copy."""

    DISCARD = "discard"
    DIRECT = "direct"  # from the socket to the output
    STORE = "store"  # into memory
    WAIT = "wait"  # leave them in the socket


class _Entry:
    """A frame that has begun to arrive. `filled`: bytes of its beginning that are here."""

    __slots__ = ("complete", "filled", "header")

    def __init__(self, header: Header) -> None:
        self.header = header
        self.filled = 0
        self.complete = False


class Copy:
    """One leg's copy of a frame; `position`: bytes of it taken from the leg."""

    __slots__ = ("aside", "header", "position", "useless")

    def __init__(self, header: Header) -> None:
        self.header = header
        self.position = 0
        self.aside = False  # may be read into memory although it is not due
        self.useless = False

    def left(self) -> int:
        """Bytes of the copy that are still to come."""
        return self.header.length - self.position


class Reassembly:
    """The receiver's order. `direct`: the output can take bytes straight from a socket."""

    def __init__(self, window_bytes: int, checksum: bool, direct: bool) -> None:
        self.window_bytes = window_bytes
        self.due_seq = 0  # the first frame that is not complete
        self.due_offset = 0  # where it begins
        self.written = 0  # accepted by the output
        self.total: int | None = None  # the stream's length, once the end frame is due
        self.arrived = RangeSet()  # complete frames beyond due_seq
        self.corrupted = self.duplicate_bytes = self.direct_bytes = 0
        self._checksum = checksum
        self._direct = direct and not checksum
        self._entries: dict[int, _Entry] = {}
        self._ring = Ring(min(WINDOW_BYTES_START, window_bytes), window_bytes)

    # ---- a copy ---------------------------------------------------------------------------------
    def on_header_untrusted(self, header: Header) -> Copy:
        """A leg begins to bring a frame. FrameError if it cannot be one of this stream.

        IntegrityError, here and wherever bytes complete a frame: the frames contradict one another.
        """
        seq, offset, length = header.seq, header.offset, header.length
        if self.total is not None and seq >= self.due_seq:
            raise FrameError(f"frame {seq} lies behind the end of the stream")
        if seq >= self.due_seq and seq not in self.arrived:
            entry = self._entries.get(seq)
            if entry is None:
                if seq >= self.due_seq + FRAMES_MAX or offset + length > self.written + self.window_bytes:
                    raise FrameError(f"frame {seq} lies beyond the window")
                if offset < self.due_offset or (seq == self.due_seq and offset != self.due_offset):
                    raise FrameError(f"frame {seq} cannot begin at byte {offset}")
                self._check_neighbours(header)
                self._entries[seq] = entry = _Entry(header)
                self._ring.reserve(self.written, max(offset + length, self.ready_end()))
            elif entry.header != header:
                raise FrameError(f"frame {seq} was announced before with other values")
        copy = Copy(header)
        if not length:
            self._complete_if_filled(seq)
        return copy

    def plan(self, copy: Copy) -> tuple[Plan, int]:
        """What to do with the copy's next bytes, and with how many of them at most."""
        entry = self._entries.get(copy.header.seq)
        if entry is None or entry.complete:
            return Plan.DISCARD, copy.left()
        if copy.useless or copy.position > entry.filled:
            copy.useless = True
            return Plan.DISCARD, copy.left()
        if copy.position < entry.filled:
            return Plan.DISCARD, entry.filled - copy.position
        if self._direct and copy.header.seq == self.due_seq and self.written == self.ready_end():
            return Plan.DIRECT, copy.left()
        if not self._direct or copy.aside:
            return Plan.STORE, copy.left()
        return Plan.WAIT, 0

    def store_view(self, copy: Copy) -> memoryview:
        """Where the copy's next bytes go."""
        offset = copy.header.offset + copy.position
        return self._ring.view(offset, offset + copy.left())

    def on_discarded(self, copy: Copy, count: int) -> None:
        """`count` bytes of the copy were thrown away."""
        copy.position += count
        self.duplicate_bytes += count

    def on_direct(self, copy: Copy, count: int) -> None:
        """`count` bytes of the copy went to the output directly."""
        self.written += count
        self.direct_bytes += count
        self._on_filled(copy, count)

    def on_stored(self, copy: Copy, count: int) -> None:
        """`count` bytes of the copy were read into `store_view`."""
        self._on_filled(copy, count)

    def _on_filled(self, copy: Copy, count: int) -> None:
        copy.position += count
        self._entries[copy.header.seq].filled = copy.position
        if not copy.left():
            self._complete_if_filled(copy.header.seq)

    def needs_resend(self, copy: Copy) -> bool:
        """The copy has come to its end and the frame is still not here: another copy is needed."""
        seq = copy.header.seq
        return seq >= self.due_seq and seq not in self.arrived

    def _complete_if_filled(self, seq: int) -> None:
        entry = self._entries.get(seq)
        if entry is None or entry.complete or entry.filled < entry.header.length:
            return
        if self._checksum and entry.header.kind is Kind.DATA and not self._verified(entry.header):
            self.corrupted += 1
            del self._entries[seq]  # other copies stand beyond 0 now, and are useless
            return
        entry.complete = True
        if seq != self.due_seq:
            self.arrived.add(seq, seq + 1)
            return
        while (next_entry := self._entries.get(self.due_seq)) is not None and next_entry.complete:
            self._pass(next_entry.header)
        self.arrived.discard_below(self.due_seq)

    def _pass(self, header: Header) -> None:
        """The due frame is complete: the next one is due."""
        if header.kind is Kind.END and len(self._entries) > 1:
            raise IntegrityError(f"frames behind the end of the stream at byte {header.offset}")
        del self._entries[header.seq]
        self.due_seq += 1
        self.due_offset += header.length
        if header.kind is Kind.END:
            self.total = header.offset

    def _check_neighbours(self, header: Header) -> None:
        """A new frame and those beside it fit together, or one would be written over the other. IntegrityError."""
        seq, before, behind = header.seq, self._entries.get(header.seq - 1), self._entries.get(header.seq + 1)
        end = header.offset + header.length
        if before is not None and (begin := before.header.offset + before.header.length) != header.offset:
            raise IntegrityError(f"frame {seq} begins at byte {header.offset}, not at {begin}")
        if behind is not None and behind.header.offset != end:
            raise IntegrityError(f"frame {seq + 1} begins at byte {behind.header.offset}, not at {end}")

    def _verified(self, header: Header) -> bool:
        digest = xxhash.xxh3_64()
        offset, end = header.offset, header.offset + header.length
        while offset < end:
            piece = self._ring.view(offset, end)
            digest.update(piece)
            offset += len(piece)
        return digest.intdigest() == header.payload_hash

    # ---- output ---------------------------------------------------------------------------------
    def ready_end(self) -> int:
        """Up to where the stream may be written: with checksums only whole, verified frames."""
        if self._checksum:
            return self.due_offset
        entry = self._entries.get(self.due_seq)
        return self.due_offset + (entry.filled if entry is not None else 0)

    def output_view(self) -> memoryview | None:
        """The next bytes to write that are in memory; None if there are none."""
        end = self.ready_end()
        return self._ring.view(self.written, end) if end > self.written else None

    def on_written(self, count: int) -> None:
        """The output accepted `count` bytes of `output_view`."""
        assert 0 <= count <= self.ready_end() - self.written
        self.written += count

    def complete(self) -> bool:
        """The end has come, and everything before it was written."""
        return self.total is not None and self.written == self.total

    def memory_bytes(self) -> int:
        """What the stream occupies in memory now."""
        return self._ring.size_bytes

    def check(self) -> None:
        """The invariant at the top of this file."""
        assert self.written <= self.ready_end() <= self.written + self.window_bytes
        assert self._ring.size_bytes <= self.window_bytes
        assert self.due_seq not in self.arrived
        for seq, entry in self._entries.items():
            assert seq >= self.due_seq and entry.filled <= entry.header.length
            assert entry.header.offset + entry.header.length <= self.written + self.window_bytes
            assert entry.complete == (seq in self.arrived)
