"""Who has no key pretends to have one, to have none, or to be somebody else; and listens to all that crosses."""

import contextlib
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tests.aio.drive import RECEIVER, greeting
from tests.e2e.helpers import LOOPBACK, MIB, Stage, eventually, read_exactly, some_bytes, whole
from tests.e2e.keyed import SECRETS, WAYS, Lock, dials, listens, lock, players, started
from tests.e2e.middle import HELLO, Middle, middle, pair, say
from tests.e2e.proxy import UP
from tests.e2e.turned import dialling, listening
from viamillipede.protocol.hello import Mode
from viamillipede.protocol.wire import (
    VERSION,
    Answer,
    Call,
    Kind,
    Verdict,
    decode_answer_untrusted,
    encode_control,
)

DATA = some_bytes(4 * MIB + 3)


@pytest.fixture
def key(tmp_path: Path) -> Lock:
    """What all have, but for who is in the middle."""
    return lock(tmp_path)


# ---- who has no key, and pretends --------------------------------------------------------------------------


def test_a_greeting_in_clear_is_no_leg_of_a_stream_with_a_key(stage: Stage, key: Lock) -> None:
    rx, tx, _ = pair(stage, key)
    started(rx, tx)
    for said in (greeting(), greeting(3, receiver=RECEIVER), Call(RECEIVER, 0, 0, 1, bytes(4)).encode()):
        heard = say(rx, said, encode_control(Kind.ABORT, payload=b"stop"))
        assert decode_answer_untrusted(heard) == Answer(Verdict.KEYED)
    whole(rx, tx, DATA)


ACCEPTED = Answer(Verdict.ACCEPTED, 0, RECEIVER, 64 * MIB).encode()


@pytest.mark.parametrize("way", ["rx listens", "tx listens"])
@pytest.mark.parametrize(
    "behind", [b"", bytes(100), ACCEPTED * 2, greeting()], ids=["nothing", "zeros", "answers", "greeting"]
)
def test_an_answer_in_clear_does_not_make_a_side_speak_in_clear(
    stage: Stage, key: Lock, way: str, behind: bytes
) -> None:
    heard: list[bytes] = []

    def accept(number: int, sock: socket.socket) -> bool:
        sock.settimeout(5)
        with contextlib.suppress(OSError):
            heard.append(sock.recv(65536))
            sock.sendall(ACCEPTED + behind)
            sock.shutdown(socket.SHUT_WR)
            while piece := sock.recv(65536):
                heard.append(piece)
        return True

    pretender = stage.exit.enter_context(Middle(1))
    pretender.serve = accept
    if way == "rx listens":
        side = stage.tx(pretender, *key.words, "wait", "1s", "checkphrase", "mill", "name", "secretname")
        side.feed([DATA])
    else:
        side = dialling(stage, (LOOPBACK, pretender.port), *key.words, "wait", "1s")
    said = side.ends(3 if way == "rx listens" else 9)
    assert "no viamillipede" in said or "closed" in said
    assert heard and all(len(each) == 80 and each[5] == 2 for each in heard), "hellos, and nothing else"


