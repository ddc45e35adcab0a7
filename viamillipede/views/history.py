"""The rates of the last samples, bounded, and how they are drawn: sparklines and small graphs."""

from collections import deque
from collections.abc import Hashable, Iterable, Sequence

from viamillipede.views.snapshot import Snapshot

TOTAL_SAMPLES_MAX = 512  # wider than any terminal
SAMPLES_MAX = 60  # of each path and each leg
BLOCKS = " ▁▂▃▄▅▆▇█"
BLOCKS_ASCII = " _.-:=+*#"

Key = tuple[str, Hashable]
TOTAL: Key = ("total", "")


class History:
    """What the rates were, bytes per second, newest last; of everything, of each path and of each leg."""

    def __init__(self) -> None:
        self._rates: dict[Key, deque[int]] = {TOTAL: deque(maxlen=TOTAL_SAMPLES_MAX)}

    def observe(self, snapshot: Snapshot) -> None:
        """One sample more of all that the snapshot has; what it has no more is forgotten."""
        now: dict[Key, int] = {TOTAL: snapshot.rate}
        now |= {("path", path.address): path.rate for path in snapshot.paths}
        now |= {("leg", leg.number): leg.rate for leg in snapshot.legs}
        self._rates = {key: self._rates.get(key, deque(maxlen=SAMPLES_MAX)) for key in now}
        for key, rate in now.items():
            self._rates[key].append(max(0, rate))

    def rates(self, key: Key, count: int) -> list[int]:
        """The last `count` samples or fewer."""
        return list(self._rates.get(key, ()))[-count:] if count > 0 else []

    def mean(self, key: Key) -> float:
        """Over the samples that are kept; 0 where there are none."""
        rates = self._rates.get(key, ())
        return sum(rates) / len(rates) if rates else 0.0

    def peak(self, keys: Iterable[Key], count: int) -> int:
        """The highest of the last `count` samples of all `keys`, at least 1: the scale that they share."""
        return max((rate for key in keys for rate in self.rates(key, count)), default=0) or 1

    def __len__(self) -> int:
        return sum(map(len, self._rates.values()))


def graph(rates: Sequence[int], width: int, height: int, peak: int, blocks: str = BLOCKS) -> list[str]:
    """`height` rows of `width` cells, the newest rate at the right edge, `peak` at the top.

    A rate of 0 is a line at the bottom, any other is higher than that; where there was no sample there is nothing.
    """
    steps = len(blocks) - 1
    shown = rates[-width:] if width > 0 else []
    levels = [max(2, (min(rate, peak) * height * steps + peak // 2) // peak) if rate else 1 for rate in shown]
    margin = " " * (width - len(shown))
    return [
        margin + "".join(blocks[max(0, min(steps, level - row * steps))] for level in levels)
        for row in reversed(range(height))
    ]


def sparkline(rates: Sequence[int], width: int, peak: int, blocks: str = BLOCKS) -> str:
    """A graph in one row, which leaves the top of its cells free: rows of a table must not run into each other."""
    return graph(rates, width, 1, peak, blocks[:-1])[0]
