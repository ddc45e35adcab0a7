"""What goes in comes out: sizes, pauses, and what standard input and output may be."""

import gzip
import hashlib
import os
import select
import shutil
import socket
import subprocess
import threading
from io import FileIO
from pathlib import Path

import pytest

from tests.e2e.helpers import (
    KIB,
    LOOPBACK,
    MIB,
    PATIENCE_S,
    Stage,
    read_all,
    read_exactly,
    read_some,
    ready,
    some_bytes,
    whole,
    write_while_taken,
)

FRAME = 64 * KIB


@pytest.mark.parametrize("words", [(), ("checksum",)], ids=["plain", "checksum"])
@pytest.mark.parametrize("count", [0, 1, FRAME - 1, FRAME, FRAME + 1, 3 * FRAME + 17])
def test_empty_one_byte_a_frame_and_one_byte_more(stage: Stage, count: int, words: tuple[str, ...]) -> None:
    rx = stage.rx("bind", LOOPBACK)  # else it says that anybody can connect
    tx = stage.tx(rx, "frame", "64k", *words)
    whole(rx, tx, some_bytes(count))
    for side in (rx, tx):
        assert f"{count} B in " in side.closing_line() or f"({count} bytes) in " in side.closing_line()
        assert side.closing("restart") == 0
        assert len(side.said.splitlines()) == (2 if side is rx else 1), side.said


@pytest.mark.parametrize("threads", [1, 16])
def test_many_bytes_arrive_whole_and_nothing_is_said_at_verbose_0(stage: Stage, threads: int) -> None:
    rx = stage.rx()
    tx = stage.tx(rx, "threads", threads, "verbose", 0)
    whole(rx, tx, some_bytes(40 * MIB))
    assert not tx.said


@pytest.mark.parametrize("threads", [1, 8])
def test_a_trickle_is_delivered_at_once(stage: Stage, threads: int) -> None:
    rx = stage.rx()
    tx = stage.tx(rx, "threads", threads)
    for i in range(300):  # each byte is out before the next goes in: nothing waits for more
        byte = bytes([i % 251])
        tx.write(byte)
        assert read_exactly(rx.output, 1) == byte
    tx.end_input()
    assert read_some(rx.output) == b""
    tx.ends(0)
    rx.ends(0)
    assert tx.closing("restart") == rx.closing("restart") == 0


@pytest.mark.slow
def test_input_may_pause_for_longer_than_a_leg_may_be_silent(stage: Stage) -> None:
    rx = stage.rx()
    tx = stage.tx(rx, "threads", 4, "regroup", "1s", "outage", "2s")
    tx.write(b"before")
    assert read_exactly(rx.output, 6) == b"before"
    assert not ready(rx.output, select.POLLIN, 7)  # config: LEG_SILENT_US 3 s, LEG_STUCK_US 5 s
    tx.write(b"after")
    assert read_exactly(rx.output, 5) == b"after"
    tx.end_input()
    tx.ends(0)
    rx.ends(0)
    assert tx.closing("restart") == rx.closing("restart") == 0
    assert tx.closing("frames? retransmitted") == 0


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 8])
def test_output_may_pause_and_the_source_is_held_back(stage: Stage, threads: int) -> None:
    window = 16 * MIB
    rx = stage.rx("window", window)
    tx = stage.tx(rx, "threads", threads, "window", window, "regroup", "2s", "outage", "4s")
    taken = write_while_taken(tx.input, quiet_s=13)  # beyond every limit on silence, and TCP_USER_TIMEOUT
    assert 0 < taken <= window + 3 * MIB, "the window, and the pipes before and after it"
    for side in (tx, rx):
        assert side.peak_memory() <= window + 64 * MIB
    tx.end_input()
    arrived = read_all(rx.output)
    assert arrived == bytes(taken)
    tx.ends(0)
    rx.ends(0)
    assert tx.closing("restart") == rx.closing("restart") == 0
    # A machine that is busy with something else may hold a side up for so long that a frame looks late; not many.
    assert tx.closing("frames? retransmitted") <= 2


# ---- what standard input and output may be ----------------------------------------------------------------


