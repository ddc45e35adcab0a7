"""The command line: argv and environment -> configuration -> program -> exit status.

The programs are imported only when they run, so that help and refusals come at once.
"""

import os
import sys
from collections.abc import Mapping

from viamillipede import __version__
from viamillipede.config import DoctorConfig, RxConfig, Secret, TxConfig
from viamillipede.errors import Exit, UsageError
from viamillipede.places import places
from viamillipede.settings import (
    FIELDS,
    KEY_VARIABLE,
    SECRETS,
    AnyConfig,
    Said,
    in_environment,
    parse,
    secret_said,
    strange_variables,
)
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
from viamillipede.words import USAGE, Line, refuse_keys, translate

COMMAND_LINE = "command line"
HIDDEN = ""  # instead of the text, which nobody is shown
_ROLES: dict[type, str] = {TxConfig: "tx", RxConfig: "rx", DoctorConfig: "doctor"}


def main(argv: list[str] | None = None) -> int:
    """Run the program with `argv` (default: the process's own) and return its exit status."""
    return outcome_of(PROGRAM, lambda: _main(sys.argv[1:] if argv is None else argv))


def _main(argv: list[str]) -> int:
    hold_descriptors()
    environ = dict(os.environ)
    os.environ.pop(KEY_VARIABLE, None)  # what this process starts has no use for it
    if (status := _answer(argv, environ)) is not None:
        return status
    if {"to", "from", "far-end"} & set(argv):  # one of them may be a host, or a value
        if (status := _through_ssh(argv, environ)) is not None:
            return status
    config = parse(argv, environ, _files(), _ask)
    speaker = f"{PROGRAM} {_ROLES[type(config)]}"
    for warning in strange_variables(os.environ) if config.verbose else ():
        complain(speaker, warning)
    return outcome_of(speaker, lambda: _run(config), config.json)


def _through_ssh(argv: list[str], environ: Mapping[str, str]) -> int | None:
    """Both ends with one command; None: that is not what is asked for. Raises UsageError."""
    from viamillipede.ssh import words

    if argv == [words.FAR_END]:
        from viamillipede.ssh.far import far_end

        return far_end(environ, _files)
    if not words.is_ours(argv):
        return None
    refuse_keys(argv)
    asked = words.read(argv, environ, _files())
    from viamillipede.ssh.near import run

    return outcome_of(f"{PROGRAM} {asked.verb}", lambda: run(asked), asked.config.json)


def _ask(config: AnyConfig) -> Secret:
    """The phrase, from the terminal, unless there is no use for it. Raises UsageError, LocalIOError."""
    from viamillipede.secret import ask_phrase

    if not isinstance(config, DoctorConfig):
        check_own_end(config)
    return ask_phrase()


def _answer(argv: list[str], environ: Mapping[str, str]) -> int | None:
    """Help or version where they are asked for, and the exit status; None: a transfer is. Raises LocalIOError."""
    if not argv:
        write_stderr(USAGE[USAGE.index("Usage:") : USAGE.index("\n\nOne side")] + "\n" + HINT)
        return int(Exit.USAGE)
    argv = argv[: argv.index("--")] if "--" in argv else argv  # what is behind it is not for us
    if argv[:1] == ["completion"] and not {"--help", "-h", "help"} & set(argv):
        from viamillipede.completion import complete

        return print_all(complete(argv[1:]))
    if argv[:1] == ["key"] and len(argv) <= 2 and not {"--help", "-h", "help"} & set(argv):
        if len(argv) == 2:
            raise UsageError("key FILE goes with a tx, an rx or a doctor; a fresh key: viamillipede key > FILE")
        from viamillipede.secret import print_key

        return print_key()
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
        return _show_config(translate(argv), environ)
    return None


def _files() -> Said:
    """What the configuration files say. Raises UsageError."""
    if not any(os.path.exists(path) for path in places(os.environ)):
        return {}
    from viamillipede.config_files import read, said

    return said(read(places(os.environ)))


def _show_config(line: Line, environ: Mapping[str, str]) -> int:
    """Every word, its value and where that was said; of keys and phrases only their files.

    Raises UsageError, LocalIOError.
    """
    from viamillipede.config_files import show

    said = [token[2:].partition("=") for token in line.tokens if token.startswith("--")]
    given = {word: text if equals else "yes" for word, equals, text in said if word in FIELDS}
    for warning in strange_variables(environ):
        complain(PROGRAM, warning)
    files = _files()
    in_force = {**files, **{word: found for word in FIELDS if (found := in_environment(word, environ))}}
    in_force |= {word: (text, COMMAND_LINE) for word, text in given.items()}
    secret = secret_said(given, environ, files)
    for word in SECRETS:
        if secret is None or secret[0] != word:
            in_force.pop(word, None)
    if secret and secret[2] == KEY_VARIABLE:
        in_force["key"] = (HIDDEN, KEY_VARIABLE)
    for word, (text, where) in in_force.items():
        if text != HIDDEN or where != KEY_VARIABLE:
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
