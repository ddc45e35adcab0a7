"""The receiver's session: who belongs to it, what each leg does next, what tx is told and when."""

import random
import struct

import pytest

from tests.protocol.drive import RECEIVER, SESSION, Receiver, greeting, said
from viamillipede.config import (
    ACK_DELAY_US,
    ASIDE_US,
    BLOCKED_US,
    HEARTBEAT_US,
    KIB,
    LEGS_MAX,
    MIB,
    S_US,
    RxConfig,
)
from viamillipede.errors import FrameError, IntegrityError, LimitReached, PeerLost, RemoteFailed
from viamillipede.protocol.rx_session import SCRATCH_BYTES, Action, RxLeg
from viamillipede.protocol.send_window import Frame
from viamillipede.protocol.wire import FEATURE_CHECKSUM, Ack, Kind, Verdict, Waiting, encode_control, encode_reason

DATA = random.Random(4).randbytes(64 * KIB)
SIZE = 100  # bytes in each frame of these tests


def data(seq: int, size: int = SIZE) -> bytes:
    """Frame `seq` of a stream of frames of the same length, as it crosses a leg."""
    payload = DATA[seq * size : (seq + 1) * size]
    return encode_control(Kind.DATA, seq, seq * size, payload) if size <= 4096 else big(seq, payload)


def big(seq: int, payload: bytes) -> bytes:
    """A frame that is larger than a control message may be."""
    return Frame(Kind.DATA, seq, seq * len(payload), len(payload), 0).header + payload


def end(seq: int) -> bytes:
    """The end of a stream of `seq` such frames."""
    return encode_control(Kind.END, seq, seq * SIZE)


def outbox(leg: RxLeg) -> list[tuple[Kind, Ack | bytes]]:
    """What the leg is to tell tx."""
    found = [(header.kind, what) for header, what in said(b"".join(leg.outbox))]
    leg.outbox.clear()
    return found


def told(receiver: Receiver, now_us: int) -> Ack | None:
    """The acknowledgement that is due."""
    due = receiver.rx.next_ack(now_us)
    if due is None:
        return None
    ((_, ack),) = said(due[1])
    assert isinstance(ack, Ack) and due[0].key in receiver.rx.legs
    return ack


# Greetings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "before", "after"),
    [
        ({}, Verdict.ACCEPTED, Verdict.ACCEPTED),
        ({"receiver": RECEIVER}, Verdict.ACCEPTED, Verdict.ACCEPTED),
        ({"receiver": b"somebody"}, Verdict.UNKNOWN, Verdict.UNKNOWN),
        ({"checkphrase": b"evil"}, Verdict.CHECKPHRASE, Verdict.CHECKPHRASE),
        ({"number": LEGS_MAX}, Verdict.MALFORMED, Verdict.MALFORMED),
        ({"number": LEGS_MAX - 1}, Verdict.ACCEPTED, Verdict.ACCEPTED),
        ({"session": b"another session!"}, Verdict.ACCEPTED, Verdict.BUSY),
        ({"session": b"another session!", "checkphrase": b"evil"}, Verdict.CHECKPHRASE, Verdict.CHECKPHRASE),
    ],
)
def test_each_greeting_before_and_after_the_first(changes: dict[str, bytes], before: Verdict, after: Verdict) -> None:
    receiver = Receiver()
    answer = receiver.rx.on_greeting(greeting(**changes))  # type: ignore[arg-type]
    assert answer.verdict is before
    assert receiver.rx.session == (changes.get("session", SESSION) if before is Verdict.ACCEPTED else None)
    receiver = Receiver()
    receiver.feed(receiver.leg(), data(0))
    core = receiver.rx.reassembly
    assert receiver.rx.on_greeting(greeting(**changes)).verdict is after  # type: ignore[arg-type]
    assert receiver.rx.session == SESSION and receiver.rx.reassembly is core and len(receiver.rx.legs) == 1
    assert (answer.receiver == RECEIVER) == (before is Verdict.ACCEPTED)


@pytest.mark.parametrize(("rx", "tx"), [(False, False), (True, False), (False, True), (True, True)])
def test_checksums_are_used_when_either_side_wants_them(rx: bool, tx: bool) -> None:
    receiver = Receiver(RxConfig(checksum=rx, window_bytes=MIB))
    answer = receiver.rx.on_greeting(greeting(features=FEATURE_CHECKSUM if tx else 0, window_bytes=64 * KIB))
    assert answer.features == (FEATURE_CHECKSUM if rx or tx else 0)
    assert answer.window_bytes == MIB and receiver.rx.reassembly.window_bytes == 64 * KIB