def test_a_file_in_and_a_file_out(stage: Stage, tmp_path: Path) -> None:
    data = some_bytes(20 * MIB + 3)
    (tmp_path / "in").write_bytes(data)
    with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as sink:
        rx = stage.rx(stdout=sink)
        tx = stage.tx(rx, stdin=source)
        tx.ends(0)
        rx.ends(0)
    assert (tmp_path / "out").read_bytes() == data


def test_a_file_is_appended_to_and_read_from_where_it_stands(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"skipped, sent")
    (tmp_path / "out").write_bytes(b"already here, ")
    with open(tmp_path / "in", "rb", buffering=0) as source, open(tmp_path / "out", "ab") as sink:
        source.seek(9)
        rx = stage.rx(stdout=sink)
        tx = stage.tx(rx, stdin=source)
        tx.ends(0)
        rx.ends(0)
    assert (tmp_path / "out").read_bytes() == b"already here, sent"


def test_a_named_pipe_in_and_out(stage: Stage, tmp_path: Path) -> None:
    data = some_bytes(3 * MIB)
    ends = []
    for name in ("in", "out"):
        os.mkfifo(tmp_path / name)
        ends.append(stage.hold(open(tmp_path / name, "r+b", buffering=0)))  # both ways: opening does not wait
    source = stage.hold(open(tmp_path / "in", "rb", buffering=0))
    writer = stage.hold(open(tmp_path / "in", "wb", buffering=0))
    reader = stage.hold(open(tmp_path / "out", "rb", buffering=0))
    sink = stage.hold(open(tmp_path / "out", "wb", buffering=0))
    for end in ends:
        end.close()
    rx = stage.rx(stdout=sink)
    sink.close()
    tx = stage.tx(rx, stdin=source)
    source.close()
    thread = threading.Thread(target=write_all, args=(writer, data))
    thread.start()
    assert read_all(reader.fileno()) == data
    thread.join(PATIENCE_S)
    tx.ends(0)
    rx.ends(0)


def write_all(writer: FileIO, data: bytes) -> None:
    """All of it, and then the end."""
    view = memoryview(data)
    while view:
        view = view[writer.write(view) :]
    writer.close()


def test_sockets_in_and_out(stage: Stage) -> None:
    data = some_bytes(5 * MIB)
    ours_in, theirs_in = (stage.hold(sock) for sock in socket.socketpair())
    ours_out, theirs_out = (stage.hold(sock) for sock in socket.socketpair())
    rx = stage.rx(stdout=theirs_out)
    tx = stage.tx(rx, stdin=theirs_in)
    assert theirs_in.getblocking() and theirs_out.getblocking()
    theirs_in.close()
    theirs_out.close()
    thread = threading.Thread(target=lambda: (ours_in.sendall(data), ours_in.shutdown(socket.SHUT_WR)))
    thread.start()
    assert read_all(ours_out.fileno()) == data
    thread.join(PATIENCE_S)
    tx.ends(0)
    rx.ends(0)
    assert os.get_blocking(ours_out.fileno())


def test_shared_pipes_stay_blocking_for_the_others(stage: Stage) -> None:
    reader, writer = stage.pipe()
    source, feeder = stage.pipe()
    port = free_port(stage)
    rx = stage.rx(port=port, stdout=writer, stderr=writer)  # as after 2>&1: what it says is among the data
    tx = stage.tx(port, "verbose", 0, stdin=source)
    feeder.write(b"data")
    seen = b""
    while b"data" not in seen:
        seen += read_some(reader.fileno())
    assert os.get_blocking(writer.fileno()) and os.get_blocking(source.fileno()), "while it runs"
    feeder.close()
    tx.ends(0)
    rx.ends(0)
    assert os.get_blocking(writer.fileno()) and os.get_blocking(source.fileno()), "and after it"
    writer.write(b"still open")
    writer.close()
    rest = read_all(reader.fileno())
    assert b"listening on port" in seen and b" 4 B in " in rest and rest.endswith(b"still open")


