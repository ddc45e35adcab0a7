"""The workers, and who hands them their seeds; ends them all, however it ends itself."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from .draw import Abilities
from .host import UNSHARE
from .side import adopt_orphans, children
from .worker import order_for

FAREWELL_S = 20.0  # for a worker to end what it has begun
STUCK_S = 1800.0  # no run takes so long; its worker is stuck


class WorkerLost(Exception):
    """A worker has ended or does nothing: the torture itself is broken."""


class _Worker:
    """One of them, seen from outside."""

    def __init__(self, order: str, mounts: bool) -> None:
        argv = [*(UNSHARE if mounts else ()), sys.executable, "-m", "torturelib.worker_main", order]
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
        )
        self.seed: int | None = None
        self.since_s = time.monotonic()
        self._rest = b""

    def hand(self, seed: int) -> None:
        """Do this next."""
        assert self.process.stdin is not None
        self.seed, self.since_s = seed, time.monotonic()
        self.process.stdin.write(f"{seed}\n".encode())

    def messages(self) -> Iterator[dict[str, Any]]:
        """What it has said. WorkerLost if it has ended."""
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        if not data:
            raise WorkerLost(f"a worker has ended, with status {self.process.wait()}, in seed {self.seed}")
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield json.loads(line)


class Crew:
    """`hands` workers. To be used in a `with`: no process and no mount outlives it."""

    def __init__(self, hands: int, can: Abilities, program: list[str], base: Path, verbose: bool) -> None:
        self._order = order_for(can, program, base, verbose)
        self._hands, self._mounts = hands, can.disks
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        adopt_orphans()
        with self._held():
            self._workers = [_Worker(self._order, self._mounts) for _ in range(self._hands)]
        return self

    @staticmethod
    @contextlib.contextmanager
    def _held() -> Iterator[None]:
        """Signals wait, so that no process is started and then forgotten."""
        numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def work(
        self, seeds: Iterator[int], more: Callable[[], bool], story: Callable[[str], None]
    ) -> Iterator[dict[str, Any]]:
        """The answers, as they come. A new seed is handed out as long as `more`; then what is running is waited for."""
        selector = selectors.DefaultSelector()
        for worker in self._workers:
            selector.register(worker.process.stdout or -1, selectors.EVENT_READ, worker)
            self._next(worker, seeds, more)
        try:
            while any(worker.seed is not None for worker in self._workers):
                for key, _ in selector.select(1.0):
                    for message in key.data.messages():
                        if isinstance(message.get("story"), str):
                            story(message["story"])
                            continue
                        self._next(key.data, seeds, more)
                        yield message
                for worker in self._workers:
                    if worker.seed is not None and time.monotonic() - worker.since_s > STUCK_S:
                        raise WorkerLost(f"a worker is stuck in seed {worker.seed}")
        finally:
            selector.close()

    @staticmethod
    def _next(worker: _Worker, seeds: Iterator[int], more: Callable[[], bool]) -> None:
        worker.seed = None
        if more() and (seed := next(seeds, None)) is not None:
            worker.hand(seed)

    def __exit__(self, *_: object) -> None:
        with self._held():
            for worker in self._workers:
                with contextlib.suppress(OSError):
                    (worker.process.stdin or worker.process.stdout).close()  # type: ignore[union-attr]
            deadline = time.monotonic() + FAREWELL_S
            for worker in self._workers:
                try:
                    worker.process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    worker.process.kill()
                    worker.process.wait()
                if worker.process.stdout is not None:
                    worker.process.stdout.close()
            while orphans := children(os.getpid()):
                for pid in orphans:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.01)
                with contextlib.suppress(ChildProcessError):
                    while os.waitpid(-1, os.WNOHANG)[0]:
                        pass
