"""The transmitter in this process, its receiver played by hand over loopback; then both programs at once."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.aio.drive import (
    HOST,
    RECEIVER,
    Peer,
    Pipe,
    accept_leg,
    all_arrived,
    nonblocking_server,
    transfer,
    transmitting,
    turns,
    until,
)
from viamillipede.aio.last_word import FAREWELL_LEG
from viamillipede.config import KIB, MIB, MS_US, S_US, Address, TxConfig
from viamillipede.errors import (
    Interrupted,
    LocalIOError,
    NoContact,
    PeerLost,
    RemoteFailed,
    SessionRefused,
)
from viamillipede.protocol.tx_leg import HOARD_FRAMES
from viamillipede.protocol.wire import (
    FEATURE_CHECKSUM,
    VERSION,
    Answer,
    Kind,
    Verdict,
    Waiting,
    decode_reason,
    encode_control,
    encode_reason,
)


@contextlib.asynccontextmanager
async def begun(pipe: Pipe, **words: Any) -> AsyncIterator[tuple[Any, "asyncio.Task[None]", Peer, socket.socket]]:
    """A transmitter with one accepted leg."""
    with nonblocking_server() as server:
        async with transmitting(pipe.read_fd, server.getsockname()[1], **words) as (program, task):
            peer, _ = await accept_leg(server)
            with peer.sock:
                yield program, task, peer, server


async def frames(peer: Peer, ack: bool = True) -> bytes:
    """Receive frames up to the end frame, acknowledging each; the bytes they carry."""
    content = bytearray()
    while True:
        header, payload = await peer.message()
        if header.kind is Kind.END:
            assert header.offset == len(content)
            return bytes(content)
        assert header.kind is Kind.DATA and header.offset == len(content)
        content += payload
        if ack:
            await peer.say(all_arrived(header.seq + 1, len(content)))


async def confirm(peer: Peer, task: "asyncio.Task[None]", total: int) -> None:
    """DONE is said, BYE is heard, the program ends well."""
    await peer.say(encode_control(Kind.DONE, offset=total))
    await peer.hear(Kind.BYE)
    assert await peer.end() == b""
    await task


# The stream -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1000, 40_000])
async def test_what_is_read_is_sent_and_then_the_end(pipe: Pipe, size: int) -> None:
    content = os.urandom(size)
    os.write(pipe.write_fd, content)
    pipe.close_write()
    async with begun(pipe) as (_, task, peer, _):
        assert await frames(peer) == content
        await turns()
        assert not task.done()  # the end is when rx says so
        await confirm(peer, task, size)


async def test_a_byte_is_sent_at_once(pipe: Pipe) -> None:
    async with begun(pipe) as (_, task, peer, _):
        for seq in range(3):
            os.write(pipe.write_fd, b"x")
            header, payload = await peer.message()
            assert (header.seq, payload) == (seq, b"x")
            await peer.say(all_arrived(seq + 1, seq + 1))
        pipe.close_write()
        assert (await peer.message())[0].kind is Kind.END
        await confirm(peer, task, 3)


async def test_what_was_not_acknowledged_goes_again_over_the_next_leg(pipe: Pipe) -> None:
    content = os.urandom(30_000)
    os.write(pipe.write_fd, content)
    pipe.close_write()
    async with begun(pipe) as (program, task, peer, server):
        assert await frames(peer, ack=False) == content  # it all arrived, but nobody says so
        peer.sock.close()
        again, heard = await accept_leg(server)
        with again.sock:
            assert heard.receiver == RECEIVER
            assert await frames(again) == content
            await confirm(again, task, 30_000)
        assert program.session.window.retransmitted_frames >= 1


class Flood:
    """Input without end, as far as the pipe takes it."""

    def __init__(self, pipe: Pipe) -> None:
        os.set_blocking(pipe.write_fd, False)
        self._fd, self.sent = pipe.write_fd, 0

    def give(self) -> None:
        """Until the pipe is full."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.sent += os.write(self._fd, bytes(64 * KIB))

    def stopped(self) -> bool:
        """Whether nobody takes anything any more."""
        self.give()
        with contextlib.suppress(BlockingIOError):
            os.write(self._fd, b"x")
            return False
        return True


