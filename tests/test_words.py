"""Words: their order and spelling, what stands behind tx and rx, which word is about which path, refusals."""

import re
from collections.abc import Sequence

import pytest
from docopt import docopt

from viamillipede import config, words
from viamillipede.errors import Exit, UsageError
from viamillipede.settings import ASK
from viamillipede.words import USAGE, closest, known_words, translate

TX = ("tx", "host", "8834")
RX = ("rx", "8834")


def refusal(*argv: str) -> str:
    """The message with which `argv` is refused."""
    with pytest.raises(UsageError) as caught:
        translate(argv)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Tokens. ---------------------------------------------------------------------------------------
def test_translation() -> None:
    line = translate(["chaos", "7", "tx", "h", "1", "checksums", "--chaos-kind", "all", "help"])
    assert line.tokens == ["--chaos=7", "tx", "h", "1", "--checksum", "--chaos-kind=all", "--help"]
    assert line.paths == [{}]


@pytest.mark.parametrize("threads", [["threads", "16"], ["--threads", "16"], ["--threads=16"]])
@pytest.mark.parametrize("checksum", ["checksum", "checksums", "--checksum", "--checksums"])
def test_spellings(threads: list[str], checksum: str) -> None:
    assert translate([*threads, *TX, checksum]).tokens == ["--threads=16", *TX, "--checksum"]


def test_values_are_taken_literally() -> None:
    assert translate([*TX, "bind", "threads"]).tokens == [*TX, "--bind=threads"]
    assert translate(["bind", "rx", *TX]).tokens == ["--bind=rx", *TX]
    assert translate([*TX, "checkphrase", "--ab"]).tokens == [*TX, "--checkphrase=--ab"]
    assert translate([*TX, "--bind=a=b"]).tokens == [*TX, "--bind=a=b"]


def test_has() -> None:
    line = translate([*TX, "chaos-kind", "all"])
    assert line.has("chaos-kind")
    assert not line.has("chaos")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("thread", "unknown word 'thread'; did you mean 'threads'?"),
        ("--thread=4", "unknown word '--thread=4'; did you mean '--threads'?"),
        ("threads=4", "unknown word 'threads=4'; write 'threads 4' or '--threads=4'"),
        ("via=x", "unknown word 'via=x'; write 'via x' or '--via=x'"),
        ("CHECKSUM", "unknown word 'CHECKSUM'; did you mean 'checksum'?"),
        ("--tx", "unknown word '--tx'; did you mean 'tx'?"),
        ("--hlep", "unknown word '--hlep'; did you mean '--help'?"),
        ("hlep", "unknown word 'hlep'; did you mean 'help'?"),
        ("--show-confg", "unknown word '--show-confg'; did you mean '--show-config'?"),
        ("doctro", "unknown word 'doctro'; did you mean 'doctor'?"),
        ("--doctor", "unknown word '--doctor'; did you mean 'doctor'?"),
        ("compltion", "unknown word 'compltion'; did you mean 'completion'?"),
        ("completion", "'completion' stands alone: viamillipede completion bash|zsh|fish"),
        ("--completion", "'--completion' stands alone: viamillipede completion bash|zsh|fish"),
        ("keep=1", "unknown word 'keep=1'; did you mean 'keep'?"),
        ("COMMAND", "unknown word 'COMMAND'"),
        ("-t", "unknown word '-t'"),
        ("--=", "unknown word '--='"),
        ("zzz", "unknown word 'zzz'"),
        ("two\nlines", "unknown word 'two\\nlines'"),
    ],
)
def test_unknown_word(word: str, message: str) -> None:
    assert refusal(*RX, word) == message


def test_closest() -> None:
    assert closest("wieght", ["via", "weight"]) == "weight"
    assert closest("zzz", ["via", "weight"]) == ""
    assert closest("v", ["via", "weight"]) == "", "one letter means nothing"


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (["threads", "4", "--threads=4"], "threads"),
        (["checksum", "checksums"], "checksum"),
        (["chaos", "4", "chaos-kind", "close", "chaos", "5"], "chaos"),
    ],
)
def test_a_word_comes_once(said: list[str], word: str) -> None:
    assert refusal(*TX, *said) == f"{word!r} was given twice"
    assert refusal(*said, *TX) == f"{word!r} was given twice"


