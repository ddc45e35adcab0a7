"""One run of one contender: the processes, what they cost, and whether every byte came out.

    source --pipe--> tx ==TCP over 127.0.0.1==> rx --pipe--> sink

1. rx and its sink are started; tx only once the kernel shows that the port is listening.
2. The clock runs from the start of the source to the exit of the sink.
   The pipes are as the shell makes them, unless the contender says otherwise; ours enlarges its own.
3. The sink is `dd bs=128k of=/dev/null`: the system calls of `cat`, and it says how many bytes it saw. So
   the amount is verified in every run that counts, at no cost to it.
4. All processes must exit 0; else the run failed, and its time is worth nothing.
"""

import json
import os
import re
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from .contenders import Contender, Shape
from .processes import FAILURE_GRACE_S, REASON_CHARS_MAX, NotListening, RunFailed, Side, Stage, new_crew, pipe

SINK = ("dd", "bs=131072", "of=/dev/null")
LIMIT_PIPE_BYTES = 1 << 20
BIND_ATTEMPTS = 3  # a free port may be taken by somebody else before rx binds it

_TIMES = re.compile(r"^(\d+)m([\d.]+)s (\d+)m([\d.]+)s$", re.MULTILINE)
_COUNTED = re.compile(r"^(\d+) bytes? ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Source:
    """Where the bytes of a run come from. `data` is `zeros` or `random`."""

    data: str
    argv: tuple[str, ...]
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Run:
    """One successful run. `seconds` is a transfer's duration, or the time to the first byte."""

    seconds: float
    total_bytes: int
    tx: Side | None = None
    rx: Side | None = None

    @property
    def gb_per_s(self) -> float:
        """Throughput in 1e9 bytes per second."""
        return self.total_bytes / 1e9 / self.seconds


def free_port() -> int:
    """A port that the kernel says is free on 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def parse_count(text: str) -> int:
    """The number of bytes that dd says it copied. Raises RunFailed if it says none."""
    count = _COUNTED.search(text)
    if count is None:
        raise RunFailed(f"the sink told no count: {text.strip()[-REASON_CHARS_MAX:]!r}")
    return int(count[1])


def parse_times(text: str) -> float:
    """The CPU seconds of its children that a shell's `times` has told last. Raises RunFailed if it has not."""
    times = _TIMES.findall(text)
    if not times:
        raise RunFailed(f"the sink told no times: {text.strip()[-REASON_CHARS_MAX:]!r}")
    return sum(60 * int(minutes) + float(seconds) for minutes, seconds in (times[-1][:2], times[-1][2:]))


def throughput(contender: Contender, source: Source, timeout_s: float) -> Run:
    """Move the whole source once. Raises RunFailed."""
    shapes = {Shape.TRANSFER: _transfer, Shape.PIPE: _bare_pipe, Shape.IPERF3: _iperf3, Shape.SSH: _ssh}
    return _again_if_port_taken(lambda: shapes[contender.shape](contender, source, timeout_s))


def first_byte(contender: Contender, source: Source, timeout_s: float) -> Run:
    """Time from the start of rx, then tx, to the first byte out of rx; the rest follows. Raises RunFailed."""
    return _again_if_port_taken(lambda: _first_byte(contender, source, timeout_s))


def _again_if_port_taken(run: Callable[[], Run]) -> Run:
    for _ in range(BIND_ATTEMPTS - 1):
        try:
            return run()
        except NotListening:
            continue
    return run()


def _transfer(contender: Contender, source: Source, timeout_s: float) -> Run:
    port = free_port()
    rx_command, tx_command = contender.commands(port)
    with new_crew() as crew:
        with pipe(contender.pipe_bytes) as (reads, writes):
            sink = crew.start("sink", SINK, reads, subprocess.DEVNULL, contender.rx_cores)
            rx = crew.start("rx", rx_command, subprocess.DEVNULL, writes, contender.rx_cores)
        crew.wait_listening(rx, port)
        begin = time.perf_counter()
        with pipe(contender.pipe_bytes) as (reads, writes):
            crew.start("source", source.argv, subprocess.DEVNULL, writes, contender.tx_cores)
            tx = crew.start("tx", tx_command, reads, subprocess.DEVNULL, contender.tx_cores)
        crew.wait(timeout_s)
        return _finished(sink, source, begin, tx.side, rx.side)


def _bare_pipe(contender: Contender, source: Source, timeout_s: float) -> Run:
    """The pipe is enlarged, as our program does with its own: through 64 KiB, a source of large blocks crawls."""
    with new_crew() as crew:
        with pipe(LIMIT_PIPE_BYTES) as (reads, writes):
            begin = time.perf_counter()
            crew.start("source", source.argv, subprocess.DEVNULL, writes)
            sink = crew.start("sink", SINK, reads, subprocess.DEVNULL)
        crew.wait(timeout_s)
        return _finished(sink, source, begin, None, None)


def _finished(sink: Stage, source: Source, begin: float, tx: Side | None, rx: Side | None) -> Run:
    delivered = parse_count(sink.said())
    if delivered != source.total_bytes:
        raise RunFailed(f"delivered {delivered} of {source.total_bytes} bytes, and called that a success")
    assert sink.exit_at is not None
    return Run(sink.exit_at - begin, delivered, tx, rx)


def _ssh(contender: Contender, source: Source, timeout_s: float) -> Run:
    """The sink is the command at the far end, as in `tar c | ssh HOST tar x`; what it says comes out of the client.

    The client exits after it. The sink is a child of the server, whose costs contain it, and are freed of it.
    """
    port = free_port()
    rx_command, tx_command = contender.commands(port)
    with new_crew() as crew:
        rx = crew.start("rx", rx_command, subprocess.DEVNULL, subprocess.DEVNULL, contender.rx_cores)
        crew.wait_listening(rx, port)
        begin = time.perf_counter()
        with pipe(contender.pipe_bytes) as (reads, writes):
            crew.start("source", source.argv, subprocess.DEVNULL, writes, contender.tx_cores)
            tx = crew.start("tx", tx_command, reads, subprocess.DEVNULL, contender.tx_cores)
        crew.wait(timeout_s)
        sink_s = parse_times(tx.said())
        return _finished(tx, source, begin, tx.side, Side(rx.side.cpu_s - sink_s, rx.side.peak_bytes))


def _iperf3(contender: Contender, source: Source, timeout_s: float) -> Run:
    """The rate is iperf3's own, of the receiving side: a limit should not pay for starting the client.

    What is still on its way when the client says that it has sent all is not counted by the server.
    """
    port = free_port()
    rx_command, tx_command = contender.commands(port)
    with new_crew() as crew, tempfile.TemporaryFile() as answer:
        rx = crew.start("rx", rx_command, subprocess.DEVNULL, subprocess.DEVNULL)
        crew.wait_listening(rx, port)
        tx = crew.start("tx", [*tx_command, str(source.total_bytes)], subprocess.DEVNULL, answer)
        crew.wait(timeout_s)
        answer.seek(0)
        end = json.load(answer)["end"]
        sent, received = end["sum_sent"]["bytes"], end["sum_received"]["bytes"]
        if sent < source.total_bytes or not received:
            raise RunFailed(f"iperf3 sent {sent} and received {received} of {source.total_bytes} bytes")
        return Run(end["sum_received"]["seconds"], received, tx.side, rx.side)


def _first_byte(contender: Contender, source: Source, timeout_s: float) -> Run:
    port = free_port()
    rx_command, tx_command = contender.commands(port)
    deadline = time.perf_counter() + timeout_s
    with new_crew() as crew:
        begin = time.perf_counter()
        reads, writes = os.pipe()
        with open(reads, "rb", buffering=0) as output:
            try:
                rx = crew.start("rx", rx_command, subprocess.DEVNULL, writes)
            finally:
                os.close(writes)
            crew.wait_listening(rx, port)
            with pipe() as (source_reads, source_writes):
                crew.start("source", source.argv, subprocess.DEVNULL, source_writes)
                crew.start("tx", tx_command, source_reads, subprocess.DEVNULL)
            first_at, delivered = _read_all(output, deadline)
        crew.wait(max(FAILURE_GRACE_S, deadline - time.perf_counter()))
        if delivered != source.total_bytes or first_at is None:
            raise RunFailed(f"delivered {delivered} of {source.total_bytes} bytes, and called that a success")
        return Run(first_at - begin, delivered)


def _read_all(output: IO[bytes], deadline: float) -> tuple[float | None, int]:
    """When the first byte came (None: never), and how many came before the end or the deadline."""
    poll = select.poll()
    poll.register(output, select.POLLIN)
    first_at, delivered = None, 0
    while (left_s := deadline - time.perf_counter()) > 0:
        if not poll.poll(left_s * 1000):
            break
        piece = output.read(1 << 17)
        if not piece:
            break
        first_at = first_at or time.perf_counter()
        delivered += len(piece)
    return first_at, delivered
