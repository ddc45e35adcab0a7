"""The tables of the dashboard: the paths, and the legs or the most interesting of them."""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import TYPE_CHECKING

from viamillipede.units import format_bytes, format_duration_us, format_rate
from viamillipede.views.columns import Column, fit_columns, table_head, table_row
from viamillipede.views.history import SAMPLES_MAX, History, sparkline
from viamillipede.views.pen import Part, Pen
from viamillipede.views.phrases import ACCENT_STYLE, DIM_STYLE, TROUBLE_STYLE, percent

if TYPE_CHECKING:
    from rich.text import Text

    from viamillipede.views.snapshot import Leg, Path, Snapshot

TROUBLED = ("down", "mute")
_ADDRESS_MAX = 45  # an IPv6 address in brackets, and a port
_WIDE = 116  # from here on a leg shows its address instead of the number of its path
SPARK_LEAST = 8
_WHO = ("number", "address", "legs")  # of a path that does not work; instead of figures follows why


def path_table(pen: Pen, snapshot: Snapshot, history: History, columns: int, rows: int) -> list[Text]:
    """At most `rows` rows, the head among them; none where there is nothing to show or no room.

    With more paths than rows: those that do not work come first, then the fastest.
    """
    paths = list(enumerate(snapshot.paths, 1))
    if rows < 2 or not paths:
        return []
    rest: list[tuple[int, Path]] = []
    if len(paths) > rows - 1:
        paths.sort(key=lambda item: (item[1].legs_up > 0, -history.mean(("path", item[1].address)), item[0]))
        paths, rest = sorted(paths[: max(1, rows - 2)]), paths[max(1, rows - 2) :]
    widest = max(len(path.address) for path in snapshot.paths)
    layout = fit_columns(
        [
            Column("number", "#", 4, 6),
            Column("address", "PATH", 10, right=False, width_max=min(widest, _ADDRESS_MAX, max(22, columns // 4))),
            Column("legs", "LEGS", 9, 2),
            Column("rate", "PER SECOND", 10),
            Column("spark", "", SPARK_LEAST, 4, False, SAMPLES_MAX),
            Column("moved", "RECEIVED" if snapshot.role == "rx" else "SENT", 10, 3),
            Column("share", "SHARE", 5, 1),
            *([Column("why", " WHY", 40, 9, False, 60)] if any(path.why for path in snapshot.paths) else []),
        ],
        columns - 1,
    )
    width = next((column.width for column in layout if column.key == "spark"), 0)
    peak = history.peak((("path", path.address) for path in snapshot.paths), width)
    total = sum(path.moved_bytes for path in snapshot.paths)
    found = [table_head(pen, layout)]
    for number, path in paths:
        share = path.moved_bytes / total if total else 0.0
        legs = f"{path.legs_up}/{path.legs_wanted}" if path.legs_wanted else f"{path.legs_up}"
        spark = sparkline(history.rates(("path", path.address), width), width, peak, pen.blocks)
        cells: dict[str, Part] = {
            "number": (str(number), DIM_STYLE),
            "address": path.address,
            "legs": legs,
            "rate": format_bytes(path.rate),
            "spark": (spark, ACCENT_STYLE),
            "moved": format_bytes(path.moved_bytes),
            "share": percent(share),
            "why": (f" {path.why}", DIM_STYLE),
        }
        if path.legs_up or not path.why or snapshot.state in ("complete", "failed"):
            found.append(table_row(pen, layout, cells, "" if path.legs_up else DIM_STYLE))
        else:
            line = table_row(pen, [column for column in layout if column.key in _WHO], cells, TROUBLE_STYLE)
            found.append(line.append_text(pen.text((f"  {path.why}", TROUBLE_STYLE))))
    if rest and len(found) < rows:
        up, rate = sum(path.legs_up for _, path in rest), format_rate(sum(path.rate for _, path in rest))
        found.append(pen.text((f"      and {len(rest)} more: {up} legs, {rate}", DIM_STYLE)))
    return found


def leg_table(pen: Pen, snapshot: Snapshot, history: History, columns: int, rows: int) -> list[Text]:
    """At most `rows` rows, the head among them; none where there is nothing to show or no room."""
    legs = sorted(snapshot.legs, key=lambda leg: leg.number)
    if rows < 2 or not legs:
        return []
    rest: list[Leg] = []
    if len(legs) > rows - 1:
        chosen = interesting(legs, history)
        legs, rest = sorted(chosen[: max(1, rows - 2)], key=lambda leg: leg.number), chosen[max(1, rows - 2) :]
    layout = fit_columns(_leg_columns(snapshot, columns), columns - 1)
    width = next((column.width for column in layout if column.key == "spark"), 0)
    peak = history.peak((("leg", leg.number) for leg in snapshot.legs), width)
    found = [table_head(pen, layout)]
    for leg in legs:
        spark = sparkline(history.rates(("leg", leg.number), width), width, peak, pen.blocks)
        troubled = leg.state in TROUBLED
        cells: dict[str, Part] = {
            "number": str(leg.number),
            "path": str(leg.path + 1),
            "address": leg.address,
            "state": (leg.state, TROUBLE_STYLE if troubled else DIM_STYLE),
            "rate": format_bytes(leg.rate),
            "spark": (spark, TROUBLE_STYLE if troubled else ACCENT_STYLE),
            "rtt": format_duration_us(leg.rtt_us) if leg.rtt_us else ("-", DIM_STYLE),
            "resent": _count(leg.retransmissions),
            "flight": format_bytes(leg.in_flight_bytes) if leg.in_flight_bytes else ("0", DIM_STYLE),
            "hedged": _count(leg.hedged),
            "vain": format_bytes(leg.hedged) if leg.hedged else ("0", DIM_STYLE),
            "restarts": _count(leg.restarts),
        }
        found.append(table_row(pen, layout, cells, TROUBLE_STYLE if troubled else ""))
    if rest and len(found) < rows:
        found.append(pen.text((f"      {_rest(rest)}", DIM_STYLE)))
    return found


def interesting(legs: list[Leg], history: History) -> list[Leg]:
    """The legs in the order in which they deserve a row: those in trouble, then those that lately moved less than half
    of what the leg in the middle did, then the others; in each group by number, so that rows do not dance.
    """
    means = {leg.number: history.mean(("leg", leg.number)) for leg in legs}
    slow = median(means.values()) / 2
    return sorted(legs, key=lambda leg: (leg.state not in TROUBLED, means[leg.number] >= slow, leg.number))


def _leg_columns(snapshot: Snapshot, columns: int) -> list[Column]:
    """What there is to say about a leg; rx has nothing in flight, but some that came in vain."""
    widest = min(_ADDRESS_MAX, max((len(leg.address) for leg in snapshot.legs), default=0))
    by_address = columns >= _WIDE
    path = (
        Column("address", "PATH", min(widest, columns // 6), 6, False) if by_address else Column("path", "PATH", 4, 6)
    )
    tx = snapshot.role == "tx"
    return [
        Column("number", "LEG", 4),
        path,
        Column("state", "STATE", 5 if tx else 7, 1, False),
        Column("rate", "PER SECOND", 10),
        Column("spark", "", SPARK_LEAST, 4, False, SAMPLES_MAX),
        Column("rtt", "RTT", 8, 2),
        Column("resent", "RESENT", 6, 3),
        Column("flight", "IN FLIGHT", 10, 5) if tx else Column("vain", "IN VAIN", 10, 5),
        *([Column("hedged", "HEDGED", 6, 7)] if tx else []),
        Column("restarts", "RESTARTS", 8, 8),
    ]


def _count(count: int) -> Part:
    """At most six characters; a zero is dim."""
    if count >= 100_000:
        return f"{min(count // 1000, 99_999)}k"
    return str(count) if count else ("0", DIM_STYLE)


def _rest(legs: list[Leg]) -> str:
    """All the legs that have no row, in one sentence."""
    states = ", ".join(f"{count} {state}" for state, count in Counter(leg.state for leg in legs).most_common())
    rate = format_rate(sum(leg.rate for leg in legs))
    return f"and {len(legs)} more: {states}; {rate} together, {sum(leg.retransmissions for leg in legs)} resent"
