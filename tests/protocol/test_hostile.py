"""Random bytes, mutated real sessions and well-signed lies, fed to both sides: only declared errors come out."""

import functools
import random
from collections.abc import Iterable

import pytest

from tests.protocol.drive import HOSTS, Receiver, Sender, connect, message
from viamillipede.config import ACK_DELAY_US, FRAMES_MAX, KIB, S_US, RxConfig, TxConfig
from viamillipede.errors import FrameError, IntegrityError, RemoteFailed
from viamillipede.protocol.wire import (
    FEATURE_CHECKSUM,
    FEATURE_XXH3,
    Ack,
    Kind,
    Waiting,
    encode_control,
    encode_header,
)

DATA = random.Random(5).randbytes(20_000)
LEGS = 3
WINDOW = 16 * KIB
NUMBERS = [0, 1, 2, 3, 5, 8, 19, 99, 100, 1000, FRAMES_MAX, WINDOW, 1 << 31, 1 << 32, (1 << 63) - 1, (1 << 64) - 1]


def pair() -> tuple[Sender, Receiver]:
    """Both sides, with checksums and a small window."""
    config = TxConfig(addresses=HOSTS, window_bytes=WINDOW, frame_bytes=KIB, checksum=True)
    return Sender(config), Receiver(RxConfig(window_bytes=WINDOW, checksum=True), direct=False)


def ask(receiver: Receiver) -> None:
    """When all was written rx asks for the digest, once."""
    if receiver.rx.reassembly.complete() and not receiver.rx.digest.asking:
        receiver.rx.ask_digest()


@functools.cache
def session() -> tuple[tuple[tuple[int, bytes], ...], tuple[tuple[int, bytes], ...]]:
    """A whole session over some legs: what tx sent and what rx sent, in order, each with its leg."""
    sender, receiver = pair()
    legs = [connect(sender, receiver, number, rank=number % 2) for number in range(LEGS)]
    there, back, taken, now_us = [], [], 0, 0

    def answer(number: int, data: bytes) -> None:
        back.append((number, data))
        sender.tx.on_bytes_untrusted(number, data, now_us)
        if (said := sender.tx.digest.answer()) is not None:
            there.append((number, said))
            receiver.feed(legs[number], said, now_us)
            sender.tx.digest.check()

    while not sender.tx.done:
        now_us += ACK_DELAY_US
        for _ in range(LEGS):
            taken += sender.input(DATA[taken : taken + 3000], now_us)
            if taken == len(DATA):
                sender.tx.window.on_input_end()
            while (assignment := sender.tx.next_assignment(now_us)) is not None:
                there.append((assignment[0], message(sender, assignment[1])))
                receiver.feed(legs[assignment[0]], there[-1][1], now_us)
        for leg in range(LEGS):
            if leg in sender.tx.legs and sender.tx.legs[leg].busy:
                sender.tx.on_idle(leg)
        ask(receiver)
        if receiver.rx.reassembly.complete() and receiver.rx.digest.verified and not receiver.rx.done:
            receiver.rx.on_done()
        if (ack := receiver.rx.next_ack(now_us)) is not None:
            answer(ack[0].number, ack[1])
        for each in legs:
            while each.outbox:
                answer(each.number, each.outbox.popleft())
        assert now_us < S_US, "it does not end"
    assert receiver.output == DATA
    there.append((0, encode_control(Kind.BYE)))
    return tuple(there), tuple(back)


def mutated(messages: Iterable[tuple[int, bytes]], chance: random.Random) -> list[tuple[int, bytes]]:
    """The same with a few of these: a bit flipped, bytes lost or added, messages dropped, repeated, on other legs."""
    found = list(messages)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(found))
        leg, data = found[at]
        where, kind = chance.randrange(len(data) + 1), chance.randrange(7)
        if kind == 0:
            bit = 1 << chance.randrange(8)
            data = bytes(b ^ (bit if i == where else 0) for i, b in enumerate(data))
            found[at] = leg, data
        elif kind == 1:
            found[at] = leg, data[:where] + data[where + chance.randrange(1, 60) :]
        elif kind == 2:
            found[at] = leg, data[:where] + chance.randbytes(chance.randrange(1, 60)) + data[where:]
        elif kind == 3 and len(found) > 1:
            del found[at]
        elif kind == 4:
            found.insert(chance.randrange(len(found) + 1), found[at])
        elif kind == 5:
            found[at] = chance.randrange(LEGS), data
        else:
            found[at] = (
                leg,
                encode_header(
                    chance.choice(list(Kind)), *(chance.choice(NUMBERS) & mask for mask in (0xFFFFFFFF, -1, -1, -1))
                ),
            )
    return found


def to_receiver(messages: Iterable[tuple[int, bytes]], piece_bytes: int) -> Receiver:
    """A fresh receiver that was told all this; legs that lied are replaced. It stops where it gave up."""
    _, receiver = pair()
    receiver.piece_bytes = piece_bytes
    legs = {number: receiver.leg(number) for number in range(LEGS)}
    for number, data in messages:
        try:
            receiver.feed(legs[number], data)
            ask(receiver)
        except FrameError:
            receiver.lose(legs[number])
            legs[number] = receiver.leg(number)
        except (RemoteFailed, IntegrityError):
            break
        assert DATA.startswith(receiver.output), "safety: wrong bytes came out"
        assert receiver.rx.reassembly.memory_bytes() <= WINDOW
        for leg in legs.values():
            leg.outbox.clear()
    return receiver