async def test_memory_is_bounded_while_nothing_is_written(pipe: Pipe) -> None:
    async with begun(pipe, window_bytes=256 * KIB, frame_bytes=16 * KIB) as (program, task, peer, _):
        flood, received = Flood(pipe), 0
        await peer.say(all_arrived(0, 0, Waiting.OUTPUT))
        flood.give()
        while received < 256 * KIB:
            header, payload = await peer.message()
            received += len(payload)
            await peer.say(all_arrived(header.seq + 1, 0, Waiting.OUTPUT))
            flood.give()
        await turns(10)
        assert received == 256 * KIB == program.session.window.head  # back-pressure reaches the source
        assert flood.stopped() and not task.done()


async def test_a_host_that_takes_everything_and_passes_nothing_on_gets_a_few_frames(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("viamillipede.aio.tx.WAITS_US", 3600 * S_US)  # nothing but frames
    async with begun(pipe, window_bytes=4 * MIB, frame_bytes=16 * KIB) as (_, task, peer, _):
        flood, received = Flood(pipe), 0
        await peer.say(all_arrived(0, 0))
        with contextlib.suppress(TimeoutError):
            while received < 64:
                flood.give()
                async with asyncio.timeout(1):  # the kernel is asked a few times meanwhile
                    await peer.message()
                received += 1
        assert HOARD_FRAMES < received < 32 and not task.done()  # of 256 in the window
        await peer.say(all_arrived(received, received * 16 * KIB))
        assert (await peer.message())[0].seq == received


async def test_an_input_that_has_nothing_is_not_asked_again(pipe: Pipe) -> None:
    async with begun(pipe) as (program, task, peer, _):
        await until(lambda: program.session.legs)
        await turns()
        asked = []

        class Impatient:
            def read_into(self, view: memoryview) -> int | None:
                asked.append(len(view))
                return None

        patient, program.source = program.source, Impatient()
        heard_us = program.session.legs[0].heard_us
        await peer.say(all_arrived(0, 0))
        await until(lambda: program.session.legs[0].heard_us > heard_us)
        await turns()
        program.source = patient
        assert asked == []
        pipe.close_write()
        assert await frames(peer) == b""
        await confirm(peer, task, 0)


# How it ends ------------------------------------------------------------------------------------------------


async def test_rx_gives_up_and_says_why(pipe: Pipe) -> None:
    async with begun(pipe) as (_, task, peer, _):
        await peer.say(encode_reason(Kind.REFUSAL, "disk full"))
        with pytest.raises(RemoteFailed, match="the receiver gave up: disk full"):
            await task


@pytest.mark.parametrize(
    ("verdict", "reason"), [(Verdict.CHECKPHRASE, "another checkphrase"), (Verdict.VERSION, "another version")]
)
async def test_a_refusal_that_is_final(pipe: Pipe, verdict: Verdict, reason: str) -> None:
    with nonblocking_server() as server:
        async with transmitting(pipe.read_fd, server.getsockname()[1]) as (_, task):
            peer, _ = await accept_leg(server, Answer(verdict))
            with peer.sock, pytest.raises(SessionRefused, match=reason):
                await task


async def test_another_versions_receiver(pipe: Pipe) -> None:
    with nonblocking_server() as server:
        async with transmitting(pipe.read_fd, server.getsockname()[1]) as (_, task):
            sock, _ = await asyncio.get_running_loop().sock_accept(server)
            with sock:
                await Peer(sock).say(b"vmlp\x09")
                with pytest.raises(SessionRefused, match=f"speaks version 9 of the protocol, we {VERSION}"):
                    await task


async def test_a_busy_receiver_is_asked_again(pipe: Pipe) -> None:
    pipe.close_write()
    with nonblocking_server() as server:
        async with transmitting(pipe.read_fd, server.getsockname()[1]) as (program, task):
            peer, _ = await accept_leg(server, Answer(Verdict.BUSY))
            with peer.sock:
                await until(lambda: program.session.book.failures())
            assert "busy" in program.session.book.failures()[0]
            again, _ = await accept_leg(server)
            with again.sock:
                assert await frames(again) == b""
                await confirm(again, task, 0)


async def test_nobody_listens(pipe: Pipe) -> None:
    with socket.socket() as closed:
        closed.bind((HOST, 0))
        port = closed.getsockname()[1]
        async with transmitting(pipe.read_fd, port, wait_us=S_US) as (_, task):
            with pytest.raises(NoContact, match=f"no contact: {HOST}:{port}: Connection refused"):
                await task


async def test_a_receiver_that_starts_later_is_found(pipe: Pipe) -> None:
    pipe.close_write()
    with socket.socket() as server:
        server.bind((HOST, 0))
        server.setblocking(False)
        async with transmitting(pipe.read_fd, server.getsockname()[1]) as (program, task):
            await until(lambda: program.session.book.states[0].failures >= 2)
            server.listen()
            peer, _ = await accept_leg(server)
            with peer.sock:
                assert await frames(peer) == b""
                await confirm(peer, task, 0)
        assert program.session.book.failures() == []


async def test_a_receiver_that_died_is_not_waited_for(pipe: Pipe) -> None:
    async with begun(pipe, regroup_us=50 * MS_US) as (_, task, peer, server):
        server.close()
        peer.sock.close()
        with pytest.raises(PeerLost, match="the other process is gone; 0 bytes were delivered"):
            await task


async def told(server: socket.socket) -> tuple[int, str]:
    """The leg, and the reason that tx gives on it."""
    peer, heard = await accept_leg(server)
    with peer.sock:
        _, payload = await peer.hear(Kind.ABORT)
        return heard.leg, decode_reason(payload)


async def test_an_input_that_fails_is_told_to_rx_on_every_way(tmp_path: Any) -> None:
    with nonblocking_server() as server:
        fd = os.open(tmp_path, os.O_RDONLY)
        try:
            async with transmitting(fd, server.getsockname()[1]) as (_, task):
                peer, _ = await accept_leg(server)
                with peer.sock:
                    reason = "cannot read the input: Is a directory"
                    assert decode_reason((await peer.hear(Kind.ABORT))[1]) == reason
                    assert await told(server) == (FAREWELL_LEG, reason)
                    with pytest.raises(LocalIOError, match=reason):
                        await task
        finally:
            os.close(fd)


async def test_a_signal_is_told_to_rx_even_behind_frames_that_nobody_reads(pipe: Pipe) -> None:
    async with begun(pipe, frame_bytes=16 * MIB) as (program, task, peer, server):
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        os.set_blocking(pipe.write_fd, False)
        while not program.connections[0]._buffers:  # until the leg takes no more
            with contextlib.suppress(BlockingIOError):
                os.write(pipe.write_fd, bytes(64 * KIB))
            await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGINT)
        assert await told(server) == (FAREWELL_LEG, "interrupted")
        with pytest.raises(Interrupted):
            await task


