"""One line that says how things stand: redrawn in place on a terminal, or one of many in a journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from viamillipede.units import format_bytes, format_rate
from viamillipede.views.columns import COLUMNS_DEFAULT, told_or
from viamillipede.views.pen import Pen
from viamillipede.views.phrases import (
    ACCENT_STYLE,
    DIM_STYLE,
    STALL_STYLE,
    done_percent,
    legs_text,
    legs_wanted,
    pause,
    tenths,
    whole_seconds,
)
from viamillipede.views.snapshot import Snapshot

if TYPE_CHECKING:
    from rich.text import Text

_GAP = 2
_BAR_MIN, _BAR_STEP, _BAR_MAX = 12, 4, 40  # in steps: it does not change with each figure beside it
_BAR = " " * _BAR_MIN  # its place


@dataclass(frozen=True, slots=True)
class _Item:
    """A part of the line: its forms, the longest first, and for each its rank; the lowest is given up first."""

    forms: tuple[tuple[str, int], ...]
    style: str = ""


class LiveLine:
    """Makes the line that a terminal shows while a transfer runs.

    columns: tells the width of the terminal, asked each time. colour: whether it may have any.
    ascii_only: the terminal's encoding has no block characters.
    """

    def __init__(self, columns: Callable[[], int], colour: bool, ascii_only: bool = False) -> None:
        self._columns, self._pen = columns, Pen(colour, ascii_only)

    def render(self, snapshot: Snapshot) -> str:
        """The line: narrower than the terminal, so that the cursor stays in its row; no end of line, no carriage
        return. What matters least is left out where there is no room; what is wrong is the first thing to be read.
        """
        width = max(1, told_or(self._columns(), "COLUMNS", COLUMNS_DEFAULT) - 1)
        pen, items = self._pen, _items(snapshot)
        chosen = _choose(items, width)
        room = min(_BAR_MAX, width - _width(chosen) + _BAR_MIN) // _BAR_STEP * _BAR_STEP
        parts = []
        for words, item in zip(chosen, items, strict=True):
            if words == _BAR:
                parts.append(pen.bar(snapshot.moved_bytes / snapshot.size_bytes, room))
            elif words:
                parts.append(pen.text((words, item.style)))
        line: Text = pen.text(" " * _GAP).join(parts)
        return pen.draw([pen.fit(line, width) if line.cell_len > width else line])[0]


def _width(words: list[str]) -> int:
    """Of those that are not empty, in one line."""
    return sum(len(text) + _GAP for text in words if text) - _GAP


def _choose(items: list[_Item], width: int) -> list[str]:
    """A form for each item, "" for none, so that all of them fit; the last one left is cut by the caller."""
    place = [0] * len(items)

    def words() -> list[str]:
        return [(item.forms[at][0] if at < len(item.forms) else "") for item, at in zip(items, place, strict=True)]

    steps = sorted((rank, number) for number, item in enumerate(items) for _, rank in item.forms)
    given_up = []
    for _, number in steps[:-1]:
        if _width(words()) <= width:
            break
        place[number] += 1
        given_up.append(number)
    for number in reversed(given_up):  # what is small may still fit in where something large was given up
        place[number] -= 1
        if _width(words()) > width:
            place[number] += 1
    return words()


def _items(snapshot: Snapshot) -> list[_Item]:
    """What could be said, in the order in which it is read."""
    stall, idle = snapshot.stall(), pause(snapshot)
    lead = _Item(((stall, 100),), STALL_STYLE) if stall else _Item(((idle, 100),), ACCENT_STYLE) if idle else None
    if not snapshot.contacted:
        return [lead] if lead else [_Item((("waiting", 100),))]
    wanted = legs_wanted(snapshot)
    of_wanted = f"{snapshot.legs_up}/{wanted}" if wanted else f"{snapshot.legs_up}"
    used = snapshot.window_used_bytes * 100 // max(1, snapshot.window_bytes)
    moved, rate = format_bytes(snapshot.moved_bytes), format_rate(snapshot.rate)
    average = format_rate(snapshot.rate_average)
    items = [lead] if lead else []
    if snapshot.size_bytes:
        items += [_Item(((f"{done_percent(snapshot):3} %", 80),), "bold"), _Item(((_BAR, 35),))]
    items += [
        _Item(((f"{moved:>10}", 12), (moved, 70))),
        _Item(((f"{rate:>12} now", 6), (f"{rate:>12}", 12), (rate, 90)), f"bold {ACCENT_STYLE}"),
        _Item(((f"{average:>12} average", 5), (f"{average:>12} avg", 11), (f"{average} avg", 30)), DIM_STYLE),
        _Item(((legs_text(snapshot.legs_up, wanted), 4), (f"{of_wanted} legs", 40))),
        _Item(((f"window {used:3} %", 20),), DIM_STYLE),
        _Item(((f"{whole_seconds(snapshot.elapsed_us):>6}", 50),)),
    ]
    if (left_us := snapshot.left_us()) is not None:
        items.append(_Item(((f"{whole_seconds(left_us)} left", 60),)))
    return items


def plain_line(snapshot: Snapshot) -> str:
    """The same for a journal or a file: one line of ASCII without time stamp, colour or end of line."""
    parts = []
    if snapshot.contacted:
        parts += [
            format_bytes(snapshot.moved_bytes),
            f"{format_rate(snapshot.rate)} now",
            f"{format_rate(snapshot.rate_average)} on average",
            legs_text(snapshot.legs_up, legs_wanted(snapshot)),
            f"window {format_bytes(snapshot.window_used_bytes)} of {format_bytes(snapshot.window_bytes)}",
            tenths(snapshot.elapsed_us),
        ]
        if snapshot.size_bytes:
            parts.append(f"{done_percent(snapshot)} %")
        if (left_us := snapshot.left_us()) is not None:
            parts.append(f"{whole_seconds(left_us)} left")
    parts += [text for text in (snapshot.stall() or pause(snapshot),) if text]
    line = f"viamillipede {snapshot.role}: {', '.join(parts)}"
    return "".join(character if character.isascii() and character.isprintable() else "?" for character in line)
