"""The digest of the whole stream: taken where it is wanted or costs little, the same on both sides, or status 6."""

import hashlib
import re
import subprocess
import time
from pathlib import Path

import pytest
import xxhash

from tests.e2e.commands import Marks, end_with, sh
from tests.e2e.helpers import KIB, MIB, Side, Stage, read_all, read_some, some_bytes
from tests.e2e.proxy import UP, Fault, Pace, Proxy
from viamillipede.protocol.wire import GREETING_BYTES, HEADER_BYTES

BODY = GREETING_BYTES + HEADER_BYTES  # where the payload of a connection's first frame begins
DIFFER = r"the digests differ: (\S+) (\w+) here, (\w+) on the other side"


def digest_of(data: bytes, kind: str) -> str:
    """As the closing lines tell it."""
    value = hashlib.sha256(data).hexdigest() if kind == "sha256" else xxhash.xxh3_128(data).hexdigest()
    return f", {kind} {value}"


def closing_digests(*sides: Side) -> set[str]:
    """What the closing lines say of it; "" for nothing."""
    return {"".join(re.findall(r", \S+ [0-9a-f]{32,64}\b", side.closing_line())) for side in sides}


TO_PIPE = [  # rx's words, tx's words, what is taken
    ([], [], ""),
    (["digest", "auto"], ["digest", "auto"], ""),
    (["digest", "xxh3"], [], "xxh3-128"),
    ([], ["digest", "xxh3"], "xxh3-128"),
    (["digest", "sha256"], [], "sha256"),
    ([], ["digest", "sha256"], "sha256"),
    (["digest", "xxh3"], ["digest", "sha256"], "sha256"),
    (["checksum"], [], "xxh3-128"),
]


@pytest.mark.parametrize(
    "of_rx, of_tx, kind", TO_PIPE, ids=lambda each: " ".join(each) if isinstance(each, list) else each
)
def test_to_a_pipe_only_on_request(stage: Stage, of_rx: list[str], of_tx: list[str], kind: str) -> None:
    data = some_bytes(2 * MIB + 3)
    rx = stage.rx(*of_rx)
    tx = stage.tx(rx, *of_tx)
    tx.feed([data])
    assert read_all(rx.output) == data
    end_with(rx, 0, tx, 0)
    assert closing_digests(rx, tx) == {digest_of(data, kind) if kind else ""}


@pytest.mark.parametrize("asked", ["auto", "sha256"])
def test_to_a_file_always(stage: Stage, tmp_path: Path, asked: str) -> None:
    data, out = some_bytes(5 * MIB), tmp_path / "out"
    rx = stage.rx("digest", asked, stdout=stage.hold(out.open("wb")))
    tx = stage.tx(rx)
    tx.feed([data])
    end_with(rx, 0, tx, 0)
    assert out.read_bytes() == data
    assert closing_digests(rx, tx) == {digest_of(data, "xxh3-128" if asked == "auto" else asked)}


@pytest.mark.parametrize("asked", ["auto", "sha256"])
def test_to_a_command_as_to_a_pipe(stage: Stage, marks: Marks, asked: str) -> None:
    rx = stage.rx(*marks.keeping())
    tx = stage.tx(rx, "digest", asked, *sh("echo some content"), stdin=subprocess.DEVNULL)
    end_with(rx, 0, tx, 0)
    assert closing_digests(rx, tx) == {"" if asked == "auto" else digest_of(b"some content\n", asked)}
    assert marks.text("data") == "some content\n"


@pytest.mark.parametrize("kind, asked", [("xxh3-128", "xxh3"), ("sha256", "sha256")])
@pytest.mark.parametrize("size", [0, 1])
def test_of_next_to_nothing(stage: Stage, size: int, kind: str, asked: str) -> None:
    rx = stage.rx("digest", asked)
    tx = stage.tx(rx)
    tx.feed([bytes(size)])
    assert read_all(rx.output) == bytes(size)
    end_with(rx, 0, tx, 0)
    assert closing_digests(rx, tx) == {digest_of(bytes(size), kind)}