def test_values_where_they_belong() -> None:
    assert refusal(*TX, "threads") == "'threads' needs a value after it"
    assert refusal(*TX, "--threads") == "'threads' needs a value after it"
    assert refusal(*TX, "via") == "'via' needs a value after it"
    assert refusal(*TX, "--checksum=1") == "'checksum' takes no value"
    assert refusal(*TX, "threads", "--", "ls") == "'threads' needs a value after it"
    assert refusal(*TX, "via", "--", "ls") == "'via' needs a value after it"
    assert translate([*TX, "--log=--"]).tokens == [*TX, "--log=--"]


def test_asides() -> None:
    for word in ("help", "version", "show-config"):
        for spelling in (word, f"--{word}"):
            assert translate([*TX, spelling]).tokens == [*TX, f"--{word}"]
            assert translate(["doctor", spelling]).tokens == ["doctor", f"--{word}"]


# Commands. -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "command", ["ls", "ls --help", "tx host 8834 -- x", "doctor", "-- --", "--help", "threads", "zzz", "checksum=1"]
)
def test_a_command_is_taken_literally(command: str) -> None:
    line = translate([*RX, "keep", "--", *command.split()])
    assert line.command == command.split()
    assert (line.tokens, line.last, line.paths) == ([*RX, "--keep"], RX, [])
    assert translate([*TX, "--", *command.split()]).paths == [{}]


def test_a_command_that_is_missing() -> None:
    for argv in (["--"], [*RX, "--"], [*TX, "checksum", "--"], ["doctor", "--"]):
        assert refusal(*argv) == "'--' needs a command after it"


# The doctor. -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("argv", "tokens"),
    [
        ("doctor", "doctor"),
        ("doctor json", "doctor --json"),
        ("json doctor", "--json doctor"),
        ("json doctor wait 5", "--json doctor --wait=5"),
        ("doctor host 8834 json", "doctor host 8834 --json"),
        ("wait 5 doctor ::1 8834", "--wait=5 doctor ::1 8834"),
        ("doctor [::1] 8834", "doctor [::1] 8834"),
        ("doctor threads. 8834", "doctor threads. 8834"),
        ("doctor --json", "doctor --json"),
    ],
)
def test_the_doctor(argv: str, tokens: str) -> None:
    line = translate(argv.split())
    assert (line.tokens, line.paths, line.command) == (tokens.split(), [], [])


NEEDS_PEER = "'doctor' needs HOST PORT after it, or nothing"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("doctor host", NEEDS_PEER),
        ("doctor 8834", NEEDS_PEER),
        ("doctor tx host 8834", NEEDS_PEER),
        ("doctor rx 8834", NEEDS_PEER),
        ("doctor listen 8834", NEEDS_PEER),
        ("doctor host:8834", "write host and port as two words: doctor host 8834"),
        ("doctor [::1]:8834 json", "write host and port as two words: doctor [::1] 8834"),
        ("doctor host 0", "doctor PORT: '0' is not a whole number from 1 to 65535"),
        ("doctor host json", "doctor PORT: 'json' is not a whole number from 1 to 65535"),
        ("doctor -x", "unknown word '-x'"),
        ("doctor -- ls", "'doctor' takes no command"),
        ("doctor host 8834 json -- ls", "'doctor' takes no command"),
        ("doctor doctor", "'doctor' does not go with 'doctor'"),
        ("tx a 1 doctor", "'doctor' does not go with 'tx a 1'"),
        ("rx 8834 doctor", "'doctor' does not go with 'rx 8834'"),
        ("doctor json rx 8834", "'rx' does not go with 'doctor'"),
        ("doctor host 8834 tx a 1", "'tx' does not go with 'doctor host 8834'"),
        ("doctor via x", "'via' is no word of doctor"),
        ("doctor host 8834 via x", "'via' is no word of doctor"),
        ("doctor host 8834 weight 3", "'weight' is no word of doctor"),
        ("doctor host 8834 limit 5M", "'limit' is no word of doctor"),
    ],
)
def test_the_doctor_refuses(argv: str, message: str) -> None:
    assert refusal(*argv.split()) == message


