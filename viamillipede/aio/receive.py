"""Running rx: its output, its life, its last words."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvloop

from viamillipede.aio import report
from viamillipede.aio.command_ends import CommandSink
from viamillipede.aio.rx import Receiver
from viamillipede.aio.sink import Sink, open_sink
from viamillipede.aio.sockets import check_congestion, raise_descriptor_limit
from viamillipede.aio.systemd import Service
from viamillipede.config import RxConfig
from viamillipede.errors import Exit


@contextlib.contextmanager
def _sink(program: Receiver) -> Iterator[Sink]:
    """Standard output, or what the command reads, which is run at the first contact."""
    if not program.config.command:
        with open_sink(1, program.on_output_open, program.on_output_gone) as sink:
            yield sink
        return
    of_command = CommandSink(
        program.config.command, program.log, program.on_output_open, program.on_output_gone, program.on_command_exit
    )
    program.command, program.command_end = of_command.command, of_command
    try:
        yield of_command
    finally:
        of_command.release()


async def _receive(config: RxConfig, doorway: socket.socket | None, label: str, service: Service | None) -> None:
    program = Receiver(config, doorway, label, service)
    status = "incomplete"
    try:
        with _sink(program) as sink:
            program.use(sink)
            await program.run()
        status = ""
    finally:
        program.close(lambda: report.closing_rx(program, status))


def receive(
    config: RxConfig, doorway: socket.socket | None = None, label: str = "", service: Service | None = None
) -> int:
    """Run rx until its end; returns the exit status, or raises a Failure that carries one.

    `doorway`: where the connections come from, if somebody else listens; `label`: the name of the stream then.
    `service`: sockets that listen already.
    """
    check_congestion(config.congestion)
    raise_descriptor_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_receive(config, doorway, label, service))
    return Exit.COMPLETE
