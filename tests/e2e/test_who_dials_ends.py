"""rx dials and tx listens: processes that die, are stopped or fail, and who else calls."""

import errno
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.helpers import LOOPBACK, MIB, Stage, eventually, read_all, some_bytes
from tests.e2e.test_contact import reserve
from tests.e2e.turned import STATES, dialling, idle_pair, listening, pair, whole
from viamillipede.protocol.wire import (
    ANSWER_BYTES,
    VERSION,
    Answer,
    Call,
    Greeting,
    Verdict,
    decode_answer_untrusted,
)

GONE_WITHIN_S = 15
READER_GONE = "the program that reads the output went away"


# ---- processes that die ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
def test_kill_9_of_tx(stage: Stage, state: str) -> None:
    rx, tx = pair(stage, state)
    tx.kill()
    killed = time.monotonic()
    arrived = len(read_all(rx.output))
    said = rx.ends(5)
    assert time.monotonic() - killed <= GONE_WITHIN_S
    assert re.search(r"the other process is gone; the stream ends incomplete at byte \d+", said)
    assert arrived or state == "idle"


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
def test_kill_9_of_rx(stage: Stage, state: str) -> None:
    rx, tx = pair(stage, state)
    rx.kill()
    killed = time.monotonic()
    assert "the other process is gone" in tx.ends(5)
    assert time.monotonic() - killed <= GONE_WITHIN_S


def test_a_tx_that_is_started_anew_makes_no_mixed_stream(stage: Stage) -> None:
    rx, tx = idle_pair(stage, rx_words=("regroup", "30s"))
    tx.kill()
    again = listening(stage, port=tx.port)
    said = rx.ends(5)
    assert "the transmitter was started anew and does not have this stream" in said
    assert read_all(rx.output) == b""
    whole(dialling(stage, again), again, b"the next stream")


def test_an_rx_that_is_started_anew_makes_no_mixed_stream(stage: Stage) -> None:
    """It is another receiver: it is told that tx is busy until tx has given up the old one."""
    rx, tx = idle_pair(stage, "regroup", "4s")
    rx.kill()
    again = dialling(stage, tx, "wait", "1s")
    assert "the transmitter is busy with another stream" in again.ends(9)
    assert read_all(again.output) == b""
    tx.ends(5)


# ---- failures and signals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (15, 143, "terminated")])
def test_tx_is_told_to_stop(stage: Stage, state: str, number: int, status: int, word: str) -> None:
    rx, tx = pair(stage, state, "threads", 1) if state == "blocked" else pair(stage, state)
    tx.signal(number)
    stopped = time.monotonic()
    tx.ends(status)
    assert time.monotonic() - stopped < 6
    read_all(rx.output)
    assert re.search(f"the transmitter gave up at byte [0-9]+: {word}", rx.ends(8))


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (15, 143, "terminated")])
def test_rx_is_told_to_stop(stage: Stage, state: str, number: int, status: int, word: str) -> None:
    rx, tx = pair(stage, state)
    rx.signal(number)
    rx.ends(status)
    assert f"the receiver gave up: {word}" in tx.ends(8)


@pytest.mark.parametrize("state", STATES)
def test_the_reader_goes_away(stage: Stage, state: str) -> None:
    rx, tx = pair(stage, state)
    rx.close_output()
    assert f"viamillipede rx: {READER_GONE}" in rx.ends(7)
    assert f"the receiver gave up: {READER_GONE}" in tx.ends(8)


def test_an_input_that_fails(stage: Stage) -> None:
    memory = stage.hold(open("/proc/self/mem", "rb", buffering=0))  # nothing is mapped at address 0
    tx = listening(stage, stdin=memory)
    rx = dialling(stage, tx)
    assert "cannot read the input: Input/output error" in tx.ends(7)
    assert "the transmitter gave up at byte 0: cannot read the input: Input/output error" in rx.ends(8)


@pytest.mark.parametrize("first", ["tx", "rx"])
def test_before_the_first_contact_a_signal_ends_it_at_once(stage: Stage, first: str) -> None:
    if first == "tx":
        side = listening(stage)
    else:
        side = dialling(stage, (LOOPBACK, reserve(stage)), "verbose", 3)
        side.hear("refused")
    side.signal(signal.SIGINT)
    side.ends(130, patience_s=5)


def test_a_port_that_is_taken(stage: Stage) -> None:
    tx = listening(stage)
    assert f"cannot listen on port {tx.port}: Address already in use" in stage.tx_words("tx", "listen", tx.port).ends(3)
    whole(dialling(stage, tx), tx, b"undisturbed")


# ---- who is refused ----------------------------------------------------------------------------------------


def test_another_checkphrase(stage: Stage) -> None:
    tx = listening(stage, "checkphrase", "mill")
    assert "the transmitter has another checkphrase" in dialling(stage, tx, "checkphrase", "pede").ends(4)
    whole(dialling(stage, tx, "checkphrase", "mill"), tx, b"ours")
    assert "it has another checkphrase; further ones are only counted" in tx.said
    assert tx.closing("connection refused") == 1


@contextmanager
def call_to(port: int, said: bytes) -> Iterator[socket.socket]:
    """A connection on which this was said."""
    with socket.create_connection((LOOPBACK, port)) as sock:
        sock.settimeout(30)
        sock.sendall(said)
        yield sock


