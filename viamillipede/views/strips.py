"""The upper strips of the dashboard: the head, the graph of the rate, the bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viamillipede.units import format_bytes, format_rate
from viamillipede.views.history import TOTAL, TOTAL_SAMPLES_MAX, History, graph
from viamillipede.views.pen import Part, Pen
from viamillipede.views.phrases import (
    ACCENT_STYLE,
    DIM_STYLE,
    STALL_STYLE,
    TROUBLE_STYLE,
    done_percent,
    legs_text,
    legs_wanted,
    pause,
    percent,
    sane,
    whole_seconds,
)

if TYPE_CHECKING:
    from rich.text import Text

    from viamillipede.views.snapshot import Snapshot

_LABEL = 10  # cells of what stands before a bar
_WAIT_BAR_MAX = 20


def head(pen: Pen, snapshot: Snapshot, columns: int) -> list[Text]:
    """Who and with whom; how it is going."""
    tx = snapshot.role == "tx"
    arrow = ("->" if tx else "<-") if pen.ascii_only else "→" if tx else "←"
    session = f"session {snapshot.session[:8]}" if snapshot.session else ""
    wanted = legs_wanted(snapshot)
    legs = (
        legs_text(snapshot.legs_up, wanted),
        "" if snapshot.legs_up or snapshot.state != "running" else TROUBLE_STYLE,
    )
    right = pen.text(legs, (pen.dot, DIM_STYLE), (f"{whole_seconds(snapshot.elapsed_us)} ", "bold"))
    peer = snapshot.peer or "nobody yet"
    room = columns - right.cell_len - len(f" viamillipede tx   {snapshot.name} -> {pen.dot}{session}  ")
    if room < len(peer):  # the session is the first to go: it is in the dump, and in each line of the log
        room, session = room + len(pen.dot + session), ""
    peer = pen.cut(peer, max(20, room))
    parts: list[Part] = [(" viamillipede ", f"bold {ACCENT_STYLE}"), (snapshot.role, "bold"), "   "]
    if snapshot.name:
        parts.append((f"{snapshot.name} ", "bold"))
    parts += [(f"{arrow} ", ACCENT_STYLE), (peer, "" if snapshot.peer else DIM_STYLE)]
    if session:
        parts.append((pen.dot + session, DIM_STYLE))
    cpu = pen.text((f"CPU{percent(snapshot.cpu_share)} ", DIM_STYLE))
    room = columns - cpu.cell_len - 3
    state = pen.text(" ", *_state(pen, snapshot, room))
    if state.cell_len <= room + 1:
        state = pen.spread(state, cpu, columns)
    return [pen.spread(pen.text(*parts), right, columns), state]


def _state(pen: Pen, snapshot: Snapshot, room: int) -> list[Part]:
    """One sentence, of `room` cells at best; what is wrong goes before what is merely slow."""
    if snapshot.state == "failed":
        status = "" if snapshot.exit_status is None else f" (exit status {snapshot.exit_status})"
        return [(f"FAILED{status}: {snapshot.reason}", STALL_STYLE)]
    if stall := snapshot.stall():
        return [(stall, STALL_STYLE)]
    said: list[Part] = []
    if snapshot.state == "complete":
        said.append(("complete", f"bold {ACCENT_STYLE}"))
        if snapshot.digest:
            said.append((pen.dot + snapshot.digest, DIM_STYLE))
        return said
    if idle := pause(snapshot):
        said.append((idle, f"bold {ACCENT_STYLE}"))
        room -= len(idle + pen.dot)
    if snapshot.verdict and room >= 20:
        said += [(pen.dot, DIM_STYLE)] if idle else []
        said.append(pen.cut(snapshot.verdict, room))
    return said or [("running", ACCENT_STYLE)]


def graph_strip(pen: Pen, snapshot: Snapshot, history: History, columns: int, height: int) -> list[Text]:
    """The rate: in figures, and as a graph of `height` rows; in one row there is room for few figures."""
    now, average = format_rate(snapshot.rate), format_rate(snapshot.rate_average)
    moved = format_bytes(snapshot.moved_bytes)
    if height == 1:
        figures: list[list[Part]] = [
            [(f" {now:>12}", f"bold {ACCENT_STYLE}"), " now ", (f"{average:>13}", "bold"), " average "]
        ]
        figures[0] += [(f"{moved:>11}", "bold"), " delivered  "]
    else:
        figures = [
            [(f" {now:>12}", f"bold {ACCENT_STYLE}"), "  now        "],
            [(f" {average:>12}", "bold"), ("  average    ", DIM_STYLE)],
            [(f" {moved:>10}  ", "bold"), ("  delivered  ", DIM_STYLE)],
        ]
    if height > 3:
        peak = format_rate(max(history.rates(TOTAL, TOTAL_SAMPLES_MAX), default=0))
        read = format_bytes(snapshot.read_bytes)
        figures.insert(2, [(f" {peak:>12}", "bold"), ("  peak       ", DIM_STYLE)])
        if snapshot.role == "tx":
            figures.append([(f" {read:>10}  ", "bold"), ("  read       ", DIM_STYLE)])
        figures += [[" " * 26] for _ in range(height - len(figures))]
    left = [pen.text(*parts) for parts in figures]
    width = max(0, columns - max(text.cell_len for text in left) - 1)
    rates = history.rates(TOTAL, width)
    drawn = graph(rates, width, height, max(rates, default=0) or 1, pen.blocks)
    for line, row, above in zip(left, drawn, ["", *drawn], strict=False):
        line.append_text(_shade(pen, row, above))
    return left


def _shade(pen: Pen, row: str, above: str) -> Text:
    """A row of the graph: what has something above itself is dim, so that the line at the top stands out."""
    line = pen.text()
    inner = [cell != " " for cell in above.ljust(len(row))]
    begin = 0
    for end in range(1, len(row) + 1):
        if end == len(row) or inner[end] != inner[begin]:
            line.append(row[begin:end], f"dim {ACCENT_STYLE}" if inner[begin] else ACCENT_STYLE)
            begin = end
    return line


def bars(pen: Pen, snapshot: Snapshot, columns: int, counters: bool) -> list[Text]:
    """How much is done, how full the window is, what was waited for; with `counters`, what had to be done again."""
    rows = []
    if snapshot.size_bytes:
        left_us = snapshot.left_us()
        left = "" if left_us is None else f"{whole_seconds(left_us)} left"
        size = f"of {format_bytes(snapshot.size_bytes)}"
        share = snapshot.moved_bytes / snapshot.size_bytes
        rows.append(_bar(pen, "done", share, f"{done_percent(snapshot):3} %", f"{size:<13}{left:>16}", columns, True))
    used, window = snapshot.window_used_bytes, max(1, snapshot.window_bytes)
    words = f"{f'of {format_bytes(window)}':<13}{f'{format_bytes(used)} used':>16}"
    rows.append(_bar(pen, "window", used / window, f"{used * 100 // window:3} %", words, columns, False))
    rows.append(_waits(pen, snapshot, columns))
    if counters:
        rows.append(_counters(pen, snapshot))
    return rows


def _bar(pen: Pen, label: str, share: float, done: str, words: str, columns: int, strong: bool) -> Text:
    """A label, a bar, its figure, and an explanation where there is room."""
    words = f"  {words:<29} " if columns >= 60 else " "
    width = columns - _LABEL - len(done) - len(words) - 2
    line = pen.text((f" {label:<{_LABEL - 1}}", DIM_STYLE))
    if width >= 4:
        line.append_text(pen.bar(share, width)).append("  ")
    return line.append_text(pen.text((done, "bold" if strong else ""), (words, "" if strong else DIM_STYLE)))


def _waits(pen: Pen, snapshot: Snapshot, columns: int) -> Text:
    """The shares of the time that the stream waited for each, as small bars; the largest stands out."""
    waits = snapshot.waits
    shares = {"source": waits.source, "network": waits.network, "core": waits.core, "sink": waits.sink}
    if sane(waits.limit) > 0:
        shares["limit"] = waits.limit
    largest = max(shares, key=lambda name: sane(shares[name]))
    texts = sum(len(name) + len(percent(share)) + 1 for name, share in shares.items())
    room = columns - _LABEL - texts - 2 * (len(shares) - 1) - 1
    width = min(_WAIT_BAR_MAX, room // len(shares) - 1)
    line = pen.text((f" {'waited':<{_LABEL - 1}}", DIM_STYLE))
    for name, share in shares.items():
        chief = name == largest and sane(share) > 0
        line.append("" if line.cell_len == _LABEL else "  ")
        line.append_text(pen.text((name, "bold" if chief else DIM_STYLE), " "))
        if width >= (5 if pen.bare else 3):
            line.append_text(pen.bar(share, width)).append(" ")
        line.append_text(pen.text((percent(share), "bold" if chief else DIM_STYLE)))
    return line


def _counters(pen: Pen, snapshot: Snapshot) -> Text:
    """What had to be done again or was refused; zeros are dim."""
    again = (
        f"sent again ({format_bytes(snapshot.retransmitted_bytes)})" if snapshot.retransmitted_bytes else "sent again"
    )
    counts = [(snapshot.restarts, "restarts"), (snapshot.retransmitted_frames, again), (snapshot.hedges, "hedged")]
    counts += [(snapshot.refused, "refused")]
    if snapshot.role == "rx":
        counts.append((snapshot.corrupted, "corrupted"))
    line = pen.text((f" {'counts':<{_LABEL - 1}}", DIM_STYLE))
    for number, (count, name) in enumerate(counts):
        style = DIM_STYLE if not count else TROUBLE_STYLE if name == "corrupted" else ""
        line.append_text(pen.text((pen.dot if number else "", DIM_STYLE), (f"{count} {name}", style)))
    return line
