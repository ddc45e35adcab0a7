"""The sender's window: nothing is forgotten before it arrived, nothing is sent beyond the window."""

import random

import pytest
import xxhash

from viamillipede.config import FILL_US, FRAMES_MAX, MIB
from viamillipede.errors import FrameError
from viamillipede.protocol.send_window import Frame, SendWindow
from viamillipede.protocol.wire import FROM_TX, HEADER_BYTES, Ack, Kind, Waiting, decode_header_untrusted


def window(window_bytes: int = 4096, frame_bytes: int = 1024, checksum: bool = False) -> SendWindow:
    """An empty window."""
    return SendWindow(window_bytes, frame_bytes, checksum)


def put(made: SendWindow, data: bytes, now_us: int = 0) -> int:
    """Input as far as the window takes it without a frame being cut; returns how much."""
    taken = 0
    while taken < len(data) and (view := made.input_view()) is not None:
        count = min(len(view), len(data) - taken)
        view[:count] = data[taken : taken + count]
        made.on_input(count, now_us)
        taken += count
    return taken


def send(made: SendWindow, leg: int, frame_bytes: int = 1 << 30, now_us: int = 1 << 40) -> Frame:
    """The next frame, on `leg`."""
    frame = made.next_lost() or made.cut(frame_bytes, now_us)
    assert frame is not None
    made.assign(frame, leg, now_us)
    made.check()
    return frame


def full(frames: int = 4, **more: bool) -> SendWindow:
    """A window full of frames that leg 0 carries."""
    made = window(1024 * frames, 1024, **more)
    for _ in range(frames):
        assert put(made, bytes(4096)) == 1024
        send(made, 0)
    return made


def ack(arrived_next: int, written: int = 0, ranges: tuple[tuple[int, int], ...] = ()) -> Ack:
    """What rx says."""
    return Ack(arrived_next, written, Waiting.FRAME, arrived_next, ranges)


# Input and frames out -----------------------------------------------------------------------------------


def test_nothing_is_read_or_cut_beyond_the_window() -> None:
    made = full()
    assert made.room_bytes() == 0 and made.input_view() is None and made.cut(1024, 1 << 50) is None
    made.on_ack(ack(4, 0))  # all arrived, nothing written: the window stays shut
    assert made.input_view() is None
    made.on_ack(ack(4, 100))
    assert put(made, bytes(4096)) == 100
    made.check()


@pytest.mark.parametrize(("window_bytes", "frame_bytes", "expected"), [(4096, 4096, 1024), (3, 100, 1), (4096, 7, 7)])
def test_a_few_frames_fit_into_any_window(window_bytes: int, frame_bytes: int, expected: int) -> None:
    assert window(window_bytes, frame_bytes).frame_bytes == expected


def test_a_trickle_is_sent_at_once_when_nothing_is_in_flight() -> None:
    made = window()
    put(made, b"x", now_us=500)
    frame = made.cut(1024, 500)
    assert frame is not None and (frame.length, frame.offset, bytes(made.payload(frame))) == (1, 0, b"x")


def test_a_partial_frame_waits_at_most_the_fill_time() -> None:
    made = window()
    put(made, b"x", now_us=0)
    send(made, 0, now_us=0)
    put(made, b"y", now_us=1000)
    put(made, b"z", now_us=3000)  # the clock runs since the first byte
    assert made.fill_deadline_us() == 1000 + FILL_US
    assert made.cut(1024, 1000 + FILL_US - 1) is None
    frame = made.cut(1024, 1000 + FILL_US)
    assert frame is not None and frame.length == 2
    assert made.fill_deadline_us() is None


def test_a_full_frame_does_not_wait() -> None:
    made = window()
    put(made, bytes(1024))
    assert send(made, 0, now_us=0).length == 1024
    put(made, bytes(300), now_us=0)
    frame = made.cut(200, 0)  # what is a full frame depends on the leg
    assert frame is not None and (frame.offset, frame.length) == (1024, 200)
    assert made.cut(200, 0) is None
    assert made.fill_deadline_us() == FILL_US


def test_what_is_left_of_a_cut_waits_anew() -> None:
    made = window()
    put(made, bytes(1024), now_us=0)
    send(made, 0, frame_bytes=1000, now_us=3000)
    assert made.cut(1000, 3000 + FILL_US - 1) is None
    assert made.cut(1000, 3000 + FILL_US) is not None


