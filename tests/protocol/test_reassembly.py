"""Frames in any order, in copies and in pieces: the stream in order, once."""

import random

import pytest
import xxhash

from viamillipede.config import FRAMES_MAX, KIB
from viamillipede.errors import FrameError, IntegrityError
from viamillipede.protocol.reassembly import Copy, Plan, Reassembly
from viamillipede.protocol.wire import Header, Kind

DATA = random.Random(3).randbytes(64 * KIB)
FRAME = 100  # bytes in each frame of these tests


def header(seq: int, kind: Kind = Kind.DATA, offset: int | None = None, length: int | None = None) -> Header:
    """Frame `seq` of a stream of frames of the same length; the end is empty."""
    offset = seq * FRAME if offset is None else offset
    length = (FRAME if kind is Kind.DATA else 0) if length is None else length
    return Header(kind, length, seq, offset, xxhash.xxh3_64_intdigest(DATA[offset : offset + length]))


class Stream:
    """A Reassembly and its output."""

    def __init__(self, window_bytes: int = 1000, checksum: bool = False, direct: bool = True) -> None:
        self.core = Reassembly(window_bytes, checksum, direct)
        self.output = bytearray()

    def bring(self, copy: Copy, count: int, damaged: bool = False) -> list[Plan]:
        """The next `count` bytes of a copy come; returns what was done with them."""
        done = []
        count = min(count, copy.left())
        while count:
            plan, most = self.core.plan(copy)
            done.append(plan)
            if plan is Plan.WAIT:
                break
            start = copy.header.offset + copy.position
            taken = min(count, most)
            if plan is Plan.STORE:
                view = self.core.store_view(copy)
                taken = min(taken, len(view))
                view[:taken] = bytes(taken) if damaged else DATA[start : start + taken]
                self.core.on_stored(copy, taken)
            elif plan is Plan.DIRECT:
                self.output += DATA[start : start + taken]
                self.core.on_direct(copy, taken)
            else:
                self.core.on_discarded(copy, taken)
            count -= taken
            self.core.check()
        return done

    def whole(self, seq: int, kind: Kind = Kind.DATA, damaged: bool = False, aside: bool = True) -> Copy:
        """A whole copy comes, read aside if need be."""
        copy = self.core.on_header_untrusted(header(seq, kind))
        copy.aside = aside
        self.bring(copy, copy.left(), damaged)
        self.core.check()
        return copy

    def begin(self, seq: int) -> Copy:
        """A copy begins."""
        return self.core.on_header_untrusted(header(seq))

    def flush(self, most: int = 1 << 30) -> None:
        """The output takes what it may, at most `most` bytes of each view."""
        while (view := self.core.output_view()) is not None:
            taken = min(len(view), most)
            self.output += view[:taken]
            self.core.on_written(taken)
            self.core.check()


# Order, copies and pieces -------------------------------------------------------------------------------


def test_frames_in_order_are_not_touched() -> None:
    stream = Stream()
    for seq in range(20):
        assert stream.bring(stream.begin(seq), FRAME) == [Plan.DIRECT]
    stream.whole(20, Kind.END)
    assert stream.core.complete() and stream.core.total == 2000
    assert stream.output == DATA[:2000]
    assert stream.core.direct_bytes == 2000 and stream.core.duplicate_bytes == 0


def test_a_frame_that_is_not_due_waits_until_it_is_due_or_read_aside() -> None:
    stream = Stream()
    early = stream.begin(1)
    assert stream.bring(early, 50) == [Plan.WAIT]
    early.aside = True
    assert stream.bring(early, 50) == [Plan.STORE]
    assert stream.core.output_view() is None
    stream.whole(0)
    assert stream.bring(early, 30) == [Plan.STORE]  # what is in memory goes first
    stream.flush()
    assert stream.bring(early, 20) == [Plan.DIRECT]  # the change in mid-frame
    assert stream.output == DATA[:200]
    assert stream.core.direct_bytes == 120


def test_due_bytes_wait_for_those_in_memory_unless_read_aside() -> None:
    stream = Stream()
    stream.whole(1)
    stream.whole(0)
    due = stream.begin(2)
    assert stream.core.plan(due) == (Plan.WAIT, 0)
    stream.flush()
    assert stream.core.plan(due) == (Plan.DIRECT, FRAME)