def free_port(stage: Stage) -> int:
    """A port that stays ours: bound, but not listened on, so that rx may have it too."""
    sock = stage.hold(socket.socket(socket.AF_INET6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("::", 0))
    return int(sock.getsockname()[1])


# ---- real programs -----------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar here")
def test_tar_into_tar_gives_the_same_tree(stage: Stage, tmp_path: Path) -> None:
    tree, copy = tmp_path / "tree", tmp_path / "copy"
    for i in range(40):
        folder = tree / f"folder {i % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file {i}").write_bytes(some_bytes(i * 10_007, seed=i))
    (tree / "empty").mkdir()
    (tree / "link").symlink_to("folder 0/file 0")
    copy.mkdir()
    pack = subprocess.Popen(["tar", "c", "-C", str(tree), "."], stdout=subprocess.PIPE)
    reader, writer = stage.pipe()
    rx = stage.rx(stdout=writer)
    unpack = subprocess.Popen(["tar", "x", "-C", str(copy)], stdin=reader)
    writer.close()
    reader.close()
    assert pack.stdout is not None
    with pack, unpack:
        tx = stage.tx(rx, stdin=pack.stdout)
        pack.stdout.close()
        tx.ends(0)
        rx.ends(0)
    assert pack.returncode == unpack.returncode == 0
    assert described(copy) == described(tree)


def described(tree: Path) -> dict[str, object]:
    """Every path below, with what it is."""
    return {
        str(path.relative_to(tree)): os.readlink(path)
        if path.is_symlink()
        else (path.stat().st_mode, path.stat().st_mtime_ns // 10**9, path.read_bytes() if path.is_file() else None)
        for path in sorted(tree.rglob("*"))
    }


@pytest.mark.skipif(shutil.which("gzip") is None or shutil.which("sha256sum") is None, reason="no gzip or sha256sum")
def test_gzip_in_front_and_sha256sum_behind(stage: Stage, tmp_path: Path) -> None:
    text = b"all work and no play\n" * 200_000
    (tmp_path / "text").write_bytes(text)
    pack = subprocess.Popen(["gzip", "-nc", str(tmp_path / "text")], stdout=subprocess.PIPE)
    reader, writer = stage.pipe()
    rx = stage.rx(stdout=writer)
    hasher = subprocess.Popen(
        ["sh", "-c", "tee copy.gz | sha256sum"], stdin=reader, stdout=subprocess.PIPE, cwd=tmp_path
    )
    writer.close()
    reader.close()
    assert pack.stdout is not None
    with pack, hasher:
        tx = stage.tx(rx, stdin=pack.stdout)
        pack.stdout.close()
        tx.ends(0)
        rx.ends(0)
        assert hasher.stdout is not None
        said = hasher.stdout.read()
    packed = (tmp_path / "copy.gz").read_bytes()
    assert gzip.decompress(packed) == text
    assert said.split()[0].decode() == hashlib.sha256(packed).hexdigest()


def test_head_takes_what_it_wants_and_leaves(stage: Stage) -> None:
    """A reader that goes away in mid-stream is a failed output, as with every other program in a pipe."""
    reader, writer = stage.pipe()
    rx = stage.rx(stdout=writer)
    head = subprocess.Popen(["head", "-c", "1000"], stdin=reader, stdout=subprocess.PIPE)
    writer.close()
    reader.close()
    data = some_bytes(8 * MIB)
    with head:
        tx = stage.tx(rx)
        tx.feed([data])
        assert head.stdout is not None
        assert head.stdout.read() == data[:1000]
        rx.ends(7)
        assert "the program that reads the output went away" in tx.ends(8)


def test_two_streams_side_by_side_do_not_meet(stage: Stage) -> None:
    pairs = []
    for i in range(3):
        rx = stage.rx()
        tx = stage.tx(rx)
        pairs.append((rx, tx, some_bytes(4 * MIB + i, seed=i)))
    for _, tx, data in pairs:
        tx.feed([data])
    for rx, tx, data in pairs:
        assert read_all(rx.output) == data
        tx.ends(0)
        rx.ends(0)


def test_rx_gives_its_port_back(stage: Stage) -> None:
    rx = stage.rx()
    whole(rx, stage.tx(rx), b"one")
    again = stage.rx(port=rx.port)
    whole(again, stage.tx(again), b"two")
