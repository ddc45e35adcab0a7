"""The words of `to` and `from`: what is said to ssh and about the other host, and what is left for tx and rx.

A command line is taken apart into the one that tx or rx would have here, with paths whose ports are not known yet, and
the words that concern the far end, as text: they are read over there, and here only to be checked. What the environment
says of them counts too; files are those of each host.
"""

import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from viamillipede.config import DIRECT_WAIT_US_DEFAULT, S_US, Address, RxConfig, TxConfig
from viamillipede.errors import UsageError
from viamillipede.settings import FIELDS, Said, in_environment, parse
from viamillipede.units import parse_int
from viamillipede.values import labelled, parse_host
from viamillipede.words import ALIASES, TERMS, known_words

TO, FROM, ALSO = "to", "from", "also"
VERBS = {TO: ("tx", "rx"), FROM: ("rx", "tx")}  # what we are then, and what the far end is
FAR_END = "far-end"
COMMAND_LINE = "command line"
FAR_COMMAND, FAR_PYTHON = "viamillipede", "python3"  # what is run over there, the second one with bring
_NO_WORDS = {  # why they cannot be said here; where files and variables say them, these mean other transfers
    **dict.fromkeys(("key", "phrase"), "each session has a fresh key of its own"),
    **dict.fromkeys(("keep", "streams", "names"), "there is one stream, and it is ours"),
}
_SHOWN = ("force", "progress", "interval", "dashboard", "json")  # the far end has no terminal, and its stderr is ours
_NEAR_ONLY = (*_SHOWN, "bind", "metrics", "log", "syslog", "verbose", "wait")
_OTHERS = ("tx", "rx", "doctor", "completion", "listen")
_HOST, _PORT = "dest", 1  # in the place of those that are not known yet


@dataclass(frozen=True, slots=True)
class Word:
    """A word of our own. metavar "": it takes no value."""

    name: str
    metavar: str
    summary: str


