"""rx keep: a process per stream, several at once, each with its own command; what happens to one stays with it."""

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from tests.aio.drive import BYE, data, end, greeting
from tests.e2e.commands import Command, Family, Marks, python, sh
from tests.e2e.helpers import LOOPBACK, MIB, Side, Stage, eventually, some_bytes
from viamillipede.config import COMMAND_END_US, S_US
from viamillipede.protocol.wire import (
    ANSWER_BYTES,
    FROM_RX,
    HEADER_BYTES,
    Kind,
    Verdict,
    decode_answer_untrusted,
    decode_header_untrusted,
)

SOON_S = 5  # on a busy machine too
END_S = COMMAND_END_US / S_US


def keeping(marks: Marks, after: str = "") -> Command:
    """A sink that leaves marks with the name of its stream: begun, data, eof."""
    name = "$VIAMILLIPEDE_NAME"
    return sh(f'cd "$1"; : >begun.{name}; cat >data.{name}; : >eof.{name}; {after}', marks.folder)


def keeper(stage: Stage, marks: Marks, *words: object, after: str = "") -> Side:
    """An rx that keeps on serving."""
    return stage.rx("keep", *words, *keeping(marks, after))


def stream(stage: Stage, marks: Marks, rx: object, name: str, *words: object) -> Side:
    """A tx whose stream has begun, and waits for more input."""
    tx = stage.tx(rx, "name", name, *words)
    tx.write(b"hello")
    marks.appears(f"begun.{name}")
    eventually(lambda: marks.has(f"data.{name}") and marks.text(f"data.{name}") == "hello", "the first bytes")
    return tx


def complete(marks: Marks, tx: Side, name: str) -> None:
    """Its input ends; it must be content, and so must its sink."""
    tx.end_input()
    tx.ends(0)
    assert marks.text(f"data.{name}") == "hello" and marks.has(f"eof.{name}")


def only_itself(rx: Side) -> None:
    """No stream is left but the process that forks them."""
    eventually(lambda: len(psutil.Process(rx.pid).children(recursive=True)) == 1, "no stream is left", SOON_S)


def ended_by(rx: Side, number: int, status: int) -> str:
    """It ends by a signal, with all that belongs to it."""
    family = Family(rx)
    rx.signal(number)
    said = rx.ends(status)
    family.ends(SOON_S)
    return said


# ---- streams -----------------------------------------------------------------------------------------------


def test_one_after_another(stage: Stage, marks: Marks) -> None:
    rx = keeper(stage, marks)
    for name in ("one", "two", "three"):
        complete(marks, stream(stage, marks, rx, name, "digest", "sha256"), name)
        assert rx.hear(rf"^viamillipede rx {name}: 5 B in .*, sha256 [0-9a-f]{{64}}$")
    only_itself(rx)
    assert "viamillipede rx: 3 streams served" in ended_by(rx, signal.SIGTERM, 143)


def test_several_at_once(stage: Stage, marks: Marks) -> None:
    rx = keeper(stage, marks, "streams", 3)
    streams = {name: stream(stage, marks, rx, name) for name in ("one", "two", "three")}
    for name in ("two", "three", "one"):
        complete(marks, streams[name], name)
    ended_by(rx, signal.SIGINT, 130)


def test_who_finds_it_busy_waits_for_a_turn(stage: Stage, marks: Marks) -> None:
    rx = keeper(stage, marks)
    first = stream(stage, marks, rx, "first")
    impatient = stage.tx(rx, "name", "impatient", "wait", "600ms")
    patient = stage.tx(rx, "name", "patient", "verbose", 2)
    assert "the receiver is busy with another stream" in impatient.ends(3)
    patient.hear("busy with another stream")
    assert not marks.has("begun.patient") and not marks.has("begun.impatient")
    complete(marks, first, "first")
    patient.write(b"hello")
    complete(marks, patient, "patient")
    ended_by(rx, signal.SIGTERM, 143)


