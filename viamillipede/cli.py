"""The command line: argv and environment -> TxConfig or RxConfig -> program -> exit status.

USAGE is the specification. The words it lists are the words there are: `translate` makes the GNU
option out of a bare word (`threads 16` -> `--threads=16`), and docopt parses the result. The
programs are imported only when they run, so that help and refusals come at once.
"""

import dataclasses
import difflib
import functools
import ipaddress
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from docopt import DocoptExit, docopt

from viamillipede import __version__
from viamillipede.config import (
    CHAOS_KINDS,
    CHECKPHRASE_BYTES,
    FRAME_BYTES_DEFAULT,
    FRAME_BYTES_MAX,
    FRAME_BYTES_MIN,
    THREADS_MAX,
    VERBOSE_MAX,
    WINDOW_BYTES_DEFAULT,
    WINDOW_BYTES_MAX,
    WINDOW_BYTES_MIN,
    Address,
    RxConfig,
    TxConfig,
)
from viamillipede.errors import Exit, Failure, UsageError
from viamillipede.standard_streams import check_own_end, hold_descriptors, print_all, write_stderr
from viamillipede.units import parse_duration_us, parse_int, parse_size, spell_size

USAGE = """\
viamillipede moves one pipe over many TCP connections ("legs"), whole and in order.

Usage:
  viamillipede rx PORT [options]
  viamillipede (tx HOST PORT)... [options]
  viamillipede (--help | --version)

Several tx are several addresses of one receiver, the preferred one first. On rx
port 0 lets the kernel choose one. An option may also be written as a bare word,
anywhere: threads 16, --threads 16 and --threads=16 are the same.

Options:
  --threads=N           tx: legs to keep open, 1 to 1024 [default: 8]
  --checksum            verify every frame (xxh3) before it is delivered; a
                        corrupted one is sent again
  --checksums           the same as checksum
  --checkphrase=WORD    4 bytes that both sides must agree on; a guard against
                        mix-ups, not security
  --window=SIZE         most bytes on their way at a time [default: 64M]
  --frame=SIZE          tx: most bytes in a frame, a quarter of the window at
                        most [default: 1M]
  --bind=ADDRESS        rx: the address to listen on, all unless given;
                        tx: the source address
  --wait=DURATION       how long to wait for the first contact
                        (default: tx 60s, rx for ever)
  --regroup=DURATION    give up when the other side closed every leg and none
                        came back for so long [default: 10s]
  --outage=DURATION     give up when the network was silent for so long
                        [default: 15m]
  --force               rx: write to a terminal all the same
  --verbose=N           0 why it failed, 1 closing line and warnings, 2 session
                        and lost legs, 3 every leg, 5 retransmissions,
                        10 frames, 20 socket operations [default: 1]
  --chaos=N             tx: break a leg after every N socket operations; 0 never
                        [default: 0]
  --chaos-kind=KIND     tx: close, reset, stall, truncate, corrupt (needs
                        checksum), or all in turn [default: close]
  -h, --help            print this
  --version             print the versions of program and wire

Sizes take k M G T (powers of 1024; 64M, 64MB and 64MiB are the same); durations
ms s m h, seconds if bare.
Environment: VIAMILLIPEDE_THREADS=16, VIAMILLIPEDE_CHAOS_KIND=all and so on for
every word; the command line wins.

Exit status:
  0  complete and acknowledged      6  integrity
  1  unexpected                     7  own input or output failed
  2  usage                          8  the other side failed
  3  cannot bind or connect         9  a limit was reached
  4  checkphrase or version refused 129 SIGHUP, 130 SIGINT, 143 SIGTERM
  5  peer lost, worth a retry

Examples:
  viamillipede rx 8834 | tar x -C /restore
  tar c /srv | viamillipede tx host 8834 threads 16
  zfs send tank@now | viamillipede tx 10.0.1.2 8834 tx 10.0.2.2 8834 checksum

Nothing is encrypted: use trusted networks, or ssh -L. See viamillipede(1).
"""

