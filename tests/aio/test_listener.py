"""Listening for either role: where, who becomes a leg, who is a stranger, and what strangers may cost.

What a stranger may say to rx is in test_rx_strangers.py.
"""

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.aio.drive import HOST, Peer, Pipe, connect, give, receiving, take, transmitting, turns, until
from viamillipede.aio import handshake
from viamillipede.aio import listener as module
from viamillipede.aio.listener import Listener
from viamillipede.aio.log import Log
from viamillipede.aio.systemd import Service
from viamillipede.config import MS_US, Address
from viamillipede.errors import FrameError, NoContact
from viamillipede.protocol.wire import (
    ANSWER_BYTES,
    VERSION,
    Answer,
    Call,
    Verdict,
    decode_answer_untrusted,
)

ANOTHER = f"it speaks version {VERSION + 1} of the protocol, we {VERSION}"


class Stage:
    """What a listener needs of a program. `legs`: the connections that became one."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.log = Log("rx", 3)
        self.service = Service.taken({})
        self.keys: Any = None
        self.outcome: asyncio.Future[None] = self.loop.create_future()
        self.tasks: set[asyncio.Task[None]] = set()
        self.legs: list[tuple[socket.socket, Address]] = []
        self.error: BaseException | None = None
        self.hold = asyncio.Event()
        self.hold.set()
        self.ending = False

    def spawn(self, coroutine: Any) -> "asyncio.Task[None] | None":
        """As Program.spawn."""
        if self.ending:
            coroutine.close()
            return None
        task = asyncio.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        task.add_done_callback(lambda _: coroutine.close())
        return task

    async def welcome(self, sock: socket.socket, peer: Address) -> None:
        """Every connection is a leg, unless there is an error."""
        await self.hold.wait()
        if self.error is not None:
            raise self.error
        self.legs.append((sock, peer))


@contextlib.asynccontextmanager
async def listening() -> Any:
    """A listener on its stage."""
    stage = Stage()
    listener = Listener(stage, HOST, 0, stage.welcome)  # type: ignore[arg-type]
    listener.start()
    try:
        yield stage, listener
    finally:
        listener.stop()
        for task in list(stage.tasks):
            task.cancel()
        await asyncio.gather(*stage.tasks, return_exceptions=True)
        for sock, _ in stage.legs:
            sock.close()


async def test_it_says_where_it_listens(capfd: pytest.CaptureFixture[str]) -> None:
    async with listening() as (_, listener):
        assert capfd.readouterr().err == f"viamillipede rx: listening on port {listener.port} of {HOST}\n"


async def test_a_leg_keeps_its_socket_and_the_task_ends() -> None:
    async with listening() as (stage, listener):
        peer = await connect(listener.port)
        with peer.sock:
            await until(lambda: stage.legs and not stage.tasks)
            sock, address = stage.legs[0]
            assert str(address) == f"{HOST}:{peer.sock.getsockname()[1]}"
            assert not listener._ungreeted and listener.strangers == 0
            sock.send(b"still open")
            assert await peer.exactly(10) == b"still open"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FrameError("it is odd"), "it is odd"),
        (TimeoutError(), "it did not greet"),
        (ConnectionResetError(104, "reset"), "Connection reset by peer, before it was a leg"),
    ],
)
async def test_a_stranger_is_closed_counted_and_told_of_once(
    error: Exception, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with listening() as (stage, listener):
        stage.log.verbose = 1
        stage.error = error
        for count in (1, 2, 3):
            peer = await connect(listener.port)
            with peer.sock:
                assert await peer.end() == b""
            await until(lambda: listener.strangers == count)  # noqa: B023
        told = re.findall("refused a connection from .*", capfd.readouterr().err)
        assert len(told) == 1 and told[0].endswith(f": {reason}; further ones are only counted")


async def test_at_the_end_nobody_is_a_stranger() -> None:
    async with listening() as (stage, listener):
        stage.error = FrameError("closed before it greeted")
        stage.outcome.set_result(None)
        peer = await connect(listener.port)
        with peer.sock:
            assert await peer.end() == b""
        assert listener.strangers == 0


@pytest.mark.parametrize("begun", [True, False])
async def test_a_task_that_is_cancelled_closes_its_socket(begun: bool) -> None:
    async with listening() as (stage, listener):
        stage.hold.clear()
        with socket.create_connection(listener.sockets[0].getsockname()) as sock:  # no turn of the loop yet
            sock.setblocking(False)
            listener._accept(listener.sockets[0])
            assert len(stage.tasks) == 1
            if begun:
                await turns(2)
            for task in list(stage.tasks):
                task.cancel()
            assert await Peer(sock).end() == b""


async def test_a_program_that_ends_takes_nobody() -> None:
    async with listening() as (stage, listener):
        stage.ending = True
        peer = await connect(listener.port)
        with peer.sock:
            assert await peer.end() == b""
        assert not stage.legs


async def test_the_port_is_given_back() -> None:
    async with listening() as (_, listener):
        port = listener.port
        listener.stop()
        listener.stop()
        with pytest.raises(ConnectionRefusedError):
            await connect(port)


async def test_a_port_that_is_taken() -> None:
    async with listening() as (stage, listener):
        with pytest.raises(NoContact, match=f"cannot listen on {HOST}:{listener.port}: Address already in use"):
            Listener(stage, HOST, listener.port, stage.welcome)


async def test_strangers_are_bounded_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STRANGERS_MAX", 10)
    async with listening() as (stage, listener):
        stage.hold.clear()
        with contextlib.ExitStack() as stack:
            peers = []
            for count in range(1, 16):
                peers.append(await connect(listener.port))
                stack.enter_context(peers[-1].sock)
                await until(lambda: len(listener._ungreeted) + listener.strangers == count)  # noqa: B023
            assert len(listener._ungreeted) == 10 and listener.strangers == 5
            for peer in peers[:5]:
                assert await peer.end() == b""
            stage.hold.set()
            await until(lambda: len(stage.legs) == 10)


@pytest.fixture
def output() -> Iterator[Pipe]:
    """A second pipe, for rx to write to."""
    made = Pipe(*os.pipe())
    yield made
    made.close()


# tx listens -------------------------------------------------------------------------------------------------

CALL = Call(b"somebody", 0, 0, 1, bytes(4))
STRANGERS = {
    "HTTP": (b"GET / HTTP/1.1\r\n", None, "not viamillipede"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", None, "not viamillipede"),
    "port scan": (b"", None, "closed before it called"),
    "half a call": (CALL.encode()[:20], None, "closed in its call"),
    "a damaged call": (CALL.encode()[:-1] + b"\0", None, "damaged call: its hash is wrong"),
    "no answer to our greeting": (b"", None, "closed before it answered"),
    "another version": (bytes([*b"vmlp", VERSION + 1]), Verdict.VERSION, ANOTHER),
    "another receiver": (CALL.encode(), Verdict.BUSY, "it is another receiver than ours"),
    "a path that cannot be": (
        Call(b"receiver", 0, 1, 1, bytes(4)).encode(), Verdict.MALFORMED, "a call with values that cannot be"
    ),
}  # fmt: skip


@contextlib.asynccontextmanager
async def begun(pipe: Pipe, output: Pipe, **words: Any) -> Any:
    """Both programs, tx listening, and five bytes on their way."""
    async with transmitting(pipe.read_fd, bind=HOST, **words) as (tx, tx_task):
        assert tx.listener is not None
        async with receiving(output.write_fd, tx.listener.port) as (rx, rx_task, _):
            await give(pipe.write_fd, b"hello")
            assert await take(output.read_fd, 5) == b"hello"
            yield tx, tx_task, rx, rx_task


@pytest.mark.parametrize("kind", STRANGERS)
async def test_a_stranger_of_tx_disturbs_nothing(
    pipe: Pipe, output: Pipe, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    said, verdict, reason = STRANGERS[kind]
    async with begun(pipe, output, verbose=1) as (tx, tx_task, rx, rx_task):
        if kind == "no answer to our greeting":
            said = Call(rx.session._receiver, 1, 0, 1, bytes(4)).encode()
        stranger = await connect(tx.listener.port)
        with stranger.sock:
            await stranger.say(said)
            stranger.sock.shutdown(socket.SHUT_WR)
            if verdict is not None:
                assert decode_answer_untrusted(await stranger.exactly(ANSWER_BYTES)) == Answer(verdict)
            with contextlib.suppress(ConnectionResetError):
                rest = await stranger.end()
                assert rest == b"" or kind == "no answer to our greeting"
        await until(lambda: tx.strangers == 1)
        assert len(tx.session.legs) == 1
        pipe.close_write()
        assert await take(output.read_fd) == b""
        await asyncio.gather(tx_task, rx_task)
    told = capfd.readouterr().err
    assert re.search(rf" from 127\.0\.0\.1:\d+: {reason}; further ones are only counted$", told, re.MULTILINE)


async def test_a_call_that_never_ends(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "GREETING_US", 50 * MS_US)
    async with transmitting(pipe.read_fd, bind=HOST) as (tx, _):
        assert tx.listener is not None
        stranger = await connect(tx.listener.port)
        with stranger.sock:
            await stranger.say(CALL.encode()[:10])
            assert await stranger.end() == b""
        assert tx.strangers == 1