# What stands behind tx and rx. -----------------------------------------------------------------
@pytest.mark.parametrize(
    ("argv", "paths"),
    [
        (["rx", "8834"], 0),
        (["rx", "0"], 0),
        (["rx", "65535"], 0),
        (["tx", "listen", "0"], 0),
        (["tx", "listen", "65535"], 0),
        (["tx", "host", "65535"], 1),
        (["rx", "host", "1"], 1),
        (["rx", "::1", "1"], 1),
        (["rx", "10.0.0.1", "1"], 1),
        (["tx", "tx", "1", "tx", "help", "2"], 2),
        (["rx", "rx", "1", "rx", "checksum", "2"], 2),
        (["rx", "threads", "4"], 1),
        (["tx", "listen.", "1"], 1),
        (["tx", "doctor", "1", "tx", "completion", "2"], 2),
        (["rx", "doctor", "1", "rx", "keep", "2"], 2),
        (["rx", "show-config", "1"], 1),
    ],
)
def test_operands(argv: list[str], paths: int) -> None:
    line = translate([*argv, "checksum"])
    assert line.tokens == [*argv, "--checksum"]
    assert line.paths == [{}] * paths


NUMBER = "is not a whole number from"
NO_HOST = "is not a host; write"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("rx", "'rx' needs PORT, or HOST PORT, after it"),
        ("rx --verbose=1", "'rx' needs PORT, or HOST PORT, after it"),
        ("rx host", "'rx' needs PORT, or HOST PORT, after it"),
        ("rx host --checksum", "'rx' needs PORT, or HOST PORT, after it"),
        ("rx -1", f"rx PORT: '-1' {NUMBER} 0 to 65535"),
        ("rx 65536", f"rx PORT: '65536' {NUMBER} 0 to 65535"),
        ("rx host 0", f"rx PORT: '0' {NUMBER} 1 to 65535"),
        ("rx host checksum", f"rx PORT: 'checksum' {NUMBER} 1 to 65535"),
        ("rx 8834 9000", f"'8834' {NO_HOST} rx HOST PORT to dial, or rx PORT to listen"),
        ("rx 8834 -1", f"'8834' {NO_HOST} rx HOST PORT to dial, or rx PORT to listen"),
        ("rx listen 8834", "'listen' is for tx only; write rx PORT to listen, or rx HOST PORT to dial"),
        ("rx listen", "'listen' is for tx only; write rx PORT to listen, or rx HOST PORT to dial"),
        ("rx -- ls", "'rx' needs PORT, or HOST PORT, after it"),
        ("rx completion", "'rx' needs PORT, or HOST PORT, after it"),
        ("tx host -- ls", "'tx' needs HOST PORT, or listen PORT, after it"),
        ("tx listen -- ls", "'tx listen' needs a PORT"),
        ("rx host:8834", "write host and port as two words: rx host 8834"),
        ("tx", "'tx' needs HOST PORT, or listen PORT, after it"),
        ("tx host", "'tx' needs HOST PORT, or listen PORT, after it"),
        ("tx host -v", "'tx' needs HOST PORT, or listen PORT, after it"),
        ("tx --threads 4", "'tx' needs HOST PORT, or listen PORT, after it"),
        ("tx listen", "'tx listen' needs a PORT"),
        ("tx listen --checksum", "'tx listen' needs a PORT"),
        ("tx listen threads", f"tx PORT: 'threads' {NUMBER} 0 to 65535"),
        ("tx listen 65536", f"tx PORT: '65536' {NUMBER} 0 to 65535"),
        ("tx 8834", f"'8834' {NO_HOST} tx HOST PORT to dial, or tx listen PORT to listen"),
        ("tx 8834 threads 4", f"'8834' {NO_HOST} tx HOST PORT to dial, or tx listen PORT to listen"),
        ("tx localhost -1", f"tx PORT: '-1' {NUMBER} 1 to 65535"),
        ("tx host threads 4", f"tx PORT: 'threads' {NUMBER} 1 to 65535"),
        ("tx host 0", f"tx PORT: '0' {NUMBER} 1 to 65535"),
        ("tx host 65536", f"tx PORT: '65536' {NUMBER} 1 to 65535"),
        ("tx host:8834", "write host and port as two words: tx host 8834"),
        ("tx host:8834 threads 4", "write host and port as two words: tx host 8834"),
        ("tx [::1]:8834", "write host and port as two words: tx [::1] 8834"),
        ("tx host:port 1", "tx HOST: 'host:port' is not an IPv6 address; host and port are two words"),
    ],
)
def test_operands_refused(argv: str, message: str) -> None:
    assert refusal(*argv.split()) == message


