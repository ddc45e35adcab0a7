"""The throttling proxy: each connection gets its rate, all together the line's, and nothing is lost."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 20.0


@contextlib.contextmanager
def throttle(target: int, **options: float) -> Iterator[int]:
    """The port of a proxy in front of `target`."""
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", f"{value:g}")]
    command = [sys.executable, "-m", "tests.netlab.throttle", "--to", f"127.0.0.1:{target}", *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as proxy:
        try:
            assert proxy.stdout is not None
            yield int(proxy.stdout.readline().split()[-1])
        finally:
            proxy.terminate()
            assert proxy.wait(PATIENCE_S) == 0


def moved(count: int, size: int, **options: float) -> tuple[float, list[float]]:
    """Move `size` bytes over each of `count` connections at once; seconds until all, and each, had arrived."""
    data = os.urandom(size)
    begin = time.monotonic()
    took_s: list[float] = []

    def receive(end: socket.socket) -> None:
        arrived = bytearray()
        while piece := end.recv(1 << 16):
            arrived += piece
        assert arrived == data
        took_s.append(time.monotonic() - begin)

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=count))
        port = stack.enter_context(throttle(server.getsockname()[1], **options))
        senders, threads = [], []
        begin = time.monotonic()
        for _ in range(count):
            sender = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE_S))
            receiver = stack.enter_context(server.accept()[0])
            receiver.settimeout(PATIENCE_S)
            senders.append(sender)
            threads.append(threading.Thread(target=receive, args=(receiver,)))
            threads[-1].start()
        for sender in senders:
            threads.append(threading.Thread(target=feed, args=(sender, data)))
            threads[-1].start()
        for thread in threads:
            thread.join()
    assert len(took_s) == count, "a stream was not whole"
    return max(took_s), sorted(took_s)


def feed(sender: socket.socket, data: bytes) -> None:
    """Send it, and say that this was all."""
    sender.sendall(data)
    sender.shutdown(socket.SHUT_WR)


def test_each_connection_has_its_rate() -> None:
    took_s, _ = moved(3, 60_000, connection=100_000, line=1e9)
    assert took_s == pytest.approx(0.6, abs=0.12)


def test_the_line_has_its_rate() -> None:
    took_s, _ = moved(10, 50_000, connection=1e6, line=1e6)
    assert took_s == pytest.approx(0.5, abs=0.1)


def test_every_third_is_slow() -> None:
    _, each_s = moved(6, 50_000, connection=500_000, line=1e9, slow_every=3, slow=50_000)
    assert each_s[3] < 0.5 < 0.9 < each_s[4]


def test_without_a_target_the_connection_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    with throttle(free, connection=1e6, line=1e6) as port, socket.create_connection(("127.0.0.1", port)) as end:
        end.settimeout(PATIENCE_S)
        assert end.recv(1) == b""
