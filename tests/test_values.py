"""Values: what is read, what is refused, and with which words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viamillipede import config, values
from viamillipede.config import KIB, MIB, MS_US, NAME_BYTES_MAX, S_US, THREADS_AUTO, Address
from viamillipede.errors import UsageError
from viamillipede.values import (
    TERM_FIELDS,
    labelled,
    parse_chaos_kind,
    parse_checkphrase,
    parse_congestion,
    parse_digest,
    parse_flag,
    parse_host,
    parse_interval_us,
    parse_limit,
    parse_name,
    parse_names,
    parse_serving_address,
    parse_text,
    parse_threads,
    parse_via,
    read_operands,
)


def test_labels() -> None:
    assert labelled("here", parse_flag, "yes") is True
    with pytest.raises(UsageError, match=r"^here: 'maybe' is neither yes nor no; write one of 1, yes, true, on, 0, no"):
        labelled("here", parse_flag, "maybe")


@pytest.mark.parametrize("text", ["1", "yes", "true", "on", "YES", "On"])
def test_flags_on(text: str) -> None:
    assert parse_flag(text) is True


@pytest.mark.parametrize("text", ["0", "no", "false", "off", "OFF"])
def test_flags_off(text: str) -> None:
    assert parse_flag(text) is False


# Paths. ----------------------------------------------------------------------------------------
def test_operands() -> None:
    assert read_operands("rx", ["8834"]) == Address("", 8834)
    assert read_operands("tx", ["listen", "0"]) == Address("", 0)
    assert read_operands("tx", ["[::1]", "65535"]) == Address("::1", 65535)
    terms = {"via": "eth1", "weight": "3", "limit": "50M"}
    assert read_operands("tx", ["h", "1"], terms) == Address("h", 1, "eth1", 3, 50 * MIB)
    assert read_operands("rx", ["h", "1"], {"via": "[::1]"}) == Address("h", 1, "::1")


@pytest.mark.parametrize(
    ("operands", "terms", "message"),
    [
        (["65536"], {}, "tx PORT: '65536' is not a whole number from 0 to 65535"),
        (["h", "0"], {}, "tx PORT: '0' is not a whole number from 1 to 65535"),
        (["", "1"], {}, "tx HOST: '' is not a host name or an address"),
        (["h", "1"], {"via": ""}, "tx h 1 via: '' is neither an address of this host nor an interface"),
        (["h", "1"], {"weight": "0"}, "tx h 1 weight: '0' is not a whole number from 1 to 1000"),
        (["h", "1"], {"weight": "1001"}, "tx h 1 weight: '1001' is not a whole number from 1 to 1000"),
        (["h", "1"], {"limit": "5"}, "tx h 1 limit: '5' is not a rate from 1k to 1T; write bytes per second, or "),
    ],
)
def test_operands_refused(operands: list[str], terms: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_operands("tx", operands, terms)
    assert str(caught.value).startswith(message)


def test_terms_are_fields_of_an_address() -> None:
    fields = {field for field, _ in TERM_FIELDS.values()}
    assert fields | {"host", "port"} == set(Address.__dataclass_fields__)


# Names. ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "host"),
    [("h", "h"), ("a.example", "a.example"), ("::1", "::1"), ("[::1]", "::1"), ("fe80::1%eth0", "fe80::1%eth0")],
)
def test_host(text: str, host: str) -> None:
    assert parse_host(text) == host
    assert parse_via(text) == host


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not a host name or an address"),
        (" h", "' h' is not a host name or an address"),
        ("a b", "'a b' is not a host name or an address"),
        ("host:port", "'host:port' is not an IPv6 address; host and port are two words"),
        (":::", "':::' is not an IPv6 address; host and port are two words"),
        ("[host]", "'[host]' is not an IPv6 address; host and port are two words"),
        ("[::1", "'[::1' is not an IPv6 address; host and port are two words"),
    ],
)
def test_host_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_host(text)
    assert str(caught.value) == message
    with pytest.raises(UsageError) as caught:
        parse_via(text)
    assert str(caught.value) == f"{text!r} is neither an address of this host nor an interface"


def test_checkphrase() -> None:
    assert parse_checkphrase("wat!") == b"wat!"
    assert parse_checkphrase("\u00f6\u00f6") == "\u00f6\u00f6".encode()
    for text, count in (("abc", 3), ("w\u00f6rt", 5), ("", 0)):
        with pytest.raises(UsageError, match=f"^'{text}' is {count} bytes long; the phrase has exactly 4$"):
            parse_checkphrase(text)


def test_chaos_kind() -> None:
    assert [parse_chaos_kind(kind) for kind in config.CHAOS_KINDS] == list(config.CHAOS_KINDS)
    with pytest.raises(UsageError, match=r"^'fire' is none of close, reset, stall, truncate, corrupt, all$"):
        parse_chaos_kind("fire")


def test_digest() -> None:
    assert [parse_digest(name) for name in config.DIGESTS] == list(config.DIGESTS)
    for text in ("", "md5", "SHA256", "xxh3 "):
        with pytest.raises(UsageError, match=f"^{text!r} is none of auto, xxh3, sha256$"):
            parse_digest(text)


@pytest.mark.parametrize("text", ["a", "db1", "pool+fs@now", "x.y-z:1", "_", "A" * NAME_BYTES_MAX])
def test_name(text: str) -> None:
    assert parse_name(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "-x", ".", "..", ".x", "a/b", "a b", "a\n", "a\0", "$(id)", "a;b", "'", "*", "\u00f6", "\u0663", "A" * 65],
)
def test_name_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_name(text)
    assert str(caught.value) == (
        f"{text!r} is not the name of a stream: 1 to 64 letters, digits or _ @ : + . - (not . or - first)"
    )


@pytest.mark.parametrize("text", ["*", "db*", "node[0-9]", "node[!0-9]?", "[a-z_.]*-??", "a.b", "-", "x" * 256])
def test_names(text: str) -> None:
    assert parse_names(text) == text


@pytest.mark.parametrize(
    "text", ["", "[", "[a", "a]", "[]", "[!]", "[[a]", "a!", "a b", "a/b", "{a,b}", "a\\*", "\u00f6", "x" * 257]
)
def test_names_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_names(text)
    assert str(caught.value) == f"{text!r} is not a pattern of names; write one like db* or node[0-9]"


@pytest.mark.parametrize("text", ["x", "/var/log/x", "a b", " ", "-", "\u00f6"])
def test_file(text: str) -> None:
    assert parse_text(text) == text


@pytest.mark.parametrize("text", ["", "a\0b"])
def test_file_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_text(text)
    assert str(caught.value) == f"{text!r} is not the name of a file"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9100", Address("127.0.0.1", 9100)),
        ("0", Address("127.0.0.1", 0)),
        ("localhost:65535", Address("localhost", 65535)),
        ("0.0.0.0:9100", Address("0.0.0.0", 9100)),
        ("[::1]:9100", Address("::1", 9100)),
        ("[::]:0", Address("::", 0)),
    ],
)
def test_address_to_serve_at(text: str, address: Address) -> None:
    assert parse_serving_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["", ":", ":9100", "host:", "host", "[::1]", "65536", "-1", "1e3", "\u0663", "[a]:1", "[]:1", "a b:1", "x:1 ",
     "http://x:1/", "http://x", " 1", "1\n"],
)  # fmt: skip
def test_address_to_serve_at_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_serving_address(text)
    assert str(caught.value) == f"{text!r} is not an address to serve at; write PORT, or HOST:PORT"


def test_an_address_to_serve_at_has_brackets_around_colons() -> None:
    for text in ("::1:9100", "fe80::1:9100", "a:b:9100"):
        with pytest.raises(UsageError) as caught:
            parse_serving_address(text)
        assert str(caught.value) == f"{text!r}: an IPv6 address is written in brackets, like [::1]:9100"


@pytest.mark.parametrize("text", ["cubic", "bbr", "bbr2", "dctcp-reno", "a_b", "x" * 15])
def test_congestion(text: str) -> None:
    assert parse_congestion(text) == text


@pytest.mark.parametrize("text", ["", "BBR", "x" * 16, "../x", "a b", "bbr\n", "\u00f6"])
def test_congestion_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not the name of a congestion control; write one like cubic or bbr"):
        parse_congestion(text)


# Numbers. --------------------------------------------------------------------------------------
def test_threads() -> None:
    assert parse_threads("auto") == THREADS_AUTO
    assert (parse_threads("1"), parse_threads("1024")) == (1, 1024)
    for text in ("0", "1025", "", "AUTO", "-1"):
        with pytest.raises(UsageError, match=f"^'{text}' is not a whole number from 1 to 1024, nor auto$"):
            parse_threads(text)


def test_interval() -> None:
    assert parse_interval_us("100ms", 100 * MS_US) == 100 * MS_US
    assert parse_interval_us("1.5", 100 * MS_US) == 3 * S_US // 2
    for text in ("0", "99ms", "0.0999"):
        with pytest.raises(UsageError, match=f"^'{text}' is too short; at least 100ms$"):
            parse_interval_us(text, 100 * MS_US)
    with pytest.raises(UsageError, match=r"^'often' is not a duration up to a year"):
        parse_interval_us("often", 100 * MS_US)


def test_limit() -> None:
    assert (parse_limit("1k"), parse_limit("1T"), parse_limit("50M/s")) == (KIB, 1 << 40, 50 * MIB)
    for text in ("1023", "1025G", "0"):
        with pytest.raises(UsageError, match="is not a rate from 1k to 1T"):
            parse_limit(text)


@given(st.text())
def test_only_usage_errors_come_out(text: str) -> None:
    for parse in (
        parse_host,
        parse_via,
        parse_flag,
        parse_checkphrase,
        parse_threads,
        parse_congestion,
        parse_limit,
        parse_digest,
        parse_name,
        parse_names,
        parse_serving_address,
        parse_text,
        lambda said: parse_interval_us(said, 1),
    ):
        try:
            assert parse(text) is not None
        except UsageError as error:
            assert "\n" not in str(error)


def test_listen_is_what_the_forms_say() -> None:
    from viamillipede.words import USAGE

    assert f"viamillipede tx {values.LISTEN} PORT [options]" in USAGE
