"""The help as a table: what USAGE says of each option and each form, for the shells and for configuration files."""

import re
import textwrap
from dataclasses import dataclass

from viamillipede.words import USAGE

_OPTION = re.compile(r"^  (?:-\w, )?--([a-z-]+)(?:=(\S+))?(?: {2,}(.*)|)$")
_DEFAULT = re.compile(r"\[default: (.*?)\]", re.DOTALL)
_ROLE = re.compile(r"(?:(tx|rx)|(rx) PORT[^:]*): ")
_CLAUSE_END = re.compile(r"; |\(default")
SUMMARY_MAX = 72  # characters
_OPERAND = re.compile(r"\([^()]*\|[^()]*\)|[\w-]+")  # a word, or several to choose from
_FORM = re.compile(r"^  viamillipede \(?([a-z]+)\b(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Option:
    """An entry of the help. metavar "": it takes no value. role "": both have it. lines: the text, as it stands."""

    word: str
    metavar: str
    role: str
    default: str
    lines: tuple[str, ...]

    @property
    def summary(self) -> str:
        """The first clause of the text, on one line, for a list."""
        text = _ROLE.sub("", _DEFAULT.sub("", " ".join(self.lines)), count=1)
        return textwrap.shorten(_CLAUSE_END.split(text)[0], SUMMARY_MAX, placeholder=" ...")


def section(name: str) -> str:
    """The lines of USAGE behind `name:` up to the next line that is empty."""
    return USAGE.partition(f"{name}:\n")[2].partition("\n\n")[0]


def options() -> list[Option]:
    """Every option of USAGE in order, also those that are asides."""
    found: list[tuple[str, str, list[str]]] = []
    for line in section("Options").splitlines():
        if match := _OPTION.match(line):
            found.append((match[1], match[2] or "", [match[3]] if match[3] else []))
        else:
            found[-1][2].append(line.strip())
    made = []
    for word, metavar, lines in found:
        text = "\n".join(lines)
        role, default = _ROLE.match(text), _DEFAULT.search(text)
        made.append(
            Option(word, metavar, (role[1] or role[2]) if role else "", default[1] if default else "", tuple(lines))
        )
    return made


@dataclass(frozen=True, slots=True)
class Form:
    """A line of the usage. operands: for each its alternatives, words as they are, placeholders in capitals."""

    first: str
    operands: tuple[tuple[str, ...], ...]
    optional: bool  # the operands may be left out
    repeated: bool  # it may stand there several times
    has_options: bool
    has_command: bool  # behind --


def forms() -> list[Form]:
    """What may begin a command line, with what stands behind it."""
    found = []
    for first, behind in _FORM.findall(section("Usage") + "\n"):
        before = re.split(r"\)\.\.\.|\[options\]", behind)[0]
        operands = tuple(tuple(re.findall(r"[\w-]+", one)) for one in _OPERAND.findall(before))
        flags = (before.strip().startswith("["), ")..." in behind, "[options]" in behind, "COMMAND" in behind)
        found.append(Form(first, operands, *flags))
    return found


def levels(word: str) -> dict[str, str]:
    """Of an option whose text is a list of numbers, each with a meaning (`0 why it failed, 1 closing line`); or {}."""
    [text] = [" ".join(option.lines) for option in options() if option.word == word]
    found = {number: meaning.strip() for number, meaning in re.findall(r"(?:^|, )(\d+) ([^,\[]+)", text)}
    return found if len(found) > 1 else {}
