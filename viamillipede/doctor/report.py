"""The report: lines of at most COLUMNS for a reader, or one JSON object."""

import json
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from viamillipede.doctor.advice import Advice, Measured, verdict
from viamillipede.doctor.finding import Finding, Keep, State
from viamillipede.doctor.words import format_bits, plural
from viamillipede.units import format_duration_us, format_rate

COLUMNS = 80
_NAME_COLUMNS, _TEXT_COLUMN, _COMMAND_COLUMN = 18, 26, 10
_LABELS = {State.OK: "ok", State.NOTE: "note", State.LIMITS: "LIMIT"}
_COLOURS = {State.OK: "\033[32m", State.NOTE: "\033[33m", State.LIMITS: "\033[1;31m"}
_HEADING, _PLAIN = "\033[1m", "\033[0m"

Section = tuple[str, list[Finding]]


class Paper:
    """Lines of text, coloured or not."""

    def __init__(self, colour: bool) -> None:
        self._colour = colour
        self.lines: list[str] = []

    def heading(self, text: str) -> None:
        """A line by itself, after an empty one unless it is the first."""
        self.lines += [""] if self.lines else []
        self.lines.append(self._coloured(_HEADING, text))

    def paragraph(self, text: str, indent: int, first: str = "") -> None:
        """Wrapped text; its first line begins with `first` instead of blanks."""
        self.lines += textwrap.wrap(
            text, COLUMNS, initial_indent=first or " " * indent, subsequent_indent=" " * indent, break_long_words=False,
            break_on_hyphens=False,
        )  # fmt: skip

    def finding(self, finding: Finding) -> None:
        """What a check found, and the commands that mend it."""
        label = _LABELS[finding.state]
        head = f"  {label:6}{finding.name:{_NAME_COLUMNS}}"
        before = len(self.lines)
        self.paragraph(f"{finding.value}: {finding.why}", _TEXT_COLUMN, head)
        self.lines[before] = self.lines[before].replace(label, self._coloured(_COLOURS[finding.state], label), 1)
        self.lines += [" " * _COMMAND_COLUMN + command for command in finding.mend]

    def _coloured(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colour else text

    def text(self) -> str:
        """All of it."""
        return "\n".join(self.lines) + "\n"


def host_text(sections: Sequence[Section], colour: bool) -> str:
    """What was found on this host."""
    paper = Paper(colour)
    for title, findings in sections:
        paper.heading(title)
        for finding in findings:
            if finding.state is not State.UNKNOWN:
                paper.finding(finding)
    found = [finding for _, findings in sections for finding in findings]
    strange = [f"{finding.name} ({finding.why})" for finding in found if finding.state is State.UNKNOWN]
    if strange:
        paper.heading("Cannot be told here")
        paper.paragraph("; ".join(strange), 2)
    _keep(paper, [line for finding in found for line in finding.keep])
    paper.heading(_sum(found))
    return paper.text()


def _keep(paper: Paper, lines: Iterable[Keep]) -> None:
    """What outlives a restart, file by file."""
    files: dict[str, list[str]] = {}
    for each in lines:
        known = files.setdefault(each.where, [])
        known += [] if each.line in known else [each.line]
    if files:
        paper.heading("The commands hold until the next start; to keep them")
    for where, kept in files.items():
        paper.lines += [f"  {where}:", *(f"    {line}" for line in kept)]


def _sum(found: Sequence[Finding]) -> str:
    counts = {state: sum(each.state is state for each in found) for state in State}
    if not counts[State.LIMITS] + counts[State.NOTE]:
        return "Nothing that could be read limits a transfer here."
    limits = f"{plural(counts[State.LIMITS], 'limit')} here" if counts[State.LIMITS] else "No limit here"
    notes = counts[State.NOTE]
    return limits + (f", and {plural(notes, 'note')} for some networks and streams." if notes else ".")


def peer_text(measured: Measured, advice: Sequence[Advice], colour: bool) -> str:
    """What was measured on the way to the receiver, and what to do."""
    paper = Paper(colour)
    paper.heading(f"The way to {measured.address}")
    for name, value in _facts(measured):
        paper.paragraph(value, 4 + _NAME_COLUMNS, f"  {name:{_NAME_COLUMNS + 2}}")
    paper.lines += ["", "  legs                 rate        sent again   round trip   held up by"]
    for step in measured.steps:
        again = f"{100 * step.lost_share:.2f} %" if step.lost_share is not None else "unknown"
        trip = format_duration_us(step.rtt_us) if step.rtt_us else "unknown"
        paper.lines.append(
            f"  {step.legs:4} {format_rate(step.rate):>14} {format_bits(step.rate):>13}"
            f" {again:>10} {trip:>12}   {verdict(step, measured)}"
        )
    paper.heading("Recommended")
    for each in advice:
        paper.paragraph(each.text, 4, "  - ")
        paper.lines += [" " * _COMMAND_COLUMN + command for command in each.commands]
    return paper.text()


def _facts(measured: Measured) -> list[tuple[str, str]]:
    trips = measured.connects_us
    middle = format_duration_us(trips[len(trips) // 2]) if trips else "unknown"
    least = format_duration_us(trips[0]) if trips else "unknown"
    speed = f"{measured.interface_mbit} Mbit/s" if measured.interface_mbit else "its speed unknown"
    mtu = f"MTU {measured.interface_mtu}" if measured.interface_mtu else "its MTU unknown"
    packets = f"{measured.mss} bytes each" if measured.mss else "unknown"
    packets += f", path MTU {measured.path_mtu}" if measured.path_mtu else ""
    return [
        ("round trip", f"{least}, median {middle} of {plural(len(trips), 'connect')}"),
        ("packets", packets),
        ("leaves by", f"{measured.interface}, {mtu}, {speed}" if measured.interface else "unknown"),
        ("congestion", measured.congestion or "unknown"),
    ]


def as_json(sections: Sequence[Section], peer: dict[str, Any] | None) -> str:
    """One object on one line; its fields are described in viamillipede.1, DOCTOR."""
    checks = [
        {
            "section": title,
            "name": each.name,
            "value": each.value,
            "state": each.state.value,
            "why": each.why,
            "mend": list(each.mend),
            "keep": [{"where": line.where, "line": line.line} for line in each.keep],
        }
        for title, findings in sections
        for each in findings
    ]
    return json.dumps({"checks": checks, "peer": peer}) + "\n"


def peer_as_json(measured: Measured, advice: Sequence[Advice]) -> dict[str, Any]:
    """What as_json takes as `peer`: microseconds, bytes per second, shares as parts of 1, None for unknown."""
    return {
        "address": measured.address,
        "connects_us": list(measured.connects_us),
        "mss": measured.mss or None,
        "path_mtu": measured.path_mtu or None,
        "interface": measured.interface or None,
        "interface_mtu": measured.interface_mtu or None,
        "interface_mbit": measured.interface_mbit or None,
        "congestion": measured.congestion or None,
        "steps": [
            {
                "legs": step.legs,
                "rate": step.rate,
                "sent_again_share": step.lost_share,
                "rtt_us": step.rtt_us or None,
                "core_share": step.core_share,
                "rx_core_share": step.rx_core_share,
                "output_share": step.output_share,
                "window_share": step.window_share,
                "send_buffer_share": step.send_buffer_share,
                "receive_buffer_share": step.receive_buffer_share,
                "waits_for": verdict(step, measured),
            }
            for step in measured.steps
        ],
        "advice": [{"text": each.text, "commands": list(each.commands)} for each in advice],
    }
