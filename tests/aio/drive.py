"""Made-up surroundings for the shell: pipes, connections, peers played by hand, programs in this process."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

from viamillipede.aio.program import Program
from viamillipede.aio.rx import Receiver
from viamillipede.aio.sink import open_sink
from viamillipede.aio.source import open_source
from viamillipede.aio.tx import Transmitter
from viamillipede.config import KIB, MIB, Address, RxConfig, TxConfig
from viamillipede.errors import Interrupted
from viamillipede.protocol.wire import (
    ANSWER_BYTES,
    GREETING_BYTES,
    HEADER_BYTES,
    Ack,
    Answer,
    Greeting,
    Header,
    Kind,
    Verdict,
    Waiting,
    decode_ack_untrusted,
    decode_answer_untrusted,
    decode_greeting_untrusted,
    decode_header_untrusted,
    encode_control,
    encode_header,
)

SESSION = bytes(range(1, 17))
RECEIVER = b"receiver"
ALL_KINDS = frozenset(Kind)
HOST = "127.0.0.1"


# Time and waiting -------------------------------------------------------------------------------------------


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that nobody announces; the test's own limit bounds it."""
    while not condition():  # noqa: ASYNC110 nobody sets an Event for a test
        await asyncio.sleep(0.001)


async def turns(count: int = 5) -> None:
    """Let the loop poll a few times, so that what would happen has happened."""
    for _ in range(count):
        await asyncio.sleep(0.001)


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