# Words about one path. -------------------------------------------------------------------------
def test_words_belong_to_the_path_before_them() -> None:
    argv = (
        "limit 9M tx a 1 via eth1 checksum weight 2 tx b 2 tx c 3 --limit=5M threads 4 --via ::1 "
        "tx d 4 limit 1M/s bind x"
    )
    line = translate(argv.split())
    assert line.paths == [{"via": "eth1", "weight": "2"}, {}, {"limit": "5M", "via": "::1"}, {"limit": "1M/s"}]
    assert line.tokens == ("--limit=9M tx a 1 --checksum tx b 2 tx c 3 --threads=4 tx d 4 --bind=x".split())


def test_words_of_a_path_that_rx_dials() -> None:
    assert translate("rx a 1 via eth1 rx b 2 via 10.0.0.1".split()).paths == [{"via": "eth1"}, {"via": "10.0.0.1"}]


@pytest.mark.parametrize("argv", ["tx listen 1 limit 5M", "limit 5M tx listen 1", "limit 5M tx a 1", "limit 5M"])
def test_a_limit_without_a_path_is_that_of_all(argv: str) -> None:
    line = translate(argv.split())
    assert "--limit=5M" in line.tokens
    assert not any(line.paths)


def test_a_value_before_the_role_is_not_taken_for_it() -> None:
    assert translate("limit 5M bind rx tx a 1".split()).tokens == "--limit=5M --bind=rx tx a 1".split()


@pytest.mark.parametrize("said", ["via x --via=y", "weight 1 checksum weight 1", "limit 5M limit=5M limit 5M"])
def test_a_word_comes_once_for_each_path(said: str) -> None:
    word, value, *_ = said.split()
    again = said.replace("limit=5M ", "").split()
    assert refusal("tx", "a", "1", word, value, "tx", "b", "2", *again) == f"{word!r} was given twice behind 'tx b 2'"


def test_the_total_comes_once() -> None:
    assert refusal(*"limit 5M limit 6M tx a 1".split()) == "'limit' was given twice"
    assert refusal(*"limit 5M tx listen 1 limit 6M".split()) == "'limit' was given twice"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("via x tx a 1", "'via' belongs behind a path, as in tx HOST PORT via ADDRESS"),
        ("via x rx a 1", "'via' belongs behind a path, as in rx HOST PORT via ADDRESS"),
        ("--via=x", "'via' belongs behind a path, as in tx HOST PORT via ADDRESS"),
        ("weight 3 tx a 1", "'weight' belongs behind a path, as in tx HOST PORT weight N"),
        ("weight 3 rx a 1", "'weight' belongs behind a path, as in tx HOST PORT weight N"),
        (
            "tx listen 5 via x",
            "'via' belongs behind a path, as in tx HOST PORT via ADDRESS, and 'tx listen 5' is none; "
            "'bind' says where to listen",
        ),
        (
            "rx 5 via x",
            "'via' belongs behind a path, as in rx HOST PORT via ADDRESS, and 'rx 5' is none; "
            "'bind' says where to listen",
        ),
        (
            "tx listen 5 weight 3",
            "'weight' belongs behind a path, as in tx HOST PORT weight N, and 'tx listen 5' is none",
        ),
        ("rx a 1 weight 3", "'weight' is a word of tx, not of rx"),
        ("rx a 1 limit 5M", "'limit' is a word of tx, not of rx"),
        ("rx 5 limit 5M", "'limit' is a word of tx, not of rx"),
    ],
)
def test_a_word_without_its_path(argv: str, message: str) -> None:
    assert refusal(*argv.split()) == message


