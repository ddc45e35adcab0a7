"""Real processes on a stage: every wait bounded, every process, pipe and thread given back."""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from io import FileIO
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

from tests.e2e.proxy import Proxy

ROOT = Path(__file__).resolve().parents[2]
KIB, MIB = 1 << 10, 1 << 20
PATIENCE_S = 90  # for what takes seconds on an idle machine; a test that waits so long has failed
LOOPBACK = "127.0.0.1"
_PIECE = 256 * KIB
_NOISE = re.compile(r"Traceback|Exception ignored|was never awaited|was destroyed|Warning|a bug; please report")


def some_bytes(count: int, seed: int = 1) -> bytes:
    """`count` bytes that look random and are the same each time."""
    return Random(seed).randbytes(count)


def eventually(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Look until it is so. For what no event tells, like another process's state."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience_s} s: {what}"
        time.sleep(0.01)


def ready(fd: int, events: int, timeout_s: float) -> bool:
    """Whether `fd` becomes ready for `events` (poll) in time; hang-ups count."""
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(timeout_s * 1000))


def read_some(fd: int, limit: int = _PIECE) -> bytes:
    """The next bytes of `fd`, b"" at its end."""
    assert ready(fd, select.POLLIN, PATIENCE_S), "nothing to read"
    return os.read(fd, limit)


def read_exactly(fd: int, count: int) -> bytes:
    """`count` bytes of `fd`."""
    parts = bytearray()
    while len(parts) < count:
        piece = read_some(fd, min(_PIECE, count - len(parts)))
        assert piece, f"the stream ended at byte {len(parts)} of {count}"
        parts += piece
    return bytes(parts)


def read_all(fd: int) -> bytes:
    """Everything until the end of `fd`."""
    parts = bytearray()
    while piece := read_some(fd):
        parts += piece
    return bytes(parts)


def write_while_taken(fd: int, quiet_s: float, most: int = 1 << 40) -> int:
    """Write zeros until `fd` takes nothing for `quiet_s` seconds, or `most` bytes; returns how many it took."""
    block, count = bytes(64 * KIB), 0
    os.set_blocking(fd, False)
    try:
        while count < most and ready(fd, select.POLLOUT, quiet_s):
            with contextlib.suppress(BlockingIOError):
                count += os.write(fd, block)
    finally:
        os.set_blocking(fd, True)
    return count


