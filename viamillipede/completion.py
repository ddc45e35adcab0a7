"""What a shell offers behind `viamillipede`: `viamillipede completion bash|zsh|fish` prints a script for it.

The scripts are made of the help, so that they offer what it lists. They know what the program does of its
command line: that a word of the options may be bare, that the operands of tx and rx may have any name, and
that what is behind -- is another program's command line, completed as its own.
"""

import dataclasses
import shlex
from collections.abc import Callable, Iterable, Sequence

from viamillipede.completion_scripts import BASH, FISH, ZSH
from viamillipede.config import CHAOS_KINDS, DIGESTS, DoctorConfig
from viamillipede.errors import UsageError
from viamillipede.settings import ASK, FIELDS
from viamillipede.ssh.words import ALSO, VERBS, WORDS, is_word_of
from viamillipede.usage_text import Form, Option, forms, levels, options
from viamillipede.words import ALIASES, DOCTOR, TERMS, known_words

_SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
SHELLS = tuple(_SCRIPTS)
_CHOICES: dict[str, Sequence[str]] = {
    "threads": ("auto",), "chaos-kind": CHAOS_KINDS, "digest": DIGESTS, "phrase": (ASK,)
}  # fmt: skip
_FILE = "FILE"  # what such an option is followed by, for the shell's own lists
_EMPTY = "''"  # as each of the shells writes it
_HOST, _DEST, _PORT = "HOST", "DEST", "PORT"

Rows = list[tuple[str, str]]  # what is offered, and what it means
Case = Callable[..., str]


def complete(arguments: Sequence[str]) -> str:
    """The script that `viamillipede completion ARGUMENTS` prints. Raises UsageError."""
    if len(arguments) != 1 or arguments[0] not in _SCRIPTS:
        raise UsageError(f"say one shell: completion {'|'.join(SHELLS)}")
    return completion(arguments[0])


def completion(shell: str) -> str:
    """The script for one of SHELLS, to be read by it."""
    case = _CASES[shell]
    text = _SCRIPTS[shell]
    tables = {
        **_names(),
        "CASE_WORDS": "\n        ".join(case(first, _rows(words_of(first))) for first in (*_firsts(_has_options), "")),
        "CASE_OPERANDS": "\n        ".join(case(first, found) for first in _firsts() if (found := _literals(first))),
        "CASE_VALUES": "\n        ".join(_value_case(case, option) for option in _with_values()),
        "ASIDES": case("*", _rows(asides(), "--")),
        "LONGS": "\n".join(_fish_long(option) for option in (*words_of(""), *own_words(), *asides())),
    }
    for name, value in tables.items():
        text = text.replace(f"@{name}@", value)
    return text


# What USAGE says, as the scripts need it. -------------------------------------------------------------------
def words_of(first: str) -> list[Option]:
    """The options that may stand behind this first word of a command line; "" is for before any."""
    of_doctor = {field.name for field in dataclasses.fields(DoctorConfig)}
    found = []
    for option in options():
        if option.word in ALIASES or option in asides():
            continue
        if first in VERBS:
            fits = is_word_of(first, option.word, option.role)
        elif first == DOCTOR:
            fits = option.word not in TERMS and FIELDS[option.word][0] in of_doctor
        else:
            fits = not first or option.role in ("", first)
        if fits:
            found.append(option)
    return found + (own_words() if first in VERBS else [])


def own_words() -> list[Option]:
    """The words of `to` and `from` alone."""
    return [Option(word.name, word.metavar, "", "", (word.summary,)) for word in WORDS]


def asides() -> list[Option]:
    """The options that stand for themselves."""
    return [option for option in options() if option.word not in (*FIELDS, *TERMS, *ALIASES)]


def choices(word: str) -> Rows:
    """The values that an option may have, as far as these have names, and what they mean."""
    meanings = levels(word) if word in known_words() else {}
    return [(text, meanings.get(text, "")) for text in _CHOICES.get(word, tuple(meanings))]


def _rows(found: Iterable[Option], dashes: str = "") -> Rows:
    return [(dashes + option.word, option.summary) for option in found]


def _literals(first: str) -> Rows:
    """The words that may be the first operand behind this word, besides a host or a port."""
    return [(word, "") for form in forms() if form.first == first for word in form.operands[0] if word.islower()]


def _with_values() -> list[Option]:
    """The options for whose value the shell has something to offer."""
    return [option for option in (*words_of(""), *own_words()) if choices(option.word) or option.metavar == _FILE]


def _firsts(test: Callable[[Form], bool] = lambda form: True) -> list[str]:
    """The words that begin a form, less `key`: whoever goes on behind that means the option."""
    return list(dict.fromkeys(form.first for form in forms() if form.first not in FIELDS and test(form)))


def _has_options(form: Form) -> bool:
    return form.has_options


def _names() -> dict[str, str]:
    """What is written the same way for each shell: names with blanks between them."""
    lists: dict[str, Iterable[str]] = {
        "FIRSTS": _firsts(),
        "OPTIONAL": _firsts(lambda form: form.optional),
        "REPEATED": _firsts(lambda form: form.repeated),
        "HOSTED": _firsts(lambda form: form.operands[:1] in (((_HOST,),), ((_DEST,),))),
        "NUMBER": _firsts(lambda form: form.operands == ((_PORT,),)),
        "SINGLE": _firsts(lambda form: len(form.operands) == 1 and form.operands != ((_PORT,),)),
        "COMMANDED": _firsts(lambda form: form.has_command),
        "WORDS": [option.word for option in words_of("")],
        "VALUED": [option.word for option in (*words_of(""), *own_words()) if option.metavar],
        "TERMS": (*TERMS, ALSO),
    }
    return {name: " ".join(texts) for name, texts in lists.items()}


# How each shell writes one case of a choice: the rows that are offered for `key`, and files if wanted. -----------
def _bash_case(key: str, rows: Rows, files: bool = False) -> str:
    offers = [f"words='{' '.join(name for name, _ in rows)}'"] if rows or not files else []
    return f"{key or _EMPTY}) {'; '.join([*offers, *(['files=1'] if files else [])])} ;;"


def _zsh_case(key: str, rows: Rows, files: bool = False) -> str:
    texts = (shlex.quote(f"{name}:{about}" if about else name) for name, about in rows)
    offers = [f"list=({' '.join(texts)})"] if rows or not files else []
    return f"{key or _EMPTY}) {'; '.join([*offers, *(['files=1'] if files else [])])} ;;"


def _fish_case(key: str, rows: Rows, files: bool = False) -> str:
    texts = (f"{_fish_quoted(name)} {_fish_quoted(about)}" for name, about in rows)
    offers = [f"printf '%s\\t%s\\n' {' '.join(texts)}"] if rows or not files else []
    offers += ["__fish_complete_path (commandline -ct)"] if files else []
    return "\n            ".join([f"case {key or _EMPTY}", *offers])


def _value_case(case: Case, option: Option) -> str:
    return case(option.word, choices(option.word), option.metavar == _FILE)


def _fish_long(option: Option) -> str:
    offered = " ".join(name for name, _ in choices(option.word))
    value = f"-x -a {_fish_quoted(offered)}"
    if option.metavar == _FILE:
        value = f"-r -F -a {_fish_quoted(offered)}" if offered else "-r -F"
    words = ["complete -c viamillipede -n __viamillipede_before -l", option.word, *([value] if option.metavar else [])]
    return " ".join([*words, "-d", _fish_quoted(option.summary)])


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_CASES: dict[str, Case] = {"bash": _bash_case, "zsh": _zsh_case, "fish": _fish_case}