def test_a_partial_frame_goes_at_once_when_no_more_can_be_read() -> None:
    made = window(1030, 1024)  # frames of 257
    while made.room_bytes():
        put(made, bytes(2000))
        if made.head - made.cut_end == 257:
            send(made, 0, now_us=0)
    assert made.head - made.cut_end == 2
    frame = made.cut(257, 0)
    assert frame is not None and frame.length == 2


def test_the_end_of_the_input_sends_the_rest_and_then_the_end() -> None:
    made = window()
    put(made, bytes(1500))
    send(made, 0, now_us=0)
    put(made, bytes(476))
    assert made.cut(1024, 0) is None
    made.on_input_end()
    assert made.input_view() is None
    assert (rest := send(made, 0, now_us=0)).length == 476
    end = send(made, 0, now_us=0)
    assert (end.kind, end.seq, end.offset, end.length, bytes(made.payload(end))) == (Kind.END, 2, 1500, 0, b"")
    assert made.cut(1024, 1 << 50) is None and made.end_cut
    assert rest.seq == 1


def test_an_empty_input_is_an_end_at_byte_0() -> None:
    made = window()
    assert made.cut(1024, 0) is None
    made.on_input_end()
    frame = send(made, 0)
    assert (frame.kind, frame.seq, frame.offset) == (Kind.END, 0, 0)


def test_input_after_the_end_is_a_bug() -> None:
    made = window()
    made.on_input_end()
    with pytest.raises(AssertionError):
        made.on_input(1, 0)


@pytest.mark.parametrize("checksum", [True, False])
def test_headers_say_what_the_frame_is(checksum: bool) -> None:
    made, data = window(checksum=checksum), random.Random(1).randbytes(1024)
    put(made, data)
    frame = send(made, 0)
    header = decode_header_untrusted(frame.header, FROM_TX)
    assert len(frame.header) == HEADER_BYTES
    assert (header.kind, header.length, header.seq, header.offset) == (Kind.DATA, 1024, 0, 0)
    assert header.payload_hash == (xxhash.xxh3_64_intdigest(data) if checksum else 0)


def test_frames_on_their_way_are_limited_in_number() -> None:
    made = window(MIB, 1024)
    for left in reversed(range(FRAMES_MAX)):
        put(made, b"x" if left else b"xy")
        frame = made.cut(1, 1 << 40)
        assert frame is not None
        made.assign(frame, 0, 0)
    assert made.head > made.cut_end and made.fill_deadline_us() is None  # no clock runs for what may not go
    assert made.input_view() is None
    assert made.room_bytes() and made.exhausted()  # as full as any window
    made.on_input_end()
    assert made.cut(1024, 1 << 50) is None  # not even the end frame
    made.on_ack(ack(2))
    assert [send(made, 0).kind, send(made, 0).kind] == [Kind.DATA, Kind.END]


# What comes back ----------------------------------------------------------------------------------------


def test_ranges_stop_what_arrived_and_only_that() -> None:
    made = full(6)
    assert [f.seq for f in made.on_ack(ack(1, 0, ((2, 3), (4, 6))))] == [0, 2, 4, 5]
    made.check()
    assert made.frames_in_flight() == made.carries(0) == 2
    assert made.on_leg_lost(0) == 2
    assert [send(made, 1).seq for _ in range(2)] == [1, 3]
    assert made.next_lost() is None
    assert (made.retransmitted_frames, made.retransmitted_bytes) == (2, 2048)


def test_lost_and_reordered_acknowledgements_do_not_matter() -> None:
    acks = [ack(0, 0, ((3, 4),)), ack(1, 1024, ((3, 5),)), ack(2, 2048, ((3, 5),)), ack(6, 4096)]
    for kept in range(1, 1 << len(acks)):
        for order in (1, -1):
            made = full(6)
            chosen = [each for i, each in enumerate(acks) if kept >> i & 1][::order]
            seen = [f.seq for each in chosen for f in made.on_ack(each)]
            made.check()
            assert len(seen) == len(set(seen)), "a frame arrived twice"
            said = {seq for each in chosen for r in [(0, each.arrived_next), *each.ranges] for seq in range(*r)}
            assert set(seen) == said
            assert made.written == max(each.written_bytes for each in chosen)


