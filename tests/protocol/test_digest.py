"""The digest of the stream: who takes which, rx asks until it is answered, and nothing is done before they agree."""

import hashlib
import itertools
import random

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.drive import HOSTS, RECEIVER, Receiver, Sender, compare, connect, message
from tests.protocol.frames import outbox
from viamillipede.config import DIGEST_BYTES_MAX, DIGESTS, HEARTBEAT_US, KIB, MIB, S_US, RxConfig, TxConfig
from viamillipede.errors import FrameError, IntegrityError, PeerLost, SessionRefused
from viamillipede.protocol.digest import FEATURE_OF, Comparison, StreamDigest, Verification, agree, agreed
from viamillipede.protocol.wire import (
    FEATURE_CHECKSUM,
    FEATURE_SHA256,
    FEATURE_XXH3,
    FEATURES_KNOWN,
    Answer,
    Kind,
    Verdict,
    decode_greeting_untrusted,
    encode_control,
)

DATA = random.Random(6).randbytes(10_000)
BOTH = FEATURE_XXH3 | FEATURE_SHA256


# What is taken, and what both sides agree on --------------------------------------------------------------


@given(st.lists(st.integers(0, 3000), max_size=9), st.sampled_from([FEATURE_XXH3, FEATURE_SHA256]))
def test_the_pieces_do_not_matter(sizes: list[int], feature: int) -> None:
    digest, taken = StreamDigest(feature), 0
    for size in sizes:
        digest.update(memoryview(DATA)[taken : taken + size])
        taken = min(taken + size, len(DATA))
    expected = (xxhash.xxh3_128 if feature == FEATURE_XXH3 else hashlib.sha256)(DATA[:taken]).digest()
    assert digest.value() == digest.value() == expected and len(expected) <= DIGEST_BYTES_MAX


def test_a_digest_is_named_as_others_name_it() -> None:
    fast, slow = StreamDigest(FEATURE_XXH3), StreamDigest(FEATURE_SHA256)
    assert (fast.slow, slow.slow) == (False, True)
    assert str(fast) == f"xxh3-128 {xxhash.xxh3_128_hexdigest(b'')}"
    assert str(slow) == f"sha256 {hashlib.sha256().hexdigest()}"


def test_the_slower_one_is_taken_where_both_were_asked_for() -> None:
    names = [None if (digest := agreed(features)) is None else digest.name for features in range(FEATURES_KNOWN + 1)]
    assert names == [None, None, "xxh3-128", "xxh3-128", "sha256", "sha256", "sha256", "sha256"]


def test_every_digest_that_can_be_asked_for_is_one_feature() -> None:
    assert set(FEATURE_OF) == set(DIGESTS)
    assert sorted(FEATURE_OF.values()) == [0, FEATURE_XXH3, FEATURE_SHA256]


@pytest.mark.parametrize(
    ("checksum", "digest", "wanted", "can_direct", "features", "direct"),
    [
        (False, "auto", 0, True, 0, True),
        (False, "auto", 0, False, FEATURE_XXH3, False),
        (True, "auto", 0, True, FEATURE_CHECKSUM | FEATURE_XXH3, False),
        (False, "auto", FEATURE_CHECKSUM, True, FEATURE_CHECKSUM | FEATURE_XXH3, False),
        (False, "xxh3", 0, True, FEATURE_XXH3, False),
        (False, "auto", FEATURE_XXH3, True, FEATURE_XXH3, False),
        (False, "sha256", 0, True, FEATURE_SHA256, False),
        (False, "auto", FEATURE_SHA256, False, FEATURE_SHA256, False),
        (False, "sha256", FEATURE_XXH3, True, BOTH, False),
        (True, "xxh3", FEATURE_SHA256, False, FEATURES_KNOWN, False),
    ],
)
def test_who_wants_what(
    checksum: bool, digest: str, wanted: int, can_direct: bool, features: int, direct: bool
) -> None:
    assert agree(checksum, digest, wanted, can_direct) == (features, direct)


