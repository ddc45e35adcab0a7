"""What a stream waits for, in words, and how much of the time it has waited for what."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from viamillipede.config import S_US, WAITS_US
from viamillipede.protocol import waits
from viamillipede.protocol.presence import Presence
from viamillipede.protocol.waits import Wait
from viamillipede.units import format_duration_us
from viamillipede.views.snapshot import Waits

if TYPE_CHECKING:
    from viamillipede.aio.rx import Receiver
    from viamillipede.aio.tx import Transmitter

PATH_SHARE = 0.3  # of the ticks in which the network was waited for, and a path is worth being named
PATHS_NAMED = 4  # of more than these only the number is told, if it is all of them
TOLD_US = 3 * WAITS_US  # tx has told nothing for so long: it has no leg to do so, or is gone
SLEPT_US = 1 * S_US  # from one tick to the next: it is we who slept (SIGSTOP, a suspended machine)
STALL_US = 5 * S_US  # nothing has moved for so long although there is something to move: a stall
_RUNS = "/proc/thread-self/schedstat"


def _wanted_ns() -> int:
    """For how long this thread has run, or, where that is told, has waited for a core that others held."""
    waited_ns = 0
    try:
        with open(_RUNS, encoding="ascii") as file:
            waited_ns = int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        pass  # not Linux, or a kernel that does not count it
    return time.thread_time_ns() + waited_ns


class Core:
    """How much of a core this process uses, from one tick to the next. To be used by the thread of the loop."""

    def __init__(self, now: int) -> None:
        self.share = 0.0  # of the last tick, in which the loop had work to do
        self.share_lately = 0.0  # of the last second or so, that all threads used
        self._wanted_ns, self._used_ns, self._since_us = _wanted_ns(), time.process_time_ns(), now

    def sample(self, now: int) -> float:
        """The share since the last sample, in parts of one core, in which the loop had no time to wait.

        That it waits for a core is no different: it cannot go on for want of one.
        """
        wanted_ns, used_ns, elapsed_us = _wanted_ns(), time.process_time_ns(), max(1, now - self._since_us)
        self.share = min(1.0, (wanted_ns - self._wanted_ns) / 1000 / elapsed_us)
        self.share_lately += ((used_ns - self._used_ns) / 1000 / elapsed_us - self.share_lately) / 10
        self._wanted_ns, self._used_ns, self._since_us = wanted_ns, used_ns, now
        return self.share


class Books:
    """What both sides keep. `waiting`: what is waited for, in words."""

    def __init__(self, core: Wait, waiting: Callable[[int], str], now: int) -> None:
        self.waits, self.core = waits.Waits(core), Core(now)
        self._waiting = waiting
        self._tick_us = self._network_since_us = now
        self._network_ticks = 0
        self._paths: Counter[str] = Counter()  # ticks in which the network was waited for, by path

    def on_tick(self, now: int, output_us: int = 0, core_us: int = 0) -> None:
        """Book the time since the last tick; see Waits.on_tick."""
        share = self.core.sample(now)
        before_us = self.waits.booked_us[Wait.NETWORK]
        if now - self._tick_us > SLEPT_US and share < waits.CORE_BUSY:
            self.waits.skip(now)
            self._network_since_us = now
        else:
            self.waits.on_tick(share, now, output_us, core_us)
        self._tick_us = now
        if not is_network(self._waiting(now)):
            self._network_since_us = now
        if self.waits.booked_us[Wait.NETWORK] > before_us:
            self._network_ticks += 1
            self._paths.update(self.slow_paths())

    def slow_paths(self) -> set[str]:
        """Those that hold the stream up at this moment."""
        raise NotImplementedError

    def network_us(self, now: int) -> int:
        """For how long nothing but the network has been waited for."""
        return now - self._network_since_us

    def path(self) -> str:
        """The addresses that the network's share is mostly about."""
        named = sorted(path for path, count in self._paths.items() if count >= PATH_SHARE * self._network_ticks)
        if len(named) > PATHS_NAMED:
            return f"{len(named)} paths"
        return " and ".join(filter(None, (", ".join(named[:-1]), named[-1]))) if named else ""

    @property
    def cpu_share(self) -> float:
        """See Core."""
        return self.core.share_lately

    def shares_of_time(self) -> list[float]:
        """Parts of 1, in the order of Wait."""
        return self.waits.shares()

    def shares(self) -> Waits:
        """For a snapshot."""
        return as_shares(self.shares_of_time(), self.path())

    def verdict(self) -> str:
        """For a reader."""
        return waits.verdict(self.shares_of_time(), self.waits.total_us, self.path())