@pytest.mark.parametrize("bad", [ack(5), ack(0, 0, ((2, 5),)), ack(0, 4097), ack(1 << 63), ack(0, 1 << 63)])
def test_an_acknowledgement_of_what_was_never_sent_is_refused(bad: Ack) -> None:
    made = full()
    with pytest.raises(FrameError):
        made.on_ack(bad)
    made.check()
    assert made.frames_in_flight() == 4


def test_what_was_read_and_not_sent_cannot_have_been_written() -> None:
    made = window()
    put(made, bytes(10))
    with pytest.raises(FrameError):
        made.on_ack(ack(0, 1))


def test_a_leg_that_dies_gives_its_frames_back_oldest_first() -> None:
    made = window(6 * 1024, 1024)
    for leg in (0, 1, 0, 1, 0):
        put(made, bytes(1024))
        send(made, leg)
    assert made.on_leg_lost(1) == 2
    assert made.on_leg_lost(0) == 3
    assert made.on_leg_lost(0) == 0 and made.on_leg_lost(7) == 0
    made.check()
    assert [send(made, 2).seq for _ in range(5)] == [0, 1, 2, 3, 4]


def test_a_frame_that_another_leg_carries_is_not_queued() -> None:
    made = full()
    oldest = made.oldest()
    assert oldest is not None
    made.assign(oldest, 1, 5)
    assert made.on_leg_lost(0) == 3  # the fourth is on leg 1 still
    made.check()
    assert [send(made, 2).seq for _ in range(3)] == [1, 2, 3]
    assert made.next_lost() is None and oldest.legs == {1}


def test_a_queued_frame_that_arrives_after_all_is_not_sent_again() -> None:
    made = full()
    made.on_leg_lost(0)
    made.on_ack(ack(0, 0, ((1, 4),)))
    made.check()
    assert send(made, 1).seq == 0
    assert made.next_lost() is None


def test_resend_queues_the_copy_that_was_no_use() -> None:
    made = full()
    made.on_resend(2, 0)
    made.on_resend(2, 0)  # said twice, queued once
    made.check()
    assert send(made, 0).seq == 2
    assert made.next_lost() is None


def test_resend_of_one_of_two_copies_keeps_the_other() -> None:
    made = full()
    frame = made.oldest()
    assert frame is not None
    made.assign(frame, 1, 5)
    made.on_resend(0, 1)
    made.check()
    assert made.next_lost() is None and frame.legs == {0}


def test_resend_of_what_arrived_is_ignored_and_of_what_never_was_refused() -> None:
    made = full()
    made.on_ack(ack(2))
    made.on_resend(1, 0)
    assert made.next_lost() is None
    with pytest.raises(FrameError):
        made.on_resend(4, 0)


def test_sending_a_frame_twice_on_one_leg_is_a_bug() -> None:
    made = full()
    frame = made.oldest()
    assert frame is not None
    with pytest.raises(AssertionError):
        made.assign(frame, 0, 0)


# Questions ----------------------------------------------------------------------------------------------


def test_nothing_new_can_be_sent_when_the_window_is_full_or_the_end_is_cut() -> None:
    made = window()
    assert not made.exhausted()  # there is only no input
    put(made, bytes(1024))
    send(made, 0)
    made.on_input_end()
    assert not made.exhausted()  # the end frame comes first
    send(made, 0)
    assert made.exhausted()
    made = full()
    assert made.exhausted()
    made.on_ack(ack(4, 0))
    assert made.exhausted()  # everything has arrived, but nothing was written
    made.on_ack(ack(4, 1))
    assert not made.exhausted()


def test_a_long_stream_exhausts_nothing() -> None:
    made = window(MIB, 1)
    for seq in range(FRAMES_MAX):
        put(made, b"x")
        send(made, 0)
        made.on_ack(ack(seq + 1, seq + 1))
    assert not made.exhausted() and made.input_view() is not None


def test_what_has_not_arrived_is_told_oldest_first() -> None:
    made = full(6)
    assert [frame.seq for frame in made.unarrived()] == [0, 1, 2, 3, 4, 5]
    made.on_ack(ack(1, 0, ((2, 3), (4, 5))))
    assert [frame.seq for frame in made.unarrived()] == [1, 3, 5]
    made.on_leg_lost(0)
    assert [frame.seq for frame in made.unarrived()] == [1, 3, 5]  # wherever it is
    oldest = made.oldest()
    assert oldest is not None and repr(oldest) == "<Frame 1 DATA 1024+1024 on []>"
    made.on_ack(ack(6))
    assert list(made.unarrived()) == [] and made.oldest() is None
