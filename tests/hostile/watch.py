"""How much memory processes take while something is done to them."""

import contextlib
import threading
from types import TracebackType
from typing import Self

import psutil

from tests.e2e.helpers import MIB, Side

SPARE_BYTES = 64 * MIB  # beside the window
EVERY_S = 0.05


class Watch:
    """Samples the resident memory of sides and of the processes that they fork.

    At the end none of them may have grown by more than `window_bytes` and SPARE_BYTES since it was first seen.
    """

    def __init__(self, window_bytes: int, *sides: Side) -> None:
        self._most = window_bytes + SPARE_BYTES
        self._roots = [psutil.Process(side.pid) for side in sides]
        self._first: dict[psutil.Process, int] = {}
        self._peak: dict[psutil.Process, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()
        if kind is None:
            for process, peak in self._peak.items():
                grown = peak - self._first[process]
                assert grown <= self._most, f"{process} has grown by {grown / MIB:.0f} MiB"

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._sample()

    def _sample(self) -> None:
        for root in self._roots:
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in (root, *root.children(recursive=True)):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        if process.name().startswith("python"):
                            now = process.memory_info().rss
                            self._first.setdefault(process, now)
                            self._peak[process] = max(self._peak.get(process, 0), now)
