"""How a transfer ends when it cannot be completed: the right status on both sides, the reason in words, no hang."""

import re
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.helpers import (
    KIB,
    MIB,
    PATIENCE_S,
    Side,
    Stage,
    eventually,
    read_all,
    read_exactly,
    read_some,
    some_bytes,
    whole,
    write_while_taken,
)

DEAD_WITHIN_S = 15  # the manual's promise for `kill -9`, at the default `regroup`
READER_GONE = "the program that reads the output went away"


def idle_pair(stage: Stage, *words: object) -> tuple[Side, Side]:
    """rx and tx that have moved 5 bytes and now wait for input."""
    rx = stage.rx(*words)
    tx = stage.tx(rx, *words)
    tx.write(b"hello")
    assert read_exactly(rx.output, 5) == b"hello"
    return rx, tx


def blocked_pair(stage: Stage, *words: object) -> tuple[Side, Side]:
    """rx whose output nobody reads, and tx that is held back by it."""
    rx = stage.rx("window", "4M", *words)
    tx = stage.tx(rx, "window", "4M", *words)
    tx.write(b"hello")
    assert read_exactly(rx.output, 5) == b"hello"
    write_while_taken(tx.input, quiet_s=0.5)
    return rx, tx


def endless() -> Iterator[bytes]:
    """More input than anybody takes."""
    block = some_bytes(64 * KIB)
    while True:
        yield block


# ---- processes that die ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
def test_kill_9_of_tx_ends_rx_within_15_s_and_it_says_at_which_byte(stage: Stage, busy: bool) -> None:
    rx, tx = idle_pair(stage)
    arrived = 5
    if busy:
        tx.feed(endless())
        arrived += len(read_exactly(rx.output, 20 * MIB))
    tx.kill()
    killed = time.monotonic()
    arrived += len(read_all(rx.output))
    said = rx.ends(5)
    assert time.monotonic() - killed <= DEAD_WITHIN_S
    assert f"the other process is gone; the stream ends incomplete at byte {arrived}" in said


@pytest.mark.slow
@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
def test_kill_9_of_rx_ends_tx_within_15_s(stage: Stage, busy: bool) -> None:
    rx, tx = idle_pair(stage)
    if busy:
        tx.feed(endless())
        read_exactly(rx.output, 20 * MIB)
    rx.kill()
    killed = time.monotonic()
    said = tx.ends(5)
    assert time.monotonic() - killed <= DEAD_WITHIN_S
    delivered = re.search(r"the other process is gone; (\d+) bytes were delivered", said)
    assert delivered and int(delivered[1]) <= 5 + len(read_all(rx.output)) + (20 * MIB if busy else 0)


@pytest.mark.parametrize("first", ["tx", "rx"])
def test_regroup_says_how_long_a_dead_peer_is_waited_for(stage: Stage, first: str) -> None:
    rx, tx = idle_pair(stage, "regroup", "1s")
    dying, other = (tx, rx) if first == "tx" else (rx, tx)
    dying.kill()
    killed = time.monotonic()
    other.ends(5)
    assert 0.9 <= time.monotonic() - killed <= 8  # the default is 10 s


