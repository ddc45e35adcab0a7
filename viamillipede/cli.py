"""The command line: argv and environment -> TxConfig or RxConfig -> program -> exit status.

USAGE, in `words`, is the specification, and docopt parses by it. The programs are imported only
when they run, so that help and refusals come at once.
"""

import dataclasses
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from docopt import DocoptExit, docopt

from viamillipede import __version__
from viamillipede.config import (
    FRAME_BYTES_DEFAULT,
    FRAME_BYTES_MAX,
    FRAME_BYTES_MIN,
    THREADS_MAX,
    VERBOSE_MAX,
    WINDOW_BYTES_DEFAULT,
    WINDOW_BYTES_MAX,
    WINDOW_BYTES_MIN,
    RxConfig,
    TxConfig,
)
from viamillipede.errors import Exit, Failure, UsageError
from viamillipede.standard_streams import check_own_end, hold_descriptors, print_all, write_stderr
from viamillipede.units import parse_duration_us, parse_int, parse_size, spell_size
from viamillipede.values import (
    LISTEN,
    labelled,
    parse_chaos_kind,
    parse_checkphrase,
    parse_congestion,
    parse_flag,
    parse_host,
    parse_limit,
    parse_threads,
    read_operands,
)
from viamillipede.words import ALIASES, TERMS, USAGE, closest, translate

_ENVIRONMENT_PREFIX = "VIAMILLIPEDE_"
_PROGRAM = "viamillipede"
_HINT = "Try 'viamillipede --help'.\n"
_FORMS = "say one of: rx PORT; tx listen PORT; tx HOST PORT, or rx HOST PORT, once for each path"
_CHAOS_MAX = 10**9  # socket operations; more than any stream has


def main(argv: list[str] | None = None) -> int:
    """Run the program with `argv` (default: the process's own) and return its exit status."""
    speaker = _PROGRAM
    try:
        hold_descriptors()
        arguments = sys.argv[1:] if argv is None else argv
        if (status := _answer(arguments)) is not None:
            return status
        config = parse(arguments, os.environ)
        speaker = f"{_PROGRAM} {'tx' if isinstance(config, TxConfig) else 'rx'}"
        for warning in strange_variables(os.environ) if config.verbose else ():
            _complain(speaker, warning)
        check_own_end(config)
        return _transfer(config)
    except UsageError as error:
        _complain(_PROGRAM, str(error))
        write_stderr(_HINT)
        return int(error.exit_status)
    except Failure as failure:
        _complain(speaker, str(failure))
        return int(failure.exit_status)
    except KeyboardInterrupt:
        return int(Exit.INTERRUPTED)
    except Exception as error:
        if os.environ.get("VIAMILLIPEDE_DEBUG") == "1":
            write_stderr(traceback.format_exc())
        what = f"{type(error).__name__}: {error}"
        _complain(speaker, f"unexpected {what} (a bug; please report it with VIAMILLIPEDE_DEBUG=1)")
        return int(Exit.UNEXPECTED)


def _answer(argv: Sequence[str]) -> int | None:
    """Help or version where they are asked for, and the exit status; None: a transfer is. Raises LocalIOError."""
    if not argv:
        write_stderr(USAGE[USAGE.index("Usage:") : USAGE.index("\n\nOne side")] + "\n" + _HINT)
        return int(Exit.USAGE)
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


def _complain(speaker: str, message: str) -> None:
    """One line on standard error that says who speaks."""
    write_stderr(f"{speaker}: {' '.join(message.splitlines())}\n")


def _transfer(config: TxConfig | RxConfig) -> int:
    """From start to end; the exit status. Raises Failure."""
    if isinstance(config, TxConfig):
        from viamillipede.aio.tx import transmit

        return transmit(config)
    from viamillipede.aio.rx import receive

    return receive(config)


# Words -> options -> Config. -------------------------------------------------------------------
def parse(argv: Sequence[str], environ: Mapping[str, str]) -> TxConfig | RxConfig:
    """What command line and environment ask for. Raises UsageError."""
    line = translate(argv)
    try:
        arguments = docopt(USAGE, line.tokens, default_help=False)
    except DocoptExit:
        raise UsageError(_FORMS) from None
    if LISTEN in arguments["HOST"]:  # tx listen PORT beside another tx; alone it is no HOST
        raise UsageError(_FORMS)
    given = {word: arguments[f"--{word}"] for word in FIELDS if line.has(word)}
    role = "tx" if arguments["tx"] else "rx"
    fields, labels = _read_words(role, given, environ)
    if len(line.paths) > THREADS_MAX:
        raise UsageError(f"{len(line.paths)} paths are too many, at most {THREADS_MAX}")
    if line.paths:
        said = zip(arguments["HOST"], arguments["PORT"], line.paths, strict=True)
        fields["addresses"] = tuple(read_operands(role, (host, port), terms) for host, port, terms in said)
    else:
        fields["port"] = read_operands(role, arguments["PORT"]).port
    if role == "rx":
        return RxConfig(**fields)
    _check_frame(fields, labels)
    _check_chaos(fields, labels)
    return TxConfig(**fields)


