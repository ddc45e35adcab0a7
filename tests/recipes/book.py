"""The recipes of viamillipede(7), section RECIPES, as texts that a shell can run.

Each .Ss of that section is a recipe: literal blocks of commands, and prose between them. A block of two paragraphs
is what runs on the receiving host, then what runs on the sending one; a block of one paragraph is a variant of the
sending side. The tests run these very texts, so they say nothing that was not run.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "man" / "viamillipede.7"
README = ROOT / "README.md"
_ESCAPES = {r"\e": "\\", r"\(aq": "'", r"\-": "-"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """One block of commands: shell text for each host, "" where it has none; `title` is that of its .Ss."""

    title: str
    receiver: str
    sender: str


def book() -> dict[tuple[str, int], Recipe]:
    """Every block of the page, by title and number (from 0) below that title, in the page's order."""
    return {
        (title, number): _recipe(title, _plain(block))
        for title, text in sections().items()
        for number, block in enumerate(_blocks(text))
    }


def recipe(title: str, number: int = 0) -> Recipe:
    """That block. KeyError if the page has none."""
    return book()[title, number]


def sections() -> dict[str, str]:
    """The mdoc source of each .Ss of RECIPES, by its title."""
    page = PAGE.read_text(encoding="utf-8")
    chapter = re.search(r"^\.Sh RECIPES\n(.*?)(?=^\.Sh )", page, flags=re.M | re.S)
    assert chapter, f"{PAGE.name} has no section RECIPES"
    parts = re.split(r"^\.Ss (.*)\n", chapter[1], flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def readme_blocks() -> dict[str, list[str]]:
    """The indented blocks below each ### of the README's section Recipes."""
    text = README.read_text(encoding="utf-8")
    chapter = re.search(r"^## Recipes\n(.*?)(?=^## )", text, flags=re.M | re.S)
    assert chapter, "README.md has no section Recipes"
    parts = re.split(r"^### (.*)\n", chapter[1], flags=re.M)[1:]
    found = {}
    for title, body in zip(parts[::2], parts[1::2], strict=True):
        blocks = re.findall(r"(?:^(?:    .*)?\n)+", body, flags=re.M)
        found[title] = [re.sub(r"^    ", "", block, flags=re.M).strip("\n") for block in blocks if block.strip()]
    return found


def _blocks(source: str) -> list[str]:
    return re.findall(r"^\.Bd -literal[^\n]*\n(.*?)^\.Ed$", source, flags=re.M | re.S)


def _plain(source: str) -> str:
    """Roff source as what it shows."""
    return re.sub(r"\\(?:e|\(aq|-)", lambda match: _ESCAPES[match[0]], source)


def _recipe(title: str, text: str) -> Recipe:
    """A block taken apart."""
    paragraphs = [part.strip("\n") for part in re.split(r"\n{2,}", text)]
    assert 1 <= len(paragraphs) <= 2, f"{title}: one paragraph for each host, or one for the sending host"
    return Recipe(title, paragraphs[0] if len(paragraphs) == 2 else "", paragraphs[-1])
