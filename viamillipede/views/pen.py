"""Draws with rich, into strings only: a terminal that was stopped must never stop the stream."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from viamillipede.views.history import BLOCKS, BLOCKS_ASCII
from viamillipede.views.phrases import ACCENT_STYLE, clean, sane

if TYPE_CHECKING:
    from rich.text import Text

_BACK_STYLE = "dim bright_black"  # of what a bar has not reached yet

Part = str | tuple[str, str]  # a text, or a text and its style


class Pen:
    """What fits the terminal: with colours or without, with block characters or plain ASCII.

    How many colours there are rich finds out from TERM, COLORTERM and NO_COLOR. rich is imported as late as here:
    most runs draw nothing.
    """

    def __init__(self, colour: bool, ascii_only: bool) -> None:
        from rich.console import Console

        self.console = Console(
            file=io.StringIO(),
            force_terminal=True,
            color_system="auto" if colour else None,
            legacy_windows=False,
            markup=False,
            emoji=False,
            highlight=False,
            width=80,
            height=24,
        )
        self.bare = self.console.color_system is None or self.console.no_color
        self.ascii_only = ascii_only
        self.blocks = BLOCKS_ASCII if ascii_only else BLOCKS
        self.ellipsis = ".." if ascii_only else "…"
        self.dot = " - " if ascii_only else " · "

    def text(self, *parts: Part) -> Text:
        """One line of text in several styles, without anything that moves the cursor."""
        from rich.text import Text

        line = Text(no_wrap=True, overflow="ignore", end="")
        for part in parts:
            words, style = (part, "") if isinstance(part, str) else part
            line.append(self.plain(words), style or None)
        return line

    def plain(self, text: str) -> str:
        """What can be shown of `text`."""
        text = clean(text)
        return text.encode("ascii", "replace").decode() if self.ascii_only else text

    def cut(self, text: str, width: int) -> str:
        """At most `width` cells of `text`: what is too long loses its middle, for addresses differ at the end."""
        from rich.cells import cell_len, set_cell_size

        if cell_len(text) <= width:
            return text
        room = width - cell_len(self.ellipsis)
        if room < 2:
            return set_cell_size(text, max(0, width))
        tail = text[-((room + 1) // 2) :]
        while cell_len(tail) > (room + 1) // 2:
            tail = tail[1:]
        return set_cell_size(text, room - cell_len(tail)) + self.ellipsis + tail

    def fit(self, line: Text, width: int) -> Text:
        """`line` in exactly `width` cells: filled up with spaces, or cut at its end with an ellipsis."""
        if line.cell_len > width:
            room = max(0, width - len(self.ellipsis))
            line.truncate(room, overflow="crop")
            line.append(self.ellipsis[: width - line.cell_len])
        line.append(" " * (width - line.cell_len))
        return line

    def spread(self, left: Text, right: Text, width: int) -> Text:
        """`left` and, at the other end of the line, `right`, which is left out where `left` would not be readable."""
        if right.cell_len + 12 > width:
            return self.fit(left, width)
        return self.fit(left, width - right.cell_len - 2).append("  ").append_text(right)

    def bar(self, share: float, width: int, style: str = ACCENT_STYLE) -> Text:
        """rich's bar in `width` cells, `share` of it full. In brackets where no colour shows how long it could be."""
        from rich.progress_bar import ProgressBar

        line, console = self.text(), self.console
        inner = max(0, width - 2 if self.bare else width)
        options = console.options.update(width=inner)
        options.encoding = "ascii" if self.ascii_only else "utf-8"
        bar = ProgressBar(1.0, sane(share), inner, style=_BACK_STYLE, complete_style=style, finished_style=style)
        for segment in console.render(bar, options) if inner else ():
            line.append(segment.text, segment.style)
        line = self.fit(line, inner)
        return self.text("[").append_text(line).append("]") if self.bare and width >= 2 else line

    def draw(self, rows: list[Text]) -> list[str]:
        """Each row as it is written to the terminal, with its colours and without an end of line."""
        from rich.text import Text

        with self.console.capture() as capture:
            self.console.print(Text("\n").join(rows), no_wrap=True, overflow="ignore", crop=False, end="")
        return capture.get().split("\n")
