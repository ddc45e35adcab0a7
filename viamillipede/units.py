"""Numbers as people write and read them: sizes, durations, counts.

The parsers take text from the command line or the environment and raise `UsageError` whose text
says what was expected; the formatters are for messages. Sizes are bytes, suffixes powers of 1024;
durations are integers of microseconds.
"""

import re

from viamillipede.config import KIB, MS_US, S_US
from viamillipede.errors import UsageError

_SIZE_FACTORS = {"": 1, "k": KIB, "m": KIB**2, "g": KIB**3, "t": KIB**4}
_DURATION_FACTORS_US = {"ms": MS_US, "s": S_US, "": S_US, "m": 60 * S_US, "h": 3600 * S_US}
SIZE_MAX = 1 << 60
DURATION_US_MAX = 365 * 24 * 3600 * S_US  # a year is for ever; a timer must still be able to hold it

# [0-9] and not \d, which takes the digits of every script. The counts of digits bound the arithmetic.
_INT = re.compile(r"[0-9]{1,18}")
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)(?:([kmgt])(?:i?b)?|b)?", re.IGNORECASE | re.ASCII)
# A b is a byte in a size; in a rate 50Mb/s is read as bits by many, so only B is one there.
_RATE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)(?:([kmgtKMGT])(?:i?B)?|B)?(?:/s)?", re.ASCII)
_DURATION = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)(ms|[smh]?)", re.IGNORECASE | re.ASCII)


def parse_int(text: str, low: int, high: int) -> int:
    """A whole decimal number from `low` to `high`, both included. Raises UsageError."""
    if not _INT.fullmatch(text) or not low <= int(text) <= high:
        raise UsageError(f"{text!r} is not a whole number from {low} to {high}")
    return int(text)


def parse_size(text: str, low: int, high: int) -> int:
    """Bytes from `low` to `high`, both included: `65536`, `64k`, `1.5G`, `64MiB`. Raises UsageError."""
    match = _SIZE.fullmatch(text)
    size = _scale(match[1], _SIZE_FACTORS[(match[2] or "").lower()]) if match else -1
    if not low <= size <= high:
        limits = f"from {spell_size(low)} to {spell_size(high)}"
        raise UsageError(f"{text!r} is not a size {limits}; write bytes, or k, M, G, T after the number")
    return size


def parse_rate(text: str, low: int, high: int) -> int:
    """Bytes per second from `low` to `high`, both included: `50M`, `50MB/s`, `1.5G`. Raises UsageError."""
    match = _RATE.fullmatch(text)
    rate = _scale(match[1], _SIZE_FACTORS[(match[2] or "").lower()]) if match else -1
    if not low <= rate <= high:
        limits = f"from {spell_size(low)} to {spell_size(high)}"
        raise UsageError(f"{text!r} is not a rate {limits}; write bytes per second, or k, M, G, T after the number")
    return rate


def parse_duration_us(text: str) -> int:
    """Microseconds, at most a year: `90` and `90s`, `1.5h`, `200ms`. Raises UsageError."""
    match = _DURATION.fullmatch(text)
    duration_us = _scale(match[1], _DURATION_FACTORS_US[match[2].lower()]) if match else -1
    if not 0 <= duration_us <= DURATION_US_MAX:
        raise UsageError(f"{text!r} is not a duration up to a year; write seconds, or ms, s, m, h after the number")
    return duration_us


def _scale(number: str, factor: int) -> int:
    """The decimal fraction times `factor`, exactly, rounded down."""
    whole, _, fraction = number.partition(".")
    divisor: int = 10 ** len(fraction)
    return int(whole + fraction) * factor // divisor


def spell_size(size: int) -> str:
    """The shortest text that `parse_size` reads as exactly `size` bytes: `64k`."""
    for suffix, factor in (("T", KIB**4), ("G", KIB**3), ("M", KIB**2), ("k", KIB)):
        if size and size % factor == 0:
            return f"{size // factor}{suffix}"
    return str(size)


def format_bytes(count: float) -> str:
    """A number of bytes for a reader: `512 B`, `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        text = f"{count:.0f}" if unit == "B" else f"{count:.1f}"
        if float(text) < 1024:  # the rounded figure: 1023.99 KiB reads 1.0 MiB
            return f"{text} {unit}"
        count /= 1024
    return f"{count:.1f} PiB"


def format_rate(bytes_per_s: float) -> str:
    """A rate in bytes per second for a reader: `812.3 MiB/s`."""
    return f"{format_bytes(bytes_per_s)}/s"


def format_duration_us(duration_us: int) -> str:
    """Microseconds for a reader, about three figures: `850 us`, `12.3 ms`, `4.56 s`, `2m05s`, `3h02m05s`."""
    if duration_us < 1_000:
        return f"{duration_us} us"
    if duration_us < 999_950:
        return f"{duration_us / MS_US:.1f} ms"
    if duration_us < 59_995_000:
        return f"{duration_us / S_US:.2f} s"
    minutes, seconds = divmod((duration_us + S_US // 2) // S_US, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m{seconds:02}s" if hours else f"{minutes}m{seconds:02}s"
