"""The receiver's session: who belongs to it, what each leg does next, what tx is told and when."""

import pytest

from tests.protocol.drive import RECEIVER, SESSION, Receiver, greeting, said
from tests.protocol.frames import DATA, SIZE, big, data, end, outbox, told
from viamillipede.config import (
    ASIDE_US,
    KIB,
    LEG_DOUBTED_US,
    LEGS_MAX,
    MIB,
    S_US,
    RxConfig,
)
from viamillipede.errors import FrameError, IntegrityError, RemoteFailed
from viamillipede.protocol.rx_session import SCRATCH_BYTES, Action
from viamillipede.protocol.wire import (
    FEATURE_CHECKSUM,
    FEATURE_XXH3,
    Ack,
    Kind,
    Verdict,
    Waiting,
    encode_control,
    encode_reason,
    encode_waits,
)

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
    assert answer.features == (FEATURE_CHECKSUM | FEATURE_XXH3 if rx or tx else 0)  # where bytes are copied anyhow
    assert answer.window_bytes == MIB and receiver.rx.reassembly.window_bytes == 64 * KIB


@pytest.mark.parametrize(
    ("names", "name", "taken"),
    [
        (None, "", True),
        (None, "db1", True),
        ("*", "", True),
        ("db?", "db1", True),
        ("db?", "db12", False),
        ("db?", "my-db1", False),  # the whole name
        ("db[12]", "db3", False),
        ("DB1", "db1", False),
        ("db1", "", False),
    ],
)
def test_only_names_that_match_are_taken(names: str | None, name: str, taken: bool) -> None:
    receiver = Receiver(RxConfig(names=names))
    answer = receiver.rx.on_greeting(greeting(name=name))
    assert answer.verdict is (Verdict.ACCEPTED if taken else Verdict.NAME)
    assert (receiver.rx.session, receiver.rx.name) == ((SESSION, name) if taken else (None, ""))


def test_another_checkphrase_is_not_told_which_names_are_taken() -> None:
    receiver = Receiver(RxConfig(names="db1"))
    assert receiver.rx.on_greeting(greeting(name="x", checkphrase=b"evil")).verdict is Verdict.CHECKPHRASE
    assert receiver.rx.on_greeting(greeting(name="db1")).verdict is Verdict.ACCEPTED
    assert receiver.rx.on_greeting(greeting(1, name="x")).verdict is Verdict.NAME
    assert receiver.rx.name == "db1"


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


def test_a_leg_that_tx_leaves_is_no_restart_when_it_is_wanted_again() -> None:
    receiver = Receiver()
    leg = receiver.leg(3)
    receiver.feed(leg, encode_control(Kind.LEAVE))
    receiver.lose(leg)
    receiver.leg(3)
    assert receiver.rx.restarts == 0


def test_rx_listens_to_a_leg_that_it_has_read_for_a_while() -> None:
    receiver = Receiver()
    leg, waits = receiver.leg(0), receiver.leg(1)
    receiver.feed(waits, data(1))
    heard = [receiver.rx.listens_to(each, LEG_DOUBTED_US) for each in (leg, waits)]
    assert heard == [True, False] and not receiver.rx.listens_to(leg, LEG_DOUBTED_US - 1)
    receiver.rx.on_output_blocked(LEG_DOUBTED_US)
    assert not receiver.rx.listens_to(leg, 9 * LEG_DOUBTED_US)


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
    assert receiver.rx.reassembly.direct_bytes == 300 and receiver.rx.waiting_legs.asides == 0


def test_a_frame_is_read_aside_when_the_output_starves_and_what_stands_behind_it_comes_through() -> None:
    receiver = Receiver()
    leg = receiver.leg()
    receiver.feed(leg, data(1) + data(2) + data(0), now_us=1000)  # sent again behind a frame that waits
    assert receiver.output == b"" and receiver.rx.deadline_us() == 1000 + ASIDE_US
    receiver.timer(1000 + ASIDE_US - 1)
    assert receiver.rx.waiting_legs.asides == 0
    receiver.timer(1000 + ASIDE_US)  # one wait is enough for all that follows
    assert receiver.output == DATA[:300] and receiver.rx.waiting_legs.asides == 2


def test_nothing_is_read_aside_while_the_output_is_blocked() -> None:
    receiver = Receiver()
    leg = receiver.leg()
    receiver.feed(leg, data(1), now_us=0)
    receiver.rx.on_output_blocked(0)
    receiver.rx.on_output_blocked(500)  # said twice
    receiver.timer(100 * ASIDE_US)
    assert receiver.rx.waiting_legs.asides == 0
    receiver.open(100 * ASIDE_US)
    receiver.open(100 * ASIDE_US + 9)  # said twice: it is open since the first time
    assert receiver.rx.deadline_us() == 101 * ASIDE_US  # it starves from now on
    receiver.timer(101 * ASIDE_US)
    assert receiver.rx.waiting_legs.asides == 1


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
    assert (receiver.rx.resends, receiver.rx.reassembly.corrupted, len(receiver.output)) == (1, 1, 0)
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
        (encode_reason(Kind.ABORT, "in\x1b[0mput\r\nlost"), RemoteFailed, r"gave up at byte 100: in\?\[0mput\?\nlost$"),
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


@pytest.mark.parametrize("piece", [1, 1 << 30])
def test_tx_says_where_the_time_goes_and_the_latest_word_counts(piece: int) -> None:
    receiver = Receiver()
    receiver.piece_bytes = piece
    leg = receiver.leg()
    receiver.feed(leg, encode_waits([1, 2, 3, 4, 5, 6]) + data(0) + encode_waits([7, 8, 9, 10, 11, 12]))
    assert receiver.rx.tx_waits_us == (7, 8, 9, 10, 11, 12) and receiver.output == DATA[:100]


def test_rx_says_where_its_time_goes_in_each_acknowledgement() -> None:
    receiver = Receiver()
    leg = receiver.leg()
    receiver.rx.output_us, receiver.rx.core_us = 5_000_000, 7_000
    receiver.feed(leg, data(0))
    ack = told(receiver, S_US)
    assert ack is not None and (ack.output_us, ack.core_us) == (5_000_000, 7_000)


def test_who_could_not_be_answered_does_not_own_the_receiver() -> None:
    receiver = Receiver()
    assert receiver.rx.on_greeting(greeting(session=b"a" * 16)).verdict is Verdict.ACCEPTED
    receiver.rx.on_answer_lost()
    assert receiver.rx.on_greeting(greeting()).verdict is Verdict.ACCEPTED
    receiver.leg()
    receiver.rx.on_answer_lost()  # of a second leg: the first one is up
    assert receiver.rx.on_greeting(greeting(session=b"a" * 16)).verdict is Verdict.BUSY
