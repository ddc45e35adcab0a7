"""The words of the command line: USAGE lists them, `translate` makes of them what docopt reads.

USAGE is the specification: the words it lists are the words there are, and the forms it shows are the
forms there are. A bare word becomes the GNU option (`threads 16` -> `--threads=16`). What is said behind
a HOST PORT about that path alone goes to the path, since docopt does not know where an option stood.
"""

import functools
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from docopt import docopt

from viamillipede.errors import UsageError
from viamillipede.values import LISTEN, read_operands

USAGE = """\
viamillipede moves one pipe over many TCP connections ("legs"), whole and in order.

Usage:
  viamillipede rx PORT [options] [(-- COMMAND...)]
  viamillipede tx listen PORT [options] [(-- COMMAND...)]
  viamillipede (tx HOST PORT)... [options] [(-- COMMAND...)]
  viamillipede (rx HOST PORT)... [options] [(-- COMMAND...)]
  viamillipede to DEST [options] (-- COMMAND...)
  viamillipede from DEST [options] (-- COMMAND...)
  viamillipede doctor [HOST PORT] [options]
  viamillipede completion (bash | zsh | fish)
  viamillipede key
  viamillipede (--help | --version | --show-config)

One side listens, the other dials: rx PORT and tx HOST PORT; or, where only that
way is open, tx listen PORT and rx HOST PORT. Several HOST PORT are paths to the
one that listens, the preferred one first. It may listen on port 0: the kernel
chooses. An option may also be a bare word, anywhere: threads 16, --threads 16
and --threads=16 are the same. Only via, weight and limit are about the path
that they stand behind.

The stream is standard input and output, or that of a COMMAND: tx reads what it
writes, rx writes what it reads. Then 0 means that both commands succeeded too.
doctor tells what limits a transfer here, or to the rx at HOST PORT. key alone
prints a fresh one, for both sides: viamillipede key > FILE.

to and from do both ends: ssh starts the other one, which runs COMMAND in the
home directory there, and the legs go there directly, encrypted.

Options:
  --via=ADDRESS         the path's source address, or its interface
  --weight=N            tx: the path's share, 1 to 1000, beside neighbours that
                        have a weight too; without: filled before the next
  --limit=RATE          tx: most bytes per second of the path; before the first
                        path, or without one, of all together
  --threads=N           tx: legs in all, 1 to 1024; auto: as many as are of use,
                        up to 64 for each path [default: auto]
  --congestion=NAME     the legs' congestion control, such as bbr
  --checksum            verify every frame (xxh3) before it is delivered; a
                        corrupted one is sent again
  --checksums           the same as checksum
  --key=FILE            encrypt, and admit who has the same key only; never an
                        argument itself: a file that nobody else can read
  --phrase=FILE         the same with what people can remember, at least 8
                        characters: FILE, or ask
  --checkphrase=WORD    4 bytes that both sides must agree on; a guard against
                        mix-ups, not security
  --window=SIZE         most bytes on their way at a time [default: 64M]
  --frame=SIZE          tx: most bytes in a frame, a quarter of the window at
                        most [default: 1M]
  --digest=NAME         of the whole stream, compared before success: xxh3,
                        sha256, or auto: xxh3 where it costs little
                        [default: auto]
  --bind=ADDRESS        listening: the address to listen on, all unless given;
                        dialling: the source address of paths without via
  --wait=DURATION       how long to wait for the first contact
                        (default: tx 60s, rx for ever)
  --regroup=DURATION    give up when the other side closed every leg and none
                        came back for so long [default: 10s]
  --outage=DURATION     give up when the network was silent for so long
                        [default: 15m]
  --name=NAME           tx: what rx's command finds in VIAMILLIPEDE_NAME
  --names=PATTERN       rx: which names are taken, such as 'db*'
  --keep                rx PORT: serve one stream after another, each with a
                        COMMAND of its own
  --streams=N           rx PORT keep: so many at a time, 1 to 256 [default: 1]
  --force               rx: write to a terminal all the same
  --progress            a line per interval also where stderr is no terminal
  --interval=DURATION   between two lines; implies progress (default: 1s)
  --size=SIZE           how long the stream will be, for the time left
  --dashboard           paths and legs on the whole screen
  --json                a line of JSON per interval, and one at the end
  --metrics=ADDRESS     serve Prometheus there: PORT of loopback, or HOST:PORT
  --log=FILE            append what is said to a file as well
  --syslog              send it to the system's log as well
  --verbose=N           0 why it failed, 1 closing line and warnings, 2 session
                        and lost legs, 3 every leg, 5 retransmissions,
                        10 frames, 20 socket operations [default: 1]
  --chaos=N             tx: break a leg after every N socket operations; 0 never
                        [default: 0]
  --chaos-kind=KIND     tx: close, reset, stall, truncate, corrupt (needs
                        checksum), or all in turn [default: close]
  -h, --help            print this
  --version             print the versions of program and wire
  --show-config         print every word, its value and where that was said

Of to and from alone, behind DEST:
  also ADDRESS          another address of that host, HOST or HOST:PORT
  port N|LOW-HIGH       where to listen over there, the first one that is free
  tunnel                the legs go through ssh as well
  bring                 send this program along, where it is a zipapp
  bring-file FILE       send this zipapp along
  ssh-command COMMAND   instead of ssh
  far-command COMMAND   instead of viamillipede, over there: a path, if need be

Sizes take k M G T (powers of 1024; 64M, 64MB and 64MiB are the same), rates too
(50M or 50M/s); durations ms s m h, seconds if bare.
Environment: VIAMILLIPEDE_THREADS=16, VIAMILLIPEDE_CHAOS_KIND=all and so on for
every word but via and weight; LIMIT is that of all paths together, KEY the key
itself, and KEY_FILE its file. Before that, /etc/viamillipede.conf and
~/.config/viamillipede/config: lines like threads 16. The command line wins.

Exit status:
  0  complete and acknowledged      6  integrity
  1  unexpected                     7  own input or output failed
  2  usage                          8  the other side failed
  3  cannot bind or connect         9  a limit was reached
  4  key, phrase, checkphrase,      129 SIGHUP, 130 SIGINT, 143 SIGTERM
     version, name
  5  peer lost, worth a retry

Examples:
  viamillipede rx 8834 | tar x -C /restore
  tar c /srv | viamillipede tx host 8834
  viamillipede rx 8834 -- zfs recv -F tank/fs
  viamillipede tx host 8834 -- zfs send -R pool/fs@now
  zfs send tank@now | viamillipede tx 10.0.1.2 8834 tx 10.0.2.2 8834 limit 50M
  tar c /srv | viamillipede tx listen 8834        # and on the other host:
  viamillipede rx host 8834 | tar x -C /restore

Without key or phrase nothing is encrypted, and whoever reaches the port is let
in: use trusted networks then, or to and from. viamillipede(1) says more.
"""