def heard(sock: socket.socket) -> bytes:
    """What comes until the end."""
    said = bytearray()
    while piece := sock.recv(4096):
        said += piece
    return bytes(said)


def test_a_call_of_another_version_is_told_ours(stage: Stage) -> None:
    tx = listening(stage)
    with call_to(tx.port, b"vmlp" + bytes([VERSION + 1])) as sock:
        assert decode_answer_untrusted(heard(sock)) == Answer(Verdict.VERSION)
    whole(dialling(stage, tx), tx, b"ours")
    assert f"it speaks version {VERSION + 1} of the protocol, we {VERSION}" in tx.said


def test_a_tx_of_another_version_ends_rx(stage: Stage) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        rx = dialling(stage, (LOOPBACK, server.getsockname()[1]))
        sock, _ = server.accept()
        with sock:
            sock.sendall(b"vmlp" + bytes([VERSION + 1]))
            assert f"the transmitter speaks version {VERSION + 1} of the protocol, we {VERSION}" in rx.ends(4)


def test_two_transmitters_or_two_receivers_find_out(stage: Stage) -> None:
    tx, rx = listening(stage), stage.rx()
    said = stage.tx(tx).ends(4)
    assert "a transmitter listens there, as we are one; it takes a receiver" in said
    said = dialling(stage, rx).ends(4)
    assert "a receiver listens there, as we are one; it takes a transmitter" in said
    whole(dialling(stage, tx), tx, b"undisturbed")
    assert "it is a transmitter, as we are" in tx.said and "it is a receiver, as we are" in rx.said


def test_a_second_receiver_is_told_that_tx_is_busy(stage: Stage) -> None:
    rx, tx = idle_pair(stage)
    second = dialling(stage, tx, "wait", "700ms")
    assert "the transmitter is busy with another stream" in second.ends(9)
    assert read_all(second.output) == b""
    whole(rx, tx, b" world")
    assert "it is another receiver than ours" in tx.said


def test_a_call_that_cannot_be_is_told_so(stage: Stage) -> None:
    rx, tx = idle_pair(stage)
    spoilt = Call(b"receiver", 0, 64, 65, bytes(4)).encode()
    with call_to(tx.port, spoilt) as sock:
        assert decode_answer_untrusted(heard(sock)) == Answer(Verdict.MALFORMED)
    whole(rx, tx, b"")


def test_a_call_that_leads_nowhere_does_not_own_tx(stage: Stage) -> None:
    """It is greeted, and goes away without an answer."""
    tx = listening(stage)
    with call_to(tx.port, Call(b"somebody", 0, 0, 1, bytes(4)).encode()) as sock:
        assert decode_answer_untrusted(sock.recv(ANSWER_BYTES)).verdict is Verdict.ACCEPTED
        rx = dialling(stage, tx, "verbose", 3)
        rx.hear("busy")
    whole(rx, tx, b"ours")


STRANGERS = {
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + some_bytes(200),
    "noise": some_bytes(4096),
    "half a call": Call(b"receiver", 0, 0, 1, bytes(4)).encode()[:39],
    "a damaged call": Call(b"receiver", 0, 0, 1, bytes(4)).encode()[:-1] + b"!",
    "port scan": b"",
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_a_stranger_is_refused_and_disturbs_nothing(stage: Stage, kind: str) -> None:
    rx, tx = idle_pair(stage)
    for _ in range(3):
        with call_to(tx.port, STRANGERS[kind]) as sock:
            try:
                sock.shutdown(socket.SHUT_WR)
                assert heard(sock) == b""
            except OSError as error:  # it had said more than was read, and was reset
                assert error.errno in (errno.ECONNRESET, errno.ENOTCONN)
    whole(rx, tx, b" world")
    assert len(re.findall("refused a connection from", tx.said)) == 1
    assert tx.closing("connections refused") == 3


def test_silent_connections_are_bounded(stage: Stage) -> None:
    rx, tx = idle_pair(stage, "threads", 1)
    before = tx.descriptors()
    for _ in range(1100):
        stage.hold(socket.create_connection((LOOPBACK, tx.port)))
    eventually(lambda: tx.descriptors() >= before + 1000, "it takes them")
    assert tx.descriptors() <= before + 1024 + 64  # those of a turn are taken before the oldest are closed
    whole(rx, tx, b" world")
    assert tx.closing("connections refused") >= 1100 - 1024


def test_a_greeting_of_a_tx_that_is_not_what_was_called(stage: Stage) -> None:
    """A listening tx that greets for another leg, or with another receiver: that connection is no leg."""
    with socket.create_server((LOOPBACK, 0)) as server:
        rx = dialling(stage, (LOOPBACK, server.getsockname()[1]), "verbose", 3)
        for leg, receiver in ((1, bytes(8)), (0, b"somebody")):
            sock, _ = server.accept()
            with sock:
                sock.settimeout(30)
                call = sock.recv(1000)
                greeting = Greeting(bytes(15) + b"s", leg, receiver, bytes(4), 0, 64 * MIB, MIB)
                sock.sendall(Answer(Verdict.ACCEPTED, 0, call[8:16], 64 * MIB).encode() + greeting.encode())
                sock.shutdown(socket.SHUT_WR)
                answer = heard(sock)
                assert answer == b"" if leg else decode_answer_untrusted(answer) == Answer(Verdict.UNKNOWN)
        assert "the transmitter greets as none that could be ours" in rx.ends(4)
    assert "it greets for another leg than it was called for" in rx.said
