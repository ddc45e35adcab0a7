"""Running rx: what it is given for an output, and what it refuses before there is anything."""

import os

import pytest

from tests.aio.drive import Pipe
from viamillipede.aio.command_ends import CommandSink
from viamillipede.aio.receive import _sink, receive
from viamillipede.aio.rx import Receiver
from viamillipede.aio.sink import Sink
from viamillipede.config import RxConfig
from viamillipede.errors import UsageError


def test_a_congestion_control_that_the_kernel_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match="nosuch"):
        receive(RxConfig(congestion="nosuch"))


async def test_the_output_is_the_command_s_input() -> None:
    program = Receiver(RxConfig(command=("cat",)))
    with _sink(program) as sink:
        assert isinstance(sink, CommandSink) and program.command is sink.command and program.command_end is sink
        assert not sink.command.started, "it begins with the stream"
    program.stop()
    program.poller.close()


async def test_without_a_command_it_is_standard_output(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = os.dup(1)
    os.dup2(pipe.write_fd, 1)
    try:
        program = Receiver(RxConfig())
        with _sink(program) as sink:
            view: Sink = sink
            assert view.write(memoryview(b"here")) == 4 and program.command is None
        assert os.read(pipe.read_fd, 10) == b"here"
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    program.stop()
    program.poller.close()
