"""Standard output, whatever it is: written without blocking, ended for its reader, and left as it was found."""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.aio.drive import Pipe, fill, take, turns, until
from viamillipede.aio.sink import CAN_SPLICE, Blocked, FileSink, PipeSink, Sink, open_sink
from viamillipede.aio.sockets import close_with_reset
from viamillipede.errors import LocalIOError

GONE = "the program that reads the output went away"
splices = pytest.mark.skipif(not CAN_SPLICE, reason="no splice(2) here")


class Opened:
    """A sink, and how often it called back."""

    def __init__(self, fd: int) -> None:
        self.opens = self.gone = 0
        self.context = open_sink(fd, self._on_open, self._on_gone)
        self.sink: Sink

    def _on_open(self) -> None:
        self.opens += 1

    def _on_gone(self) -> None:
        self.gone += 1

    async def write(self, data: bytes) -> None:
        """All of it, waiting as rx does."""
        view = memoryview(data)
        while view:
            opens = self.opens
            count = self.sink.write(view)
            if count is None:
                await until(lambda: self.opens > opens)  # noqa: B023 called before the next turn
            else:
                view = view[count:]


@contextlib.contextmanager
def writing(fd: int) -> Iterator[Opened]:
    """A sink on `fd`."""
    opened = Opened(fd)
    with opened.context as opened.sink:
        yield opened


