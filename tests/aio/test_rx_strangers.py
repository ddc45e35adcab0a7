"""Who else connects to the receiver: refused, counted, logged once, and the stream goes on."""

import contextlib
import re
import socket
from typing import Any

import pytest

from tests.aio.drive import Pipe, begun, connect, data, end, finish, greeting, leg_to, receiving, take, turns, until
from viamillipede.aio import handshake
from viamillipede.aio import listener as module
from viamillipede.config import LEGS_MAX, MS_US
from viamillipede.protocol.wire import ANSWER_BYTES, VERSION, Kind, Verdict, decode_answer_untrusted

ANOTHER = f"it speaks version {VERSION + 1} of the protocol, we {VERSION}"

OTHER_VERSION = bytes([*b"vmlp", VERSION + 1])
STRANGERS = {
    "HTTP": (b"GET / HTTP/1.1\r\nHost: example\r\n\r\n", None, "not viamillipede"),
    "random": (bytes(range(200, 256)) * 4, None, "not viamillipede"),
    "port scan": (b"", None, "closed before it greeted"),
    "half a greeting": (greeting()[:40], None, "closed in its greeting"),
    "a damaged greeting": (greeting()[:-1] + b"\0", None, "damaged greeting: its hash is wrong"),
    "another version": (
        OTHER_VERSION,
        Verdict.VERSION,
        ANOTHER,
    ),
    "another session": (greeting(session=bytes(15) + b"x"), Verdict.BUSY, "it belongs to another stream"),
    "another checkphrase": (greeting(checkphrase=b"else"), Verdict.CHECKPHRASE, "it has another checkphrase"),
    "another receiver": (greeting(receiver=b"somebody"), Verdict.UNKNOWN, "it looks for another receiver"),
    "a leg that cannot be": (greeting(LEGS_MAX), Verdict.MALFORMED, "its greeting has values that cannot be"),
}


@pytest.mark.parametrize("kind", STRANGERS)
async def test_a_stranger_is_refused_and_disturbs_nothing(
    pipe: Pipe, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    greets, verdict, reason = STRANGERS[kind]
    async with begun(pipe, verbose=1) as (program, task, peer):
        for count in (1, 2):
            stranger = await connect(program.listener.port)
            with stranger.sock:
                await stranger.say(greets)
                if verdict is None:
                    stranger.sock.shutdown(1)
                else:
                    answer = decode_answer_untrusted(await stranger.exactly(ANSWER_BYTES))
                    assert answer.verdict is verdict and answer.receiver == bytes(8)
                with contextlib.suppress(ConnectionResetError):
                    assert await stranger.end() == b""
            await until(lambda: program.strangers == count)  # noqa: B023
        assert len(program.connections) == 1
        await peer.say(data(1, 5, b"x") + end(2, 6))
        assert await take(pipe.read_fd) == b"x"
        await finish(peer, task, 6)
    told = capfd.readouterr().err
    assert told.count("refused a connection from ") == 1
    assert re.search(rf" from 127\.0\.0\.1:\d+: {reason}; further ones are only counted$", told, re.MULTILINE)


async def test_a_greeting_that_never_ends(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "GREETING_US", 50 * MS_US)
    async with begun(pipe) as (program, _, _):
        stranger = await connect(program.listener.port)
        with stranger.sock:
            await stranger.say(greeting()[:10])
            assert await stranger.end() == b""
        assert program.strangers == 1


async def test_strangers_are_bounded_and_the_oldest_goes(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STRANGERS_MAX", 100)
    async with begun(pipe) as (program, task, peer):
        with contextlib.ExitStack() as stack:
            port, most = program.listener.port, 0
            for count in range(1, 501):
                stack.enter_context((await connect(port)).sock)
                await until(lambda: len(program.listener._ungreeted) + program.strangers == count)  # noqa: B023
                most = max(most, len(program.listener._ungreeted))
            assert most == 100 and program.strangers == 400
            await peer.say(end(1, 5))
            await finish(peer, task, 5)


async def test_a_crowd_in_one_turn_is_bounded_too(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STRANGERS_MAX", 100)
    async with begun(pipe) as (program, task, peer):
        with contextlib.ExitStack() as stack:
            address = program.listener.sockets[0].getsockname()
            for _ in range(500):  # blocking: the loop sees them all at once
                stack.enter_context(socket.create_connection(address))
            await until(lambda: len(program.listener._ungreeted) + program.strangers == 500)
            assert len(program.listener._ungreeted) == 100
            await peer.say(end(1, 5))
            await finish(peer, task, 5)


class ExhaustedOnce:
    """A listener that has no descriptor for the first connection."""

    def __init__(self, listener: Any) -> None:
        self._listener, self.failures = listener, 0

    def accept(self) -> Any:
        """As socket.accept."""
        self.failures += 1
        if self.failures == 1:
            raise OSError(24, "Too many open files")
        return self._listener.accept()

    def fileno(self) -> int:
        """As socket.fileno."""
        number: int = self._listener.fileno()
        return number


async def test_without_descriptors_it_accepts_a_second_later(pipe: Pipe, capfd: pytest.CaptureFixture[str]) -> None:
    async with receiving(pipe.write_fd, verbose=1) as (program, _, port):
        await turns()
        assert program.listener is not None
        program.listener._accept(ExhaustedOnce(program.listener.sockets[0]))  # type: ignore[arg-type]
        assert "cannot accept a connection: Too many open files" in capfd.readouterr().err
        async with leg_to(port) as peer:
            await peer.hear(Kind.ACK)
