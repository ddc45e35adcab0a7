"""The live line fits, says the most important things first, and the plain line is fit for a journal."""

import re
import subprocess
import sys

import pytest

from tests.views.drawn import same_as_golden, seen, width_of
from tests.views.snapshots import many_legs, rx_snapshot, stalled_snapshot, tx_snapshot, waiting_snapshot
from viamillipede.config import GIB, KIB, MIB, S_US
from viamillipede.views.live_line import LiveLine, plain_line
from viamillipede.views.snapshot import Snapshot

SNAPSHOTS = {
    "tx": tx_snapshot(),
    "no size": tx_snapshot(size_bytes=0),
    "rx": rx_snapshot(),
    "stalled": stalled_snapshot(),
    "waiting": waiting_snapshot(),
    "input": tx_snapshot(waiting="input", idle_us=12 * S_US),
    "wide": tx_snapshot(
        moved_bytes=1023 * GIB + 900 * MIB, rate=1023 * KIB + 900, elapsed_us=100 * 3600 * S_US, size_bytes=1 << 60
    ),
    "new": tx_snapshot(moved_bytes=0, rate=0, rate_average=0, window_bytes=0, window_used_bytes=0, legs=(), legs_up=0),
    "many": tx_snapshot(legs=many_legs(1000), legs_up=1000, paths=()),
    "strange": tx_snapshot(stalled=True, idle_us=5 * S_US, waiting="frame 1\x1b[2J\r\n\t\u202e on \u65e5\u672c" * 20),
}


def line(snapshot: Snapshot, columns: int, colour: bool = False) -> str:
    """One line for a terminal that is so wide."""
    return LiveLine(lambda: columns, colour).render(snapshot)


@pytest.mark.parametrize("name", SNAPSHOTS)
@pytest.mark.parametrize("colour", [False, True])
def test_it_never_reaches_the_last_column(name: str, colour: bool) -> None:
    for columns in (*range(2, 201), 1000):
        drawn = line(SNAPSHOTS[name], columns, colour)
        assert 0 < width_of(drawn) < columns, columns
        assert colour or "\x1b" not in drawn


def test_no_width_at_all_is_no_reason_to_fail() -> None:
    assert width_of(line(tx_snapshot(), 1)) == 1


def test_a_terminal_without_a_size_has_that_of_the_environment_or_80(monkeypatch: pytest.MonkeyPatch) -> None:
    assert line(tx_snapshot(), 0) == line(tx_snapshot(), 80) != line(tx_snapshot(), 120)
    for text, columns in (("120", 120), ("0", 80), ("-1", 80), ("", 80), ("many", 80), ("\u0663\u0663", 80)):
        monkeypatch.setenv("COLUMNS", text)
        assert line(tx_snapshot(), 0) == line(tx_snapshot(), columns), text
    assert line(tx_snapshot(), 40) == LiveLine(lambda: 40, False).render(tx_snapshot()), "what is known counts"


def test_where_there_is_room_it_says_everything() -> None:
    drawn = line(tx_snapshot(), 160)
    for words in (" 37 %", "6.0 GiB", "572.0 MiB/s now", "499.0 MiB/s average", "7 of 8 legs", "window  18 %", "12 s"):
        assert words in drawn
    assert drawn.endswith("20 s left")
    assert "━" in drawn


def test_the_width_is_asked_for_each_time() -> None:
    columns = 160
    live = LiveLine(lambda: columns, False)
    assert width_of(live.render(tx_snapshot())) > 100
    columns = 40
    assert width_of(live.render(tx_snapshot())) < 40


@pytest.mark.parametrize(("columns", "words"), [(20, "572.0 MiB/s"), (40, "6.0 GiB"), (80, "7/8 legs"), (80, "━━━")])
def test_what_matters_stays_where_there_is_little_room(columns: int, words: str) -> None:
    assert words in line(tx_snapshot(), columns)


def test_figures_that_grow_do_not_move_the_line() -> None:
    begins = {
        line(tx_snapshot(size_bytes=0, moved_bytes=moved, rate=rate), 80).index("MiB/s avg")
        for moved in (1, 99 * KIB, 1023 * GIB)
        for rate in (0, 999, 1023 * MIB)
    }
    assert len(begins) == 1