def test_a_leg_that_comes_again_supersedes_itself() -> None:
    receiver = Receiver()
    first, other = receiver.leg(3), receiver.leg(4)
    assert receiver.rx.superseded(3) is first and receiver.rx.superseded(4) is other
    assert receiver.rx.superseded(5) is None
    receiver.lose(first)
    receiver.leg(3)
    assert receiver.rx.restarts == 1 and receiver.rx.legs_most == 2
    receiver.leg(LEGS_MAX - 1)  # a number that only replaces: not one leg more than was asked for
    assert receiver.rx.legs_most == 2


def test_who_gives_up_says_why_on_every_leg_and_nothing_else() -> None:
    receiver = Receiver(direct=False)
    first = receiver.leg()
    receiver.feed(first, data(0), 0)
    receiver.rx.refuse(encode_reason(Kind.REFUSAL, "disk full"))
    assert outbox(first) == outbox(receiver.rx.on_leg_up(7, 1, 0)) == [(Kind.REFUSAL, b"disk full")]
    assert told(receiver, S_US) is None and receiver.rx.heartbeats(S_US) == ([], b"")
    assert receiver.rx.deadline_us() is None


def test_a_new_leg_is_told_how_things_stand() -> None:
    receiver = Receiver()
    receiver.feed(receiver.leg(), data(0) + data(1) + end(2))
    leg = receiver.rx.on_leg_up(9, 1, 0)
    ((kind, ack),) = outbox(leg)
    assert kind is Kind.ACK and isinstance(ack, Ack)
    assert (ack.arrived_next, ack.written_bytes, ack.waiting) == (3, 200, Waiting.OUTPUT)
    receiver.rx.on_done()
    assert [kind for kind, _ in outbox(receiver.rx.on_leg_up(10, 2, 0))] == [Kind.DONE]
    assert receiver.rx.legs_most == 3


# A leg's steps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("piece", [1, 7, 40, 1 << 30])
def test_every_byte_whole_and_one_at_a_time(piece: int, checksum: bool, direct: bool) -> None:
    receiver = Receiver(RxConfig(window_bytes=64 * KIB, checksum=checksum), direct)
    receiver.piece_bytes = piece
    legs = [receiver.leg(0), receiver.leg(1)]
    for seq in range(6):
        receiver.feed(legs[seq % 2], data(seq))
        receiver.feed(legs[seq % 2], data(max(0, seq - 1)))  # copies of what is here
    receiver.feed(legs[0], end(6))
    assert receiver.output == DATA[:600] and receiver.rx.reassembly.complete()
    receiver.rx.on_done()
    assert [kind for leg in legs for kind, _ in outbox(leg)] == [Kind.DONE, Kind.DONE]
    receiver.feed(legs[1], encode_control(Kind.BYE))
    assert receiver.rx.bye
    assert (Action.DIRECT in receiver.actions) == (direct and not checksum)


def test_a_frame_that_is_not_due_waits_in_its_socket_and_is_woken() -> None:
    receiver = Receiver()
    first, second, third = (receiver.leg(number) for number in range(3))
    receiver.feed(third, data(2))
    receiver.feed(second, data(1))
    assert len(receiver.sockets[second.key]) == len(receiver.sockets[third.key]) == SIZE
    receiver.feed(first, data(0))
    assert receiver.output == DATA[:300]
    assert receiver.rx.reassembly.direct_bytes == 300 and receiver.rx.asides == 0


def test_a_frame_is_read_aside_when_the_output_starves_and_what_stands_behind_it_comes_through() -> None:
    receiver = Receiver()
    leg = receiver.leg()
    receiver.feed(leg, data(1) + data(2) + data(0), now_us=1000)  # sent again behind a frame that waits
    assert receiver.output == b"" and receiver.rx.deadline_us() == 1000 + ASIDE_US
    receiver.timer(1000 + ASIDE_US - 1)
    assert receiver.rx.asides == 0
    receiver.timer(1000 + ASIDE_US)
    assert receiver.rx.asides == 1 and receiver.output == b""
    receiver.timer(1000 + 2 * ASIDE_US)
    assert receiver.output == DATA[:300] and receiver.rx.asides == 2


