"""Figures of networks as their owners say them: bits per second, powers of 1000."""


def format_bits(bytes_per_s: float) -> str:
    """A rate for a reader: `1.4 Mbit/s`, `168 Mbit/s`, `10.7 Gbit/s`."""
    rate = bytes_per_s * 8
    for unit in ("bit/s", "kbit/s", "Mbit/s"):
        if rate < 999.5:
            return f"{rate:.3g} {unit}"
        rate /= 1000
    return f"{rate:.3g} Gbit/s" if rate < 999.5 else f"{rate:.0f} Gbit/s"


def plural(count: int, noun: str, nouns: str = "") -> str:
    """`1 leg`, `2 legs`; `nouns` where that is not the noun with an s."""
    return f"{count} {noun if count == 1 else nouns or noun + 's'}"