@pytest.fixture(params=["reopened", "fallback"])
def out(request: pytest.FixtureRequest, pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> Pipe:
    """A pipe to write to, which can or cannot be opened anew."""
    if request.param == "fallback":
        real = os.open

        def refuse(path: str, *rest: int) -> int:
            if str(path).startswith("/proc/"):
                raise PermissionError(13, "Permission denied")
            return real(path, *rest)

        monkeypatch.setattr(os, "open", refuse)
    os.set_blocking(pipe.read_fd, False)
    return pipe


# Pipes ------------------------------------------------------------------------------------------------------


async def test_a_pipe_takes_bytes_until_it_is_full_and_says_when_it_is_open(out: Pipe) -> None:
    with writing(out.write_fd) as opened:
        assert isinstance(opened.sink, PipeSink)
        count = fill(lambda data: _taken(opened.sink.write(memoryview(data))))
        assert count >= 65536
        opened.sink.arm()  # twice is once
        await turns()
        assert opened.opens == 0
        assert len(await take(out.read_fd, count)) == count
        await until(lambda: opened.opens)
        await turns()
        assert opened.opens == 1 and opened.gone == 0


def _taken(count: int | None) -> int:
    if count is None:
        raise BlockingIOError
    return count


async def test_drained_is_only_what_the_reader_has_taken(out: Pipe) -> None:
    with writing(out.write_fd) as opened:
        assert opened.sink.drained()
        assert opened.sink.write(memoryview(b"two")) == 3
        assert not opened.sink.drained()
        os.read(out.read_fd, 2)
        assert not opened.sink.drained()
        os.read(out.read_fd, 2)
        assert opened.sink.drained()


async def test_a_closed_pipe_gives_its_reader_the_end_and_keeps_its_number(out: Pipe) -> None:
    with writing(out.write_fd) as opened:
        opened.sink.write(memoryview(b"last"))
        opened.sink.close()
        assert await take(out.read_fd) == b"last"
        assert os.fstat(out.write_fd).st_rdev == os.stat(os.devnull).st_rdev
        await turns()
        assert opened.gone == 0  # a reader that leaves after the end is no failure


async def test_a_pipe_that_was_not_closed_is_as_it_was(out: Pipe) -> None:
    with writing(out.write_fd) as opened:
        fill(lambda data: _taken(opened.sink.write(memoryview(data))))
    assert os.get_blocking(out.write_fd)
    os.set_blocking(out.write_fd, False)
    with pytest.raises(BlockingIOError):
        os.write(out.write_fd, b"x")  # still there, and full
    opens = opened.opens
    os.read(out.read_fd, 1 << 20)
    await turns()
    assert opened.opens == opens  # nothing fires any more


async def test_the_shared_description_stays_blocking(pipe: Pipe) -> None:
    with writing(pipe.write_fd) as opened:
        fill(lambda data: _taken(opened.sink.write(memoryview(data))))
        await turns()
        assert os.get_blocking(pipe.write_fd)


async def test_a_reader_that_goes_is_noticed_while_nothing_is_written(out: Pipe) -> None:
    with writing(out.write_fd) as opened:
        await turns()
        assert opened.gone == 0
        out.close_read()
        await until(lambda: opened.gone)
        await turns()
        assert opened.gone == 1
        with pytest.raises(LocalIOError, match=GONE):
            opened.sink.write(memoryview(b"x"))


async def test_a_reader_that_goes_is_noticed_while_the_pipe_is_full(out: Pipe) -> None:
    with writing(out.write_fd) as opened:
        fill(lambda data: _taken(opened.sink.write(memoryview(data))))
        await turns()
        out.close_read()
        await until(lambda: opened.gone)
        with pytest.raises(LocalIOError, match=GONE):
            opened.sink.write(memoryview(b"x"))


async def test_a_reader_that_went_before_we_came_is_noticed(out: Pipe) -> None:
    out.close_read()
    with writing(out.write_fd) as opened:
        await until(lambda: opened.gone)


# Straight from a socket -------------------------------------------------------------------------------------


@splices
async def test_bytes_move_from_a_socket_to_the_pipe(out: Pipe, pair: Any) -> None:
    with writing(out.write_fd) as opened:
        assert opened.sink.can_direct
        assert opened.sink.direct(pair[0].fileno(), 100) is Blocked.INPUT
        pair[1].send(b"0123456789")
        assert opened.sink.direct(pair[0].fileno(), 4) == 4  # never more than it was told
        assert opened.sink.direct(pair[0].fileno(), 100) == 6
        assert await take(out.read_fd, 10) == b"0123456789"
        assert opened.sink.direct(pair[0].fileno(), 100) is Blocked.INPUT
        pair[1].close()
        assert opened.sink.direct(pair[0].fileno(), 100) == 0


@splices
async def test_a_full_pipe_is_what_blocks(out: Pipe, pair: Any) -> None:
    with writing(out.write_fd) as opened:
        pair[1].send(b"next")
        count = fill(lambda data: _taken(opened.sink.write(memoryview(data))))
        assert opened.sink.direct(pair[0].fileno(), 100) is Blocked.OUTPUT
        opened.sink.arm()
        await take(out.read_fd, count)
        await until(lambda: opened.opens)
        assert opened.sink.direct(pair[0].fileno(), 100) == 4
        assert await take(out.read_fd, 4) == b"next"


@splices
async def test_a_socket_that_fails_is_not_the_outputs_failure(out: Pipe, pair: Any) -> None:
    with writing(out.write_fd) as opened:
        close_with_reset(pair[1])
        with pytest.raises(ConnectionResetError):
            opened.sink.direct(pair[0].fileno(), 100)


@splices
async def test_a_reader_that_went_is_the_outputs_failure(out: Pipe, pair: Any) -> None:
    with writing(out.write_fd) as opened:
        pair[1].send(b"x")
        out.close_read()
        with pytest.raises(LocalIOError, match=GONE):
            opened.sink.direct(pair[0].fileno(), 100)


# Files and devices ------------------------------------------------------------------------------------------


async def test_a_file_is_written_by_the_thread(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    try:
        with writing(fd) as opened:
            assert isinstance(opened.sink, FileSink) and not opened.sink.can_direct
            await opened.write(content)
            assert opened.sink.drained() and opened.gone == 0
            opened.sink.close()
            assert (tmp_path / "file").read_bytes() == content
            assert os.fstat(fd).st_rdev == os.stat(os.devnull).st_rdev
    finally:
        os.close(fd)


async def test_the_same_bytes_offered_again_are_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, real, calls = threading.Event(), os.write, []

    def slow(fd: int, data: bytes) -> int:
        calls.append(fd)
        gate.wait(10)
        return real(fd, data[:4])

    fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    try:
        with writing(fd) as opened:
            monkeypatch.setattr(os, "write", slow)
            view = memoryview(b"0123456789")
            assert opened.sink.write(view) is None and opened.sink.write(view) is None
            assert not opened.sink.drained()
            await turns()
            assert opened.opens == 0
            gate.set()
            await until(lambda: opened.opens)
            assert opened.sink.drained()
            assert opened.sink.write(view) == 4  # what the disk took, not what it was offered
            assert calls == [fd]
            await opened.write(b"456789")
        monkeypatch.undo()
        assert (tmp_path / "file").read_bytes() == b"0123456789"
    finally:
        os.close(fd)


async def test_a_full_disk_is_said_so() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        with writing(fd) as opened:
            with pytest.raises(LocalIOError, match="cannot write the output: No space left on device"):
                await opened.write(b"x")
    finally:
        os.close(fd)


async def test_a_file_system_that_reports_at_close_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    try:
        with writing(fd) as opened:
            await opened.write(b"x")
            real = os.close

            def late(number: int) -> None:
                real(number)
                raise OSError(122, "Disk quota exceeded")

            with monkeypatch.context() as patched, pytest.raises(LocalIOError, match="Disk quota exceeded"):
                patched.setattr(os, "close", late)
                opened.sink.close()
    finally:
        os.close(fd)


# Sockets ----------------------------------------------------------------------------------------------------


async def test_a_socket_is_written_and_half_closed(pair: Any) -> None:
    with writing(pair[0].fileno()) as opened:
        assert not opened.sink.can_direct
        count = fill(lambda data: _taken(opened.sink.write(memoryview(data))))
        await turns()
        assert opened.opens == 0
        received = bytearray()
        while not opened.opens:
            with contextlib.suppress(BlockingIOError):
                received += pair[1].recv(1 << 20)
            await asyncio.sleep(0)
        opened.sink.close()
        while data := await asyncio.get_running_loop().sock_recv(pair[1], 1 << 20):
            received += data
        assert bytes(received) == bytes(count)
        pair[1].send(b"still open in the other direction")
        assert pair[0].fileno() >= 0


async def test_the_flag_of_a_shared_socket_is_as_it_was() -> None:
    one, other = socket.socketpair()
    with one, other:
        with writing(one.fileno()) as opened:
            fill(lambda data: _taken(opened.sink.write(memoryview(data))))
            await turns()
        assert os.get_blocking(one.fileno())


async def test_a_socket_whose_reader_went(pair: Any) -> None:
    with writing(pair[0].fileno()) as opened:
        close_with_reset(pair[1])
        with pytest.raises(LocalIOError, match=GONE):
            opened.sink.write(memoryview(b"x"))
        opened.sink.close()  # nothing more to say to it


@pytest.mark.parametrize("kind", ["file", "socket"])
async def test_only_a_pipe_takes_bytes_from_a_socket(kind: str, pair: Any, tmp_path: Path) -> None:
    fd = os.dup(pair[0].fileno()) if kind == "socket" else os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    try:
        with writing(fd) as opened, pytest.raises(NotImplementedError):
            opened.sink.direct(pair[0].fileno(), 1)
    finally:
        os.close(fd)
