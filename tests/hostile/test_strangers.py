"""Whoever comes to a listening program without being let in: nobody else notices."""

import os
import re
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from random import Random

import pytest

from tests.e2e.helpers import MIB, Side, Stage, eventually, read_all, some_bytes
from tests.e2e.turned import dialling, listening
from tests.hostile.conftest import Lock
from tests.hostile.peer import (
    KEY,
    LOOPBACK,
    OTHER_KEY,
    Closed,
    Line,
    Refused,
    as_tx,
    connect,
    greeting,
    handle_of,
    knock,
)
from tests.hostile.watch import Watch
from viamillipede.config import GREETING_US, S_US, STRANGERS_MAX
from viamillipede.protocol import hello
from viamillipede.protocol.attempts import ATTEMPTS_BURST
from viamillipede.protocol.hello import Hello, Mode
from viamillipede.protocol.wire import ANSWER_BYTES, Opening, Verdict, decode_answer_untrusted

WINDOW = 4 * MIB
GREETING_S = GREETING_US / S_US
AT_ONCE_S = 5  # on a busy machine too
MANY = 10_000
ELSEWHERE = "127.0.0.2"
SESSION = bytes(range(16))
GREETS = greeting(SESSION).encode()
NO_HELLO = Hello(Mode.FIRST).encode()


@contextmanager
def transfer(stage: Stage, lock: Lock, *words: object) -> Iterator[Side]:
    """rx, to which a stream flows for as long as the block lasts; it must come whole."""
    rx = stage.rx("bind", LOOPBACK, "window", "4M", *lock.words)
    tx = stage.tx(rx, "threads", 2, "window", "4M", *words, *lock.words)
    piece, pieces, stop = some_bytes(64 << 10), 0, threading.Event()

    def feed() -> Iterator[bytes]:
        nonlocal pieces
        while not stop.wait(0.01):
            pieces += 1
            yield piece

    arrived: list[bytes] = []
    reader = threading.Thread(target=lambda: arrived.append(read_all(rx.output)))
    reader.start()
    tx.feed(feed())
    try:
        with Watch(WINDOW, rx, tx):
            yield rx
    finally:
        stop.set()
        tx.fed.wait()
    tx.ends(0)
    rx.ends(0)
    reader.join()
    assert pieces and arrived[0] == piece * pieces


def closed(sock: socket.socket) -> bool:
    """Whether the program closes it soon."""
    return Line(sock).is_closed()


