"""What the rounds say: ratios, tables for a person, JSON for a program, and whether the targets are met.

Ratios are ratios of the medians in the table, so that a reader can work them out again.
"""

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchlib import THREADS_DEFAULT

from .contenders import IPERF3, PIPE, Shape, cores_name, ours_name
from .rounds import GB, Measurement, Summary
from .sealed import KEYED, SOCAT_TLS, SSH

THROUGHPUT, MANY, STARTUP, SIZES, LEGS = "throughput", "many-legs", "startup", "size-sweep", "legs-sweep"
ENCRYPTED, CORES = "encrypted", "cores"
MANY_LEGS, FEW_LEGS = 200, 8
PROGRAMS = (Shape.TRANSFER, Shape.SSH)  # what ours is compared with; the others are limits
FORMAT = 1  # of the JSON; changes when a field changes its meaning

Find = Callable[[str], Measurement | None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target, and what was measured: None where a contender that it needs is missing or failed."""

    target: str
    goal: float
    at_least: bool
    measured: float | None

    @property
    def met(self) -> bool:
        """What was not measured is not met."""
        if self.measured is None:
            return False
        return self.measured >= self.goal if self.at_least else self.measured <= self.goal

    def __str__(self) -> str:
        sign, word = ">=" if self.at_least else "<=", "met" if self.met else "missed"
        if self.measured is None:
            return f"  --      {self.target} {sign} {self.goal:g}: not measured"
        return f"  {word:6s}  {self.target} {sign} {self.goal:g}: {self.measured:.3f}"


def _median(summary: Summary | None) -> float | None:
    return summary.median if summary else None


def _rate(one: Measurement | None) -> float | None:
    return _median(one.gb_per_s()) if one else None


def _cpu(one: Measurement | None) -> float | None:
    return _median(one.cpu_s_per_gb("tx", "rx")) if one else None


def _ratio(one: float | None, other: float | None) -> float | None:
    return None if one is None or not other else one / other


def composite(pipe: float | None, tcp: float | None) -> float | None:
    """The rate of bytes that first cross a pipe, then a connection, one core busy at a time; in GB/s."""
    return 1 / (1 / pipe + 1 / tcp) if pipe and tcp else None


def _finder(measured: Sequence[Measurement]) -> Find:
    by_name = {one.job.contender.name: one for one in measured}
    return by_name.get


def _section(measured: Sequence[Measurement], section: str, data: str) -> list[Measurement]:
    return [one for one in measured if (one.job.section, one.job.source.data) == (section, data)]


def _datas(measured: Sequence[Measurement], section: str) -> list[str]:
    return list(dict.fromkeys(one.job.source.data for one in measured if one.job.section == section))


def verdicts(measured: Sequence[Measurement]) -> list[Verdict]:
    """The targets of every section that was run, for each kind of data."""
    found: list[Verdict] = []
    for data in _datas(measured, THROUGHPUT):
        found += _throughput_verdicts(data, _finder(_section(measured, THROUGHPUT, data)))
    for data in _datas(measured, MANY):
        find = _finder(_section(measured, MANY, data))
        ratio = _ratio(_rate(find(ours_name(MANY_LEGS))), _rate(find(ours_name(FEW_LEGS))))
        found.append(Verdict(f"{data}: {MANY_LEGS} legs / {FEW_LEGS} legs", 0.8, True, ratio))
    for data in _datas(measured, ENCRYPTED):
        find = _finder(_section(measured, ENCRYPTED, data))
        for other, goal in ((ours_name(THREADS_DEFAULT), 0.75), (SSH, 2.0), (SOCAT_TLS, 1.5)):
            ratio = _ratio(_rate(find(KEYED)), _rate(find(other)))
            found.append(Verdict(f"{data}: throughput with a key / {other}", goal, True, ratio))
    for data in _datas(measured, CORES):
        found += _cores_verdicts(data, _section(measured, CORES, data))
    for data in _datas(measured, STARTUP):
        one = _finder(_section(measured, STARTUP, data))(ours_name(THREADS_DEFAULT))
        seconds = _median(one.seconds()) if one else None
        found.append(Verdict("start to first byte, seconds", 0.5, False, seconds))
    for data in _datas(measured, SIZES):
        own = [one for one in _section(measured, SIZES, data) if one.job.contender.name == ours_name(THREADS_DEFAULT)]
        own.sort(key=lambda one: one.job.source.total_bytes)
        growth = _ratio(_cpu(own[-1]), _cpu(own[0])) if len(own) > 1 else None
        found.append(Verdict(f"{data}: CPU per byte, longest / shortest stream", 1.1, False, growth))
    return found


def _throughput_verdicts(data: str, find: Find) -> list[Verdict]:
    own, mbuffer = find(ours_name(THREADS_DEFAULT)), find("mbuffer")
    limit = composite(_rate(find(PIPE)), _rate(find(IPERF3)))
    with_sum = _rate(find(ours_name(THREADS_DEFAULT, checksum=True)))
    return [
        Verdict(f"{data}: throughput / mbuffer", 1.2, True, _ratio(_rate(own), _rate(mbuffer))),
        Verdict(f"{data}: throughput / nc", 1.7, True, _ratio(_rate(own), _rate(find("nc")))),
        Verdict(f"{data}: throughput / composite limit", 0.9, True, _ratio(_rate(own), limit)),
        Verdict(f"{data}: CPU of tx plus rx / mbuffer", 0.75, False, _ratio(_cpu(own), _cpu(mbuffer))),
        Verdict(f"{data}: throughput with checksum / mbuffer", 1.0, True, _ratio(with_sum, _rate(mbuffer))),
    ]


def _cores_verdicts(data: str, group: Sequence[Measurement]) -> list[Verdict]:
    """With a key it must use more than one processor where there are more."""
    find, counts = _finder(group), sorted({len(one.job.contender.rx_cores) for one in group})
    most = counts[-1]
    if most == 1:
        return []
    ratio = _ratio(*(_rate(find(cores_name(KEYED, count))) for count in (most, 1)))
    return [Verdict(f"{data}: throughput with a key, {most} cores / 1 core", 1.1, True, ratio)]


def tables(measured: Sequence[Measurement]) -> str:
    """All sections as text for a terminal."""
    parts = []
    for section in dict.fromkeys(one.job.section for one in measured):
        for data in _datas(measured, section):
            group = _section(measured, section, data)
            rows = _startup_rows(group) if section == STARTUP else _rows(group, section == SIZES)
            if section == THROUGHPUT:
                limit = composite(*(_rate(_finder(group)(name)) for name in (PIPE, IPERF3)))
                rows.append(["1/(1/pipe+1/iperf3)", _number(limit)])
            parts.append(f"{section}: {data}, {_scale(group)}\n" + _aligned(rows))
    return "\n\n".join(parts)


def _scale(group: Sequence[Measurement]) -> str:
    sizes = sorted({one.job.source.total_bytes for one in group})
    rounds = max(len(one.runs) + len(one.failures) for one in group)
    return f"{', '.join(f'{size / GB:.2f}' for size in sizes)} GB a run, median of {rounds}"


def _rows(group: Sequence[Measurement], sizes: bool) -> list[list[str]]:
    clear = ours_name(THREADS_DEFAULT) if group[0].job.section == ENCRYPTED else ""
    peers = [one for one in group if one.job.contender.name == clear]
    peers += [one for one in group if one.job.contender.shape in PROGRAMS and one.job.contender.legs is None]
    head = ["", "GB/s", "min-max", *(f"/{one.job.contender.name}" for one in peers)]
    head += ["tx s/GB", "rx s/GB", "both", "tx MiB", "rx MiB"]
    rows = [head]
    for one in group:
        name = one.job.contender.name + (f" {one.job.source.total_bytes / GB:.1f} GB" if sizes else "")
        rate = one.gb_per_s()
        if rate is None:
            rows.append([name, *_failed(one)])
            continue
        row = [name, _number(rate.median), _range(rate), *(_number(_ratio(rate.median, _rate(peer))) for peer in peers)]
        row += [_number(_median(cost), 3) for cost in map(one.cpu_s_per_gb, ("tx", "rx"))]
        row += [_number(_cpu(one), 3), *(_number(one.peak_mib(side), 0) for side in ("tx", "rx"))]
        rows.append(row)
    return rows


def _startup_rows(group: Sequence[Measurement]) -> list[list[str]]:
    rows = [["", "seconds", "min-max"]]
    for one in group:
        time = one.seconds()
        figures = _failed(one) if time is None else [_number(time.median, 3), _range(time, 3)]
        rows.append([one.job.contender.name, *figures])
    return rows


def _failed(one: Measurement) -> list[str]:
    attempts = len(one.runs) + len(one.failures)
    return [f"FAILED {len(one.failures)} of {attempts}: {one.failures[0]}" if one.failures else "not run"]


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _range(summary: Summary, digits: int = 2) -> str:
    return f"{summary.least:.{digits}f}-{summary.most:.{digits}f}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns under each other; a short row, which ends in a remark, does not widen them."""
    full = [row for row in rows if len(row) == len(rows[0])]
    widths = [max(len(row[column]) for row in full) for column in range(len(rows[0]))]
    widths[0] = max(len(row[0]) for row in rows)
    lines = []
    for row in rows:
        if len(row) == len(rows[0]):
            cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        else:
            cells = [row[1].rjust(widths[1])]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]))
    return "\n".join(lines)


