"""Legs that break, anywhere and in any way: the stream arrives whole, and both sides count what happened."""

import re
import threading
from collections.abc import Iterator

import pytest

from tests.e2e.helpers import KIB, MIB, Side, Stage, eventually, read_all, read_exactly, some_bytes
from tests.e2e.proxy import DOWN, UP, Fault, Pace, Proxy
from viamillipede.protocol.wire import ANSWER_BYTES, GREETING_BYTES, HEADER_BYTES

BLOCK = some_bytes(64 * KIB)
FRAME = 1 * KIB
MESSAGE = HEADER_BYTES + FRAME


class Endless:
    """Blocks until `enough` is set, each marked with its number; remembers what was taken."""

    def __init__(self) -> None:
        self.enough = threading.Event()
        self.count = 0

    def __iter__(self) -> Iterator[bytes]:
        while not self.enough.is_set():
            yield self.block(self.count)
            self.count += 1

    @staticmethod
    def block(number: int) -> bytes:
        """The block of this number."""
        return number.to_bytes(8, "big") + BLOCK[8:]


def transfer_until_all_have_broken(proxy: Proxy, rx: Side, tx: Side, faults: int) -> None:
    """Feed for as long as there are faults to come; the output must be the input, and both content."""
    endless = Endless()
    tx.feed(endless)
    number = 0
    while proxy.faults < faults or number < 100:
        assert number < 100_000 and tx.process.poll() is None, f"{proxy.faults} of {faults} faults\n{tx.said}"
        assert read_exactly(rx.output, len(BLOCK)) == Endless.block(number)
        number += 1
    endless.enough.set()
    rest = read_all(rx.output)
    assert len(rest) == (endless.count - number) * len(BLOCK)
    assert rest == b"".join(map(Endless.block, range(number, endless.count)))
    tx.ends(0)
    rx.ends(0)


# Around every boundary of what crosses a leg, and at many places in between.
CUTS_UP = sorted(
    {0, 1, 4, 5, 6, GREETING_BYTES - 1}
    | {GREETING_BYTES + k * MESSAGE + d for k in (0, 1, 2, 7) for d in (0, 1, 2, 3, 7, 8, 31, 32, 39, 40, 41, 42, 552)}
    | {GREETING_BYTES + k * MESSAGE + d for k in (1, 3, 8) for d in (-2, -1)}
    | {5003 * k for k in range(1, 30)}
)
CUTS_DOWN = sorted({0, 1, 4, 5, ANSWER_BYTES - 1, ANSWER_BYTES, ANSWER_BYTES + 1} | set(range(42, 300, 5)))


