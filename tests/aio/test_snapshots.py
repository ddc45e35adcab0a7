"""What the views are given: the figures of real programs, and words that are among the promised ones."""

import os
from dataclasses import fields
from typing import Any

import pytest

from tests.aio.drive import (
    HOST,
    Pipe,
    accept_leg,
    all_arrived,
    data,
    fill,
    leg_to,
    nonblocking_server,
    receiving,
    take,
    transfer,
    transmitting,
    until,
)  # fmt: skip
from viamillipede.aio.clock import now_us
from viamillipede.aio.snapshots import RATE_OVER_US, Rates, rx_snapshot, tx_snapshot
from viamillipede.aio.waiting import STALL_US
from viamillipede.config import MIB, MS_US, S_US
from viamillipede.errors import LocalIOError, PeerLost
from viamillipede.protocol.wire import Kind, Waiting
from viamillipede.views.snapshot import Snapshot

TX_STATES = {"busy", "idle", "mute", "ends", "down"}


def check(snapshot: Snapshot) -> Snapshot:
    """What holds for all of them."""
    assert snapshot.pid == os.getpid() and snapshot.state in ("waiting", "running", "complete", "failed")
    assert snapshot.contacted or snapshot.state in ("waiting", "failed")
    assert snapshot.waiting in ("", "input", "output") or snapshot.waiting.startswith("network: ")
    assert (snapshot.exit_status is None) == (snapshot.waiting != "") == (snapshot.state in ("waiting", "running"))
    assert all(leg.path < max(1, len(snapshot.paths)) for leg in snapshot.legs)
    assert sum(path.legs_up for path in snapshot.paths) == snapshot.legs_up
    waits = snapshot.waits
    assert 0 <= waits.source + waits.network + waits.core + waits.sink + waits.limit <= 1.001
    for field in fields(snapshot):
        value = getattr(snapshot, field.name)
        assert not isinstance(value, int | float) or value >= 0, field.name
    return snapshot


# Rates ------------------------------------------------------------------------------------------------------


def test_a_rate_is_known_after_a_while_and_kept_in_between() -> None:
    rates, now = Rates(), 7 * S_US
    assert rates.rate("a", 1000, now) == 0
    assert rates.rate("a", 2000, now + RATE_OVER_US - 1) == 0, "it would only flicker"
    assert rates.rate("a", 3000, now + 1 * S_US) == 2000
    assert rates.rate("a", 9000, now + 1 * S_US + 100 * MS_US) == 2000
    assert rates.rate("a", 3000, now + 3 * S_US) == 0, "nothing since the last time that it was taken"
    assert rates.rate("b", 5_000_000, now + 3 * S_US) == 0, "what came before is no rate"


def test_a_count_that_shrank_is_that_of_a_new_connection() -> None:
    rates = Rates()
    for second, count in enumerate((0, 1000, 2000)):
        rate = rates.rate("leg", count, second * S_US)
    assert rate == 1000
    assert [rates.rate("leg", count, second * S_US) for second, count in ((3, 500), (4, 700))] == [0, 200]


# tx ---------------------------------------------------------------------------------------------------------


async def test_tx_before_the_first_contact(pipe: Pipe) -> None:
    with nonblocking_server() as server:
        port = server.getsockname()[1]
        async with transmitting(pipe.read_fd, port, threads=2, size_bytes=99, name="db1") as (program, _):
            await until(lambda: len(program.connections) == 2)
            program.session.book.states[0].failure = "no answer"
            found = check(tx_snapshot(program))
            assert (found.role, found.state, found.contacted, found.peer, found.name) == (
                "tx",
                "waiting",
                False,
                "",
                "db1",
            )
            assert (found.waiting, found.stalled, found.size_bytes) == ("network: the first contact", False, 99)
            assert found.session == program.session.session.hex()
            assert [leg.state for leg in found.legs] == ["down", "down"]
            assert [(path.address, path.legs_wanted, path.why) for path in found.paths] == [
                (f"{HOST}:{port}", 2, "no answer")
            ]


