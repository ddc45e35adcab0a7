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
from viamillipede.aio import meter as meter_module
from viamillipede.aio import report
from viamillipede.aio.clock import now_us
from viamillipede.aio.log import Log
from viamillipede.config import KIB, MIB, S_US
from viamillipede.errors import Failure, LocalIOError, NoContact, PeerLost
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
    monkeypatch.setattr(meter_module, "now_us", lambda: 0)
    meter = meter_module.Meter()
    meter.sample(5_000, S_US // 2)
    assert meter.rate == 0  # too early to say
    meter.sample(10_000, S_US)
    assert meter.rate == 10_000
    meter.sample(11_000, 3 * S_US)
    assert meter.rate == 500
    meter.sample(11_000, 4 * S_US)
    assert meter.rate == 0


async def test_what_keeps_the_first_contact_waiting(capfd: pytest.CaptureFixture[str]) -> None:
    for verbose in (1, 2):
        news = report.ContactNews(Log("tx", verbose), 60 * S_US, "receiver")
        for seconds, failures in ((0, []), (1, ["a: b"]), (1, ["a: b"]), (2, ["a: b"]), (3, ["a: b"]), (4, ["c: d"])):
            news.tell(failures, seconds * S_US)
        told = [line.removeprefix("viamillipede tx: ") for line in capfd.readouterr().err.splitlines()]
        changes = ["no receiver yet: a: b", "no receiver yet: c: d"] if verbose == 2 else []
        assert told == [*changes[:1], "waiting up to 60 s for a receiver: a: b", *changes[1:]]
    report.ContactNews(Log("tx", 1), 60 * S_US, "receiver").tell([], 2 * S_US)
    assert capfd.readouterr().err.endswith(": waiting up to 60 s for a receiver: no answer so far\n")


@pytest.mark.parametrize("failure", [PeerLost("gone"), NoContact("nobody"), LocalIOError("full")])
async def test_a_closing_line_suits_its_failure(pipe: Pipe, failure: Failure) -> None:
    with nonblocking_server() as server:
        async with transmitting(pipe.read_fd, server.getsockname()[1]) as (program, _):
            program.contact_us = now_us()
            program.meter.sample(0, program.contact_us + S_US // 4)
            assert not program.meter.progress_us
            program.meter.sample(4096, program.contact_us + S_US // 2)
            program.meter.sample(4096, program.contact_us + S_US)
            program.session.window.written = 4096
            program.session.book.states[0].failure = "Connection refused"
            program.fail(failure)
            told = report.closing_tx(program, "incomplete")
            waited = not isinstance(failure, PeerLost)
            assert ("in 500.0 ms, 8.0 KiB/s" in told) is not waited and ("in 2.0" in told) is waited
            assert ("not reached" in told) is not isinstance(failure, NoContact)
            program.session.window.written = 0


async def test_closing_lines_of_a_whole_transfer() -> None:
    _, rx, tx = await transfer(bytes(100_000), {}, threads=2)
    told = since_start(report.closing_tx(tx, ""))
    assert re.fullmatch(
        r"97\.7 KiB \(100000 bytes\) in TIME, RATE, [12] legs?, 0 restarts, 0 frames retransmitted \(0 B\)", told
    )
    told = since_start(report.closing_rx(rx, ""))
    assert re.fullmatch(
        r"97\.7 KiB \(100000 bytes\) in TIME, RATE, [12] legs?, 0 restarts, 0 B retransmitted in vain", told
    )


async def test_the_rate_is_that_of_the_whole_time() -> None:
    assert report._summary(3 * KIB, now_us() - S_US) == "3.0 KiB (3072 bytes) in 3.00 s, 1.0 KiB/s"
    assert report._summary(1023, now_us()).startswith("1023 B in 2.0")  # the figure itself is exact


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
            assert not report.closing_tx(program, "incomplete"), "there was nobody"
            program.contact_us = now_us()
            assert words not in report.closing_tx(program, "incomplete")
            for name, value in changes.items():
                setattr(program.session, name, value)
            assert words in report.closing_tx(program, "incomplete")


async def test_chaos_and_dead_addresses_are_in_the_closing_line_of_tx(pipe: Pipe) -> None:
    with nonblocking_server() as server:
        port = server.getsockname()[1]
        async with transmitting(pipe.read_fd, port, chaos=7) as (program, _):
            program.chaos.faults, program.contact_us = 1, now_us()
            program.session.book.states[0].failure = "Connection refused"
            told = report.closing_tx(program, "incomplete")
            assert told.startswith("incomplete, 0 B in ")
            assert told.endswith(f", 1 chaos fault; not reached: 127.0.0.1:{port}: Connection refused")


async def test_what_happened_is_in_the_closing_line_of_rx(pipe: Pipe) -> None:
    async with receiving(pipe.write_fd, checksum=True) as (program, _, _):
        assert program.listener is not None
        program.listener.strangers = 1
        program.session.reassembly.corrupted = 2
        told = report.closing_rx(program, "incomplete")
        assert told.startswith("incomplete, ") and told.endswith(", 2 corrupted, 1 connection refused")


# Dumps ------------------------------------------------------------------------------------------------------


def parts(dump: str) -> list[str]:
    """The lines of a dump, without those about addresses, and rx's second line of counts."""
    extra = re.compile(r"  address |  .* moved without a copy, ")
    return [line for line in dump.splitlines() if not extra.match(line)]


def shape(dump: str, legs: int) -> str:
    """Check what every dump has; what it says the stream is waiting for."""
    lines = [line for line in parts(dump) if not line.startswith("  bottleneck: ")]
    assert dump.endswith("\n") and len(lines) == 5 + legs
    assert re.match(rf"viamillipede [rt]x: pid {os.getpid()} at \d\d:\d\d:\d\d, .* in .*, now .*/s$", lines[0])
    assert re.match(r"  process: \d+\.\d s user, \d+\.\d s system, [0-9.]+ MiB resident, \d+ descriptors$", lines[3])
    assert re.match(r" +leg +address +state +frames? +bytes +rate +rtt", lines[4])
    waits = re.match(r"  waiting for: (.+)$", lines[2])
    assert waits
    return waits[1]


async def test_tx_waits_for_the_first_contact(pipe: Pipe) -> None:
    with nonblocking_server() as server:
        async with transmitting(pipe.read_fd, server.getsockname()[1], threads=2) as (program, _):
            await until(lambda: len(program.connections) == 2)
            waits = shape(program.dump(), 2)
            assert waits.startswith("the first contact, for 2.")
            assert all("  down  " in line for line in parts(program.dump())[5:])
            program.session.book.states[0].failure = "no answer"
            assert parts(program.dump())[3].startswith("  not reached: 127.0.0.1:")
            assert parts(program.dump())[3].endswith(": no answer")


async def test_tx_says_what_it_waits_for(pipe: Pipe) -> None:
    with nonblocking_server() as server:
        async with transmitting(pipe.read_fd, server.getsockname()[1]) as (program, _):
            peer, _ = await accept_leg(server)
            with peer.sock:
                await until(lambda: program.session.legs)
                assert shape(program.dump(), 1) == "input"
                os.write(pipe.write_fd, b"x")
                await peer.hear(Kind.DATA)
                assert shape(program.dump(), 1) == "network: frame 0 on leg 0 (127.0.0.1)"
                leg = parts(program.dump())[5]
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


async def test_tx_shows_what_each_address_has_carried_and_how_each_leg_is(pipe: Pipe) -> None:
    with nonblocking_server() as server, nonblocking_server() as silent:
        ports = server.getsockname()[1], silent.getsockname()[1]
        async with transmitting(pipe.read_fd, *ports, threads=2) as (program, _):
            peer, _ = await accept_leg(server)
            with peer.sock:
                os.write(pipe.write_fd, b"x")
                await peer.hear(Kind.DATA)
                await until(lambda: program.session.legs and not program.session.legs[0].busy)
                addresses = [line for line in program.dump().splitlines() if line.startswith("  address ")]
                assert addresses == [
                    f"  address 127.0.0.1:{ports[0]}: 41 B sent, 1 of 1 leg up",
                    f"  address 127.0.0.1:{ports[1]}: 0 B sent, 0 of 1 leg up",
                ]
                assert report.closing_tx(program, "incomplete").endswith(
                    f"; sent to 127.0.0.1:{ports[0]} 41 B, 127.0.0.1:{ports[1]} 0 B"
                )
                leg = program.session.legs[0]
                for name, word in [("busy", "busy"), ("retiring", "ends"), ("doubted", "mute")]:
                    setattr(leg, name, True)
                    assert parts(program.dump())[5].split()[:3] == ["0", f"127.0.0.1:{ports[0]}", word]


async def test_rx_says_what_it_waits_for(pipe: Pipe) -> None:
    async with receiving(pipe.write_fd) as (program, _, port):
        assert shape(program.dump(), 0).startswith("the first contact, for 2.")
        async with leg_to(port, 5) as peer:
            await until(lambda: program.connections)
            assert shape(program.dump(), 1) == "input"
            assert re.match(r" +5  127\.0\.0\.1:\d+ +idle ", parts(program.dump())[5])
            await peer.say(data(0, 0, bytes(1000))[:-1])
            await until(lambda: program.session.reassembly.written == 999)
            assert shape(program.dump(), 1) == "network: frame 0 on leg 5 (127.0.0.1)"
            os.set_blocking(pipe.write_fd, False)
            fill(lambda block: os.write(pipe.write_fd, block))
            await peer.say(b"x")
            await peer.hear_ack(lambda ack: ack.waiting is Waiting.OUTPUT)
            assert shape(program.dump(), 1) == "output"
            async with leg_to(port, 3):
                await until(lambda: len(program.connections) == 2)
                assert [line.split()[0] for line in parts(program.dump())[5:]] == ["3", "5"]
                memory = r"  reorder memory 4\.0 MiB of at most 64\.0 MiB, \d frames? held; \d frames? read aside"
                assert re.match(memory, program.dump().splitlines()[1])
        await until(lambda: not program.connections)
        assert shape(program.dump(), 0).startswith("the network, for 2.")


async def test_a_leg_of_rx_shows_what_came_in_vain_and_how_often_it_was_restarted(pipe: Pipe) -> None:
    async with receiving(pipe.write_fd) as (program, _, port):
        for _ in range(2):
            async with leg_to(port, 4):
                await until(lambda: program.connections)
            await until(lambda: not program.connections)
        async with leg_to(port, 4) as peer:
            await peer.say(data(0, 0, bytes(1000)) + data(0, 0, bytes(1000)))  # the second copy is thrown away
            await until(lambda: program.session.reassembly.duplicate_bytes == 1000)
            assert parts(program.dump())[4].endswith("in vain  restarts")
            assert re.search(r" +1000 B +2$", parts(program.dump())[5])


async def test_a_dump_says_for_how_long_nothing_has_moved_where_that_is_long(pipe: Pipe) -> None:
    async with receiving(pipe.write_fd) as (program, _, port), leg_to(port, 5):
        await until(lambda: program.connections)
        for seconds, words in [(2.9, "input"), (4, "input; nothing has moved for 4.00 s")]:
            program.meter.progress_us = now_us() + int((2 - seconds) * S_US)
            assert shape(program.dump(), 1) == words


async def test_the_dump_of_rx_has_a_line_for_each_of_several_hosts(pipe: Pipe) -> None:
    async with receiving(pipe.write_fd) as (program, _, port), leg_to(port, 5) as peer:
        await peer.say(data(0, 0, bytes(1000)))
        await until(lambda: program.session.reassembly.written == 1000)
        assert "\n  address " not in program.dump()
        program.moved_of["10.0.0.9"] = 4096
        told = [line for line in program.dump().splitlines() if line.startswith("  address ")]
        ours = "  address 127.0.0.1: 1.0 KiB received, 1 leg up"
        assert told == [ours, "  address 10.0.0.9: 4.0 KiB received, 0 legs up"]


@pytest.mark.parametrize("bytes_received", [1, 1023 * MIB])
async def test_a_dump_fits_a_hundred_columns(pipe: Pipe, bytes_received: int) -> None:
    """But for its first line, and where addresses are long."""
    async with receiving(pipe.write_fd) as (program, _, port), leg_to(port, 1023):
        await until(lambda: program.connections)
        for connection in program.connections.values():
            connection.leg.bytes_received = connection.leg.bytes_discarded = bytes_received
        lines = program.dump().splitlines()
        assert len(lines[-1]) == len(lines[-2]) <= 100 and all(len(line) <= 100 for line in lines[1:]), lines
