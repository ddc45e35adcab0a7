"""A command's output as a source, its input as a sink: what it has, what it takes, and when that is all."""

import asyncio
import fcntl
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.aio.drive import fill, turns, until
from tests.aio.test_command import Heard
from viamillipede.aio.command_ends import CommandSink, CommandSource
from viamillipede.aio.descriptors import PIPE_BYTES
from viamillipede.aio.sink import CAN_SPLICE, Blocked
from viamillipede.errors import LocalIOError

splices = pytest.mark.skipif(not CAN_SPLICE, reason="no splice(2) here")


class Source:
    """A source, and what it has called."""

    def __init__(self, *argv: str) -> None:
        self.readies = 0
        self.failures: list[LocalIOError] = []
        self.source = CommandSource(argv, Heard(), self._on_ready, self.failures.append)

    def _on_ready(self) -> None:
        self.readies += 1

    def read(self, count: int = 100) -> bytes | None:
        """What there is; b"" at the end, None: nothing now."""
        buffer = bytearray(count)
        got = self.source.read_into(memoryview(buffer))
        return None if got is None else bytes(buffer[:got])

    async def read_all(self) -> bytes:
        """As tx does: when there is nothing it waits to be called."""
        data = b""
        while piece := await self.next():
            data += piece
        return data

    async def next(self) -> bytes:
        """The next bytes, waited for."""
        readies = self.readies
        while (piece := self.read()) is None:
            await until(lambda: self.readies > readies)  # noqa: B023 called before the next turn
            readies = self.readies
        return piece

    async def end(self) -> None:
        """The test is over."""
        self.source.command.signal(signal.SIGKILL)
        if self.source.command.started:
            await self.source.command.ended.wait()
        self.source.close()


@asynccontextmanager
async def source(script: str) -> AsyncIterator[Source]:
    """A shell as the source, started."""
    made = Source("/bin/sh", "-c", script)
    made.source.start({})
    try:
        yield made
    finally:
        await made.end()


class Sink:
    """A sink, and what it has called."""

    def __init__(self, *argv: str) -> None:
        self.opens = self.gone = self.exits = 0
        self.sink = CommandSink(argv, Heard(), self._on_open, self._on_gone, self._on_exit)

    def _on_open(self) -> None:
        self.opens += 1

    def _on_gone(self) -> None:
        self.gone += 1

    def _on_exit(self) -> None:
        self.exits += 1

    def write(self, data: bytes) -> int | None:
        """How much it took."""
        return self.sink.write(memoryview(data))

    def fill(self) -> int:
        """Until it takes no more; how much that was."""

        def take(data: bytes) -> int:
            if (count := self.write(data)) is None:
                raise BlockingIOError
            return count

        return fill(take)

    async def end(self) -> None:
        """The test is over."""
        self.sink.command.signal(signal.SIGKILL)
        if self.sink.command.started:
            await self.sink.command.ended.wait()
        self.sink.release()


@asynccontextmanager
async def sink(script: str) -> AsyncIterator[Sink]:
    """A shell as the sink, started."""
    made = Sink("/bin/sh", "-c", script)
    made.sink.start({})
    try:
        yield made
    finally:
        await made.end()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# The source -------------------------------------------------------------------------------------------------


async def test_what_the_source_writes_is_read_until_it_has_succeeded() -> None:
    async with source("echo one; echo two") as made:
        assert await made.read_all() == b"one\ntwo\n"
        assert made.source.command.status == 0 and made.failures == []
        assert made.read() == b"", "the end stays the end"


async def test_the_end_of_its_output_is_no_end_before_it_has_exited(folder: Path) -> None:
    os.mkfifo("go")
    async with source("echo one; exec >&-; : >closed; read -r x <go; exit 0") as made:
        assert await made.next() == b"one\n"
        await until((folder / "closed").exists)
        assert made.read() is None and made.read() is None
        await turns(20)
        assert made.read() is None and made.source.command.status is None
        (folder / "go").write_text("\n")
        assert await made.next() == b""


async def test_its_exit_is_no_end_before_the_end_of_its_output(folder: Path) -> None:
    os.mkfifo("go")
    async with source("(read -r x <go; echo two) & echo one; exit 0") as made:
        assert await made.next() == b"one\n"
        await made.source.command.ended.wait()
        assert made.readies and made.read() is None
        (folder / "go").write_text("\n")
        assert await made.read_all() == b"two\n"


@pytest.mark.parametrize("script", ["echo one; exit 3", "echo one; exec >&-; exit 3", "echo one; kill -KILL $$"])
async def test_when_it_fails_there_is_no_end(script: str) -> None:
    async with source(script) as made:
        assert await made.next() == b"one\n"
        await until(lambda: made.failures)
        how = "was ended by SIGKILL" if "kill" in script else "exited with status 3"
        assert str(made.failures[0]).startswith("the source '/bin/sh -c echo one") and how in str(made.failures[0])
        await turns()
        assert made.read() is None and len(made.failures) == 1


async def test_a_source_that_was_not_started_has_nothing() -> None:
    made = Source("/bin/sh")
    assert made.read() is None
    made.source.close()
    made.source.close()


async def test_the_pipe_is_as_large_as_suits_us() -> None:
    async with source("sleep 60") as made:
        assert fcntl.fcntl(made.source._fd, fcntl.F_GETPIPE_SZ) == PIPE_BYTES
        assert not os.get_blocking(made.source._fd)


