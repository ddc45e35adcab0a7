"""The command line: words in any order and spelling, defaults, refusals, exit statuses."""

import dataclasses
import re
from collections.abc import Sequence

import pytest
from docopt import docopt

from viamillipede import cli, config
from viamillipede.cli import USAGE, parse, translate
from viamillipede.config import GIB, KIB, MIB, S_US, Address, RxConfig, TxConfig
from viamillipede.errors import Exit, UsageError

TX = ("tx", "host", "8834")
RX = ("rx", "8834")


def tx(*words: str, **environ: str) -> TxConfig:
    """The configuration that `tx host 8834` and `words` ask for."""
    parsed = parse([*TX, *words], environ)
    assert isinstance(parsed, TxConfig)
    return parsed


def rx(*words: str, **environ: str) -> RxConfig:
    """The configuration that `rx 8834` and `words` ask for."""
    parsed = parse([*RX, *words], environ)
    assert isinstance(parsed, RxConfig)
    return parsed


def refusal(argv: Sequence[str], **environ: str) -> str:
    """The message with which `argv` is refused."""
    with pytest.raises(UsageError) as caught:
        parse(argv, environ)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Grammar. --------------------------------------------------------------------------------------
def test_roles_and_defaults() -> None:
    assert tx() == TxConfig(addresses=(Address("host", 8834),))
    assert rx() == RxConfig(port=8834)


@pytest.mark.parametrize(
    "argv",
    [
        ["tx", "a", "1", "tx", "b", "2", "threads", "16", "checksum"],
        ["threads", "16", "tx", "a", "1", "checksum", "tx", "b", "2"],
        ["checksums", "tx", "a", "1", "--threads=16", "tx", "b", "2"],
        ["--threads", "16", "--checksum", "tx", "a", "1", "tx", "b", "2"],
        ["tx", "a", "1", "tx", "b", "2", "--checksums", "threads", "16"],
    ],
)
def test_words_in_any_order_and_spelling(argv: list[str]) -> None:
    addresses = (Address("a", 1), Address("b", 2))
    assert parse(argv, {}) == TxConfig(addresses=addresses, threads=16, checksum=True)


def test_translation() -> None:
    argv = ["chaos", "7", "tx", "h", "1", "checksums", "--chaos-kind", "all"]
    assert translate(argv) == ["--chaos=7", "tx", "h", "1", "--checksum", "--chaos-kind=all"]


@pytest.mark.parametrize("host", ["threads", "checksum", "tx", "rx", "help"])
def test_a_host_may_be_called_like_a_word(host: str) -> None:
    assert parse(["tx", host, "8834", "tx", host, "1", "threads", "4"], {}) == TxConfig(
        addresses=(Address(host, 8834), Address(host, 1)), threads=4
    )


def test_a_value_may_be_called_like_a_word() -> None:
    assert tx("bind", "threads", "checkphrase", "wait").bind == "threads"
    assert tx("bind", "rx", "checkphrase", "wait").checkphrase == b"wait"
    assert tx("checkphrase", "--ab").checkphrase == b"--ab"


def test_many_addresses() -> None:
    argv = [token for port in range(1, 301) for token in ("tx", "h", str(port))]
    parsed = parse(argv, {})
    assert isinstance(parsed, TxConfig)
    assert [address.port for address in parsed.addresses] == list(range(1, 301))


@pytest.mark.parametrize("host", ["[::1]", "::1"])
def test_ipv6(host: str) -> None:
    assert parse(["tx", host, "8834"], {}) == TxConfig(addresses=(Address("::1", 8834),))
    assert rx("bind", host).bind == "::1"


def test_scoped_ipv6() -> None:
    assert rx("bind", "fe80::1%eth0").bind == "fe80::1%eth0"


