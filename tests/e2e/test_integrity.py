"""Damage on the way, and faults on purpose: noticed, mended, counted."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.e2e.helpers import KIB, MIB, Stage, read_all, read_exactly, read_some, some_bytes
from tests.e2e.proxy import UP, Fault
from viamillipede.protocol.wire import GREETING_BYTES, HEADER_BYTES

FRAME = 4 * KIB
KINDS = ("close", "reset", "truncate", "corrupt", "stall")
BLOCK = some_bytes(MIB)


def stream(blocks: int) -> Iterator[bytes]:
    """So many MiB, each different from the others."""
    for number in range(blocks):
        yield number.to_bytes(8, "big") + BLOCK[8:]


def hashed(fd: int) -> str:
    """The hash of everything until the end."""
    digest = hashlib.sha256()
    while piece := read_some(fd):
        digest.update(piece)
    return digest.hexdigest()


def hash_of(pieces: Iterator[bytes]) -> str:
    """The hash of all of them."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


@pytest.mark.parametrize("asked", ["tx", "rx", "both"])
def test_a_damaged_payload_is_counted_and_sent_again(stage: Stage, asked: str) -> None:
    """A flipped byte in each of 12 connections; `checksum` on one side is enough."""
    rx = stage.rx(*(["checksum"] if asked != "tx" else []))
    proxy = stage.proxy(rx)
    body = GREETING_BYTES + HEADER_BYTES
    proxy.plan = lambda number: Fault("flip", UP, body + 7 + number * (FRAME + HEADER_BYTES))
    tx = stage.tx(proxy, "threads", 12, "frame", FRAME, *(["checksum"] if asked != "rx" else []))
    tx.feed(stream(6))
    assert hashed(rx.output) == hash_of(stream(6))
    tx.ends(0)
    rx.ends(0)
    assert proxy.faults > 0
    # Where a leg carried less than the others, its byte was in what tx said at the end, or in a second copy.
    assert proxy.faults // 2 < rx.closing("corrupted") == tx.closing("asked for again") <= proxy.faults
    assert tx.closing("restarts?") == 0


def test_a_damaged_header_is_never_believed(stage: Stage) -> None:
    """Each byte of it in turn, length and hash included, without `checksum`: the leg dies, the stream is whole."""
    rx = stage.rx("regroup", "60s")
    proxy = stage.proxy(rx)
    places = [GREETING_BYTES + FRAME + HEADER_BYTES + place for place in range(HEADER_BYTES)]
    proxy.plan = lambda number: Fault("flip", UP, places[number]) if number < len(places) else None
    tx = stage.tx(proxy, "threads", 4, "frame", FRAME, "regroup", "60s")
    tx.feed(stream(40))
    assert hashed(rx.output) == hash_of(stream(40))
    tx.ends(0)
    rx.ends(0)
    assert proxy.faults >= 20, "most of the bytes had their turn"
    assert tx.closing("restarts?") >= proxy.faults - 4
    assert "corrupted" not in rx.closing_line(), "nobody asked for checksums"


def test_a_damaged_answer_or_acknowledgement_costs_the_leg_only(stage: Stage) -> None:
    rx = stage.rx("regroup", "60s")
    proxy = stage.proxy(rx)
    proxy.plan = lambda number: Fault("flip", 1, 2 * number) if number < 50 and number % 2 else None
    tx = stage.tx(proxy, "threads", 4, "frame", FRAME, "regroup", "60s")
    tx.feed(stream(40))
    assert hashed(rx.output) == hash_of(stream(40))
    tx.ends(0)
    rx.ends(0)
    assert proxy.faults > 0


# ---- chaos -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_chaos_of_each_kind(stage: Stage, kind: str, threads: int) -> None:
    """The output is the input, both are content, and every fault is in the closing line."""
    every, blocks = (400, 24) if kind == "stall" else (97, 60)
    rx = stage.rx()
    tx = stage.tx(rx, "threads", threads, "frame", "32k", "chaos", every, "chaos-kind", kind, "checksum", "verbose", 3)
    tx.feed(stream(blocks))
    assert hashed(rx.output) == hash_of(stream(blocks))
    tx.ends(0)
    rx.ends(0)
    faults = tx.closing("chaos faults?")
    assert faults == len(re.findall(rf"chaos, {kind}$", tx.said, re.MULTILINE)) > 0
    if kind == "corrupt":
        assert rx.closing("corrupted") + tx.closing("restarts?") > 0
    elif kind == "stall" and threads > 1:  # a frame that hangs is brought by another leg before its own is given up
        assert tx.closing("frames? retransmitted") > 0
    else:
        assert tx.closing("restarts?") > 0 and tx.closing("frames? retransmitted") > 0


@pytest.mark.slow
@pytest.mark.parametrize("words", [("checksum",), ()], ids=["checksum", "plain"])
def test_chaos_of_all_kinds_in_turn(stage: Stage, words: tuple[str, ...]) -> None:
    rx = stage.rx()
    tx = stage.tx(rx, "threads", 16, "chaos", 173, "chaos-kind", "all", "frame", "64k", "verbose", 3, *words)
    tx.feed(stream(150))
    assert hashed(rx.output) == hash_of(stream(150))
    tx.ends(0)
    rx.ends(0)
    kinds = Counter(re.findall(r"chaos, (\w+)$", tx.said, re.MULTILINE))
    assert set(kinds) == {"close", "reset", "stall", "truncate"} | ({"corrupt"} if words else set())
    assert max(kinds.values()) - min(kinds.values()) <= 1, "in turn"
    assert tx.closing("chaos faults?") == sum(kinds.values())


def test_chaos_is_deterministic_from_the_count_of_operations(stage: Stage) -> None:
    """Between two faults lie exactly N - 1 operations that were none; verbose 20 names each."""
    every = 23
    rx = stage.rx("regroup", "60s")
    tx = stage.tx(
        rx, "threads", 3, "frame", FRAME, "chaos", every, "chaos-kind", "reset", "verbose", 20, "regroup", "60s"
    )
    tx.feed(stream(2), then_close=False)
    for block in stream(2):
        assert read_exactly(rx.output, MIB) == block
    tx.end_input()
    assert read_some(rx.output) == b""
    tx.ends(0)
    rx.ends(0)
    steps = re.findall(rf": (?:sent (?!{HEADER_BYTES}$)|(chaos))", tx.said, re.MULTILINE)  # a heartbeat is no operation
    first, *between = "".join("!" if step else "." for step in steps).split("!")
    assert len(first) == every - 1
    assert len(between) > 10
    assert {len(part) for part in between[:-2]} == {every - 1}, "the end of the stream is as short as a heartbeat"
    assert tx.closing("chaos faults") == len(between)


def test_without_chaos_the_closing_line_does_not_speak_of_it(stage: Stage) -> None:
    rx = stage.rx()
    tx = stage.tx(rx)
    tx.feed([b"calm"])
    assert read_all(rx.output) == b"calm"
    tx.ends(0)
    rx.ends(0)
    assert "chaos" not in tx.said
