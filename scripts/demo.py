"""The demonstration: a real tree through a real pair of processes, over 8 legs, with both ends compared.

Started by scripts/demo with the Python of the environment that has viamillipede installed. The tree is
made into a tar once, in memory, and fed to tx as often as it takes, so that neither the disk nor tar
decides the rate; the sum over what is fed is taken before, over what arrives on its way.
"""

import contextlib
import hashlib
import io
import os
import queue
import re
import signal
import subprocess
import sys
import sysconfig
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MIB, GIB = 1 << 20, 1 << 30
LEGS = 8
TOTAL_BYTES_MIN = GIB
TAR_BYTES_MAX = 128 * MIB  # held in memory; more of the library would not make the demonstration better
PIECE_BYTES = MIB
LISTEN_S = 20  # how long rx may take to listen
TRANSFER_S = 120  # how long the transfer may take; a hundred times what it takes
AFTERWARDS_S = 20  # how long rx may stay when tx has ended
KILL_S = 5  # how long a process may take to end when it is told to


class Trouble(Exception):
    """What went wrong, in words for the user."""


class End:
    """One of the two processes, and what it says on stderr, collected by a thread of its own."""

    def __init__(self, program: list[str], role: str, words: list[str], stdin: int, stdout: int | None = None) -> None:
        """Start it, with none of the user's own settings in its environment; Trouble if that cannot be done."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("VIAMILLIPEDE_")}
        command = [*program, role, *words]
        self.process: subprocess.Popen[bytes]
        try:
            self.process = subprocess.Popen(
                command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, env=environment, bufsize=0
            )
        except OSError as error:
            raise Trouble(f"cannot start {command[0]}: {error.strerror}; erase .cache and run it again") from error
        self.role = role
        self.lines: list[str] = []
        self.port: queue.Queue[int | None] = queue.Queue()  # what rx listens on; None when stderr has ended
        self.thread = threading.Thread(target=self._listen)
        self.thread.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        with io.TextIOWrapper(self.process.stderr, errors="replace") as stderr:
            for line in stderr:
                self.lines.append(line.rstrip("\n"))
                if match := re.search(r"listening on port (\d+)", line):
                    self.port.put(int(match[1]))
        self.port.put(None)

    def said(self) -> str:
        """What it said, for an error message."""
        return "\n".join(f"  {line}" for line in self.lines) or f"  ({self.role} said nothing)"

    def wait(self, limit_s: float) -> str:
        """How it ended, in words, or that it still runs after `limit_s`; "" when all went well."""
        try:
            status = self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return f"still running after {limit_s} s"
        self.thread.join()
        return f"exit status {status}" if status else ""

    def end(self) -> None:
        """End it, if it still runs, and let go of its pipes."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(KILL_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.thread.join()


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """SIGINT and SIGTERM wait for the end of the block, so that no process is started and then forgotten."""
    caught: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {one: signal.signal(one, lambda number, _: caught.append(number)) for one in signals}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        for number in caught:
            signal.raise_signal(number)


@dataclass
class Received:
    """What came out of rx: its sum, its bytes, and when the last of them came (monotonic)."""

    digest: Any = field(default_factory=hashlib.sha256)
    total_bytes: int = 0
    last_s: float = 0.0

    def read(self, pipe: io.FileIO) -> None:
        """Take everything there is, until rx closes the pipe."""
        buffer = memoryview(bytearray(PIECE_BYTES))
        with pipe:
            while count := pipe.readinto(buffer):
                self.digest.update(buffer[:count])
                self.total_bytes += count
                self.last_s = time.monotonic()


def feed(pipe: io.FileIO, tar: bytes, times: int) -> None:
    """Write `tar` to tx as often as `times`, then close; stop early if tx is gone, its exit status says why."""
    view = memoryview(tar)
    with pipe:
        try:
            for _ in range(times):
                at = 0
                while at < len(view):
                    at += pipe.write(view[at : at + PIECE_BYTES])
        except BrokenPipeError:
            return


def files_below(folder: Path) -> Iterator[Path]:
    """The plain files of a Python library, in a fixed order, without what pip or a running Python may change."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - {"__pycache__", "site-packages", "dist-packages"})
        yield from (path for path in (Path(parent, name) for name in sorted(names)) if path.is_file())


def tar_of(folder: Path) -> bytes:
    """The files below `folder` as a tar of at most TAR_BYTES_MAX or so; Trouble if there are none."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as tar:
        for path in files_below(folder):
            if memory.tell() + path.stat().st_size > TAR_BYTES_MAX:
                break
            tar.add(path, path.relative_to(folder.parent))
    if memory.tell() < MIB:
        raise Trouble(f"there is next to nothing in {folder}; is this Python whole?")
    return memory.getvalue()


