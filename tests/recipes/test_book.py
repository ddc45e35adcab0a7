"""The recipes as a book: each is run by a test, and the README's are those of the page."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.recipes.book import README, ROOT, Recipe, book, readme_blocks, recipe, sections
from tests.recipes.helpers import Hosts

RUN = re.compile(r'\brecipe\("([^"]+)"(?:, (\d+))?\)')
COLUMNS_MAX = 74  # what a page 80 columns wide shows of them


def shown(each: Recipe) -> str:
    """A block as a reader sees it."""
    return "\n\n".join(part for part in (each.receiver, each.sender) if part)


def joined(text: str) -> str:
    """Without the line breaks that the shell does not see: the README has wider lines."""
    return re.sub(r" \\\n +", " ", text)


def test_each_block_is_run_by_a_test() -> None:
    sources = [path.read_text() for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__)]
    run = {(title, int(number or 0)) for text in sources for title, number in RUN.findall(text)}
    assert len(run) >= 15
    assert run == set(book())


def test_each_recipe_says_what_goes_wrong() -> None:
    for title, text in sections().items():
        prose = text[text.rindex("\n.Ed") :] if text.count(".Bd") == 1 else re.sub(r"(?s)\.Bd.*?\.Ed", "", text)
        assert len(re.findall(r"\b[a-z]+\b", prose)) >= 15, title


def test_the_blocks_of_the_readme_are_those_of_the_page() -> None:
    readme = readme_blocks()
    assert len(readme) >= 7, f"what is in {README.name}?"
    for title, blocks in readme.items():
        of_the_page = [shown(each) for (name, _), each in book().items() if name == title]
        assert [*map(joined, blocks)] == [*map(joined, of_the_page)], title


@pytest.mark.parametrize("each", book().values(), ids=lambda each: each.title)
def test_a_block_is_shell_and_fits_the_page(each: Recipe) -> None:
    for part in (each.receiver, each.sender):
        done = subprocess.run(["bash", "-n", "-c", part], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert max(map(len, part.splitlines() or [""])) <= COLUMNS_MAX
    assert each.sender


def test_what_is_not_in_the_text_cannot_be_replaced(hosts: Hosts) -> None:
    """Or a recipe could change without its test noticing."""
    text = recipe("A tree of files").sender
    assert hosts.on(text, {"/srv": "/there"}) == text.replace("/srv", "/there").replace("host", "127.0.0.1").replace(
        "8834", str(hosts.port)
    )
    for absent in ("/srv/more", "/sr", "/elsewhere"):
        with pytest.raises(AssertionError, match="is not in the recipe"):
            hosts.on(text, {absent: "/there"})


def test_the_program_is_that_of_this_checkout(hosts: Hosts) -> None:
    where = 'exec 2>&1; cd /; viamillipede --version; sed -n 2p "$(command -v viamillipede)"'
    said = hosts.shell("sender", where).ended().out
    assert re.search(r"\d+\.\d+", said) and str(hosts.bin) in hosts.env["PATH"].split(":")[0], said
    assert hosts.env["PYTHONPATH"] == str(ROOT)
