"""Sizes, durations and counts: what is read, what is refused, what is printed."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viamillipede.config import GIB, KIB, MIB, MS_US, S_US
from viamillipede.errors import UsageError
from viamillipede.units import (
    DURATION_US_MAX,
    SIZE_MAX,
    format_bytes,
    format_duration_us,
    format_rate,
    parse_duration_us,
    parse_int,
    parse_rate,
    parse_size,
    spell_size,
)

TIB = 1024 * GIB
NO_NUMBERS = ["", " ", "x", "-1", "+1", "1_0", " 1", "1 ", "\u0663", "1e3", "0x10", "nan", "inf", "9" * 5000, "1\n"]


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("16", 16), ("1024", 1024), ("007", 7)])
def test_int(text: str, value: int) -> None:
    assert parse_int(text, 1, 1024) == value


@pytest.mark.parametrize("text", [*NO_NUMBERS, "0", "1025", "1.0", "1k"])
def test_int_refused(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"{text!r} is not a whole number from 1 to 1024")):
        parse_int(text, 1, 1024)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("65536", 64 * KIB),
        ("64k", 64 * KIB),
        ("64K", 64 * KIB),
        ("1m", MIB),
        ("1M", MIB),
        ("64MB", 64 * MIB),
        ("64MiB", 64 * MIB),
        ("64mib", 64 * MIB),
        ("100B", 100),
        ("3g", 3 * GIB),
        ("3G", 3 * GIB),
        ("2T", 2 * TIB),
        ("1.5G", 3 * GIB // 2),
        ("0.1k", 102),  # exact arithmetic, then whole bytes
    ],
)
def test_size(text: str, size: int) -> None:
    assert parse_size(text, 0, 4 * TIB) == size


@pytest.mark.parametrize("text", [*NO_NUMBERS, "64ib", "64Bi", "64MBB", "k", "1 k", ".5k", "1.k", "1.5.2k", "1\u212a"])
def test_size_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size from 0 to 4T; write bytes, or k, M, G, T") as caught:
        parse_size(text, 0, 4 * TIB)
    assert str(caught.value).startswith(repr(text))


def test_size_limits() -> None:
    assert (parse_size("1048576T", 1, SIZE_MAX), spell_size(SIZE_MAX)) == (SIZE_MAX, "1048576T")
    with pytest.raises(UsageError, match="not a size from 1 to 1048576T"):
        parse_size("1048576.000001T", 1, SIZE_MAX)
    assert parse_size("64k", 64 * KIB, MIB) == 64 * KIB
    assert parse_size("1M", 64 * KIB, MIB) == MIB
    for text in ("65535", "1048577", "63k"):
        with pytest.raises(UsageError, match="not a size from 64k to 1M"):
            parse_size(text, 64 * KIB, MIB)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("30000", 30_000),
        ("50k", 50 * KIB),
        ("50M", 50 * MIB),
        ("50m", 50 * MIB),
        ("50M/s", 50 * MIB),
        ("50MB/s", 50 * MIB),
        ("50MiB/s", 50 * MIB),
        ("50B/s", 50),
        ("1.5G", 3 * GIB // 2),
        ("1T", TIB),
    ],
)
def test_rate(text: str, rate: int) -> None:
    assert parse_rate(text, 0, TIB) == rate


@pytest.mark.parametrize("text", [*NO_NUMBERS, "50Mb", "50Mb/s", "50Mbit", "50Mbit/s", "50M/S", "50M/m", "50M/", "/s"])
def test_rate_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a rate from 0 to 1T; write bytes per second, or k, M, G, T") as caught:
        parse_rate(text, 0, TIB)
    assert str(caught.value).startswith(repr(text))


def test_rate_limits() -> None:
    assert (parse_rate("1k", KIB, MIB), parse_rate("1M", KIB, MIB)) == (KIB, MIB)
    for text in ("1023", "1048577"):
        with pytest.raises(UsageError, match="not a rate from 1k to 1M"):
            parse_rate(text, KIB, MIB)


@pytest.mark.parametrize(
    ("text", "duration_us"),
    [
        ("0", 0),
        ("90", 90 * S_US),
        ("90s", 90 * S_US),
        ("15m", 900 * S_US),
        ("15M", 900 * S_US),
        ("2h", 7200 * S_US),
        ("250ms", 250 * MS_US),
        ("250MS", 250 * MS_US),
        ("0.5", S_US // 2),
        ("1.5h", 5400 * S_US),
        ("8760h", DURATION_US_MAX),
    ],
)
def test_duration(text: str, duration_us: int) -> None:
    assert parse_duration_us(text) == duration_us


@pytest.mark.parametrize("text", [*NO_NUMBERS, "1d", "5 s", "1h30m", "8761h", "forever", "1\u017f"])
def test_duration_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration up to a year; write seconds, or ms, s, m, h"):
        parse_duration_us(text)


@given(st.integers(0, 4 * TIB))
def test_a_spelt_size_reads_back(size: int) -> None:
    assert parse_size(spell_size(size), 0, 4 * TIB) == size


@given(st.text())
def test_only_usage_errors_come_out(text: str) -> None:
    for parse in (
        lambda t: parse_int(t, 0, 9),
        lambda t: parse_size(t, 0, TIB),
        lambda t: parse_rate(t, 0, TIB),
        parse_duration_us,
    ):
        try:
            assert parse(text) >= 0
        except UsageError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(("size", "text"), [(0, "0"), (1, "1"), (64 * KIB, "64k"), (1536 * KIB, "1536k"), (GIB, "1G")])
def test_spell_size(size: int, text: str) -> None:
    assert spell_size(size) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1023.7, "1.0 KiB"),
        (1024, "1.0 KiB"),
        (MIB - 1, "1.0 MiB"),
        (3 * GIB // 2, "1.5 GiB"),
        (5 * TIB, "5.0 TiB"),
        (2048 * TIB, "2.0 PiB"),
    ],
)
def test_format_bytes(count: float, text: str) -> None:
    assert format_bytes(count) == text


def test_format_rate() -> None:
    assert format_rate(812.3 * MIB) == "812.3 MiB/s"
    assert format_rate(0) == "0 B/s"


@pytest.mark.parametrize(
    ("duration_us", "text"),
    [
        (0, "0 us"),
        (999, "999 us"),
        (1_000, "1.0 ms"),
        (12_340, "12.3 ms"),
        (999_949, "999.9 ms"),
        (999_950, "1.00 s"),
        (4_560_000, "4.56 s"),
        (59_994_999, "59.99 s"),
        (59_995_000, "1m00s"),
        (125 * S_US, "2m05s"),
        (3_599_600_000, "1h00m00s"),
        (10_925 * S_US, "3h02m05s"),
    ],
)
def test_format_duration(duration_us: int, text: str) -> None:
    assert format_duration_us(duration_us) == text
