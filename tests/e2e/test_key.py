"""Real processes with a key or a phrase: who has it transfers, who has not is told why, and nobody sees it."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.commands import Marks, sh
from tests.e2e.helpers import LOOPBACK, MIB, Side, Stage, eventually, read_all, read_exactly, some_bytes, whole
from tests.e2e.keyed import SECRETS, WAYS, Lock, dials, listens, lock, players, spell, started, together
from tests.e2e.middle import say
from tests.e2e.proxy import DOWN, Fault
from tests.e2e.proxy import UP as FROM_DIALLER
from tests.e2e.turned import endless
from viamillipede.protocol.hello import HELLO_BYTES, MESSAGE_BYTES, PHRASE_BYTES, WELCOME_BYTES, Hello, Mode
from viamillipede.protocol.wire import ANSWER_BYTES, CALL_BYTES, TAG_BYTES

UP = r"leg \d+ (?:to|from) \S+: up"
EXPOSED = "anyone who reaches this port can connect; 'key FILE' keeps others out"
DATA = some_bytes(5 * MIB + 1)


@pytest.fixture(params=SECRETS)
def locked(request: pytest.FixtureRequest, tmp_path: Path) -> Lock:
    """With a key, and with a phrase."""
    return lock(tmp_path, request.param)


@pytest.fixture
def key(tmp_path: Path) -> Lock:
    """A key."""
    return lock(tmp_path)


# ---- streams -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [0, 5, 3 * MIB + 1])
def test_a_stream(stage: Stage, way: str, size: int, locked: Lock) -> None:
    whole(*together(stage, way, *locked.words), some_bytes(size))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("words", ["checksum", "digest sha256", "window 256k"])
def test_a_stream_with_other_words(stage: Stage, way: str, words: str, key: Lock) -> None:
    whole(*together(stage, way, *key.words, *words.split()), DATA)


@pytest.mark.parametrize("way", WAYS)
def test_all_legs_come_up_and_carry(stage: Stage, way: str, locked: Lock) -> None:
    listener = listens(stage, way, *locked.words, "verbose", 3, *(() if way == WAYS[0] else ("threads", 8)))
    dialler = dials(stage, way, listener, *locked.words, "verbose", 3, *(("threads", 8) if way == WAYS[0] else ()))
    rx, tx = players(way, listener, dialler)
    tx.hear(UP, times=8)
    whole(rx, tx, some_bytes(20 * MIB))
    assert tx.closing("leg") == rx.closing("leg") == 8 and tx.closing("restart") == 0
    assert "refused" not in listener.said


def test_frames_longer_and_shorter_than_a_record(stage: Stage, key: Lock) -> None:
    rx = stage.rx(*key.words)
    for number, frame in enumerate(("1k", "128k", "16M")):
        rx = stage.rx(*key.words) if number else rx
        whole(rx, stage.tx(rx, *key.words, "frame", frame, "threads", 2), some_bytes(3 * MIB, number))


def test_files_at_both_ends(stage: Stage, marks: Marks, locked: Lock) -> None:
    marks["in"].write_bytes(DATA)
    rx = stage.rx(*locked.words, stdout=stage.hold(marks["out"].open("wb")))
    tx = stage.tx(rx, *locked.words, stdin=stage.hold(marks["in"].open("rb")))
    tx.ends(0)
    rx.ends(0)
    assert marks["out"].read_bytes() == DATA


def test_commands_at_both_ends(stage: Stage, marks: Marks, locked: Lock) -> None:
    marks["in"].write_bytes(DATA)
    rx = stage.rx(*locked.words, *sh('exec cat >"$1"', marks["out"]))
    tx = stage.tx(rx, *locked.words, *sh('exec cat "$1"', marks["in"]), stdin=subprocess.DEVNULL)
    tx.ends(0)
    rx.ends(0)
    assert marks["out"].read_bytes() == DATA


def test_two_streams_at_a_time_get_their_own_legs(stage: Stage, marks: Marks, locked: Lock) -> None:
    """A leg belongs to the stream whose secret it has, although one process hears all of them."""
    rx = stage.rx(
        "keep", "streams", 2, "verbose", 3, *locked.words, *sh('cat >"$1/out.$VIAMILLIPEDE_NAME"', marks.folder)
    )
    streams = {name: some_bytes(8 * MIB + seed, seed) for seed, name in enumerate(("one", "two"))}
    sides = {name: stage.tx(rx, *locked.words, "name", name, "threads", 4, "verbose", 3) for name in streams}
    for name, side in sides.items():
        side.hear(UP, times=4)
        side.feed([streams[name]])
    for name, side in sides.items():
        side.ends(0)
        assert marks[f"out.{name}"].read_bytes() == streams[name]
    for name in ("one", "two"):  # and afterwards: their secrets are forgotten, the key is not
        again = stage.tx(rx, *locked.words, "name", f"{name}-again", "threads", 2)
        again.feed([b"again"])
        again.ends(0)
        assert marks[f"out.{name}-again"].read_bytes() == b"again"
    rx.signal(signal.SIGTERM)
    rx.ends(143)


# ---- who does not have it ----------------------------------------------------------------------------------

WITHOUT = "has neither a key nor a phrase, and we have a {}; say it there too"
WITH = "wants a key or a phrase, and we have neither; say key FILE, or phrase"
ANOTHER_KEY = "has another key, or a phrase; both sides need the same"
ANOTHER_PHRASE = "has another phrase, or a key; both sides need the same"
MISMATCHES = [
    ("", "key", WITH, "it has neither a key nor a phrase, and we have one"),
    ("", "phrase", WITH, "it has neither a key nor a phrase, and we have one"),
    ("key", "", WITHOUT.format("key"), "it has a key or a phrase, and we have neither"),
    ("phrase", "", WITHOUT.format("phrase"), "it has a key or a phrase, and we have neither"),
    ("another key", "key", ANOTHER_KEY, "it has another key"),
    ("another phrase", "phrase", ANOTHER_PHRASE, "it has another phrase"),
    ("key", "phrase", ANOTHER_KEY, "it comes with a key, and we have a phrase"),
    ("phrase", "key", ANOTHER_PHRASE, "it comes with a phrase, and we have a key"),
]


def words_of(folder: Path, secret: str) -> tuple[str, ...]:
    """Of "key", "another phrase", or "" for none."""
    return lock(folder, secret.removeprefix("another "), secret.startswith("another ")).words if secret else ()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("theirs", "ours", "told", "logged"), MISMATCHES)
def test_who_lacks_it_is_told_why_and_the_right_one_is_served(
    stage: Stage, tmp_path: Path, way: str, theirs: str, ours: str, told: str, logged: str
) -> None:
    listener = listens(stage, way, *words_of(tmp_path, ours))
    stranger = dials(stage, way, listener, *words_of(tmp_path, theirs))
    began = time.monotonic()
    said = stranger.ends(4)
    assert time.monotonic() - began < 20
    other = "receiver" if way == WAYS[0] else "transmitter"
    assert f"{LOOPBACK}:{listener.port}: the {other} {told}" in said
    line = listener.hear(rf"refused a connection from {LOOPBACK}:\d+: (.*)")
    assert line[1].startswith(logged)
    right = dials(stage, way, listener, *words_of(tmp_path, ours))
    whole(*players(way, listener, right), b"for the right one")
    assert len(re.findall("refused a connection", listener.said)) == 1


@pytest.mark.parametrize("way", WAYS)
def test_who_lacks_it_does_not_disturb_a_stream(stage: Stage, tmp_path: Path, way: str, key: Lock) -> None:
    listener = listens(stage, way, *key.words)
    rx, tx = players(way, listener, dials(stage, way, listener, *key.words))
    started(rx, tx)
    for words in ((), lock(tmp_path, "key", True).words, lock(tmp_path, "phrase").words):
        dials(stage, way, listener, *words).ends(4)
    whole(rx, tx, DATA)


def guess(to: Side, count: int) -> None:
    """Come with wrong keys."""
    for _ in range(count):
        say(to, Hello(Mode.FIRST).encode() + os.urandom(MESSAGE_BYTES))


def test_an_attacker_of_the_same_host_does_not_keep_the_legs_of_a_stream_out(stage: Stage, key: Lock) -> None:
    rx = stage.rx(*key.words, "verbose", 3, "regroup", "60s")
    proxy = stage.proxy(rx)
    tx = stage.tx(proxy, *key.words, "threads", 1, "regroup", "60s")
    started(rx, tx)
    guess(rx, 30)
    rx.hear("it has come with another key too often", times=3)
    assert proxy.strike("reset") == 1
    whole(rx, tx, DATA)
    assert tx.closing("restart") == 1


def test_who_was_tried_out_too_often_lets_the_right_one_in_at_once(stage: Stage, key: Lock) -> None:
    rx = stage.rx(*key.words, "verbose", 3)
    guess(rx, 30)
    rx.hear("it has come with another key too often")
    tx = stage.tx(rx, *key.words, "verbose", 3)
    whole(rx, tx, b"at once")
    assert "too many" not in tx.said and "first contact" in rx.said


# ---- legs and processes that are lost ----------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["close", "reset", "stall", "truncate", "corrupt", "all"])
def test_legs_that_are_cut_come_back_and_nothing_is_lost(stage: Stage, way: str, kind: str, key: Lock) -> None:
    words = ("threads", 4, "frame", "64k", "chaos", 37 if kind == "stall" else 61, "chaos-kind", kind, "checksum")
    regroup = ("regroup", "60s")
    data = some_bytes((6 if kind == "stall" else 15) * MIB)
    listener = listens(stage, way, *key.words, *regroup, *(() if way == WAYS[0] else words))
    dialler = dials(stage, way, listener, *key.words, *regroup, *(words if way == WAYS[0] else ()))
    rx, tx = players(way, listener, dialler)
    whole(rx, tx, data)
    assert tx.closing("chaos faults?") > 0
    assert re.search("[1-9][0-9]* frames? retransmitted", tx.closing_line()) or tx.closing("restart") > 0


def test_legs_of_a_phrase_come_back_without_a_new_guess(stage: Stage, tmp_path: Path) -> None:
    phrase = lock(tmp_path, "phrase")
    rx = stage.rx(*phrase.words)
    tx = stage.tx(rx, *phrase.words, "threads", 4, "frame", "64k", "chaos", 31, "chaos-kind", "reset")
    whole(rx, tx, some_bytes(15 * MIB))
    assert tx.closing("restarts") > 5, "more than phrases may be tried in a while"


def test_when_all_legs_are_gone_they_come_back(stage: Stage, locked: Lock) -> None:
    rx = stage.rx(*locked.words, "regroup", "60s")
    proxy = stage.proxy(rx)
    tx = stage.tx(proxy, *locked.words, "threads", 4, "regroup", "60s")
    started(rx, tx)
    for _ in range(3):
        eventually(lambda: proxy.living() >= 1, "a leg is up")
        assert proxy.strike("reset")
    whole(rx, tx, DATA)


@pytest.mark.parametrize("way", WAYS)
def test_a_process_that_is_started_anew_is_noticed(stage: Stage, way: str, locked: Lock) -> None:
    """It does not know the secrets of our legs; and as anybody could say so, it may be ours that comes back."""
    listener = listens(stage, way, *locked.words)
    dialler = dials(stage, way, listener, *locked.words, "regroup", "2s", "verbose", 3)
    rx, tx = players(way, listener, dialler)
    started(rx, tx)
    listener.kill()
    again = listens(stage, way, *locked.words, port=listener.port)
    began = time.monotonic()
    said = dialler.ends(5)
    other = "receiver" if way == WAYS[0] else "transmitter"
    assert f"the {other} does not know our stream; it may have been started anew" in said
    assert "the other process is gone" in said and "malformed" not in said
    assert time.monotonic() - began < 12
    line = again.hear(r"refused a connection from \S+: (.*)")
    assert line[1].startswith("it belongs to a stream that we do not have")
    whole(*players(way, again, dials(stage, way, again, *locked.words)), b"the next stream")


@pytest.mark.parametrize("part", [0, 1, ANSWER_BYTES + TAG_BYTES - 1])
@pytest.mark.parametrize("way", WAYS)
def test_the_answer_to_the_first_leg_is_lost(stage: Stage, way: str, part: int, locked: Lock) -> None:
    """One side has a leg then and the other one has none, and each must know who comes next."""
    mode = Mode.FIRST if locked.kind == "key" else Mode.PHRASE
    listener = listens(stage, way, *locked.words, "verbose", 3, *(("regroup", "1s") if way == WAYS[0] else ()))
    proxy = stage.proxy(listener)
    if way == WAYS[0]:
        where = DOWN, WELCOME_BYTES + MESSAGE_BYTES
    else:
        where = FROM_DIALLER, Hello(mode).message_bytes() + HELLO_BYTES + CALL_BYTES + TAG_BYTES
    if mode is Mode.PHRASE:
        where = where[0], where[1] + (WELCOME_BYTES + PHRASE_BYTES if where[0] == DOWN else MESSAGE_BYTES)
    proxy.plan = lambda number: None if number else Fault("close", where[0], where[1] + part)
    dialler = dials(stage, way, proxy, *locked.words, "verbose", 3, *(("regroup", "1s") if way == WAYS[1] else ()))
    eventually(lambda: proxy.faults == 1, "it has happened")
    whole(*players(way, listener, dialler), DATA)


@pytest.mark.parametrize("who", ["rx", "tx"])
@pytest.mark.parametrize("way", WAYS)
def test_kill_9(stage: Stage, way: str, who: str, key: Lock) -> None:
    rx, tx = together(stage, way, *key.words, "regroup", "1s")
    started(rx, tx)
    tx.feed(endless())
    read_exactly(rx.output, MIB)
    dying, other = (rx, tx) if who == "rx" else (tx, rx)
    dying.kill()
    if other is rx:
        read_all(rx.output)
    assert ("the other process is gone" if other is tx else "incomplete at byte") in other.ends(5)


# ---- what is shown -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_nothing_that_is_said_shows_a_secret(stage: Stage, way: str, tmp_path: Path, locked: Lock) -> None:
    rx, tx = together(stage, way, *locked.words, "verbose", 20, "json", "log", tmp_path / "log")
    started(rx, tx)
    for side in (rx, tx):
        side.signal(signal.SIGUSR1)
        side.hear("pid")
    dials(stage, way, rx if way == WAYS[0] else tx, *lock(tmp_path, locked.kind, True).words, "verbose", 20).ends(4)
    whole(rx, tx, DATA)
    said = rx.said + tx.said + (tmp_path / "log").read_text()
    assert any(line.startswith("{") and json.loads(line) for line in said.splitlines())
    assert locked.shown_in(said) == []


def test_a_secret_that_was_shown_would_be_found(tmp_path: Path) -> None:
    for kind in SECRETS:
        made = lock(tmp_path, kind)
        shown = (made.text, made.data.hex().upper(), f"{made.data!r}", spell(made.data) + "x", repr(made.data[:16]))
        for text in shown:
            assert made.shown_in(f"so it is: {text}"), text


@pytest.mark.parametrize("where", ["file", "variable"])
def test_a_command_gets_no_key(stage: Stage, marks: Marks, key: Lock, where: str) -> None:
    said = key.words if where == "file" else ()
    wrapper = () if where == "file" else ("env", f"VIAMILLIPEDE_KEY={key.text}")
    rx = stage.rx(*said, *sh('echo $$ >"$1.new"; mv "$1.new" "$1"; exec cat', marks["pid"]), wrapper=wrapper)
    tx = stage.tx(rx, *key.words)
    tx.write(b"hello")
    marks.appears("pid")
    command = psutil.Process(int(marks.text("pid")))
    members = psutil.Process(rx.pid).children(recursive=True)
    assert command in members
    for member in members:
        shown = " ".join(member.cmdline()) + repr(member.environ())
        assert key.shown_in(shown) == [] and "VIAMILLIPEDE_KEY" not in shown
    assert key.shown_in(" ".join(psutil.Process(rx.pid).cmdline())) == []
    assert key.words[1] not in [opened.path for opened in command.open_files()]
    tx.end_input()
    tx.ends(0)
    rx.ends(0)


# ---- without a key -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_who_listens_to_all_without_a_key_says_so_once(stage: Stage, way: str) -> None:
    listener = listens(stage, way)
    rx, tx = players(way, listener, dials(stage, way, listener))
    whole(rx, tx, DATA)
    assert listener.said.count(EXPOSED) == 1
    assert EXPOSED not in (tx if listener is rx else rx).said


@pytest.mark.parametrize("bind", ["127.0.0.1", "::1", "localhost", "127.0.0.77"])
def test_on_loopback_it_does_not(stage: Stage, bind: str) -> None:
    rx = stage.rx("bind", bind)
    rx.signal(signal.SIGTERM)
    assert EXPOSED not in rx.ends(143)


@pytest.mark.parametrize("way", WAYS)
def test_with_a_key_it_does_not(stage: Stage, way: str, locked: Lock) -> None:
    listener = listens(stage, way, *locked.words)
    listener.signal(signal.SIGTERM)
    assert EXPOSED not in listener.ends(143)


def test_an_rx_that_keeps_on_says_it_once(stage: Stage, marks: Marks) -> None:
    rx = stage.rx("keep", *sh("cat >/dev/null"))
    for _ in range(2):
        tx = stage.tx(rx, stdin=subprocess.DEVNULL)
        tx.ends(0)
    rx.signal(signal.SIGTERM)
    assert rx.ends(143).count(EXPOSED) == 1
