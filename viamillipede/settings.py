"""What is asked for, and where: command line, environment, files -> TxConfig, RxConfig or DoctorConfig.

USAGE, in `words`, is the specification, and docopt parses by it.
"""

import dataclasses
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from docopt import DocoptExit, docopt

from viamillipede.config import (
    FRAME_BYTES_DEFAULT,
    FRAME_BYTES_MAX,
    FRAME_BYTES_MIN,
    INTERVAL_US_MIN,
    STREAMS_MAX,
    THREADS_MAX,
    VERBOSE_MAX,
    WINDOW_BYTES_DEFAULT,
    WINDOW_BYTES_MAX,
    WINDOW_BYTES_MIN,
    DoctorConfig,
    RxConfig,
    Secret,
    TxConfig,
)
from viamillipede.errors import UsageError
from viamillipede.units import SIZE_MAX, parse_duration_us, parse_int, parse_size, spell_size
from viamillipede.values import (
    LISTEN,
    labelled,
    parse_chaos_kind,
    parse_checkphrase,
    parse_congestion,
    parse_digest,
    parse_flag,
    parse_host,
    parse_interval_us,
    parse_limit,
    parse_name,
    parse_names,
    parse_secret_place,
    parse_serving_address,
    parse_text,
    parse_threads,
    read_operands,
)
from viamillipede.words import ALIASES, DOCTOR, TERMS, USAGE, Line, closest, translate

ENVIRONMENT_PREFIX = "VIAMILLIPEDE_"
KEY_VARIABLE = f"{ENVIRONMENT_PREFIX}KEY"  # the key itself
SECRETS = ("key", "phrase")
ASK = "ask"  # a phrase that is typed
FORMS = "say one of: rx PORT; tx listen PORT; tx HOST PORT, or rx HOST PORT, once for each path; doctor"
_SHELL_LINE = re.compile(r"[\s|;&<>$]")  # what no command has in its name
_CHAOS_MAX = 10**9  # socket operations; more than any stream has
# Variables all the same: a command may be viamillipede again, and `to` and `from` have words of their own.
_NO_WORDS = ("debug", "session", "peer", "ssh-command", "far-command")
_VARIABLES = {"key": f"{KEY_VARIABLE}_FILE"}  # that are not named as the others
_CONFIGS = {"tx": TxConfig, "rx": RxConfig, DOCTOR: DoctorConfig}

Said = Mapping[str, tuple[str, str]]  # by word: its text, and where it was said
AnyConfig = TxConfig | RxConfig | DoctorConfig


def parse(
    argv: Sequence[str],
    environ: Mapping[str, str],
    files: Said | None = None,
    ask: Callable[[AnyConfig], Secret] | None = None,
) -> AnyConfig:
    """What command line, environment and configuration files ask for; `ask`: for a phrase that is to be typed.

    The file of a key or a phrase is read, and `ask` called, when nothing else can be wrong. Raises UsageError.
    """
    line = translate(argv)
    try:
        arguments = docopt(USAGE, [*line.tokens, *(["--", "COMMAND"] if line.command else [])], default_help=False)
    except DocoptExit:
        raise UsageError(FORMS) from None
    if LISTEN in arguments["HOST"]:  # tx listen PORT beside another tx; alone it is no HOST
        raise UsageError(FORMS)
    role = DOCTOR if arguments[DOCTOR] else "tx" if arguments["tx"] else "rx"
    given = said(line, arguments)
    secret = secret_said(given, environ, files or {})
    config = _configure(role, line, arguments, *_read_words(role, given, environ, files or {}))
    if secret is None or (secret[2] not in given and isinstance(config, DoctorConfig) and not config.address):
        return config  # a doctor that talks to nobody need not ask for a phrase
    return _with_secret(config, *secret, ask)


