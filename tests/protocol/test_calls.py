"""rx dials: whose calls tx takes, which legs it wishes for, and what rx makes of that."""

from typing import Any

import pytest

from tests.protocol.drive import RECEIVER, SESSION, Receiver, greeting
from viamillipede.config import (
    HEARTBEAT_US,
    LEG_DOUBTED_US,
    LEGS_AGAIN_US,
    LEGS_MAX,
    MIB,
    RANKS_MAX,
    S_US,
    SETUPS_MAX,
    USEFUL_US,
    Address,
    RxConfig,
    TxConfig,
)
from viamillipede.errors import FrameError, LimitReached, NoContact, PeerLost, SessionRefused
from viamillipede.protocol.address_book import AddressBook
from viamillipede.protocol.calls import Callers, Wishes, bounded
from viamillipede.protocol.control import ControlDecoder
from viamillipede.protocol.dialling import Dialling
from viamillipede.protocol.tx_session import TxSession
from viamillipede.protocol.waiting_legs import RxLeg
from viamillipede.protocol.wire import (
    FROM_TX,
    Answer,
    Call,
    Kind,
    Verdict,
    decode_call_untrusted,
    decode_greeting_untrusted,
    decode_legs_untrusted,
    encode_control,
    encode_legs,
)

PHRASE = b"mill"
HERE = Address("10.0.0.7", 40_000)
HOSTS = tuple(Address(name, 1) for name in "abc")


def call(receiver: bytes = RECEIVER, leg: int = 0, rank: int = 0, ranks: int = 1, checkphrase: bytes = PHRASE) -> Call:
    """A call that tx takes, unless the values spoil it."""
    return Call(receiver, leg, rank, ranks, checkphrase)


# Whose calls tx takes -----------------------------------------------------------------------------------


def test_the_first_caller_owns_tx_while_it_is_answered() -> None:
    callers = Callers(PHRASE)
    assert callers.on_call(call()) == (Verdict.ACCEPTED, True)
    assert callers.on_call(call(leg=1)) == (Verdict.ACCEPTED, False)
    assert callers.on_call(call(b"somebody")) == (Verdict.BUSY, False)
    callers.on_over(contacted=False)
    assert callers.on_call(call(b"somebody")) == (Verdict.BUSY, False)
    callers.on_over(contacted=False)
    assert callers.on_call(call(b"somebody")) == (Verdict.ACCEPTED, True)


def test_a_leg_makes_it_last() -> None:
    callers = Callers(PHRASE)
    callers.on_call(call())
    callers.on_over(contacted=True)
    assert callers.on_call(call(b"somebody")) == (Verdict.BUSY, False)
    assert callers.on_call(call()) == (Verdict.ACCEPTED, False)


def test_another_checkphrase_never_owns() -> None:
    callers = Callers(PHRASE)
    assert callers.on_call(call(checkphrase=b"pede")) == (Verdict.CHECKPHRASE, False)
    assert callers.on_call(call(b"somebody")) == (Verdict.ACCEPTED, True)


def test_the_number_of_paths_does_not_change() -> None:
    callers = Callers(PHRASE)
    callers.on_call(call(ranks=2))
    assert callers.on_call(call(leg=1, ranks=3)) == (Verdict.MALFORMED, False)


# tx listens ---------------------------------------------------------------------------------------------


def listening(threads: int = 8, **words: Any) -> TxSession:
    """A tx that nobody has called yet."""
    return TxSession(TxConfig(threads=threads, checkphrase=PHRASE, **words), SESSION, 0)


def test_a_call_that_is_refused_leaves_the_address_of_its_path() -> None:
    tx = listening()
    answered(tx)
    assert tx.on_call(call(b"somebody"), Address("evil", 1), 0) is Verdict.BUSY
    assert tx.book.states[0].address == HERE


