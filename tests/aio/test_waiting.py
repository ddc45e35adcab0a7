"""The books: whose time it was, which path, what is said of it; and whether it is a stall."""

from types import SimpleNamespace
from typing import Any

import pytest

from viamillipede.aio.waiting import (
    PATHS_NAMED,
    SLEPT_US,
    STALL_US,
    TOLD_US,
    Books,
    RxWaits,
    TxWaits,
    as_shares,
    is_stall,
)
from viamillipede.config import MIB, MS_US, S_US, TICK_US, Address, TxConfig
from viamillipede.protocol.reassembly import Reassembly
from viamillipede.protocol.tx_session import TxSession
from viamillipede.protocol.waits import Wait
from viamillipede.protocol.wire import Answer, Verdict

BEGUN_US = 7 * S_US
HOSTS = tuple(Address(f"10.0.{number}.2", 8834) for number in range(6))


# What both keep -------------------------------------------------------------------------------------------------


class Notes(Books):
    """Books whose every input the test decides."""

    def __init__(self, core: Wait = Wait.TX_CORE) -> None:
        super().__init__(core, lambda now: self.words, BEGUN_US)
        self.words = "input"
        self.slow: set[str] = set()
        self.share = 0.1
        self.now = BEGUN_US
        self.core.sample = lambda now: self.share  # type: ignore[method-assign]

    def slow_paths(self) -> set[str]:
        """See Books."""
        return self.slow

    def tick(self, count: int = 1, every_us: int = TICK_US) -> None:
        """So many, in which nothing changes."""
        for _ in range(count):
            self.now += every_us
            self.on_tick(self.now)


def test_time_asleep_is_nobodys() -> None:
    notes = Notes()
    notes.waits.on_state(Wait.NETWORK, BEGUN_US)
    notes.tick(5)
    notes.words = "network: frame 1 on leg 1"
    notes.tick(1, 60 * S_US)
    assert notes.waits.booked_us[Wait.NETWORK] == notes.waits.total_us == 5 * TICK_US
    assert notes.network_us(notes.now) == 0, "nor is it a stall"
    notes.tick(5)
    assert notes.waits.booked_us[Wait.NETWORK] == notes.waits.total_us == 10 * TICK_US


@pytest.mark.parametrize(("every_us", "share"), [(SLEPT_US, 0.1), (60 * S_US, 0.9)])
def test_a_long_tick_in_which_we_were_there_counts(every_us: int, share: float) -> None:
    notes = Notes()
    notes.waits.on_state(Wait.NETWORK, BEGUN_US)
    notes.share = share
    notes.tick(1, every_us)
    assert sum(notes.waits.booked_us) == notes.waits.total_us == every_us


def test_the_network_is_waited_for_from_one_change_of_words_to_the_next() -> None:
    notes = Notes()
    notes.tick(20)
    assert notes.network_us(notes.now) == 0
    for words in ("network: frame 1 on leg 1", "network: frame 2 on leg 1", "the network, for 2 s"):
        notes.words = words
        notes.tick(10)
    assert notes.network_us(notes.now) == 30 * TICK_US
    notes.words = "output (of the receiver)"
    notes.tick()
    assert notes.network_us(notes.now) == 0


def path_of(*slow: set[str]) -> str:
    """The name of the paths that are slow in turn, ten ticks each."""
    notes = Notes()
    notes.waits.on_state(Wait.NETWORK, BEGUN_US)
    for notes.slow in slow:
        notes.tick(10)
    return notes.path()


def test_a_path_is_named_if_it_was_slow_for_much_of_the_time() -> None:
    assert path_of() == path_of(set()) == ""
    assert path_of({"b"}) == path_of({"b"}, {"b"}, {"a", "b"}, {"b"}) == "b"
    assert path_of({"b"}, {"a"}) == path_of({"a", "b"}) == "a and b"
    assert path_of({"c", "a", "b"}) == "a, b and c"
    many = {str(number) for number in range(PATHS_NAMED + 1)}
    assert path_of(many) == f"{PATHS_NAMED + 1} paths" and path_of(many, {"x"}, {"x"}, {"x"}) == "x"


def test_a_path_is_slow_only_while_the_network_is_waited_for() -> None:
    notes = Notes()
    notes.waits.on_state(Wait.SOURCE, BEGUN_US)
    notes.slow = {"a"}
    notes.tick(50)
    notes.waits.on_state(Wait.NETWORK, notes.now)
    notes.slow = {"b"}
    notes.tick(10)
    notes.share = 1.0
    notes.slow = {"c"}
    notes.tick(50)
    assert notes.path() == "b"
    assert notes.verdict() == "bottleneck: the source, 45 % of the time; a core of tx 45 %; the network 9 %"


def test_shares_for_the_views() -> None:
    found = as_shares([0.1, 0.2, 0.3, 0.05, 0.25, 0.02], "somewhere")
    assert (found.source, found.network, found.core, found.sink, found.limit) == (0.1, 0.2, 0.35, 0.25, 0.02)
    assert (found.network_path, found.core_side) == ("somewhere", "tx")
    assert as_shares([0, 0, 0.1, 0.2, 0, 0], "").core_side == "rx" and as_shares([0.0] * 6, "").core_side == ""


