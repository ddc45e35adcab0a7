"""The command line: argv and environment -> configuration -> program -> exit status.

The programs are imported only when they run, so that help and refusals come at once.
"""

import os
import sys
import traceback

from viamillipede import __version__
from viamillipede.config import DoctorConfig, RxConfig, TxConfig
from viamillipede.errors import Exit, Failure, UsageError
from viamillipede.settings import parse, strange_variables
from viamillipede.standard_streams import check_own_end, hold_descriptors, print_all, write_stderr
from viamillipede.words import USAGE, translate

_PROGRAM = "viamillipede"
_ROLES: dict[type, str] = {TxConfig: "tx", RxConfig: "rx", DoctorConfig: "doctor"}
_HINT = "Try 'viamillipede --help'.\n"


def main(argv: list[str] | None = None) -> int:
    """Run the program with `argv` (default: the process's own) and return its exit status."""
    speaker = _PROGRAM
    try:
        hold_descriptors()
        arguments = sys.argv[1:] if argv is None else argv
        if (status := _answer(arguments)) is not None:
            return status
        config = parse(arguments, os.environ)
        speaker = f"{_PROGRAM} {_ROLES[type(config)]}"
        for warning in strange_variables(os.environ) if config.verbose else ():
            _complain(speaker, warning)
        return _run(config)
    except UsageError as error:
        _complain(_PROGRAM, str(error))
        write_stderr(_HINT)
        return int(error.exit_status)
    except Failure as failure:
        _complain(speaker, *str(failure).splitlines())
        return int(failure.exit_status)
    except KeyboardInterrupt:
        return int(Exit.INTERRUPTED)
    except Exception as error:
        if os.environ.get("VIAMILLIPEDE_DEBUG") == "1":
            write_stderr(traceback.format_exc())
        what = f"{type(error).__name__}: {error}"
        _complain(speaker, f"unexpected {what} (a bug; please report it with VIAMILLIPEDE_DEBUG=1)")
        return int(Exit.UNEXPECTED)


def _answer(argv: list[str]) -> int | None:
    """Help or version where they are asked for, and the exit status; None: a transfer is. Raises LocalIOError."""
    if not argv:
        write_stderr(USAGE[USAGE.index("Usage:") : USAGE.index("\n\nOne side")] + "\n" + _HINT)
        return int(Exit.USAGE)
    argv = argv[: argv.index("--")] if "--" in argv else argv  # what is behind it is not for us
    if argv[:1] == ["completion"]:
        from viamillipede.completion import complete

        return print_all(complete(argv[1:]))
    try:
        options = translate(argv).tokens  # there they may be bare words
    except UsageError:
        options = []  # `parse` will say it, unless help is what would help
    if "--help" in (*argv, *options) or "-h" in argv:
        return print_all(USAGE)
    if "--version" in (*argv, *options):
        from viamillipede.protocol.wire import VERSION

        return print_all(f"viamillipede {__version__}, wire version {VERSION}\n")
    return None


def _complain(speaker: str, message: str, *quoted: str) -> None:
    """One line on standard error that says who speaks, and lines of a command's standard error that it quotes."""
    write_stderr(f"{speaker}: {' '.join(message.splitlines())}\n" + "".join(f"  | {line}\n" for line in quoted))


def _run(config: TxConfig | RxConfig | DoctorConfig) -> int:
    """From start to end; the exit status. Raises Failure."""
    if isinstance(config, DoctorConfig):
        from viamillipede.doctor import examine

        return examine(config)
    check_own_end(config)
    if isinstance(config, TxConfig):
        from viamillipede.aio.tx import transmit

        return transmit(config)
    from viamillipede.aio.rx import receive

    return receive(config)
