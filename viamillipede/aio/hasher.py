"""Giving a stream to its digest: at once, or, where that takes a core, in a thread."""

import asyncio
from collections.abc import Callable

from viamillipede.aio.descriptors import Worker
from viamillipede.protocol.digest import StreamDigest


class Hasher:
    """`digest` None: nothing is taken. `on_taken`: the thread is done with what it was given."""

    def __init__(self, digest: StreamDigest | None, on_taken: Callable[[], None]) -> None:
        self._digest, self._on_taken = digest, on_taken
        self.active = digest is not None
        self.busy = False  # what was given last is still being read
        self.taken = 0  # bytes
        self._worker = Worker(asyncio.get_running_loop(), "digest") if digest is not None and digest.slow else None

    def take(self, view: memoryview) -> None:
        """The next bytes of the stream; while `busy` they must stay as they are, and no more be given."""
        assert not self.busy
        if self._worker is not None:
            self.busy = True
            self._worker.submit(lambda: self._update(view), self._on_result)
        elif self.active:
            self.taken += self._update(view)

    def _update(self, view: memoryview) -> int:
        assert self._digest is not None
        self._digest.update(view)
        return len(view)

    def _on_result(self, result: int | OSError) -> None:
        assert isinstance(result, int)
        self.busy = False
        self.taken += result
        self._on_taken()