# The help text. --------------------------------------------------------------------------------
def test_known_words() -> None:
    known = known_words()
    flags = {"checksum", "checksums", "force", "keep", "progress", "dashboard", "json", "syslog"}
    assert {name for name, takes in known.items() if not takes} == flags
    assert known.keys() > {"via", "weight", "limit", "congestion", "threads", "chaos-kind", "name", "names", "digest"}
    assert not known.keys() & {"help", "version", "show-config", "", "tx", "rx", "doctor", "completion"}


def test_terms_are_words_with_their_argument() -> None:
    options = dict(re.findall(r"^ +--([\w-]+)=(\S+)  ", USAGE, flags=re.M))
    assert {term: options[term] for term in words.TERMS} == words.TERMS
    assert words.ALIASES.items() <= {(alias, word) for alias in known_words() for word in known_words()}


@pytest.mark.parametrize(
    ("tokens", "hosts", "listen"),
    [
        (["rx", "1"], [], False),
        (["tx", "listen", "1"], [], True),
        (["tx", "a", "1", "tx", "b", "1"], ["a", "b"], False),
        (["rx", "a", "1", "rx", "b", "1"], ["a", "b"], False),
    ],
)
def test_forms_of_the_help(tokens: Sequence[str], hosts: list[str], listen: bool) -> None:
    arguments = docopt(USAGE, list(tokens), default_help=False)
    assert (arguments["HOST"], arguments["listen"]) == (hosts, listen)
    assert arguments["PORT"] == ["1"] * max(1, len(hosts))
    assert docopt(USAGE, [*tokens, "--", "tx"], default_help=False)["COMMAND"] == ["tx"]


@pytest.mark.parametrize("operands", [[], ["host", "1"]])
def test_the_doctor_of_the_help(operands: list[str]) -> None:
    arguments = docopt(USAGE, ["doctor", *operands, "--json"], default_help=False)
    assert arguments["doctor"] is True
    assert [*arguments["HOST"], *arguments["PORT"]] == operands
    assert (arguments["tx"], arguments["rx"]) == (0, 0)


def test_limits_in_the_help_are_those_of_the_configuration() -> None:
    assert f"legs in all, 1 to {config.THREADS_MAX};" in USAGE
    assert f"up to {config.THREADS_AUTO_MAX} for each path" in USAGE
    assert f"share, 1 to {config.WEIGHT_MAX}," in USAGE
    assert f"{config.CHECKPHRASE_BYTES} bytes that both" in USAGE
    assert re.search(rf"at least {config.PHRASE_CHARACTERS_MIN}\s+characters: FILE, or {ASK}", USAGE)
    assert f"at a time, 1 to {config.STREAMS_MAX} " in USAGE
    digests = re.search(r"--digest=NAME .*?success: (.*?) where", USAGE, re.DOTALL)
    assert digests
    assert set(config.DIGESTS) == set(re.findall(r"\w+", digests[1])) - {"or"}
    kinds = re.search(r"--chaos-kind=KIND +tx: (.*?)\[", USAGE, re.DOTALL)
    assert kinds
    assert set(config.CHAOS_KINDS) == set(re.findall(r"\w+", kinds[1])) - {"needs", "checksum", "or", "in", "turn"}


def test_exit_statuses_in_the_help() -> None:
    table = USAGE[USAGE.index("Exit status:") : USAGE.index("Examples:")]
    assert sorted(int(number) for number in re.findall(r"\b\d+\b", table)) == sorted(Exit)
    assert re.search(r"4 +key, phrase, checkphrase, .*\n +version, name$", table, re.MULTILINE)


def test_the_help_is_short_and_narrow() -> None:
    lines = USAGE.splitlines()
    assert len(lines) <= 125  # to and from have seven words of their own, which deserve a line each
    assert max(len(line) for line in lines[1:]) <= 80