@pytest.mark.parametrize(
    "forged",
    [Answer(verdict).encode() for verdict in Verdict if verdict is not Verdict.ACCEPTED]
    + [ACCEPTED, ACCEPTED * 3, bytes([*b"vmlp", VERSION + 1]) * 20, b"HTTP/1.1 400 Bad Request\r\n\r\n", b""],
    ids=[verdict.name for verdict in Verdict if verdict is not Verdict.ACCEPTED]
    + ["ACCEPTED", "ACCEPTED 3", "another version", "HTTP", "nothing"],
)
def test_a_refusal_that_is_forged_after_the_contact_does_not_end_the_session(
    stage: Stage, key: Lock, forged: bytes
) -> None:
    rx = stage.rx(*key.words, "regroup", "60s")
    tapped = middle(stage, rx)
    forging = threading.Semaphore(0)
    forged_count: list[int] = []

    def forge(number: int, sock: socket.socket) -> bool:
        if number == 0 or len(forged_count) >= 3:
            return False
        forged_count.append(number)
        sock.settimeout(10)
        with contextlib.suppress(OSError):
            sock.recv(80, socket.MSG_WAITALL)
            sock.sendall(forged)
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1)
        forging.release()
        return True

    tapped.serve = forge
    tx = stage.tx(tapped, *key.words, "threads", 1, "regroup", "60s", "verbose", 3)
    started(rx, tx)
    tapped.links[0].close()
    for _ in range(3):
        assert forging.acquire(timeout=30)
    whole(rx, tx, DATA)


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("way", WAYS)
def test_who_is_told_that_its_stream_is_unknown_does_not_come_with_its_secret_again(
    stage: Stage, tmp_path: Path, way: str, secret: str
) -> None:
    """That would be a first leg once more: for a thief of the key to take over, and a guess at the phrase."""
    locked = lock(tmp_path, secret)
    words = (*locked.words, "regroup", "60s")
    listener = listens(stage, way, *words, *(() if way == WAYS[0] else ("threads", 4)))
    tapped = middle(stage, listener)
    said: list[bytes] = []  # by those that were told so
    beside, alone = threading.Event(), threading.Event()

    def forge(number: int, sock: socket.socket) -> bool:
        if number == 0 or alone.is_set() or (len(said) >= 4 and not beside.is_set()):
            return False
        sock.settimeout(10)
        said.append(sock.recv(HELLO, socket.MSG_WAITALL))
        sock.sendall(Answer(Verdict.UNKNOWN).encode())
        sock.shutdown(socket.SHUT_WR)
        said[-1] += sock.recv(1)
        if len(said) == 8:
            alone.set()
        return True

    tapped.serve = forge
    dialler = dials(stage, way, tapped, *words, *(("threads", 4) if way == WAYS[0] else ()))
    rx, tx = players(way, listener, dialler)
    started(rx, tx)
    tx.feed([DATA[: 2 * MIB]], then_close=False)
    assert read_exactly(rx.output, MIB) == DATA[:MIB]
    eventually(lambda: len(said) >= 4, "told, beside a leg that is up")
    beside.set()
    for link in list(tapped.links):
        link.close()
    assert alone.wait(60), "told, without a leg"
    assert read_exactly(rx.output, MIB) == DATA[MIB : 2 * MIB]
    whole(rx, tx, DATA[2 * MIB :])
    later = [bytes(link.said[UP]) for link in tapped.links if link.number]
    assert later and len(said) >= 8
    assert tapped.links[0].said[UP][6] == (Mode.FIRST if secret == "key" else Mode.PHRASE)
    assert {hello[6] for hello in said + later} == {Mode.JOIN}
    assert {len(hello) for hello in said} == {HELLO}, "nothing is said behind it"
    assert len({hello[8:24] for hello in said + later}) == 1, "one handle"


def test_a_forged_refusal_before_the_contact_ends_who_dials_and_tells_nothing(stage: Stage, key: Lock) -> None:
    """That anybody on the way can do, as by cutting the line."""
    rx = stage.rx(*key.words)
    tapped = middle(stage, rx)

    def forge(number: int, sock: socket.socket) -> bool:
        sock.recv(80, socket.MSG_WAITALL)
        sock.sendall(Answer(Verdict.KEYLESS).encode())
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)
        return True

    tapped.serve = forge
    tx = stage.tx(tapped, *key.words, stdin=subprocess.DEVNULL)
    assert "has neither a key nor a phrase, and we have a key" in tx.ends(4)
    whole(rx, stage.tx(rx, *key.words), b"rx has not noticed")


# ---- what can be read --------------------------------------------------------------------------------------

MARKER = b"a marker that stands in the data, again and again. "


@pytest.mark.parametrize("secret", ["key", "phrase", ""])
@pytest.mark.parametrize("way", ["rx listens", "tx listens"])
def test_what_crosses_shows_neither_data_nor_names_with_a_key(
    stage: Stage, tmp_path: Path, way: str, secret: str
) -> None:
    words = (*(lock(tmp_path, secret).words if secret else ()), "checkphrase", "mill")
    name = ("name", "the-name-of-it")
    if way == "rx listens":
        rx = stage.rx(*words)
        tapped = middle(stage, rx)
        tx = stage.tx(tapped, *words, *name, "threads", 3)
    else:
        tx = listening(stage, *words, *name, "threads", 3)
        tapped = middle(stage, tx)
        rx = dialling(stage, (LOOPBACK, tapped.port), *words)
    whole(rx, tx, MARKER * 20_000)
    crossed = tapped.crossed()
    assert len(crossed) > len(MARKER) * 20_000
    phrase = greeting(checkphrase=b"mill")[36:40]
    found = [MARKER in crossed, b"the-name-of-it" in crossed, phrase in crossed[:10_000]]
    assert found == ([False] * 3 if secret else [True] * 3)
    if secret:
        assert MARKER[:8] not in crossed and lock(tmp_path, secret).data[:16] not in crossed