def answered(tx: TxSession, leg: int = 0, rank: int = 0, ranks: int = 1, now_us: int = 0) -> None:
    """rx calls, is greeted, and accepts."""
    assert tx.on_call(call(leg=leg, rank=rank, ranks=ranks), HERE, now_us) is Verdict.ACCEPTED
    assert decode_greeting_untrusted(tx.greeting(leg)).receiver == RECEIVER
    assert tx.on_answer(leg, rank, Answer(Verdict.ACCEPTED, 0, RECEIVER, MIB), now_us) == ""
    tx.on_call_over()
    tx.check()


def test_a_listening_tx_dials_nobody_and_says_so_when_nobody_called() -> None:
    tx = listening(wait_us=S_US)
    assert tx.next_dial(0) is None
    with pytest.raises(NoContact, match=r"^no contact: no receiver called$"):
        tx.on_timer(S_US)


@pytest.mark.parametrize(("ranks", "targets"), [(1, [8]), (3, [3, 3, 2]), (10, [1] * 10), (RANKS_MAX, [1] * RANKS_MAX)])
def test_the_first_call_says_how_many_paths_there_are(ranks: int, targets: list[int]) -> None:
    tx = listening()
    answered(tx, leg=ranks - 1, rank=ranks - 1, ranks=ranks)
    assert tx.dialling.targets == targets
    assert tx.book.states[ranks - 1].address == HERE and tx.book.states[ranks - 1].worked
    tx.on_timer(0)


def test_left_alone_each_path_has_a_tuner() -> None:
    tx = listening(threads=0)
    answered(tx, ranks=2)
    assert len(tx.tuners) == 2 and not tx.dialling.moving
    assert tx.dialling.targets == [tuner.legs for tuner in tx.tuners]


def test_a_call_that_led_nowhere_leaves_nothing() -> None:
    tx = listening()
    tx.on_call(call(b"somebody", ranks=2), HERE, 0)
    tx.on_call_over()
    answered(tx, ranks=3)
    assert len(tx.book.states) == 3


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict is not Verdict.ACCEPTED])
@pytest.mark.parametrize("state", ["waiting", "together", "alone"])
def test_no_answer_of_a_caller_is_final(verdict: Verdict, state: str) -> None:
    tx = listening()
    if state != "waiting":
        answered(tx)
    if state == "alone":
        tx.on_leg_lost(0, True, 0)
    assert tx.on_call(call(leg=1), HERE, 0) is Verdict.ACCEPTED
    assert tx.on_answer(1, 0, Answer(verdict), 0)
    tx.on_call_over()
    assert 1 not in tx.legs


def test_who_answers_must_be_who_called() -> None:
    tx = listening()
    tx.on_call(call(), HERE, 0)
    assert tx.on_answer(0, 0, Answer(Verdict.ACCEPTED, 0, b"somebody", MIB), 0) == "another receiver than ours answers"


# What tx wishes for -------------------------------------------------------------------------------------


def wish(data: bytes) -> tuple[int, bool, list[int]]:
    """The number, whether legs move, the targets."""
    ((header, payload),) = ControlDecoder(FROM_TX).feed_untrusted(data)
    assert header.kind is Kind.LEGS
    return header.seq, bool(header.offset), decode_legs_untrusted(payload)


def test_a_wish_is_told_when_it_changes_and_now_and_then() -> None:
    dialling, wishes = Dialling(AddressBook(HOSTS), [2, 1, 1], moving=True), Wishes()
    assert wish(wishes.message(dialling)) == (1, True, [2, 1, 1])
    assert wishes.due(dialling, LEGS_AGAIN_US - 1) is None
    again, to_all = wishes.due(dialling, LEGS_AGAIN_US) or (b"", True)
    assert (wish(again), to_all) == ((1, True, [2, 1, 1]), False)
    dialling.targets[1] = 4
    changed, to_all = wishes.due(dialling, LEGS_AGAIN_US) or (b"", False)
    assert (wish(changed), to_all) == ((2, True, [2, 4, 1]), True)
    assert wishes.due(dialling, LEGS_AGAIN_US) is None
    assert wish(wishes.message(dialling)) == (2, True, [2, 4, 1])


# rx dials -----------------------------------------------------------------------------------------------


