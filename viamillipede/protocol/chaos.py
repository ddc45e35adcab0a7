"""Faults on purpose: which socket operation breaks its leg, and how. Deterministic from the count."""

from collections.abc import Iterator
from itertools import cycle

KINDS = ("close", "reset", "stall", "truncate", "corrupt")


class Chaos:
    """Every `every`-th operation is a fault of the chosen kind; "all" takes the kinds in turn.

    Damage is only done where checksums mend it: without them "all" leaves `corrupt` out.
    """

    def __init__(self, every: int, kind: str, checksum: bool) -> None:
        self._every = every
        self._operations = 0
        self.faults = 0
        kinds = [kind] if kind != "all" else [k for k in KINDS if checksum or k != "corrupt"]
        self._kinds: Iterator[str] = cycle(kinds)

    def next_fault(self) -> str | None:
        """Count one operation; the kind of fault it shall suffer, or None."""
        if not self._every:
            return None
        self._operations += 1
        if self._operations % self._every:
            return None
        self.faults += 1
        return next(self._kinds)
