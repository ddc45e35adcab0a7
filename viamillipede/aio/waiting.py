"""What a stream waits for, in words, and how much of the time it has waited for what."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from viamillipede.config import S_US
from viamillipede.protocol import waits
from viamillipede.protocol.presence import Presence
from viamillipede.protocol.waits import Wait
from viamillipede.units import format_duration_us
from viamillipede.views.snapshot import Waits

if TYPE_CHECKING:
    from viamillipede.aio.rx import Receiver
    from viamillipede.aio.tx import Transmitter

PATH_SHARE = 0.3  # of the time that was spent on the network, and a path is worth being named


class Core:
    """How much of a core this process uses, from one tick to the next."""

    def __init__(self, now: int) -> None:
        self.share = self.share_lately = 0.0  # of the last tick; of the last second or so
        self._used_ns, self._since_us = time.process_time_ns(), now

    def sample(self, now: int) -> float:
        """The share since the last sample, in parts of one core."""
        used_ns = time.process_time_ns()
        self.share = (used_ns - self._used_ns) / 1000 / max(1, now - self._since_us)
        self.share_lately += (self.share - self.share_lately) / 10
        self._used_ns, self._since_us = used_ns, now
        return self.share


class TxWaits:
    """tx's books: its own state, and what rx says of itself."""

    def __init__(self, program: Transmitter, now: int) -> None:
        self._program, self._core = program, Core(now)
        self.waits = waits.Waits(Wait.TX_CORE)
        self._rx_output_us = self._rx_core_us = 0
        self._ranks: Counter[int] = Counter()  # ticks in which the network was waited for, by path

    def on_pumped(self, now: int) -> None:
        """There is nothing to send at the moment."""
        session = self._program.session
        if session.presence.contacted:
            self.waits.on_state(waits.tx_waits_for(session.scheduler, session.window, now), now)

    def on_tick(self, now: int) -> None:
        """Book the time since the last tick."""
        session = self._program.session
        output_us, core_us = session.rx_output_us, session.rx_core_us
        before_us = self.waits.booked_us[Wait.NETWORK]
        self.waits.on_tick(self._core.sample(now), now, output_us - self._rx_output_us, core_us - self._rx_core_us)
        self._rx_output_us, self._rx_core_us = output_us, core_us
        if self.waits.booked_us[Wait.NETWORK] > before_us:
            self._ranks.update(self._slow_ranks())

    def _slow_ranks(self) -> set[int]:
        """The paths that hold the stream up: that of the oldest frame, and those that are full."""
        session = self._program.session
        oldest = session.window.oldest()
        ranks = {session.legs[leg].rank for leg in oldest.legs if leg in session.legs} if oldest is not None else set()
        if session.window.room_bytes():
            ranks |= {leg.rank for leg in session.legs.values() if session.scheduler.saturated(leg.rank)}
        return ranks

    def path(self) -> str:
        """The addresses that the network's share is mostly about."""
        states = self._program.session.book.states
        if len(states) < 2:
            return str(states[0].address) if states[0].worked else ""
        total = sum(self._ranks.values())
        named = [rank for rank, count in self._ranks.most_common() if count >= PATH_SHARE * total]
        return " and ".join(str(states[rank].address) for rank in sorted(named))

    @property
    def cpu_share(self) -> float:
        """See Core."""
        return self._core.share_lately

    def shares(self) -> Waits:
        """For a snapshot."""
        return as_shares(self.waits.shares(), self.path())

    def verdict(self) -> str:
        """For a reader."""
        return waits.verdict(self.waits.shares(), self.waits.total_us, self.path())


class RxWaits:
    """rx's books: its output and its core; tx tells it the rest."""

    def __init__(self, program: Receiver, now: int) -> None:
        self._program, self._core = program, Core(now)
        self.waits = waits.Waits(Wait.RX_CORE)

    def on_worked(self, now: int) -> None:
        """All has been done that could be."""
        session = self._program.session
        if session.presence.contacted:
            output = session.output_blocked or session.reassembly.total is not None
            self.waits.on_state(Wait.SINK if output else Wait.NETWORK, now)

    def on_tick(self, now: int) -> None:
        """Book the time since the last tick, and have tx know."""
        self.waits.on_tick(self._core.sample(now), now)
        session = self._program.session
        session.output_us, session.core_us = self.waits.booked_us[Wait.SINK], self.waits.booked_us[Wait.RX_CORE]

    @property
    def cpu_share(self) -> float:
        """See Core."""
        return self._core.share_lately

    def _shares(self) -> list[float]:
        told = self._program.session.tx_waits_us
        if not told:
            return self.waits.shares()
        return [waited_us / max(1, self.waits.total_us, sum(told)) for waited_us in told]

    def shares(self) -> Waits:
        """For a snapshot."""
        return as_shares(self._shares(), "")

    def verdict(self) -> str:
        """For a reader."""
        return waits.verdict(self._shares(), self.waits.total_us, "")


def as_shares(shares: list[float], path: str) -> Waits:
    """In the words of the views."""
    tx_core, rx_core = shares[Wait.TX_CORE], shares[Wait.RX_CORE]
    side = "" if not tx_core and not rx_core else "tx" if tx_core >= rx_core else "rx"
    return Waits(
        source=shares[Wait.SOURCE],
        network=shares[Wait.NETWORK],
        core=tx_core + rx_core,
        sink=shares[Wait.SINK],
        limit=shares[Wait.LIMIT],
        network_path=path,
        core_side=side,
    )


# In words, at this moment. -------------------------------------------------------------------------
def _network(presence: Presence, now: int) -> str:
    if presence.alone_since_us is None:
        return "network"
    what = "the first contact" if not presence.contacted else "the network"
    return f"{what}, for {format_duration_us(now - presence.alone_since_us)}"


def tx_waits_for(program: Transmitter, now: int) -> str:
    """What tx waits for."""
    session = program.session
    oldest = session.window.oldest()
    if session.presence.alone_since_us is not None:
        return _network(session.presence, now)
    if session.rx_waits_output:
        return "output (of the receiver)"
    if oldest is not None:
        legs = (
            ", ".join(f"{leg} ({program.connections[leg].address.host})" for leg in sorted(oldest.legs)) or "no leg yet"
        )
        return f"network: frame {oldest.seq} on leg {legs}"
    return "the receiver's word" if session.window.ended else "input"


def rx_waits_for(program: Receiver, now: int) -> str:
    """What rx waits for."""
    session, reassembly = program.session, program.session.reassembly
    if session.presence.alone_since_us is not None:
        return _network(session.presence, now)
    if session.output_blocked or reassembly.total is not None:
        return "output"
    due = [leg for leg in session.legs.values() if leg.copy and leg.copy.header.seq == reassembly.due_seq]
    if not due:
        return "input"
    legs = ", ".join(f"{leg.number} ({program.connections[leg.key].peer.host})" for leg in due)
    return f"network: frame {reassembly.due_seq} on leg {legs}"


STALL_US = 5 * S_US  # nothing has moved for so long although there is something to move: a stall


def is_stall(idle_us: int, waiting: Callable[[], str]) -> bool:
    """Whether it is time to worry. A pause of the input, or of the output, is none."""
    return idle_us >= STALL_US and waiting().startswith(("network", "the network"))
