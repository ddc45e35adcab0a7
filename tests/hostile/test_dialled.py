"""Hostile peers at the other kind of door: an rx that calls a tx, a tx that is called, and one path of several."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import Event, Thread

import pytest

from tests.e2e.helpers import LOOPBACK, MIB, Stage, read_all, read_exactly, some_bytes
from tests.e2e.turned import dialling, listening, whole
from tests.hostile.conftest import Lock
from tests.hostile.peer import (
    KEY,
    RECEIVER,
    Closed,
    Line,
    Refused,
    accept,
    calling,
    connect,
    greeting,
    knock,
    listener,
    port_of,
)
from tests.hostile.watch import Watch
from viamillipede.config import LEGS_MAX, RANKS_MAX
from viamillipede.errors import Exit
from viamillipede.protocol.wire import (
    ANSWER_BYTES,
    CALL_BYTES,
    GREETING_BYTES,
    Answer,
    Call,
    Kind,
    Opening,
    Verdict,
    decode_answer_untrusted,
    decode_call_untrusted,
    encode_control,
    encode_legs,
)

WINDOW = 4 * MIB
ACCEPTED = Answer(Verdict.ACCEPTED, 0, RECEIVER, 64 * MIB)
OTHERS = b"somebody"
ENDS_WITHIN_S = 60


# ---- tx listens ----------------------------------------------------------------------------------------------


def test_calls_that_lead_to_nothing(stage: Stage, lock: Lock) -> None:
    """They are greeted and never answer, or answer what cannot be; tx is free for the next one then."""
    tx = listening(stage, "bind", LOOPBACK, "window", "4M", *lock.words)
    with Watch(WINDOW, tx):
        for answer in (None, Answer(Verdict.ACCEPTED, 0, RECEIVER, 1), Answer(Verdict.BUSY), b"x" * ANSWER_BYTES):
            with ExitStack() as stack:
                for number in (0, 1, 0, 7, LEGS_MAX - 1):
                    line, _ = calling(tx.port, lock.key, number, ranks=RANKS_MAX, rank=number % RANKS_MAX)
                    stack.enter_context(line)
                    with pytest.raises(Refused) as refused:
                        calling(tx.port, lock.key, 2, receiver=OTHERS)
                    assert refused.value.args[0] is Verdict.BUSY
                    if answer is not None:
                        line.say(answer if isinstance(answer, bytes) else answer.encode())
                        assert line.is_closed()
            assert tx.process.poll() is None
    rx = dialling(stage, tx, *lock.words)
    whole(rx, tx, b"fine")


IMPOSSIBLE = {
    "leg": Call(RECEIVER, LEGS_MAX, 0, 1, bytes(4)),
    "rank": Call(RECEIVER, 0, 1, 1, bytes(4)),
    "ranks": Call(RECEIVER, 0, 0, RANKS_MAX + 1, bytes(4)),
    "receiver": Call(bytes(8), 0, 0, 1, bytes(4)),
    "checkphrase": Call(RECEIVER, 0, 0, 1, b"else"),
}


def test_calls_that_cannot_be(stage: Stage, lock: Lock) -> None:
    """They are refused, also while a receiver is there, which is not disturbed; so is one that is another's."""
    tx = listening(stage, "bind", LOOPBACK, *lock.words)
    rx = dialling(stage, tx, *lock.words)
    tx.write(b"fine")
    assert read_exactly(rx.output, 4) == b"fine"
    for said in IMPOSSIBLE.values():
        with connect(tx.port) as sock:
            line = knock(sock, lock.key, Opening.CALL)
            line.say(said.encode())
            verdict = decode_answer_untrusted(bytearray(line.opening(ANSWER_BYTES))).verdict
            assert verdict in (Verdict.MALFORMED, Verdict.CHECKPHRASE)
    with pytest.raises(Refused):
        calling(tx.port, lock.key, 0)
    tx.end_input()
    assert read_all(rx.output) == b""
    tx.ends(0)
    rx.ends(0)
    assert tx.closing("restart") == rx.closing("restart") == 0


# ---- rx dials ------------------------------------------------------------------------------------------------


@contextmanager
def door(key: bytes | None, behave: Callable[[Line], None]) -> Iterator[int]:
    """A port where each connection is let in, and then treated like this."""
    listening, stop = listener(), Event()
    listening.settimeout(0.1)

    def serve() -> None:
        secrets: dict[bytes, bytes] = {}
        while not stop.is_set():
            with suppress(TimeoutError, Closed, OSError), accept(listening, key, secrets) as line:
                behave(line)

    thread = Thread(target=serve)
    thread.start()
    try:
        yield port_of(listening)
    finally:
        stop.set()
        thread.join()
        listening.close()


def _accept_call(line: Line) -> Call:
    call = decode_call_untrusted(bytearray(line.opening(CALL_BYTES)))
    line.say(Answer(Verdict.ACCEPTED, 0, call.receiver, 64 * MIB).encode())
    return call


