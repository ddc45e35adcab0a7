"""Which leg takes the next frame: the user's order of addresses, weights and limits, then the order of the legs.

Always filling the most preferred leg that can take bytes gives the first address its preference
and spills over to the next exactly when the first is full. It also keeps a stream that one leg can
carry on one leg, where nothing arrives out of order.

Addresses with a weight that stand next to each other are one *group*: among those that can take bytes
the one that is furthest behind its share is next (start-time fair queuing, Goyal et al. 1996: each
address has a virtual time, the bytes it was given over its weight).
"""

from bisect import bisect_left
from collections.abc import Sequence

from viamillipede.config import MIB, WEIGHT_MAX, Address
from viamillipede.protocol.pacing import Pacer

BEHIND_BYTES_MAX = 4 * MIB  # what an address that could take nothing was not given is forgotten, but for this

VIRTUAL_SCALE = WEIGHT_MAX * 1000  # small frames and large weights would be rounded to the same


class Path:
    """One address as the scheduler sees it. `idle`: its legs whose sockets can take bytes now, ascending."""

    def __init__(self, address: Address) -> None:
        self.weight = address.weight
        self.pacer = Pacer(address.limit_bytes)
        self.idle: list[int] = []
        self.virtual = 0  # bytes given per weight, times VIRTUAL_SCALE


class Scheduler:
    """The legs that can take a frame now. `limit_bytes`: per second, of all addresses together; 0: none."""

    def __init__(self, addresses: Sequence[Address], limit_bytes: int = 0) -> None:
        self.pacer = Pacer(limit_bytes)
        self.paths = [Path(address) for address in addresses]
        self._groups: list[list[int]] = []  # of ranks
        for rank, path in enumerate(self.paths):
            if path.weight and self._groups and self.paths[self._groups[-1][-1]].weight:
                self._groups[-1].append(rank)
            else:
                self._groups.append([rank])

    def __len__(self) -> int:
        return sum(len(path.idle) for path in self.paths)

    def add(self, rank: int, leg: int) -> None:
        """`leg` can take a frame; it may be here already."""
        idle = self.paths[rank].idle
        i = bisect_left(idle, leg)
        if i == len(idle) or idle[i] != leg:
            idle.insert(i, leg)

    def discard(self, rank: int, leg: int) -> None:
        """`leg` cannot take a frame any more; it need not be here."""
        idle = self.paths[rank].idle
        i = bisect_left(idle, leg)
        if i < len(idle) and idle[i] == leg:
            del idle[i]

    def best(self, now_us: int) -> int | None:
        """The leg that takes the next frame."""
        if self.pacer.ready_us() > now_us:
            return None
        for group in self._groups:
            open_paths = [path for path in (self.paths[rank] for rank in group) if self._is_open(path, now_us)]
            if open_paths:
                return min(open_paths, key=lambda path: path.virtual).idle[0]
        return None

    def legs(self, now_us: int) -> list[int]:
        """Who can take a frame, best first."""
        if self.pacer.ready_us() > now_us:
            return []
        return [leg for path in self.paths if self._is_open(path, now_us) for leg in path.idle]

    def _is_open(self, path: Path, now_us: int) -> bool:
        return bool(path.idle) and path.pacer.ready_us() <= now_us

    def on_given(self, rank: int, count: int, now_us: int) -> None:
        """A leg to the address was given `count` bytes to send."""
        path = self.paths[rank]
        self.pacer.spend(count, now_us)
        path.pacer.spend(count, now_us)
        if path.weight:
            group = next(group for group in self._groups if rank in group)
            most = max(self.paths[each].virtual for each in group)
            least = most - BEHIND_BYTES_MAX * VIRTUAL_SCALE // path.weight
            path.virtual = max(path.virtual, least) + count * VIRTUAL_SCALE // path.weight

    def frame_bytes(self, rank: int, frame_bytes: int) -> int:
        """How long a frame for the address may be that would be `frame_bytes` long without limits."""
        return self.paths[rank].pacer.frame_bytes(self.pacer.frame_bytes(frame_bytes))

    def deadline_us(self, now_us: int) -> int | None:
        """When a limit lets an idle leg go on; None: none holds one up."""
        waits = [
            ready_us
            for path in self.paths
            if path.idle and (ready_us := max(path.pacer.ready_us(), self.pacer.ready_us())) > now_us
        ]
        return min(waits, default=None)

    def saturated(self, rank: int) -> bool:
        """None of the address's legs can take anything."""
        return not self.paths[rank].idle