def test_nothing_is_read_aside_while_the_output_is_blocked() -> None:
    receiver = Receiver()
    leg = receiver.leg()
    receiver.feed(leg, data(1), now_us=0)
    receiver.rx.on_output_blocked(0)
    receiver.rx.on_output_blocked(500)  # said twice
    receiver.timer(100 * ASIDE_US)
    assert receiver.rx.asides == 0
    receiver.open(100 * ASIDE_US)
    assert receiver.rx.deadline_us() == 101 * ASIDE_US  # it starves from now on
    receiver.timer(101 * ASIDE_US)
    assert receiver.rx.asides == 1


def test_a_waiting_copy_is_thrown_away_when_another_leg_brings_its_frame() -> None:
    receiver = Receiver()
    first, second = receiver.leg(0), receiver.leg(1)
    receiver.feed(first, data(1), now_us=0)
    receiver.feed(second, data(1), now_us=ASIDE_US)
    receiver.timer(ASIDE_US)  # the first is read aside, the second sees that it is here
    assert not receiver.sockets[first.key] and not receiver.sockets[second.key]
    assert receiver.rx.reassembly.duplicate_bytes == SIZE
    receiver.feed(first, data(0))
    assert receiver.output == DATA[:200]


def test_half_from_a_leg_that_dies_and_half_from_one_that_waited() -> None:
    receiver = Receiver()
    first, second, third = (receiver.leg(number) for number in range(3))
    receiver.feed(second, data(1))
    receiver.feed(third, data(1))
    receiver.feed(first, data(0) + data(1)[:80])
    assert receiver.output == DATA[:200]
    receiver.feed(first, data(1)[80:] + data(2)[:70])
    receiver.lose(first)
    receiver.feed(second, data(2))
    assert receiver.output == DATA[:300]
    assert receiver.rx.reassembly.duplicate_bytes == SIZE + SIZE + 30


def test_a_leg_that_waits_may_die_and_its_frame_come_on_another() -> None:
    receiver = Receiver()
    first, second, third = (receiver.leg(number) for number in range(3))
    receiver.feed(first, data(1))
    receiver.feed(second, data(1))
    receiver.lose(first)
    receiver.lose(second)
    receiver.timer(10 * ASIDE_US)
    receiver.feed(third, data(0) + data(1))
    assert receiver.output == DATA[:200] and list(receiver.rx.legs.values()) == [third]


def test_a_leg_that_was_woken_and_died_is_not_run() -> None:
    receiver = Receiver()
    first, second = receiver.leg(0), receiver.leg(1)
    receiver.feed(second, data(1))
    receiver.rx.on_timer(ASIDE_US)  # woken, not run yet
    receiver.lose(second)
    assert receiver.rx.take_runnable() is None
    receiver.feed(first, data(0) + data(1))
    assert receiver.output == DATA[:200]


def test_a_corrupted_frame_is_asked_for_again_and_taken_from_another_copy() -> None:
    receiver = Receiver(RxConfig(window_bytes=64 * KIB, checksum=True))
    first, second = receiver.leg(0), receiver.leg(1)
    bad = bytearray(data(0))
    bad[-1] ^= 1
    receiver.feed(first, bytes(bad) + data(1))
    assert [(h.kind, h.seq) for h, _ in said(first.outbox.popleft())] == [(Kind.RESEND, 0)]
    assert (receiver.rx.resends, receiver.rx.reassembly.corrupted, receiver.output) == (1, 1, b"")
    receiver.feed(second, data(0))
    assert receiver.output == DATA[:200] and not second.outbox


def test_copies_that_are_thrown_away_go_through_a_bounded_scratch() -> None:
    size = SCRATCH_BYTES + 1000
    payload = bytes(size)
    receiver = Receiver(RxConfig(window_bytes=4 * MIB))
    leg = receiver.leg()
    for _ in range(2):
        receiver.feed(leg, big(0, payload))
    assert receiver.rx.reassembly.duplicate_bytes == size and receiver.output == payload


def test_memory_stays_within_the_window_whatever_comes() -> None:
    receiver = Receiver(RxConfig(window_bytes=1000), direct=False)
    receiver.open_bytes = 0
    leg = receiver.leg()
    for seq in range(10):
        receiver.feed(leg, data(seq))
    with pytest.raises(FrameError, match="beyond the window"):
        receiver.feed(leg, data(10))
    assert receiver.rx.reassembly.memory_bytes() <= 1000


