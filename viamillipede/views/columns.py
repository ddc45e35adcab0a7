"""Tables of fixed columns, which neither jump nor overflow: what is too much is left out, what is left is used."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from viamillipede.views.pen import Part, Pen

if TYPE_CHECKING:
    from rich.text import Text

GAP = 1
COLUMNS_DEFAULT, LINES_DEFAULT = 80, 24  # of a terminal of which nobody knows


@dataclass(frozen=True, slots=True)
class Column:
    """`key`: of its cells. `rank`: the highest is left out first. `width_max`: to which it grows, given room."""

    key: str
    title: str
    width: int
    rank: int = 0
    right: bool = True
    width_max: int = 0


def told_or(told: int, variable: str, default: int) -> int:
    """A size in cells: what the terminal has told; or, where that is 0, since nobody has told it, what the variable
    of the environment says, or the default.
    """
    said = os.environ.get(variable, "")
    return told or (int(said) if re.fullmatch("[1-9][0-9]{0,3}", said) else default)


def fit_columns(columns: Iterable[Column], width: int) -> list[Column]:
    """Those that fit in `width` cells, grown to use them; earlier columns grow first. At least one stays."""
    chosen = list(columns)
    while len(chosen) > 1 and sum(column.width + GAP for column in chosen) > width:
        chosen.remove(max(chosen, key=lambda column: column.rank))
    room = max(0, width - sum(column.width + GAP for column in chosen))
    grown = []
    for column in chosen:
        more = min(room, max(0, column.width_max - column.width))
        room -= more
        grown.append(replace(column, width=column.width + more))
    return grown


def table_row(pen: Pen, columns: Iterable[Column], cells: dict[str, Part], style: str = "") -> Text:
    """One row: each cell cut and aligned. `style`: of cells without their own. Unknown keys are empty."""
    line = pen.text()
    for column in columns:
        part = cells.get(column.key, "")
        words, own = (part, style) if isinstance(part, str) else part
        words = pen.cut(pen.plain(words), column.width)
        room = " " * (column.width - pen.text(words).cell_len)
        line.append(" " * GAP).append_text(pen.text((room + words if column.right else words + room, own)))
    return line


def table_head(pen: Pen, columns: Iterable[Column]) -> Text:
    """The titles."""
    columns = list(columns)
    return table_row(pen, columns, {column.key: column.title for column in columns}, "dim")