def test_a_supervisor_that_restarts_rx_in_mid_stream_makes_no_mixed_stream(stage: Stage) -> None:
    rx = stage.rx("regroup", "5s")
    tx = stage.tx(rx, "regroup", "60s")
    tx.feed(endless())
    before = read_exactly(rx.output, 10 * MIB)
    rx.kill()
    before += read_all(rx.output)
    again = stage.rx(port=rx.port)
    said = tx.ends(5)
    assert "the receiver was started anew and does not know this stream" in said
    assert (some_bytes(64 * KIB) * (len(before) // (64 * KIB) + 1)).startswith(before)
    whole(again, stage.tx(again), b"the next stream")  # nothing of the old one came out of it


def test_a_supervisor_that_restarts_tx_in_mid_stream_makes_no_mixed_stream(stage: Stage) -> None:
    """The new tx is another stream: it is told that rx is busy until rx has given up the old one."""
    rx, tx = idle_pair(stage, "regroup", "4s")
    tx.kill()
    again = stage.tx(rx, "wait", "1s")
    again.feed([b"from the start"])
    assert "busy with another stream" in again.ends(3)
    assert read_all(rx.output) == b""
    assert "incomplete at byte 5" in rx.ends(5)


# ---- input and output that fail ----------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["idle", "busy", "blocked"])
def test_the_reader_goes_away(stage: Stage, state: str) -> None:
    rx, tx = blocked_pair(stage) if state == "blocked" else idle_pair(stage)
    if state == "busy":
        tx.feed(endless())
        read_exactly(rx.output, 10 * MIB)
    rx.close_output()
    assert f"viamillipede rx: {READER_GONE}" in rx.ends(7)
    assert f"the receiver gave up: {READER_GONE}" in tx.ends(8)


def test_the_reader_goes_away_before_there_is_a_tx(stage: Stage) -> None:
    rx = stage.rx()
    rx.close_output()
    assert READER_GONE in rx.ends(7)


def test_the_reader_of_an_output_socket_goes_away(stage: Stage) -> None:
    ours, theirs = (stage.hold(sock) for sock in socket.socketpair())
    rx = stage.rx(stdout=theirs)
    theirs.close()
    tx = stage.tx(rx)
    tx.write(b"hello")
    assert read_exactly(ours.fileno(), 5) == b"hello"
    ours.close()
    tx.feed([bytes(KIB)], then_close=False)
    assert READER_GONE in rx.ends(7)
    assert READER_GONE in tx.ends(8)


def test_the_disk_is_full(stage: Stage) -> None:
    full = stage.hold(open("/dev/full", "wb"))
    rx = stage.rx(stdout=full)
    tx = stage.tx(rx)
    tx.write(b"one byte is too much")
    assert "cannot write the output: No space left on device" in rx.ends(7)
    assert "the receiver gave up: cannot write the output: No space left on device" in tx.ends(8)


def test_the_disk_becomes_full(stage: Stage, tmp_path: Path) -> None:
    """A limit on the size of files is what a test can set; the write fails in mid-stream."""
    script = 'ulimit -f 2048; trap "" XFSZ; exec "$@"'  # blocks of 512 bytes or of 1 KiB, that depends on the shell
    out = stage.hold(open(tmp_path / "out", "wb"))
    rx = stage.rx(stdout=out, wrapper=["sh", "-c", script, "sh"])
    tx = stage.tx(rx)
    tx.feed(endless())
    assert "cannot write the output: File too large" in rx.ends(7)
    assert "File too large" in tx.ends(8)


def test_the_input_cannot_be_read(stage: Stage) -> None:
    """Nothing is mapped at address 0 of a process, so its memory cannot be read there."""
    memory = stage.hold(open("/proc/self/mem", "rb", buffering=0))
    rx = stage.rx()
    tx = stage.tx(rx, stdin=memory)
    assert "cannot read the input: Input/output error" in tx.ends(7)
    assert "the transmitter gave up at byte 0: cannot read the input: Input/output error" in rx.ends(8)
    assert read_all(rx.output) == b""


def test_the_input_fails_in_mid_stream(stage: Stage) -> None:
    listener = stage.hold(socket.create_server(("127.0.0.1", 0)))
    theirs = stage.hold(socket.create_connection(listener.getsockname()))
    ours, _ = listener.accept()
    with ours:
        rx = stage.rx()
        tx = stage.tx(rx, stdin=theirs)
        theirs.close()
        ours.sendall(b"hello")
        assert read_exactly(rx.output, 5) == b"hello"
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert "cannot read the input: Connection reset by peer" in tx.ends(7)
    assert "the transmitter gave up at byte 5: cannot read the input: Connection reset by peer" in rx.ends(8)


# ---- signals -----------------------------------------------------------------------------------------------


SIGNALS = [(signal.SIGHUP, 129, "hung up"), (signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]


@pytest.mark.parametrize("number, status, word", SIGNALS, ids=["HUP", "INT", "TERM"])
@pytest.mark.parametrize("state", ["idle", "busy", "blocked"])
@pytest.mark.parametrize("first", ["tx", "rx"])
def test_a_signal_ends_both_sides(stage: Stage, first: str, state: str, number: int, status: int, word: str) -> None:
    rx, tx = blocked_pair(stage) if state == "blocked" else idle_pair(stage)
    if state == "busy":
        tx.feed(endless())
        read_exactly(rx.output, 10 * MIB)
    signalled, other = (tx, rx) if first == "tx" else (rx, tx)
    signalled.signal(number)
    if state == "busy":
        read_all(rx.output)
    assert word in signalled.ends(status, DEAD_WITHIN_S)
    said = other.ends(8, DEAD_WITHIN_S)
    assert re.search(f"the (transmitter|receiver) gave up.*: {word}", said)
    for side in (tx, rx):
        assert side.closing_line().startswith(f"viamillipede {side.role}: incomplete, ")


def test_a_hang_up_that_is_ignored_stays_ignored(stage: Stage) -> None:
    rx = stage.rx(wrapper=["sh", "-c", 'trap "" HUP; exec "$@"', "sh"])  # as nohup does
    rx.signal(signal.SIGHUP)
    tx = stage.tx(rx)
    tx.write(b"hello")
    assert read_exactly(rx.output, 5) == b"hello"
    rx.signal(signal.SIGHUP)
    whole(rx, tx, b", world")


@pytest.mark.parametrize("first", ["tx", "rx"])
def test_a_signal_while_legs_are_still_coming_up(stage: Stage, first: str) -> None:
    """The first byte has come by the first leg, the others are being dialled and accepted: nobody stays behind."""
    for threads in (8, 16, 32, 64, 128):
        rx = stage.rx()
        tx = stage.tx(rx, "threads", threads)
        tx.write(b"hello")
        assert read_exactly(rx.output, 5) == b"hello"
        signalled, other = (tx, rx) if first == "tx" else (rx, tx)
        signalled.signal(signal.SIGINT)
        signalled.ends(130, DEAD_WITHIN_S)
        other.ends(8, DEAD_WITHIN_S)


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"])
def test_a_signal_before_the_first_contact(stage: Stage, number: int, status: int) -> None:
    rx = stage.rx()
    rx.signal(number)
    rx.ends(status, DEAD_WITHIN_S)
    tx = stage.tx(rx.port, "verbose", 3)
    tx.hear("refused")
    tx.signal(number)
    tx.ends(status, DEAD_WITHIN_S)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["tx", "rx"])
def test_a_signal_while_the_other_side_hears_nothing(stage: Stage, first: str) -> None:
    """The farewell to a process that is stopped has an end."""
    rx, tx = blocked_pair(stage)
    signalled, stopped = (tx, rx) if first == "tx" else (rx, tx)
    stopped.signal(signal.SIGSTOP)
    eventually(lambda: Path(f"/proc/{stopped.pid}/stat").read_text().split()[2] == "T", "it has stopped")
    signalled.signal(signal.SIGTERM)
    signalled.ends(143, DEAD_WITHIN_S)


@pytest.mark.slow
def test_a_side_that_is_stopped_for_a_while_goes_on(stage: Stage) -> None:
    """As in a suspended machine: it was not the other one that was silent."""
    for stopped in ("tx", "rx"):
        rx, tx = idle_pair(stage)
        side = tx if stopped == "tx" else rx
        side.signal(signal.SIGSTOP)
        time.sleep(5)  # what is tested is the passing of time: more than LEG_SILENT_US
        side.signal(signal.SIGCONT)
        tx.write(b"again")
        assert read_exactly(rx.output, 5) == b"again"
        tx.end_input()
        assert read_some(rx.output) == b""
        tx.ends(0, PATIENCE_S)
        rx.ends(0, PATIENCE_S)
