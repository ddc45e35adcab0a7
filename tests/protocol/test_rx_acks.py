"""What the receiver tells tx, when, on which leg; and why it gives up."""

import struct

import pytest

from tests.protocol.drive import Receiver, Sender, connect, message, said
from tests.protocol.frames import DATA, big, data, end, told
from viamillipede.config import (
    ACK_DELAY_US,
    BLOCKED_US,
    CONNECT_US,
    GREETING_US,
    HEARTBEAT_US,
    KIB,
    MIB,
    RX_SILENT_US,
    S_US,
    TICK_US,
    UNHEARD_US,
    Address,
    RxConfig,
    TxConfig,
)
from viamillipede.errors import LimitReached, PeerLost
from viamillipede.protocol.wire import (
    HEADER_BYTES,
    Ack,
    Kind,
    Verdict,
    Waiting,
    decode_greeting_untrusted,
    encode_control,
    encode_waits,
)

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


@pytest.mark.parametrize("regroup_us", [1 * S_US, 10 * S_US, 60 * S_US])
def test_a_transmitter_that_has_said_nothing_behind_its_greeting_may_not_know_of_its_leg(regroup_us: int) -> None:
    """Where the answer is lost it is still at its first contact, and may be there for as long as an attempt takes."""
    receiver = Receiver(RxConfig(regroup_us=regroup_us, window_bytes=64 * KIB))
    first, second = receiver.leg(0), receiver.leg(1)
    receiver.lose(first, 5)
    receiver.lose(second, 5)
    limit_us = max(regroup_us, UNHEARD_US)
    receiver.rx.on_timer(5 + limit_us - 1)
    third = receiver.leg(0, 5 + limit_us - 1)
    receiver.rx.on_timer(100 * limit_us)
    receiver.feed(third, data(0)[: HEADER_BYTES - 1], 100 * limit_us)
    assert not receiver.rx.presence.heard
    receiver.feed(third, data(0)[HEADER_BYTES - 1 : HEADER_BYTES], 100 * limit_us)
    assert receiver.rx.presence.heard and receiver.rx.begun
    receiver.feed(third, data(0)[HEADER_BYTES:], 100 * limit_us)
    receiver.lose(third, 100 * limit_us)
    receiver.rx.on_timer(100 * limit_us + regroup_us - 1)
    with pytest.raises(PeerLost, match="the other process is gone; the stream ends incomplete at byte 100"):
        receiver.rx.on_timer(100 * limit_us + regroup_us)


@pytest.mark.parametrize("what", [encode_control(Kind.BEAT), encode_waits([0] * 6), data(0), end(0)])
def test_whatever_a_transmitter_says_behind_its_greeting_it_has_a_leg(what: bytes) -> None:
    receiver = Receiver()
    leg = receiver.leg()
    assert not receiver.rx.presence.heard
    receiver.feed(leg, what)
    assert receiver.rx.presence.heard


def test_when_no_transmitter_comes_again_that_never_said_anything_rx_gives_up() -> None:
    receiver = Receiver(RxConfig(regroup_us=S_US, window_bytes=64 * KIB))
    receiver.lose(receiver.leg(), 5)
    receiver.rx.on_timer(5 + UNHEARD_US - 1)
    with pytest.raises(PeerLost, match="the other process is gone; the stream ends incomplete at byte 0"):
        receiver.rx.on_timer(5 + UNHEARD_US)


