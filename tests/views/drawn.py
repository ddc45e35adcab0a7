"""What a terminal would make of what was drawn."""

import re
from pathlib import Path

from rich.cells import cell_len

DATA = Path(__file__).resolve().parent.parent / "data"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def seen(drawn: str) -> str:
    """Without colours; fails if anything else is left that a terminal would not print."""
    text = _COLOUR.sub("", drawn)
    assert text.isprintable(), f"a control character in {text!r}"
    return text


def width_of(drawn: str) -> int:
    """How many cells it takes."""
    return cell_len(seen(drawn))


def same_as_golden(name: str, text: str) -> None:
    """Compare with tests/data/NAME; ends of lines without spaces. To store it anew, remove the file and run twice."""
    path = DATA / name
    text = "".join(line.rstrip() + "\n" for line in text.splitlines())
    if not path.exists():
        path.write_text(text, encoding="utf-8")
        raise AssertionError(f"{path} did not exist and was written: look at it, then run again")
    assert text == path.read_text(encoding="utf-8")
