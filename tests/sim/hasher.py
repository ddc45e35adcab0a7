"""The stream on its way into its digest, as in the real shell: at once, or, where that takes a core, in a thread."""

import random
from collections.abc import Callable
from functools import partial

from tests.sim.setting import Sim
from viamillipede.protocol.digest import StreamDigest

THREAD_US = (300, 3000, 30_000)  # for one piece at most: each machine has its own speed


class Hasher:
    """`digest` None: nothing is taken. `on_taken`: the thread is done. `side`: "tx" or "rx", whose memory this is."""

    def __init__(self, world: Sim, digest: StreamDigest | None, on_taken: Callable[[], None], side: str) -> None:
        self._world, self.digest, self._on_taken = world, digest, on_taken
        self.busy = False  # what was given last is still being read
        self.taken = 0  # bytes
        self._rng = random.Random(f"hasher of {side} {world.options.seed}")
        self._thread_us = self._rng.choice(THREAD_US)
        self._damaged_at = self._rng.randrange(world.options.total_bytes) if world.options.damaged == side else -1

    def take(self, view: memoryview) -> None:
        """The next bytes of the stream; while `busy` they must stay as they are, and no more be given."""
        assert not self.busy, "given more before it was done"
        if self.digest is None:
            return
        if self.digest.slow:
            self.busy = True
            self._world.count("digest in a thread")
            self._world.after(self._rng.randrange(self._thread_us), partial(self._on_result, self.digest, view))
        else:
            self._update(self.digest, view)

    def _update(self, digest: StreamDigest, view: memoryview) -> None:
        data = bytearray(view)
        if 0 <= self._damaged_at - self.taken < len(data):
            data[self._damaged_at - self.taken] ^= 1 << self._rng.randrange(8)
        digest.update(memoryview(data))
        self.taken += len(data)

    def _on_result(self, digest: StreamDigest, view: memoryview) -> None:
        self._update(digest, view)
        self.busy = False
        self._on_taken()