# tx -------------------------------------------------------------------------------------------------------------


class Tx:
    """The little of a transmitter that its books look at, around a real session."""

    def __init__(self, count: int = 2, legs: int = 4, **words: Any) -> None:
        config = TxConfig(addresses=HOSTS[:count], threads=legs, window_bytes=4 * MIB, frame_bytes=MIB, **words)
        self.session = TxSession(config, bytes(16), BEGUN_US)
        self.presence = self.session.presence
        self.hasher = SimpleNamespace(busy=False)
        self.over = False
        self.outcome = SimpleNamespace(done=lambda: self.over)
        self.connections = {leg: SimpleNamespace(address=HOSTS[leg % count]) for leg in range(legs)}
        self.books = TxWaits(self, BEGUN_US)  # type: ignore[arg-type]
        self.books.core.sample = lambda now: 0.1  # type: ignore[method-assign]

    def up(self, leg: int) -> None:
        """A leg, on the path that is its number's turn; it can take something."""
        answer = Answer(Verdict.ACCEPTED, 0, b"receiver", 4 * MIB)
        assert self.session.on_answer(leg, leg % len(self.session.book.states), answer, BEGUN_US) == ""
        self.session.on_idle(leg)

    def read(self, count: int) -> None:
        """The input gives so much."""
        view = self.session.window.input_view()
        assert view is not None and len(view) >= count
        self.session.window.on_input(count, BEGUN_US)

    def state(self) -> Wait | None:
        """What the books take it to wait for now."""
        self.books.on_pumped(BEGUN_US)
        return self.books.waits._state


def test_tx_waits_for_nothing_before_the_first_contact() -> None:
    tx = Tx()
    assert tx.state() is None
    tx.up(0)
    assert tx.state() is Wait.SOURCE


def test_what_is_being_digested_is_here_already() -> None:
    tx = Tx()
    tx.up(0)
    tx.hasher.busy = True
    assert tx.state() is Wait.TX_CORE
    tx.read(1)
    assert tx.session.next_assignment(BEGUN_US) is not None
    assert tx.state() is Wait.NETWORK, "and were it done, no leg could take it"


def test_a_limit_holds_up_only_what_is_there() -> None:
    tx = Tx(limit_bytes=100_000)
    tx.up(0)
    tx.up(1)
    tx.read(10_000)
    assert tx.session.next_assignment(BEGUN_US) is not None and tx.session.next_assignment(BEGUN_US) is None
    assert tx.state() is Wait.SOURCE
    tx.read(MIB)  # all that is wanted at a time
    assert tx.state() is Wait.LIMIT
    tx.session.window.on_input_end()
    assert tx.state() is Wait.LIMIT


def test_the_slow_paths_of_tx() -> None:
    tx = Tx()
    assert tx.books.slow_paths() == set(), "none has worked yet"
    for leg in range(4):
        tx.up(leg)
    assert tx.books.slow_paths() == set(), "all could take something"
    tx.read(1)
    assert tx.session.next_assignment(BEGUN_US) is not None
    assert tx.books.slow_paths() == {str(HOSTS[0])}, "it has the oldest frame"
    tx.session.on_idle(0)
    assert tx.books.slow_paths() == {str(HOSTS[0])}, "which is under way"
    for leg in (1, 3):
        tx.session.legs[leg].busy = True
        tx.session._refresh(tx.session.legs[leg])
    assert tx.books.slow_paths() == {str(HOSTS[0]), str(HOSTS[1])}, "the other is full"
    for leg in range(4):
        tx.session.on_leg_lost(leg, False, BEGUN_US)
    assert tx.books.slow_paths() == {str(HOSTS[0]), str(HOSTS[1])}, "both are gone, and have worked"


def test_rxs_word_is_taken_as_what_is_new_since_the_last() -> None:
    tx = Tx()
    tx.up(0)
    tx.books.waits.on_state(Wait.NETWORK, BEGUN_US)
    for tick in range(1, 11):
        tx.session.rx_output_us, tx.session.rx_core_us = tick * 60 * MS_US, tick * 10 * MS_US
        tx.books.on_tick(BEGUN_US + tick * TICK_US)
    shares = tx.books.shares()
    assert (round(shares.sink, 3), round(shares.core, 3), round(shares.network, 3)) == (0.6, 0.1, 0.3)
    assert shares.core_side == "rx"


