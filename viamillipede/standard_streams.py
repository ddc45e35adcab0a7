"""Standard input, output and error before a transfer: they must be there, and suit what is asked for."""

import contextlib
import os
import select
import sys

from viamillipede.config import RxConfig, TxConfig
from viamillipede.errors import Exit, LocalIOError, UsageError

_STDIN, _STDOUT, _STDERR = 0, 1, 2


def hold_descriptors() -> None:
    """Open /dev/null in the place of 0, 1 or 2 that the caller closed; a socket would get the number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= _STDERR:  # always the lowest that is free
        pass
    os.close(fd)


def check_own_end(config: TxConfig | RxConfig) -> None:
    """The stream's end on this host must be there, and no terminal. Raises LocalIOError, UsageError."""
    if config.command:
        return  # it is not one of the standard descriptors
    if isinstance(config, TxConfig):
        if sys.stdin is None:  # closed when Python started
            raise LocalIOError("standard input is closed; pipe something in")
        if os.isatty(_STDIN):
            raise UsageError("standard input is a terminal; pipe something in, like tar c /srv | viamillipede tx ...")
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