_ALIASES = {"checksums": "checksum"}
_OPERANDS = {"rx": "PORT", "tx": "HOST PORT"}
_FLAG_TEXTS = {"1": True, "yes": True, "true": True, "on": True, "0": False, "no": False, "false": False, "off": False}
_ENVIRONMENT_PREFIX = "VIAMILLIPEDE_"
_PROGRAM = "viamillipede"
_HINT = "Try 'viamillipede --help'.\n"
_ASIDES = ("help", "version")
_CHAOS_MAX = 10**9  # socket operations; more than any stream has
_Value = TypeVar("_Value")


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
        write_stderr(USAGE[USAGE.index("Usage:") : USAGE.index("\n\nSeveral")] + "\n" + _HINT)
        return int(Exit.USAGE)
    try:
        options = translate(argv)  # there they may be bare words
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
    options = translate(argv)
    try:
        arguments = docopt(USAGE, options, default_help=False)
    except DocoptExit:
        raise UsageError("say either rx PORT, once, or tx HOST PORT, once for each address") from None
    given = {word: arguments[f"--{word}"] for word in _FIELDS if _has_option(options, word)}
    if arguments["tx"]:
        operands = zip(arguments["HOST"], arguments["PORT"], strict=True)
        addresses = tuple(_parse_operands("tx", pair) for pair in operands)
        fields, labels = _read_words("tx", given, environ)
        _check_frame(fields, labels)
        _check_chaos(fields, labels)
        return TxConfig(addresses=addresses, **fields)
    fields, _ = _read_words("rx", given, environ)
    return RxConfig(port=_parse_operands("rx", arguments["PORT"]).port, **fields)


def translate(argv: Sequence[str]) -> list[str]:
    """`argv` for docopt: every word as `--word` or `--word=value`, HOST and PORT as they are.

    What follows `tx` and `rx` is taken literally, so a host may be called `threads`. Raises
    UsageError for a word that does not exist, comes twice, or lacks its value.
    """
    translated: list[str] = []
    rest = list(reversed(argv))
    while rest:
        token = rest.pop()
        if token in _OPERANDS:
            names = _OPERANDS[token].split()
            operands = [rest.pop() for _ in names if rest and not re.match("-[^0-9]|-$", rest[-1])]
            if token == "tx" and operands and (one := re.fullmatch(r"(\[.*\]|[^:]+):([0-9]+)", operands[0])):
                raise UsageError(f"write host and port as two words: tx {one[1]} {one[2]}")
            if len(operands) < len(names):
                raise UsageError(f"{token!r} needs {_OPERANDS[token]} after it")
            _parse_operands(token, operands)  # now: a PORT left out would blame the next word
            translated += [token, *operands]
            continue
        if token in _ASIDES:
            translated.append(f"--{token}")
            continue
        name, equals, value = token[2:].partition("=") if token.startswith("--") else (token, "", "")
        if name not in _words():
            raise UsageError(_unknown(token))
        word = _ALIASES.get(name, name)
        if _has_option(translated, word):
            raise UsageError(f"{word!r} was given twice")
        if not _words()[name]:
            if equals:
                raise UsageError(f"{name!r} takes no value")
            translated.append(f"--{word}")
            continue
        if not equals and not rest:
            raise UsageError(f"{name!r} needs a value after it")
        translated.append(f"--{word}={value if equals else rest.pop()}")
    return translated


def _has_option(options: Sequence[str], word: str) -> bool:
    return any(option.partition("=")[0] == f"--{word}" for option in options)


@functools.cache
def _words() -> dict[str, bool]:
    """Every word of USAGE, and whether it takes a value; docopt says None or a default where it does."""
    options = docopt(USAGE, ["rx", "0"], default_help=False)
    names = {name[2:]: value for name, value in options.items() if name.startswith("--")}
    return {name: not isinstance(value, bool) for name, value in names.items() if name not in _ASIDES}


def _unknown(token: str) -> str:
    """The message for a word that does not exist, with the word it was probably meant to be."""
    name, equals, value = token.lstrip("-").partition("=")
    if equals and not token.startswith("-") and _words().get(name):
        return f"unknown word {token!r}; write '{name} {value}' or '--{token}'"
    close = _closest(name.lower(), [*_words(), *_OPERANDS, *_ASIDES])
    dashed = token.startswith("-") and close not in _OPERANDS
    return f"unknown word {token!r}" + (f"; did you mean '{'--' if dashed else ''}{close}'?" if close else "")