@pytest.mark.parametrize("argv", [[], ["threads", "4"], [*RX, *TX], [*RX, *RX]])
def test_exactly_one_role(argv: list[str]) -> None:
    assert refusal(argv) == "say either rx PORT, once, or tx HOST PORT, once for each address"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["rx"], "'rx' needs PORT after it"),
        (["rx", "--verbose=1"], "'rx' needs PORT after it"),
        (["rx", "-1"], "rx PORT: '-1' is not a whole number from 0 to 65535"),
        (["tx", "localhost", "-1"], "tx PORT: '-1' is not a whole number from 1 to 65535"),
        (["tx", "host", "-v"], "'tx' needs HOST PORT after it"),
        (["tx", "host"], "'tx' needs HOST PORT after it"),
        (["tx", "--threads", "4"], "'tx' needs HOST PORT after it"),
        (["tx", "host", "threads", "4"], "tx PORT: 'threads' is not a whole number from 1 to 65535"),
        (["tx", "host", "0"], "tx PORT: '0' is not a whole number from 1 to 65535"),
        (["tx", "host", "65536"], "tx PORT: '65536' is not a whole number from 1 to 65535"),
        (["rx", "65536"], "rx PORT: '65536' is not a whole number from 0 to 65535"),
        (["tx", "", "1"], "tx HOST: '' is not a host name or an address"),
        (["tx", " h", "1"], "tx HOST: ' h' is not a host name or an address"),
        (["tx", "host:8834"], "write host and port as two words: tx host 8834"),
        (["tx", "host:8834", "threads", "4"], "write host and port as two words: tx host 8834"),
        (["tx", "[::1]:8834"], "write host and port as two words: tx [::1] 8834"),
        (["tx", "host:port", "1"], "'host:port' is not an IPv6 address; host and port are two words"),
        (["tx", "[host]", "1"], "tx HOST: '[host]' is not an IPv6 address"),
        (["tx", "[::1", "1"], "tx HOST: '[::1' is not an IPv6 address"),
    ],
)
def test_operands_refused(argv: list[str], message: str) -> None:
    assert message in refusal(argv)


def test_port_limits() -> None:
    assert parse(["rx", "0"], {}) == RxConfig(port=0)
    assert parse(["rx", "65535"], {}) == RxConfig(port=65535)
    assert parse(["tx", "h", "65535"], {}) == TxConfig(addresses=(Address("h", 65535),))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("thread", "unknown word 'thread'; did you mean 'threads'?"),
        ("--thread=4", "unknown word '--thread=4'; did you mean '--threads'?"),
        ("threads=4", "unknown word 'threads=4'; write 'threads 4' or '--threads=4'"),
        ("CHECKSUM", "unknown word 'CHECKSUM'; did you mean 'checksum'?"),
        ("--tx", "unknown word '--tx'; did you mean 'tx'?"),
        ("--hlep", "unknown word '--hlep'; did you mean '--help'?"),
        ("hlep", "unknown word 'hlep'; did you mean 'help'?"),
        ("-t", "unknown word '-t'"),
        ("--", "unknown word '--'"),
        ("--=", "unknown word '--='"),
        ("zzz", "unknown word 'zzz'"),
        ("two\nlines", "unknown word 'two\\nlines'"),
    ],
)
def test_unknown_word(word: str, message: str) -> None:
    assert refusal([*RX, word]) == message


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["threads", "4", "--threads=4"], "threads"),
        (["checksum", "checksums"], "checksum"),
        (["chaos", "4", "chaos-kind", "close", "chaos", "5"], "chaos"),
    ],
)
def test_a_word_comes_once(words: list[str], word: str) -> None:
    assert refusal([*TX, *words]) == f"{word!r} was given twice"


def test_values_where_they_belong() -> None:
    assert refusal([*TX, "threads"]) == "'threads' needs a value after it"
    assert refusal([*TX, "--threads"]) == "'threads' needs a value after it"
    assert refusal([*TX, "--checksum=1"]) == "'checksum' takes no value"
    assert refusal([*TX, "--threads="]) == "threads: '' is not a whole number from 1 to 1024"


@pytest.mark.parametrize("words", [["threads", "4"], ["frame", "1M"], ["chaos", "9"], ["--chaos-kind=all"]])
def test_words_of_tx(words: list[str]) -> None:
    name = words[0].removeprefix("--").partition("=")[0]
    assert refusal([*RX, *words]) == f"{name!r} is a word of tx, not of rx"


def test_words_of_rx() -> None:
    assert refusal([*TX, "force"]) == "'force' is a word of rx, not of tx"


