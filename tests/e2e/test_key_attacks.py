"""With a key, who is in the middle may cut, repeat, change and make up what crosses: it costs a leg, and no more."""

import contextlib
import signal
import threading
from pathlib import Path

import pytest

from tests.e2e.commands import Marks, sh
from tests.e2e.helpers import MIB, Side, Stage, eventually, read_all, ready, some_bytes, whole
from tests.e2e.keyed import Lock, lock, started
from tests.e2e.middle import BEAT, Edit, Tapped, middle, pair, records, say
from tests.e2e.proxy import DOWN, UP, Fault
from viamillipede.protocol.wire import (
    Verdict,
    decode_answer_untrusted,
)

NOT_SEALED = "what came was not sealed with our key"
LEG = r"leg \d+ (?:to|from) \S+: "
DATA = some_bytes(4 * MIB + 3)


@pytest.fixture
def key(tmp_path: Path) -> Lock:
    """What all have, but for who is in the middle."""
    return lock(tmp_path)


class Once:
    """An edit of one piece of the first leg, or the first two; whatever else comes is passed on."""

    def __init__(self, change: Edit, legs: int = 1) -> None:
        self._change, self._legs = change, legs
        self.done = threading.Event()

    def __call__(self, link: Tapped, way: int, number: int, piece: bytes) -> bytes | None:
        if self.done.is_set() or link.number >= self._legs:
            return piece
        passed = self._change(link, way, number, piece)
        if passed != piece:
            self.done.set()
        return passed


def safe(rx: Side, tx: Side, once: Once) -> None:
    """It has happened, and costs a leg; all of the stream arrives, once."""
    assert once.done.wait(30)
    rx.hear(LEG + NOT_SEALED)
    whole(rx, tx, DATA)
    assert tx.closing("restart") >= 1


# ---- records -----------------------------------------------------------------------------------------------
# The pieces from tx: 0 is the hello, 1 the greeting; each one behind is a heartbeat, and a record.


def test_a_leg_that_nobody_touches_stays(stage: Stage, key: Lock) -> None:
    rx, tx, tapped = pair(stage, key)
    eventually(lambda: bool(tapped.links) and len(tapped.links[0].said[UP]) >= 80 + 152 + 3 * BEAT, "heartbeats")
    assert (len(tapped.links[0].said[UP]) - 80 - 152) % BEAT == 0
    started(rx, tx)  # from here on they are cut where they are not
    whole(rx, tx, DATA)
    assert tx.closing("restart") == 0


def test_a_record_is_repeated(stage: Stage, key: Lock) -> None:
    once = Once(lambda link, way, number, piece: piece * 2 if way == UP and number == 3 else piece)
    rx, tx, _ = pair(stage, key, once)
    safe(rx, tx, once)


def test_a_record_is_left_out(stage: Stage, key: Lock) -> None:
    once = Once(lambda link, way, number, piece: b"" if way == UP and number == 3 else piece)
    rx, tx, _ = pair(stage, key, once)
    safe(rx, tx, once)


def test_two_records_change_places(stage: Stage, key: Lock) -> None:
    kept: list[bytes] = []

    def swap(link: Tapped, way: int, number: int, piece: bytes) -> bytes:
        if link.number == 0 and way == UP and number == 3:
            kept.append(piece)
            return b""
        return piece + kept[0] if link.number == 0 and way == UP and number == 4 else piece

    rx, tx, _ = pair(stage, key, swap)
    rx.hear(LEG + NOT_SEALED)
    assert len(kept[0]) == BEAT
    whole(rx, tx, DATA)


def test_records_of_two_legs_change_places(stage: Stage, key: Lock) -> None:
    """The same record number, the same length, the same session."""
    held: dict[int, bytes] = {}
    both, lock_of_it = threading.Event(), threading.Lock()

    def cross(link: Tapped, way: int, number: int, piece: bytes) -> bytes:
        if way != UP or number != 3 or link.number >= 2:
            return piece
        with lock_of_it:
            held[link.number] = piece
            if len(held) == 2:
                both.set()
        assert both.wait(30)
        return held[1 - link.number]

    rx = stage.rx(*key.words, "verbose", 3, "regroup", "60s")
    tapped = middle(stage, rx, cross, cut=records)
    tx = stage.tx(tapped, *key.words, "verbose", 3, "threads", 2, "regroup", "60s")
    rx.hear(LEG + NOT_SEALED, times=2)
    whole(rx, tx, DATA)