# ---- many, and slow ones -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_slow_greetings(stage: Stage, with_key: Lock) -> None:
    """Many say a byte now and then. Each is closed when its time has come, not a while after its last byte."""
    words = [GREETS, NO_HELLO + bytes(100), Hello(Mode.JOIN, b"h" * 16).encode() + bytes(100), b"vmlp"]
    with transfer(stage, Lock(None, ())) as clear, transfer(stage, with_key) as keyed, ExitStack() as stack:
        began = time.monotonic()
        talking = {}
        for number in range(400):
            sock = stack.enter_context(connect((clear, keyed)[number % 2].port))
            sock.setblocking(False)
            talking[sock] = iter(words[number // 2 % len(words)])
        while talking and time.monotonic() < began + GREETING_S + AT_ONCE_S:
            for sock, rest in list(talking.items()):
                try:
                    if (byte := next(rest, None)) is not None:
                        sock.send(bytes([byte]))
                    if not sock.recv(100):
                        del talking[sock]
                except BlockingIOError:
                    continue
                except OSError:
                    del talking[sock]
            time.sleep(0.5)
        assert not talking, f"{len(talking)} are still let talk"


@pytest.mark.slow
def test_ten_thousand_connections(stage: Stage, lock: Lock) -> None:
    """More than there may be at a time: the oldest make room, and a stream goes on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = min(hard, MANY + 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, room), hard))
    try:
        with transfer(stage, lock) as rx, ExitStack() as stack:
            at_a_time = min(MANY, room - 500)
            socks: list[socket.socket] = []
            for number in range(MANY):
                if len(socks) >= at_a_time:
                    socks[number % at_a_time].close()
                sock = stack.enter_context(connect(rx.port))
                socks.append(sock)
                if number % 3:
                    sock.send(GREETS[: number % 136] if number % 3 == 1 else NO_HELLO)
                if not number % 100:
                    assert rx.descriptors() <= STRANGERS_MAX + 100, "the oldest do not make room"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- others' keys --------------------------------------------------------------------------------------------


def attack(port: int, stop: threading.Event, verdicts: list[object]) -> None:
    """Hellos with another key, as fast as they go."""
    while not stop.is_set():
        try:
            with connect(port) as sock:
                knock(sock, OTHER_KEY, Opening.GREETING)
        except Refused as refused:
            verdicts.append(refused.args[0])
        except (Closed, OSError):
            verdicts.append(None)


def test_another_key_at_full_speed(stage: Stage, with_key: Lock) -> None:
    """It is held up; the right key is not, from there and from elsewhere."""
    rx = stage.rx("bind", LOOPBACK, "window", "4M", *with_key.words)
    tx = stage.tx(rx, "window", "4M", "threads", 1, "verbose", 2, *with_key.words)
    tx.write(b"hello")
    assert os.read(rx.output, 5) == b"hello"
    stop, verdicts = threading.Event(), list[object]()
    threads = [threading.Thread(target=attack, args=(rx.port, stop, verdicts)) for _ in range(4)]
    with Watch(WINDOW, rx):
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: verdicts.count(Verdict.LATER) > 100, "it is held up", 10)
            began = time.monotonic()
            for source in (ELSEWHERE, LOOPBACK):
                with pytest.raises(Refused) as refused:
                    as_tx(rx.port, KEY, greeting(SESSION), source=source)
                assert refused.value.args[0] is Verdict.BUSY  # it has our key, and another stream
            assert time.monotonic() - began < AT_ONCE_S
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert verdicts.count(Verdict.KEY) <= ATTEMPTS_BURST + 20, "it could try at full speed"
    assert rx.said.count("refused a connection from 127.0.0.1:") == 1, rx.said
    tx.end_input()
    tx.ends(0)
    rx.ends(0)


def held_up(port: int, key: bytes) -> bool:
    """Whether a first hello with this key is told to come later."""
    with connect(port) as sock:
        try:
            knock(sock, key, Opening.GREETING)
        except Refused as refused:
            return refused.args[0] is Verdict.LATER
    return False


def test_legs_join_while_others_try(stage: Stage, with_key: Lock) -> None:
    """The address of the stream itself has failed too often: its legs, and who has the key, come in all the same."""
    rx = stage.rx("bind", LOOPBACK, "window", "4M", *with_key.words)
    first = as_tx(rx.port, KEY, greeting(SESSION))
    with first:
        eventually(lambda: held_up(rx.port, OTHER_KEY), "it is held up")
        assert not held_up(rx.port, KEY)
        for number in range(1, 8):
            as_tx(rx.port, KEY, greeting(SESSION, number), first.secret).sock.close()


def test_replayed_hellos(stage: Stage, with_key: Lock) -> None:
    """What was recorded of a whole opening opens nothing."""
    rx = stage.rx("bind", LOOPBACK, *with_key.words)
    recorded = bytearray()

    class Recorded(Line):
        def raw(self, data: bytes) -> None:
            recorded.extend(data)
            super().raw(data)

    with connect(rx.port) as sock:
        line = knock(sock, KEY, Opening.GREETING, line=Recorded(sock))
        assert line.sealer is not None
        recorded += line.sealer.opening(GREETS)
    for _ in range(5):
        with connect(rx.port) as sock:
            sock.sendall(recorded)
            assert closed(sock)
    tx = stage.tx(rx, *with_key.words)
    tx.feed([b"fine"])
    assert read_all(rx.output) == b"fine"
    tx.ends(0)
    rx.ends(0)


# ---- what no program of ours says ----------------------------------------------------------------------------


def strange(chance: Random) -> bytes:
    """The beginning of an opening, right up to somewhere."""
    right = chance.choice([GREETS, NO_HELLO + bytes(56), Hello(Mode.PHRASE).encode() + bytes(90)])
    cut = chance.randrange(len(right))
    return right[:cut] + chance.randbytes(chance.randrange(300))


@pytest.mark.parametrize("role", ["rx", "tx"])
def test_garbage_at_any_byte(stage: Stage, lock: Lock, role: str) -> None:
    """Then a stream comes, and is served."""
    program = (
        stage.rx("bind", LOOPBACK, *lock.words) if role == "rx" else listening(stage, "bind", LOOPBACK, *lock.words)
    )
    with Watch(WINDOW, program):
        for seed in range(40):
            print(f"seed {seed}")
            chance = Random(seed)
            with connect(program.port, ELSEWHERE) as sock:
                sock.sendall(strange(chance))
                ending = chance.randrange(3)
                if ending == 0:
                    Line(sock).reset()
                    continue
                Line(sock).half_close()
                if ending == 1:
                    assert closed(sock)
    if role == "rx":
        rx, tx = program, stage.tx(program, *lock.words)
    else:
        rx, tx = dialling(stage, program, *lock.words), program
    tx.feed([b"fine"])
    assert read_all(rx.output) == b"fine"
    tx.ends(0)
    rx.ends(0)


MODES = {
    "mode": NO_HELLO[:6] + b"\x09" + NO_HELLO[7:],
    "reserved": NO_HELLO[:7] + b"\x01" + NO_HELLO[8:],
    "handle of a first": NO_HELLO[:8] + b"h" * 16,
    "join without": Hello(Mode.JOIN).encode(),
    "join unknown": Hello(Mode.JOIN, handle_of(bytes(32))).encode(),
    "phrase": Hello(Mode.PHRASE).encode(),
    "garbage": NO_HELLO,
}


def test_hellos_that_cannot_be(stage: Stage, with_key: Lock) -> None:
    rx = stage.rx("bind", LOOPBACK, *with_key.words)
    for said in MODES.values():
        with connect(rx.port) as sock:
            sock.sendall(said + b"\x42" * hello.MESSAGE_BYTES)
            Line(sock).half_close()
            assert closed(sock)
    with connect(rx.port) as sock:  # and who has none is told so
        sock.sendall(GREETS)
        answer = decode_answer_untrusted(bytearray(Line(sock).exactly(ANSWER_BYTES)))
        assert answer.verdict is Verdict.KEYED
    rx.kill()


def test_garbage_in_the_place_of_spake2(stage: Stage, tmp_path: object) -> None:
    """Messages of the phrase's handshake that are none: small orders, points off the curve, the wrong side."""
    path = os.path.join(str(tmp_path), "phrase")
    with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write("correct horse battery\n")
    rx = stage.rx("bind", LOOPBACK, "phrase", path)
    head = Hello(Mode.PHRASE).encode()
    for number in range(4):
        body = [bytes(33), b"A" + bytes(32), b"B" + b"\x01" * 32, b"A" + b"\xff" * 32][number]
        with connect(rx.port) as sock:
            sock.sendall(head + body + bytes(hello.MESSAGE_BYTES))
            Line(sock).half_close()
            assert closed(sock)
    assert re.search("refused a connection", rx.said)
    rx.kill()
