"""Half-open ranges of frame numbers, for what has arrived out of order."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class RangeSet:
    """Integers as ascending, disjoint, non-adjacent ranges [start, end)."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __repr__(self) -> str:
        return f"<RangeSet {', '.join(f'{s}-{e - 1}' for s, e in self)}>"

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    def __len__(self) -> int:
        """The number of ranges, not of members."""
        return len(self._starts)

    def __contains__(self, number: int) -> bool:
        i = bisect_right(self._starts, number) - 1
        return i >= 0 and number < self._ends[i]

    def add(self, start: int, end: int) -> None:
        """Take in [start, end); what is there already does not matter."""
        assert start < end
        low = bisect_left(self._ends, start)  # the first range that touches or follows
        high = bisect_right(self._starts, end)  # one behind the last range that touches
        if low < high:
            start = min(start, self._starts[low])
            end = max(end, self._ends[high - 1])
        self._starts[low:high] = [start]
        self._ends[low:high] = [end]

    def missing(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of [start, end) that are not in the set, ascending."""
        i = bisect_right(self._ends, start)
        while start < end:
            known = self._starts[i] if i < len(self._starts) else end
            if start < known:
                yield start, min(known, end)
            start = self._ends[i] if i < len(self._ends) else end
            i += 1

    def discard_below(self, number: int) -> None:
        """Forget every member below `number`."""
        i = bisect_right(self._ends, number)
        del self._starts[:i], self._ends[:i]
        if self._starts and self._starts[0] < number:
            self._starts[0] = number

    def first(self, count: int) -> tuple[tuple[int, int], ...]:
        """The lowest `count` ranges."""
        return tuple(zip(self._starts[:count], self._ends[:count], strict=True))