def test_a_record_of_another_session_with_the_same_key(stage: Stage, marks: Marks, key: Lock) -> None:
    rx = stage.rx("keep", "streams", 2, "verbose", 3, *key.words, *sh('cat >"$1/out.$VIAMILLIPEDE_NAME"', marks.folder))
    other = middle(stage, rx, cut=records)
    words = (*key.words, "verbose", 3, "threads", 1, "regroup", "60s")
    two = stage.tx(other, *words, "name", "two")
    eventually(lambda: bool(other.links) and len(other.links[0].said[UP]) >= 80 + 152 + 4 * BEAT, "heartbeats")
    said = bytes(other.links[0].said[UP])
    once = Once(
        lambda link, way, number, piece: said[232 + BEAT : 232 + 2 * BEAT] if way == UP and number == 3 else piece
    )
    one = stage.tx(middle(stage, rx, once, cut=records), *words, "name", "one")
    rx.hear(NOT_SEALED)
    for name, side in (("one", one), ("two", two)):
        side.feed([name.encode() * 100_000])
        side.ends(0)
        assert marks[f"out.{name}"].read_bytes() == name.encode() * 100_000
    rx.signal(signal.SIGTERM)
    rx.ends(143)


@pytest.mark.parametrize("keep", [1, 20, BEAT - 1])
def test_a_record_is_cut_and_the_connection_closed_as_if_all_was_said(stage: Stage, key: Lock, keep: int) -> None:
    def cut(link: Tapped, way: int, number: int, piece: bytes) -> bytes | None:
        if link.number == 0 and way == UP and number == 3:
            link.inject(UP, piece[:keep])
            return None
        return piece

    rx, tx, _ = pair(stage, key, cut)
    rx.hear(LEG + "closed by the transmitter")
    whole(rx, tx, DATA)


@pytest.mark.parametrize("way", [UP, DOWN])
def test_what_is_said_is_said_back(stage: Stage, key: Lock, way: int) -> None:
    def reflect(link: Tapped, from_where: int, number: int, piece: bytes) -> bytes:
        if link.number == 0 and from_where == way and number >= 2:
            link.inject(1 - way, piece)
        return piece

    rx, tx, _ = pair(stage, key, reflect)
    (tx if way == UP else rx).hear(LEG + NOT_SEALED)
    whole(rx, tx, DATA)


def test_data_that_comes_again_is_not_delivered_again(stage: Stage, key: Lock) -> None:
    """Whole frames, repeated as they came, on the leg and on another one."""
    rx, tx, tapped = pair(stage, key, threads=2)
    tx.hear(LEG + "up", times=2)
    before = [len(link.said[UP]) for link in tapped.links]
    started(rx, tx)
    eventually(lambda: sum(len(link.said[UP]) for link in tapped.links) > sum(before) + 2 * BEAT, "data")
    for link, old in zip(tapped.links[: len(before)], before, strict=True):
        for target in list(tapped.links):
            with contextlib.suppress(OSError):
                target.inject(UP, bytes(link.said[UP][old:]) or bytes(BEAT))
    rx.hear(LEG + NOT_SEALED)
    whole(rx, tx, DATA)


# ---- connections -------------------------------------------------------------------------------------------


def recorded(stage: Stage, key: Lock, to: Side, *words: object) -> tuple[bytes, bytes]:
    """What a tx has said on its first leg and on one that joined, from hello to end."""
    tapped = middle(stage, to)
    tx = stage.tx(tapped, *key.words, "threads", 2, "verbose", 3, *words)
    tx.hear(LEG + "up", times=2)
    tx.feed([b"recorded" * 10])
    tx.ends(0)
    first, join = (bytes(link.said[UP]) for link in tapped.links[:2])
    assert (first[6], join[6]) == (0, 1), "the mode of the hello"
    return first, join