async def test_tx_in_the_middle(pipe: Pipe) -> None:
    with nonblocking_server() as server:
        address = f"{HOST}:{server.getsockname()[1]}"
        async with transmitting(pipe.read_fd, server.getsockname()[1]) as (program, _):
            peer, _ = await accept_leg(server)
            with peer.sock:
                await until(lambda: program.session.legs)
                assert check(tx_snapshot(program)).waiting == "input"
                os.write(pipe.write_fd, b"x" * 5000)
                await peer.hear(Kind.DATA)
                found = check(tx_snapshot(program))
                assert (found.state, found.peer, found.legs_up) == ("running", address, 1)
                assert found.waiting == f"network: frame 0 on leg 0 ({HOST})"
                assert (found.read_bytes, found.moved_bytes, found.window_used_bytes) == (5000, 0, 5000)
                (leg,), (path,) = found.legs, found.paths
                assert (leg.address, leg.state, leg.restarts) == (address, "idle", 0) and leg.rtt_us > 0
                assert leg.moved_bytes == path.moved_bytes == 5040 and leg.in_flight_bytes >= 5000
                program.session.legs[0].doubted = True
                assert check(tx_snapshot(program)).legs[0].state == "mute"
                program.session.legs[0].doubted = False
                await peer.say(all_arrived(1, 2000, Waiting.OUTPUT))
                await until(lambda: program.session.rx_waits_output)
                found = check(tx_snapshot(program))
                assert (found.waiting, found.moved_bytes, found.window_used_bytes) == ("output", 2000, 3000)
            await until(lambda: not program.session.legs)
            found = check(tx_snapshot(program))
            assert (found.waiting, found.legs_up, found.legs[0].state) == ("network: a connection", 0, "down")


async def test_tx_waits_for_the_last_word(pipe: Pipe) -> None:
    pipe.close_write()
    with nonblocking_server() as server:
        async with transmitting(pipe.read_fd, server.getsockname()[1]) as (program, _):
            peer, _ = await accept_leg(server)
            with peer.sock:
                await peer.hear(Kind.END)
                await peer.say(all_arrived(1, 0))
                await until(lambda: program.session.window.oldest() is None)
                assert check(tx_snapshot(program)).waiting == "network: the receiver's word"


@pytest.mark.parametrize("error", [PeerLost("gone\nand more"), LocalIOError("full"), ZeroDivisionError("x")])
async def test_the_end_of_a_failure(pipe: Pipe, error: Exception) -> None:
    with nonblocking_server() as server:
        async with transmitting(pipe.read_fd, server.getsockname()[1]) as (program, _):
            program.fail(error)
            found = check(tx_snapshot(program))
            status = getattr(error, "exit_status", 1)
            assert (found.state, found.exit_status, found.reason) == ("failed", status, str(error).partition("\n")[0])
            assert not found.stalled


# A stall ----------------------------------------------------------------------------------------------------


async def test_a_stall_is_when_the_network_alone_was_waited_for_for_long(pipe: Pipe) -> None:
    with nonblocking_server() as server:
        async with transmitting(pipe.read_fd, server.getsockname()[1]) as (program, _):
            peer, _ = await accept_leg(server)
            with peer.sock:
                os.write(pipe.write_fd, b"x")
                await peer.hear(Kind.DATA)
                long_ago = now_us() - STALL_US - S_US
                program.contact_us = program.meter.progress_us = long_ago
                assert not tx_snapshot(program).stalled, "the input has paused; now a frame is under way"
                program.books._network_since_us = long_ago
                found = tx_snapshot(program)
                assert found.stalled and found.idle_us >= STALL_US + S_US
                assert found.stall() == f"STALLED 6 s: waiting for frame 0 on leg 0 ({HOST})"
                program.meter.progress_us = now_us()
                assert not tx_snapshot(program).stalled
                program.meter.progress_us = long_ago
                program.fail(PeerLost("gone"))
                assert not tx_snapshot(program).stalled