class Side:
    """One process of ours. Its standard error is collected as it comes."""

    def __init__(
        self, role: str, words: Iterable[object], stdin: Any, stdout: Any, stderr: Any, wrapper: list[str]
    ) -> None:
        self.role = role
        env = {name: value for name, value in os.environ.items() if not name.startswith("VIAMILLIPEDE_")}
        env["PYTHONWARNINGS"] = "default"  # what is destroyed unfinished is told, and `finish` sees it
        self.process = subprocess.Popen(
            [*wrapper, sys.executable, "-m", "viamillipede", *map(str, words)],
            stdin=stdin, stdout=stdout, stderr=subprocess.PIPE if stderr is None else stderr,
            bufsize=0, cwd=ROOT, env=env,
        )  # fmt: skip
        self.pid = self.process.pid
        self.port = 0
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self.fed = threading.Event()  # all that `feed` was given has been taken
        self._threads: list[threading.Thread] = []
        if stderr is None:
            self._spawn(self._collect)

    def _spawn(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _collect(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self._lines.append(line.decode(errors="replace").rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    # ---- what it says ---------------------------------------------------------------------------
    @property
    def said(self) -> str:
        """Everything on its standard error so far."""
        with self._news:
            return "\n".join(self._lines)

    def hear(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Wait until so many lines match; the last of them."""
        found: list[re.Match[str]] = []

        def heard() -> bool:
            found[:] = [match for line in self._lines if (match := re.search(pattern, line))]
            return len(found) >= times or self._ended

        with self._news:
            self._news.wait_for(heard, PATIENCE_S)
        assert len(found) >= times, f"{self.role} did not say {pattern!r} {times} times:\n{self.said}"
        return found[times - 1]

    def closing_line(self) -> str:
        """The closing line."""
        closing = re.compile(r"( B|bytes\)) in \S+ \S+, ")
        line = next((line for line in reversed(self.said.splitlines()) if closing.search(line)), "")
        assert line, f"{self.role} has no closing line:\n{self.said}"
        return line

    def closing(self, what: str) -> int:
        """A number of the closing line: closing("restart") is 3 if it says "3 restarts", or "1 restart" 1."""
        match = re.search(rf"(\d+) {what}", self.closing_line())
        assert match, f"{self.role} closes without {what!r}:\n{self.said}"
        return int(match[1])

    # ---- what it is given -----------------------------------------------------------------------
    @property
    def input(self) -> int:
        """The descriptor that its standard input is fed by."""
        assert self.process.stdin is not None
        return self.process.stdin.fileno()

    @property
    def output(self) -> int:
        """The descriptor that its standard output is read from."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def write(self, data: bytes) -> None:
        """Write to its input; it must be able to take it."""
        while data:
            assert ready(self.input, select.POLLOUT, PATIENCE_S), "the input takes nothing"
            data = data[os.write(self.input, data[:4096]) :]

    def end_input(self) -> None:
        """Close its input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def close_output(self) -> None:
        """The reader goes away."""
        assert self.process.stdout is not None
        self.process.stdout.close()

    def feed(self, pieces: Iterable[bytes], then_close: bool = True) -> None:
        """Write all of it from a thread; stops quietly when nobody reads any more."""
        self._spawn(self._feed, pieces, then_close)

    def _feed(self, pieces: Iterable[bytes], then_close: bool) -> None:
        with contextlib.suppress(BrokenPipeError):
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    view = view[os.write(self.input, view) :]
            self.fed.set()
        if then_close:
            self.end_input()

    # ---- how it ends ----------------------------------------------------------------------------
    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def ends(self, status: int, patience_s: float = PATIENCE_S) -> str:
        """Wait for its end, which must be `status` and without noise; returns what it said."""
        try:
            found = self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.role} did not end in {patience_s} s:\n{self.said}") from None
        for thread in self._threads:
            thread.join(PATIENCE_S)
        assert found == status, f"{self.role} ended with {found}, not {status}:\n{self.said}"
        assert not _NOISE.search(self.said), self.said
        return self.said

    def descriptors(self) -> int:
        """How many it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def peak_memory(self) -> int:
        """The most bytes that were resident."""
        match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert match
        return int(match[1]) * KIB

    def release(self) -> None:
        """Kill it if it lives, and give everything back."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


class Stage:
    """The processes and proxies of one test. What it starts ends with it."""

    def __init__(self) -> None:
        self._sides: list[Side] = []
        self.exit = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for side in self._sides:
            side.release()
        self.exit.close()
        if kind is not None:
            for side in self._sides:
                print(f"--- {side.role} {side.pid}, status {side.process.returncode}:\n{side.said}")
        else:
            for side in self._sides:
                assert not _NOISE.search(side.said), side.said

    def rx(
        self,
        *words: object,
        port: int = 0,
        stdout: Any = subprocess.PIPE,
        stderr: Any = None,
        wrapper: Iterable[str] = (),
    ) -> Side:
        """An rx that listens; `verbose 1` unless said otherwise."""
        side = Side("rx", ["rx", port, *words], subprocess.DEVNULL, stdout, stderr, [*wrapper])
        self._sides.append(side)
        if stderr is None:
            side.port = int(side.hear(r"listening on port (\d+)")[1])
        return side

    def tx(self, to: object, *words: object, stdin: Any = subprocess.PIPE, host: str = LOOPBACK) -> Side:
        """A tx to an rx, a proxy, or a port number."""
        port = to if isinstance(to, int) else to.port  # type: ignore[attr-defined]
        return self.tx_words("tx", host, port, *words, stdin=stdin)

    def tx_words(self, *words: object, stdin: Any = subprocess.PIPE) -> Side:
        """A tx with this command line."""
        side = Side("tx", words, stdin, subprocess.DEVNULL, None, [])
        self._sides.append(side)
        return side

    def proxy(self, to: Side) -> Proxy:
        """A proxy in front of an rx."""
        return self.exit.enter_context(Proxy(to.port))

    def hold(self, resource: Any) -> Any:
        """A socket or file that is closed with the stage."""
        return self.exit.enter_context(contextlib.closing(resource))

    def pipe(self) -> tuple[FileIO, FileIO]:
        """The ends of a pipe, to read and to write; closed with the stage."""
        reader, writer = os.pipe()
        return self.hold(FileIO(reader, "rb")), self.hold(FileIO(writer, "wb"))


def whole(rx: Side, tx: Side, data: bytes) -> None:
    """Feed `data` into tx; rx must deliver exactly that, and both must be content."""
    tx.feed([data])
    arrived = read_all(rx.output)
    assert len(arrived) == len(data) and arrived == data
    tx.ends(0)
    rx.ends(0)