class Caller(Receiver):
    """An RxSession that dials. `again` is when the next attempt may be."""

    def __init__(self, *addresses: Address, **words: Any) -> None:
        super().__init__(RxConfig(addresses=addresses, checkphrase=PHRASE, **words))
        self.legs = 0

    def dials(self, now_us: int = 0) -> list[tuple[int, int]]:
        """Everything that is to be dialled now."""
        found = []
        while (wanted := self.rx.next_dial(now_us)) is not None:
            found.append(wanted)
            assert len(found) <= LEGS_MAX
        return found

    def up(self, number: int, rank: int = 0, now_us: int = 0) -> RxLeg:
        """The attempt has led to a leg."""
        leg = self.rx.on_leg_up(self.legs, number, now_us, rank)
        self.legs += 1
        self.sockets[leg.key] = bytearray()
        self.rx.dialling.on_over(number)
        self.rx.check()
        return leg

    def hear(self, data: bytes, now_us: int = 0) -> None:
        """tx says it on the first leg."""
        self.feed(next(iter(self.rx.legs.values())), data, now_us)


def test_a_call_says_who_and_where() -> None:
    rx = Caller(*HOSTS).rx
    assert decode_call_untrusted(rx.call(7, 2)) == Call(RECEIVER, 7, 2, 3, PHRASE)


def test_one_leg_to_each_address_until_tx_has_said_more() -> None:
    caller = Caller(*HOSTS)
    assert caller.dials() == [(0, 0), (1, 1), (2, 2)]
    for number in range(3):
        caller.up(number, number)
    assert caller.dials() == []
    caller.hear(encode_legs(1, False, [2, 1, 3]))
    assert caller.rx.wished
    assert caller.dials() == [(3, 0), (5, 2), (8, 2)]


def test_connections_are_ramped() -> None:
    caller = Caller(HOSTS[0])
    caller.dials()
    caller.up(0)
    caller.hear(encode_legs(1, True, [40]))
    assert caller.dials() == [(number, 0) for number in range(1, 1 + SETUPS_MAX)]
    caller.up(1)
    assert caller.dials() == [(1 + SETUPS_MAX, 0)]


def test_a_wish_that_was_overtaken_is_past() -> None:
    caller = Caller(HOSTS[0])
    caller.dials()
    caller.up(0)
    for number, target, follows in ((5, 3, 3), (4, 9, 3), (5, 9, 3), (6, 2, 2)):
        caller.hear(encode_legs(number, True, [target]))
        assert caller.rx.dialling.targets == [follows] and caller.rx.dialling.moving


@pytest.mark.parametrize("ranks", [1, 3, RANKS_MAX])
def test_no_wish_leads_to_a_leg_number_that_cannot_be(ranks: int) -> None:
    targets = bounded([LEGS_MAX] * ranks)
    assert max(rank + ranks * (target - 1) for rank, target in enumerate(targets)) == LEGS_MAX - 1
    assert sum(targets) == LEGS_MAX
    assert bounded([1] * ranks) == [1] * ranks
    caller = Caller(*(Address("a", 1 + rank) for rank in range(ranks)))
    caller.dials()
    caller.up(0)
    caller.hear(encode_legs(1, False, [LEGS_MAX] * ranks))
    assert caller.rx.dialling.targets == targets


@pytest.mark.parametrize(
    "said",
    [
        encode_legs(1, True, [1, 1]),
        encode_control(Kind.LEGS, 1, 2, b"\0\1"),
        encode_control(Kind.LEGS, 1, 0, b"\0\0"),
        encode_control(Kind.LEGS, 1, 0, b"\xff\xff"),
    ],
    ids=["other paths", "a flag that cannot be", "none", "too many"],
)
def test_a_wish_that_cannot_be_kills_the_leg(said: bytes) -> None:
    caller = Caller(HOSTS[0])
    caller.dials()
    caller.up(0)
    with pytest.raises(FrameError):
        caller.hear(said)


def test_a_wish_to_an_rx_that_listens_kills_the_leg() -> None:
    receiver = Receiver()
    with pytest.raises(FrameError, match="paths that we do not have"):
        receiver.feed(receiver.leg(), encode_legs(1, True, [1]))
    assert receiver.rx.next_dial(0) is None