ALIASES = {"checksums": "checksum"}
TERMS = {"via": "ADDRESS", "weight": "N", "limit": "RATE"}  # of a path
_TOTALS = ("limit",)  # terms that mean all paths together where no path stands before them
_RX_TERMS = ("via",)  # what the side that sends does not decide
_FORMS = {"rx": "PORT, or HOST PORT,", "tx": "HOST PORT, or listen PORT,"}
_ASIDES = ("help", "version", "show-config")
DOCTOR = "doctor"
_COMPLETION = "completion"


@dataclass(slots=True)
class Line:
    """A command line. `tokens` are for docopt; `paths` have an entry for each HOST PORT, in order.

    An entry is what was said behind it of that path alone: text by word, a key of TERMS.
    """

    tokens: list[str] = field(default_factory=list)
    paths: list[dict[str, str]] = field(default_factory=list)
    last: tuple[str, ...] = ()  # role and operands of the last tx or rx
    command: list[str] = field(default_factory=list)  # behind --

    def has(self, word: str) -> bool:
        """Whether the option is among the tokens."""
        return any(token.partition("=")[0] == f"--{word}" for token in self.tokens)


def translate(argv: Sequence[str]) -> Line:
    """`argv` for docopt: every word as `--word` or `--word=value`, HOST and PORT as they are.

    What follows `tx` and `rx` is taken literally, so a host may be called `threads`. Raises
    UsageError for a word that does not exist, comes twice, lacks its value or its path.
    """
    line = Line()
    rest = list(reversed(argv))
    refuse_keys(argv)
    while rest:
        token = rest.pop()
        if token == "--":
            if not rest:
                raise UsageError("'--' needs a command after it")
            if line.last[:1] == (DOCTOR,):
                raise UsageError(f"{DOCTOR!r} takes no command")
            line.command = rest[::-1]
            break
        if line.last and token in (DOCTOR, *_FORMS) and DOCTOR in (token, line.last[0]):
            raise UsageError(f"{token!r} does not go with {' '.join(line.last)!r}")
        if token == DOCTOR:
            line.last = (token, *_take_peer(rest))
            line.tokens += line.last
            continue
        if token in _FORMS:
            operands = _take_operands(token, rest)
            line.last = (token, *operands)
            line.tokens += line.last
            if len(operands) == 2 and operands[0] != LISTEN:
                line.paths.append({})
            continue
        if token.removeprefix("--") in _ASIDES:
            line.tokens.append(f"--{token.removeprefix('--')}")
            continue
        name, equals, value = token[2:].partition("=") if token.startswith("--") else (token, "", "")
        if name not in known_words():
            raise UsageError(_unknown(token))
        word = ALIASES.get(name, name)
        path = _path_of(word, line, rest) if word in TERMS else None
        if path is None and line.has(word):
            raise UsageError(f"{word!r} was given twice")
        if not known_words()[name]:
            if equals:
                raise UsageError(f"{name!r} takes no value")
            line.tokens.append(f"--{word}")
            continue
        if not equals and rest[-1:] in ([], ["--"]):
            raise UsageError(f"{name!r} needs a value after it")
        text = value if equals else rest.pop()
        if path is None:
            line.tokens.append(f"--{word}={text}")
        else:
            path[word] = text
    return line


