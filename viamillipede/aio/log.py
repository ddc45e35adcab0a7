"""Lines on standard error, by level (viamillipede.1, verbose). Standard output carries data only.

A stream is worth more than the news about it: it goes on without a stderr, and with one that nobody reads. A text is
written whole or not at all, so that a script that reads JSON never finds half a line; what found no room follows as
soon as there is some, and what was to be said meanwhile is counted.

All of a Log is used by one thread. A forked child makes its own: it has no thread for a file or syslog (log_outputs).
"""

import os
import select
import time
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from viamillipede.aio.log_outputs import Outputs

VERBOSE_STEPS = (0, 1, 2, 3, 5, 10, 20)  # SIGUSR2 goes through them in a circle
ERROR, WARNING, EVENT, LEG, RESENT, FRAME, OPERATION = 0, 1, 2, 3, 5, 10, 20  # errors are said at every level
CLOSE_S = 1.0  # how long the end may be held up by outputs that hang

_STDERR = 2
_CLEAR = "\r\x1b[K"
# What others chose (names, the output of commands) shall not move the cursor or colour the terminal.
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def utc_now() -> str:
    """The wall clock for views: ISO 8601, UTC, 2026-11-20T15:03:12.345Z."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


class Stderr:
    """Standard error, never waited for. `lost`: texts that found it full since it took one last."""

    def __init__(self) -> None:
        self.lost = 0
        self.is_gone = False  # it raised an error: nobody reads it any more
        self.is_terminal = os.isatty(_STDERR)
        self._fd, self._close = self._open()
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)
        self._rest = b""  # of a text that is under way

    def _open(self) -> tuple[int, Callable[[], object]]:
        """A terminal is opened anew, not to be waited for: it says that it is writable with room for a byte, and
        waits for the rest, for hours when the network has gone away below it. Pipes take PIPE_BUF when they say so.
        """
        if self.is_terminal:
            try:
                fd = os.open(f"/proc/self/fd/{_STDERR}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            except OSError:
                pass  # no /proc, or another user's terminal
            else:
                return fd, weakref.finalize(self, os.close, fd)
        return _STDERR, lambda: None

    def is_ready(self) -> bool:
        """Whether all that was given so far is written, or just became so."""
        try:
            while self._rest and not self.is_gone and self._poll.poll(0):
                self._rest = self._rest[os.write(self._fd, self._rest[: select.PIPE_BUF]) :]
        except BlockingIOError:
            pass  # another one filled it first
        except OSError:
            self.is_gone, self._rest = True, b""
        return not self._rest and not self.is_gone

    def write(self, text: str) -> None:
        """As much of it as there is room for at once, the rest with what follows; nothing while it is not ready."""
        if self.is_ready():
            self._rest = text.encode(errors="backslashreplace")
            self.is_ready()

    def close(self, timeout_s: float) -> None:
        """Wait so long for room for the rest."""
        deadline = time.monotonic() + timeout_s
        while not self.is_ready() and not self.is_gone and (left_s := deadline - time.monotonic()) > 0:
            self._poll.poll(left_s * 1000)
        self._close()
        self._poll.unregister(self._fd)
        self._fd, self._close = _STDERR, lambda: None
        self._poll.register(self._fd, select.POLLOUT)


class Log:
    """Says what is at or below the level `verbose`.

    json: as JSON lines. file, syslog: also there. label: which of several streams it is about. Raises UsageError
    when the file cannot be opened, or there is no syslog.
    """

    def __init__(
        self, role: str, verbose: int, *, json: bool = False, file: str = "", syslog: bool = False, label: str = ""
    ) -> None:
        self.verbose = verbose
        self._role, self._label = role, label
        speaker = f"{role} {label}" if label else role
        self._prefix = f"viamillipede {speaker}: "
        self._is_json = json
        self._live = ""
        self._screen: Callable[[str], object] | None = None
        self._outputs = self._open(speaker, file, syslog) if file or syslog else None
        self._stderr = Stderr()

    @staticmethod
    def _open(speaker: str, file: str, syslog: bool) -> "Outputs":
        from viamillipede.aio.log_outputs import Outputs  # only who asks for them waits for the library

        return Outputs(speaker, file, syslog)

    def say(self, level: int, text: str) -> None:
        """One line, or several, each with the name of who speaks."""
        if self.verbose >= level:
            self._tell(level, text, self._prefix)

    def write(self, text: str) -> None:
        """Text as it is, at every level: a dump. In JSON one message."""
        self._stderr.is_gone = False  # somebody asks: perhaps it works again
        self._tell(WARNING, text, "")

    def raw(self, line: str) -> None:
        """One line as it is, at every level, on standard error alone: a view's, in JSON."""
        self._show(f"{line}\n")

    def draw(self, text: str) -> None:
        """A full-screen view's next picture; passed over while the last one is still under way."""
        self._stderr.write(text)

    def live(self, text: str) -> None:
        """Keep this line, shorter than the terminal is wide, at the bottom, below all that is said; "": none.

        It may have colours. A no-op where standard error is no terminal.
        """
        if self._stderr.is_terminal and self._screen is None and (text or self._live):
            self._live = text
            self._stderr.write(f"\r{text}\x1b[K")

    def screen(self, show: Callable[[str], object] | None) -> None:
        """Standard error is a full-screen view's, which is given each line instead; None: it is free again."""
        self.live("")
        self._screen = show

    def step(self) -> None:
        """The next level of VERBOSE_STEPS, or back to the first."""
        higher = [level for level in VERBOSE_STEPS if level > self.verbose]
        self.verbose = higher[0] if higher else VERBOSE_STEPS[0]
        self._stderr.is_gone = False  # as in `write`
        self._tell(WARNING, f"verbose {self.verbose}", self._prefix)

    def close(self) -> None:
        """The last word: what is under way is written, for which it waits CLOSE_S at most. Idempotent.

        What is said later goes to standard error alone.
        """
        self.live("")
        self._screen = None
        deadline = time.monotonic() + CLOSE_S
        outputs, self._outputs = self._outputs, None
        for news in outputs.close(CLOSE_S) if outputs is not None else []:
            self.say(WARNING, news)
        self._stderr.close(max(0.0, deadline - time.monotonic()))

    def _tell(self, level: int, text: str, prefix: str) -> None:
        if not text.isprintable():
            text = text.translate(_ESCAPES)
        if self._outputs is not None:
            for news in self._outputs.news():
                self._deliver(WARNING, news, self._prefix)
            self._outputs.put(level, text)
        self._deliver(level, text, prefix)

    def _deliver(self, level: int, text: str, prefix: str) -> None:
        """To whatever is in the place of standard error."""
        if self._screen is not None:
            for line in text.splitlines():
                self._screen(line)
        else:
            self._show(self._formatted(level, text, prefix))

    def _formatted(self, level: int, text: str, prefix: str) -> str:
        if not self._is_json:
            return "".join(f"{prefix}{line}\n" for line in text.splitlines())
        if not text:
            return ""
        from viamillipede.views.json_lines import message_line

        line = message_line(
            level, text.rstrip("\n"), time=utc_now(), role=self._role, pid=os.getpid(), label=self._label
        )
        return f"{line}\n"

    def _show(self, text: str) -> None:
        """Lines on standard error, above the live one."""
        if self._stderr.is_ready():
            if self._stderr.lost:
                lost, self._stderr.lost = self._stderr.lost, 0
                text = self._formatted(WARNING, f"{lost} messages lost: nobody read this", self._prefix) + text
            self._stderr.write(f"{_CLEAR}{text}{self._live}" if self._live else text)
        elif not self._stderr.is_gone:
            self._stderr.lost += 1
        if self._stderr.is_gone and self._outputs is None:
            self.verbose = 0  # nobody hears it
