"""Which leg takes the next frame: the user's order of addresses, then the order of the legs.

Always filling the most preferred leg that can take bytes gives the first address its preference
and spills over to the next exactly when the first is full. It also keeps a stream that one leg can
carry on one leg, where nothing arrives out of order.
"""

from bisect import bisect_left
from collections.abc import Collection


class Scheduler:
    """The legs whose sockets can take bytes now, best first."""

    def __init__(self) -> None:
        self._idle: list[tuple[int, int]] = []  # (rank of the address, leg), ascending

    def __len__(self) -> int:
        return len(self._idle)

    def add(self, rank: int, leg: int) -> None:
        """`leg` can take a frame; it may be here already."""
        i = bisect_left(self._idle, (rank, leg))
        if i == len(self._idle) or self._idle[i] != (rank, leg):
            self._idle.insert(i, (rank, leg))

    def legs(self) -> list[int]:
        """Who can take a frame, best first."""
        return [leg for _, leg in self._idle]

    def discard(self, rank: int, leg: int) -> None:
        """`leg` cannot take a frame any more; it need not be here."""
        i = bisect_left(self._idle, (rank, leg))
        if i < len(self._idle) and self._idle[i] == (rank, leg):
            del self._idle[i]

    def best(self, excluded: Collection[int] = ()) -> int | None:
        """The best idle leg that is not excluded."""
        for _, leg in self._idle:
            if leg not in excluded:
                return leg
        return None