class TxWaits(Books):
    """tx's books: its own state, and what rx says of itself."""

    def __init__(self, program: Transmitter, now: int) -> None:
        super().__init__(Wait.TX_CORE, lambda now: tx_waits_for(program, now), now)
        self._program = program
        self._rx_output_us = self._rx_core_us = 0
        self._word: tuple[bool, int] = False, 0  # of rx, about its output
        self._word_us = now
        self._closed = False

    def on_pumped(self, now: int) -> None:
        """There is nothing to send at the moment."""
        session = self._program.session
        if session.presence.contacted and not self._closed:
            self.waits.on_state(self._state(now), now)
        if (word := (session.rx_waits_output, session.rx_output_us)) != self._word:
            self._word, self._word_us = word, now
        if session.done and not self._closed:
            self._book(now)
            self._closed = True
            if session.rx_waits_output:  # and that went on until now, when all was done
                self.waits.settle(Wait.SINK, now - self._word_us)

    def _state(self, now: int) -> Wait:
        window = self._program.session.window
        state = waits.tx_waits_for(self._program.session.scheduler, window, now)
        if state is Wait.SOURCE and self._program.hasher.busy:
            return Wait.TX_CORE  # it has brought something, and that is being digested
        if state is Wait.LIMIT and not window.exhausted() and not window.ended and window.input_view() is not None:
            return Wait.SOURCE  # what the limit allows next is not here yet
        return state

    def on_tick(self, now: int, output_us: int = 0, core_us: int = 0) -> None:
        """Book the time since the last tick; to say farewell is not the stream's."""
        if not self._program.outcome.done():
            self._book(now)

    def _book(self, now: int) -> None:
        session = self._program.session
        output_us, core_us = session.rx_output_us, session.rx_core_us
        super().on_tick(now, output_us - self._rx_output_us, core_us - self._rx_core_us)
        self._rx_output_us, self._rx_core_us = output_us, core_us

    def slow_paths(self) -> set[str]:
        """That of the oldest frame, and those that are full; all, when none works."""
        session = self._program.session
        states = session.book.states
        if not session.legs:
            return {str(state.address) for state in states if state.worked}
        oldest = session.window.oldest()
        ranks = {session.legs[leg].rank for leg in oldest.legs if leg in session.legs} if oldest is not None else set()
        ranks |= {leg.rank for leg in session.legs.values() if session.scheduler.saturated(leg.rank)}
        return {str(states[rank].address) for rank in ranks}


class RxWaits(Books):
    """rx's books: its output and its core; tx tells it the rest."""

    def __init__(self, program: Receiver, now: int) -> None:
        super().__init__(Wait.RX_CORE, lambda now: rx_waits_for(program, now), now)
        self._program = program
        self._told: tuple[int, ...] = ()  # by tx
        self._then_us = 0, [0] * len(Wait)  # when tx told it last: all our time, and what was booked

    def on_worked(self, now: int) -> None:
        """All has been done that could be."""
        session = self._program.session
        if not session.presence.contacted:
            return
        if session.output_blocked:
            state = Wait.SINK
        elif self._program.hasher.busy:
            state = Wait.RX_CORE
        else:
            state = Wait.NETWORK if session.reassembly.total is None else Wait.SINK
        self.waits.on_state(state, now)

    def on_tick(self, now: int, output_us: int = 0, core_us: int = 0) -> None:
        """Book the time since the last tick, and have tx know."""
        if self._program.outcome.done():
            return
        super().on_tick(now)
        session, booked_us = self._program.session, self.waits.booked_us
        session.output_us, session.core_us = booked_us[Wait.SINK], booked_us[Wait.RX_CORE]
        if session.tx_waits_us is not self._told:
            self._told, self._then_us = session.tx_waits_us, (self.waits.total_us, list(booked_us))

    def slow_paths(self) -> set[str]:
        """The hosts that are in the middle of a frame, and have not just to wait until it is due; all, if none is."""
        program, waiting = self._program, self._program.session.waiting_legs
        legs = program.connections.values()
        bringing = {each.peer.host for each in legs if each.leg.copy is not None and each.leg not in waiting}
        return bringing or {each.peer.host for each in legs} or set(program.moved_of)

    def shares_of_time(self) -> list[float]:
        """As tx has told them; and where it has told nothing for a while, what we know since then."""
        told, waits = self._program.session.tx_waits_us, self.waits
        if not told:
            return waits.shares()
        then_us, booked_us = self._then_us
        if told is self._told and waits.total_us - then_us >= TOLD_US:
            told = tuple(us + now - then for us, now, then in zip(told, waits.booked_us, booked_us, strict=True))
        return [waited_us / max(1, sum(told)) for waited_us in told]  # all of tx's time was booked


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
        legs = ", ".join(f"{leg} ({program.connections[leg].address.host})" for leg in sorted(oldest.legs))
        return f"network: frame {oldest.seq} on {f'leg {legs}' if legs else 'no leg yet'}"
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
        held = any(True for _ in reassembly.arrived)
        return f"network: frame {reassembly.due_seq}, which is late" if held else "input"
    legs = ", ".join(f"{leg.number} ({program.connections[leg.key].peer.host})" for leg in due)
    return f"network: frame {reassembly.due_seq} on leg {legs}"


def is_network(waiting: str) -> bool:
    """Whether these words are about the network."""
    return waiting.startswith(("network", "the network"))


def is_stall(idle_us: int, waiting: Callable[[], str]) -> bool:
    """Whether it is time to worry. A pause of the input, or of the output, is none."""
    return idle_us >= STALL_US and is_network(waiting())
