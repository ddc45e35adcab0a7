"""Where messages go besides standard error: a file, and the system's log.

Both may hang: a disk is full, a network file system is dead, a daemon is stopped. So one thread writes, from a queue
that is bounded, and the stream never waits for it. Lines that found no room in the queue, or could not be written,
are counted; when writing works again the output itself says how many they were, and so does standard error.

A forked child has the queue but not the thread: it opens its own.
"""

import contextlib
import logging
import os
import queue
import socket
import stat
import threading
import time
from collections import deque
from datetime import datetime
from logging.handlers import QueueListener, SysLogHandler

from viamillipede.errors import UsageError

QUEUE_LINES_MAX = 4096
NEWS_MAX = 16  # that nobody has asked for
SYSLOG_SOCKETS = ("/dev/log", "/var/run/syslog")
PRIORITIES = {0: "err", 1: "warning", 2: "notice", 3: "info"}  # by level; what is above: debug


class FileOutput(logging.Handler):
    """Appends to a file, with the local time and its distance from UTC; opened anew when it was rotated away.

    Unbuffered: what `emit` raises no OSError for is written. Raises UsageError when it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.setFormatter(_Stamped("%(asctime)s viamillipede %(message)s"))
        self._path = os.path.abspath(path)
        self._is_torn = False  # the last line was written in part
        try:
            self._fd = self._open()
        except OSError as error:
            raise UsageError(
                f"log {path}: {error.strerror}; name a file that can be written, in a folder that exists"
            ) from error
        try:
            _check_is_not_output(path, self._fd)
        except UsageError:
            os.close(self._fd)
            raise

    def _open(self) -> int:
        """Never waits: not for the reader of a FIFO."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(self._path, flags, 0o666)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line. OSError."""
        self._follow()
        data = ("\n" * self._is_torn + self.format(record) + "\n").encode(errors="backslashreplace")
        written = os.write(self._fd, data)
        while written < len(data):
            self._is_torn = True  # if what follows fails
            written += os.write(self._fd, data[written:])
        self._is_torn = False

    def _follow(self) -> None:
        """After a rotation the name stands for another file, or for none."""
        ours = os.fstat(self._fd)
        if not stat.S_ISREG(ours.st_mode):
            return
        try:
            if os.path.samestat(os.stat(self._path), ours):
                return
        except FileNotFoundError:
            pass  # it is made anew
        fd = self._open()
        os.close(self._fd)
        self._fd, self._is_torn = fd, False

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        super().close()


def _check_is_not_output(path: str, fd: int) -> None:
    """Standard output carries the data; a terminal, or /dev/null, may be both. Raises UsageError."""
    ours, output = os.fstat(fd), os.fstat(1)
    if os.path.samestat(ours, output) and not stat.S_ISCHR(ours.st_mode):
        raise UsageError(f"log {path}: this is standard output, which carries the data; name another file")


class _Stamped(logging.Formatter):
    """Times as 2026-11-20T16:03:12.345+01:00."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")


class SyslogOutput(SysLogHandler):
    """The log of the system, which adds the time itself. Raises UsageError when there is none here."""

    def __init__(self) -> None:
        path = next(filter(_listens, SYSLOG_SOCKETS), None)
        if path is None:
            where = " or ".join(SYSLOG_SOCKETS)
            raise UsageError(f"syslog: nothing listens on {where}; start a syslog daemon, or leave the word out")
        super().__init__(path, SysLogHandler.LOG_DAEMON)
        self.ident = f"viamillipede[{os.getpid()}]: "

    def mapPriority(self, level_name: str) -> str:
        """The names are those of syslog already."""
        return level_name

    def handleError(self, record: logging.LogRecord) -> None:
        """To who keeps count, and not to standard error."""
        raise  # the error that is being handled


def _listens(path: str) -> bool:
    """Whether a daemon does; the library would not say before the first line is lost."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_UNIX, kind) as sock, contextlib.suppress(OSError):
            sock.settimeout(1)  # it may be stopped
            sock.connect(path)
            return True
    return False