def test_what_either_side_wants_is_done_and_what_is_copied_has_a_digest() -> None:
    for checksum, digest, wanted, can_direct in itertools.product((False, True), DIGESTS, range(8), (False, True)):
        features, direct = agree(checksum, digest, wanted, can_direct)
        asked = wanted | FEATURE_OF[digest] | checksum * FEATURE_CHECKSUM
        assert features & asked == asked and not features & ~(asked | FEATURE_XXH3)
        assert direct == (agreed(features) is None) and not (direct and (features or not can_direct))


# tx's side and rx's side ----------------------------------------------------------------------------------


def test_without_a_digest_there_is_nothing_to_compare() -> None:
    comparison, verification = Comparison(FEATURE_CHECKSUM), Verification(FEATURE_CHECKSUM)
    assert comparison.compared and comparison.answer() is None
    comparison.check()
    with pytest.raises(FrameError, match="cannot have"):
        comparison.on_theirs_untrusted(b"x", True)
    verification.asking = True
    assert verification.verified and verification.question(0) is None
    with pytest.raises(FrameError, match="nobody has asked for"):
        verification.on_sum_untrusted(b"x")


def test_a_digest_of_another_length_than_was_sent_is_not_believed() -> None:
    comparison = Comparison(FEATURE_XXH3)
    assert comparison.own is not None
    with pytest.raises(FrameError, match="cannot have"):
        comparison.on_theirs_untrusted(comparison.own.value(), False)
    assert comparison.answer() is None and not comparison.compared


def test_each_question_is_answered_once() -> None:
    comparison = Comparison(FEATURE_XXH3)
    assert comparison.own is not None and comparison.answer() is None
    for _ in range(2):
        comparison.on_theirs_untrusted(comparison.own.value(), True)
        assert comparison.answer() == encode_control(Kind.SUM, payload=comparison.own.value())
        comparison.check()
        assert comparison.answer() is None and comparison.compared
    comparison.check()


