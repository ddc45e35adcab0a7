"""Configuration files: what every transfer of this host, or of this user, is told unless the command line says else.

A line holds one word and its value, in any of the forms `threads 16`, `threads = 16`, `--threads=16`; a word
without value may stand alone, or with yes or no. A # at the beginning of a line or behind a blank starts a
comment. A value that holds such a #, or blanks at its ends, stands in double quotes, as a string of JSON does.
Later files win over earlier ones, the environment over files, and the command line over all.
"""

import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from viamillipede.config import KEY_PREFIX
from viamillipede.errors import UsageError
from viamillipede.settings import ASK, FIELDS, SECRETS, Said
from viamillipede.usage_text import Option, options
from viamillipede.values import labelled
from viamillipede.words import ALIASES, TERMS, closest, known_words

FILE_BYTES_MAX = 64 * 1024
_LINE = re.compile(r"(--)?([^\s=]+)(?:(\s*=\s*|\s+)(.*))?", re.DOTALL)
_COMMENT = re.compile(r"(^|\s)#.*", re.DOTALL)
_QUOTED = re.compile(r'("(?:[^"\\]|\\.)*")\s*(?:#.*)?', re.DOTALL)
_PLAIN = re.compile(r'[^\s"#=][^\s#"]*')  # needs no quotes
_OPERANDS = ("tx", "rx", "listen", "--")
_COLUMN = 32  # where the table of `show` says where each value is from


@dataclass(frozen=True, slots=True)
class Setting:
    """What a line of a file says: `word`, no alias; `text`, "yes" or "no" and the like for a word without value."""

    word: str
    text: str
    path: Path
    line: int  # from 1

    @property
    def where(self) -> str:
        """FILE:LINE."""
        return f"{self.path}:{self.line}"


def read(paths: Sequence[Path]) -> list[Setting]:
    """What the files say, one after another; one that does not exist says nothing.

    Raises UsageError, which begins with FILE or FILE:LINE, for what cannot be read or is no configuration.
    """
    return [setting for path in paths for setting in _parse(path, _text(path))]


def said(settings: Sequence[Setting]) -> dict[str, tuple[str, str]]:
    """What they come to: by word its text, and where it was said last.

    A later file that has a key wins over the phrase of an earlier one too, and the other way round.
    """
    last = {setting.word: setting for setting in settings}
    secrets = [last[word].path for word in SECRETS if word in last]
    return {
        word: (setting.text, setting.where)
        for word, setting in last.items()
        if word not in SECRETS or setting.path == max(secrets, key=_order(settings).index)
    }


def _order(settings: Sequence[Setting]) -> list[Path]:
    """Their files, each once, as they follow upon one another."""
    return list(dict.fromkeys(setting.path for setting in settings))


