"""Which address a leg dials next, and when: back-off per address, with jitter.

Leg i is at home at address i modulo the number of addresses. The first leg of each address is its
scout and dials only home, so a dead address is always tried again; every other leg whose home does
not answer dials the most preferred address that does.
"""

from viamillipede.config import BACKOFF_US_MAX, BACKOFF_US_MIN, Address


class AddressState:
    """What is known of one address. `failure`: why the latest attempt failed, "" after a success."""

    __slots__ = ("address", "bytes_sent", "failure", "failures", "retry_us", "worked")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.failures = 0  # in a row
        self.retry_us = 0
        self.worked = False
        self.failure = ""
        self.bytes_sent = 0


class AddressBook:
    """The receiver's addresses, in order of preference: rank 0 first."""

    def __init__(self, addresses: tuple[Address, ...]) -> None:
        assert addresses
        self.states = tuple(AddressState(a) for a in addresses)

    def home(self, leg: int) -> int:
        """The rank of the address at which `leg` is at home."""
        return leg % len(self.states)

    def pick(self, leg: int, now_us: int) -> tuple[int, int]:
        """(rank of the address to dial, when at the earliest) for `leg`."""
        home = self.home(leg)
        state = self.states[home]
        if state.retry_us <= now_us or leg < len(self.states):
            return home, max(state.retry_us, now_us)
        for rank, other in enumerate(self.states):
            if other.worked and not other.failures:
                return rank, now_us
        rank = min(range(len(self.states)), key=lambda r: (self.states[r].retry_us, r))
        return rank, max(self.states[rank].retry_us, now_us)

    def on_accepted(self, rank: int) -> None:
        """The address has accepted a leg."""
        state = self.states[rank]
        state.worked = True
        state.failures = 0
        state.retry_us = 0
        state.failure = ""

    def on_failed(self, rank: int, reason: str, now_us: int, jitter: float) -> None:
        """An attempt failed, or a leg was lost before it was accepted. `jitter`: random, in [0, 1).

        Attempts that were under way together count once, so that many legs do not use up the
        back-off at the first refusal.
        """
        state = self.states[rank]
        state.failure = reason
        if now_us < state.retry_us:
            return
        backoff_us = min(BACKOFF_US_MAX, BACKOFF_US_MIN << min(state.failures, 16))
        state.failures += 1
        state.retry_us = now_us + int(backoff_us * (0.5 + jitter / 2))

    def failures(self) -> list[str]:
        """A line for each address whose latest attempt failed."""
        return [f"{s.address}: {s.failure}" for s in self.states if s.failure]