def refuse_keys(argv: Sequence[str]) -> None:
    """Raises UsageError where a key is an argument of ours; without repeating it."""
    from viamillipede.secret import holds_key

    if any(holds_key(token) for token in itertools.takewhile(lambda token: token != "--", argv)):
        raise UsageError(
            "a key is no argument, for all users of this host can see it there, and have seen this one: "
            "make another with 'viamillipede key > FILE', copy that file to the other host, and say key FILE"
        )


def _take_operands(role: str, rest: list[str]) -> list[str]:
    """What stands behind `role`, removed from the end of `rest`: PORT, HOST PORT or listen PORT. Raises UsageError."""
    operands: list[str] = []
    wanted = 2
    while len(operands) < wanted and rest and not re.match("-[^0-9]|-$", rest[-1]):
        operands.append(rest.pop())
        if role == "rx" and _is_number(operands[0]):
            wanted = 1  # PORT
    first, follower = "".join(operands[:1]), "".join(rest[-1:])
    _refuse_one_word(role, first)
    if role == "rx" and first == LISTEN:
        raise UsageError("'listen' is for tx only; write rx PORT to listen, or rx HOST PORT to dial")
    if _is_number(first) and (role == "tx" or _is_number(follower)):
        listening = "rx PORT" if role == "rx" else "tx listen PORT"
        raise UsageError(f"{first!r} is not a host; write {role} HOST PORT to dial, or {listening} to listen")
    if len(operands) < wanted:
        raise UsageError(f"{role!r} needs {_FORMS[role]} after it" if first != LISTEN else "'tx listen' needs a PORT")
    read_operands(role, operands)  # now: a PORT left out would blame the next word
    return operands