def as_json(
    measured: Sequence[Measurement], settings: dict[str, Any], missing: Sequence[str], found: Sequence[Verdict]
) -> dict[str, Any]:
    """Everything, every single run included, as values that json.dump takes."""
    return {
        "format": FORMAT,
        "machine": machine(),
        "settings": settings,
        "not_installed": list(missing),
        "measurements": [_one_as_json(one) for one in measured],
        "targets": [asdict(verdict) | {"met": verdict.met} for verdict in found],
    }


def _one_as_json(one: Measurement) -> dict[str, Any]:
    job = one.job
    summaries = {"gb_per_s": one.gb_per_s(), "seconds": one.seconds()}
    summaries |= {f"{side}_cpu_s_per_gb": one.cpu_s_per_gb(side) for side in ("tx", "rx")}
    summaries["cpu_s_per_gb"] = one.cpu_s_per_gb("tx", "rx")
    if job.section == STARTUP:
        del summaries["gb_per_s"]  # its seconds are not those of the whole stream
    return {
        "section": job.section,
        "contender": job.contender.name,
        "data": job.source.data,
        "bytes": job.source.total_bytes,
        "legs": job.contender.legs,
        "checksum": job.contender.checksum,
        "pipe_bytes": job.contender.pipe_bytes,
        "tx_cores": list(job.contender.tx_cores),
        "rx_cores": list(job.contender.rx_cores),
        "rx_command": list(job.contender.rx),
        "tx_command": list(job.contender.tx),
        **{name: summary and asdict(summary) for name, summary in summaries.items()},
        "tx_peak_mib": one.peak_mib("tx"),
        "rx_peak_mib": one.peak_mib("rx"),
        "runs": [asdict(run) for run in one.runs],
        "failures": one.failures,
    }


def machine() -> dict[str, Any]:
    """Where the figures come from: processor, cores, kernel, and the versions of what was run."""
    versions = {"nc": ("nc", "-h"), "socat": ("socat", "-V"), "mbuffer": ("mbuffer", "--version")}
    versions |= {"iperf3": ("iperf3", "--version"), "ssh": ("ssh", "-V"), "openssl": ("openssl", "version")}
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: _version(argv) for name, argv in versions.items() if shutil.which(name)},
    }


def _version(argv: Sequence[str]) -> str:
    told = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    lines = [line.strip() for line in (told.stdout + told.stderr).splitlines() if any(map(str.isdigit, line))]
    return lines[0] if lines else "unknown"


def _processor() -> str:
    with open("/proc/cpuinfo") as lines:
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
