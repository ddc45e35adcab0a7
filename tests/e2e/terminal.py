"""A terminal for a process to draw on, and what a person would see there."""

import codecs
import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from types import TracebackType
from typing import Any, Self

from tests.e2e.helpers import PATIENCE_S, Side, eventually

_TOKEN = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|(\x1b.?)|([\r\n])|([^\x1b\r\n]+)", re.DOTALL)
ALTERNATE, CURSOR, WRAP = "?1049", "?25", "?7"


class Screen:
    """What is to be seen: rows without end, of so many columns. Knows what we use, and no more."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.modes: dict[str, str] = {}  # of what was switched, the last state: h or l
        self.rows, self.wrapped = [""], [False]  # a row that goes on in the next one
        self._row = self._column = 0
        self._saved: tuple[list[str], list[bool], int, int] | None = None

    def feed(self, text: str) -> None:
        """Something is written there."""
        for token in _TOKEN.finditer(text):
            parameters, command, broken, control, words = token.groups()
            assert broken is None, f"half an escape sequence, or a strange one: {text!r}"
            if command:
                self._obey(parameters, command)
            elif control:
                self._column = 0 if control == "\r" else self._column
                self._row += control == "\n"
                self._grow()
            else:
                self._put(words)

    def _obey(self, parameters: str, command: str) -> None:
        if command == "K":
            assert parameters in ("", "0")
            self.rows[self._row], self.wrapped[self._row] = self.rows[self._row][: self._column], False
        elif command == "H":
            row, _, column = (parameters or "1;1").partition(";")
            self._row, self._column = int(row or 1) - 1, int(column or 1) - 1
            self._grow()
        elif command == "J":
            self.rows, self.wrapped = [""] * len(self.rows), [False] * len(self.rows)
        elif command in "hl":
            self._switch(parameters, command)
        else:
            assert command == "m", f"an unknown command: {parameters}{command}"

    def _switch(self, mode: str, state: str) -> None:
        self.modes[mode] = state
        if mode == ALTERNATE and state == "h":
            self._saved = self.rows, self.wrapped, self._row, self._column
            self.rows, self.wrapped, self._row, self._column = [""], [False], 0, 0
        elif mode == ALTERNATE:
            assert self._saved is not None, "there was nothing to come back from"
            self.rows, self.wrapped, self._row, self._column = self._saved

    def _put(self, words: str) -> None:
        for character in words:
            if self._column == self.columns and self.modes.get(WRAP) != "l":
                self.wrapped[self._row] = True
                self._row, self._column = self._row + 1, 0
                self._grow()
            at = min(self._column, self.columns - 1)
            row = self.rows[self._row].ljust(at)
            self.rows[self._row] = row[:at] + character + row[at + 1 :]
            self._column = at + 1

    def _grow(self) -> None:
        while len(self.rows) <= self._row:
            self.rows.append("")
            self.wrapped.append(False)

    def lines(self) -> list[str]:
        """What was one line when it was written is one again; without empty ones at the end."""
        joined = [""]
        for row, wrapped in zip(self.rows, self.wrapped, strict=True):
            joined[-1] += row
            if not wrapped:
                joined.append("")
        while joined and not joined[-1].strip():
            joined.pop()
        return [line.rstrip() for line in joined]

    def is_normal(self) -> bool:
        """Whether it is as it was found."""
        found = {ALTERNATE: "l", CURSOR: "h", WRAP: "h", **self.modes}
        return (found[ALTERNATE], found[CURSOR], found[WRAP]) == ("l", "h", "h")


class Terminal:
    """The master's side of it. `is_read` False: nobody looks, until `look` is called."""

    def __init__(self, columns: int = 80, lines: int = 24, is_read: bool = True) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.columns, self.raw = columns, ""
        self._lock = threading.Lock()
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        self._thread: threading.Thread | None = None
        if is_read:
            self.look()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """The processes on it have ended."""
        self.close()
        if kind is not None:
            print(f"--- on the terminal:\n{self.raw!r}")

    def close(self) -> None:
        """Idempotent."""
        if self.slave >= 0:
            os.close(self.slave)
            self.slave = -1
            if self._thread is not None:
                self._thread.join(PATIENCE_S)
            os.close(self.master)

    def look(self) -> None:
        """Begin to read it."""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO: nobody has it open any more
            while data := os.read(self.master, 65536):
                text = self._decoder.decode(data)
                with self._lock:
                    self.raw += text

    def seen(self) -> Screen:
        """All that was written so far, on a screen. What is cut in the middle of a sequence is left for later."""
        with self._lock:
            raw = self.raw
        screen = Screen(self.columns)
        screen.feed(re.sub(r"\x1b(\[[?0-9;]*)?\Z", "", raw))
        return screen

    def shows(self, pattern: str, times: int = 1) -> Screen:
        """Wait until it was written so often; how it looks then."""
        eventually(lambda: len(re.findall(pattern, self.raw)) >= times, f"{pattern} on the terminal: {self.raw!r}")
        return self.seen()


def side_on(terminal: Terminal, *words: object, stdin: Any = subprocess.PIPE, stdout: Any = subprocess.PIPE) -> Side:
    """A process whose standard error is the terminal. `release` it."""
    return Side(str(words[0]), words, stdin, stdout, terminal.slave, [])