def _greets(session: bytes, leg: int, receiver: bytes = b"") -> Callable[[Line], None]:
    def behave(line: Line) -> None:
        _accept_call(line)
        line.say(greeting(session, leg, receiver=receiver).encode())
        line.is_closed(2)

    return behave


def _garbage(line: Line) -> None:
    _accept_call(line)
    line.say(b"\x42" * GREETING_BYTES)
    line.is_closed(2)


def _legs(line: Line) -> None:
    """A real leg, and a wish for legs that is none."""
    call = _accept_call(line)
    line.say(greeting(b"s" * 16, call.leg).encode())
    line.opening(ANSWER_BYTES)
    line.say(encode_control(Kind.LEGS, (1 << 64) - 1, 1, b"\x00\x00"))
    line.is_closed(2)


def _wishes() -> Callable[[Line], None]:
    """A real leg, and wishes for as many as there can be, one after the other; nobody else comes in."""
    first = [True]

    def behave(line: Line) -> None:
        call = _accept_call(line)
        if not first:
            return
        first.clear()
        line.say(greeting(b"s" * 16, call.leg).encode())
        line.opening(ANSWER_BYTES)
        for number in range(1, 5000):
            line.say(encode_legs(number, bool(number % 2), [LEGS_MAX - number % 7]))
        line.is_closed(0.5)

    return behave


DOORS: dict[str, Callable[[], Callable[[Line], None]]] = {
    "another leg": lambda: _greets(b"s" * 16, 5),
    "another receiver": lambda: _greets(b"s" * 16, 0, OTHERS),
    "no session": lambda: _greets(bytes(16), 0),
    "garbage": lambda: _garbage,
    "legs": lambda: _legs,
    "wishes": _wishes,
    "silence": lambda: lambda line: line.sock.close(),
    "a flood": lambda: lambda line: line.raw(bytes(1 << 20)),
}


@pytest.mark.parametrize("name", DOORS)
def test_a_tx_that_is_called_and_lies(stage: Stage, lock: Lock, name: str) -> None:
    with door(lock.key, DOORS[name]()) as port:
        words = ("wait", "1s", "regroup", "500ms", "outage", "500ms", *lock.words)
        rx = dialling(stage, (LOOPBACK, port), *words)
        with Watch(WINDOW, rx):
            assert read_all(rx.output) == b""
        assert rx.process.wait(ENDS_WITHIN_S) in (Exit.NO_CONTACT, Exit.REFUSED, Exit.PEER_LOST, Exit.LIMIT), rx.said


# ---- one path of several -------------------------------------------------------------------------------------


def _answers(answer: bytes, begun: Event) -> Callable[[Line], None]:
    """Nobody is let in before the stream has begun elsewhere."""

    def behave(line: Line) -> None:
        if not begun.is_set():
            return
        line.opening(GREETING_BYTES)
        line.say(answer)
        line.is_closed(1)

    return behave


ANSWERS: dict[str, bytes] = {
    "another receiver": ACCEPTED.encode(),
    "busy": Answer(Verdict.BUSY).encode(),
    "another version": Answer(Verdict.VERSION).encode(),
    "another key": Answer(Verdict.KEY).encode(),
    "garbage": b"vmlp" + b"\x03" * 36,
    "tiny window": Answer(Verdict.ACCEPTED, 0, RECEIVER, 1).encode(),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_second_path_of_tx_leads_to_a_liar(stage: Stage, lock: Lock, name: str) -> None:
    """The stream goes over the first one, whole."""
    rx = stage.rx("bind", LOOPBACK, *lock.words)
    begun = Event()
    with door(lock.key, _answers(ANSWERS[name], begun)) as port:
        tx = stage.tx_words("tx", LOOPBACK, rx.port, "tx", LOOPBACK, port, "threads", 4, "frame", "64K", *lock.words)
        tx.write(b"begun")
        assert read_exactly(rx.output, 5) == b"begun"
        begun.set()
        data = some_bytes(2 * MIB)
        rx_data: list[bytes] = []
        reader = Thread(target=lambda: rx_data.append(read_all(rx.output)))
        reader.start()
        tx.feed([data])
        tx.ends(0)
        reader.join()
    rx.ends(0)
    assert rx_data == [data]


def test_a_liar_without_the_key_is_no_receiver(stage: Stage, with_key: Lock) -> None:
    """It answers the hello with what it can; nothing of the stream is told to it."""
    heard = bytearray()

    def behave(line: Line) -> None:
        line.sock.settimeout(1)
        with suppress(TimeoutError):
            heard.extend(line.sock.recv(1 << 16))
            line.raw(b"vmlp\x03\x00\x00\x00" + b"\x42" * 56)
            heard.extend(line.sock.recv(1 << 16))

    with door(None, behave) as port:
        tx = stage.tx(port, "wait", "1s", *with_key.words)
        tx.feed([b"secret" * 10_000])
        assert tx.process.wait(ENDS_WITHIN_S) in (Exit.NO_CONTACT, Exit.REFUSED)
    assert heard and b"secret" not in heard and KEY not in heard