def listening_port(rx: End) -> int:
    """The port that rx says it listens on; Trouble if it does not say one in time."""
    try:
        port = rx.port.get(timeout=LISTEN_S)
    except queue.Empty as error:
        raise Trouble(f"rx did not say within {LISTEN_S} s on which port it listens:\n{rx.said()}") from error
    if port is None:
        raise Trouble(f"rx closed its stderr before it listened, {rx.wait(KILL_S) or 'exit status 0'}:\n{rx.said()}")
    return port


def transfer(program: list[str], tar: bytes, times: int) -> tuple[Received, float, list[End]]:
    """Move `tar`, `times` times, from a tx to an rx; what came out, in how many seconds, and both processes, ended."""
    received = Received()
    ends: list[End] = []
    threads: list[threading.Thread] = []
    try:
        words = ["0", "bind", "127.0.0.1", "verbose", "1"]
        with signals_held():
            rx = End(program, "rx", words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            ends.append(rx)
            threads.append(threading.Thread(target=received.read, args=[rx.process.stdout]))
            threads[-1].start()
        words = ["127.0.0.1", str(listening_port(rx)), "threads", str(LEGS), "verbose", "1"]
        began_s = time.monotonic()
        with signals_held():
            tx = End(program, "tx", words, stdin=subprocess.PIPE)
            ends.append(tx)
            threads.append(threading.Thread(target=feed, args=[tx.process.stdin, tar, times]))
            threads[-1].start()
        ended = {tx: tx.wait(TRANSFER_S), rx: rx.wait(AFTERWARDS_S)}
    finally:
        for end in ends:
            end.end()
        for thread in threads:  # both end with the processes, which held the other ends of their pipes
            thread.join()
    if any(ended.values()):
        said = (f"{end.role}, {how or 'exit status 0'}:\n{end.said()}" for end, how in ended.items())
        raise Trouble("\n".join(["the transfer failed", *said]))
    return received, received.last_s - began_s, [tx, rx]


def count_of(what: str, line: str) -> int:
    """The number before `what` in tx's closing line; Trouble if there is none."""
    if (match := re.search(rf"(\d[\d,]*) {what}", line)) is None:
        raise Trouble(f"tx's closing line does not say how many {what} there were: {line!r}")
    return int(match[1].replace(",", ""))


def demonstrate(program: list[str]) -> str:
    """Move, compare, and say what happened; Trouble if anything is not as it must be."""
    folder = Path(sysconfig.get_path("stdlib"))
    tar = tar_of(folder)
    times = -(-TOTAL_BYTES_MIN // len(tar))
    total_bytes = times * len(tar)
    print(f"moving {folder} as a tar, {times} times, {total_bytes:,} bytes, from tx to rx over {LEGS} legs ...")
    sent = hashlib.sha256()
    for _ in range(times):
        sent.update(tar)
    received, seconds, (tx, rx) = transfer(program, tar, times)
    print("\n".join(rx.lines + tx.lines))
    if (received.total_bytes, received.digest.digest()) != (total_bytes, sent.digest()):
        raise Trouble(
            f"what came out is not what went in\n"
            f"  in:  {total_bytes:,} bytes, sha256 {sent.hexdigest()}\n"
            f"  out: {received.total_bytes:,} bytes, sha256 {received.digest.hexdigest()}"
        )
    closing = next((line for line in tx.lines if " restart" in line), "")
    return (
        f"{total_bytes:,} bytes in {seconds:.2f} s, {total_bytes / MIB / seconds:,.0f} MiB/s, "
        f"{count_of('legs?', closing)} legs, {count_of('restarts?', closing)} restarts\n"
        f"sha256 of what went in and of what came out: {sent.hexdigest()}"
    )


def main() -> int:
    """0 when everything arrived; 1, with the reason on stderr, when not; 130 and 143 for signals."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        print(demonstrate([str(Path(sys.executable).with_name("viamillipede"))]))
    except Trouble as trouble:
        print(f"scripts/demo: {trouble}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