def test_what_rx_waited_for_last_it_waited_for_until_the_end() -> None:
    """It says DONE without saying once more for how long that was."""
    tx = Tx()
    tx.up(0)
    tx.books.waits.on_state(Wait.NETWORK, BEGUN_US)
    tx.session.window.on_input_end()
    assert tx.session.next_assignment(BEGUN_US) is not None
    for tick in range(1, 11):
        tx.session.rx_waits_output = tick > 4
        tx.books.on_pumped(BEGUN_US + tick * TICK_US)
        tx.books.on_tick(BEGUN_US + tick * TICK_US)
    tx.session.done = tx.over = True
    for late in (1050, 2000, 3000):  # and nothing after that counts
        tx.books.on_pumped(BEGUN_US + late * MS_US)
    assert [tx.books.waits.booked_us[wait] // MS_US for wait in (Wait.NETWORK, Wait.SINK)] == [500, 550]


def test_saying_farewell_is_not_the_streams_time() -> None:
    tx = Tx()
    tx.up(0)
    tx.books.on_pumped(BEGUN_US)
    tx.books.on_tick(BEGUN_US + TICK_US)
    before, tx.over = list(tx.books.waits.booked_us), True
    for tick in range(2, 50):
        tx.books.on_tick(BEGUN_US + tick * TICK_US)
    assert tx.books.waits.booked_us == before and tx.books.waits.total_us == TICK_US


# rx -------------------------------------------------------------------------------------------------------------


class Rx:
    """The little of a receiver that its books look at."""

    def __init__(self) -> None:
        self.session = SimpleNamespace(
            presence=SimpleNamespace(contacted=True, alone_since_us=None), output_blocked=False, tx_waits_us=(),
            reassembly=Reassembly(4 * MIB, False, False), output_us=0, core_us=0, waiting_legs=[], legs={},
        )  # fmt: skip
        self.hasher = SimpleNamespace(busy=False)
        self.outcome = SimpleNamespace(done=lambda: False)
        self.connections: dict[int, Any] = {}
        self.moved_of = {"a": 0, "b": 0}
        self.now = BEGUN_US
        self.books = RxWaits(self, BEGUN_US)  # type: ignore[arg-type]
        self.books.core.sample = lambda now: 0.1  # type: ignore[method-assign]

    def tick(self, count: int = 1) -> None:
        """So many, in which nothing changes."""
        for _ in range(count):
            self.books.on_worked(self.now)
            self.now += TICK_US
            self.books.on_tick(self.now)

    def brings(self, key: int, host: str, copy: bool) -> Any:
        """A leg, which is in the middle of a frame, or is not."""
        leg = SimpleNamespace(key=key, number=key, copy=copy or None)
        self.connections[key] = SimpleNamespace(leg=leg, peer=Address(host, 1))
        return leg


def test_what_rx_waits_for() -> None:
    rx = Rx()
    rx.tick(3)
    rx.session.output_blocked = True
    rx.tick(4)
    rx.hasher.busy = True
    rx.tick(1)
    rx.session.output_blocked = False
    rx.tick(2)
    rx.hasher.busy, rx.session.reassembly.total = False, 0
    rx.tick(5)
    booked = {wait: rx.books.waits.booked_us[wait] // TICK_US for wait in Wait if rx.books.waits.booked_us[wait]}
    assert booked == {Wait.NETWORK: 3, Wait.SINK: 4 + 1 + 5, Wait.RX_CORE: 2}
    assert (rx.session.output_us, rx.session.core_us) == (10 * TICK_US, 2 * TICK_US), "tx is told"


def test_rx_believes_tx_as_long_as_that_says_anything() -> None:
    rx = Rx()
    rx.tick(10)
    assert rx.books.verdict() == "bottleneck: the network (a and b), 100 % of the time"
    rx.brings(1, "a", False)
    rx.session.tx_waits_us = (600_000, 0, 0, 0, 400_000, 0)
    assert rx.books.verdict() == "bottleneck: the source, 60 % of the time; the sink 40 %", (
        "at once: it may be the last"
    )
    rx.tick(TOLD_US // TICK_US)
    assert rx.books.shares().source == 0.6, "what is new is still to be told"
    rx.tick(11)
    shares = rx.books.shares()
    assert shares.network == pytest.approx(0.8) and shares.source == pytest.approx(0.12), "tx is gone, 4 s of 5"
    rx.session.tx_waits_us = (1, 0, 0, 0, 1, 0)
    rx.tick()
    assert rx.books.shares().source == 0.5


def test_the_slow_paths_of_rx() -> None:
    rx = Rx()
    assert rx.books.slow_paths() == {"a", "b"}, "nobody is there, of those who were"
    rx.brings(1, "b", False)
    assert rx.books.slow_paths() == {"b"}
    rx.brings(2, "c", True)
    assert rx.books.slow_paths() == {"c"}
    rx.session.waiting_legs = [rx.brings(3, "d", True)]
    assert rx.books.slow_paths() == {"c"}, "what the other has brought is only not due"


# A stall --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("idle_us", "words", "stalled"),
    [
        (STALL_US, "network: frame 1 on leg 0 (10.0.0.2)", True),
        (STALL_US - 1, "network: frame 1 on leg 0 (10.0.0.2)", False),
        (100 * STALL_US, "input", False),
        (100 * STALL_US, "output", False),
        (100 * STALL_US, "output (of the receiver)", False),
        (STALL_US, "the network, for 5.00 s", True),
    ],
)
def test_what_is_a_stall(idle_us: int, words: str, stalled: bool) -> None:
    assert is_stall(idle_us, lambda: words) is stalled
