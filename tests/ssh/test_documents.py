"""What a user of `to` and `from` is told before asking."""

import re

import pytest

from tests.e2e.helpers import ROOT
from viamillipede.ssh.hint import AFTER_S
from viamillipede.words import USAGE

MAN = re.sub(r"\n(?:\.\w+ )?", " ", (ROOT / "man" / "viamillipede.1").read_text(encoding="utf-8"))
SECTION = MAN.partition(" BOTH ENDS THROUGH SSH ")[2].partition(" WHAT TO CHOOSE WHEN ")[0]
README = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


@pytest.mark.parametrize(
    "said",
    [
        "standard output, which comes out on standard error here", "runs in the user's home directory over there",
        "~/.local/bin usually is not in it", "far-command /path/to/viamillipede", "ServerAliveInterval 60",
        "and the near end exits 5, which is transient", "asks a second time for a password, unless there is an agent",
        f"says after {AFTER_S:.0f} seconds what can be done", "as any tx or rx does",
    ],
)  # fmt: skip
def test_the_manual_page(said: str) -> None:
    assert said in SECTION


@pytest.mark.parametrize(
    "said",
    [
        "far-command /opt/venv/bin/viamillipede", "ssh-command 'ssh -p 2222 -i file'", "rx 8834 phrase ask >",
        "tx host 8834 phrase ask <", "VIAMILLIPEDE_KEY_FILE", "mode 600", "comes out on standard error here",
        "runs over there in your home directory",
    ],
)  # fmt: skip
def test_the_readme(said: str) -> None:
    assert said in README


def test_the_help() -> None:
    assert "runs COMMAND in the\nhome directory there" in USAGE