class _Account:
    """An output, and how many lines it lost since it worked last."""

    def __init__(self, name: str, handler: logging.Handler, news: "deque[str]") -> None:
        self.handler = handler
        self._name, self._news = name, news
        self._lost = 0
        self._why = ""

    def take(self, record: logging.LogRecord, speaker: str, lost: int, is_marker: bool) -> None:
        """Write a line, after that about those lost before it, if any were; a marker has none of its own."""
        self._lost += lost
        try:
            if self._lost:
                self._tell_lost(speaker)
            if not is_marker:
                self.handler.emit(record)
        except Exception as error:  # whatever it is, it must not end the thread, and is told
            self._on_error(error, 0 if is_marker else 1)

    def lost(self) -> str:
        """How many, and why; "" for none."""
        count = f"{self._lost} {'line' if self._lost == 1 else 'lines'} lost"
        return f"{count}: {self._why or 'it was too slow'}" if self._lost else ""

    def last_news(self) -> list[str]:
        """What was lost to the end."""
        return [f"{self._name}: {self.lost()}"] if self._lost else []

    def _tell_lost(self, speaker: str) -> None:
        text = self.lost()
        self.handler.emit(make_record(1, f"{speaker}: {text}"))
        self._news.append(f"{self._name}: works again, {text}")
        self._lost, self._why = 0, ""

    def _on_error(self, error: Exception, lost: int) -> None:
        why = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        if not self._why:
            self._news.append(f"{self._name}: {why}; lines are lost until it works again")
        self._lost, self._why = self._lost + lost, why


def make_record(level: int, text: str, **others: object) -> logging.LogRecord:
    """A line as the library knows it, made now."""
    return logging.makeLogRecord({"levelname": PRIORITIES.get(level, "debug"), "msg": text, **others})


class _Listener(QueueListener):
    """The thread."""

    def __init__(self, lines: "queue.Queue[logging.LogRecord]", speaker: str, accounts: list[_Account]) -> None:
        super().__init__(lines, *(account.handler for account in accounts))
        self._speaker, self._accounts = speaker, accounts

    def handle(self, record: logging.LogRecord) -> None:
        """To each output; a marker says that all before it is done."""
        done: threading.Event | None = getattr(record, "done", None)
        for account in self._accounts:
            account.take(record, self._speaker, getattr(record, "lost", 0), done is not None)
        if done is not None:
            done.set()


class Outputs:
    """The outputs that were asked for, if any. Raises UsageError when one cannot be had.

    file: a path, "" for none. speaker: who speaks, `rx db1`.
    """

    def __init__(self, speaker: str, file: str, syslog: bool) -> None:
        self._speaker = speaker
        self._news: deque[str] = deque(maxlen=NEWS_MAX)
        self._lost = 0  # for want of room, since the last line that found some
        self._queue: queue.Queue[logging.LogRecord] = queue.Queue(QUEUE_LINES_MAX)
        accounts: list[_Account] = []
        try:
            if file:
                accounts.append(_Account(f"log {file}", FileOutput(file), self._news))
            if syslog:
                accounts.append(_Account("syslog", SyslogOutput(), self._news))
        except UsageError:
            for account in accounts:
                account.handler.close()
            raise
        self._accounts = accounts
        self._listener = _Listener(self._queue, speaker, accounts)
        self._is_open = bool(accounts)
        if accounts:
            self._listener.start()

    def put(self, level: int, text: str) -> None:
        """Have the lines of `text` written. Never waits."""
        for line in text.splitlines() if self._is_open else ():
            try:
                self._queue.put_nowait(make_record(level, f"{self._speaker}: {line}", lost=self._lost))
                self._lost = 0
            except queue.Full:
                self._lost += 1

    def news(self) -> list[str]:
        """What has to be said elsewhere about the outputs, once."""
        found = []
        while self._news:
            found.append(self._news.popleft())
        return found

    def close(self, timeout_s: float) -> list[str]:
        """Wait until all is written, or for so long; news. Idempotent.

        What hangs for longer keeps the thread, a daemon, which the end of the process ends.
        """
        if not self._is_open:
            return []
        self._is_open = False
        deadline = time.monotonic() + timeout_s
        done = threading.Event()
        markers = 1
        try:
            self._queue.put(make_record(0, "", lost=self._lost, done=done), timeout=timeout_s)
        except queue.Full:
            markers = 0  # it hangs, as the wait below will find at once
        if not done.wait(max(0.0, deadline - time.monotonic())):
            unwritten = self._queue.unfinished_tasks - markers + self._lost
            return [*self.news(), f"log: {unwritten} lines were not written in time"]
        self._listener.stop()
        for account in self._accounts:
            account.handler.close()
        return self.news() + [news for account in self._accounts for news in account.last_news()]