@pytest.mark.parametrize("bit", [0, 1, 64, 127])
def test_a_difference_is_found_by_both_and_every_leg_can_hear_of_it(bit: int) -> None:
    comparison, verification = Comparison(FEATURE_XXH3), Verification(FEATURE_XXH3)
    assert comparison.own is not None
    value = comparison.own.value()
    wrong = bytes(byte ^ (1 << bit % 8 if bit // 8 == at else 0) for at, byte in enumerate(value))
    comparison.on_theirs_untrusted(wrong, True)
    for _ in range(2):
        with pytest.raises(IntegrityError, match=f"differ: xxh3-128 {value.hex()} here, {wrong.hex()} on the other"):
            comparison.check()
        assert not comparison.compared and comparison.answer() is not None
    verification.asking = True
    with pytest.raises(IntegrityError, match="the digests differ"):
        verification.on_sum_untrusted(wrong)
    assert not verification.verified


@pytest.mark.parametrize("cut", [0, 1, 15])
def test_a_part_of_a_digest_is_no_digest(cut: int) -> None:
    verification = Verification(FEATURE_XXH3)
    assert verification.own is not None
    verification.asking = True
    for wrong in (verification.own.value()[:cut], verification.own.value() + bytes(1)):
        with pytest.raises(IntegrityError):
            verification.on_sum_untrusted(wrong)


def test_rx_asks_until_it_is_answered() -> None:
    verification = Verification(FEATURE_SHA256)
    assert verification.own is not None and verification.question(7) is None
    with pytest.raises(FrameError, match="nobody has asked for"):
        verification.on_sum_untrusted(verification.own.value())
    verification.asking = True
    question = encode_control(Kind.DIGEST, offset=7, payload=verification.own.value())
    assert verification.question(7) == verification.question(7) == question
    for _ in range(2):  # a second answer, to a question that was repeated
        verification.on_sum_untrusted(verification.own.value())
        assert verification.verified and verification.question(7) is None


# Both sessions --------------------------------------------------------------------------------------------


def pair(tx: str = "xxh3", rx: str = "auto", checksum: bool = False) -> tuple[Sender, Receiver]:
    """Both sides, which have not met yet."""
    config = TxConfig(addresses=HOSTS, window_bytes=64 * KIB, frame_bytes=KIB, digest=tx, checksum=checksum)
    return Sender(config), Receiver(RxConfig(window_bytes=64 * KIB, digest=rx))


def whole(sender: Sender, receiver: Receiver, number: int = 0) -> None:
    """All of DATA, and its end, over one leg."""
    leg = connect(sender, receiver, number)
    taken = 0
    while not sender.tx.window.end_cut:
        taken += sender.input(DATA[taken:])
        if taken == len(DATA):
            sender.tx.window.on_input_end()
        while (assignment := sender.tx.next_assignment(0)) is not None:
            receiver.feed(leg, message(sender, assignment[1]))
            sender.tx.on_idle(number)
    assert receiver.output == DATA and receiver.rx.reassembly.complete()
    leg.outbox.clear()


@pytest.mark.parametrize(
    ("tx", "rx", "name"),
    [("auto", "auto", None), ("xxh3", "auto", "xxh3-128"), ("auto", "xxh3", "xxh3-128"), ("sha256", "auto", "sha256"),
     ("xxh3", "sha256", "sha256")],
)  # fmt: skip
@pytest.mark.parametrize("checksum", [False, True])
def test_both_take_the_same_digest_and_compare_it(tx: str, rx: str, name: str | None, checksum: bool) -> None:
    sender, receiver = pair(tx, rx, checksum)
    assert decode_greeting_untrusted(sender.tx.greeting(0)).features == FEATURE_OF[tx] | checksum * FEATURE_CHECKSUM
    whole(sender, receiver)
    name = "xxh3-128" if checksum and name is None else name
    for own in (sender.tx.digest.own, receiver.rx.digest.own):
        assert name is None if own is None else (own.name == name)
    assert receiver.rx.checksum is sender.tx.checksum is checksum
    assert receiver.rx.digest.verified is sender.tx.digest.compared is (name is None)
    compare(sender, receiver, receiver.rx.numbered[0])
    assert receiver.rx.digest.verified and sender.tx.digest.compared
    receiver.rx.on_done()
    sender.tx.on_bytes_untrusted(0, b"".join(receiver.rx.numbered[0].outbox), 0)
    assert sender.tx.done


def test_every_leg_is_asked_and_every_new_one_and_every_quiet_one() -> None:
    sender, receiver = pair()
    whole(sender, receiver)
    first, second = receiver.rx.numbered[0], connect(sender, receiver, 1)
    second.outbox.clear()
    assert receiver.rx.digest.own is not None
    value = receiver.rx.digest.own.value()
    receiver.rx.ask_digest()
    third = connect(sender, receiver, 2)
    for leg in (first, second, third):
        assert outbox(leg) == [(Kind.DIGEST, value)]
    for now_us in (HEARTBEAT_US, 2 * HEARTBEAT_US):
        assert receiver.rx.heartbeats(now_us - 1) == ([], b"")
        legs, question = receiver.rx.heartbeats(now_us)
        assert legs == [first, second, third]
        assert question == encode_control(Kind.DIGEST, offset=len(DATA), payload=value)
    receiver.lose(first)
    sender.tx.on_bytes_untrusted(1, question, 0)
    answer = sender.tx.digest.answer()
    assert answer is not None
    receiver.feed(second, answer)
    assert receiver.rx.digest.verified
    _, standing = receiver.rx.heartbeats(3 * HEARTBEAT_US)
    assert standing == receiver.rx.ack().encode()  # what it waits for now is its output


def test_an_answer_to_a_question_that_nobody_asked_costs_the_leg() -> None:
    sender, receiver = pair()
    whole(sender, receiver)
    assert sender.tx.digest.own is not None
    with pytest.raises(FrameError, match="nobody has asked for"):
        receiver.feed(receiver.rx.numbered[0], encode_control(Kind.SUM, payload=sender.tx.digest.own.value()))
    assert not receiver.rx.digest.verified


@pytest.mark.parametrize(("ended", "offset"), [(False, len(DATA)), (True, len(DATA) - 1), (True, 0)])
def test_a_digest_of_what_was_not_sent_costs_the_leg(ended: bool, offset: int) -> None:
    sender = Sender()
    sender.up(0, features=FEATURE_XXH3)
    taken = 0
    while taken < len(DATA):
        taken += sender.input(DATA[taken:])
        if ended and taken == len(DATA):
            sender.tx.window.on_input_end()
        sender.sent()
    assert sender.tx.window.end_cut is ended
    assert sender.tx.digest.own is not None
    told = encode_control(Kind.DIGEST, 0, offset, sender.tx.digest.own.value())
    with pytest.raises(FrameError, match="cannot have"):
        sender.tx.on_bytes_untrusted(0, told, 0)
    assert sender.tx.digest.answer() is None


def test_a_stream_is_not_done_before_its_digest_was_compared() -> None:
    sender, receiver = pair()
    whole(sender, receiver)
    with pytest.raises(FrameError, match="whose digest it has not told"):
        sender.say(0, Kind.DONE, offset=len(DATA))
    assert not sender.tx.done
    sender.tx.on_leg_lost(0, False, 0)
    compare(sender, receiver, connect(sender, receiver, 1))
    sender.say(1, Kind.DONE, offset=len(DATA))
    assert sender.tx.done


@pytest.mark.parametrize("tx", ["xxh3", "sha256"])
def test_one_byte_that_differs_is_found_on_both_sides(tx: str) -> None:
    sender, receiver = pair(tx)
    whole(sender, receiver)
    leg = receiver.rx.numbered[0]
    assert receiver.rx.digest.own is not None
    receiver.rx.digest.own.update(memoryview(b"x"))
    receiver.rx.ask_digest()
    sender.tx.on_bytes_untrusted(0, b"".join(leg.outbox), 0)
    answer = sender.tx.digest.answer()
    assert answer is not None
    with pytest.raises(IntegrityError, match="the digests differ"):
        sender.tx.digest.check()
    with pytest.raises(IntegrityError, match="the digests differ"):
        receiver.feed(leg, answer)
    assert not receiver.rx.digest.verified and not sender.tx.digest.compared


def test_rx_waits_for_the_answer_but_not_for_ever() -> None:
    sender, receiver = pair()
    whole(sender, receiver)
    receiver.rx.ask_digest()
    receiver.lose(receiver.rx.numbered[0], 0)
    receiver.timer(10 * S_US - 1)
    with pytest.raises(PeerLost, match="incomplete at byte 10000"):
        receiver.timer(10 * S_US)
    sender.tx.on_leg_lost(0, False, 0)
    leg = connect(sender, receiver, 0)
    compare(sender, receiver, leg)
    receiver.lose(leg, 20 * S_US)
    receiver.timer(10_000 * S_US)  # it has all, and was told so: only its reader counts now


@pytest.mark.parametrize(
    ("digest", "features", "reason"),
    [
        ("auto", 0, ""),
        ("xxh3", FEATURE_XXH3, ""),
        ("xxh3", BOTH, ""),
        ("xxh3", FEATURE_SHA256, "the receiver does not take the digest xxh3"),
        ("sha256", FEATURE_XXH3, "the receiver does not take the digest sha256"),
    ],
)
def test_a_receiver_that_does_not_take_what_was_asked_for_is_refused(digest: str, features: int, reason: str) -> None:
    sender = Sender(TxConfig(addresses=HOSTS, window_bytes=64 * KIB, digest=digest))
    answer = Answer(Verdict.ACCEPTED, features, RECEIVER, MIB)
    assert sender.tx.on_answer(0, 0, answer, 0) == reason
    if reason:
        with pytest.raises(SessionRefused, match=reason):
            sender.tx.on_answer(1, 1, answer, 0)


def test_who_could_not_be_answered_takes_its_digest_with_it() -> None:
    sender, receiver = pair("sha256")
    receiver.rx.on_greeting(decode_greeting_untrusted(sender.tx.greeting(0)))
    assert receiver.rx.digest.own is not None
    receiver.rx.on_answer_lost()
    sender, _ = pair("auto")
    whole(sender, receiver)
    assert receiver.rx.digest.own is None and receiver.rx.digest.verified
