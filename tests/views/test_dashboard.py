"""The dashboard fits every terminal, shows what it was told, and the worst first."""

import os
from collections.abc import Callable
from dataclasses import replace
from math import nan

import pytest
from rich.control import Control

from tests.views.drawn import same_as_golden, seen, width_of
from tests.views.snapshots import (
    ADDRESSES,
    many_legs,
    rx_snapshot,
    stalled_snapshot,
    tx_leg,
    tx_legs,
    tx_snapshot,
    waiting_snapshot,
)
from viamillipede.config import GIB, MIB, S_US
from viamillipede.views.dashboard import ENTER, LEAVE, MESSAGES_KEPT, Dashboard
from viamillipede.views.history import SAMPLES_MAX
from viamillipede.views.snapshot import Path, Snapshot, Waits

MANY_PATHS = tuple(Path(f"10.0.{number}.2:8834", number * GIB, number * MIB, number, 8) for number in range(1, 30))
SNAPSHOTS = {
    "tx": tx_snapshot(),
    "rx": rx_snapshot(),
    "stalled": stalled_snapshot(),
    "waiting": waiting_snapshot(),
    "many legs": tx_snapshot(legs=many_legs(1000), legs_up=999, paths=MANY_PATHS),
    "no legs": tx_snapshot(legs=(), paths=(), legs_up=0, moved_bytes=0, rate=0, rate_average=0, window_bytes=0),
    "nonsense": tx_snapshot(
        waits=Waits(nan, 7.0, -1.0, float("inf"), 0.2),
        cpu_share=nan,
        name="\x1b]0;x\x07" * 9,
        peer="\u65e5\u672c" * 60,
        state="failed",
        exit_status=8,
        reason="zfs: \x1b[2J\r\n\u202eno space",
        legs=(tx_leg(1024, rate=1 << 62, rtt_us=10**15, retransmissions=10**12, hedged=10**9, restarts=10**9),),
        moved_bytes=1 << 70,
        elapsed_us=10**16,
    ),
}