def test_a_leg_that_was_recorded_opens_nothing(stage: Stage, marks: Marks, key: Lock) -> None:
    """Neither while its stream runs nor later, at the same process."""
    rx = stage.rx("keep", "streams", 3, "verbose", 3, *key.words, *sh('cat >>"$1"; echo end >>"$1"', marks["out"]))
    first, join = recorded(stage, key, rx)
    assert marks.text("out") == "recorded" * 10 + "end\n"
    rx.hear("stream .*: complete")  # until then its legs may come back
    for said in (first, join):
        for end in (len(said), 80 + 152, 80):
            heard = say(rx, said[:end])
            if said is join:
                assert decode_answer_untrusted(heard).verdict is Verdict.UNKNOWN
            else:
                assert len(heard) == 64, "a welcome that nobody can use"
    assert marks.text("out") == "recorded" * 10 + "end\n"
    assert rx.said.count(": begins, ") == 1
    rx.signal(signal.SIGTERM)
    rx.ends(143)


def test_a_leg_that_was_recorded_disturbs_nothing_while_its_stream_runs(stage: Stage, key: Lock) -> None:
    rx, tx, tapped = pair(stage, key, threads=2)
    tx.hear(LEG + "up", times=2)
    started(rx, tx)
    for link in list(tapped.links[:2]):
        for _ in range(3):
            heard = say(rx, bytes(link.said[UP]))
            assert len(heard) == 64
    rx.hear(f"refused a connection from .*{NOT_SEALED}", times=3)
    whole(rx, tx, DATA)
    assert tx.closing("restart") == 0


@pytest.mark.parametrize("where", [(UP, place) for place in (0, 4, 5, 6, 8, 23, 24, 56, 79, 80, 100, 231, 232, 280)])
def test_a_flipped_bit_from_whoever_dials(stage: Stage, key: Lock, where: tuple[int, int]) -> None:
    _flip(stage, key, *where)


@pytest.mark.parametrize("where", [(DOWN, place) for place in (0, 4, 5, 6, 8, 40, 63, 64, 100, 119, 120, 175, 200)])
def test_a_flipped_bit_from_whoever_listens(stage: Stage, key: Lock, where: tuple[int, int]) -> None:
    _flip(stage, key, *where)


def _flip(stage: Stage, key: Lock, way: int, place: int) -> None:
    """In one of each two legs that join, until the stream is over."""
    rx = stage.rx(*key.words, "regroup", "60s")
    proxy = stage.proxy(rx)
    proxy.plan = lambda number: Fault("flip", way, place) if 1 <= number < 8 and number % 2 else None
    tx = stage.tx(proxy, *key.words, "threads", 4, "regroup", "60s")
    started(rx, tx)
    eventually(lambda: proxy.faults > 0, "it has happened")
    whole(rx, tx, DATA)


@pytest.mark.parametrize("place", [5, 6, 24, 80, 100, 240])
def test_a_flipped_bit_in_the_first_leg(stage: Stage, key: Lock, place: int) -> None:
    """It fails before anything was said, or it goes on; and rx is there for the next one."""
    rx = stage.rx(*key.words)
    proxy = stage.proxy(rx)
    proxy.plan = lambda number: Fault("flip", UP, place) if number == 0 else None
    tx = stage.tx(proxy, *key.words, "threads", 1)
    tx.feed([DATA])
    eventually(lambda: proxy.faults == 1, "it has happened")
    eventually(lambda: ready(rx.output, 1, 0.01) or tx.process.poll() is not None, "it is known what comes of it")
    if ready(rx.output, 1, 0):
        assert read_all(rx.output) == DATA
        tx.ends(0)
        rx.ends(0)
    else:
        tx.ends(4)
        whole(rx, stage.tx(proxy, *key.words), DATA)