def test_streams_are_big_and_their_legs_are_many(stage: Stage, marks: Marks) -> None:
    """Each leg is handed over; two streams at a time."""
    rx = keeper(stage, marks, "streams", 2, "verbose", 3)
    content = {name: some_bytes(8 * MIB, seed) for seed, name in enumerate(("one", "two"))}
    for name, tx in {name: stage.tx(rx, "name", name, "threads", 16) for name in content}.items():
        tx.feed([content[name]])
    for name in content:
        rx.hear(rf"^viamillipede rx {name}: 8.0 MiB .*, 16 legs, 0 restarts")
        assert marks["data." + name].read_bytes() == content[name]
    ended_by(rx, signal.SIGTERM, 143)


def test_legs_that_are_cut_find_their_stream_again(stage: Stage, marks: Marks) -> None:
    rx = keeper(stage, marks, "streams", 2)
    proxy = stage.proxy(rx)
    content = {name: some_bytes(6 * MIB, seed) for seed, name in enumerate(("one", "two"))}
    streams = {name: stage.tx(proxy, "name", name, "threads", 4) for name in content}
    for name, tx in streams.items():
        tx.feed([content[name][: 2 * MIB]], then_close=False)
    for _ in range(3):
        eventually(lambda: proxy.living() >= 8, "all legs are up")
        assert proxy.strike("reset") >= 8  # some of them may not have greeted yet
    for name, tx in streams.items():
        tx.fed.wait(30)
        tx.feed([content[name][2 * MIB :]])
    for name, tx in streams.items():
        tx.ends(0)
        assert tx.closing("restarts?") >= 1
        assert marks["data." + name].read_bytes() == content[name]
    ended_by(rx, signal.SIGTERM, 143)


# ---- streams that fail -------------------------------------------------------------------------------------


def test_a_stream_that_fails_disturbs_no_other(stage: Stage, marks: Marks) -> None:
    """A sink that fails, a transmitter that is terminated, one that is killed."""
    rx = keeper(stage, marks, "streams", 4, "regroup", "300ms", after='[ "$VIAMILLIPEDE_NAME" != bad ] || exit 3')
    names = ("good", "bad", "ended", "killed")
    good, bad, ended, killed = (stream(stage, marks, rx, name) for name in names)
    bad.end_input()
    assert "exited with status 3" in bad.ends(8)
    ended.signal(signal.SIGTERM)
    ended.ends(143)
    killed.kill()
    for name, status in (("bad", 7), ("ended", 8), ("killed", 5)):
        rx.hear(f"^viamillipede rx: stream {name}: failed with status {status}$")
    assert not marks.has("eof.ended") and not marks.has("eof.killed")
    complete(marks, good, "good")
    only_itself(rx)
    assert "viamillipede rx: 4 streams served" in ended_by(rx, signal.SIGTERM, 143)


def of_stream(rx: Side, name: str) -> psutil.Process:
    """The process of a stream: the parent of its command."""
    for each in psutil.Process(rx.pid).children(recursive=True):
        if each.environ().get("VIAMILLIPEDE_NAME") == name:
            parents = each.parents()
            return parents[[parent.pid for parent in parents].index(rx.pid) - 2]
    raise AssertionError(f"no stream {name}")


def test_kill_9_of_a_stream(stage: Stage, marks: Marks) -> None:
    rx = keeper(stage, marks, "streams", 2)
    one, other = (stream(stage, marks, rx, name) for name in ("one", "other"))
    of_stream(rx, "one").kill()
    assert "the receiver was started anew and does not know this stream" in one.ends(5)
    rx.hear("^viamillipede rx: stream one: failed with status 137$")
    complete(marks, other, "other")
    again = stream(stage, marks, rx, "again")
    complete(marks, again, "again")
    only_itself(rx)
    assert not marks.has("eof.one")
    ended_by(rx, signal.SIGTERM, 143)


@pytest.mark.parametrize("what", ["spawner", "keeper"])
def test_kill_9_of_who_forks_or_who_listens(stage: Stage, marks: Marks, what: str) -> None:
    """All streams end, and no sink sees an end of its input."""
    rx = keeper(stage, marks, "streams", 2)
    streams = [stream(stage, marks, rx, name, "regroup", "300ms") for name in ("one", "two")]
    family = Family(rx)
    if what == "keeper":
        rx.kill()
    else:
        psutil.Process(rx.pid).children()[0].kill()
        assert "viamillipede rx: the process that forks the streams has ended" in rx.ends(5)
    for tx in streams:
        tx.ends(5)
    family.ends(SOON_S)
    assert not marks.has("eof.one") and not marks.has("eof.two")