def test_half_from_one_leg_and_half_from_another() -> None:
    for direct in (True, False):
        stream = Stream(direct=direct)
        stream.bring(stream.begin(0), 60)  # and its leg dies
        rest = stream.begin(0)
        how = Plan.DIRECT if direct else Plan.STORE
        assert stream.bring(rest, FRAME) == [Plan.DISCARD, how]
        stream.flush()
        assert stream.output == DATA[:100]
        assert stream.core.duplicate_bytes == 60
        assert not stream.core.needs_resend(rest)


def test_a_second_copy_is_discarded_also_in_mid_frame() -> None:
    stream = Stream()
    first, second = stream.begin(0), stream.begin(0)
    assert stream.bring(first, 30) == [Plan.DIRECT]
    assert stream.bring(second, 50) == [Plan.DISCARD, Plan.DIRECT]  # the second overtakes
    assert stream.bring(first, 70) == [Plan.DISCARD, Plan.DIRECT]
    assert stream.bring(second, 50) == [Plan.DISCARD]
    assert stream.bring(stream.begin(0), FRAME) == [Plan.DISCARD]
    assert stream.output == DATA[:100] and stream.core.duplicate_bytes == 30 + 20 + 50 + 100
    assert stream.core.due_seq == 1


def test_a_copy_of_what_arrived_early_is_discarded() -> None:
    stream = Stream()
    stream.whole(2)
    assert list(stream.core.arrived) == [(2, 3)]
    assert stream.bring(stream.begin(2), FRAME) == [Plan.DISCARD]
    stream.whole(0)
    stream.whole(1)
    stream.flush()
    assert stream.output == DATA[:300] and len(stream.core.arrived) == 0


@pytest.mark.parametrize("seed", range(40))
def test_any_order_any_copies_any_pieces(seed: int) -> None:
    chance = random.Random(seed)
    checksum, direct = bool(seed & 1), bool(seed & 2)
    stream, frames = Stream(chance.randrange(300, 1500), checksum, direct), 40
    copies: list[tuple[Copy, bool]] = []
    for _ in range(200_000):
        if stream.core.complete():
            break
        if len(copies) < 5:
            within = (stream.core.written + stream.core.window_bytes) // FRAME
            seq = chance.randrange(max(0, stream.core.due_seq - 2), max(1, min(frames + 1, within)))
            if seq < frames or stream.core.due_seq == frames:
                kind = Kind.DATA if seq < frames else Kind.END
                damaged = checksum and chance.random() < 0.2
                copies.append((stream.core.on_header_untrusted(header(seq, kind)), damaged))
        copy, damaged = chance.choice(copies)
        copy.aside = copy.aside or chance.random() < 0.3
        stream.bring(copy, chance.randrange(1, 80) if copy.left() else 0, damaged)
        if not copy.left() or chance.random() < 0.05:
            copies.remove((copy, damaged))
        if chance.random() < 0.5:
            stream.flush(chance.randrange(1, 200))
        stream.core.check()
        assert DATA.startswith(stream.output)
        assert stream.core.memory_bytes() <= stream.core.window_bytes
    assert stream.core.complete() and stream.output == DATA[: frames * FRAME]


# Checksums ----------------------------------------------------------------------------------------------


def test_a_corrupted_frame_is_never_delivered_and_taken_from_another_copy() -> None:
    stream = Stream(checksum=True)
    bad = stream.whole(0, damaged=True)
    assert stream.core.needs_resend(bad) and stream.core.corrupted == 1
    assert stream.core.output_view() is None and stream.core.due_seq == 0
    assert not stream.core.needs_resend(stream.whole(0))
    stream.flush()
    assert stream.output == DATA[:100]


def test_nothing_is_delivered_before_its_frame_was_verified() -> None:
    stream = Stream(checksum=True)
    copy = stream.begin(0)
    assert stream.bring(copy, 99) == [Plan.STORE]
    assert stream.core.output_view() is None
    stream.bring(copy, 1)
    view = stream.core.output_view()
    assert view is not None and bytes(view) == DATA[:100]


def test_a_copy_that_was_under_way_when_its_frame_was_found_corrupt_is_useless() -> None:
    stream = Stream(checksum=True)
    bad, other = stream.begin(0), stream.begin(0)
    stream.bring(bad, 60, damaged=True)
    stream.bring(other, 60)
    stream.bring(bad, 40)
    assert stream.core.corrupted == 1
    fresh = stream.begin(0)
    stream.bring(fresh, 10)
    assert stream.bring(other, 20) == [Plan.DISCARD]  # what it brought is gone
    stream.bring(fresh, 80)
    assert stream.bring(other, 20) == [Plan.DISCARD]  # useless for ever, or it would leave a hole
    assert stream.core.needs_resend(other)
    stream.bring(fresh, 10)
    assert not stream.core.needs_resend(other)
    stream.flush()
    assert stream.output == DATA[:100]