def _read_words(
    role: str, given: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The words as fields of the role's Config, and where each field was said: a word or a variable.

    The command line wins over the environment. A variable of the other role is passed over, so that
    one profile does for both. Raises UsageError.
    """
    applicable = {field.name for field in dataclasses.fields(TxConfig if role == "tx" else RxConfig)}
    values: dict[str, Any] = {}
    labels: dict[str, str] = {}
    for word, (field, convert) in FIELDS.items():
        if word in given:
            if field not in applicable:
                raise UsageError(f"{word!r} is a word of {'rx' if role == 'tx' else 'tx'}, not of {role}")
            label, text = word, "yes" if given[word] is True else given[word]
        else:
            variables = [_variable(name) for name in (word, *(a for a, meant in ALIASES.items() if meant == word))]
            label = next((variable for variable in variables if environ.get(variable)), "")
            if not label or field not in applicable:
                continue
            text = environ[label]
        values[field] = labelled(label, convert, text)
        labels[field] = label
    return values, labels


def _variable(word: str) -> str:
    return _ENVIRONMENT_PREFIX + word.upper().replace("-", "_")


def strange_variables(environ: Mapping[str, str]) -> list[str]:
    """A warning for each variable that looks like one of ours and is none, an empty one excepted."""
    known = [_variable(name) for name in (*FIELDS, *ALIASES, "debug")]
    of_paths = {_variable(name): name for name in TERMS if name not in FIELDS}
    texts = [variable.removeprefix(_ENVIRONMENT_PREFIX) for variable in (*known, *of_paths)]
    warnings = []
    for name in sorted(name for name in environ if environ[name] and name.startswith(_ENVIRONMENT_PREFIX)):
        if name in known:
            continue
        close = closest(name.removeprefix(_ENVIRONMENT_PREFIX), texts)
        if word := of_paths.get(_ENVIRONMENT_PREFIX + close):
            warnings.append(f"{name} means nothing; say '{word} {TERMS[word]}' behind the HOST PORT that it is for")
        else:
            meant = f"; did you mean {_ENVIRONMENT_PREFIX}{close}?" if close else ""
            warnings.append(f"no word has the variable {name}{meant}")
    return warnings


def _check_frame(fields: dict[str, Any], labels: Mapping[str, str]) -> None:
    """A few frames must fit in the window: refuse a frame that is too large, shrink the default."""
    limit = fields.get("window_bytes", WINDOW_BYTES_DEFAULT) // 4
    if "frame_bytes" not in fields:
        fields["frame_bytes"] = min(FRAME_BYTES_DEFAULT, limit)
    elif fields["frame_bytes"] > limit:
        size = spell_size(fields["frame_bytes"])
        raise UsageError(f"{labels['frame_bytes']}: {size} is more than a quarter of the window, {spell_size(limit)}")


def _check_chaos(fields: Mapping[str, Any], labels: Mapping[str, str]) -> None:
    """Refuse corruption that nothing would notice, and a kind of chaos without chaos."""
    label = labels.get("chaos_kind")
    if label == "chaos-kind" and "chaos" not in fields:
        raise UsageError("chaos-kind: say as well how often, with chaos N")
    if fields.get("chaos") and fields.get("chaos_kind") == "corrupt" and not fields.get("checksum"):
        raise UsageError(f"{label}: corrupt needs checksum, or the corruption would be delivered")


# Each word's field in TxConfig or RxConfig, and how its text is read. Roles follow from the fields.
FIELDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "limit": ("limit_bytes", parse_limit),
    "threads": ("threads", parse_threads),
    "congestion": ("congestion", parse_congestion),
    "checksum": ("checksum", parse_flag),
    "checkphrase": ("checkphrase", parse_checkphrase),
    "window": ("window_bytes", lambda text: parse_size(text, WINDOW_BYTES_MIN, WINDOW_BYTES_MAX)),
    "frame": ("frame_bytes", lambda text: parse_size(text, FRAME_BYTES_MIN, FRAME_BYTES_MAX)),
    "bind": ("bind", parse_host),
    "wait": ("wait_us", parse_duration_us),
    "regroup": ("regroup_us", parse_duration_us),
    "outage": ("outage_us", parse_duration_us),
    "force": ("force", parse_flag),
    "verbose": ("verbose", lambda text: parse_int(text, 0, VERBOSE_MAX)),
    "chaos": ("chaos", lambda text: parse_int(text, 0, _CHAOS_MAX)),
    "chaos-kind": ("chaos_kind", parse_chaos_kind),
}
