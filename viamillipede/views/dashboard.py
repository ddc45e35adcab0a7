"""The full screen: what moves, how fast, over which paths and legs, and what it waits for.

A picture is made of strips, one above the other: the head, a graph of the rate, bars, the paths, the legs, and the
program's last messages. Each row is exactly as wide as the terminal, and there are exactly as many rows as it has.
Where it is small, the strips lose rows and the tables columns, the least important first; nothing ever wraps.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from viamillipede.views.columns import COLUMNS_DEFAULT, LINES_DEFAULT, told_or
from viamillipede.views.history import History
from viamillipede.views.pen import Pen
from viamillipede.views.phrases import ACCENT_STYLE, DIM_STYLE
from viamillipede.views.strips import bars, graph_strip, head
from viamillipede.views.tables import leg_table, path_table

if TYPE_CHECKING:
    from rich.text import Text

    from viamillipede.views.snapshot import Snapshot

# What rich.control calls these. The last of each pair: a row that is too wide while the terminal changes its size
# is cut instead of wrapped.
ENTER = "\x1b[?1049h\x1b[H" + "\x1b[?25l" + "\x1b[?7l"  # the alternate screen, no cursor, no wrapping
LEAVE = "\x1b[?7h" + "\x1b[?25h" + "\x1b[?1049l"
_CLEAR = "\x1b[2J"

MESSAGES_KEPT = 5
MESSAGE_CHARACTERS_MAX = 1000
COLUMNS_MAX, LINES_MAX = 1000, 500  # a terminal that claims more is not believed


class Dashboard:
    """Collects history and draws the screen.

    colour: whether there may be any; how many there are rich finds out from TERM, COLORTERM and NO_COLOR.
    ascii_only: the terminal's encoding has no block characters.
    """

    def __init__(self, colour: bool = True, ascii_only: bool = False) -> None:
        self._pen = Pen(colour, ascii_only)
        self._history = History()
        self._messages: deque[str] = deque(maxlen=MESSAGES_KEPT)
        self._snapshot: Snapshot | None = None
        self._shape = (0, 0)

    def observe(self, snapshot: Snapshot) -> None:
        """A new state of things: one sample more in each graph."""
        self._snapshot = snapshot
        self._history.observe(snapshot)

    def message(self, text: str) -> None:
        """Something that the program says; the last ones are shown at the bottom, each line in a row."""
        self._messages.extend(line[:MESSAGE_CHARACTERS_MAX] for line in text.splitlines() if line.strip())

    def render(self, columns: int, lines: int) -> list[str]:
        """The screen as `lines` rows (at least one) of `columns` cells, with colours, without ends of lines."""
        columns, lines = min(max(1, columns), COLUMNS_MAX), min(max(1, lines), LINES_MAX)
        pen = self._pen
        rows = self._rows(columns, lines) if self._snapshot else []
        rows = rows[:lines] + [pen.text() for _ in range(lines - len(rows))]
        return pen.draw([pen.fit(row, columns) for row in rows])

    def screen(self, columns: int, lines: int) -> str:
        """The same with what places it: to be written as it is, after ENTER and until LEAVE."""
        columns = told_or(columns, "COLUMNS", COLUMNS_DEFAULT)
        lines = told_or(lines, "LINES", LINES_DEFAULT)
        rows = self.render(columns, lines)
        clear = _CLEAR if self._shape != (columns, lines) else ""
        self._shape = (columns, lines)
        return clear + "".join(f"\x1b[{number};1H{row}" for number, row in enumerate(rows, 1))

    def _rows(self, columns: int, lines: int) -> list[Text]:
        """Everything in its order; too few rows are filled up before the messages, too many are cut at the end."""
        assert self._snapshot
        snapshot, pen, history = self._snapshot, self._pen, self._history
        airy = lines >= 30
        blank = [pen.text()] if lines >= 22 else []
        rows = head(pen, snapshot, columns) + (blank if airy else [])
        rows += graph_strip(pen, snapshot, history, columns, _graph_height(lines))
        rows += (blank if airy else []) + bars(pen, snapshot, columns, airy or not snapshot.size_bytes)
        messages = self._message_rows(0 if lines < 14 else 2 if not airy else 3)
        room = lines - len(rows) - len(messages) - 2 * len(blank)
        least = min(room // 2, max(4, room // 3))  # more where the legs do not need it
        paths = path_table(pen, snapshot, history, columns, max(least, room - len(snapshot.legs) - 1))
        if paths:
            rows += blank + paths
        legs = leg_table(pen, snapshot, history, columns, lines - len(rows) - len(messages) - len(blank))
        if legs:
            rows += blank + legs
        rows += [pen.text() for _ in range(lines - len(rows) - len(messages))]
        return rows + messages

    def _message_rows(self, count: int) -> list[Text]:
        """The last `count` messages, the newest at the bottom."""
        pen, last = self._pen, list(self._messages)[-count:] if count else []
        mark = "| " if pen.ascii_only else "▏"
        said = [
            pen.text((f" {mark}", ACCENT_STYLE), (text, "" if number == len(last) else DIM_STYLE))
            for number, text in enumerate(last, 1)
        ]
        return [pen.text() for _ in range(count - len(said))] + said


def _graph_height(lines: int) -> int:
    """Rows of the graph of the rate; of the terminal alone, so that nothing moves when legs come and go."""
    return 1 if lines < 20 else 3 if lines < 30 else 5 if lines < 40 else min(16, lines // 4)