def _text(path: Path) -> str:
    """The contents of a file; "" if there is none. Raises UsageError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would hold us for ever
        try:
            kind = os.fstat(fd).st_mode
            if not stat.S_ISREG(kind) and not stat.S_ISCHR(kind):  # /dev/null means: nothing
                what = "a directory" if stat.S_ISDIR(kind) else "no regular file"
                raise UsageError(f"{path}: this is {what}; a file with lines like 'threads 16' belongs there")
            with open(fd, "rb", closefd=False) as file:
                data = file.read(FILE_BYTES_MAX + 1)
        finally:
            os.close(fd)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        if isinstance(error, PermissionError) and not os.access(path.parent, os.X_OK):
            return ""  # the HOME of somebody else, left over in the environment
        raise UsageError(f"{path}: cannot be read: {error.strerror}; mend its permissions or remove it") from error
    if len(data) > FILE_BYTES_MAX:
        raise UsageError(f"{path}: a configuration is at most {FILE_BYTES_MAX // 1024} KiB long")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: this is not UTF-8; save the file in that encoding") from None


def _parse(path: Path, text: str) -> Iterator[Setting]:
    """The settings of one file. Raises UsageError."""
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        found = labelled(f"{path}:{number}", _setting, line.strip())
        if found is None:
            continue
        word, value = found
        if word in lines:
            raise UsageError(f"{path}:{number}: {word!r} was given in line {lines[word]} already")
        lines[word] = number
        if word in SECRETS and value != ASK:
            value = os.path.join(path.parent, os.path.expanduser(value))  # beside this file, unless it says else
        yield Setting(word, value, path, number)


def _setting(line: str) -> tuple[str, str] | None:
    """Word and text of a line; None for one that says nothing. Raises UsageError."""
    bare = _COMMENT.sub("", line).strip()
    if not bare:
        return None
    if KEY_PREFIX in line:
        raise UsageError("a key belongs into a file of its own, that nobody else can read; say key FILE")
    match = _LINE.fullmatch(line if '"' in line else bare)
    if match is None or not bare.replace("\t", " ").isprintable():
        raise UsageError(f"{bare[:60]!r} is no word with its value; write it like 'threads 16'")
    name, separator = match[2], match[3] or ""
    if name not in known_words() or ALIASES.get(name, name) not in FIELDS:
        raise UsageError(_unknown(name))
    word = ALIASES.get(name, name)
    value = _value(match[4] or "")
    if not known_words()[name]:
        value = value or ("" if "=" in separator else "yes")
    if not value:
        raise UsageError(f"{name!r} needs a value after it")
    labelled(word, FIELDS[word][1], value)
    return word, value


def _value(text: str) -> str:
    """A value without its quotes and without the comment behind it. Raises UsageError."""
    if not text.startswith('"'):
        return _COMMENT.sub("", text).strip()
    quoted = _QUOTED.fullmatch(text)
    try:
        if quoted is None:
            raise ValueError("something behind the quotes")
        value = str(json.loads(quoted[1]))
        if b"\0" in os.fsencode(value):
            raise ValueError("nothing that the system could be told")
        return value
    except ValueError:
        raise UsageError(f'{text[:60]} is not one string in double quotes; write \\" and \\\\ for " and \\') from None


def _unknown(name: str) -> str:
    """Why `name` cannot be said here."""
    if name in _OPERANDS or name in TERMS:
        return f"{name!r} belongs on the command line, where the paths and the command are"
    close = closest(name.lower().replace("_", "-"), [*FIELDS, *ALIASES])
    return f"unknown word {name!r}" + (f"; did you mean {close!r}?" if close else "; viamillipede --help lists them")


# What is in force. ------------------------------------------------------------------------------------------
def show(in_force: Said) -> str:
    """Every word with its value and where that is from, as a configuration file that says the same.

    `in_force` has what was said, by word: the text, "" for one that is not shown, and FILE:LINE, a variable or the
    command line. The rest are defaults, and comments there: said aloud they might contradict what was said.
    """
    lines = []
    for option in configurable():
        text, where = in_force.get(option.word, ("", ""))
        if where:
            line = f"{option.word} {_spell(text)}" if text else f"# {option.word}, which is not shown"
        elif option.metavar and not option.default:
            line, where = f"# {option.word} {option.metavar}", "not said"
        else:
            line, where = f"# {option.word} {option.default or 'no'}", "default"
        lines.append(f"{line:<{_COLUMN}} # {where}\n")
    return "".join(lines).encode(errors="backslashreplace").decode()


def _spell(text: str) -> str:
    """`text` as a file says it."""
    return text if _PLAIN.fullmatch(text) and text.isprintable() else json.dumps(text)


def configurable() -> list[Option]:
    """The options that files may set, in the order of the help."""
    return [option for option in options() if option.word in FIELDS]


def sample() -> str:
    """A file that says nothing: every word with its default and its explanation, all behind #."""
    parts = [f"# {line}".rstrip() for line in _HEAD.splitlines()]
    for option in configurable():
        value = (option.default or option.metavar) if option.metavar else "yes"
        parts += ["", *(f"# {line}" for line in option.lines), f"#{option.word} {value}"]
    return "\n".join(parts) + "\n"


_HEAD = """\
What every viamillipede of this host is told, unless the user's own file (~/.config/viamillipede/config),
a variable (VIAMILLIPEDE_THREADS=16) or the command line (threads 16) says else. Words of tx mean nothing
to rx, and the other way round. See viamillipede(1), FILES; viamillipede rx 8834 --show-config says what is
in force, and where it was said."""