def _closest(name: str, names: Sequence[str]) -> str:
    """The one of `names` that was probably meant, or ""."""
    close = difflib.get_close_matches(name, names, n=1) if len(name) > 1 else []
    return close[0] if close else ""


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
    for word, (field, convert) in _FIELDS.items():
        if word in given:
            if field not in applicable:
                raise UsageError(f"{word!r} is a word of {'rx' if role == 'tx' else 'tx'}, not of {role}")
            label, text = word, "yes" if given[word] is True else given[word]
        else:
            variables = [_variable(name) for name in (word, *(a for a, meant in _ALIASES.items() if meant == word))]
            label = next((variable for variable in variables if environ.get(variable)), "")
            if not label or field not in applicable:
                continue
            text = environ[label]
        values[field] = _labelled(label, convert, text)
        labels[field] = label
    return values, labels


def _variable(word: str) -> str:
    return _ENVIRONMENT_PREFIX + word.upper().replace("-", "_")


def strange_variables(environ: Mapping[str, str]) -> list[str]:
    """A warning for each variable that looks like one of ours and is none, an empty one excepted."""
    known = {name.upper().replace("-", "_"): _variable(name) for name in (*_words(), "debug")}
    strange = sorted(name for name in environ if environ[name] and name.startswith(_ENVIRONMENT_PREFIX))
    meant = [(name, _closest(name.removeprefix(_ENVIRONMENT_PREFIX), [*known])) for name in strange]
    return [
        f"no word has the variable {name}" + (f"; did you mean {known[close]}?" if close else "")
        for name, close in meant
        if name not in known.values()
    ]


def _labelled(label: str, convert: Callable[[str], _Value], text: str) -> _Value:
    """`convert(text)`, its UsageError preceded by where the text comes from."""
    try:
        return convert(text)
    except UsageError as error:
        raise UsageError(f"{label}: {error}") from None


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


# The values of words. --------------------------------------------------------------------------
def _parse_operands(role: str, operands: Sequence[str]) -> Address:
    """HOST and PORT of one `tx`, or PORT of `rx`, where 0 lets the kernel choose. Raises UsageError."""
    *hosts, port = operands
    host = _labelled("tx HOST", _parse_host, hosts[0]) if hosts else ""
    return Address(host, _labelled(f"{role} PORT", lambda text: parse_int(text, 1 if hosts else 0, 65535), port))


def _parse_host(text: str) -> str:
    """A name or a literal address, without the brackets that IPv6 may have. Raises UsageError."""
    bracketed = text.startswith("[") and text.endswith("]")
    host = text[1:-1] if bracketed else text
    if not host or host.strip() != host:
        raise UsageError(f"{text!r} is not a host name or an address")
    if bracketed or ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise UsageError(f"{text!r} is not an IPv6 address; host and port are two words") from None
    return host


def _parse_flag(text: str) -> bool:
    if text.lower() not in _FLAG_TEXTS:
        raise UsageError(f"{text!r} is neither yes nor no; write one of {', '.join(_FLAG_TEXTS)}")
    return _FLAG_TEXTS[text.lower()]


def _parse_checkphrase(text: str) -> bytes:
    phrase = os.fsencode(text)
    if len(phrase) != CHECKPHRASE_BYTES:
        raise UsageError(f"{text!r} is {len(phrase)} bytes long; the phrase has exactly {CHECKPHRASE_BYTES}")
    return phrase


def _parse_chaos_kind(text: str) -> str:
    if text not in CHAOS_KINDS:
        raise UsageError(f"{text!r} is none of {', '.join(CHAOS_KINDS)}")
    return text


# Each word's field in TxConfig or RxConfig, and how its text is read. Roles follow from the fields.
_FIELDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "threads": ("threads", lambda text: parse_int(text, 1, THREADS_MAX)),
    "checksum": ("checksum", _parse_flag),
    "checkphrase": ("checkphrase", _parse_checkphrase),
    "window": ("window_bytes", lambda text: parse_size(text, WINDOW_BYTES_MIN, WINDOW_BYTES_MAX)),
    "frame": ("frame_bytes", lambda text: parse_size(text, FRAME_BYTES_MIN, FRAME_BYTES_MAX)),
    "bind": ("bind", _parse_host),
    "wait": ("wait_us", parse_duration_us),
    "regroup": ("regroup_us", parse_duration_us),
    "outage": ("outage_us", parse_duration_us),
    "force": ("force", _parse_flag),
    "verbose": ("verbose", lambda text: parse_int(text, 0, VERBOSE_MAX)),
    "chaos": ("chaos", lambda text: parse_int(text, 0, _CHAOS_MAX)),
    "chaos-kind": ("chaos_kind", _parse_chaos_kind),
}
