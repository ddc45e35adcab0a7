"""With json: what ssh and the far end say on standard error, as messages, a line of JSON for each line of theirs.

All the ssh processes write into one pipe. Until the legs are up it is read in between, by who waits for an answer;
then by a thread, which may not begin sooner: the second ssh is forked, and that wants one thread only.
"""

import os
import threading
from types import TracebackType
from typing import Self

from viamillipede.aio.log import WARNING, utc_now
from viamillipede.standard_streams import write_stderr
from viamillipede.views.json_lines import message_line

READ_BYTES = 64 << 10
LINE_BYTES_MAX = 64 << 10  # what is longer comes in parts
LAST_S = 1.0  # for what comes at the end; somebody may hold the pipe for ever, as the master of a shared connection


class Aside:
    """The pipe: `theirs`, to be ssh's standard error, and `ours`. `role`: as the messages have it. A context."""

    def __init__(self, role: str) -> None:
        self._role = role
        self.ours, self.theirs = os.pipe()
        self._thread: threading.Thread | None = None
        self._partial = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """All ssh processes have ended: say what is left, and wait for more no longer than LAST_S."""
        os.close(self.theirs)
        self.start()
        assert self._thread is not None
        self._thread.join(LAST_S)

    @property
    def has_thread(self) -> bool:
        """Whether nobody else need read."""
        return self._thread is not None

    def start(self) -> None:
        """From now on a thread reads. Idempotent."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._read_all, name="aside", daemon=True)
            self._thread.start()

    def _read_all(self) -> None:
        while self.pass_on():
            pass
        os.close(self.ours)

    def pass_on(self) -> bool:
        """Read once and say it; whether there may be more."""
        piece = os.read(self.ours, READ_BYTES)
        *lines, self._partial = (self._partial + piece).split(b"\n")
        if not piece or len(self._partial) > LINE_BYTES_MAX:
            lines, self._partial = [*lines, self._partial], b""
        for line in lines:
            self._say(line.decode(errors="replace").rstrip())
        return bool(piece)

    def _say(self, text: str) -> None:
        if text:
            line = message_line(WARNING, text, time=utc_now(), role=self._role, pid=os.getpid())
            write_stderr(line + "\n")
