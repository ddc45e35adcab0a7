"""Where the time goes: what the stream waits for, from one change to the next, and the verdict on that.

The session says what it waits for whenever that may have changed (`on_state`). Once a tick the time since the last
one is booked (`on_tick`): to a core, if that was busy all the while, since whatever a busy process seems to wait for
it only has not come to yet; what looked like the network is booked to the output or the core of the other side, as
far as it has said that it waited for these.
"""

from collections.abc import Sequence
from enum import IntEnum

from viamillipede.config import MS_US
from viamillipede.protocol.scheduler import Scheduler
from viamillipede.protocol.send_window import SendWindow

CORE_BUSY = 0.85  # of a tick: a process that used so much of a core had no time to wait
KNOWN_US = 500 * MS_US  # a verdict on less would be noise
UNSETTLED_US = 1500 * MS_US  # rx speaks twice a second at least, and may be busy
CLEAR = 0.1  # what takes less of the time is no bottleneck


class Wait(IntEnum):
    """What a stream may wait for; the order is that of WAITS on the wire."""

    SOURCE = 0
    NETWORK = 1
    TX_CORE = 2
    RX_CORE = 3
    SINK = 4
    LIMIT = 5


NAMES = {
    Wait.SOURCE: "the source",
    Wait.NETWORK: "the network",
    Wait.TX_CORE: "a core of tx",
    Wait.RX_CORE: "a core of rx",
    Wait.SINK: "the sink",
    Wait.LIMIT: "the limit that was set",
}


def tx_waits_for(scheduler: Scheduler, window: SendWindow, now_us: int) -> Wait:
    """What tx waits for when it has nothing to send at the moment."""
    if scheduler.best(now_us) is None:
        return Wait.NETWORK if scheduler.deadline_us(now_us) is None else Wait.LIMIT
    return Wait.NETWORK if window.exhausted() else Wait.SOURCE


class Waits:
    """The time booked so far. `core`: whose core our own process is."""

    def __init__(self, core: Wait) -> None:
        self.core = core
        self.booked_us = [0] * len(Wait)
        self.total_us = 0  # of all ticks
        self._open_us = [0] * len(Wait)  # since the last tick
        self._unsettled_us = 0  # what looked like the network lately; the other side's word on it is still under way
        self._state: Wait | None = None
        self._since_us = self._tick_us = 0
        self._begun = False

    def on_state(self, state: Wait | None, now_us: int) -> None:
        """From now on the stream waits for this; None: for nothing that counts."""
        if not self._begun:
            self._begun, self._since_us, self._tick_us = True, now_us, now_us
        if state is not self._state:
            self._close(now_us)
            self._state = state

    def _close(self, now_us: int) -> None:
        if self._state is not None:
            self._open_us[self._state] += now_us - self._since_us
        self._since_us = now_us

    def on_tick(self, core_share: float, now_us: int, sink_us: int = 0, other_core_us: int = 0) -> None:
        """Book. `core_share`: of the time since the last tick that our process used a core; the others: what the
        other side says it waited for its output and used a core for since then."""
        if not self._begun:
            return
        self._close(now_us)
        elapsed_us, self._tick_us = now_us - self._tick_us, now_us
        self.total_us += elapsed_us
        opened, self._open_us = self._open_us, [0] * len(Wait)
        if core_share >= CORE_BUSY:
            self.booked_us[self.core] += sum(opened)
            return
        for each, waited_us in enumerate(opened):
            self.booked_us[each] += waited_us
        self._unsettled_us = min(UNSETTLED_US, self._unsettled_us + opened[Wait.NETWORK])
        self.settle(Wait.SINK, sink_us)
        self.settle(Wait.RX_CORE, other_core_us)

    def settle(self, wait: Wait, said_us: int) -> None:
        """So much of what looked like the network was this."""
        moved_us = min(said_us, self._unsettled_us)
        self._unsettled_us -= moved_us
        self.booked_us[Wait.NETWORK] -= moved_us
        self.booked_us[wait] += moved_us

    def skip(self, now_us: int) -> None:
        """The time since the last tick was nobody's: this process was not there."""
        self._open_us = [0] * len(Wait)
        self._since_us = self._tick_us = now_us

    def shares(self) -> list[float]:
        """Parts of 1, in the order of Wait."""
        return [waited_us / max(1, self.total_us) for waited_us in self.booked_us]


def verdict(shares: Sequence[float], total_us: int, path: str) -> str:
    """`bottleneck: the network (10.0.1.2:8834), 93 % of the time; the source 5 %`; "" while too little is known."""
    if total_us < KNOWN_US:
        return ""
    order = sorted(Wait, key=lambda wait: -shares[wait])
    worst, rest = order[0], [wait for wait in order[1:] if shares[wait] >= CLEAR / 10]
    if shares[worst] < CLEAR:
        return "bottleneck: none in particular"
    where = f" ({path})" if worst is Wait.NETWORK and path else ""
    others = "".join(f"; {NAMES[wait]} {100 * shares[wait]:.0f} %" for wait in rest)
    return f"bottleneck: {NAMES[worst]}{where}, {100 * shares[worst]:.0f} % of the time{others}"
