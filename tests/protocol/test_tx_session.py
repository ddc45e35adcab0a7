"""The transmitter's session: legs come and go, answers are judged, rx is believed only what can be."""

import pytest

from tests.protocol.drive import HOSTS, RECEIVER, SESSION, Sender
from viamillipede.config import KIB, MIB, MS_US, S_US, TxConfig
from viamillipede.errors import FrameError, NoContact, PeerLost, RemoteFailed, SessionRefused
from viamillipede.protocol.tx_leg import FRAME_BYTES_LEAST
from viamillipede.protocol.tx_session import TxSession
from viamillipede.protocol.wire import (
    FEATURE_CHECKSUM,
    Ack,
    Answer,
    Kind,
    Verdict,
    Waiting,
    decode_greeting_untrusted,
    encode_control,
    encode_reason,
)

REFUSED = [
    Verdict.VERSION, Verdict.CHECKPHRASE, Verdict.ROLE, Verdict.NAME, Verdict.KEYLESS, Verdict.KEYED, Verdict.KEY,
]  # fmt: skip
BUSY = [Verdict.BUSY, Verdict.MALFORMED]


def busy_sender(legs: int = 2) -> Sender:
    """Legs up and the window full."""
    sender = Sender()
    for leg in range(legs):
        sender.up(leg, rank=leg % 2)
    sender.fill()
    return sender


# Greeting and answer ------------------------------------------------------------------------------------