WORDS = (
    Word(ALSO, "ADDRESS", "another address of the host, HOST or HOST:PORT"),
    Word("port", "RANGE", "the port over there, N or LOW-HIGH"),
    Word("tunnel", "", "the legs go through ssh as well"),
    Word("ssh-command", "COMMAND", "what is run instead of ssh"),
    Word("far-command", "COMMAND", "what is run over there instead of viamillipede"),
    Word("bring", "", "send this program along, where it is a zipapp"),
    Word("bring-file", "FILE", "send this zipapp along"),
)
_METAVARS = {word.name: word.metavar for word in WORDS}
VARIABLES = ("ssh-command", "far-command")  # the words of ours that the environment may say
_KEY_VARIABLES = ("VIAMILLIPEDE_KEY", "VIAMILLIPEDE_KEY_FILE", "VIAMILLIPEDE_PHRASE")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be done. `config`: ours, its addresses still without ports, except those in `fixed`."""

    verb: str
    dest: str
    command: tuple[str, ...]
    config: TxConfig | RxConfig
    far_words: dict[str, str]
    fixed: tuple[int, ...]  # for each address its port, 0: the far end's
    ports: tuple[int, int] = (0, 0)  # to listen on over there; 0: the kernel chooses
    tunnel: bool = False
    ssh: tuple[str, ...] = ("ssh",)
    far_command: str = ""
    bring: bool = False
    bring_file: str = ""
    shown: str = ""  # what is to be printed, and no more be done

    @property
    def far_role(self) -> str:
        """tx or rx."""
        return VERBS[self.verb][1]


@dataclass(slots=True)
class _Line:
    """A command line in parts. `paths`: what is said of each, as tx or rx have it; `before`: what before the first."""

    verb: str = ""
    dest: str = ""
    before: list[str] = field(default_factory=list)
    paths: list[list[str]] = field(default_factory=list)
    also: list[str] = field(default_factory=list)
    own: dict[str, str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    shows: bool = False

    def where(self) -> list[str]:
        """Where what is said now belongs."""
        return self.paths[-1] if self.paths else self.before


def is_ours(argv: Sequence[str]) -> bool:
    """Whether `to` or `from` stands where tx, rx or another verb would."""
    return next((token in VERBS for token in _words(argv) if token in VERBS or token in _OTHERS), False)


def _words(argv: Sequence[str]) -> Iterator[str]:
    """The tokens that are no values, up to --."""
    rest = list(reversed(argv))
    while rest and (token := rest.pop()) != "--":
        yield token
        name = token.removeprefix("--")
        if rest and (_METAVARS.get(name) or known_words().get(name)):
            rest.pop()


def is_word_of(verb: str, word: str, role: str) -> bool:
    """Whether `word`, which is for `role` alone ("": both), may be said behind `verb`."""
    if word in _NO_WORDS or (verb == FROM and word == "weight"):  # who sends decides on shares
        return False
    return verb == FROM or role in ("", VERBS[verb][0])


def read(argv: Sequence[str], environ: Mapping[str, str], files: Said) -> Asked:
    """What the command line, the environment and our files ask for. Raises UsageError."""
    line = _take_apart(argv)
    if not line.command and not line.shows:
        raise UsageError(f"{line.verb!r} needs a command, to be run over there: {_form(line.verb)}")
    near, far = VERBS[line.verb]
    own_environ, own_files = _without(_NO_WORDS, environ, files)
    far_words = _far_words(line, own_environ)
    tokens = list(line.before)
    for terms in line.paths:
        tokens += [near, _HOST, str(_PORT), *terms]
    try:
        config = parse(tokens, own_environ, own_files)
    except UsageError as error:
        raise UsageError(str(error).replace(f"{near} {_HOST} {_PORT}", f"{line.verb} {line.dest}")) from None
    assert isinstance(config, TxConfig | RxConfig)
    read_far(far, far_words, {}, {})  # what cannot be shall be said before ssh asks for a password
    said_wait = "wait" in line.said or in_environment("wait", own_environ) or "wait" in own_files
    if not said_wait:
        config = replace(config, wait_us=DIRECT_WAIT_US_DEFAULT)
    hosts = [_also(text) for text in line.also]
    addresses = tuple(
        replace(address, host=host) for address, (host, _) in zip(config.addresses[1:], hosts, strict=True)
    )
    asked = Asked(
        line.verb, line.dest, tuple(line.command),
        replace(config, addresses=(config.addresses[0], *addresses)),
        far_words, (0, *(port for _, port in hosts)),
    )  # fmt: skip
    asked = _with_own(asked, dict(line.own), environ)
    return replace(asked, shown=_shown(line, own_environ, own_files)) if line.shows else asked


def _shown(line: _Line, environ: Mapping[str, str], files: Said) -> str:
    """What is in force here; all of it has been checked."""
    from viamillipede.ssh.show import shown

    own = {name: (text, COMMAND_LINE) for name, text in line.own.items()}
    for name in VARIABLES:
        if name not in line.own and (text := environ.get(_variable(name))):
            own[name] = (text, _variable(name))
    own |= {f"{ALSO} {text}": ("", COMMAND_LINE) for text in line.also}
    unsaid = {word.name: (word.metavar or "no", "not said") for word in WORDS if word.name not in own}
    if line.also:
        del unsaid[ALSO]
    in_force = {"wait": (f"{DIRECT_WAIT_US_DEFAULT // S_US}s", f"default of {line.verb}"), **files}
    in_force |= {word: found for word in FIELDS if (found := in_environment(word, environ))}
    in_force |= {word: (text, COMMAND_LINE) for word, text in line.said.items() if word in FIELDS}
    return shown(own | unsaid, in_force, _NO_WORDS)


def read_far(role: str, words: Mapping[str, str], environ: Mapping[str, str], files: Said) -> TxConfig | RxConfig:
    """What the far end's Config is, its port and its command aside. Raises UsageError."""
    tokens = [f"--{word}={text}" for word, text in words.items() if known_words().get(word)]
    tokens += [f"--{word}" for word, text in words.items() if known_words().get(word) is False and text == "yes"]
    if unknown := [word for word in words if word not in known_words()]:
        raise UsageError(f"unknown words: {', '.join(unknown)}")
    verb = ["rx", "0"] if role == "rx" else ["tx", "listen", "0"]
    config = parse([*tokens, *verb], *_without((*_NO_WORDS, *_SHOWN), environ, files))
    assert isinstance(config, TxConfig | RxConfig)
    return config


