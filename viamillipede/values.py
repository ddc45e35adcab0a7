"""What the words of the command line say, from text: flags, names, hosts, paths. Each reader raises UsageError.

Numbers, sizes, rates and durations are read by `units`.
"""

import ipaddress
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from viamillipede.config import (
    CHAOS_KINDS,
    CHECKPHRASE_BYTES,
    DIGESTS,
    LIMIT_BYTES_MAX,
    LIMIT_BYTES_MIN,
    MS_US,
    NAME,
    NAME_BYTES_MAX,
    THREADS_AUTO,
    THREADS_MAX,
    WEIGHT_MAX,
    Address,
)
from viamillipede.errors import UsageError
from viamillipede.units import parse_duration_us, parse_int, parse_rate

LISTEN = "listen"  # stands where HOST would
_FLAG_TEXTS = {"1": True, "yes": True, "true": True, "on": True, "0": False, "no": False, "false": False, "off": False}
_CONGESTION = re.compile("[a-z0-9_-]{1,15}")  # TCP_CA_NAME_MAX of Linux, less the NUL
_NAMES_MAX = 256
_NAMES = re.compile(r"(?:[A-Za-z0-9_@:+.*?-]|\[!?[A-Za-z0-9_@:+.-]+\])+")  # what no name has cannot match one
_Value = TypeVar("_Value")


def labelled(label: str, convert: Callable[[str], _Value], text: str) -> _Value:
    """`convert(text)`, its UsageError preceded by where the text comes from."""
    try:
        return convert(text)
    except UsageError as error:
        raise UsageError(f"{label}: {error}") from None


def read_operands(role: str, operands: Sequence[str], terms: Mapping[str, str] | None = None) -> Address:
    """What stands behind `tx` or `rx`: HOST PORT and its terms; or only PORT, or `listen` PORT, the host then "".

    A port to listen on may be 0, the kernel's choice. Raises UsageError.
    """
    *hosts, port = operands
    host = labelled(f"{role} HOST", parse_host, hosts[0]) if hosts and hosts != [LISTEN] else ""
    number = labelled(f"{role} PORT", lambda text: parse_int(text, 1 if host else 0, 65535), port)
    of_path = {
        field: labelled(f"{role} {host} {port} {word}", convert, terms[word])
        for word, (field, convert) in TERM_FIELDS.items()
        if terms and word in terms
    }
    return Address(host, number, **of_path)


def parse_host(text: str) -> str:
    """A name or a literal address, without the brackets that IPv6 may have. Raises UsageError."""
    bracketed = text.startswith("[") and text.endswith("]")
    host = text[1:-1] if bracketed else text
    if not host or any(character.isspace() for character in host):
        raise UsageError(f"{text!r} is not a host name or an address")
    if bracketed or ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise UsageError(f"{text!r} is not an IPv6 address; host and port are two words") from None
    return host


def parse_via(text: str) -> str:
    """A source address, a name of one, or an interface. Raises UsageError."""
    try:
        return parse_host(text)
    except UsageError:
        raise UsageError(f"{text!r} is neither an address of this host nor an interface") from None


def parse_flag(text: str) -> bool:
    """What a variable says about a word without value. Raises UsageError."""
    if text.lower() not in _FLAG_TEXTS:
        raise UsageError(f"{text!r} is neither yes nor no; write one of {', '.join(_FLAG_TEXTS)}")
    return _FLAG_TEXTS[text.lower()]


def parse_checkphrase(text: str) -> bytes:
    """Exactly CHECKPHRASE_BYTES bytes. Raises UsageError."""
    phrase = os.fsencode(text)
    if len(phrase) != CHECKPHRASE_BYTES:
        raise UsageError(f"{text!r} is {len(phrase)} bytes long; the phrase has exactly {CHECKPHRASE_BYTES}")
    return phrase


def parse_chaos_kind(text: str) -> str:
    """One of CHAOS_KINDS. Raises UsageError."""
    if text not in CHAOS_KINDS:
        raise UsageError(f"{text!r} is none of {', '.join(CHAOS_KINDS)}")
    return text


def parse_digest(text: str) -> str:
    """One of DIGESTS. Raises UsageError."""
    if text not in DIGESTS:
        raise UsageError(f"{text!r} is none of {', '.join(DIGESTS)}")
    return text


def parse_name(text: str) -> str:
    """The name of a stream. Raises UsageError."""
    if not NAME.fullmatch(text):
        what = f"1 to {NAME_BYTES_MAX} letters, digits or _ @ : + . - (not . or - first)"
        raise UsageError(f"{text!r} is not the name of a stream: {what}")
    return text


def parse_names(text: str) -> str:
    """A pattern for names, as the shell has them for files. Raises UsageError."""
    if len(text) > _NAMES_MAX or not _NAMES.fullmatch(text):
        raise UsageError(f"{text!r} is not a pattern of names; write one like db* or node[0-9]")
    return text


def parse_text(text: str) -> str:
    """Any text but none. Raises UsageError."""
    if not text or "\0" in text:
        raise UsageError(f"{text!r} is not the name of a file")
    return text


def parse_secret_place(text: str) -> str:
    """The name of the file with a key or a phrase, or what stands for it. Raises UsageError."""
    from viamillipede.secret import holds_key

    if holds_key(text):
        raise UsageError("this is a key itself, and the name of its file belongs here")
    return parse_text(text)


def parse_interval_us(text: str, least_us: int) -> int:
    """A duration of at least so many microseconds. Raises UsageError."""
    interval_us = parse_duration_us(text)
    if interval_us < least_us:
        raise UsageError(f"{text!r} is too short; at least {least_us // MS_US}ms")
    return interval_us


def parse_serving_address(text: str) -> Address:
    """PORT, of loopback then, or HOST:PORT, or [IPV6]:PORT. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    if not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535 or bool(colon) != bool(host):
        raise UsageError(f"{text!r} is not an address to serve at; write PORT, or HOST:PORT")
    if ":" in host and not host.startswith("["):
        raise UsageError(f"{text!r}: an IPv6 address is written in brackets, like [::1]:{port}")
    try:
        return Address(parse_host(host) if host else "127.0.0.1", int(port))
    except UsageError:
        raise UsageError(f"{text!r} is not an address to serve at; write PORT, or HOST:PORT") from None


def parse_threads(text: str) -> int:
    """Legs, or THREADS_AUTO. Raises UsageError."""
    if text == "auto":
        return THREADS_AUTO
    try:
        return parse_int(text, 1, THREADS_MAX)
    except UsageError as error:
        raise UsageError(f"{error}, nor auto") from None


def parse_congestion(text: str) -> str:
    """The name of a congestion control; whether the kernel has it shows later. Raises UsageError."""
    if not _CONGESTION.fullmatch(text):
        raise UsageError(f"{text!r} is not the name of a congestion control; write one like cubic or bbr")
    return text


def parse_limit(text: str) -> int:
    """Bytes per second. Raises UsageError."""
    return parse_rate(text, LIMIT_BYTES_MIN, LIMIT_BYTES_MAX)


# Each term's field in Address, and how its text is read.
TERM_FIELDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "via": ("via", parse_via),
    "weight": ("weight", lambda text: parse_int(text, 1, WEIGHT_MAX)),
    "limit": ("limit_bytes", parse_limit),
}