# Values. ---------------------------------------------------------------------------------------
def test_every_word_of_tx() -> None:
    words = (
        "threads 1024 checksum checkphrase wat! chaos 1731 chaos-kind corrupt verbose 20 window 1G frame 16M "
        "bind 10.0.0.1 outage 2h regroup 500ms wait 5m"
    )
    assert tx(*words.split()) == TxConfig(
        addresses=(Address("host", 8834),),
        threads=1024,
        checksum=True,
        checkphrase=b"wat!",
        chaos=1731,
        chaos_kind="corrupt",
        verbose=20,
        window_bytes=GIB,
        frame_bytes=16 * MIB,
        bind="10.0.0.1",
        outage_us=7200 * S_US,
        regroup_us=S_US // 2,
        wait_us=300 * S_US,
    )


def test_every_word_of_rx() -> None:
    words = "checksums checkphrase wat! verbose 0 window 64k bind :: outage 1 regroup 0 wait 90 force"
    assert rx(*words.split()) == RxConfig(
        port=8834,
        checksum=True,
        checkphrase=b"wat!",
        verbose=0,
        window_bytes=64 * KIB,
        bind="::",
        outage_us=S_US,
        regroup_us=0,
        wait_us=90 * S_US,
        force=True,
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("threads 0", "threads: '0' is not a whole number from 1 to 1024"),
        ("threads 1025", "threads: '1025' is not a whole number from 1 to 1024"),
        ("threads --checksum", "threads: '--checksum' is not a whole number from 1 to 1024"),
        ("verbose 21", "verbose: '21' is not a whole number from 0 to 20"),
        ("window 63k", "window: '63k' is not a size from 64k to 64G; write bytes, or k, M, G, T after the number"),
        ("window 65G", "window: '65G' is not a size from 64k to 64G"),
        ("frame 1023", "frame: '1023' is not a size from 1k to 16M"),
        ("frame 17M", "frame: '17M' is not a size from 1k to 16M"),
        ("frame 16M window 32M", "frame: 16M is more than a quarter of the window, 8M"),
        ("outage 5d", "outage: '5d' is not a duration up to a year; write seconds, or ms, s, m, h after the number"),
        ("wait -5", "wait: '-5' is not a duration"),
        ("regroup never", "regroup: 'never' is not a duration"),
        ("checkphrase abc", "checkphrase: 'abc' is 3 bytes long; the phrase has exactly 4"),
        ("checkphrase wört", "checkphrase: 'wört' is 5 bytes long"),
        ("chaos -1", "chaos: '-1' is not a whole number from 0 to"),
        ("chaos 9 chaos-kind fire", "chaos-kind: 'fire' is none of close, reset, stall, truncate, corrupt, all"),
        ("chaos-kind reset", "chaos-kind: say as well how often, with chaos N"),
        ("chaos 9 chaos-kind corrupt", "chaos-kind: corrupt needs checksum"),
        ("bind :::", "bind: ':::' is not an IPv6 address"),
    ],
)
def test_values_refused(words: str, message: str) -> None:
    assert message in refusal([*TX, *words.split()])


def test_a_small_window_shrinks_the_default_frame() -> None:
    assert tx("window", "64k").frame_bytes == 16 * KIB
    assert tx("window", "4M").frame_bytes == config.FRAME_BYTES_DEFAULT
    assert tx("window", "64M", "frame", "16M").frame_bytes == 16 * MIB


def test_chaos_kinds() -> None:
    assert tx("chaos", "9").chaos_kind == "close"
    for kind in config.CHAOS_KINDS:
        assert tx("chaos", "9", "chaos-kind", kind, "checksum").chaos_kind == kind
    assert tx("chaos", "9", "chaos-kind", "all").chaos_kind == "all"
    assert tx("chaos", "0", "chaos-kind", "corrupt").chaos == 0


# Environment. ----------------------------------------------------------------------------------
def test_environment() -> None:
    parsed = tx(VIAMILLIPEDE_THREADS="4", VIAMILLIPEDE_CHAOS="9", VIAMILLIPEDE_CHAOS_KIND="stall")
    assert (parsed.threads, parsed.chaos, parsed.chaos_kind) == (4, 9, "stall")


