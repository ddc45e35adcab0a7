"""`viamillipede to DEST --show-config`: what is in force at this end, and where it was said."""

from collections.abc import Collection

from viamillipede.config_files import show
from viamillipede.settings import Said

_COLUMN = 32  # where the words of to and from end
_HEAD = "# Words of to and from, which no file can say:\n"
_REST = "# The others. The far end is told what command line and environment say of them; its files are its own:\n"


def shown(own: Said, in_force: Said, without: Collection[str]) -> str:
    """Text for standard output. `own`: the words of to and from; `in_force`: the others; `without`: those they lack.

    By word: its value, "" for a word that has none, and where that was said.
    """
    lines = [f"{f'# {word} {text}'.rstrip():<{_COLUMN}} # {where}" for word, (text, where) in own.items()]
    others = [line for line in show(in_force).splitlines() if line.removeprefix("# ").split()[0] not in without]
    text = _HEAD + "\n".join(lines) + "\n" + _REST + "\n".join(others) + "\n"
    return text.encode(errors="backslashreplace").decode()
