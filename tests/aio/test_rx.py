"""The receiver in this process, its transmitter played by hand over loopback."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
import xxhash

from tests.aio.drive import Peer, Pipe, begun, data, end, fill, finish, leg_to, receiving, take, turns, until
from viamillipede.aio import rx as module
from viamillipede.aio.sockets import close_with_reset
from viamillipede.config import KIB, MIB, MS_US
from viamillipede.errors import Interrupted, LimitReached, LocalIOError, PeerLost, RemoteFailed
from viamillipede.protocol.wire import (
    FEATURE_CHECKSUM,
    Kind,
    Waiting,
    decode_reason,
    encode_header,
    encode_reason,
)

# The stream -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[], [1], [KIB], [MIB, 1], [3, MIB, 100_000]])
async def test_a_stream_of_one_leg(pipe: Pipe, sizes: list[int]) -> None:
    content = [os.urandom(size) for size in sizes]
    async with receiving(pipe.write_fd) as (_, task, port), leg_to(port) as peer, asyncio.TaskGroup() as group:
        output, offset = group.create_task(take(pipe.read_fd)), 0
        for seq, payload in enumerate(content):
            await peer.say(data(seq, offset, payload))
            offset += len(payload)
        await peer.say(end(len(content), offset))
        assert await output == b"".join(content)
        await finish(peer, task, offset)


async def test_frames_in_any_order_and_in_copies_are_delivered_in_order_once(pipe: Pipe) -> None:
    content = [os.urandom(100_000) for _ in range(6)]
    async with receiving(pipe.write_fd) as (_, task, port), asyncio.TaskGroup() as group:
        output = group.create_task(take(pipe.read_fd))
        async with leg_to(port, 0) as one, leg_to(port, 1) as other:
            for leg, seq in ((one, 2), (other, 1), (one, 5), (other, 5), (other, 4), (one, 0), (one, 3), (other, 2)):
                await leg.say(data(seq, seq * 100_000, content[seq]))
            await other.say(end(6, 600_000))
            assert await output == b"".join(content)
            await finish(one, task, 600_000)


@pytest.mark.parametrize("rudely", [False, True])
@pytest.mark.parametrize("cut", [1, 39, 40, 41, 60_000])
async def test_a_leg_lost_anywhere_costs_nothing(pipe: Pipe, cut: int, rudely: bool) -> None:
    payload = os.urandom(100_000)
    async with receiving(pipe.write_fd) as (program, task, port), asyncio.TaskGroup() as group:
        output = group.create_task(take(pipe.read_fd))
        async with leg_to(port, 1) as stays:
            async with leg_to(port, 0) as peer:
                await peer.say(data(0, 0, payload)[:cut])
                if rudely:
                    close_with_reset(peer.sock)
            await until(lambda: len(program.connections) == 1)
            await stays.say(data(0, 0, payload) + end(1, 100_000))
            assert await output == payload
            await finish(stays, task, 100_000)


async def test_a_byte_is_delivered_at_once(pipe: Pipe) -> None:
    async with receiving(pipe.write_fd) as (_, task, port), leg_to(port) as peer:
        for seq in range(3):
            await peer.say(data(seq, seq, b"x"))
            assert await take(pipe.read_fd, 1) == b"x"
            await peer.hear_ack(lambda ack: ack.arrived_next == seq + 1 == ack.written_bytes)  # noqa: B023
        await peer.say(end(3, 3))
        await finish(peer, task, 3)


async def test_output_to_a_file(tmp_path: Path) -> None:
    payload = os.urandom(MIB)
    fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    try:
        async with receiving(fd) as (_, task, port), leg_to(port) as peer:
            await peer.say(data(1, MIB, payload) + data(0, 0, payload) + end(2, 2 * MIB))
            await finish(peer, task, 2 * MIB)
        assert (tmp_path / "file").read_bytes() == 2 * payload
    finally:
        os.close(fd)


async def test_a_damaged_frame_is_asked_for_again(pipe: Pipe) -> None:
    payload = os.urandom(1000)
    header = encode_header(Kind.DATA, 1000, 0, 0, xxhash.xxh3_64_intdigest(payload))
    async with receiving(pipe.write_fd) as (program, task, port), leg_to(port, features=FEATURE_CHECKSUM) as peer:
        await peer.say(header + bytes([payload[0] ^ 1]) + payload[1:])
        assert (await peer.hear(Kind.RESEND))[0].seq == 0
        await peer.say(header + payload + end(1, 1000))
        taken, _ = await asyncio.gather(take(pipe.read_fd), finish(peer, task, 1000))  # the end follows the digest
        assert taken == payload
        assert program.session.reassembly.corrupted == 1


async def test_a_reader_that_pauses_is_told_of_and_waited_for(pipe: Pipe) -> None:
    frames, whole = 64, 64 * MIB  # more than a pipe and the sockets' largest buffers hold (tcp_rmem: often 32 MiB)
    content = os.urandom(MIB) * frames
    messages = [data(seq, seq * MIB, content[:MIB]) for seq in range(frames)]
    async with receiving(pipe.write_fd) as (program, task, port), leg_to(port) as peer:
        sending = asyncio.create_task(peer.say(b"".join(messages) + end(frames, whole)))
        ack = await peer.hear_ack(lambda ack: ack.waiting is Waiting.OUTPUT)
        await peer.hear(Kind.ACK)  # a heartbeat: alive although nothing moves
        assert ack.written_bytes < whole and not sending.done()
        assert program.session.reassembly.memory_bytes() <= program.config.window_bytes
        assert await take(pipe.read_fd) == content
        await sending
        await finish(peer, task, whole)


async def test_done_is_only_said_when_the_reader_has_taken_everything(pipe: Pipe) -> None:
    async with receiving(pipe.write_fd) as (program, task, port), leg_to(port) as peer:
        await peer.say(data(0, 0, b"all") + end(1, 3))
        await peer.hear_ack(lambda ack: ack.written_bytes == 3)
        await turns()
        assert not program.session.done
        assert await take(pipe.read_fd) == b"all"
        await finish(peer, task, 3)


async def test_a_leg_that_greets_again_takes_the_place_of_its_former_self(pipe: Pipe) -> None:
    async with receiving(pipe.write_fd) as (program, task, port), leg_to(port, 7) as old:
        await old.hear(Kind.ACK)
        async with leg_to(port, 7) as new:
            await old.end()
            assert [c.leg.number for c in program.connections.values()] == [7]
            await new.say(end(0, 0))
            await finish(new, task, 0)


# How it ends ------------------------------------------------------------------------------------------------


async def told(peer: Peer) -> str:
    """The reason that rx gives."""
    return decode_reason((await peer.hear(Kind.REFUSAL))[1])


async def test_a_reader_that_leaves_is_told_to_tx(pipe: Pipe) -> None:
    async with begun(pipe) as (_, task, peer):
        await peer.say(data(1, 5, b"unread"))
        await peer.hear_ack(lambda ack: ack.written_bytes == 11)
        pipe.close_read()
        assert await told(peer) == "the program that reads the output went away"
        peer.sock.close()
        with pytest.raises(LocalIOError, match="the program that reads the output went away"):
            await task


async def test_a_reader_that_leaves_before_more_comes(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GONE_GRACE_US", 10 * MS_US)
    async with begun(pipe) as (_, task, peer):
        pipe.close_read()
        assert await told(peer) == "the program that reads the output went away"
        peer.sock.close()
        with pytest.raises(LocalIOError):
            await task


async def test_a_reader_that_leaves_having_read_everything_is_no_failure(pipe: Pipe) -> None:
    async with begun(pipe) as (_, task, peer):
        pipe.close_read()
        await turns()
        await peer.say(end(1, 5))
        await finish(peer, task, 5)


async def test_what_still_comes_after_a_failure_is_thrown_away_until_tx_has_heard(pipe: Pipe) -> None:
    async with begun(pipe) as (_, task, peer):
        pipe.close_read()
        sending = asyncio.create_task(peer.say(data(1, 5, bytes(8 * MIB))))
        assert await told(peer) == "the program that reads the output went away"
        await sending  # nobody resets it in mid-frame, which could destroy the message
        peer.sock.close()
        with pytest.raises(LocalIOError):
            await task


async def test_a_full_disk_is_told_to_tx() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        async with receiving(fd) as (_, task, port), leg_to(port) as peer:
            await peer.say(data(0, 0, b"x"))
            assert await told(peer) == "cannot write the output: No space left on device"
            peer.sock.close()
            with pytest.raises(LocalIOError, match="No space left on device"):
                await task
    finally:
        os.close(fd)


async def test_a_signal_is_told_to_tx(pipe: Pipe) -> None:
    async with begun(pipe) as (_, task, peer):
        os.kill(os.getpid(), signal.SIGINT)
        assert await told(peer) == "interrupted"
        peer.sock.close()
        with pytest.raises(Interrupted):
            await task


async def test_a_leg_that_comes_while_rx_is_leaving_is_told_as_well(pipe: Pipe) -> None:
    async with begun(pipe) as (program, task, peer):
        os.kill(os.getpid(), signal.SIGINT)
        await told(peer)
        async with leg_to(program.listener.port, 1) as late:
            assert await told(late) == "interrupted"
        peer.sock.close()
        with pytest.raises(Interrupted):
            await task


async def test_tx_gives_up_and_says_why(pipe: Pipe) -> None:
    async with begun(pipe) as (_, task, peer):
        await peer.say(encode_reason(Kind.ABORT, "its input failed"))
        with pytest.raises(RemoteFailed, match="gave up at byte 5: its input failed"):
            await task


async def test_a_tx_that_died_is_waited_for_as_long_as_regroup(pipe: Pipe) -> None:
    async with begun(pipe, regroup_us=50 * MS_US) as (_, task, peer):
        peer.sock.close()
        with pytest.raises(PeerLost, match="the other process is gone; the stream ends incomplete at byte 5"):
            await task


async def test_silence_is_not_death(pipe: Pipe) -> None:
    async with begun(pipe, regroup_us=0, outage_us=0) as (_, task, _):
        await asyncio.sleep(0.3)  # several ticks
        assert not task.done()


async def test_nobody_comes(pipe: Pipe) -> None:
    async with receiving(pipe.write_fd, wait_us=50 * MS_US) as (_, task, _):
        with pytest.raises(LimitReached, match="no transmitter came"):
            await task


@pytest.mark.parametrize("how", ["closed", "silent"])
async def test_a_tx_that_never_says_bye_is_waited_for_a_while(
    pipe: Pipe, how: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "LINGER_US", 100 * MS_US)
    async with begun(pipe, verbose=1) as (_, task, peer):
        await peer.say(end(1, 5))
        await peer.hear(Kind.DONE)
        if how == "closed":
            peer.sock.close()
        await turns()
        assert not task.done()
        await task
    assert "complete, but the transmitter may not know" in capfd.readouterr().err


async def test_done_is_said_again_to_a_tx_that_comes_back(pipe: Pipe) -> None:
    async with begun(pipe) as (program, task, peer):
        await peer.say(end(1, 5))
        await peer.hear(Kind.DONE)
        peer.sock.close()
        await until(lambda: not program.connections)
        async with leg_to(program.listener.port, 1) as late:
            await finish(late, task, 5)


async def test_a_full_pipe_at_the_start_is_waited_for(pipe: Pipe) -> None:
    os.set_blocking(pipe.write_fd, False)
    stuffed = fill(lambda block: os.write(pipe.write_fd, block))
    async with receiving(pipe.write_fd) as (_, task, port), leg_to(port) as peer:
        await peer.say(data(0, 0, b"x") + end(1, 1))
        await peer.hear_ack(lambda ack: ack.waiting is Waiting.OUTPUT)
        assert await take(pipe.read_fd) == bytes(stuffed) + b"x"
        await finish(peer, task, 1)
