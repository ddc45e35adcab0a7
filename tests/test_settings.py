"""The command line as a configuration: forms, paths, values, defaults, the environment, the help text."""

import dataclasses
from collections.abc import Sequence

import pytest
from docopt import docopt

from viamillipede import config, settings
from viamillipede.settings import FIELDS, parse
from viamillipede.config import GIB, KIB, MIB, S_US, Address, RxConfig, TxConfig
from viamillipede.errors import UsageError
from viamillipede.values import TERM_FIELDS
from viamillipede.words import ALIASES, TERMS, USAGE, known_words

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


# Forms. ----------------------------------------------------------------------------------------
def test_roles_and_defaults() -> None:
    assert tx() == TxConfig(addresses=(Address("host", 8834),))
    assert rx() == RxConfig(port=8834)
    assert tx().threads == config.THREADS_AUTO
    assert parse(["tx", "listen", "8834"], {}) == TxConfig(port=8834)
    assert parse(["rx", "host", "8834"], {}) == RxConfig(addresses=(Address("host", 8834),))


def test_a_port_to_listen_on_may_be_the_choice_of_the_kernel() -> None:
    assert parse(["rx", "0"], {}) == RxConfig(port=0)
    assert parse(["tx", "listen", "0"], {}) == TxConfig(port=0)


@pytest.mark.parametrize("role", ["tx", "rx"])
@pytest.mark.parametrize(
    "argv",
    [
        ["ROLE", "a", "1", "ROLE", "b", "2", "verbose", "5", "checksum"],
        ["verbose", "5", "ROLE", "a", "1", "checksum", "ROLE", "b", "2"],
        ["checksums", "ROLE", "a", "1", "--verbose=5", "ROLE", "b", "2"],
        ["--verbose", "5", "--checksum", "ROLE", "a", "1", "ROLE", "b", "2"],
    ],
)
def test_words_in_any_order_and_spelling(role: str, argv: list[str]) -> None:
    addresses = (Address("a", 1), Address("b", 2))
    expected = (TxConfig if role == "tx" else RxConfig)(addresses=addresses, verbose=5, checksum=True)
    assert parse([role if token == "ROLE" else token for token in argv], {}) == expected


@pytest.mark.parametrize("host", ["threads", "checksum", "tx", "rx", "help"])
def test_a_host_may_be_called_like_a_word(host: str) -> None:
    addresses = (Address(host, 8834), Address(host, 1))
    assert parse(["tx", host, "8834", "tx", host, "1", "threads", "4"], {}) == TxConfig(addresses=addresses, threads=4)
    assert parse(["rx", host, "8834", "rx", host, "1", "force"], {}) == RxConfig(addresses=addresses, force=True)


def test_many_paths() -> None:
    argv = [token for port in range(1, 301) for token in ("tx", "h", str(port), "weight", str(port))]
    assert [(address.port, address.weight) for address in parse(argv, {}).addresses] == [(n, n) for n in range(1, 301)]


def test_too_many_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "THREADS_MAX", 3)
    assert len(parse(TX * 3, {}).addresses) == 3
    assert refusal(TX * 4) == "4 paths are too many, at most 3"


FORMS = "say one of: rx PORT; tx listen PORT; tx HOST PORT, or rx HOST PORT, once for each path"


@pytest.mark.parametrize(
    "argv",
    [
        "",
        "threads 4",
        "rx 8834 tx host 8834",
        "rx 8834 rx 8834",
        "rx 8834 rx host 8834",
        "rx host 8834 rx 8834",
        "rx host 8834 tx host 8834",
        "tx listen 8834 tx host 8834",
        "tx host 8834 tx listen 8834",
        "tx listen 8834 tx listen 8835",
        "tx listen 8834 rx 8834",
    ],
)
def test_exactly_one_form(argv: str) -> None:
    assert refusal(argv.split()) == FORMS


def test_words_of_one_role() -> None:
    for words in ("threads 4", "frame 1M", "chaos 9", "--chaos-kind=all", "limit 5M"):
        name = words.removeprefix("--").partition("=")[0].split()[0]
        for role in (["rx", "8834"], ["rx", "host", "8834"]):
            assert refusal([*words.split(), *role]) == f"{name!r} is a word of tx, not of rx"
    for role in (["tx", "host", "8834"], ["tx", "listen", "8834"]):
        assert refusal([*role, "force"]) == "'force' is a word of rx, not of tx"