def _configure(
    role: str, line: Line, arguments: Mapping[str, Any], fields: dict[str, Any], labels: Mapping[str, str]
) -> AnyConfig:
    """The configuration, but for secrets. Raises UsageError."""
    if role == DOCTOR:
        operands = (*arguments["HOST"], *arguments["PORT"])
        return DoctorConfig(**fields, address=read_operands(DOCTOR, operands) if operands else None)
    if len(line.paths) > THREADS_MAX:
        raise UsageError(f"{len(line.paths)} paths are too many, at most {THREADS_MAX}")
    if line.paths:
        operands_of = zip(arguments["HOST"], arguments["PORT"], line.paths, strict=True)
        fields["addresses"] = tuple(read_operands(role, (host, port), terms) for host, port, terms in operands_of)
    else:
        fields["port"] = read_operands(role, arguments["PORT"]).port
    fields["command"] = check_command(line.command)
    _check_views(fields, labels)
    if role == "rx":
        _check_keep(fields, labels)
        return RxConfig(**fields)
    _check_frame(fields, labels)
    _check_chaos(fields, labels)
    return TxConfig(**fields)


def said(line: Line, arguments: Mapping[str, Any]) -> dict[str, str]:
    """The words of the command line and their texts."""
    given = {word: arguments[f"--{word}"] for word in FIELDS if line.has(word)}
    return {word: "yes" if value is True else value for word, value in given.items()}


def _read_words(
    role: str, given: Mapping[str, str], environ: Mapping[str, str], files: Said
) -> tuple[dict[str, Any], dict[str, str]]:
    """The words as fields of the role's Config, and where each field was said: a word, a variable or a file.

    The command line wins over the environment, and that over the files. What these say for the other role
    is passed over, so that one profile does for both. Raises UsageError.
    """
    applicable = {field.name for field in dataclasses.fields(_CONFIGS[role])}
    values: dict[str, Any] = {}
    labels: dict[str, str] = {}
    for word, (field, convert) in FIELDS.items():
        if word in SECRETS:
            continue
        if word in given:
            if field not in applicable:
                raise UsageError(_not_of(word, role))
            label, text = word, given[word]
        else:
            found = in_environment(word, environ) or files.get(word)
            if found is None or field not in applicable:
                continue
            text, label = found
        values[field] = labelled(label, convert, text)
        labels[field] = label
    return values, labels


def _not_of(word: str, role: str) -> str:
    """Why `word` cannot be said to `role`."""
    if role == DOCTOR:
        return f"{word!r} is no word of {role}"
    return f"{word!r} is a word of {'rx' if role == 'tx' else 'tx'}, not of {role}"