UNDOES = """
import os, signal, sys, time
os.chdir(sys.argv[1])
name = os.environ["VIAMILLIPEDE_NAME"]
def undo(*_):
    open("asked." + name, "w").close()
    time.sleep(1.5)
    open("undone." + name, "w").close()
    os._exit(1)
signal.signal(signal.SIGTERM, undo)
open("begun." + name, "w").close()
while piece := os.read(0, 65536):
    open("data." + name, "ab").write(piece)
open("eof." + name, "w").close()
"""


@pytest.mark.parametrize("number, status", [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_streams_and_their_sinks_have_time(
    stage: Stage, marks: Marks, number: int, status: int
) -> None:
    """Also when there had been none for a while: the keeper leaves last."""
    rx = stage.rx("keep", "streams", 2, *python(UNDOES, marks.folder))
    complete(marks, stream(stage, marks, rx, "zero"), "zero")
    only_itself(rx)
    streams = [stream(stage, marks, rx, name) for name in ("one", "two")]
    said = ended_by(rx, number, status)
    for tx in streams:
        tx.ends(8)
    for name in ("one", "two"):
        assert marks.has(f"undone.{name}") and not marks.has(f"eof.{name}")
        assert said.index(f"rx: stream {name}: failed with status {status}") < said.index("rx: 3 streams served")


def test_kill_9_of_the_keeper_leaves_the_sinks_their_time(stage: Stage, marks: Marks) -> None:
    rx = stage.rx("keep", *python(UNDOES, marks.folder))
    tx = stream(stage, marks, rx, "one", "regroup", "300ms")
    family = Family(rx)
    rx.kill()
    tx.ends(5)
    family.ends(SOON_S)
    assert marks.has("undone.one") and not marks.has("eof.one")


def test_a_second_signal_hurries(stage: Stage, marks: Marks) -> None:
    rx = stage.rx("keep", *python(UNDOES.replace("1.5", "60"), marks.folder))
    tx = stream(stage, marks, rx, "one")
    rx.signal(signal.SIGTERM)
    marks.appears("asked.one")
    again_s = time.monotonic()
    ended_by(rx, signal.SIGTERM, 143)
    assert time.monotonic() - again_s < END_S - 1
    tx.ends(8)
    assert not marks.has("eof.one")


# ---- who comes ---------------------------------------------------------------------------------------------


def test_who_is_not_served_is_refused_and_it_goes_on(stage: Stage, marks: Marks) -> None:
    rx = keeper(stage, marks, "names", "db[0-9]", "checkphrase", "abcd", "verbose", 3)
    for words, reason in (
        (["name", "web1"], "does not take streams of the name 'web1'"),
        ([], "does not take streams of the name ''"),
        (["name", "db1", "checkphrase", "efgh"], "has another checkphrase"),
    ):
        words = words if "checkphrase" in words else [*words, "checkphrase", "abcd"]
        assert f"the receiver {reason}" in stage.tx(rx, *words).ends(4)
    with socket.create_connection((LOOPBACK, rx.port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\nHost: somebody\r\n\r\n")
        rx.hear("refused a connection from 127.0.0.1:.*: ", times=4)
    with socket.create_connection((LOOPBACK, rx.port)):
        complete(marks, stream(stage, marks, rx, "db1", "checkphrase", "abcd"), "db1")
    assert [mark.name for mark in marks.folder.glob("begun.*")] == ["begun.db1"]
    ended_by(rx, signal.SIGTERM, 143)


@contextmanager
def leg(rx: Side, number: int, **values: object) -> Iterator[socket.socket]:
    """A connection that greets as the first of its stream does."""
    with socket.create_connection((LOOPBACK, rx.port), 30) as sock:
        sock.sendall(greeting(number, **values))
        yield sock


def verdict(sock: socket.socket) -> Verdict:
    """The answer to the greeting."""
    return decode_answer_untrusted(sock.recv(ANSWER_BYTES, socket.MSG_WAITALL)).verdict


def done(sock: socket.socket) -> None:
    """Wait until the stream is, and leave."""
    while (header := decode_header_untrusted(sock.recv(HEADER_BYTES, socket.MSG_WAITALL), FROM_RX)).kind != Kind.DONE:
        assert len(sock.recv(header.length, socket.MSG_WAITALL)) == header.length
    sock.sendall(BYE)


def test_a_late_leg_of_a_stream_that_is_over_does_not_begin_it_again(stage: Stage, marks: Marks) -> None:
    """It was under way when the stream ended: its sink would find nothing to read, and make a new file of that."""
    rx = keeper(stage, marks, "verbose", 3)
    with leg(rx, 0, name="x") as sock:
        sock.sendall(data(0, 0, b"hello") + end(1, 5))
        assert verdict(sock) is Verdict.ACCEPTED
        done(sock)
    rx.hear("stream x: complete")
    only_itself(rx)
    with leg(rx, 5, name="x") as sock:
        sock.sendall(end(0, 0))
        assert verdict(sock) is Verdict.UNKNOWN
    assert marks.text("data.x") == "hello"
    only_itself(rx)
    assert "viamillipede rx: 1 stream served" in ended_by(rx, signal.SIGTERM, 143)


def test_wait_counts_only_while_there_is_nobody(stage: Stage, marks: Marks) -> None:
    rx = keeper(stage, marks, "wait", "1s")
    tx = stream(stage, marks, rx, "one")
    time.sleep(1.2)  # what is tested is that nothing happens then
    complete(marks, tx, "one")
    began_s = time.monotonic()
    assert "no transmitter came within 1 s" in rx.ends(9)
    assert 0.9 <= time.monotonic() - began_s


# ---- how things stand --------------------------------------------------------------------------------------


def test_a_dump_tells_of_the_keeper_and_of_each_stream(stage: Stage, marks: Marks) -> None:
    rx = keeper(stage, marks, "streams", 2)
    complete(marks, stream(stage, marks, rx, "zero"), "zero")
    only_itself(rx)
    streams = {name: stream(stage, marks, rx, name) for name in ("one", "two")}
    rx.signal(signal.SIGUSR1)
    rx.hear(r"^viamillipede rx: pid \d+, 2 streams; ended: 1 with status 0$")
    for name in streams:
        rx.hear(rf"^  stream {name}: running$")
    rx.hear(r"reorder memory", times=2)  # each stream's own
    rx.signal(signal.SIGUSR2)
    rx.hear("verbose 2$", times=3)
    for name, tx in streams.items():
        complete(marks, tx, name)
    ended_by(rx, signal.SIGTERM, 143)


@pytest.mark.slow
def test_many_short_streams_leave_nothing_behind(stage: Stage, marks: Marks) -> None:
    """No descriptor and no process, in none of the two that stay."""
    rx = stage.rx(
        "keep", "streams", 6, *sh("cat >/dev/null")
    )  # twice as many as come: one that is done may count still
    spawner = psutil.Process(rx.pid).children()[0]
    rounds, at_once, most, stay = 67, 3, 0, (0, 0)
    for turn in range(rounds):
        if turn == 1:  # not before: the spawner may only just have been forked
            only_itself(rx)
            stay = rx.descriptors(), spawner.num_fds()
        with ExitStack() as legs:
            socks = [
                legs.enter_context(leg(rx, 0, session=bytes([turn + 1, number]) * 8, name=f"{turn}.{number}"))
                for number in range(at_once)
            ]
            for sock in socks:
                sock.sendall(data(0, 0, b"hello") + end(1, 5))
            for sock in socks:
                assert verdict(sock) is Verdict.ACCEPTED
                done(sock)
        most = max(most, len(psutil.Process(rx.pid).children(recursive=True)))
    only_itself(rx)
    eventually(lambda: rx.descriptors() <= stay[0] and spawner.num_fds() <= stay[1], "no more descriptors", SOON_S)
    assert most <= 1 + 2 * at_once * 4, "the spawner, and streams, their shells, what these run, and guardians"
    said = ended_by(rx, signal.SIGTERM, 143)
    assert f"viamillipede rx: {rounds * at_once} streams served" in said and "failed" not in said
