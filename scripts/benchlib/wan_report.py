"""What the rounds over emulated links say: one table for all scenarios, the targets, JSON."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from viamillipede.config import THREADS_AUTO_MAX

from . import report
from .report import Verdict
from .rounds import Measurement
from .wan_run import WanRun
from .wan_scenarios import AUTO, Scenario, Target

TUNED_WITHIN = 1.05  # of the best fixed number of legs
HEAD = ("scenario", "contender", "wall s", "min-max", "Mbit/s", "of ideal", "/best peer", "target")


def is_ours(name: str) -> bool:
    """Whether the contender of this name is our program."""
    return name.partition("-")[0] == AUTO


def figure(one: Measurement | None, name: str) -> float | None:
    """The median of a figure over the runs; None if one of them failed, or there is none."""
    if one is None or not one.good:
        return None
    values = [run.figure(name) for run in one.runs if isinstance(run, WanRun)]
    known = [value for value in values if value is not None]
    return statistics.median(known) if known and len(known) == len(values) else None


def _by_name(measured: Sequence[Measurement], scenario: Scenario) -> dict[str, Measurement]:
    return {one.job.contender.name: one for one in measured if one.job.section == scenario.name}


def targets_of(scenario: Scenario) -> list[Target]:
    """Its own, and what holds everywhere: by itself it is nearly as fast as with the best number that it may take."""
    legs = {one: one.removeprefix(f"{AUTO}-") for one in scenario.contenders}
    fixed = tuple(one for one, number in legs.items() if number.isdecimal() and int(number) <= THREADS_AUTO_MAX)
    tuned = [Target(AUTO, "seconds", TUNED_WITHIN, beside=fixed)] if fixed and AUTO in scenario.contenders else []
    return [*scenario.targets, *tuned]


def verdicts(measured: Sequence[Measurement], scenario: Scenario) -> list[tuple[str, Verdict]]:
    """The targets of a scenario, each with the contender that it is about."""
    found = _by_name(measured, scenario)
    results = []
    for target in targets_of(scenario):
        value = figure(found.get(target.contender), target.what)
        text = f"{scenario.name}: {target.what} of {target.contender}"
        if target.beside:
            others = [figure(found.get(name), target.what) for name in target.beside]
            known = [other for other in others if other is not None]
            value = value / min(known) if value is not None and known else None
            text += f" / {'best of ' if len(target.beside) > 1 else ''}{', '.join(target.beside)}"
        results.append((target.contender, Verdict(text, target.goal, target.at_least, value)))
    return results


def best_peer_s(measured: Sequence[Measurement], scenario: Scenario) -> float | None:
    """The wall time of the fastest peer."""
    peers = [figure(one, "seconds") for name, one in _by_name(measured, scenario).items() if not is_ours(name)]
    return min((seconds for seconds in peers if seconds is not None), default=None)


def table(measured: Sequence[Measurement], scenarios: Sequence[Scenario]) -> str:
    """A row for each contender in each scenario; what failed has no figures."""
    rows: list[list[str]] = [list(HEAD)]
    notes: dict[int, str] = {}
    for scenario in scenarios:
        peer_s = best_peer_s(measured, scenario)
        judged = verdicts(measured, scenario)
        for number, (name, one) in enumerate(_by_name(measured, scenario).items()):
            mine = [verdict.met for contender, verdict in judged if contender == name]
            target = "" if not mine else "yes" if all(mine) else "no"
            seconds = one.seconds()
            row = [scenario.name if number == 0 else "", name]
            if seconds is None:
                attempts = len(one.runs) + len(one.failures)
                notes[len(rows)] = f"FAILED {len(one.failures)} of {attempts}: {one.failures[0]}" if attempts else "-"
                row += [""] * (len(HEAD) - 3) + [target]
            else:
                goodput = statistics.median(run.total_bytes * 8 / run.seconds / 1e6 for run in one.runs)
                ratio = f"{seconds.median / peer_s:.2f}" if peer_s else "-"
                row += [f"{seconds.median:.2f}", f"{seconds.least:.2f}-{seconds.most:.2f}", f"{goodput:.1f}"]
                row += [f"{100 * (figure(one, 'share') or 0):.0f} %", ratio, target]
            rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return "\n".join(_line(row, widths, notes.get(number, "")) for number, row in enumerate(rows))


def _line(row: Sequence[str], widths: Sequence[int], note: str) -> str:
    names = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
    figures = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
    return "  ".join([*names, note] if note else [*names, *figures]).rstrip()


def as_json(
    measured: Sequence[Measurement], scenarios: Sequence[Scenario], settings: dict[str, Any], missing: Sequence[str]
) -> dict[str, Any]:
    """Everything, every single run included, as values that json.dump takes."""
    return {
        "format": report.FORMAT,
        "machine": report.machine(),
        "settings": settings,
        "not_installed": list(missing),
        "scenarios": [asdict(one) | {"ideal_s": one.ideal_s} for one in scenarios],
        "measurements": [_one_as_json(one) for one in measured],
        "targets": [
            asdict(verdict) | {"met": verdict.met} for one in scenarios for _, verdict in verdicts(measured, one)
        ],
    }


def _one_as_json(one: Measurement) -> dict[str, Any]:
    seconds = one.seconds()
    return {
        "scenario": one.job.section,
        "contender": one.job.contender.name,
        "bytes": one.job.source.total_bytes,
        "rx_command": list(one.job.contender.rx),
        "tx_command": list(one.job.contender.tx),
        "seconds": seconds and asdict(seconds),
        "runs": [asdict(run) | {"figures": dict(run.figures)} for run in one.runs if isinstance(run, WanRun)],
        "failures": one.failures,
    }
