"""Standard input and output as what they are, and as they were when somebody else gets them back."""

import asyncio
import contextlib
import errno
import fcntl
import os
import queue
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.aio.drive import Pipe, until
from viamillipede.aio.descriptors import PIPE_BYTES, Closer, PipeEnd, Worker, is_pipe, is_socket, open_socket


@contextlib.contextmanager
def opened(path: str | Path, flags: int = os.O_RDWR) -> Iterator[int]:
    """A descriptor of a file."""
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.fixture
def no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system on which a pipe cannot be opened anew."""
    real = os.open

    def without_proc(path: str, *rest: int) -> int:
        if str(path).startswith("/proc/"):
            raise FileNotFoundError(2, "No such file or directory")
        return real(path, *rest)

    monkeypatch.setattr(os, "open", without_proc)


def test_what_is_a_pipe_and_what_is_a_socket(pipe: Pipe, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    one, other = socket.socketpair()
    with opened(tmp_path / "fifo") as fifo, opened(tmp_path / "file") as file, opened(os.devnull) as null, one, other:
        assert [is_pipe(fd) for fd in (pipe.read_fd, pipe.write_fd, fifo)] == [True] * 3
        assert not any(is_pipe(fd) for fd in (file, null, one.fileno()))
        assert is_socket(one.fileno())
        assert not any(is_socket(fd) for fd in (pipe.read_fd, fifo, file, null))


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY])
@pytest.mark.parametrize("was_blocking", [True, False])
def test_the_shared_description_is_left_alone(pipe: Pipe, flags: int, was_blocking: bool) -> None:
    shared = pipe.read_fd if flags == os.O_RDONLY else pipe.write_fd
    os.set_blocking(shared, was_blocking)
    end = PipeEnd(shared, flags)
    assert end.fd != shared and not os.get_blocking(end.fd) and not os.get_inheritable(end.fd)
    assert os.get_blocking(shared) is was_blocking
    end.close()
    end.close()
    assert os.get_blocking(shared) is was_blocking


@pytest.mark.parametrize("was_blocking", [True, False])
@pytest.mark.usefixtures("no_proc")
def test_without_proc_the_flag_is_borrowed_and_given_back(pipe: Pipe, was_blocking: bool) -> None:
    os.set_blocking(pipe.read_fd, was_blocking)
    end = PipeEnd(pipe.read_fd, os.O_RDONLY)
    assert end.fd == pipe.read_fd and not os.get_blocking(pipe.read_fd)
    end.close()
    assert os.get_blocking(pipe.read_fd) is was_blocking
    os.set_blocking(pipe.read_fd, not was_blocking)
    end.close()  # the second time it has nothing to give back
    assert os.get_blocking(pipe.read_fd) is not was_blocking


def test_a_pipe_whose_reader_has_gone_can_be_opened_still(pipe: Pipe) -> None:
    pipe.close_read()
    end = PipeEnd(pipe.write_fd, os.O_WRONLY)  # open(2) of it fails with ENXIO
    with pytest.raises(BrokenPipeError):
        os.write(end.fd, b"x")
    end.close()


@pytest.mark.skipif(not hasattr(fcntl, "F_GETPIPE_SZ"), reason="pipes have one size here")
def test_the_pipe_is_made_large(pipe: Pipe) -> None:
    with contextlib.closing(PipeEnd(pipe.read_fd, os.O_RDONLY)):
        assert fcntl.fcntl(pipe.write_fd, fcntl.F_GETPIPE_SZ) == PIPE_BYTES


def test_a_pipe_that_may_not_be_made_large_is_used_as_it_is(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def over_the_limit(*_: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(fcntl, "fcntl", over_the_limit)
    with contextlib.closing(PipeEnd(pipe.read_fd, os.O_RDONLY)) as end:
        os.write(pipe.write_fd, b"x")
        assert os.read(end.fd, 2) == b"x"


def test_what_is_closed_ends_but_keeps_its_number_even_without_a_descriptor_left(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    closer = Closer(pipe.write_fd)

    def none_left(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    for name in ("open", "dup"):
        monkeypatch.setattr(os, name, none_left)
    closer.close()
    closer.close()
    closer.release()
    monkeypatch.undo()
    assert os.read(pipe.read_fd, 1) == b""
    assert os.fstat(pipe.write_fd).st_rdev == os.stat(os.devnull).st_rdev


def test_a_socket_object_of_its_own() -> None:
    one, other = socket.socketpair()
    with one, other:
        with open_socket(one.fileno()) as mine:
            assert mine.fileno() != one.fileno()
            mine.send(b"x")
        one.send(b"y")  # still open
        assert other.recv(1) + other.recv(1) == b"xy"


async def test_a_worker_hands_back_results_and_errors_in_order() -> None:
    loop, results = asyncio.get_running_loop(), []
    worker = Worker(loop, "input")
    threads: list[str] = []

    def failing() -> int:
        raise IsADirectoryError(21, "Is a directory")

    def working() -> int:
        threads.append(threading.current_thread().name)
        return 5

    def on_result(result: int | OSError) -> None:
        threads.append(threading.current_thread().name)
        results.append(result)

    for call in (working, failing, lambda: 7):
        worker.submit(call, on_result)
    await until(lambda: len(results) == 3)
    assert results[0] == 5 and isinstance(results[1], IsADirectoryError) and results[2] == 7
    assert threads.count("input") == 1 and threads.count(threading.current_thread().name) == 3


def test_a_worker_does_not_keep_the_program_nor_mind_its_end() -> None:
    gate: queue.SimpleQueue[int] = queue.SimpleQueue()
    after = threading.Event()
    results: list[int | OSError] = []

    async def begin() -> Worker:
        worker = Worker(asyncio.get_running_loop(), "output")
        worker.submit(gate.get, results.append)
        return worker

    def next_call() -> int:
        after.set()
        return 2

    worker = asyncio.run(begin())
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "output")
    gate.put(1)  # the loop that wanted this is closed: nobody is told, nothing is raised
    worker.submit(next_call, results.append)
    assert after.wait(10)
    assert results == []
