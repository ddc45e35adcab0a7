"""The doctor and its words; the command behind --; keeping on."""

import dataclasses
import os
from pathlib import Path

import pytest

from tests.asking import RX, TX, refusal, rx, tx
from viamillipede import config
from viamillipede.config import S_US, Address, DoctorConfig, RxConfig
from viamillipede.settings import FIELDS, parse
from viamillipede.words import known_words

KEEP = ("keep", "--", "sh")


# The doctor. -----------------------------------------------------------------------------------
def test_the_doctor() -> None:
    assert parse(["doctor"], {}) == DoctorConfig()
    host = DoctorConfig(Address("host", 8834), json=True, bind="10.0.0.1", wait_us=5 * S_US, verbose=3)
    words = "json bind 10.0.0.1 wait 5 --verbose=3".split()
    assert parse(["doctor", "host", "8834", *words], {}) == host
    assert parse([*words, "doctor", "host", "8834"], {}) == host
    assert parse(["doctor", "[::1]", "1", "checkphrase", "wat!"], {}) == DoctorConfig(Address("::1", 1), False, b"wat!")
    assert parse(["doctor", "json"], {}) == DoctorConfig(json=True)


def test_words_that_are_not_for_the_doctor() -> None:
    applicable = {field.name for field in dataclasses.fields(DoctorConfig)}
    others = [word for word, (field, _) in FIELDS.items() if field not in applicable]
    assert {"threads", "keep", "limit", "name", "log"} <= set(others)
    assert not {"json", "wait", "bind", "checkphrase", "verbose"} & set(others)
    for word in others:
        said = [word, "1"] if known_words()[word] else [word]
        for argv in (["doctor", *said], ["doctor", "host", "8834", *said], [*said, "doctor"]):
            assert refusal(argv) == f"{word!r} is no word of doctor"


def test_variables_and_files_are_for_the_doctor_too() -> None:
    environ = {"VIAMILLIPEDE_WAIT": "7", "VIAMILLIPEDE_THREADS": "bad", "VIAMILLIPEDE_KEEP": "1"}
    assert parse(["doctor"], environ, {"verbose": ("2", "a file")}) == DoctorConfig(wait_us=7 * S_US, verbose=2)


# Commands. -------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", ["rx 8834", "rx host 8834", "tx host 8834", "tx listen 8834", "tx a 1 tx b 2"])
@pytest.mark.parametrize(
    "command",
    [
        ["sh"],
        ["sh", "--help", "-h", "--version"],
        ["sh", "tx", "host", "8834", "rx", "1", "doctor", "--verbose=3", "threads", "4"],
        ["sh", "--", "sh", "--"],
        ["sh", "", " ", "two\nlines", "COMMAND"],
    ],
    ids=len,
)
def test_a_command_is_taken_literally(form: str, command: list[str]) -> None:
    parsed = parse([*form.split(), "verbose", "2", "--", *command], {})
    without = parse([*form.split(), "verbose", "2"], {})
    assert not isinstance(without, DoctorConfig)
    assert parsed == dataclasses.replace(without, command=tuple(command))


def test_a_command_may_be_called_like_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("tx", "doctor", "threads", "--help", "--", "help", "completion", "keep"):
        (tmp_path / name).touch(0o755)
        assert rx("--", name, "4").command == (name, "4")
        assert tx("--", name).command == (name,)


def test_a_command_that_cannot_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tmp_path / "plain"
    plain.touch(0o644)
    monkeypatch.chdir(tmp_path)
    for command in ("no-such-command", str(plain), "./plain", str(tmp_path), ""):
        for form in (TX, RX):
            assert refusal([*form, "--", command, "a"]) == f"there is no command {command!r} that can be run"
    os.chmod(plain, 0o755)
    assert tx("--", "./plain").command == ("./plain",)


@pytest.mark.parametrize("line", ["zfs send x", "a|b", "a;b", "a&&b", "a>b", "a<b", "$A"])
def test_a_line_for_the_shell_is_no_command(line: str) -> None:
    hint = "a line for the shell is written: -- bash -o pipefail -c 'LINE'"
    assert refusal([*RX, "--", line]) == f"there is no command {line!r} that can be run; {hint}"


def test_a_command_must_be_there() -> None:
    for argv in ([*RX, "--"], [*TX, "threads", "4", "--"], ["--"]):
        assert refusal(argv) == "'--' needs a command after it"


def test_keep() -> None:
    assert rx(*KEEP) == RxConfig(port=8834, keep=True, command=("sh",))
    assert rx("streams", "256", *KEEP).streams == config.STREAMS_MAX
    assert parse(["keep", "names", "db*", "rx", "0", "--", "sh"], {}) == RxConfig(
        port=0, keep=True, names="db*", command=("sh",)
    )
    assert not rx("--", "sh").keep


NOT_WITH_KEEP = ": not together with keep, whose streams are processes of their own"
NEEDS_COMMAND = ": a command is needed, to be run for each stream: rx PORT keep -- COMMAND"
ONLY_LISTENING = ": only an rx that listens keeps on: rx PORT keep -- COMMAND"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("rx 8834 keep", f"keep{NEEDS_COMMAND}"),
        ("rx 8834 keep streams 2", f"keep{NEEDS_COMMAND}"),
        ("rx host 8834 keep", f"keep{ONLY_LISTENING}"),
        ("rx host 8834 keep -- sh", f"keep{ONLY_LISTENING}"),
        ("rx 8834 streams 2 -- sh", "streams: say keep as well; without it rx serves one stream and exits"),
        ("rx host 8834 streams 2", "streams: say keep as well; without it rx serves one stream and exits"),
        ("rx 8834 dashboard keep -- sh", f"dashboard{NOT_WITH_KEEP}"),
        ("rx 8834 keep streams 0 -- sh", "streams: '0' is not a whole number from 1 to 256"),
        ("rx 8834 keep streams 257 -- sh", "streams: '257' is not a whole number from 1 to 256"),
    ],
)
def test_keep_refused(argv: str, message: str) -> None:
    assert refusal(argv.split()) == message


def test_keep_of_a_profile_says_where_it_is() -> None:
    assert refusal(RX, VIAMILLIPEDE_KEEP="yes") == f"VIAMILLIPEDE_KEEP{NEEDS_COMMAND}"
    file = {"keep": ("yes", "/etc/viamillipede.conf line 3")}
    assert refusal(["rx", "h", "1"], file) == f"/etc/viamillipede.conf line 3{ONLY_LISTENING}"
    assert rx(VIAMILLIPEDE_STREAMS="4").streams == 4, "a profile may have it; it means nothing without keep"