def test_every_word_has_a_variable() -> None:
    texts = {
        "threads": "9", "checksum": "on", "checksums": "on", "checkphrase": "abcd", "window": "1G", "frame": "2M",
        "bind": "x", "wait": "3", "regroup": "3", "outage": "3", "force": "1", "verbose": "3", "chaos": "3",
        "chaos-kind": "all",
    }  # fmt: skip
    assert set(texts) == set(cli._words())
    for word, text in texts.items():
        variables = {"VIAMILLIPEDE_" + word.upper().replace("-", "_"): text}
        changed = rx(**variables) != rx() if word == "force" else tx(**variables) != tx()
        assert changed, word


def test_the_command_line_wins() -> None:
    assert tx("threads", "16", VIAMILLIPEDE_THREADS="4").threads == 16
    assert tx("threads", "16", VIAMILLIPEDE_THREADS="bad").threads == 16


@pytest.mark.parametrize("text", ["1", "yes", "true", "on", "YES", "On"])
def test_flags_on(text: str) -> None:
    assert tx(VIAMILLIPEDE_CHECKSUM=text).checksum
    assert rx(VIAMILLIPEDE_FORCE=text).force


@pytest.mark.parametrize("text", ["0", "no", "false", "off", "OFF", ""])
def test_flags_off(text: str) -> None:
    assert not tx(VIAMILLIPEDE_CHECKSUM=text).checksum
    assert tx("checksum", VIAMILLIPEDE_CHECKSUM=text).checksum


def test_an_empty_variable_is_none() -> None:
    assert tx(VIAMILLIPEDE_THREADS="", VIAMILLIPEDE_BIND="") == tx()


def test_one_profile_for_both_roles() -> None:
    assert rx(VIAMILLIPEDE_THREADS="4", VIAMILLIPEDE_CHAOS="9", VIAMILLIPEDE_FRAME="2M") == rx()
    assert tx(VIAMILLIPEDE_FORCE="1") == tx()
    assert tx(VIAMILLIPEDE_CHAOS_KIND="all").chaos == 0


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
    assert refusal([*TX, "window", "4M"], VIAMILLIPEDE_FRAME="2M").startswith("VIAMILLIPEDE_FRAME: 2M is more than")


# The help text against the code. ---------------------------------------------------------------
def test_help_and_table_name_the_same_words() -> None:
    assert set(cli._words()) == set(cli._FIELDS) | set(cli._ALIASES)
    fields = {field for field, _ in cli._FIELDS.values()}
    of_configs = {field.name for role in (TxConfig, RxConfig) for field in dataclasses.fields(role)}
    assert of_configs - fields == {"addresses", "port"}


def test_defaults_in_the_help_are_those_of_the_configuration() -> None:
    options = docopt(USAGE, ["rx", "0"], default_help=False)
    printed = {name[2:]: value for name, value in options.items() if isinstance(value, str) and name[:2] == "--"}
    assert set(printed) == {"threads", "window", "frame", "regroup", "outage", "verbose", "chaos", "chaos-kind"}
    for word, text in printed.items():
        field, convert = cli._FIELDS[word]
        assert convert(text) == getattr(TxConfig(), field), word
        if hasattr(RxConfig(), field):
            assert convert(text) == getattr(RxConfig(), field), word
    assert "(default: tx 60s, rx for ever)" in USAGE
    assert (TxConfig().wait_us, RxConfig().wait_us) == (60 * S_US, None)


def test_limits_in_the_help_are_those_of_the_configuration() -> None:
    assert f"1 to {config.THREADS_MAX}" in USAGE
    assert f"{config.CHECKPHRASE_BYTES} bytes that both" in USAGE
    kinds = re.search(r"--chaos-kind=KIND +tx: (.*?)\[", USAGE, re.DOTALL)
    assert kinds
    assert set(config.CHAOS_KINDS) == set(re.findall(r"\w+", kinds[1])) - {"needs", "checksum", "or", "in", "turn"}


def test_exit_statuses_in_the_help() -> None:
    table = USAGE[USAGE.index("Exit status:") : USAGE.index("Examples:")]
    assert sorted(int(number) for number in re.findall(r"\b\d+\b", table)) == sorted(Exit)


def test_the_help_fits_a_screen() -> None:
    lines = USAGE.splitlines()
    assert len(lines) <= 70
    assert max(len(line) for line in lines[1:]) <= 80