# What tx may say ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [1, 1 << 30])
@pytest.mark.parametrize(
    ("message", "error", "words"),
    [
        (encode_reason(Kind.ABORT, "in\x1b[0mput\nfailed"), RemoteFailed, r"gave up at byte 100: in\?\[0mput\?failed$"),
        (encode_reason(Kind.ABORT, ""), RemoteFailed, "gave up at byte 100: $"),
        (encode_reason(Kind.ABORT, "x")[:-1] + b"y", FrameError, "damaged payload"),
        (encode_control(Kind.BYE), FrameError, "bye"),
        (encode_control(Kind.DONE), FrameError, "unknown kind"),
        (Ack(0, 0, Waiting.FRAME, 0).encode(), FrameError, "unknown kind"),
        (b"GET / HTTP/1.1\r\n" + bytes(40), FrameError, "damaged header"),
        (encode_control(Kind.DATA, 2000, 200_000, b"x"), FrameError, "beyond the window"),
        (encode_control(Kind.END, 1, 99), FrameError, "cannot begin"),
        (encode_control(Kind.END, 1, 100) + data(2), FrameError, "behind the end"),
        (encode_control(Kind.END, 2, 150) + data(1), IntegrityError, "begins at byte 150"),
    ],
)
def test_what_ends_a_leg_or_the_session(message: bytes, error: type[Exception], words: str, piece: int) -> None:
    receiver = Receiver(direct=False)
    receiver.piece_bytes = piece
    leg = receiver.leg()
    receiver.feed(leg, data(0))
    with pytest.raises(error, match=words):
        receiver.feed(leg, message)
    assert receiver.output == DATA[:100]


# Acknowledgements and heartbeats ------------------------------------------------------------------------


def test_an_acknowledgement_waits_a_little_and_carries_the_whole_state() -> None:
    receiver = Receiver(direct=False)
    leg = receiver.leg()
    assert told(receiver, 0) is None and receiver.rx.deadline_us() is None
    receiver.feed(leg, data(0) + data(2) + data(4) + data(5), now_us=1000)
    assert receiver.rx.deadline_us() == 1000 + ACK_DELAY_US
    assert told(receiver, 1000 + ACK_DELAY_US - 1) is None
    assert told(receiver, 1000 + ACK_DELAY_US) == Ack(1, 100, Waiting.FRAME, 1, ((2, 3), (4, 6)))
    assert told(receiver, 1000 + ACK_DELAY_US) is None and receiver.rx.deadline_us() is None


def test_an_acknowledgement_of_much_does_not_wait() -> None:
    for window_bytes, size in [(1000, 250), (64 * MIB, 2 * MIB)]:
        receiver = Receiver(RxConfig(window_bytes=window_bytes))
        payload = bytes(size)
        leg = receiver.leg()
        receiver.feed(leg, big(0, payload), now_us=1000)
        assert told(receiver, 1000) is not None


def test_it_is_sent_where_something_came_last_or_was_heard_last() -> None:
    receiver = Receiver()
    first, second, third = (receiver.leg(number) for number in range(3))
    receiver.feed(third, data(0)[:41], 5)
    receiver.feed(second, data(0), 6)
    due = receiver.rx.next_ack(S_US)
    assert due is not None and due[0] is second
    receiver.feed(second, data(1), 7)
    receiver.lose(second)
    due = receiver.rx.next_ack(S_US)
    assert due is not None and due[0] is third
    receiver.lose(third)
    receiver.lose(first)
    receiver.rx.on_written(0, 0)
    assert receiver.rx.next_ack(2 * S_US) is None and receiver.rx.deadline_us() is None


def test_a_blocked_output_is_told_before_its_frames_look_late() -> None:
    receiver = Receiver()
    leg = receiver.leg()
    receiver.open_bytes = 30
    receiver.feed(leg, data(0), now_us=0)
    assert receiver.rx.waiting() is Waiting.OUTPUT
    assert receiver.rx.deadline_us() == BLOCKED_US
    assert told(receiver, BLOCKED_US - 1) is None
    assert told(receiver, BLOCKED_US) == Ack(0, 30, Waiting.OUTPUT, 0)
    assert told(receiver, 2 * BLOCKED_US) is None and receiver.rx.deadline_us() is None
    receiver.open(3 * BLOCKED_US)
    assert receiver.output == DATA[:100]
    assert told(receiver, 4 * BLOCKED_US) == Ack(1, 100, Waiting.FRAME, 1)


