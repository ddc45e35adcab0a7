"""Words and figures that the views share: how a snapshot is spoken of."""

from math import isfinite

from viamillipede.config import S_US
from viamillipede.units import format_duration_us
from viamillipede.views.snapshot import Snapshot

IDLE_TOLD_US = 3 * S_US  # a pause of the input or the output that is shorter is nobody's concern
MINUTE_US = 60 * S_US
STALL_STYLE, TROUBLE_STYLE, ACCENT_STYLE, DIM_STYLE = "bold red", "red", "cyan", "dim"


def whole_seconds(duration_us: int) -> str:
    """Microseconds without fractions of a second: `12 s`, `3m20s`, `1h02m05s`."""
    return f"{duration_us // S_US} s" if duration_us < MINUTE_US else format_duration_us(duration_us // S_US * S_US)


def tenths(duration_us: int) -> str:
    """Microseconds with tenths of a second as long as there are few: `12.3 s`, `3m20s`."""
    return f"{duration_us // 100_000 / 10:.1f} s" if duration_us < MINUTE_US else whole_seconds(duration_us)


def clean(text: str) -> str:
    """Without what would move the cursor or turn the direction of writing, whoever wrote it; one line."""
    return "".join(character if character.isprintable() else "?" for character in text)


def percent(share: float) -> str:
    """A part of 1 for a reader, right-aligned: ` 45 %`. What is no number is 0."""
    return f"{sane(share) * 100:3.0f} %"


def sane(share: float) -> float:
    """A part of 1 that can be drawn."""
    return min(1.0, max(0.0, share)) if isfinite(share) else 0.0


def done_percent(snapshot: Snapshot) -> int:
    """How much of the expected size has been delivered. More than 100 where the size was wrong."""
    return snapshot.moved_bytes * 100 // snapshot.size_bytes if snapshot.size_bytes else 0


def legs_wanted(snapshot: Snapshot) -> int:
    """How many legs all paths together want; 0: not known here."""
    wanted = [path.legs_wanted for path in snapshot.paths]
    return sum(wanted) if all(wanted) else 0


def legs_text(up: int, wanted: int) -> str:
    """`7 of 8 legs`, or `7 legs` where nobody here knows how many are wanted."""
    return f"{up} of {wanted} legs" if wanted else f"{up} leg" if up == 1 else f"{up} legs"


def pause(snapshot: Snapshot) -> str:
    """Why nothing moves although nothing is wrong: `waiting for input 12 s`; "" when there is no such pause."""
    if snapshot.state in ("complete", "failed"):
        return ""
    if not snapshot.contacted:
        other = "receiver" if snapshot.role == "tx" else "transmitter"
        return f"waiting for the {other} {whole_seconds(snapshot.elapsed_us)}"
    if snapshot.waiting in ("input", "output") and snapshot.idle_us >= IDLE_TOLD_US:
        return f"waiting for {snapshot.waiting} {whole_seconds(snapshot.idle_us)}"
    return ""