def _take_peer(rest: list[str]) -> list[str]:
    """HOST PORT behind doctor, if it is there, removed from the end of `rest`. Raises UsageError.

    It may be left out, so it is not taken literally: a word is a word here.
    """
    if not rest or rest[-1].startswith("-") or rest[-1] in (*known_words(), *_ASIDES, DOCTOR):
        return []
    operands = [rest.pop() for _ in range(min(2, len(rest)))]
    _refuse_one_word(DOCTOR, operands[0])
    if len(operands) < 2 or operands[0] in (*_FORMS, LISTEN):
        raise UsageError(f"{DOCTOR!r} needs HOST PORT after it, or nothing")
    read_operands(DOCTOR, operands)
    return operands


def _refuse_one_word(role: str, text: str) -> None:
    """Raises UsageError for HOST:PORT."""
    if one := re.fullmatch(r"(\[.*\]|[^:]+):([0-9]+)", text):
        raise UsageError(f"write host and port as two words: {role} {one[1]} {one[2]}")


def _is_number(text: str) -> bool:
    return re.fullmatch("-?[0-9]+", text) is not None


def _path_of(word: str, line: Line, rest: Sequence[str]) -> dict[str, str] | None:
    """The path that `word`, one of TERMS, is about; None for all together. Raises UsageError."""
    role = "".join(line.last[:1])
    if role == DOCTOR:
        raise UsageError(f"{word!r} is no word of {role}")
    if role == "rx" and word not in _RX_TERMS:
        raise UsageError(f"{word!r} is a word of tx, not of rx")
    if line.paths:
        if word in line.paths[-1]:
            raise UsageError(f"{word!r} was given twice behind '{' '.join(line.last)}'")
        return line.paths[-1]
    if word in _TOTALS:
        return None
    if not role:
        role = next((token for token in reversed(rest) if token in _FORMS and word in _RX_TERMS), "tx")
    listens = f", and '{' '.join(line.last)}' is none" if line.last else ""
    hint = "; 'bind' says where to listen" if listens and word == "via" else ""
    raise UsageError(f"{word!r} belongs behind a path, as in {role} HOST PORT {word} {TERMS[word]}{listens}{hint}")


@functools.cache
def known_words() -> dict[str, bool]:
    """Every word of USAGE, and whether it takes a value; docopt says None or a default where it does."""
    options = docopt(USAGE, ["rx", "0"], default_help=False)
    names = {name[2:]: value for name, value in options.items() if name.startswith("--") and name != "--"}
    return {name: not isinstance(value, bool) for name, value in names.items() if name not in _ASIDES}


def _unknown(token: str) -> str:
    """The message for a word that does not exist, with the word it was probably meant to be."""
    name, equals, value = token.lstrip("-").partition("=")
    if equals and not token.startswith("-") and known_words().get(name):
        return f"unknown word {token!r}; write '{name} {value}' or '--{token}'"
    if name == _COMPLETION:
        return f"{token!r} stands alone: viamillipede {_COMPLETION} bash|zsh|fish"
    verbs = (*_FORMS, DOCTOR, _COMPLETION)
    close = closest(name.lower(), [*known_words(), *verbs, *_ASIDES])
    dashed = token.startswith("-") and close not in verbs
    return f"unknown word {token!r}" + (f"; did you mean '{'--' if dashed else ''}{close}'?" if close else "")


def closest(name: str, names: Sequence[str]) -> str:
    """The one of `names` that was probably meant, or ""."""
    import difflib  # only a mistake needs it

    close = difflib.get_close_matches(name, names, n=1) if len(name) > 1 else []
    return close[0] if close else ""
