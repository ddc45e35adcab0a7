"""What a person is told: closing lines and dumps, on programs in states that a test made."""

import os
import re

import pytest

from tests.aio.drive import (
    Pipe,
    accept_leg,
    all_arrived,
    data,
    fill,
    leg_to,
    nonblocking_server,
    receiving,
    transfer,
    transmitting,
    until,
)
from viamillipede.aio import report
from viamillipede.aio.clock import now_us
from viamillipede.config import KIB, S_US
from viamillipede.protocol.wire import Kind, Waiting


@pytest.fixture(autouse=True)
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports are made two seconds after whatever else happened, to the microsecond."""
    monkeypatch.setattr(report, "now_us", lambda: now_us() + 2 * S_US)


def since_start(text: str) -> str:
    """Without the figures that differ from run to run."""
    return re.sub(r"in [0-9.]+ (us|ms|s), [0-9.]+ [KMG]?i?B/s", "in TIME, RATE", text)


async def test_since_is_how_long_ago_that_was() -> None:
    assert report.since(now_us()).startswith("2.0")


async def test_the_meter_shows_the_last_seconds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "now_us", lambda: 0)
    meter = report.Meter()
    meter.sample(5_000, S_US // 2)
    assert meter.rate == 0  # too early to say
    meter.sample(10_000, S_US)
    assert meter.rate == 10_000
    meter.sample(11_000, 3 * S_US)
    assert meter.rate == 500
    meter.sample(11_000, 4 * S_US)
    assert meter.rate == 0


async def test_closing_lines_of_a_whole_transfer() -> None:
    _, rx, tx = await transfer(bytes(100_000), {}, threads=2)
    told = since_start(report.closing_tx(tx, ""))
    assert re.fullmatch(
        r"97\.7 KiB \(100000 bytes\) in TIME, RATE, [12] legs?, 0 restarts, 0 retransmitted \(0 B\)", told
    )
    told = since_start(report.closing_rx(rx, ""))
    assert re.fullmatch(r"97\.7 KiB \(100000 bytes\) in TIME, RATE, [12] legs?, 0 restarts, 0 B retransmitted", told)


async def test_the_rate_is_that_of_the_whole_time() -> None:
    assert report._summary(3 * KIB, now_us() - S_US, "").endswith(" in 3.00 s, 1.0 KiB/s")
    assert report._summary(0, now_us(), "incomplete").startswith("incomplete, 0 B (0 bytes) in ")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hedges": 3}, ", 3 hedged"),
        ({"resends": 2}, ", 2 asked for again"),
        ({"restarts": 1}, ", 1 restart, "),
        ({"restarts": 4, "legs_most": 9}, ", 9 legs, 4 restarts, "),
    ],
)
async def test_what_happened_is_in_the_closing_line_of_tx(pipe: Pipe, changes: dict[str, int], words: str) -> None:
    with nonblocking_server() as server:
        async with transmitting(pipe.read_fd, server.getsockname()[1]) as (program, _):
            assert words not in report.closing_tx(program, "incomplete")
            for name, value in changes.items():
                setattr(program.session, name, value)
            assert words in report.closing_tx(program, "incomplete")


async def test_chaos_and_dead_addresses_are_in_the_closing_line_of_tx(pipe: Pipe) -> None:
    with nonblocking_server() as server:
        port = server.getsockname()[1]
        async with transmitting(pipe.read_fd, port, chaos=7) as (program, _):
            program.chaos.faults = 1
            program.session.book.states[0].failure = "Connection refused"
            told = report.closing_tx(program, "incomplete")
            assert told.startswith("incomplete, 0 B (0 bytes) in ")
            assert told.endswith(f", 1 chaos fault; not reached: 127.0.0.1:{port}: Connection refused")


async def test_what_happened_is_in_the_closing_line_of_rx(pipe: Pipe) -> None:
    async with receiving(pipe.write_fd, checksum=True) as (program, _, _):
        program.strangers = 1
        program.session.reassembly.corrupted = 2
        told = report.closing_rx(program, "incomplete")
        assert told.startswith("incomplete, ") and told.endswith(", 2 corrupted and sent again, 1 stranger refused")


# Dumps ------------------------------------------------------------------------------------------------------


def shape(dump: str, legs: int) -> str:
    """Check what every dump has; what it says the stream is waiting for."""
    lines = dump.splitlines()
    assert dump.endswith("\n") and len(lines) == 5 + legs
    assert re.match(r"viamillipede [rt]x: .* bytes\) in .*, now .*/s$", lines[0])
    assert re.match(r"  process: \d+\.\d s user, \d+\.\d s system, [0-9.]+ MiB resident, \d+ descriptors$", lines[3])
    assert re.match(r" +leg +address +state +frames? +bytes +rate +rtt", lines[4])
    waits = re.match(r"  waiting for: (.+)$", lines[2])
    assert waits
    return waits[1]


async def test_tx_waits_for_the_first_contact(pipe: Pipe) -> None:
    with nonblocking_server() as server:
        async with transmitting(pipe.read_fd, server.getsockname()[1], threads=2) as (program, _):
            waits = shape(program.dump(), 2)
            assert waits.startswith("the first contact, for 2.")
            assert all("  down  " in line for line in program.dump().splitlines()[5:])


async def test_tx_says_what_it_waits_for(pipe: Pipe) -> None:
    with nonblocking_server() as server:
        async with transmitting(pipe.read_fd, server.getsockname()[1]) as (program, _):
            peer, _ = await accept_leg(server)
            with peer.sock:
                await until(lambda: program.session.legs)
                assert shape(program.dump(), 1) == "input"
                os.write(pipe.write_fd, b"x")
                await peer.hear(Kind.DATA)
                assert shape(program.dump(), 1) == "network: frame 0 on leg 0"
                leg = program.dump().splitlines()[5]
                assert re.match(rf" +0  127\.0\.0\.1:{server.getsockname()[1]} +idle +1 +41 B ", leg)
                program.session.rx_waits_output = True
                assert shape(program.dump(), 1) == "output (of the receiver)"
            await until(lambda: not program.session.legs)
            assert shape(program.dump(), 1).startswith("the network, for 2.")


async def test_tx_waits_for_the_last_word(pipe: Pipe) -> None:
    pipe.close_write()
    with nonblocking_server() as server:
        async with transmitting(pipe.read_fd, server.getsockname()[1]) as (program, _):
            peer, _ = await accept_leg(server)
            with peer.sock:
                await peer.hear(Kind.END)
                await peer.say(all_arrived(1, 0))
                await until(lambda: program.session.window.oldest() is None)
                assert shape(program.dump(), 1) == "the receiver's word"


async def test_rx_says_what_it_waits_for(pipe: Pipe) -> None:
    async with receiving(pipe.write_fd) as (program, _, port):
        assert shape(program.dump(), 0).startswith("the first contact, for 2.")
        async with leg_to(port, 5) as peer:
            await until(lambda: program.connections)
            assert shape(program.dump(), 1) == "input"
            assert re.match(r" +5  127\.0\.0\.1:\d+ +idle ", program.dump().splitlines()[5])
            await peer.say(data(0, 0, bytes(1000))[:-1])
            await until(lambda: program.session.reassembly.written == 999)
            assert shape(program.dump(), 1) == "network: frame 0 on leg 5"
            os.set_blocking(pipe.write_fd, False)
            fill(lambda block: os.write(pipe.write_fd, block))
            await peer.say(b"x")
            await peer.hear_ack(lambda ack: ack.waiting is Waiting.OUTPUT)
            assert shape(program.dump(), 1) == "output"
        await until(lambda: not program.connections)
        assert shape(program.dump(), 0).startswith("the network, for 2.")