def test_a_blocked_output_without_legs_has_no_deadline() -> None:
    receiver = Receiver()
    receiver.rx.on_output_blocked(0)
    assert receiver.rx.deadline_us() is None and told(receiver, S_US) is None


def test_writing_opens_the_window_of_tx() -> None:
    receiver = Receiver(direct=False)
    receiver.open_bytes = 0
    leg = receiver.leg()
    receiver.feed(leg, data(0), now_us=0)
    assert told(receiver, S_US) == Ack(1, 0, Waiting.OUTPUT, 1)
    receiver.open(2 * S_US)
    assert told(receiver, 2 * S_US + ACK_DELAY_US) == Ack(1, 100, Waiting.FRAME, 1)


def test_heartbeats_go_on_while_nothing_is_read() -> None:
    receiver = Receiver()
    first, second = receiver.leg(0), receiver.leg(1)
    assert receiver.rx.heartbeats(HEARTBEAT_US - 1) == ([], b"")
    receiver.feed(second, data(0), HEARTBEAT_US - 1)
    assert receiver.rx.next_ack(HEARTBEAT_US + ACK_DELAY_US) is not None  # on the second
    legs, what = receiver.rx.heartbeats(HEARTBEAT_US + ACK_DELAY_US)
    assert legs == [first] and [h.kind for h, _ in said(what)] == [Kind.ACK]
    assert receiver.rx.heartbeats(HEARTBEAT_US + ACK_DELAY_US) == ([], b"")
    first.outbox.append(b"not sent yet")
    legs, _ = receiver.rx.heartbeats(3 * HEARTBEAT_US)
    assert legs == [second]  # the first has enough to say


def test_done_is_repeated_and_nothing_is_acknowledged_any_more() -> None:
    receiver = Receiver()
    leg = receiver.leg()
    receiver.feed(leg, data(0) + end(1), now_us=0)
    receiver.rx.on_done()
    assert told(receiver, S_US) is None and receiver.rx.deadline_us() is None
    leg.outbox.clear()
    _, what = receiver.rx.heartbeats(S_US)
    assert [(h.kind, h.offset) for h, _ in said(what)] == [(Kind.DONE, 100)]
    receiver.lose(leg)
    receiver.rx.on_timer(10_000 * S_US)  # tx may go: the stream is whole


def test_done_before_the_end_is_a_bug() -> None:
    receiver = Receiver()
    receiver.feed(receiver.leg(), data(0))
    with pytest.raises(AssertionError):
        receiver.rx.on_done()


# Why to give up -----------------------------------------------------------------------------------------


def test_the_first_contact_is_waited_for_as_long_as_configured() -> None:
    receiver = Receiver(RxConfig(wait_us=S_US))
    receiver.rx.on_timer(S_US - 1)
    with pytest.raises(LimitReached, match="no transmitter came"):
        receiver.rx.on_timer(S_US)
    Receiver().rx.on_timer(1 << 60)


@pytest.mark.parametrize(("closed", "limit_us"), [(True, 10 * S_US), (False, 900 * S_US)])
def test_a_dead_transmitter_and_an_outage_have_different_clocks(closed: bool, limit_us: int) -> None:
    receiver = Receiver()
    leg = receiver.leg()
    receiver.feed(leg, data(0))
    receiver.lose(leg, 5, closed)
    receiver.rx.on_timer(5 + limit_us - 1)
    with pytest.raises(PeerLost, match="incomplete at byte 100"):
        receiver.rx.on_timer(5 + limit_us)


def test_the_ranges_of_an_acknowledgement_are_limited() -> None:
    receiver = Receiver(direct=False)
    leg = receiver.leg()
    for seq in range(1, 600, 2):
        receiver.feed(leg, encode_control(Kind.DATA, seq, seq, DATA[seq : seq + 1]))
    ack = receiver.rx.ack()
    assert len(ack.ranges) == 256 and ack.ranges[0] == (1, 2)
    ((_, decoded),) = said(ack.encode())
    assert decoded == ack
    assert struct.calcsize("!QQ") * 256 + 16 + 40 == len(ack.encode())
