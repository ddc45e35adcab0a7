"""The sender's window grows without a byte out of place; its memory does not; no history breaks it."""

import gc
import random

import pytest

from tests.protocol.test_send_window import ack, put, send, window
from viamillipede.config import KIB, MIB, WINDOW_BYTES_START
from viamillipede.protocol.send_window import Frame

# The window grows; memory does not ----------------------------------------------------------------------


def test_the_window_doubles_up_to_its_limit() -> None:
    made, sizes = window(4 * WINDOW_BYTES_START, MIB), []
    for _ in range(4):
        sizes.append(made.limit_bytes)
        made.grow()
        made.check()
    assert sizes == [WINDOW_BYTES_START << doubled for doubled in (0, 1, 2, 2)]


@pytest.mark.parametrize("window_bytes", [18 * MIB + 12345, 21 * MIB - 1, 37 * MIB])
def test_frames_in_flight_keep_their_bytes_in_one_piece_when_the_window_grows(window_bytes: int) -> None:
    made, data, frames = window(window_bytes, MIB), random.Random(2).randbytes(window_bytes), list[Frame]()
    start_bytes, written = made.limit_bytes, 0
    while made.room_bytes():  # frames that end anywhere; the first few were written before the window is full
        put(made, data[made.head : made.head + 300 * KIB])
        frames.append(send(made, 0, 300 * KIB))
        if not written and made.head > start_bytes // 2:
            written = len(frames)
            made.on_ack(ack(written, made.cut_end))
    while made.limit_bytes < made.window_bytes:
        made.grow()
        made.check()
    assert made.limit_bytes > start_bytes and frames[written:]
    for frame in frames[written:]:
        assert bytes(made.payload(frame)) == data[frame.offset : frame.offset + frame.length], frame


@pytest.mark.parametrize("window_bytes", [65536, 8 * MIB, 12 * MIB, 16 * MIB, 64 * MIB, 100 * MIB + 1, 1 << 33])
@pytest.mark.parametrize("frame_bytes", [1024, MIB, 16 * MIB])
def test_the_window_starts_small_and_ends_as_large_as_was_asked(window_bytes: int, frame_bytes: int) -> None:
    made = window(window_bytes, frame_bytes)
    assert min(WINDOW_BYTES_START, window_bytes) <= made.limit_bytes < 2 * max(WINDOW_BYTES_START, 4 * frame_bytes)
    assert made.limit_bytes >= 4 * made.frame_bytes
    assert window_bytes - window_bytes // made.limit_bytes <= made.window_bytes <= window_bytes
    assert made.window_bytes % made.limit_bytes == 0


def test_frames_that_arrived_are_forgotten_although_the_window_is_never_full() -> None:
    made = window(MIB, 1024)
    for seq in range(3000):
        put(made, b"x")
        send(made, 0)
        made.on_ack(ack(seq + 1, seq + 1))
    assert sum(isinstance(each, Frame) for each in gc.get_objects()) < 100


@pytest.mark.parametrize("seed", range(20))
def test_any_history_keeps_the_invariant_and_the_bytes(seed: int) -> None:
    chance = random.Random(seed)
    made, data = window(chance.randrange(4, 3000), chance.randrange(1, 900), bool(seed & 1)), chance.randbytes(20_000)
    arrived: set[int] = set()
    delivered: dict[int, Frame] = {}
    doubted: set[int] = set()
    arrived_next = written = 0
    for step in range(3000):
        now_us = 1000 * step
        put(made, data[made.head : made.head + chance.randrange(1, 500)], now_us) if made.head < len(data) else None
        leg, choice = chance.randrange(4), chance.randrange(10)
        length = chance.randrange(1, 900)
        if choice < 6 and leg not in doubted and (frame := made.next_lost() or made.cut(length, now_us)) is not None:
            made.assign(frame, leg, now_us)
            assert bytes(made.payload(frame)) == data[frame.offset : frame.offset + frame.length]
            delivered[frame.seq] = frame
        elif choice == 6:
            (made.on_leg_lost if chance.randrange(2) else made.on_leg_trusted)(leg)
            doubted.discard(leg)
        elif choice == 7 and chance.randrange(2):
            made.on_leg_doubted(leg)
            doubted.add(leg)
        elif choice == 7 and made.next_seq:
            made.on_resend(chance.randrange(made.next_seq), leg)
        else:
            arrived |= {seq for seq in delivered if seq >= arrived_next and chance.random() < 0.3}
            while arrived_next in arrived:
                written += delivered[arrived_next].length
                arrived_next += 1
            ranges = tuple((seq, seq + 1) for seq in sorted(arrived) if seq > arrived_next and seq - 1 not in arrived)
            made.on_ack(ack(arrived_next, written, ranges))
        made.check()
    assert made.written > 1000
