"""The addresses of the other side: what is known of each, and when it may be dialled again (back-off with jitter)."""

from viamillipede.config import BACKOFF_UNREACHED_US_MAX, BACKOFF_US_MAX, BACKOFF_US_MIN, Address


class AddressState:
    """What is known of one address.

    `failure`: why the latest attempt failed, `refusal`: why a receiver there refused us; "" after a success.
    """

    __slots__ = ("address", "bytes_sent", "cuts", "failure", "failures", "refusal", "retry_us", "worked")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.failures = 0  # to get a leg, in a row
        self.cuts = 0  # legs in a row that were lost before they were of use
        self.retry_us = 0
        self.worked = False
        self.failure = self.refusal = ""
        self.bytes_sent = 0

    def __str__(self) -> str:
        """The address and what is wrong with it. A refusal stays worth knowing when nobody listens any more."""
        before = f" (before: {self.refusal})" if self.refusal not in ("", self.failure) else ""
        return f"{self.address}: {self.failure}{before}"


def _backoff_us(failures: int, limit_us: int, jitter: float) -> int:
    backoff_us = min(limit_us, BACKOFF_US_MIN << min(failures - 1, 16))
    return int(backoff_us * (0.5 + jitter / 2))


class AddressBook:
    """The receiver's addresses, in order of preference: rank 0 first."""

    def __init__(self, addresses: tuple[Address, ...]) -> None:
        assert addresses
        self.states = tuple(AddressState(a) for a in addresses)

    def on_accepted(self, rank: int) -> None:
        """The address has accepted a leg."""
        state = self.states[rank]
        state.worked = True
        state.failures = 0
        state.failure = state.refusal = ""
        if not state.cuts:
            state.retry_us = 0

    def on_useful(self, rank: int) -> None:
        """A leg to the address has brought something over, or has lived for a while."""
        self.states[rank].cuts = 0

    def on_cut(self, rank: int, now_us: int, jitter: float) -> None:
        """An accepted leg was lost before it was of use: something on the way may cut each of them at once."""
        state = self.states[rank]
        if now_us >= state.retry_us:
            state.cuts += 1
            state.retry_us = now_us + _backoff_us(state.cuts, BACKOFF_US_MAX, jitter)

    def on_failed(self, rank: int, reason: str, reached: bool, now_us: int, jitter: float) -> None:
        """An attempt failed, or a leg was lost before it was accepted. `jitter`: random, in [0, 1).

        Attempts that were under way together count once, so that many legs do not use up the
        back-off at the first refusal. `reached`: the host is there, and would have to answer each time;
        without it an attempt costs nobody anything, and a network that is back should be found soon.
        """
        state = self.states[rank]
        state.failure = reason
        if now_us < state.retry_us:
            return
        state.failures += 1
        limit_us = BACKOFF_US_MAX if reached else BACKOFF_UNREACHED_US_MAX
        state.retry_us = now_us + _backoff_us(state.failures, limit_us, jitter)

    def failures(self) -> list[str]:
        """A line for each address whose latest attempt failed."""
        return [str(state) for state in self.states if state.failure]