def cuts_in_turn(kind: str, way: int, cuts: list[int]) -> list[Fault]:
    """Those that come before a leg is up, dispersed among the others: back-off shall not add up."""
    early = [cut for cut in cuts if cut < (GREETING_BYTES if way == UP else ANSWER_BYTES)]
    late = [cut for cut in cuts if cut not in early]
    step = max(1, len(late) // (len(early) + 1))
    mixed = late[:]
    for i, cut in enumerate(early):
        mixed.insert((i + 1) * step + i, cut)
    return [Fault(kind, way, cut) for cut in mixed]


@pytest.mark.slow
@pytest.mark.parametrize("way", [UP, DOWN], ids=["up", "down"])
@pytest.mark.parametrize("kind", ["reset", "close", "half"])
def test_a_leg_cut_at_any_byte(stage: Stage, kind: str, way: int) -> None:
    """In mid-greeting, in mid-header, in mid-frame, in mid-acknowledgement, and between them."""
    faults = cuts_in_turn(kind, way, CUTS_UP if way == UP else CUTS_DOWN)
    rx = stage.rx("regroup", "60s")
    proxy = stage.proxy(rx)
    proxy.plan = lambda number: faults[number] if number < len(faults) else None
    tx = stage.tx(proxy, "frame", FRAME, "threads", 4, "regroup", "60s")
    transfer_until_all_have_broken(proxy, rx, tx, len(faults))
    accepted = sum(fault.after >= (GREETING_BYTES if way == UP else ANSWER_BYTES) for fault in faults)
    assert tx.closing("restart") >= accepted * 9 // 10  # a leg may break a second time before it was up again
    assert rx.closing("restart") > 0
    assert tx.closing("frames? retransmitted") > 0


@pytest.mark.slow
@pytest.mark.parametrize("way", [UP, DOWN], ids=["up", "down"])
def test_a_leg_cut_in_a_large_frame(stage: Stage, way: int) -> None:
    rx = stage.rx()
    proxy = stage.proxy(rx)
    cuts = [(1 + number) * 700_001 % (3 * MIB) if way == UP else 40 + 97 * number for number in range(30)]
    proxy.plan = lambda number: (
        Fault(("reset", "close", "half")[number % 3], way, cuts[number]) if number < 30 else None
    )
    tx = stage.tx(proxy, "threads", 3)
    transfer_until_all_have_broken(proxy, rx, tx, 30)
    assert tx.closing("restart") > 0


@pytest.mark.slow
@pytest.mark.parametrize("way", [UP, DOWN], ids=["up", "down"])
@pytest.mark.parametrize("kind", ["stall", "deaf"])
def test_a_leg_that_stalls(stage: Stage, kind: str, way: int) -> None:
    """Before it is up, in mid-header and in mid-frame; nothing is lost, and what it carried comes by others."""
    cuts = [GREETING_BYTES + 20, GREETING_BYTES + MESSAGE + 40, 30_000] if way == UP else [ANSWER_BYTES, 50, 90]
    rx = stage.rx()
    proxy = stage.proxy(rx)
    proxy.plan = lambda number: Fault(kind, way, cuts[number]) if number < len(cuts) else None
    tx = stage.tx(proxy, "frame", FRAME, "threads", 4)
    endless = Endless()
    tx.feed(endless)
    number = 0
    while proxy.faults < len(cuts) or number < 500:
        assert read_exactly(rx.output, len(BLOCK)) == Endless.block(number)
        number += 1
    endless.enough.set()
    rest = read_all(rx.output)
    assert rest == b"".join(map(Endless.block, range(number, endless.count)))
    tx.ends(0)
    rx.ends(0)


@pytest.mark.slow
def test_a_lone_leg_that_stalls_is_replaced(stage: Stage) -> None:
    """No other leg can help: only noticing that nothing moves does."""
    rx = stage.rx()
    proxy = stage.proxy(rx)
    stalls = {0: Fault("stall", UP, 100_000), 1: Fault("deaf", UP, 100_000), 2: Fault("stall", DOWN, ANSWER_BYTES + 70)}
    proxy.plan = stalls.get
    tx = stage.tx(proxy, "threads", 1)
    data = some_bytes(4 * MIB)
    tx.feed([data])
    assert read_all(rx.output) == data
    tx.ends(0)
    rx.ends(0)
    assert tx.closing("restart") >= 2


def test_all_legs_break_at_once_again_and_again(stage: Stage) -> None:
    rx = stage.rx("verbose", 3)
    proxy = stage.proxy(rx)
    tx = stage.tx(proxy, "threads", 4, "verbose", 3)
    ups = 4  # a connection that is struck before both sides call it a leg would be no restart
    for number, kind in enumerate(["reset", "close", "reset", "close", "half"]):
        text = b"part %d" % number
        tx.write(text)
        assert read_exactly(rx.output, len(text)) == text
        for side in (tx, rx):
            side.hear(r"leg \d+ .*: up", times=ups)
        assert proxy.strike(kind) >= 4
        ups += 4
    for side in (tx, rx):
        side.hear(r"leg \d+ .*: up", times=ups)
    tx.write(b"end")
    tx.end_input()
    assert read_all(rx.output) == b"end"
    tx.ends(0)
    rx.ends(0)
    assert tx.closing("restart") == rx.closing("restart") == 20


def test_legs_lost_in_the_middle_are_said_and_how(stage: Stage) -> None:
    rx = stage.rx("verbose", 2)
    proxy = stage.proxy(rx)
    tx = stage.tx(proxy, "threads", 1, "verbose", 2)
    tx.write(b"hello")
    assert read_exactly(rx.output, 5) == b"hello"
    proxy.strike("reset")
    for side in (tx, rx):
        side.hear(r"leg 0 .*: (Connection reset by peer|closed by the (receiver|transmitter))(; frames given .*)?$")
    tx.end_input()
    assert read_all(rx.output) == b""
    for side in (tx, rx):
        assert not re.search(r": (up|done)$", side.ends(0), re.MULTILINE), "that is for level 3"


def test_legs_that_end_with_the_stream_are_not_lost(stage: Stage) -> None:
    rx = stage.rx("verbose", 3)
    tx = stage.tx(rx, "threads", 4, "verbose", 3)
    tx.write(some_bytes(4 * MIB))
    assert len(read_exactly(rx.output, 4 * MIB)) == 4 * MIB
    for side in (tx, rx):
        side.hear(r"leg \d+ .*: up$", times=4)
    tx.end_input()
    assert read_all(rx.output) == b""
    for side in (tx, rx):
        legs = re.findall(r"leg \d+ \S+ \S+: (.*)$", side.ends(0), re.MULTILINE)
        assert sorted(legs) == ["done"] * 4 + ["up"] * 4


def test_the_last_frame_and_the_end_survive_a_reset(stage: Stage) -> None:
    rx = stage.rx()
    proxy = stage.proxy(rx)
    tx = stage.tx(proxy, "threads", 2)
    tx.write(b"all there is")
    assert read_exactly(rx.output, 12) == b"all there is"
    proxy.strike("stall", UP)
    tx.end_input()  # the end goes into legs that are deaf
    assert read_all(rx.output) == b""
    tx.ends(0)
    rx.ends(0)


def test_the_word_that_all_is_done_survives_a_reset(stage: Stage) -> None:
    """Nothing comes back from rx, the output is complete, and only then do the legs break."""
    rx = stage.rx()
    proxy = stage.proxy(rx)
    tx = stage.tx(proxy, "threads", 2)
    tx.write(b"x")
    assert read_exactly(rx.output, 1) == b"x"
    proxy.strike("stall", DOWN)
    tx.write(b"y")
    tx.end_input()
    assert read_all(rx.output) == b"y"
    proxy.strike("reset")
    tx.ends(0)
    rx.ends(0)


@pytest.mark.slow
def test_a_leg_that_trickles_does_not_hold_up_the_stream(stage: Stage) -> None:
    """One leg passes on a few bytes ten times a second: what it carries is brought by another."""
    rx = stage.rx()
    proxy = stage.proxy(rx)
    proxy.pace = lambda number: Pace(200, 0.1) if number == 1 else Pace()
    tx = stage.tx(proxy, "threads", 3)
    data = some_bytes(60 * MIB)
    tx.feed([data])
    assert read_all(rx.output) == data
    tx.ends(0)
    rx.ends(0)


def test_tiny_segments(stage: Stage) -> None:
    """Greeting, headers and frames arrive in pieces of 1, 7 and 61 bytes."""
    rx = stage.rx()
    proxy = stage.proxy(rx)
    proxy.pace = lambda number: Pace((1, 7, 61)[number % 3])
    tx = stage.tx(proxy, "threads", 3, "frame", FRAME)
    data = some_bytes(300 * KIB)
    tx.feed([data])
    assert read_all(rx.output) == data
    tx.ends(0)
    rx.ends(0)


@pytest.mark.slow
def test_an_outage_of_all_legs_is_survived(stage: Stage) -> None:
    """Longer than `regroup`: silence is the network's, not a dead peer's."""
    rx = stage.rx("regroup", "1s")
    proxy = stage.proxy(rx)
    tx = stage.tx(proxy, "threads", 3, "regroup", "1s", "verbose", 3)
    tx.write(b"before")
    assert read_exactly(rx.output, 6) == b"before"
    tx.hear(r"leg \d+ .*: up", times=3)
    proxy.plan = lambda number: Fault("deaf") if number < 6 else None
    proxy.strike("deaf")
    tx.write(b"after")
    assert read_exactly(rx.output, 5) == b"after"
    tx.hear(r"leg \d+ .*: up", times=6)
    tx.end_input()
    tx.ends(0)
    rx.ends(0)
    assert tx.closing("restart") >= 3


@pytest.mark.slow
def test_an_outage_that_lasts_too_long_ends_both_sides(stage: Stage) -> None:
    rx = stage.rx("outage", "3s")
    proxy = stage.proxy(rx)
    tx = stage.tx(proxy, "threads", 3, "outage", "3s")
    tx.write(b"before")
    assert read_exactly(rx.output, 6) == b"before"
    eventually(lambda: proxy.living() >= 3, "all legs are up")
    proxy.plan = lambda number: Fault("deaf")
    proxy.strike("deaf")
    assert re.search(r"the network was down for too long; [06] bytes were delivered", tx.ends(5))  # as far as it heard
    assert "the network was down for too long; the stream ends incomplete at byte 6" in rx.ends(5)