# Paths. ----------------------------------------------------------------------------------------
def test_the_terms_of_paths() -> None:
    argv = "limit 1G tx a 1 via eth1 weight 2 tx b 2 tx ::1 3 limit 50M/s bind 10.0.0.1 --weight=1000 --via [::2]"
    assert parse(argv.split(), {}) == TxConfig(
        addresses=(
            Address("a", 1, via="eth1", weight=2),
            Address("b", 2),
            Address("::1", 3, via="::2", weight=1000, limit_bytes=50 * MIB),
        ),
        limit_bytes=GIB,
        bind="10.0.0.1",
    )
    assert parse("rx a 1 via eth1 rx b 2".split(), {}) == RxConfig(
        addresses=(Address("a", 1, via="eth1"), Address("b", 2))
    )


def test_the_limit_of_all() -> None:
    assert parse("tx listen 1 limit 50M".split(), {}) == TxConfig(port=1, limit_bytes=50 * MIB)
    assert parse("limit 50M tx a 1".split(), {}) == TxConfig(addresses=(Address("a", 1),), limit_bytes=50 * MIB)
    assert parse("tx a 1 limit 50M".split(), {}) == TxConfig(addresses=(Address("a", 1, limit_bytes=50 * MIB),))


def test_terms_refused() -> None:
    assert refusal("tx a 1 tx b 2 limit 50Mbit".split()).startswith("tx b 2 limit: '50Mbit' is not a rate from 1k")
    assert refusal("limit 5 tx a 1".split()).startswith(
        "limit: '5' is not a rate from 1k to 1T; write bytes per second"
    )
    assert refusal("tx a 1 weight 0".split()) == "tx a 1 weight: '0' is not a whole number from 1 to 1000"
    assert refusal("rx a 1 via :::".split()).startswith("rx a 1 via: ':::' is neither an address")


# Values. ---------------------------------------------------------------------------------------
def test_every_word_of_tx() -> None:
    words = (
        "threads 1024 congestion bbr checksum checkphrase wat! chaos 1731 chaos-kind corrupt verbose 20 "
        "window 1G frame 16M bind 10.0.0.1 outage 2h regroup 500ms wait 5m"
    )
    assert tx(*words.split()) == TxConfig(
        addresses=(Address("host", 8834),),
        threads=1024,
        congestion="bbr",
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
    words = "checksums congestion cubic checkphrase wat! verbose 0 window 64k bind :: outage 1 regroup 0 wait 90 force"
    assert rx(*words.split()) == RxConfig(
        port=8834,
        congestion="cubic",
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
        ("threads 0", "threads: '0' is not a whole number from 1 to 1024, nor auto"),
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
        ("--threads=", "threads: '' is not a whole number from 1 to 1024, nor auto"),
        ("congestion BBR", "congestion: 'BBR' is not the name of a congestion control"),
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
        "chaos-kind": "all", "limit": "5M", "congestion": "bbr",
    }  # fmt: skip
    assert set(texts) == set(known_words()) - {"via", "weight"}
    for word, text in texts.items():
        variables = {"VIAMILLIPEDE_" + word.upper().replace("-", "_"): text}
        changed = rx(**variables) != rx() if word == "force" else tx(**variables) != tx()
        assert changed, word


def test_the_command_line_wins() -> None:
    assert tx("threads", "16", VIAMILLIPEDE_THREADS="4").threads == 16
    assert tx("threads", "16", VIAMILLIPEDE_THREADS="bad").threads == 16


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
    assert refusal([*TX, "window", "4M"], VIAMILLIPEDE_FRAME="2M").startswith("VIAMILLIPEDE_FRAME: 2M is more than")


# The help text against the code. ---------------------------------------------------------------
def test_help_and_tables_name_the_same_words() -> None:
    assert set(known_words()) == set(FIELDS) | set(ALIASES) | set(TERM_FIELDS)
    assert set(TERM_FIELDS) == set(TERMS)
    assert set(TERM_FIELDS) & set(FIELDS) == {"limit"}
    fields = {field for field, _ in FIELDS.values()}
    of_configs = {field.name for role in (TxConfig, RxConfig) for field in dataclasses.fields(role)}
    assert of_configs - fields == {"addresses", "port"}


def test_defaults_in_the_help_are_those_of_the_configuration() -> None:
    options = docopt(USAGE, ["rx", "0"], default_help=False)
    printed = {name[2:]: value for name, value in options.items() if isinstance(value, str) and name[:2] == "--"}
    assert set(printed) == {"threads", "window", "frame", "regroup", "outage", "verbose", "chaos", "chaos-kind"}
    for word, text in printed.items():
        field, convert = FIELDS[word]
        assert convert(text) == getattr(TxConfig(), field), word
        if hasattr(RxConfig(), field):
            assert convert(text) == getattr(RxConfig(), field), word
    assert "(default: tx 60s, rx for ever)" in USAGE
    assert (TxConfig().wait_us, RxConfig().wait_us) == (60 * S_US, None)
