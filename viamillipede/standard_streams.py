"""Standard input, output and error before a transfer: they must be there, and suit what is asked for."""

import contextlib
import os
import select
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime

from viamillipede.config import RxConfig, TxConfig
from viamillipede.errors import Exit, Failure, LocalIOError, UsageError

PROGRAM = "viamillipede"
HINT = "Try 'viamillipede --help'.\n"
_STDIN, _STDOUT, _STDERR = 0, 1, 2


def hold_descriptors() -> None:
    """Open /dev/null in the place of 0, 1 or 2 that the caller closed; a socket would get the number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= _STDERR:  # always the lowest that is free
        pass
    os.close(fd)


def check_own_end(config: TxConfig | RxConfig) -> None:
    """The stream's end on this host must be there, and no terminal. Raises LocalIOError, UsageError."""
    if config.dashboard and not os.isatty(_STDERR):
        raise UsageError("dashboard needs a terminal on standard error; say progress or json where there is none")
    if config.command:
        return  # it is not one of the standard descriptors
    if isinstance(config, TxConfig):
        if sys.stdin is None:  # closed when Python started
            raise LocalIOError("standard input is closed; pipe something in")
        if os.isatty(_STDIN):
            raise UsageError(
                "standard input is a terminal; pipe something in: "
                "tar c /srv | viamillipede tx HOST PORT, or: tar c /srv | viamillipede to DEST -- COMMAND"
            )
    else:
        if sys.stdout is None:
            raise LocalIOError("standard output is closed; pipe it into something, or send it to a file")
        if os.isatty(_STDOUT) and not config.force:
            raise UsageError("standard output is a terminal; pipe it into something, or say force")


def print_all(text: str) -> int:
    """`text` on standard output; unbuffered, so that a failure is noticed here. Raises LocalIOError."""
    rest = text.encode()
    try:
        while rest:
            rest = rest[os.write(_STDOUT, rest) :]
    except OSError as error:
        raise LocalIOError(f"standard output: {error.strerror}") from error
    return int(Exit.COMPLETE)


def complain(speaker: str, message: str, *quoted: str, json: bool = False) -> None:
    """One line on standard error that says who speaks, and lines of a command's standard error that it quotes."""
    if json:
        from viamillipede.views.json_lines import message_line

        text = "\n".join([message, *quoted])
        time = datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
        write_stderr(message_line(0, text, time=time, role=speaker.split()[-1], pid=os.getpid()) + "\n")
        return
    write_stderr(f"{speaker}: {' '.join(message.splitlines())}\n" + "".join(f"  | {line}\n" for line in quoted))


def outcome_of(speaker: str, run: Callable[[], int], json: bool = False) -> int:
    """The exit status of `run`; what it raises is said on standard error, as JSON if wanted."""
    try:
        return run()
    except UsageError as error:
        complain(speaker if json else PROGRAM, str(error), json=json)
        if not json:
            write_stderr(HINT)
        return int(error.exit_status)
    except Failure as failure:
        if failure.told:
            return int(failure.exit_status)
        message, *quoted = str(failure).splitlines() or [""]
        if isinstance(failure, LocalIOError):
            quoted = []  # our own command's standard error was passed on already
        complain(speaker, message, *quoted, json=json)
        return int(failure.exit_status)
    except KeyboardInterrupt:
        return int(Exit.INTERRUPTED)
    except Exception as error:
        if os.environ.get("VIAMILLIPEDE_DEBUG") == "1":
            write_stderr(traceback.format_exc())
        what = f"{type(error).__name__}: {error}"
        complain(speaker, f"unexpected {what} (a bug; please report it with VIAMILLIPEDE_DEBUG=1)", json=json)
        return int(Exit.UNEXPECTED)


def write_stderr(text: str) -> None:
    """`text` on standard error. When that fails nobody is left to be told; the exit status still says it.

    A pipe that is full, and stays so for a second, is read by nobody: the program ends without having said it.
    """
    poll = select.poll()
    poll.register(_STDERR, select.POLLOUT)
    data = text.encode(errors="backslashreplace")
    with contextlib.suppress(OSError):
        while data and poll.poll(1000):
            data = data[os.write(_STDERR, data[: select.PIPE_BUF]) :]