def shown(
    snapshot: Snapshot, columns: int, lines: int, *messages: str, samples: int = 70, ascii_only: bool = False
) -> str:
    """A screen without colours, after so many samples with rates that rise to those of the snapshot."""
    board = Dashboard(colour=False, ascii_only=ascii_only)
    for sample in range(1, samples + 1):
        legs = tuple(replace(leg, rate=leg.rate * sample // samples) for leg in snapshot.legs)
        paths = tuple(replace(path, rate=path.rate * sample // samples) for path in snapshot.paths)
        board.observe(replace(snapshot, rate=snapshot.rate * sample // samples, legs=legs, paths=paths))
    for message in messages:
        board.message(message)
    return "\n".join(map(seen, board.render(columns, lines)))


def row_of(screen: str, begin: str) -> list[str]:
    """The words of the row that begins so."""
    return next(row.split() for row in screen.splitlines() if row.split()[: len(begin.split())] == begin.split())


@pytest.mark.parametrize("name", SNAPSHOTS)
@pytest.mark.parametrize("ascii_only", [False, True])
def test_it_has_exactly_the_size_of_the_terminal(name: str, ascii_only: bool) -> None:
    board = Dashboard(ascii_only=ascii_only)
    board.message("a message that is longer than some terminals are wide, but not than others: \u65e5\u672c" * 2)
    for _ in range(3):
        board.observe(SNAPSHOTS[name])
    sizes = {(columns, 24) for columns in range(20, 201)} | {(80, lines) for lines in range(5, 61)}
    sizes |= {(columns, lines) for columns in range(20, 201, 36) for lines in range(5, 61, 11)}
    for columns, lines in sorted(sizes | {(1, 1), (3, 2), (10, 100), (300, 100)}):
        rows = board.render(columns, lines)
        assert len(rows) == lines
        assert {width_of(row) for row in rows} == {columns}, (columns, lines)
        assert not ascii_only or all(seen(row).isascii() for row in rows)


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_no_figure_is_nonsense(name: str) -> None:
    screen = shown(SNAPSHOTS[name], 160, 50).lower()
    assert "nan" not in screen and "inf " not in screen and "-1 %" not in screen


def test_shares_that_cannot_be_are_shown_within_bounds() -> None:
    rows = [" ".join(row.split()) for row in shown(SNAPSHOTS["nonsense"], 80, 24).splitlines()]
    assert "waited source 0 % network 100 % core 0 % sink 0 % limit 20 %" in rows


def test_sizes_that_cannot_be_are_no_reason_to_fail() -> None:
    board = Dashboard()
    assert [len(board.render(columns, lines)) for columns, lines in ((0, 0), (80, 24), (10**9, 1))] == [1, 24, 1]
    board.observe(tx_snapshot())
    assert len(board.render(-1, -1)) == 1
    assert len(board.render(80, 10**9)) == 500


def test_the_figures_are_there() -> None:
    screen = shown(tx_snapshot(), 80, 24)
    for words in (
        "viamillipede tx   db1 → 10.0.0.2:8834 · session 3f2a9c01",
        "7 of 8 legs · 12 s",
        "CPU 87 %",
        "572.0 MiB/s  now",
        "499.0 MiB/s  average",
        "6.0 GiB    delivered",
        "37 %  of 16.0 GiB         20 s left",
        "18 %  of 64.0 MiB     12.0 MiB used",
        "network  78 %",
    ):
        assert words in screen
    assert row_of(screen, "1 10.0.0.2:8834")[2:5] == ["4/4", "389.0", "MiB"]
    assert row_of(screen, "1 10.0.0.2:8834")[-2:] == ["67", "%"]
    assert row_of(screen, "5 2 busy")[3:5] == ["61.0", "MiB"]
    assert row_of(screen, "5 2 busy")[6:] == ["105.8", "ms", "17", "1.5", "MiB", "0", "0"]
    assert row_of(screen, "7 2 down")[-5:] == ["-", "0", "0", "0", "3"]


def test_the_other_side_speaks_of_what_came_in_vain() -> None:
    screen = shown(rx_snapshot(), 80, 24)
    assert "rx   db1 ← 10.0.0.1" in screen
    assert row_of(screen, "3 1 direct")[-4:] == ["0", "2.0", "MiB", "0"]
    assert "IN VAIN" in screen and "RECEIVED" in screen and "IN FLIGHT" not in screen and "left" not in screen
    assert "0 corrupted" in shown(rx_snapshot(), 120, 24)


def test_a_wide_terminal_shows_addresses_reasons_counters_and_more_of_the_past() -> None:
    narrow, wide = shown(tx_snapshot(), 80, 24), shown(tx_snapshot(), 160, 50)
    assert "4 legs bring as much as 6" in wide and "4 legs bring" not in narrow
    assert "3 restarts · 4 sent again (4.0 MiB) · 2 hedged · 1 refused" in wide
    assert row_of(wide, "5 [2001:db8:85…70:7348]:8834 busy")[3] == "61.0"
    sparks = [max(len(word) for word in row_of(screen, "1")) for screen in (narrow, wide)]
    assert sparks[0] < 14 and 30 <= sparks[1] <= SAMPLES_MAX


@pytest.mark.parametrize(
    ("snapshot", "words"),
    [
        (stalled_snapshot(), "STALLED 12 s: waiting for frame 8812 on leg 3 (10.0.0.2)"),
        (waiting_snapshot(), "waiting for the receiver 12 s"),
        (tx_snapshot(waiting="input", idle_us=12 * S_US), "waiting for input 12 s · bottleneck"),
        (tx_snapshot(verdict=""), "running"),
        (tx_snapshot(verdict="bottleneck: the source, 93 % of the time"), "bottleneck: the source, 93 % of the time"),
        (tx_snapshot(state="complete", digest="xxh3-128 0123"), "complete · xxh3-128 0123"),
        (tx_snapshot(state="failed", exit_status=8, reason="no space"), "FAILED (exit status 8): no space"),
        (stalled_snapshot(state="failed", reason="no space"), "FAILED: no space"),
    ],
)
def test_the_second_row_says_how_it_is_going(snapshot: Snapshot, words: str) -> None:
    assert shown(snapshot, 80, 24).splitlines()[1].startswith(f" {words}")
    assert words.split(":")[0].split(" ·")[0] in shown(snapshot, 40, 5).splitlines()[1]


def test_a_stall_is_bold_and_red() -> None:
    board = Dashboard()
    board.observe(stalled_snapshot())
    assert "\x1b[1;31mSTALLED 12 s" in board.render(80, 24)[1]


def test_a_long_address_loses_its_middle() -> None:
    for columns, cut in ((80, "[2001:db8:…:7348]:8834"), (60, "[2001…:8834"), (200, ADDRESSES[1])):
        assert cut in shown(tx_snapshot(), columns, 24)


def test_a_path_that_does_not_work_says_why() -> None:
    for columns in (60, 80, 160):
        assert row_of(shown(waiting_snapshot(), columns, 24), "1" if columns > 60 else "10.0.…:8834")[-2:] == [
            "connection",
            "refused",
        ]


def test_more_paths_than_rows() -> None:
    broken = replace(MANY_PATHS[3], legs_up=0, why="no route to host")
    screen = shown(tx_snapshot(paths=(*MANY_PATHS[:3], broken, *MANY_PATHS[4:])), 80, 40)
    assert row_of(screen, "4 10.0.4.2:8834")[-4:] == ["no", "route", "to", "host"]
    assert row_of(screen, "29 10.0.29.2:8834")
    assert "and 23 more: 296 legs, 296.0 MiB/s" in screen
    assert "and 8 more" in shown(tx_snapshot(paths=MANY_PATHS[:10], legs=many_legs(99)), 80, 24), "legs want room too"


def test_with_more_legs_than_rows_those_in_trouble_come_first() -> None:
    screen = shown(tx_snapshot(legs=many_legs(195), legs_up=194, paths=tx_snapshot().paths[:1]), 80, 24)
    numbers = [int(row.split()[0]) for row in screen.splitlines() if row.split()[1:2] == ["1"]]
    assert numbers == [10, 20, 30, 40, 50, 60, 70, 194]
    assert "and 187 more: 187 busy; 1.4 GiB/s together, 0 resent" in screen


def test_all_legs_are_shown_where_they_fit() -> None:
    for lines in (24, 30, 50):
        screen = shown(tx_snapshot(), 80, lines)
        assert [row_of(screen, f"{leg.number} {leg.path + 1} {leg.state}") for leg in tx_legs()]
        assert "more" not in screen


def test_columns_stay_where_they_are_when_figures_change() -> None:
    heads = set()
    for factor in (0, 1, 9, 10**4):
        legs = tuple(replace(leg, rate=leg.rate * factor, rtt_us=leg.rtt_us * factor % 10**9) for leg in tx_legs())
        paths = tuple(replace(path, rate=path.rate * factor) for path in tx_snapshot().paths)
        screen = shown(tx_snapshot(legs=legs, paths=paths, rate=572 * MIB * factor), 80, 24)
        heads.add("".join(row for row in screen.splitlines() if "PATH" in row))
    assert len(heads) == 1


def test_the_graph_shows_the_rates_and_forgets_legs_that_are_gone() -> None:
    board = Dashboard(colour=False)
    for rate in (0, 1, 50, 100):
        board.observe(tx_snapshot(legs=(tx_leg(1, rate=rate), tx_leg(2, rate=100)), paths=()))
    assert any(" ▁▂▄▇ " in row for row in board.render(80, 24))
    board.observe(tx_snapshot(legs=(), paths=()))
    board.observe(tx_snapshot(legs=(tx_leg(1, rate=100),), paths=()))
    rows = [row for row in board.render(80, 24) if "busy" in row]
    assert len(rows) == 1 and " ▇ " in rows[0] and "▁" not in rows[0]


def test_what_it_remembers_is_bounded() -> None:
    board = Dashboard()
    for number in range(1000):
        board.observe(tx_snapshot(legs=(tx_leg(number % 1024),), paths=(Path(f"10.0.0.1:{number}", 0, 0, 1, 1),)))
        board.message(f"message {number}\n\nand {'more' * 1000}")
    assert len(board._history) <= 512 + 2
    assert len(board._messages) == MESSAGES_KEPT
    assert max(map(len, board._messages)) <= 1000


def test_the_last_messages_stand_at_the_bottom() -> None:
    rows = shown(tx_snapshot(), 80, 24, "one", "two\nthree\n").splitlines()
    assert [row.strip() for row in rows[-2:]] == ["▏two", "▏three"]
    assert "one" not in rows[-3]
    assert [row.strip() for row in shown(tx_snapshot(), 80, 40, "one").splitlines()[-3:]] == ["", "", "▏one"]


def test_hostile_words_cannot_reach_the_terminal() -> None:
    words = "\x1b]0;title\x07 \x1b[2J\r\x9b31m \u202e end"
    board = Dashboard()
    board.observe(tx_snapshot(name=words, peer=words, verdict=words, paths=(Path(words, 1, 1, 0, 1, words),)))
    board.message(words)
    for row in board.render(160, 50):
        seen(row)  # fails on anything that is no colour


def test_golden() -> None:
    said = ("leg 7 lost: connection reset by peer; again in 0.4 s", f"address {ADDRESSES[1]}: 4 legs wanted, 3 up")
    same_as_golden("dashboard_80x24.txt", shown(tx_snapshot(), 80, 24, *said))


def test_the_sequences_around_the_screen_are_those_of_the_library() -> None:
    assert ENTER == f"{Control.alt_screen(True)}{Control.show_cursor(False)}\x1b[?7l"
    assert LEAVE == f"\x1b[?7h{Control.show_cursor(True)}{Control.alt_screen(False)}"


def test_each_row_is_placed_and_a_new_size_begins_with_a_clear_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Dashboard(colour=False)
    board.observe(tx_snapshot())

    def places(columns: int, lines: int) -> str:
        return "".join(str(Control.move_to(0, at)) + row for at, row in enumerate(board.render(columns, lines)))

    assert board.screen(80, 24) == str(Control.clear()) + places(80, 24)
    assert board.screen(80, 24) == places(80, 24)
    assert board.screen(81, 24) == str(Control.clear()) + places(81, 24)
    assert board.screen(0, 0) == str(Control.clear()) + places(80, 24), "nobody knows"
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "30")
    assert board.screen(0, 0) == str(Control.clear()) + places(100, 30)
    assert board.screen(80, 24) == str(Control.clear()) + places(80, 24), "what is known counts"


@pytest.mark.parametrize("draw", [lambda board: board.render(80, 24), lambda board: board.screen(80, 24)])
def test_nothing_is_written(draw: Callable[[Dashboard], object], monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object) -> int:
        raise AssertionError("a view wrote to a descriptor")

    board = Dashboard()
    board.observe(tx_snapshot())
    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", None)
    assert draw(board)
