"""rx's output and who reads it: slow, fast, or with long pauses."""

from collections.abc import Callable

from tests.sim.options import Reader
from tests.sim.setting import Sim
from viamillipede.config import GIB, KIB, S_US


class Pipe:
    """rx's output and who reads it: slow, fast, or with long pauses. Compares every byte with the source."""

    def __init__(self, world: Sim, reader: Reader, on_room: Callable[[], None]) -> None:
        self._world, self._reader, self._on_room = world, reader, on_room
        self.accepted = self._held = 0
        self._until_pause = self._reader.pause_every
        self._reading = False

    def room(self) -> int:
        """Bytes that the pipe takes now."""
        return self._reader.pipe_bytes - self._held

    def drained(self) -> bool:
        """Whether the reader has taken everything."""
        return not self._held

    def write(self, data: bytes | memoryview) -> int:
        """How many bytes the pipe took. Here the stream is held against its source: order, loss, copies."""
        count = min(len(data), self.room())
        end = self.accepted + count
        assert self._world.source[self.accepted : end] == bytes(data[:count]), f"wrong bytes in {self.accepted}..{end}"
        self.accepted = end
        self._held += count
        self._arm()
        return count

    def read_meanwhile(self) -> None:
        """The reader takes something while rx is at work, which is told of it later."""
        if self._held:
            self._held -= self._world.rng.randint(1, self._held)

    def _arm(self) -> None:
        if self._reading or not self._held:
            return
        self._reading = True
        reader = self._reader
        count = self._world.rng.randint(1, min(self._held, 64 * KIB))
        delay_us = count * S_US // reader.rate if reader.rate else 1
        if reader.pause_every:
            self._until_pause -= count
            if self._until_pause <= 0:
                self._until_pause = reader.pause_every
                delay_us += reader.pause_us
                self._world.count("reader pauses")
        self._world.after(delay_us, lambda: self._take(count))

    def _take(self, count: int) -> None:
        self._reading = False
        self._held -= min(count, self._held)
        self._arm()
        self._on_room()


class Metered(Pipe):
    """A reader that is exactly as fast as it is said to be."""

    def read_meanwhile(self) -> None:
        """Not here."""


class Drain(Pipe):
    """A reader that has taken everything before the next step."""

    def __init__(self, world: Sim, on_room: Callable[[], None]) -> None:
        super().__init__(world, Reader(GIB, 0, 0, 0), on_room)

    def room(self) -> int:
        """Whatever comes."""
        return GIB

    def write(self, data: bytes | memoryview) -> int:
        """See Pipe."""
        accepted = super().write(data)
        self._held = 0
        return accepted

    def _arm(self) -> None:
        return
