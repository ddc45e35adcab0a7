"""Standard input, whatever it is: read without blocking, to its end, and left as it was found."""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.aio.drive import Pipe, fill, turns, until
from viamillipede.aio.source import FILE_READ_BYTES, FileSource, Source, open_source
from viamillipede.errors import LocalIOError


class Reader:
    """Reads a source as tx does: when told, as much as there is."""

    def __init__(self, source: Source, ready: list[int], size: int) -> None:
        self._source, self._ready = source, ready
        self._view = memoryview(bytearray(size))
        self.pieces: list[int] = []

    def once(self) -> bytes | None:
        """What there is now; b"" at the end, None for nothing yet."""
        count = self._source.read_into(self._view)
        if count is None:
            return None
        self.pieces.append(count)
        return bytes(self._view[:count])

    async def next(self) -> bytes:
        """The next bytes, waiting for them."""
        while (data := self.once()) is None:
            calls = len(self._ready)
            await until(lambda: len(self._ready) > calls)  # noqa: B023 called in this turn only
        return data

    async def all(self) -> bytes:
        """Everything up to the end."""
        whole = bytearray()
        while data := await self.next():
            whole += data
        return bytes(whole)


@contextlib.contextmanager
def reading(fd: int, size: int = 1 << 20) -> Iterator[tuple[Reader, list[int]]]:
    """A reader of `fd`, and a list that grows with each call of on_ready."""
    ready: list[int] = []
    with open_source(fd, lambda: ready.append(1)) as source:
        yield Reader(source, ready, size), ready


@pytest.fixture(params=["pipe", "fifo", "fallback", "tcp", "socketpair"])
def feed(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Everything that can be polled: (fd to read, send, end)."""
    with contextlib.ExitStack() as stack:
        if request.param in ("tcp", "socketpair"):
            if request.param == "tcp":
                one, other = stack.enter_context(contextlib.closing(_Tcp())).pair
            else:
                one, other = socket.socketpair()
            with one, other:
                yield one.fileno(), other.send, lambda: other.shutdown(socket.SHUT_WR)
            return
        if request.param == "fifo":
            os.mkfifo(tmp_path / "fifo")
            read_fd = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
            os.set_blocking(read_fd, True)
            pipe = Pipe(read_fd, os.open(tmp_path / "fifo", os.O_WRONLY))
        else:
            pipe = Pipe(*os.pipe())
        if request.param == "fallback":
            monkeypatch.setattr(os, "open", _refuse)
        stack.callback(pipe.close)
        yield pipe.read_fd, lambda data: os.write(pipe.write_fd, data), pipe.close_write


class _Tcp:
    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.pair = socket.create_connection(listener.getsockname()), listener.accept()[0]

    def close(self) -> None:
        for sock in self.pair:
            sock.close()


def _refuse(*_: object) -> int:
    raise PermissionError(13, "Permission denied")


Feed = tuple[int, Callable[[bytes], int], Callable[[], None]]


async def test_what_is_there_is_read_and_then_the_end(feed: Feed) -> None:
    fd, send, end = feed
    with reading(fd) as (reader, ready):
        assert reader.once() is None and reader.once() is None
        await turns()
        assert ready == []
        send(b"hello")
        await until(lambda: ready)
        await turns()
        assert ready == [1]  # asked once, called once
        assert reader.once() == b"hello"
        send(b"again")
        assert await reader.next() == b"again"
        end()
        assert await reader.next() == b""
        assert reader.once() == b""


async def test_not_more_is_read_than_was_asked_for(feed: Feed) -> None:
    fd, send, end = feed
    with reading(fd, size=3) as (reader, _):
        send(b"0123456789")
        end()
        assert await reader.all() == b"0123456789"
        assert max(reader.pieces) == 3


async def test_the_shared_flag_is_as_it_was(feed: Feed) -> None:
    fd, send, _ = feed
    assert os.get_blocking(fd)
    with reading(fd) as (reader, _):
        assert reader.once() is None  # the loop has it now
        send(b"x")
        await reader.next()
    assert os.get_blocking(fd)
    send(b"y")
    assert os.read(fd, 2) == b"y"  # and the descriptor is still there


async def test_nothing_fires_after_the_source_was_closed(feed: Feed) -> None:
    fd, send, _ = feed
    with reading(fd) as (reader, ready):
        assert reader.once() is None
    send(b"x")
    await turns()
    assert ready == []


async def test_a_full_pipe_is_read_whole(pipe: Pipe) -> None:
    os.set_blocking(pipe.write_fd, False)
    with reading(pipe.read_fd) as (reader, _):
        count = fill(lambda data: os.write(pipe.write_fd, data))
        pipe.close_write()
        assert len(await reader.all()) == count
        assert len(reader.pieces) <= 3  # in large pieces, not byte by byte


async def test_a_reset_connection_is_an_input_error(pair: Any) -> None:
    pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    with reading(pair[0].fileno()) as (reader, _):
        assert reader.once() is None
        pair[1].close()
        with pytest.raises(LocalIOError, match="cannot read the input: Connection reset by peer"):
            await reader.next()


@pytest.mark.parametrize("size", [0, 1, FILE_READ_BYTES, FILE_READ_BYTES + 1, 3 * FILE_READ_BYTES - 1])
@pytest.mark.parametrize("piece", [100_000, FILE_READ_BYTES, 2 * FILE_READ_BYTES])
async def test_a_file_is_read_whole(tmp_path: Path, size: int, piece: int) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        with reading(fd, piece) as (reader, _):
            assert await reader.all() == content
            assert reader.once() == b""
    finally:
        os.close(fd)


async def test_a_device_without_end_is_read_ahead_by_a_buffer_only() -> None:
    fd = os.open("/dev/zero", os.O_RDONLY)
    try:
        with reading(fd) as (reader, ready):
            assert reader.once() is None
            assert reader.once() is None  # one read at a time
            await until(lambda: ready)
            assert reader.once() == bytes(FILE_READ_BYTES)
            await until(lambda: len(ready) == 2)  # reads on by itself
            await turns()
            assert len(ready) == 2  # but no further
            assert await reader.next() == bytes(FILE_READ_BYTES)
            await until(lambda: len(ready) == 3)
    finally:
        os.close(fd)


async def test_a_folder_is_an_input_error(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with reading(fd) as (reader, _):
            for _ in range(2):  # and stays one
                with pytest.raises(LocalIOError, match="cannot read the input: Is a directory"):
                    await reader.next()
    finally:
        os.close(fd)


async def test_an_error_waits_until_what_was_read_before_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"before")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        with reading(fd, size=4) as (reader, ready):
            assert reader.once() is None
            await until(lambda: ready)

            def fail(*_: object) -> int:
                raise OSError(5, "Input/output error")

            monkeypatch.setattr(os, "readv", fail)
            assert reader.once() == b"befo"
            assert reader.once() == b"re"
            with pytest.raises(LocalIOError, match="Input/output error"):
                await reader.next()
    finally:
        os.close(fd)


async def test_a_terminal_is_read_by_the_thread() -> None:
    controller, terminal = os.openpty()
    try:
        with reading(terminal) as (reader, _), open_source(terminal, lambda: None) as source:
            assert isinstance(source, FileSource)
            os.write(controller, b"typed\n")
            assert await reader.next() == b"typed\n"
            os.write(controller, b"\x04")  # the thread reads on, and gets the end
            assert await reader.next() == b""
    finally:
        os.close(controller)
        os.close(terminal)
