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
from viamillipede.settings import FIELDS
from viamillipede.usage_text import Form, Option, forms, levels, options
from viamillipede.words import ALIASES, DOCTOR, TERMS

_SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
SHELLS = tuple(_SCRIPTS)
_CHOICES: dict[str, Sequence[str]] = {"threads": ("auto",), "chaos-kind": CHAOS_KINDS, "digest": DIGESTS}
_FILE = "FILE"  # what such an option is followed by, for the shell's own lists
_HOST, _PORT = "HOST", "PORT"


def complete(arguments: Sequence[str]) -> str:
    """The script that `viamillipede completion ARGUMENTS` prints. Raises UsageError."""
    if len(arguments) != 1 or arguments[0] not in _SCRIPTS:
        raise UsageError(f"say one shell: completion {'|'.join(SHELLS)}")
    return completion(arguments[0])


def completion(shell: str) -> str:
    """The script for one of SHELLS, to be read by it."""
    assert shell in _SCRIPTS
    text = _SCRIPTS[shell]
    spell = _RENDERERS[shell]
    for name, value in {**_tables(), **spell()}.items():
        text = text.replace(f"@{name}@", value)
    return text


# What USAGE says, as the scripts need it. -------------------------------------------------------------------
def words_of(first: str) -> list[Option]:
    """The options that may stand behind this first word of a command line; "" is for before any."""
    found = []
    for option in options():
        if option.word in ALIASES or not (option.word in FIELDS or option.word in TERMS):
            continue
        if first == DOCTOR:
            names = {field.name for field in dataclasses.fields(DoctorConfig)}
            fits = option.word in FIELDS and FIELDS[option.word][0] in names
        else:
            fits = not first or option.role in ("", first)
        if fits:
            found.append(option)
    return found if not first or any(form.has_options for form in forms() if form.first == first) else []


def asides() -> list[Option]:
    """The options that stand for themselves."""
    return [option for option in options() if not (option.word in FIELDS or option.word in (*TERMS, *ALIASES))]


def choices(word: str) -> list[str]:
    """The texts that an option may have, where these are few, or the ones with a name."""
    return list(_CHOICES.get(word, levels(word)))


def literals(first: str) -> list[str]:
    """The words that may be the first operand behind this word, besides a host or a port."""
    return [word for form in forms() if form.first == first for word in form.operands[0] if word.islower()]


def _firsts(test: Callable[[Form], bool] = lambda form: True) -> list[str]:
    return list(dict.fromkeys(form.first for form in forms() if test(form)))


def _tables() -> dict[str, str]:
    """What is written the same way for each shell: lists of names, with blanks between them."""
    return {
        "FIRSTS": " ".join(_firsts()),
        "OPTIONAL": " ".join(_firsts(lambda form: form.optional)),
        "REPEATED": " ".join(_firsts(lambda form: form.repeated)),
        "HOSTED": " ".join(_firsts(lambda form: form.operands[0] == (_HOST,))),
        "NUMBER": " ".join(_firsts(lambda form: form.operands == ((_PORT,),))),
        "SINGLE": " ".join(_firsts(lambda form: len(form.operands) == 1 and form.operands[0][0].islower())),
        "COMMANDED": " ".join(_firsts(lambda form: form.has_command)),
        "WORDS": " ".join(_names(words_of(""))),
        "VALUED": " ".join(_names(option for option in words_of("") if option.metavar)),
        "TERMS": " ".join(TERMS),
        "ASIDES": " ".join(f"--{option.word}" for option in asides()),
    }


def _names(found: Iterable[Option]) -> list[str]:
    return [option.word for option in found]


def _with_values() -> list[Option]:
    """The options for whose value the shell has something to offer."""
    return [option for option in words_of("") if choices(option.word) or option.metavar == _FILE]


def _bash() -> dict[str, str]:
    words = [f"{first}) words='{' '.join(_names(words_of(first)))}' ;;" for first in _firsts() if words_of(first)]
    operands = [f"{first}) words='{' '.join(literals(first))}' ;;" for first in _firsts() if literals(first)]
    values = [
        f"{option.word}) {'files=1' if option.metavar == _FILE else _bash_words(option.word)} ;;"
        for option in _with_values()
    ]
    return {"CASE_WORDS": _indented(words), "CASE_OPERANDS": _indented(operands), "CASE_VALUES": _indented(values)}


def _bash_words(word: str) -> str:
    return f"words='{' '.join(choices(word))}'"


def _zsh() -> dict[str, str]:
    def described(option: Option, dashes: str = "") -> str:
        return shlex.quote(f"{dashes}{option.word}:{option.summary}")

    words = [f"{first}) list=({_joined(map(described, words_of(first)))}) ;;" for first in _firsts() if words_of(first)]
    words.append(f"*) list=({_joined(map(described, words_of('')))}) ;;")
    operands = [f"{first}) list=({' '.join(literals(first))}) ;;" for first in _firsts() if literals(first)]
    values = []
    for option in _with_values():
        meanings = levels(option.word)
        texts = [f"{text}:{meanings[text]}" if text in meanings else text for text in choices(option.word)]
        offer = "_files" if option.metavar == _FILE else f"list=({_joined(map(shlex.quote, texts))})"
        values.append(f"{option.word}) {offer} ;;")
    return {
        "CASE_WORDS": _indented(words),
        "CASE_OPERANDS": _indented(operands),
        "CASE_VALUES": _indented(values),
        "DESCRIBED_ASIDES": _joined(described(option, "--") for option in asides()),
    }


def _fish() -> dict[str, str]:
    def quoted(text: str) -> str:
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    def row(name: str, about: str) -> str:
        return f"printf '%s\\t%s\\n' {quoted(name)} {quoted(about)}"

    words: list[str] = []
    for option in words_of(""):
        firsts = [first for first in _firsts() if option in words_of(first)]
        test = "" if len(firsts) == len(_firsts(lambda form: form.has_options)) else f"contains -- $role '' {' '.join(firsts)}; and "
        once = "" if option.word in TERMS else f"contains -- {option.word} $used; or "
        words.append(f"{test}{once}{row(option.word, option.summary)}" if not test or not once else "")
        if test and once:
            words[-1] = f"if {test.removesuffix('; and ')}; and not contains -- {option.word} $used; {row(option.word, option.summary)}; end"
    operands = [f"case {first}\n            printf '%s\\n' {' '.join(literals(first))}" for first in _firsts() if literals(first)]
    values = []
    longs = []
    for option in _with_values():
        if option.metavar == _FILE:
            values.append(f"case {option.word}\n            __fish_complete_path (commandline -ct)")
        else:
            rows = "\n            ".join(row(text, levels(option.word).get(text, "")) for text in choices(option.word))
            values.append(f"case {option.word}\n            {rows}")
    for option in (*words_of(""), *asides()):
        offered = choices(option.word)
        kind = "-f" if not option.metavar else "-r -F" if option.metavar == _FILE else f"-x -a {quoted(' '.join(offered))}"
        longs.append(f"complete -c viamillipede -l {option.word} {kind} -d {quoted(option.summary)}")
    return {
        "WORD_ROWS": "\n    ".join(words),
        "CASE_OPERANDS": "\n        ".join(operands),
        "CASE_VALUES": "\n        ".join(values),
        "LONGS": "\n".join(longs),
    }


def _joined(texts: Iterable[str]) -> str:
    return " ".join(texts)


def _indented(lines: Iterable[str]) -> str:
    return "\n        ".join(lines)


_RENDERERS: dict[str, Callable[[], dict[str, str]]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