def _without(words: Collection[str], environ: Mapping[str, str], files: Said) -> tuple[dict[str, str], Said]:
    """Environment and files without what they say of these words."""
    names = [_variable(word) for word in words]
    kept = {name: text for name, text in environ.items() if name not in (*names, *_KEY_VARIABLES)}
    return kept, {word: found for word, found in files.items() if word not in words}


def _variable(word: str) -> str:
    return f"VIAMILLIPEDE_{word.upper().replace('-', '_')}"


def _form(verb: str) -> str:
    return f"viamillipede {verb} DEST -- COMMAND"


def _take_apart(argv: Sequence[str]) -> _Line:
    line = _Line()
    rest = list(reversed(argv))
    while rest:
        token = rest.pop()
        if token == "--":
            line.command = rest[::-1]
            break
        if token in VERBS:
            if line.verb:
                raise UsageError(f"{token!r} does not go with '{line.verb} {line.dest}'; there is one other host")
            line.verb, line.dest = token, _take_dest(token, rest)
            line.paths.append([])
        elif token in _OTHERS:
            raise UsageError(f"{token!r} does not go with '{line.verb} {line.dest}'")
        else:
            _take_word(line, token, rest)
    return line


def _take_dest(verb: str, rest: list[str]) -> str:
    if not rest or rest[-1] == "--":
        raise UsageError(f"{verb!r} needs the other host, as ssh has it: {_form(verb)}")
    dest = rest.pop()
    if not dest or dest.startswith("-") or any(character.isspace() for character in dest):
        raise UsageError(f"{dest!r} is no host for ssh; write {_form(verb)}")
    return dest


def _take_word(line: _Line, token: str, rest: list[str]) -> None:
    name, equals, value = token[2:].partition("=") if token.startswith("--") else (token, "", "")
    word = ALIASES.get(name, name)
    ours = name in _METAVARS
    if not ours and name not in known_words():
        if name == "show-config" and not equals:
            line.shows = True
            return
        if name in ("help", "version", "show-config"):
            raise UsageError(f"{name!r} does not go with {line.verb or 'to and from'!r}")
        close = _close(name)
        raise UsageError(f"unknown word {token!r}" + (f"; did you mean {close!r}?" if close else ""))
    if word in _NO_WORDS:
        raise UsageError(f"{word!r} is no word of 'to' and 'from': {_NO_WORDS[word]}")
    wants = bool(_METAVARS[name]) if ours else known_words()[name]
    if equals and not wants:
        raise UsageError(f"{name!r} takes no value")
    if wants and not equals:
        if not rest or rest[-1] == "--":
            raise UsageError(f"{name!r} needs a value after it")
        value = rest.pop()
    if ours:
        _note_own(line, name, value if wants else "yes")
    elif word in TERMS and line.paths and not _is_far_only(line.verb, word):
        line.where().append(f"--{word}={value}")
    else:
        if word in line.said:
            raise UsageError(f"{word!r} was given twice")
        line.said[word] = value if wants else "yes"
        line.before.append(f"--{word}={value}" if wants else f"--{word}")


def _close(name: str) -> str:
    from viamillipede.words import closest

    return closest(name.lower(), [*known_words(), *_METAVARS, *VERBS])


def _note_own(line: _Line, name: str, value: str) -> None:
    if name == ALSO:
        labelled(name, _also, value)
        line.also.append(value)
        line.paths.append([])
        if not line.verb:
            raise UsageError("'also' belongs behind the host: viamillipede to DEST also ADDRESS -- COMMAND")
        return
    if name in line.own:
        raise UsageError(f"{name!r} was given twice")
    line.own[name] = value


