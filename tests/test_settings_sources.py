"""Command line, environment, files: which one wins, for whom, and who is named when it is wrong."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.asking import RX, TX, refusal, rx, tx
from viamillipede import settings
from viamillipede.config import MIB, Address, TxConfig
from viamillipede.secret import fresh_key, spell_key
from viamillipede.settings import parse
from viamillipede.words import known_words


# The environment. ------------------------------------------------------------------------------
def test_environment() -> None:
    parsed = tx(VIAMILLIPEDE_THREADS="4", VIAMILLIPEDE_CHAOS="9", VIAMILLIPEDE_CHAOS_KIND="stall")
    assert (parsed.threads, parsed.chaos, parsed.chaos_kind) == (4, 9, "stall")


def test_every_word_has_a_variable(tmp_path: Path) -> None:
    (tmp_path / "phrase").write_text("long enough")
    (tmp_path / "phrase").chmod(0o600)
    texts = {
        "threads": "9", "checksum": "on", "checksums": "on", "checkphrase": "abcd", "window": "1G", "frame": "2M",
        "bind": "x", "wait": "3", "regroup": "3", "outage": "3", "force": "1", "verbose": "3", "chaos": "3",
        "chaos-kind": "all", "limit": "5M", "congestion": "bbr", "digest": "xxh3", "name": "a", "names": "a",
        "keep": "yes", "streams": "2", "progress": "1", "interval": "5", "size": "1T", "dashboard": "1", "json": "1",
        "metrics": "1", "log": "x", "syslog": "1", "key": spell_key(fresh_key()), "phrase": f"{tmp_path}/phrase",
    }  # fmt: skip
    assert set(texts) == set(known_words()) - {"via", "weight"}
    for word, text in texts.items():
        variables = {"VIAMILLIPEDE_" + word.upper().replace("-", "_"): text}
        of_rx = word in ("force", "names", "keep", "streams")
        with_command = ("--", "sh")
        changed = rx(*with_command, **variables) != rx(*with_command) if of_rx else tx(**variables) != tx()
        assert changed, word


def test_the_command_line_wins() -> None:
    assert tx("threads", "16", VIAMILLIPEDE_THREADS="4").threads == 16
    assert tx("threads", "16", VIAMILLIPEDE_THREADS="bad").threads == 16


def test_the_environment_wins_over_the_files() -> None:
    files = {"threads": ("4", "a file line 1"), "window": ("2M", "a file line 2"), "checksum": ("yes", "a file line 3")}
    parsed = parse([*TX, "threads", "16"], {"VIAMILLIPEDE_WINDOW": "1M"}, files)
    assert parsed == tx("threads", "16", "window", "1M", "checksum")
    assert parse(TX, {"VIAMILLIPEDE_THREADS": "8"}, files) == tx("threads", "8", "window", "2M", "checksum")
    assert parse(TX, {"VIAMILLIPEDE_THREADS": ""}, files) == tx("threads", "4", "window", "2M", "checksum")
    assert parse(TX, {"VIAMILLIPEDE_CHECKSUMS": "no"}, files) == tx("threads", "4", "window", "2M")
    assert parse([*TX, "checksum"], {"VIAMILLIPEDE_CHECKSUM": "no"}, {"checksum": ("no", "a file")}) == tx("checksum")


def test_what_files_say_of_the_other_role_is_passed_over() -> None:
    files = {"threads": ("bad", "a file"), "keep": ("maybe", "a file"), "limit": ("5M", "a file")}
    assert parse(RX, {}, {"threads": files["threads"], "limit": files["limit"]}) == rx()
    assert parse(TX, {}, {"keep": files["keep"], "limit": files["limit"]}) == TxConfig(
        addresses=(Address("host", 8834),), limit_bytes=5 * MIB
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"threads": ("many", "/etc/x line 7")},
            "/etc/x line 7: 'many' is not a whole number from 1 to 1024, nor auto",
        ),
        ({"checksum": ("maybe", "/etc/x line 7")}, "/etc/x line 7: 'maybe' is neither yes nor no; write one of"),
        ({"frame": ("16M", "/etc/x line 7")}, "/etc/x line 7: 16M is more than a quarter of the window, 1M"),
    ],
)
def test_a_bad_file_is_named(files: Mapping[str, tuple[str, str]], message: str) -> None:
    assert refusal(TX, files, VIAMILLIPEDE_WINDOW="4M").startswith(message)


def test_flags() -> None:
    assert tx(VIAMILLIPEDE_CHECKSUM="Yes").checksum
    assert rx(VIAMILLIPEDE_FORCE="on").force
    for text in ("off", "0", ""):
        assert not tx(VIAMILLIPEDE_CHECKSUM=text).checksum
        assert tx("checksum", VIAMILLIPEDE_CHECKSUM=text).checksum


def test_the_variable_of_limit_is_that_of_all() -> None:
    assert tx("limit", "5M", VIAMILLIPEDE_LIMIT="9M") == TxConfig(
        addresses=(Address("host", 8834, limit_bytes=5 * MIB),), limit_bytes=9 * MIB
    )
    assert parse(["limit", "5M", *TX], {"VIAMILLIPEDE_LIMIT": "9M"}) == TxConfig(
        addresses=(Address("host", 8834),), limit_bytes=5 * MIB
    )


def test_variables_of_one_path_mean_nothing() -> None:
    environ = {"VIAMILLIPEDE_VIA": "eth1", "VIAMILLIPEDE_WEIGHT": "3", "VIAMILLIPEDE_LIMIT": "5M"}
    assert tx(**environ).addresses == (Address("host", 8834),)
    assert settings.strange_variables(environ) == [
        "VIAMILLIPEDE_VIA means nothing; say 'via ADDRESS' behind the HOST PORT that it is for",
        "VIAMILLIPEDE_WEIGHT means nothing; say 'weight N' behind the HOST PORT that it is for",
    ]
    assert settings.strange_variables({"VIAMILLIPEDE_VIA": "", "VIAMILLIPEDE_THREADS": "4"}) == []
    of_a_command = ("VIAMILLIPEDE_SESSION", "VIAMILLIPEDE_PEER", "VIAMILLIPEDE_NAME")
    assert settings.strange_variables(dict.fromkeys(of_a_command, "x")) == [], "it may be viamillipede again"
    assert settings.strange_variables({"VIAMILLIPEDE_LIMT": "5M"}) == [
        "no word has the variable VIAMILLIPEDE_LIMT; did you mean VIAMILLIPEDE_LIMIT?"
    ]
    assert settings.strange_variables({"VIAMILLIPEDE_WEIGTH": "3"}) == [
        "VIAMILLIPEDE_WEIGTH means nothing; say 'weight N' behind the HOST PORT that it is for"
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("VIAMILLIPEDE_THREADS", "many", "VIAMILLIPEDE_THREADS: 'many' is not a whole number from 1 to 1024"),
        ("VIAMILLIPEDE_CHECKSUM", "maybe", "VIAMILLIPEDE_CHECKSUM: 'maybe' is neither yes nor no"),
        ("VIAMILLIPEDE_CHECKSUMS", "maybe", "VIAMILLIPEDE_CHECKSUMS: 'maybe' is neither yes nor no"),
        ("VIAMILLIPEDE_OUTAGE", "5d", "VIAMILLIPEDE_OUTAGE: '5d' is not a duration"),
        ("VIAMILLIPEDE_CHAOS_KIND", "fire", "VIAMILLIPEDE_CHAOS_KIND: 'fire' is none of close, reset"),
    ],
)
def test_a_bad_variable_is_named(name: str, text: str, message: str) -> None:
    assert message in refusal(TX, **{name: text})


def test_a_contradiction_names_the_variable() -> None:
    message = "dashboard: not together with VIAMILLIPEDE_JSON; both are for standard error"
    assert refusal([*TX, "dashboard"], VIAMILLIPEDE_JSON="1") == message
    assert refusal([*TX, "window", "4M"], VIAMILLIPEDE_FRAME="2M").startswith("VIAMILLIPEDE_FRAME: 2M is more than")