def in_environment(word: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """The text that the environment has for `word`, and the variable; None if it has none."""
    variables = [_variable(name) for name in (word, *(a for a, meant in ALIASES.items() if meant == word))]
    variable = next((variable for variable in variables if environ.get(variable)), None)
    return None if variable is None else (environ[variable], variable)


def secret_said(given: Mapping[str, str], environ: Mapping[str, str], files: Said) -> tuple[str, str, str] | None:
    """The key or the phrase that is in force: its word, its text, and where that was said.

    Of the command line, the environment and the files the first one that has any decides. Raises UsageError for two.
    """
    variables = [(word, *found) for word in SECRETS if (found := in_environment(word, environ))]
    if text := environ.get(KEY_VARIABLE):
        variables.append(("key", text, KEY_VARIABLE))
    words = [(word, given[word], word) for word in SECRETS if word in given]
    for secrets in (words, variables, [(word, *files[word]) for word in SECRETS if word in files]):
        if len(secrets) > 1:
            raise UsageError(f"{secrets[0][2]}: not together with {secrets[1][2]}; say one of them")
        if secrets:
            return secrets[0]
    return None


def _with_secret(
    config: AnyConfig, word: str, text: str, label: str, ask: Callable[[AnyConfig], Secret] | None
) -> AnyConfig:
    """The configuration with its key or its phrase. Raises UsageError."""
    from viamillipede.secret import ask_phrase, parse_key_lines, read_key_file, read_phrase_file

    if label == KEY_VARIABLE:
        found = labelled(label, lambda text: parse_key_lines(text.encode("utf-8", "replace")), text)
    elif word == "phrase" and text == ASK:
        found = ask(config) if ask else ask_phrase()
    else:
        path = os.path.expanduser(labelled(label, parse_secret_place, text))
        found = labelled(label, read_key_file if word == "key" else read_phrase_file, path)
    field: dict[str, Any] = {word: found}
    return dataclasses.replace(config, **field)


def _variable(word: str) -> str:
    return _VARIABLES.get(word) or ENVIRONMENT_PREFIX + word.upper().replace("-", "_")


def strange_variables(environ: Mapping[str, str]) -> list[str]:
    """A warning for each variable that looks like one of ours and is none, an empty one excepted."""
    known = [KEY_VARIABLE, *(_variable(name) for name in (*FIELDS, *ALIASES, *_NO_WORDS))]
    of_paths = {_variable(name): name for name in TERMS if name not in FIELDS}
    texts = [variable.removeprefix(ENVIRONMENT_PREFIX) for variable in (*known, *of_paths)]
    warnings = []
    for name in sorted(name for name in environ if environ[name] and name.startswith(ENVIRONMENT_PREFIX)):
        if name in known:
            continue
        close = closest(name.removeprefix(ENVIRONMENT_PREFIX), texts)
        if word := of_paths.get(ENVIRONMENT_PREFIX + close):
            warnings.append(f"{name} means nothing; say '{word} {TERMS[word]}' behind the HOST PORT that it is for")
        else:
            meant = f"; did you mean {ENVIRONMENT_PREFIX}{close}?" if close else ""
            warnings.append(f"no word has the variable {name}{meant}")
    return warnings


def check_command(command: Sequence[str]) -> tuple[str, ...]:
    """The command, which must be there to be run; none is fine. Raises UsageError."""
    if command and shutil.which(command[0]) is None:
        is_line = _SHELL_LINE.search(command[0])
        hint = "; a line for the shell is written: -- bash -o pipefail -c 'LINE'" if is_line else ""
        raise UsageError(f"there is no command {command[0]!r} that can be run{hint}")
    return tuple(command)


def _check_views(fields: Mapping[str, Any], labels: Mapping[str, str]) -> None:
    """Refuse two that would write over each other. Raises UsageError."""
    if fields.get("dashboard") and fields.get("json"):
        raise UsageError(f"{labels['dashboard']}: not together with {labels['json']}; both are for standard error")


def _check_keep(fields: Mapping[str, Any], labels: Mapping[str, str]) -> None:
    """Refuse to keep on serving without something to serve with, and several streams without keep."""
    keep = fields.get("keep", False)
    if keep and fields.get("addresses"):
        raise UsageError(f"{labels['keep']}: only an rx that listens keeps on: rx PORT keep -- COMMAND")
    if keep and not fields["command"]:
        raise UsageError(f"{labels['keep']}: a command is needed, to be run for each stream: rx PORT keep -- COMMAND")
    if keep and fields.get("dashboard"):
        raise UsageError(f"{labels['dashboard']}: not together with keep, whose streams are processes of their own")
    if fields.get("streams", 1) > 1 and not keep and labels["streams"] == "streams":
        raise UsageError("streams: say keep as well; without it rx serves one stream and exits")


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
    "key": ("key", parse_secret_place),
    "phrase": ("phrase", parse_secret_place),
    "checkphrase": ("checkphrase", parse_checkphrase),
    "window": ("window_bytes", lambda text: parse_size(text, WINDOW_BYTES_MIN, WINDOW_BYTES_MAX)),
    "frame": ("frame_bytes", lambda text: parse_size(text, FRAME_BYTES_MIN, FRAME_BYTES_MAX)),
    "bind": ("bind", parse_host),
    "wait": ("wait_us", parse_duration_us),
    "regroup": ("regroup_us", parse_duration_us),
    "outage": ("outage_us", parse_duration_us),
    "digest": ("digest", parse_digest),
    "name": ("name", parse_name),
    "names": ("names", parse_names),
    "keep": ("keep", parse_flag),
    "streams": ("streams", lambda text: parse_int(text, 1, STREAMS_MAX)),
    "force": ("force", parse_flag),
    "progress": ("progress", parse_flag),
    "interval": ("interval_us", lambda text: parse_interval_us(text, INTERVAL_US_MIN)),
    "size": ("size_bytes", lambda text: parse_size(text, 1, SIZE_MAX)),
    "dashboard": ("dashboard", parse_flag),
    "json": ("json", parse_flag),
    "metrics": ("metrics", parse_serving_address),
    "log": ("log", parse_text),
    "syslog": ("syslog", parse_flag),
    "verbose": ("verbose", lambda text: parse_int(text, 0, VERBOSE_MAX)),
    "chaos": ("chaos", lambda text: parse_int(text, 0, _CHAOS_MAX)),
    "chaos-kind": ("chaos_kind", parse_chaos_kind),
}
