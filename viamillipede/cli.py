"""The command line: argv and environment -> configuration -> program -> exit status.

The programs are imported only when they run, so that help and refusals come at once.
"""

import os
import sys

from viamillipede import __version__
from viamillipede.config import DoctorConfig, RxConfig, TxConfig
from viamillipede.errors import Exit, UsageError
from viamillipede.places import places
from viamillipede.settings import FIELDS, Said, in_environment, parse, strange_variables
from viamillipede.standard_streams import (
    HINT,
    PROGRAM,
    check_own_end,
    complain,
    hold_descriptors,
    outcome_of,
    print_all,
    write_stderr,
)
from viamillipede.values import labelled
from viamillipede.words import USAGE, Line, translate

COMMAND_LINE = "command line"
_ROLES: dict[type, str] = {TxConfig: "tx", RxConfig: "rx", DoctorConfig: "doctor"}


def main(argv: list[str] | None = None) -> int:
    """Run the program with `argv` (default: the process's own) and return its exit status."""
    return outcome_of(PROGRAM, lambda: _main(sys.argv[1:] if argv is None else argv))


def _main(argv: list[str]) -> int:
    hold_descriptors()
    if (status := _answer(argv)) is not None:
        return status
    config = parse(argv, os.environ, _files())
    speaker = f"{PROGRAM} {_ROLES[type(config)]}"
    for warning in strange_variables(os.environ) if config.verbose else ():
        complain(speaker, warning)
    return outcome_of(speaker, lambda: _run(config), config.json)


def _answer(argv: list[str]) -> int | None:
    """Help or version where they are asked for, and the exit status; None: a transfer is. Raises LocalIOError."""
    if not argv:
        write_stderr(USAGE[USAGE.index("Usage:") : USAGE.index("\n\nOne side")] + "\n" + HINT)
        return int(Exit.USAGE)
    argv = argv[: argv.index("--")] if "--" in argv else argv  # what is behind it is not for us
    if argv[:1] == ["completion"] and not {"--help", "-h", "help"} & set(argv):
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
    if "--show-config" in options:
        return _show_config(translate(argv))
    return None


def _files() -> Said:
    """What the configuration files say. Raises UsageError."""
    if not any(os.path.exists(path) for path in places(os.environ)):
        return {}
    from viamillipede.config_files import read, said

    return said(read(places(os.environ)))


def _show_config(line: Line) -> int:
    """Every word, its value and where that was said. Raises UsageError, LocalIOError."""
    from viamillipede.config_files import show

    in_force = {word: found for word in FIELDS if (found := in_environment(word, os.environ))}
    given = [token[2:].partition("=") for token in line.tokens if token.startswith("--")]
    in_force |= {word: (text or "yes", COMMAND_LINE) for word, _, text in given if word in FIELDS}
    for warning in strange_variables(os.environ):
        complain(PROGRAM, warning)
    in_force = {**_files(), **in_force}
    for word, (text, where) in in_force.items():
        labelled(word if where == COMMAND_LINE else where, FIELDS[word][1], text)
    return print_all(show(in_force))


def _run(config: TxConfig | RxConfig | DoctorConfig) -> int:
    """From start to end; the exit status. Raises Failure."""
    if isinstance(config, DoctorConfig):
        from viamillipede.doctor import examine

        return examine(config)
    check_own_end(config)
    if isinstance(config, TxConfig):
        from viamillipede.aio.tx import transmit

        return transmit(config)
    if config.keep:
        from viamillipede.aio.keeper import keep

        return keep(config)
    from viamillipede.aio.receive import receive

    return receive(config)