async def test_before_the_first_contact_there_is_nobody_to_tell(pipe: Pipe) -> None:
    with socket.socket() as closed:
        closed.bind((HOST, 0))
        async with transmitting(pipe.read_fd, closed.getsockname()[1]) as (_, task):
            await turns()
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(Interrupted):
                await task


# Both programs at once --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 16 * KIB, 16 * KIB + 1, 3 * MIB + 7])
@pytest.mark.parametrize("threads", [1, 5])
async def test_a_transfer(size: int, threads: int) -> None:
    content = os.urandom(size)
    output, rx, tx = await transfer(content, {}, threads=threads, frame_bytes=16 * KIB)
    assert output == content
    assert rx.session.bye and tx.session.done
    assert rx.strangers == 0 or threads > 1  # a leg that was still greeting when all was done
    assert tx.session.restarts == 0


@pytest.mark.parametrize("checksum", ["none", "tx", "rx"])
async def test_a_transfer_with_checksum_wherever_it_was_asked_for(checksum: str) -> None:
    content = os.urandom(2 * MIB)
    output, rx, tx = await transfer(content, {"checksum": checksum == "rx"}, checksum=checksum == "tx", threads=3)
    assert output == content
    assert rx.session.checksum is tx.session.checksum is (checksum != "none")


async def test_the_smaller_window_of_the_two_counts() -> None:
    content = os.urandom(2 * MIB)
    output, rx, tx = await transfer(content, {"window_bytes": 64 * KIB}, frame_bytes=16 * KIB, threads=2)
    assert output == content
    assert tx.session.window.window_bytes == rx.session.reassembly.window_bytes == 64 * KIB


async def test_every_leg_is_numbered_and_the_config_is_kept(pipe: Pipe) -> None:
    async with begun(pipe, threads=3, checksum=True) as (program, _, _, server):
        legs: set[int] = set()
        with contextlib.ExitStack() as stack:
            while legs != {1, 2}:  # on a busy machine one may have been given up and dialled anew
                other, heard = await accept_leg(server)
                stack.enter_context(other.sock)
                legs.add(heard.leg)
                assert heard.leg in (1, 2) and heard.features == FEATURE_CHECKSUM
        assert program.config == TxConfig(
            verbose=0, threads=3, checksum=True, addresses=(Address(HOST, server.getsockname()[1]),)
        )