def test_a_frame_that_wraps_in_memory_is_verified() -> None:
    stream = Stream(window_bytes=250, checksum=True)
    for seq in range(10):
        assert not stream.core.needs_resend(stream.whole(seq))
        stream.flush()
    assert stream.output == DATA[:1000]


# What cannot be -----------------------------------------------------------------------------------------


def test_frames_beyond_the_window_are_refused() -> None:
    stream = Stream(window_bytes=250)
    stream.begin(1)
    with pytest.raises(FrameError, match="beyond the window"):
        stream.begin(2)
    stream.bring(stream.begin(0), 49)
    with pytest.raises(FrameError):
        stream.begin(2)
    stream.bring(stream.begin(0), 50)
    stream.begin(2)
    stream.core.check()


def test_frame_numbers_beyond_the_limit_are_refused() -> None:
    stream = Stream(window_bytes=1 << 20)
    stream.core.on_header_untrusted(header(FRAMES_MAX - 1, offset=1, length=1))
    with pytest.raises(FrameError, match="beyond the window"):
        stream.core.on_header_untrusted(header(FRAMES_MAX, offset=1, length=1))


@pytest.mark.parametrize(("seq", "offset"), [(3, 299), (3, 301), (4, 299), (4, 0)])
def test_a_frame_cannot_begin_elsewhere(seq: int, offset: int) -> None:
    stream = Stream()
    for each in range(3):
        stream.whole(each)
    with pytest.raises(FrameError, match="cannot begin"):
        stream.core.on_header_untrusted(header(seq, offset=offset))


@pytest.mark.parametrize(
    "other", [header(1, length=99), header(1, offset=101), header(1, Kind.END), Header(Kind.DATA, FRAME, 1, FRAME, 9)]
)
def test_two_copies_must_agree(other: Header) -> None:
    stream = Stream()
    stream.begin(1)
    with pytest.raises(FrameError, match="other values"):
        stream.core.on_header_untrusted(other)


def test_neighbours_that_contradict_each_other_end_the_session() -> None:
    stream = Stream()
    stream.core.on_header_untrusted(header(1, offset=150))
    with pytest.raises(IntegrityError, match="begins at byte 150, not at 100"):
        stream.whole(0)


@pytest.mark.parametrize(("first", "second"), [((1, 100), (2, 150)), ((2, 150), (1, 100))], ids=["before", "behind"])
def test_a_frame_is_not_stored_over_another_one(first: tuple[int, int], second: tuple[int, int]) -> None:
    """Frame 1, verified and not due yet, would come out with bytes of frame 2."""
    stream = Stream()
    stream.core.on_header_untrusted(header(first[0], offset=first[1]))
    with pytest.raises(IntegrityError, match="frame 2 begins at byte 150, not at 200"):
        stream.core.on_header_untrusted(header(second[0], offset=second[1]))
    stream.core.check()


@pytest.mark.parametrize("claimed", [199, 201])
def test_the_end_must_be_where_the_stream_ends(claimed: int) -> None:
    stream = Stream()
    end = header(2, Kind.END, offset=claimed)
    stream.core.on_header_untrusted(end)  # early: nothing to compare it with
    stream.whole(0)
    with pytest.raises(IntegrityError):
        stream.whole(1)
    due = Stream()
    due.whole(0)
    due.whole(1)
    with pytest.raises(FrameError):
        due.core.on_header_untrusted(end)
    assert not due.core.complete()


def test_nothing_comes_behind_the_end() -> None:
    stream = Stream()
    stream.whole(0)
    stream.whole(1, Kind.END)
    assert stream.core.complete()
    with pytest.raises(FrameError, match="behind the end"):
        stream.begin(2)
    assert stream.bring(stream.begin(0), FRAME) == [Plan.DISCARD]  # a late copy is no offence
    early = Stream()
    early.begin(3)
    early.whole(1, Kind.END)
    with pytest.raises(IntegrityError, match="behind the end"):
        early.whole(0)


def test_the_stream_is_not_complete_before_all_was_written() -> None:
    stream = Stream(direct=False)
    stream.whole(1, Kind.END)
    assert stream.core.total is None
    stream.whole(0)
    assert stream.core.total == 100 and not stream.core.complete()
    stream.flush(most=99)
    assert stream.core.complete()