@pytest.mark.slow
def test_sha256_with_a_slow_reader_and_a_window_that_grows(stage: Stage) -> None:
    """A way on which much is in flight, so that the window moves in memory while the threads read it."""
    data = some_bytes(MIB) * 48
    rx = stage.rx("digest", "sha256")
    proxy = stage.proxy(rx)
    proxy.pace = lambda number: Pace(64 * KIB, 0.004)
    tx = stage.tx(proxy, "threads", 8, "verbose", 2)
    tx.feed([data])
    arrived = bytearray()
    while piece := read_some(rx.output, 64 * KIB):
        arrived += piece
        time.sleep(0.001)  # so slow is this reader
    end_with(rx, 0, tx, 0)
    assert arrived == data
    assert re.search(r"the window in use is \d", tx.said)
    assert closing_digests(rx, tx) == {digest_of(data, "sha256")}


# ---- damage ------------------------------------------------------------------------------------------------


def flipping(proxy: Proxy, connections: int = 1) -> Proxy:
    """Damages a byte in the payload of the first frame of so many connections."""
    proxy.plan = lambda number: Fault("flip", UP, BODY + 7) if number < connections else None
    return proxy


@pytest.mark.parametrize("threads", [1, 8])
def test_a_damaged_byte_in_a_file_is_status_6_on_both_sides(stage: Stage, tmp_path: Path, threads: int) -> None:
    data, out = some_bytes(3 * MIB), tmp_path / "out"
    rx = stage.rx(stdout=stage.hold(out.open("wb")))
    tx = stage.tx(flipping(stage.proxy(rx)), "threads", threads, "frame", "64k")
    tx.feed([data])
    of_rx, of_tx = end_with(rx, 6, tx, 6)
    one, other = re.search(DIFFER, of_rx), re.search(DIFFER, of_tx)
    assert one and other and one[1] == other[1] == "xxh3-128"
    assert (one[2], one[3]) == (other[3], other[2]) and one[2] != one[3]
    assert f"xxh3-128 {other[2]}" in digest_of(data, "xxh3-128")
    assert f"xxh3-128 {one[2]}" in digest_of(out.read_bytes(), "xxh3-128"), "of what lies there"
    for side in (rx, tx):
        assert side.closing_line().startswith(f"viamillipede {side.role}: incomplete, ")


@pytest.mark.parametrize("held", [1, 2, 3])
def test_nobody_is_told_another_reason_first(stage: Stage, tmp_path: Path, held: int) -> None:
    """Whichever leg brings the news last: rx compares too, and says 6 as tx does, not 8."""
    rx = stage.rx(stdout=stage.hold((tmp_path / "out").open("wb")))
    proxy = flipping(stage.proxy(rx), connections=4)
    proxy.pace = lambda number: Pace(pause_s=0.1 if number < held else 0.0)
    tx = stage.tx(proxy, "threads", 4, "frame", "64k")
    tx.feed([some_bytes(MIB)])
    end_with(rx, 6, tx, 6)


def test_a_damaged_byte_for_a_command_is_no_clean_end_for_it(stage: Stage, marks: Marks) -> None:
    rx = stage.rx("digest", "sha256", *marks.keeping())
    tx = stage.tx(flipping(stage.proxy(rx)), "threads", 1)
    tx.feed([some_bytes(MIB)])
    of_rx, of_tx = end_with(rx, 6, tx, 6)
    assert re.search(DIFFER, of_rx) and re.search(DIFFER, of_tx)
    assert marks["data"].stat().st_size <= MIB and not marks.has("eof")


def test_with_checksum_a_damaged_byte_is_sent_again(stage: Stage, tmp_path: Path) -> None:
    data, out = some_bytes(3 * MIB), tmp_path / "out"
    rx = stage.rx("checksum", stdout=stage.hold(out.open("wb")))
    proxy = flipping(stage.proxy(rx))
    tx = stage.tx(proxy, "threads", 1)
    tx.feed([data])
    end_with(rx, 0, tx, 0)
    assert proxy.faults == 1 == rx.closing("corrupted")
    assert out.read_bytes() == data
    assert closing_digests(rx, tx) == {digest_of(data, "xxh3-128")}