# rx ---------------------------------------------------------------------------------------------------------


async def test_rx_from_its_start_to_a_lost_leg(pipe: Pipe) -> None:
    async with receiving(pipe.write_fd, size_bytes=7) as (program, _, port):
        found = check(rx_snapshot(program))
        assert (found.role, found.state, found.session, found.peer, found.size_bytes) == ("rx", "waiting", "", "", 7)
        assert (found.waiting, found.legs, found.paths) == ("network: the first contact", (), ())
        async with leg_to(port, 5, name="db1") as peer:
            await until(lambda: program.connections)
            found = check(rx_snapshot(program))
            assert (found.waiting, found.name, found.peer) == ("input", "db1", HOST)
            await peer.say(data(0, 0, bytes(1000))[:-1])
            await until(lambda: program.session.reassembly.written == 999)
            found = check(rx_snapshot(program))
            assert (found.waiting, found.moved_bytes) == (f"network: frame 0 on leg 5 ({HOST})", 999)
            (leg,), (path,) = found.legs, found.paths
            assert (leg.number, leg.state, leg.moved_bytes, leg.in_flight_bytes) == (5, "direct", 1039, 0)
            assert (path.address, path.moved_bytes, path.legs_up, path.legs_wanted) == (HOST, 1039, 1, 0)
            await peer.say(b"x" + data(2, 1005, b"later"))
            await until(lambda: program.session.reassembly.arrived)
            assert check(rx_snapshot(program)).waiting == "network: frame 1, which is late", "the next one has come"
            os.set_blocking(pipe.write_fd, False)
            fill(lambda block: os.write(pipe.write_fd, block))
            await peer.say(data(1, 1000, b"hello"))
            await until(lambda: program.session.output_blocked)
            assert check(rx_snapshot(program)).waiting == "output"
        await until(lambda: not program.connections)
        found = check(rx_snapshot(program))
        assert (found.waiting, found.peer, found.legs_up) == ("network: a connection", HOST, 0)
        assert found.paths[0].moved_bytes == 1040 + 45 + 40 and found.legs == (), "five bytes found no room"


# Both -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [{}, {"checksum": True}], ids=["plain", "checksum"])
async def test_the_end_of_a_whole_transfer(words: dict[str, Any]) -> None:
    content = os.urandom(3 * MIB)
    received, rx, tx = await transfer(content, words, threads=2, name="db1", **words)
    assert received == content
    tx.session.window.written = 5  # the last acknowledgement was overtaken by the word that all is done
    ends = check(tx_snapshot(tx)), check(rx_snapshot(rx))
    for found in ends:
        assert (found.state, found.exit_status, found.reason) == ("complete", 0, "")
        assert found.moved_bytes == found.read_bytes == len(content) and found.name == "db1"
        assert found.window_used_bytes == 0 and found.peer.startswith(HOST) and found.rate_average > 0
        assert found.digest.startswith("xxh3-128 ") if words else not found.digest
    assert ends[0].session == ends[1].session and ends[0].digest == ends[1].digest
    assert ends[0].paths[0].moved_bytes > len(content) <= ends[1].paths[0].moved_bytes


async def test_what_happened_is_in_a_snapshot(pipe: Pipe) -> None:
    async with receiving(pipe.write_fd) as (program, _, port), leg_to(port, 1) as peer:
        await peer.say(data(0, 0, b"hello") + data(0, 0, b"hello"))
        assert await take(pipe.read_fd, 5) == b"hello"
        await until(lambda: program.session.reassembly.duplicate_bytes)
        assert program.listener is not None
        program.listener.strangers, program.session.reassembly.corrupted = 3, 2
        program.session.restarts, program.session.resends = 4, 6
        found = check(rx_snapshot(program))
        assert (found.refused, found.corrupted, found.restarts, found.retransmitted_frames) == (3, 2, 4, 6)
        assert found.retransmitted_bytes == found.legs[0].hedged == 5
