"""JSON for scripts: one object a line, ASCII, with the fields that viamillipede(1) lists under JSON.

Sizes are integers of bytes, durations numbers of seconds, rates integers of bytes per second, shares parts of 1;
what is not known is null. Within a `version` fields are only added.
"""

import json
import math
from typing import Any

from viamillipede.views.snapshot import Leg, Path, Snapshot, Waits

VERSION = 1  # of the fields

_COMPACT = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def snapshot_line(snapshot: Snapshot, time: str) -> str:
    """How things stand, as a line without its newline: "progress", or "end" once there is an exit status.

    time: now by the wall clock, ISO 8601, UTC.
    """
    is_end = snapshot.exit_status is not None
    fields = _head("end" if is_end else "progress", time, snapshot.role, snapshot.pid) | _figures(snapshot)
    if is_end:
        fields |= {"exit_status": snapshot.exit_status, "reason": snapshot.reason}
        fields |= {"cipher": snapshot.cipher, "digest": snapshot.digest}
    return _line(fields)


def message_line(level: int, text: str, *, time: str, role: str, pid: int, label: str = "") -> str:
    """A message for people, as a line without its newline. level: that of `verbose`; time: as in `snapshot_line`."""
    return _line(_head("message", time, role, pid) | {"level": level, "label": label, "text": text})


def _head(kind: str, time: str, role: str, pid: int) -> dict[str, Any]:
    return {"type": kind, "version": VERSION, "time": time, "role": role, "pid": pid}


def _figures(snapshot: Snapshot) -> dict[str, Any]:
    left_us = snapshot.left_us()
    return {
        "session": snapshot.session,
        "name": snapshot.name,
        "peer": snapshot.peer,
        "state": snapshot.state,
        "contacted": snapshot.contacted,
        "elapsed_seconds": _seconds(snapshot.elapsed_us),
        "moved_bytes": snapshot.moved_bytes,
        "read_bytes": snapshot.read_bytes,
        "size_bytes": snapshot.size_bytes or None,
        "left_seconds": None if left_us is None else _seconds(left_us),
        "rate_bytes_per_second": snapshot.rate,
        "average_bytes_per_second": snapshot.rate_average,
        "window_used_bytes": snapshot.window_used_bytes,
        "window_bytes": snapshot.window_bytes,
        "legs_up": snapshot.legs_up,
        "restarts": snapshot.restarts,
        "retransmitted_frames": snapshot.retransmitted_frames,
        "retransmitted_bytes": snapshot.retransmitted_bytes,
        "hedges": snapshot.hedges,
        "corrupted": snapshot.corrupted,
        "refused": snapshot.refused,
        "cpu_share": _share(snapshot.cpu_share),
        "waiting": snapshot.waiting,
        "idle_seconds": _seconds(snapshot.idle_us),
        "stalled": snapshot.stalled,
        "waits": _waits(snapshot.waits),
        "verdict": snapshot.verdict,
        "paths": [_path(number, path) for number, path in enumerate(snapshot.paths)],
        "legs": [_leg(leg, snapshot.role) for leg in snapshot.legs],
    }


def _waits(waits: Waits) -> dict[str, Any]:
    return {
        "source": _share(waits.source),
        "network": _share(waits.network),
        "core": _share(waits.core),
        "sink": _share(waits.sink),
        "limit": _share(waits.limit),
        "network_path": waits.network_path,
        "core_side": waits.core_side,
    }


def _path(number: int, path: Path) -> dict[str, Any]:
    return {
        "number": number,
        "address": path.address,
        "moved_bytes": path.moved_bytes,
        "rate_bytes_per_second": path.rate,
        "legs_up": path.legs_up,
        "legs_wanted": path.legs_wanted or None,
        "why": path.why,
    }


def _leg(leg: Leg, role: str) -> dict[str, Any]:
    is_tx = role == "tx"
    return {
        "number": leg.number,
        "path": leg.path,
        "address": leg.address,
        "state": leg.state,
        "moved_bytes": leg.moved_bytes,
        "rate_bytes_per_second": leg.rate,
        "rtt_seconds": _seconds(leg.rtt_us) if leg.rtt_us else None,
        "retransmissions": leg.retransmissions,
        "in_flight_bytes": leg.in_flight_bytes,
        "hedged_frames": leg.hedged if is_tx else None,
        "vain_bytes": None if is_tx else leg.hedged,
        "restarts": leg.restarts,
    }


def _seconds(duration_us: int) -> float:
    return duration_us / 1_000_000


def _share(value: float) -> float | None:
    """Four digits; what is no number (a share of no time at all) is not known."""
    return round(value, 4) if math.isfinite(value) else None


def _line(fields: dict[str, Any]) -> str:
    """ASCII only: so nothing in a text can end the line, or do something to a terminal."""
    line = _COMPACT.encode(fields)
    return _COMPACT.encode(_unicode(fields)) if "\\ud" in line else line  # a surrogate: half of one character, or none


def _unicode(value: Any) -> Any:
    """Bytes that were no UTF-8 (in a file's name, say) read \\udcff: JSON has no escape that means them."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _unicode(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_unicode(inner) for inner in value]
    return value