# The sink ---------------------------------------------------------------------------------------------------


async def test_before_its_start_a_sink_takes_nothing() -> None:
    made = Sink("/bin/sh")
    assert made.write(b"x") is None
    assert made.sink.direct(0, 1) is Blocked.OUTPUT
    made.sink.arm()
    made.sink.close()
    assert made.sink.drained()
    assert made.sink.can_direct == CAN_SPLICE
    await turns()
    assert (made.opens, made.gone, made.exits) == (0, 0, 0)
    await made.end()
    await made.end()


async def test_what_is_written_is_read_and_the_end_is_seen(folder: Path) -> None:
    async with sink("cat >data; : >eof") as made:
        assert made.write(b"one") == 3
        assert made.write(b"two") == 3
        await until(lambda: made.sink.drained() and (folder / "data").read_bytes() == b"onetwo")
        assert not (folder / "eof").exists()
        made.sink.close()
        made.sink.close()
        await until(lambda: made.exits)
        assert (folder / "eof").exists() and made.sink.command.status == 0
        assert made.sink.drained(), "what is closed is asked, too: the command may exit long after"


async def test_a_full_pipe_is_told_and_so_is_room(folder: Path) -> None:
    os.mkfifo("go")
    async with sink("read -r x <go; cat >data") as made:
        count = made.fill()
        assert count == PIPE_BYTES
        assert made.write(b"x") is None and not made.sink.drained()
        await turns()
        assert made.opens == 0
        (folder / "go").write_text("\n")
        await until(lambda: made.opens)
        assert made.write(b"x") == 1
        made.sink.close()
        await until(lambda: made.exits)
        assert (folder / "data").stat().st_size == count + 1


@splices
async def test_bytes_come_straight_from_a_socket(folder: Path, pair: Any) -> None:
    async with sink("cat >data") as made:
        assert made.sink.direct(pair[0].fileno(), 10) is Blocked.INPUT
        pair[1].send(b"0123456789")
        assert made.sink.direct(pair[0].fileno(), 4) == 4
        assert made.sink.direct(pair[0].fileno(), 100) == 6
        made.sink.close()
        await until(lambda: made.exits)
        assert (folder / "data").read_bytes() == b"0123456789"


@pytest.mark.parametrize("script", ["exit 0", "exec <&-; : >closed; sleep 60"], ids=["has ended", "reads no more"])
async def test_who_reads_no_more_is_no_failure_of_a_write(script: str, pair: Any) -> None:
    """Its status will tell what it is."""
    async with sink(script) as made:
        await until(lambda: made.gone)
        pair[1].send(b"x")
        for _ in range(2):
            assert made.write(b"x") is None
            assert made.sink.direct(pair[0].fileno(), 10) is Blocked.OUTPUT
            made.sink.arm()
            await turns()
        assert (made.gone, made.opens) == (1, 0)
        assert made.sink.drained()


async def test_a_write_that_notices_first_is_no_failure_either(pair: Any) -> None:
    async with sink("exit 0") as made:
        pid = made.sink.command._process.pid
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 the loop shall have no turn meanwhile
        pair[1].send(b"x")
        assert made.write(b"x") is None
        assert made.sink.direct(pair[0].fileno(), 10) is Blocked.OUTPUT
        assert made.gone == 0
        await until(lambda: made.gone and made.exits)


async def test_bytes_that_nobody_has_read_are_not_drained(folder: Path) -> None:
    os.mkfifo("go")
    async with sink("read -r x <go; exit 0") as made:
        assert made.write(b"some more") == 9
        (folder / "go").write_text("\n")
        await until(lambda: made.exits and made.gone)
        assert not made.sink.drained()


async def test_released_it_sees_the_end_only_when_the_guardian_lets_go(folder: Path) -> None:
    """Otherwise a failure of ours would look like the end of the stream."""
    async with sink("cat; : >eof") as made:
        piped = made.sink._piped
        assert piped is not None
        piped.release()
        await turns(50)
        assert not (folder / "eof").exists() and made.exits == 0
        made.sink.command.let_go()
        await until(lambda: made.exits)
        assert (folder / "eof").exists()


# Both -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: Source("/there/is/none").source, lambda: Sink("/there/is/none").sink])
async def test_what_cannot_be_run_leaves_nothing(make: Callable[[], CommandSource | CommandSink]) -> None:
    end = make()
    with pytest.raises(LocalIOError, match=r"cannot run the (source|sink) '/there/is/none': No such file"):
        end.start({})
    assert not end.command.started
    if isinstance(end, CommandSource):
        end.close()
    else:
        end.release()


@pytest.mark.parametrize("make", [lambda: Source("/bin/sh").source, lambda: Sink("/bin/sh").sink])
async def test_without_a_descriptor_nothing_is_run(
    make: Callable[[], CommandSource | CommandSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    end = make()
    with monkeypatch.context() as patched, pytest.raises(LocalIOError, match="no pipe for the command: Too many open"):
        patched.setattr(os, "pipe", none)
        end.start({})
    assert not end.command.started


async def test_they_know_what_they_are_given(folder: Path) -> None:
    made = Sink("/bin/sh", "-c", 'cat; echo "$VIAMILLIPEDE_NAME" >name')
    made.sink.start({"VIAMILLIPEDE_NAME": "db1"})
    made.sink.close()
    await asyncio.wait_for(made.sink.command.ended.wait(), 10)
    assert (folder / "name").read_text() == "db1\n"
    await made.end()