def to_sender(messages: Iterable[tuple[int, bytes]], piece_bytes: int) -> Sender:
    """A transmitter in the middle of its stream that was told all this; it goes on in between."""
    sender, _ = pair()
    taken, now_us = 0, 0
    for leg in range(LEGS):
        sender.up(leg, window_bytes=WINDOW, features=FEATURE_CHECKSUM | FEATURE_XXH3)
    for leg, data in messages:
        now_us += ACK_DELAY_US
        for _ in range(LEGS):
            taken += sender.input(DATA[taken : taken + 3000], now_us)
            if taken == len(DATA):
                sender.tx.window.on_input_end()
            sender.sent(now_us)
        try:
            for i in range(0, len(data), piece_bytes):
                sender.tx.on_bytes_untrusted(leg, data[i : i + piece_bytes], now_us)
                sender.tx.digest.check()
        except FrameError:
            sender.tx.on_leg_lost(leg, False, now_us)
            sender.up(leg, now_us)
        except (RemoteFailed, IntegrityError):
            break
        sender.tx.check()
        assert sender.tx.window.head - sender.tx.window.written <= WINDOW
    return sender


def test_the_session_itself_is_accepted_whole_and_byte_by_byte() -> None:
    there, back = session()
    for piece_bytes in (1, 1 << 30):
        receiver = to_receiver(there, piece_bytes)
        assert receiver.rx.reassembly.complete() and receiver.output == DATA
        sender = to_sender(back, piece_bytes)
        assert sender.tx.done and sender.tx.restarts == 0 and sender.tx.window.written > WINDOW
    assert {data[2] for _, data in there} == {Kind.DATA, Kind.END, Kind.SUM, Kind.BYE}
    assert {data[2] for _, data in back} == {Kind.ACK, Kind.DIGEST, Kind.DONE}
    assert {leg for leg, _ in there} == set(range(LEGS))


@pytest.mark.parametrize("seed", range(60))
def test_a_mutated_session_never_brings_wrong_bytes_or_other_errors(seed: int) -> None:
    chance = random.Random(seed)
    there, back = session()
    for _ in range(5):
        piece_bytes = chance.choice([1, 7, 1 << 30])
        to_receiver(mutated(there, chance), piece_bytes)
        to_sender(mutated(back, chance), piece_bytes)


@pytest.mark.parametrize("seed", range(30))
def test_random_bytes_cost_one_leg_and_nothing_else(seed: int) -> None:
    noise = [(0, random.Random(seed).randbytes(size)) for size in (1, 39, 40, 41, 5000)]
    receiver, sender = to_receiver(noise, 1 << 30), to_sender(noise, 1 << 30)
    assert receiver.output == b"" and receiver.rx.restarts >= 1
    assert sender.tx.restarts >= 1 and sender.tx.window.written == 0


@pytest.mark.parametrize("seed", range(60))
def test_well_signed_lies_raise_only_what_is_declared(seed: int) -> None:
    chance = random.Random(seed)

    def lie(kinds: list[Kind]) -> tuple[int, bytes]:
        seq, offset, leg = chance.choice(NUMBERS), chance.choice(NUMBERS), chance.randrange(LEGS)
        kind = chance.choice(kinds)
        if kind is Kind.ACK:
            ends = sorted(chance.choice(NUMBERS[:11]) for _ in range(2 * chance.randrange(3)))
            ranges = tuple(zip(ends[::2], ends[1::2], strict=True))
            return leg, Ack(seq, offset, chance.choice(list(Waiting)), chance.choice(NUMBERS), ranges).encode()
        sizes = {Kind.DATA: [1, 2, 100, 1000], Kind.SUM: [1, 16, 64], Kind.DIGEST: [1, 16, 64], Kind.WAITS: [48]}
        payload = chance.randbytes(chance.choice(sizes.get(kind, [0])))
        return leg, encode_control(kind, seq, offset, payload)

    kinds = [Kind.DATA, Kind.DATA, Kind.DATA, Kind.END, Kind.BYE, Kind.ACK, Kind.SUM, Kind.WAITS]
    messages = [lie(kinds) for _ in range(300)]
    _, receiver = pair()
    legs = {number: receiver.leg(number) for number in range(LEGS)}
    for number, data in messages:
        try:
            receiver.feed(legs[number], data)
        except FrameError:
            receiver.lose(legs[number])
            legs[number] = receiver.leg(number)
        except IntegrityError:
            break
        assert receiver.rx.reassembly.memory_bytes() <= WINDOW and len(receiver.output) <= 1 << 20
    kinds = [Kind.ACK, Kind.ACK, Kind.ACK, Kind.RESEND, Kind.DONE, Kind.DIGEST, Kind.BYE]
    to_sender([lie(kinds) for _ in range(300)], 1 << 30)