def test_nobody_listens() -> None:
    caller = Caller(HOSTS[0], wait_us=S_US)
    caller.rx.on_attempt_failed(0, "Connection refused", True, 0, 0.5)
    with pytest.raises(LimitReached, match=r"^no transmitter came within 1 s; a:1: Connection refused$"):
        caller.timer(S_US)


# A greeting that a call brought ---------------------------------------------------------------------------


def test_a_tx_that_was_started_anew_is_final_where_ours_was() -> None:
    caller = Caller(*HOSTS)
    caller.dials()
    assert caller.rx.on_greeting(greeting(checkphrase=PHRASE)).verdict is Verdict.ACCEPTED
    leg = caller.up(0)
    other = greeting(session=bytes(15) + b"x", checkphrase=PHRASE)
    assert caller.rx.on_greeting(other).verdict is Verdict.BUSY
    assert caller.rx.on_greeting_refused(0, Verdict.BUSY) == "another transmitter than ours answers"
    caller.lose(leg)
    assert caller.rx.on_greeting_refused(1, Verdict.BUSY)  # a wrong address
    with pytest.raises(PeerLost, match="the transmitter was started anew"):
        caller.rx.on_greeting_refused(0, Verdict.BUSY)


@pytest.mark.parametrize("verdict", [Verdict.CHECKPHRASE, Verdict.UNKNOWN, Verdict.MALFORMED])
def test_a_tx_that_greets_as_it_was_not_called(verdict: Verdict) -> None:
    with pytest.raises(SessionRefused, match="a:1: the transmitter greets as none that could be ours"):
        Caller(HOSTS[0]).rx.on_greeting_refused(0, verdict)


def test_a_tx_whose_stream_has_a_name_that_is_not_taken() -> None:
    caller = Caller(*HOSTS[:2])
    reason = caller.rx.on_greeting_refused(0, Verdict.NAME)  # the other address may lead to another tx
    assert reason == "the transmitter's stream has another name than those that are taken"
    with pytest.raises(SessionRefused, match="b:1: the transmitter's stream has another name"):
        caller.rx.on_greeting_refused(1, Verdict.NAME)


# Doubt ----------------------------------------------------------------------------------------------------


def test_a_leg_is_doubted_when_what_it_was_told_is_not_acknowledged() -> None:
    """Silence alone is no evidence: rx does not read while its output is blocked."""
    caller = Caller(HOSTS[0])
    caller.dials()
    leg = caller.up(0)
    for now_us in range(0, 10 * S_US, HEARTBEAT_US):
        leg.on_sample(0, now_us)
    assert caller.dials(10 * S_US) == []
    leg.told_bytes = 100
    since_us = 10 * S_US - HEARTBEAT_US
    leg.on_sample(100, since_us + LEG_DOUBTED_US - 1)
    assert caller.dials(10 * S_US) == []
    leg.on_sample(100, since_us + LEG_DOUBTED_US)
    assert caller.dials(11 * S_US) == [(0, 0)]
    leg.on_sample(99, since_us + LEG_DOUBTED_US)
    assert not leg.doubted


def test_what_a_leg_brings_speaks_for_it() -> None:
    caller = Caller(HOSTS[0])
    caller.dials()
    leg = caller.up(0)
    leg.told_bytes = 100
    caller.hear(encode_control(Kind.BEAT), S_US)
    leg.on_sample(100, S_US + LEG_DOUBTED_US - 1)
    assert not leg.doubted


@pytest.mark.parametrize(("lived_us", "rests"), [(USEFUL_US - 1, True), (USEFUL_US, False)])
def test_a_leg_that_is_cut_at_once_makes_its_address_rest(lived_us: int, rests: bool) -> None:
    caller = Caller(HOSTS[0])
    caller.dials()
    leg = caller.up(0)
    caller.hear(encode_control(Kind.BEAT), lived_us)
    caller.lose(leg, lived_us)
    assert (caller.dials(lived_us) == []) is rests
