"""What the command line asks for as a configuration: forms, paths, values, defaults, the help text."""

import dataclasses

import pytest
from docopt import docopt

from tests.asking import TX, addressed, refusal, rx, tx
from viamillipede import config, settings
from viamillipede.config import GIB, KIB, MIB, S_US, Address, DoctorConfig, RxConfig, TxConfig
from viamillipede.settings import FIELDS, FORMS, parse
from viamillipede.values import TERM_FIELDS
from viamillipede.words import ALIASES, TERMS, USAGE, known_words


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
    assert [(address.port, address.weight) for address in addressed(*argv)] == [(n, n) for n in range(1, 301)]


def test_too_many_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "THREADS_MAX", 3)
    assert len(addressed(*TX * 3)) == 3
    assert refusal(TX * 4) == "4 paths are too many, at most 3"


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
        "-- sh",
        "threads 4 -- sh rx 8834",
    ],
)
def test_exactly_one_form(argv: str) -> None:
    assert refusal(argv.split()) == FORMS
    forms = "rx PORT; tx listen PORT; tx HOST PORT, or rx HOST PORT, once for each path; doctor"
    assert f"say one of: {forms}" == FORMS


def test_words_of_one_role() -> None:
    for words in ("threads 4", "frame 1M", "chaos 9", "--chaos-kind=all", "limit 5M", "name db1"):
        name = words.removeprefix("--").partition("=")[0].split()[0]
        for role in (["rx", "8834"], ["rx", "host", "8834"]):
            assert refusal([*words.split(), *role]) == f"{name!r} is a word of tx, not of rx"
    for words in ("force", "keep", "streams 3", "names db*"):
        for role in (["tx", "host", "8834"], ["tx", "listen", "8834"]):
            for command in ([], ["--", "sh"]):
                name = words.split()[0]
                assert refusal([*role, *words.split(), *command]) == f"{name!r} is a word of rx, not of tx"


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
        "window 1G frame 16M bind 10.0.0.1 outage 2h regroup 500ms wait 5m digest sha256 name db1@2026+x:y.z "
        "size 1.5T progress interval 100ms dashboard metrics 9100 log tx.log syslog -- sh -c id"
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
        digest="sha256",
        name="db1@2026+x:y.z",
        size_bytes=3 << 39,
        progress=True,
        interval_us=S_US // 10,
        dashboard=True,
        metrics=Address("127.0.0.1", 9100),
        log="tx.log",
        syslog=True,
        command=("sh", "-c", "id"),
    )


def test_every_word_of_rx() -> None:
    words = (
        "checksums congestion cubic checkphrase wat! verbose 0 window 64k bind :: outage 1 regroup 0 wait 90 force "
        "digest xxh3 names db[0-9]* keep streams 3 size 1 progress interval 1m json metrics [::]:0 "
        "log /var/log/x syslog -- sh"
    )
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
        digest="xxh3",
        names="db[0-9]*",
        keep=True,
        streams=3,
        size_bytes=1,
        progress=True,
        interval_us=60 * S_US,
        json=True,
        metrics=Address("::", 0),
        log="/var/log/x",
        syslog=True,
        command=("sh",),
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
        ("json dashboard", "dashboard: not together with json; both are for standard error"),
        ("digest md5", "digest: 'md5' is none of auto, xxh3, sha256"),
        ("name -x", "name: '-x' is not the name of a stream: 1 to 64 letters, digits or _ @ : + . -"),
        ("interval 99ms", "interval: '99ms' is too short; at least 100ms"),
        ("interval soon", "interval: 'soon' is not a duration"),
        ("size 0", "size: '0' is not a size from 1 to 1048576T"),
        ("metrics here", "metrics: 'here' is not an address to serve at; write PORT, or HOST:PORT"),
        ("--log=", "log: '' is not the name of a file"),
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


# The help text against the code. ---------------------------------------------------------------
def test_help_and_tables_name_the_same_words() -> None:
    assert set(known_words()) == set(FIELDS) | set(ALIASES) | set(TERM_FIELDS)
    assert set(TERM_FIELDS) == set(TERMS)
    assert set(TERM_FIELDS) & set(FIELDS) == {"limit"}
    fields = {field for field, _ in FIELDS.values()}
    of_configs = {field.name for role in (TxConfig, RxConfig, DoctorConfig) for field in dataclasses.fields(role)}
    assert of_configs - fields == {"addresses", "port", "command", "address"}
    assert fields <= of_configs


def test_defaults_in_the_help_are_those_of_the_configuration() -> None:
    options = docopt(USAGE, ["rx", "0"], default_help=False)
    printed = {name[2:]: value for name, value in options.items() if isinstance(value, str) and name[:2] == "--"}
    assert set(printed) == {
        "threads", "window", "frame", "regroup", "outage", "verbose", "chaos", "chaos-kind", "digest", "streams",
    }  # fmt: skip
    for word, text in printed.items():
        field, convert = FIELDS[word]
        defaults = [getattr(role, field) for role in (TxConfig(), RxConfig(), DoctorConfig()) if hasattr(role, field)]
        assert defaults == [convert(text)] * len(defaults) != [], word
    assert "(default: tx 60s, rx for ever)" in USAGE
    assert (TxConfig().wait_us, RxConfig().wait_us) == (60 * S_US, None)
    assert "implies progress (default: 1s)" in USAGE
    assert config.INTERVAL_US_DEFAULT == S_US