def test_the_greeting_says_what_was_configured() -> None:
    config = TxConfig(addresses=HOSTS, threads=8, checksum=True, checkphrase=b"abcd", window_bytes=MIB, frame_bytes=MIB)
    sender = Sender(config)
    greeting = decode_greeting_untrusted(sender.tx.greeting(5))
    assert (greeting.session, greeting.leg, greeting.receiver) == (SESSION, 5, bytes(8))
    assert (greeting.checkphrase, greeting.features) == (b"abcd", FEATURE_CHECKSUM)
    assert (greeting.window_bytes, greeting.frame_bytes) == (MIB, MIB // 4)
    sender.up(0, features=FEATURE_CHECKSUM)
    assert decode_greeting_untrusted(sender.tx.greeting(1)).receiver == RECEIVER
    plain = decode_greeting_untrusted(Sender().tx.greeting(0))
    assert (plain.features, plain.name) == (0, "")
    assert decode_greeting_untrusted(Sender(TxConfig(addresses=HOSTS, name="db1")).tx.greeting(0)).name == "db1"


@pytest.mark.parametrize("state", ["waiting", "together", "alone"])
@pytest.mark.parametrize("verdict", Verdict)
def test_each_verdict_in_each_state(verdict: Verdict, state: str) -> None:
    sender = Sender()
    if state != "waiting":
        sender.up(0)
    if state == "alone":
        sender.tx.on_leg_lost(0, True, 0)
    answer = Answer(verdict, 0, RECEIVER, MIB)
    if verdict is Verdict.UNKNOWN and state == "alone":  # final where ours used to answer
        with pytest.raises(PeerLost, match="started anew"):
            sender.tx.on_answer(1, 0, answer, 0)
    reason = sender.tx.on_answer(1, 1, answer, 0)
    assert (reason == "") == (verdict is Verdict.ACCEPTED)
    assert (1 in sender.tx.legs) == (verdict is Verdict.ACCEPTED)
    if verdict in [*REFUSED, Verdict.UNKNOWN] and state == "waiting":  # final only when every address says so
        with pytest.raises(SessionRefused, match=r"^a:1: .*receiver"):
            sender.tx.on_answer(0, 0, answer, 0)
    elif verdict is not Verdict.ACCEPTED and (state, verdict) != ("alone", Verdict.UNKNOWN):
        assert sender.tx.on_answer(2, 0, answer, 0) == reason
    sender.tx.check()


def test_an_address_that_refused_and_then_accepts_does_not_count_as_refusing() -> None:
    sender = Sender()
    assert sender.tx.on_refused_for_good(0, "speaks another protocol") == "speaks another protocol"
    sender.up(0, rank=0)
    sender.tx.on_leg_lost(0, True, 0)
    assert sender.tx.on_refused_for_good(1, "no") == "no"


def test_a_receiver_that_was_busy_is_remembered_when_nobody_listens_any_more() -> None:
    sender = Sender()
    reason = sender.tx.on_answer(0, 0, Answer(Verdict.BUSY), 0)
    sender.tx.on_attempt_failed(0, reason, False, 0, 0.0)
    sender.tx.on_attempt_failed(0, "Connection refused", True, 0, 0.0)
    assert sender.tx.book.failures() == [f"a:1: Connection refused (before: {reason})"]


def test_the_first_answer_settles_window_and_checksum() -> None:
    sender = Sender(TxConfig(addresses=HOSTS, threads=8, window_bytes=MIB, frame_bytes=64 * KIB))
    sender.up(0, window_bytes=100 * KIB, features=FEATURE_CHECKSUM)
    assert sender.tx.checksum
    assert (sender.tx.window.window_bytes, sender.tx.window.frame_bytes) == (100 * KIB, 25 * KIB)
    window = sender.tx.window
    sender.up(1, window_bytes=MIB)
    assert sender.tx.window is window


def test_a_receiver_that_would_not_verify_what_was_to_be_verified_is_refused() -> None:
    sender = Sender(TxConfig(addresses=HOSTS, checksum=True))
    answer = Answer(Verdict.ACCEPTED, 0, RECEIVER, MIB)
    assert sender.tx.on_answer(0, 0, answer, 0) == "the receiver does not verify checksums"
    with pytest.raises(SessionRefused, match="b:2: the receiver does not verify checksums"):
        sender.tx.on_answer(1, 1, answer, 0)


@pytest.mark.parametrize("alone", [False, True])
def test_another_receiver_is_no_leg_and_the_end_when_ours_is_gone(alone: bool) -> None:
    sender = Sender()
    sender.up(0, rank=0)
    stranger = Answer(Verdict.ACCEPTED, 0, b"stranger", MIB)
    if alone:
        sender.tx.on_leg_lost(0, True, 0)
        with pytest.raises(PeerLost, match="started anew"):
            sender.tx.on_answer(1, 0, stranger, 0)
    else:
        assert "another receiver" in sender.tx.on_answer(1, 0, stranger, 0)
    assert "another receiver" in sender.tx.on_answer(1, 1, stranger, 0)  # ours never answered there
    assert 1 not in sender.tx.legs


# Attempts, and why to give up ---------------------------------------------------------------------------


def test_no_contact_names_every_address() -> None:
    sender = Sender()
    sender.tx.on_attempt_failed(0, "refused", True, 0, 0.5)
    sender.tx.on_attempt_failed(1, "timed out", False, 0, 0.5)
    assert sender.tx.on_timer(60 * S_US - 1) == []
    with pytest.raises(NoContact, match="a:1: refused; b:2: timed out"):
        sender.tx.on_timer(60 * S_US)
    with pytest.raises(NoContact, match="no address answered"):
        Sender().tx.on_timer(60 * S_US)


@pytest.mark.parametrize(
    ("closed", "refused", "rank", "limit_us", "word"),
    [
        (True, False, 0, 10 * S_US, "process is gone"),
        (False, False, 0, 900 * S_US, "network was down"),
        (False, True, 0, 10 * S_US, "process is gone"),
        (False, True, 1, 900 * S_US, "network was down"),  # that address never worked: no evidence
    ],
)
def test_a_dead_peer_and_an_outage_have_different_clocks(
    closed: bool, refused: bool, rank: int, limit_us: int, word: str
) -> None:
    sender = Sender()
    sender.up(0)
    sender.tx.on_leg_lost(0, closed, 5)
    sender.tx.on_attempt_failed(rank, "no", refused, 5, 0.5)
    assert sender.tx.on_timer(5 + limit_us - 1) == []
    with pytest.raises(PeerLost, match=f"{word}.*0 bytes were delivered"):
        sender.tx.on_timer(5 + limit_us)


def test_restarts_and_the_most_legs_are_counted() -> None:
    sender = busy_sender(3)
    assert sender.tx.legs_most == 3
    carried = sender.tx.window.carries(0)
    assert carried and sender.tx.on_leg_lost(0, True, 0) == carried
    sender.tx.check()
    sender.up(0)
    assert (sender.tx.restarts, sender.tx.legs_most, len(sender.tx.legs)) == (1, 3, 3)
    again = sender.sent()
    assert len(again) == carried
    assert sum(leg.retransmitted for leg in sender.tx.legs.values()) == carried


# Which leg sends what -----------------------------------------------------------------------------------


def test_the_first_address_is_filled_first() -> None:
    sender = Sender(TxConfig(addresses=HOSTS, threads=8, window_bytes=64 * KIB, frame_bytes=KIB))
    for leg, rank in [(1, 1), (0, 0), (2, 0)]:
        sender.up(leg, rank=rank)
    order = []
    for _ in range(3):  # nobody becomes idle again
        sender.input(bytes(KIB))
        assignment = sender.tx.next_assignment(0)
        assert assignment is not None
        order.append(assignment[0])
        sender.tx.check()
    assert order == [0, 2, 1]
    sender.input(bytes(KIB))
    assert sender.tx.next_assignment(0) is None


def test_the_preferred_leg_carries_all_it_can() -> None:
    sender = busy_sender(2)
    assert sender.tx.window.carries(0) == 64 and sender.tx.window.carries(1) == 0
    assert [state.bytes_sent for state in sender.tx.book.states] == [64 * (KIB + 40), 0]
    assert sender.tx.legs[0].bytes_sent == 64 * (KIB + 40)


def test_what_was_lost_goes_before_what_is_new() -> None:
    sender = Sender()
    sender.up(0)
    sender.up(1, rank=1)
    for _ in range(3):
        sender.input(bytes(KIB))
        sender.sent()
    sender.input(bytes(KIB))
    sender.tx.on_leg_lost(0, True, 0)
    assert [frame.seq for _, frame in sender.sent()] == [0, 1, 2, 3]


@pytest.mark.parametrize(("took_us", "length"), [(S_US, FRAME_BYTES_LEAST), (10 * MS_US, 128 * KIB), (10, MIB)])
def test_the_frame_follows_the_rate_of_its_leg(took_us: int, length: int) -> None:
    sender = Sender(TxConfig(addresses=HOSTS, threads=8, window_bytes=8 * MIB, frame_bytes=MIB))
    sender.up(0)
    sender.input(bytes(FRAME_BYTES_LEAST))
    ((_, frame),) = sender.sent()
    assert frame.length == FRAME_BYTES_LEAST
    sender.ack(0, 1, FRAME_BYTES_LEAST, took_us)
    sender.input(bytes(MIB))
    assert sender.sent(took_us)[0][1].length == sender.tx.frame_bytes(0) == length


def test_nothing_is_measured_with_two_copies_or_with_a_blocked_output() -> None:
    sender = busy_sender(2)
    (leg, frame), *_ = sender.sent(10 * S_US)  # hedged
    assert (leg, frame.seq) == (1, 0)
    state, now_us = sender.tx.legs[0], 10 * S_US
    copied = sum(len(frame.legs) > 1 for frame in sender.tx.window.unarrived())
    sender.ack(1, copied, 0, now_us + 5)
    assert (state.rate, sender.tx.legs[1].rate) == (0, 0)
    sender.ack(1, copied + 1, 0, now_us + 6, Waiting.OUTPUT)
    sender.ack(1, copied + 2, 0, now_us + 7, Waiting.FRAME)  # it was blocked until now
    assert state.rate == 0
    sender.ack(1, copied + 3, 0, now_us + 8)
    assert state.rate > 0 and state.latency_us == now_us + 8


# What rx says -------------------------------------------------------------------------------------------


def test_an_overtaken_acknowledgement_says_nothing_about_what_rx_waits_for() -> None:
    sender = busy_sender(2)
    sender.ack(0, 3, 3 * KIB, 5, Waiting.OUTPUT)
    sender.ack(1, 2, 3 * KIB, 6, Waiting.FRAME)
    assert sender.tx.rx_waits_output
    sender.ack(1, 3, 2 * KIB, 6, Waiting.FRAME, ((5, 6),))
    assert sender.tx.rx_waits_output and sender.tx.window.frames_in_flight() == 60  # what arrived counts all the same
    sender.ack(1, 3, 3 * KIB, 7, Waiting.FRAME)
    assert not sender.tx.rx_waits_output


def test_resend_is_counted_and_sent_again() -> None:
    sender = busy_sender(1)
    sender.say(0, Kind.RESEND, seq=3)
    assert sender.tx.resends == 1
    assert [(leg, frame.seq) for leg, frame in sender.sent()] == [(0, 3)]


def test_done_only_for_the_stream_that_was_sent() -> None:
    sender = Sender()
    sender.up(0)
    sender.input(bytes(100))
    sender.tx.window.on_input_end()
    for end, offset in [(False, 0), (False, 100), (True, 99), (True, 101)]:
        if end:
            sender.sent()
        with pytest.raises(FrameError):
            sender.say(0, Kind.DONE, offset=offset)
        assert not sender.tx.done
        sender.tx.on_leg_lost(0, True, 0)
        sender.up(0)
    sender.say(0, Kind.DONE, offset=100)
    assert sender.tx.done


def test_the_reason_of_rx_is_told_and_safe_to_print() -> None:
    sender = Sender()
    sender.up(0)
    with pytest.raises(RemoteFailed, match=r"the receiver gave up: disk \?\[31mfull\?\nNo space left$"):
        sender.tx.on_bytes_untrusted(0, encode_reason(Kind.REFUSAL, "disk \x1b[31mfull\r\nNo space left"), 0)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(40),
        encode_control(Kind.BYE),
        encode_control(Kind.END),
        encode_control(Kind.RESEND, seq=9),
        Ack(1, 0, Waiting.FRAME, 1).encode(),
        Ack(0, 1, Waiting.FRAME, 0).encode(),
        Ack(0, 0, Waiting.FRAME, 0, ((1, 2),)).encode(),
    ],
)
def test_what_cannot_be_true_costs_the_leg(data: bytes) -> None:
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        sender = Sender()
        sender.up(0)
        with pytest.raises(FrameError):
            for piece in pieces:
                sender.tx.on_bytes_untrusted(0, piece, 0)
        sender.tx.check()


def test_where_the_time_of_rx_goes_only_grows() -> None:
    sender = busy_sender(2)
    for leg, output_us, core_us in [(0, 500, 70), (1, 400, 60), (0, 500, 80)]:
        sender.tx.on_bytes_untrusted(leg, Ack(0, 0, Waiting.FRAME, 0, (), output_us, core_us).encode(), 0)
    assert (sender.tx.rx_output_us, sender.tx.rx_core_us) == (500, 80)


def test_messages_of_all_legs_are_kept_apart() -> None:
    sender = busy_sender(2)
    data = Ack(1, 0, Waiting.FRAME, 1).encode()
    for i in range(len(data)):
        for leg in (0, 1):
            sender.tx.on_bytes_untrusted(leg, data[i : i + 1], 0)
    assert sender.tx.window.arrived_next == 1
    assert isinstance(sender.tx, TxSession)