def test_the_bar_grows_with_what_is_done() -> None:
    full = [line(tx_snapshot(moved_bytes=part * GIB), 160).count("━") for part in (0, 4, 8, 12, 16)]
    assert full == sorted(set(full))
    assert "104 %" in line(tx_snapshot(moved_bytes=GIB * 16 * 104 // 100 + GIB // 10), 160), "the user was wrong"


def test_a_stall_is_read_first_and_is_bold_and_red() -> None:
    drawn = line(stalled_snapshot(), 80, colour=True)
    assert drawn.startswith("\x1b[1;31mSTALLED 12 s: waiting for frame 8812 on leg 3 (10.0.0.2)")
    assert seen(line(stalled_snapshot(), 20)).startswith("STALLED 12 s: wait")
    assert "STALLED" not in line(tx_snapshot(), 200)


@pytest.mark.parametrize(
    ("snapshot", "words"),
    [
        (waiting_snapshot(), "waiting for the receiver 12 s"),
        (waiting_snapshot(role="rx"), "waiting for the transmitter 12 s"),
        (tx_snapshot(waiting="input", idle_us=12 * S_US), "waiting for input 12 s"),
        (rx_snapshot(waiting="output", idle_us=3 * S_US), "waiting for output 3 s"),
    ],
)
def test_a_pause_says_what_is_waited_for(snapshot: Snapshot, words: str) -> None:
    assert line(snapshot, 80).startswith(words)
    assert words in plain_line(snapshot)


@pytest.mark.parametrize(
    "snapshot",
    [
        rx_snapshot(waiting="output", idle_us=3 * S_US - 1),
        tx_snapshot(waiting="network: frame 3", idle_us=9 * S_US),
        tx_snapshot(waiting="input", idle_us=9 * S_US, state="complete"),
    ],
)
def test_there_is_no_pause_where_nothing_is_waited_for(snapshot: Snapshot) -> None:
    assert "waiting" not in line(snapshot, 200) + plain_line(snapshot)


def test_colours_are_left_out_where_the_user_wants_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[1;36m" in line(tx_snapshot(), 80, colour=True)
    monkeypatch.setenv("NO_COLOR", "1")
    drawn = line(tx_snapshot(), 80, colour=True)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", drawn)
    assert "\x1b[1m" in drawn, "bold is no colour"
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in line(tx_snapshot(), 80, colour=True)


def test_a_terminal_without_block_characters_gets_ascii() -> None:
    for columns in range(2, 120):
        drawn = LiveLine(lambda columns=columns: columns, False, ascii_only=True).render(tx_snapshot())  # type: ignore[misc]
        assert drawn.isascii()
    assert "[--" in LiveLine(lambda: 120, False, ascii_only=True).render(tx_snapshot())


def test_golden() -> None:
    same_as_golden("live_line_80.txt", line(tx_snapshot(), 80))
    same_as_golden("live_line_stalled_120.txt", line(stalled_snapshot(), 120))


def test_the_plain_line() -> None:
    assert plain_line(tx_snapshot()) == (
        "viamillipede tx: 6.0 GiB, 572.0 MiB/s now, 499.0 MiB/s on average, 7 of 8 legs, "
        "window 12.0 MiB of 64.0 MiB, 12.3 s, 37 %, 20 s left"
    )
    assert plain_line(rx_snapshot(elapsed_us=3 * 3600 * S_US)) == (
        "viamillipede rx: 6.0 GiB, 572.0 MiB/s now, 499.0 MiB/s on average, 7 legs, "
        "window 3.0 MiB of 64.0 MiB, 3h00m00s"
    )
    assert plain_line(waiting_snapshot()) == "viamillipede tx: waiting for the receiver 12 s"
    assert plain_line(stalled_snapshot()).endswith(", STALLED 12 s: waiting for frame 8812 on leg 3 (10.0.0.2)")


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_the_plain_line_is_one_line_of_ascii(name: str) -> None:
    said = plain_line(SNAPSHOTS[name])
    assert said.isascii() and said.isprintable()


def test_the_library_is_loaded_only_where_something_is_drawn() -> None:
    code = (
        "import sys, viamillipede.views.live_line as live, viamillipede.views.dashboard as dashboard\n"
        "assert 'rich' not in sys.modules\n"
        "dashboard.Dashboard(); assert 'rich' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