def test_an_answer_that_is_lost_and_an_attempt_that_is_never_answered_end_no_stream() -> None:
    """rx has a leg, and tx has none: the first connection is cut in rx's answer, the second one swallows everything."""
    hosts = (Address("a", 1),)
    receiver = Receiver(RxConfig(regroup_us=S_US, window_bytes=64 * KIB))
    sender = Sender(TxConfig(addresses=hosts, threads=1, window_bytes=64 * KIB, frame_bytes=KIB))
    assert sender.tx.next_dial(0) == (0, 0)
    answer = receiver.rx.on_greeting(decode_greeting_untrusted(sender.tx.greeting(0)))
    assert answer.verdict is Verdict.ACCEPTED
    unheard = receiver.rx.on_leg_up(0, 0, 0)
    receiver.sockets[0] = bytearray()
    sender.tx.dialling.on_over(0)
    sender.tx.on_attempt_failed(0, "closed before it answered", True, 0, 0.5)
    receiver.lose(unheard, 0)

    def again(now_us: int) -> int:
        """When tx dials next; rx is there all the time."""
        while (wanted := sender.tx.next_dial(now_us)) is None:
            now_us += TICK_US
            receiver.timer(now_us)
            assert sender.tx.on_timer(now_us) == []
        assert wanted == (0, 0)
        return now_us

    now_us = again(0)
    for _ in range(0, CONNECT_US + sender.tx.answer_us(), TICK_US):  # both take as long as they may
        now_us += TICK_US
        receiver.timer(now_us)
    assert sender.tx.answer_us() == GREETING_US > receiver.config.regroup_us, "it is its first contact"
    sender.tx.dialling.on_over(0)
    sender.tx.on_attempt_failed(0, "connected, but no answer", False, now_us, 0.5)
    now_us = again(now_us)
    leg = connect(sender, receiver, 0, now_us)
    sender.input(DATA[:500], now_us)
    sender.tx.window.on_input_end()
    for _, frame in sender.sent(now_us) + sender.sent(now_us + S_US):
        receiver.feed(leg, message(sender, frame), now_us)
    assert receiver.output == DATA[:500] and receiver.rx.reassembly.complete()


def test_the_ranges_of_an_acknowledgement_are_limited() -> None:
    receiver = Receiver(direct=False)
    leg = receiver.leg()
    for seq in range(1, 600, 2):
        receiver.feed(leg, encode_control(Kind.DATA, seq, seq, DATA[seq : seq + 1]))
    ack = receiver.rx.ack()
    assert len(ack.ranges) == 256 and ack.ranges[0] == (1, 2)
    ((_, decoded),) = said(ack.encode())
    assert decoded == ack
    assert struct.calcsize("!QQ") * 256 + struct.calcsize("!QQQQ") + 40 == len(ack.encode())


# Legs that say nothing ----------------------------------------------------------------------------------


def silence(receiver: Receiver, from_us: int, to_us: int) -> list[tuple[int, int]]:
    """Ticks without a word from tx; returns (when, leg) as soon as any leg is called silent."""
    for now_us in range(from_us, to_us, TICK_US):
        if found := receiver.rx.silent(now_us):
            return [(now_us, leg.number) for leg in found]
    return []


def test_a_leg_that_says_nothing_is_silent_and_a_beat_is_enough() -> None:
    receiver = Receiver()
    receiver.leg(0)
    second = receiver.leg(1)
    assert silence(receiver, 0, RX_SILENT_US) == []
    receiver.feed(second, encode_control(Kind.BEAT), RX_SILENT_US - 1)
    assert silence(receiver, RX_SILENT_US, RX_SILENT_US + 1) == [(RX_SILENT_US, 0)]
    assert receiver.output == b"" and receiver.rx.next_ack(RX_SILENT_US) is None


def test_a_leg_that_rx_does_not_read_is_not_silent() -> None:
    receiver = Receiver()
    waits = receiver.leg(0)
    receiver.feed(waits, data(1), 0)
    assert silence(receiver, 0, 2 * RX_SILENT_US) == []
    receiver = Receiver()
    receiver.leg(0)
    receiver.rx.on_output_blocked(0)
    assert silence(receiver, 0, 10 * RX_SILENT_US) == []
    open_us = 10 * RX_SILENT_US
    receiver.open(open_us)
    assert silence(receiver, open_us, open_us + RX_SILENT_US) == []  # it had no chance to be heard before
    assert silence(receiver, open_us + RX_SILENT_US, open_us + 2 * RX_SILENT_US) == [(open_us + RX_SILENT_US, 0)]


def test_our_own_sleep_is_not_the_silence_of_tx() -> None:
    receiver = Receiver()
    receiver.leg(0)
    assert silence(receiver, 0, S_US) == []
    assert silence(receiver, 1000 * S_US, 1000 * S_US + RX_SILENT_US) == []
    woken_us = 1000 * S_US + RX_SILENT_US
    assert silence(receiver, woken_us, woken_us + S_US) == [(woken_us, 0)]