def _is_far_only(verb: str, word: str) -> bool:
    """Whether it is for the far end alone: a word of tx behind `from`."""
    if verb != FROM or word not in FIELDS:
        return False
    name = FIELDS[word][0]
    return name not in {each.name for each in fields(RxConfig)}


def _far_words(line: _Line, environ: Mapping[str, str]) -> dict[str, str]:
    """What the far end is told; what is for it alone is taken out of our own line."""
    config = RxConfig if line.verb == TO else TxConfig
    names = {each.name for each in fields(config)}
    found = {}
    for word, (name, _) in FIELDS.items():
        if word in _NEAR_ONLY or word in _NO_WORDS or name not in names:
            continue
        text = line.said.get(word) or (in_environment(word, environ) or ("",))[0]
        if text:
            found[word] = text
        if _is_far_only(line.verb, word):
            line.before[:] = [token for token in line.before if token.partition("=")[0] != f"--{word}"]
    return found


def _also(text: str) -> tuple[str, int]:
    """HOST, or HOST:PORT, or an IPv6 address with or without brackets; the port 0 where none is said. UsageError."""
    bracketed = re.fullmatch(r"(\[.*\])(?::([0-9]+))?", text)
    match = bracketed or re.fullmatch(r"([^:]+)(?::([0-9]+))?", text)
    if match is None:
        return parse_host(text), 0
    return parse_host(match[1]), parse_int(match[2], 1, 65535) if match[2] else 0


def parse_ports(text: str) -> tuple[int, int]:
    """N, or LOW-HIGH. Raises UsageError."""
    low, dash, high = text.partition("-")
    if dash and not (low and high):
        raise UsageError(f"{text!r} lacks its {'last' if low else 'first'} port; write a range like 60000-60010")
    first = parse_int(low, 1, 65535)
    last = parse_int(high, 1, 65535) if dash else first
    if last < first:
        raise UsageError(f"in {text!r} the first is larger than the last; write a range like 60000-60010")
    return first, last


def parse_command(text: str) -> tuple[str, ...]:
    """Words as a shell would have them. Raises UsageError."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"{text!r} cannot be split into words: {error}") from None
    if not words:
        raise UsageError("there is nothing to run")
    return words


def _with_own(asked: Asked, own: dict[str, str], environ: Mapping[str, str]) -> Asked:
    """The same with our own words. Raises UsageError."""
    labels = {}
    for name in VARIABLES:
        variable = _variable(name)
        if name not in own and environ.get(variable):
            own[name], labels[name] = environ[variable], variable
    ssh = labelled(labels.get("ssh-command", "ssh-command"), parse_command, own.get("ssh-command", "ssh"))
    ports = labelled("port", parse_ports, own["port"]) if "port" in own else (0, 0)
    if "tunnel" in own and len(asked.fixed) > 1:
        raise UsageError("'also' is no use with 'tunnel': all goes through ssh; leave one of them out")
    if "tunnel" in own and "port" in own:
        raise UsageError("'port' is no use with 'tunnel': no port need be open; leave one of them out")
    if "bring" in own and "bring-file" in own:
        raise UsageError("say 'bring', to send this program, or 'bring-file FILE', to send another; not both")
    if "far-command" in own and not own["far-command"].strip():
        raise UsageError("far-command: there is nothing to run")
    return replace(
        asked, ports=ports, tunnel="tunnel" in own, ssh=ssh, far_command=own.get("far-command", ""),
        bring="bring" in own or "bring-file" in own, bring_file=own.get("bring-file", ""),
    )  # fmt: skip


def dial_at(asked: Asked, host: str, port: int) -> tuple[Address, ...]:
    """The addresses: where the host is, and what was said besides. `port`: the far end's."""
    first, *others = asked.config.addresses
    ports = [fixed or port for fixed in asked.fixed[1:]]
    return (
        replace(first, host=host, port=port),
        *(replace(address, port=other) for address, other in zip(others, ports, strict=True)),
    )