async def readable(fd: int) -> None:
    """Until the descriptor has something, or has ended."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(fd, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


async def take(fd: int, count: int | None = None) -> bytes:
    """Read `count` bytes of a pipe, or all until its end."""
    os.set_blocking(fd, False)
    taken = bytearray()
    while count is None or len(taken) < count:
        try:
            data = os.read(fd, MIB if count is None else count - len(taken))
        except BlockingIOError:
            await readable(fd)
            continue
        if not data:
            break
        taken += data
    return bytes(taken)


async def give(fd: int, data: bytes) -> None:
    """Write all of it to a pipe."""
    os.set_blocking(fd, False)
    loop, view = asyncio.get_running_loop(), memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            room = loop.create_future()
            loop.add_writer(fd, _wake, room)
            try:
                await room
            finally:
                loop.remove_writer(fd)


def fill(write: Callable[[bytes], int]) -> int:
    """Write until nothing more is taken; how many bytes that were."""
    total = 0
    for size in (64 * KIB, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                total += write(bytes(size))
    return total


class Pipe:
    """Both ends of a pipe; each can be closed early."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd, self.write_fd = read_fd, write_fd

    def close_read(self) -> None:
        """Nobody reads any more. Idempotent, as the other two."""
        if self.read_fd >= 0:
            os.close(self.read_fd)
        self.read_fd = -1

    def close_write(self) -> None:
        """Nobody writes any more."""
        if self.write_fd >= 0:
            os.close(self.write_fd)
        self.write_fd = -1

    def close(self) -> None:
        """Both ends."""
        self.close_read()
        self.close_write()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """The two non-blocking ends of a TCP connection over loopback: who connected, who accepted."""
    with socket.create_server((HOST, 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    one.setblocking(False)
    other.setblocking(False)
    return one, other


# Peers played by hand ---------------------------------------------------------------------------------------


class Peer:
    """One leg's other end, played by the test."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()

    async def say(self, data: bytes) -> None:
        """Send all of it."""
        await self._loop.sock_sendall(self.sock, data)

    async def exactly(self, count: int) -> bytes:
        """Receive so many bytes; EOFError if they do not come."""
        received = bytearray()
        while len(received) < count:
            data = await self._loop.sock_recv(self.sock, count - len(received))
            if not data:
                raise EOFError(f"{len(received)} of {count} bytes")
            received += data
        return bytes(received)

    async def message(self) -> tuple[Header, bytes]:
        """The next message and its payload; that tx is alive is no news."""
        while True:
            header = decode_header_untrusted(await self.exactly(HEADER_BYTES), ALL_KINDS)
            if header.kind is not Kind.BEAT:
                return header, await self.exactly(header.length)

    async def hear(self, kind: Kind) -> tuple[Header, bytes]:
        """The next message of this kind; others are skipped."""
        while True:
            header, payload = await self.message()
            if header.kind is kind:
                return header, payload

    async def hear_ack(self, accept: Callable[[Ack], bool]) -> Ack:
        """The first acknowledgement that says what the test waits for."""
        while True:
            ack = decode_ack_untrusted(*await self.hear(Kind.ACK))
            if accept(ack):
                return ack

    async def end(self) -> bytes:
        """What still comes until the other side closes. ConnectionResetError if it does so rudely."""
        rest = bytearray()
        while data := await self._loop.sock_recv(self.sock, 64 * KIB):
            rest += data
        return bytes(rest)


def greeting(leg: int = 0, **values: Any) -> bytes:
    """A transmitter's greeting that a receiver accepts, unless `values` spoil it."""
    fields = {
        "session": SESSION, "receiver": bytes(8), "checkphrase": bytes(4),
        "features": 0, "window_bytes": 64 * MIB, "frame_bytes": MIB,
    }  # fmt: skip
    return Greeting(leg=leg, **(fields | values)).encode()  # type: ignore[arg-type]


async def connect(port: int) -> Peer:
    """A connection to a receiver."""
    sock = socket.socket()
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (HOST, port))
    except BaseException:
        sock.close()
        raise
    return Peer(sock)


@contextlib.asynccontextmanager
async def leg_to(port: int, leg: int = 0, **values: Any) -> AsyncIterator[Peer]:
    """A leg that the receiver has accepted."""
    peer = await connect(port)
    with peer.sock:
        await peer.say(greeting(leg, **values))
        answer = decode_answer_untrusted(await peer.exactly(ANSWER_BYTES))
        assert answer.verdict is Verdict.ACCEPTED
        yield peer


async def accept_leg(listener: socket.socket, answer: Answer | None = None) -> tuple[Peer, Greeting]:
    """A transmitter's leg, greeted and answered: with acceptance, unless `answer` says otherwise."""
    sock, _ = await asyncio.get_running_loop().sock_accept(listener)
    peer = Peer(sock)
    try:
        heard = decode_greeting_untrusted(await peer.exactly(GREETING_BYTES))
        answer = answer or Answer(Verdict.ACCEPTED, heard.features, RECEIVER, 64 * MIB)
        await peer.say(answer.encode())
        if answer.verdict is Verdict.ACCEPTED:  # a leg is first told how things stand
            await peer.say(Ack(0, 0, Waiting.FRAME, 0).encode())
    except BaseException:
        sock.close()
        raise
    return peer, heard


def data(seq: int, offset: int, payload: bytes) -> bytes:
    """A data frame without a checksum."""
    return encode_header(Kind.DATA, len(payload), seq, offset, 0) + payload


def all_arrived(next_seq: int, written: int, waiting: Waiting = Waiting.FRAME) -> bytes:
    """The acknowledgement of a receiver that has everything below `next_seq`."""
    return Ack(next_seq, written, waiting, next_seq).encode()


@contextlib.contextmanager
def nonblocking_server() -> Any:
    """A listening socket for a receiver played by hand."""
    with socket.create_server((HOST, 0)) as listener:
        listener.setblocking(False)
        yield listener


# Programs ---------------------------------------------------------------------------------------------------


async def _finish(program: Program, task: "asyncio.Task[None]") -> None:
    """However the test went, the program ends now."""
    if not task.done():
        program.fail(Interrupted("the test is over"))
        program.hurry.set()
    await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def receiving(fd: int, *ports: int, **words: Any) -> AsyncIterator[tuple[Receiver, "asyncio.Task[None]", int]]:
    """A receiver that writes to `fd`, and dials these ports, if any: the program, its task, its own port or 0."""
    addresses = tuple(Address(HOST, port) for port in ports)
    program = Receiver(RxConfig(**({"verbose": 0, "bind": HOST, "addresses": addresses} | words)))  # type: ignore[arg-type]
    try:
        with open_sink(fd, program.on_output_open, program.on_output_gone) as sink:
            program.use(sink)
            task = asyncio.create_task(program.run())
            try:
                yield program, task, program.listener.port if program.listener else 0
            finally:
                await _finish(program, task)
    finally:
        program.stop()


@contextlib.asynccontextmanager
async def transmitting(fd: int, *ports: int, **words: Any) -> AsyncIterator[tuple[Transmitter, "asyncio.Task[None]"]]:
    """A transmitter that reads `fd` and dials these ports, or listens if there is none: the program and its task."""
    addresses = tuple(Address(HOST, port) for port in ports)
    config = TxConfig(**({"verbose": 0, "threads": 1, "addresses": addresses} | words))  # type: ignore[arg-type]
    program = Transmitter(config)
    try:
        with open_source(fd, program.on_input_ready) as program.source:
            task = asyncio.create_task(program.run())
            try:
                yield program, task
            finally:
                await _finish(program, task)
    finally:
        program.stop()


async def transfer(content: bytes, rx_words: dict[str, Any], **words: Any) -> tuple[bytes, Receiver, Transmitter]:
    """Both programs in one loop, from a pipe to a pipe: what came out, and the programs after their end."""
    source, target = Pipe(*os.pipe()), Pipe(*os.pipe())

    async def give_all() -> None:
        await give(source.write_fd, content)
        source.close_write()

    try:
        async with (
            receiving(target.write_fd, **rx_words) as (receiver, rx_task, port),
            transmitting(source.read_fd, port, **words) as (transmitter, tx_task),
            asyncio.TaskGroup() as group,
        ):
            group.create_task(give_all())
            output = group.create_task(take(target.read_fd))
            for task in (tx_task, rx_task):
                await task
        return output.result(), receiver, transmitter
    finally:
        source.close()
        target.close()


# A receiver's stream, played by hand -----------------------------------------------------------------------

BYE = encode_control(Kind.BYE)


def end(seq: int, total: int) -> bytes:
    """The end frame."""
    return encode_control(Kind.END, seq, total)


async def finish(peer: Peer, task: "asyncio.Task[None]", total: int) -> None:
    """DONE is heard, BYE is said, the program ends well."""
    header, payload = await peer.message()
    while header.kind is not Kind.DONE:
        if header.kind is Kind.DIGEST:
            await peer.say(encode_control(Kind.SUM, payload=payload))
        header, payload = await peer.message()
    assert header.offset == total
    await peer.say(BYE)
    await task


@contextlib.asynccontextmanager
async def begun(pipe: Pipe, **words: Any) -> AsyncIterator[tuple[Any, "asyncio.Task[None]", Peer]]:
    """A stream of which five bytes were delivered."""
    async with receiving(pipe.write_fd, **words) as (program, task, port), leg_to(port) as peer:
        await peer.say(data(0, 0, b"hello"))
        assert await take(pipe.read_fd, 5) == b"hello"
        yield program, task, peer
