"""The command line of `scripts/bench`."""

import argparse
import fnmatch
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn

from benchlib import THREADS_DEFAULT
from viamillipede.config import THREADS_MAX

from . import contenders, pipeline, report, sealed, wan
from .contenders import BenchError, Contender, Shape, by_cores, ours
from .pipeline import Run, Source
from .rounds import MIB, Job, Measurement, interleave, random_file, whole_bytes, zeros

GIB_DEFAULT, GIB_QUICK = 4.0, 0.5
ROUNDS_DEFAULT, ROUNDS_QUICK = 5, 2
GIB_MAX = 1024.0
SIZES_GIB = (1.0, 4.0, 16.0, 32.0)
SWEPT_LEGS = (1, 8, 64, 200)
SECTIONS = ("encrypted", "cores", "startup", "size_sweep", "legs_sweep")  # unless one is named: those of `plan`
STARTUP_BYTES = 64 * MIB  # the stream whose first byte is timed; long enough that nobody sends it with the end
BUSY_PER_CORE = 0.3  # a load average above this, per core, spoils what is measured

DESCRIPTION = f"""\
Moves the same bytes over loopback through viamillipede and through every other program for this that is
installed, in turn, and compares them: GB/s (1e9 bytes), CPU seconds per GB and peak memory of each side.
Without a section it runs five: throughput at several numbers of legs, {report.MANY_LEGS} legs against
{report.FEW_LEGS}, encrypted transfers, ours by number of processors, and the start. On 2 cores that takes
about 25 minutes; --quick takes two.
Leave the machine alone meanwhile. `scripts/bench wan --help`: over emulated links instead of loopback."""

EPILOG = """\
contenders: viamillipede-LEGS and viamillipede-LEGS-checksum; the peers nc, socat and mbuffer, the latter
two with blocks of 1 MiB; the limits pipe (source and sink with nothing but a pipe of 1 MiB between them)
and iperf3 (one TCP connection). Encrypted: viamillipede-LEGS-key, the same with ChaCha20-Poly1305 (-chacha),
ssh to an sshd of the benchmark's own, and socat with OpenSSL; all with pipes of 1 MiB. By processors: NAME@2
has two for the whole transfer, source and sink included; NAME@1+1 has one for source and tx, one for rx and
sink. Time runs from the start of the source to the exit of the sink, so it includes the start of tx. Exit
status: 0 measured, 1 nothing could be measured, or with --strict a target was missed, 2 usage."""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options; bad ones end the program with status 2 and a line that says why."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--gib", type=_gib, metavar="N", help=f"GiB per run (default {GIB_DEFAULT:g}; {GIB_QUICK:g} if quick)")
    add("--rounds", type=_count, metavar="N", help=f"default {ROUNDS_DEFAULT}; {ROUNDS_QUICK} if quick")
    add("--only", type=_names, metavar="NAMES", help="these contenders, with commas; * stands for anything")
    add("--data", choices=("zeros", "random", "both"), help="default both; zeros if quick")
    add("--legs", type=_legs, metavar="LIST", help=f"default {','.join(map(str, contenders.LEGS_DEFAULT))}")
    add("--quick", action="store_true", help="a first impression in a minute, worth no citation")
    add("--contender", nargs=2, action="append", default=[], metavar=("NAME='RX COMMAND'", "'TX COMMAND'"),
        help="one more; {port} in both commands stands for the port; may be given several times")  # fmt: skip
    add("--encrypted", action="store_true", help="section: with a key, without one, ssh and socat with OpenSSL")
    add("--cores", action="store_true", help="section: with a key and without, on 1 processor, 2, 4 and so on")
    add("--startup", action="store_true", help="section: start of both processes to the first byte delivered")
    add("--size-sweep", action="store_true", help=f"section: streams of {_list(SIZES_GIB)} GiB")
    add("--legs-sweep", action="store_true", help=f"section: {_list(SWEPT_LEGS)} legs")
    add("--json", default="bench.json", metavar="FILE", help="where the figures go (default bench.json)")
    add("--strict", action="store_true", help="exit 1 if a target is missed or could not be measured")
    options = parser.parse_args(argv)
    options.gib = options.gib or (GIB_QUICK if options.quick else GIB_DEFAULT)
    options.rounds = options.rounds or (ROUNDS_QUICK if options.quick else ROUNDS_DEFAULT)
    options.data = options.data or ("zeros" if options.quick else "both")
    options.legs = options.legs or ((THREADS_DEFAULT,) if options.quick else contenders.LEGS_DEFAULT)
    return options


def _list(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def _gib(word: str) -> float:
    return _within(word, float(word), 0.001, GIB_MAX)


def _count(word: str) -> int:
    return int(_within(word, int(word), 1, 1000))


def _legs(word: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(int(_within(part, int(part), 1, THREADS_MAX)) for part in word.split(",")))


def _names(word: str) -> list[str]:
    return [name for name in word.split(",") if name]


def _within(word: str, value: float, least: float, most: float) -> float:
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{word} is not between {least:g} and {most:g}")
    return value


def plan(
    options: argparse.Namespace,
    others: Sequence[Contender],
    encrypted: Sequence[Contender],
    random_source: Callable[[int], Source],
) -> list[Job]:
    """The jobs of one round, section by section. Raises BenchError if --only names an unknown one."""
    total = whole_bytes(options.gib)
    makers = {"zeros": zeros, "random": random_source}
    datas = tuple(makers) if options.data == "both" else (options.data,)
    extra = [one for one in others if one.shape is Shape.TRANSFER and one.name not in contenders.PEERS]
    transfers = [one for one in others if one.shape is Shape.TRANSFER]
    jobs: list[Job] = []

    def add(section: str, group: Sequence[Contender], source: Source) -> None:
        jobs.extend(Job(section, contender, source) for contender in group)

    everything = not any(getattr(options, name) for name in SECTIONS)
    for data in datas if everything else ():
        own = [ours(legs, checksum) for checksum in (False, True) for legs in options.legs]
        add(report.THROUGHPUT, [*own, *others], makers[data](total))
    if everything:
        add(report.MANY, [ours(report.FEW_LEGS), ours(report.MANY_LEGS)], makers[datas[0]](total))
    clear = ours(THREADS_DEFAULT)
    for data in datas if everything or options.encrypted else ():
        add(report.ENCRYPTED, [clear, *encrypted], makers[data](total))
    if everything or options.cores:
        both = [clear, *(one for one in encrypted if one.name == sealed.KEYED)]
        cores = sorted(os.sched_getaffinity(0))
        add(report.CORES, [each for one in both for each in by_cores(one, cores)], makers[datas[0]](total))
    if options.legs_sweep:
        add(report.LEGS, [*map(ours, SWEPT_LEGS), *extra], makers[datas[0]](total))
    for gib in SIZES_GIB if options.size_sweep else ():
        add(report.SIZES, [ours(THREADS_DEFAULT), *extra], makers[datas[0]](whole_bytes(gib)))
    if everything or options.startup:
        add(report.STARTUP, [ours(THREADS_DEFAULT), *transfers], zeros(STARTUP_BYTES))
    return _selected(jobs, options.only)


def _selected(jobs: Sequence[Job], only: Sequence[str] | None) -> list[Job]:
    names = list(dict.fromkeys(job.contender.name for job in jobs))
    for pattern in only or ():
        if not fnmatch.filter(names, pattern):
            raise BenchError(f"--only {pattern}: no such contender here; there are {', '.join(names)}")
    return [job for job in jobs if only is None or any(fnmatch.fnmatchcase(job.contender.name, p) for p in only)]


def run_once(job: Job) -> Run:
    """What one turn of a job is. Raises RunFailed."""
    measure = pipeline.first_byte if job.section == report.STARTUP else pipeline.throughput
    return measure(job.contender, job.source, job.timeout_s)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _measure(options: argparse.Namespace, others: Sequence[Contender], missing: list[str]) -> list[Measurement]:
    measured: list[Measurement] = []
    with random_file() as random_source, sealed.contenders() as (encrypted, lacking):
        jobs = plan(options, others, encrypted, random_source)
        if any(job.section == report.ENCRYPTED for job in jobs):
            missing += lacking
            for line in lacking:
                _say(f"bench: not compared with all: {line}")
        for section in dict.fromkeys(job.section for job in jobs):
            measured += interleave([j for j in jobs if j.section == section], options.rounds, run_once, _say)
    return measured


def main(argv: Sequence[str]) -> int:
    """Measure, print, write; returns the exit status. Raises BenchError or OSError for the user to mend."""
    options = parse(argv)
    others, missing = contenders.installed()
    others += [contenders.from_user(words) for words in options.contender]
    cores = len(os.sched_getaffinity(0))
    if os.getloadavg()[0] > BUSY_PER_CORE * cores:
        _say(f"bench: the machine is busy (load {os.getloadavg()[0]:.1f}); what is measured now is worth little")
    if missing:
        _say(f"bench: not installed, so not compared with: {', '.join(missing)}")
    target = options.json if os.path.exists(options.json) else os.path.dirname(os.path.abspath(options.json))
    if os.path.isdir(options.json) or not os.access(target, os.W_OK):  # better to know now than in ten minutes
        raise BenchError(f"--json {options.json}: cannot be written")
    measured = _measure(options, others, missing)
    found = report.verdicts(measured)
    print(f"{report.machine()['processor']}, {cores} cores\n\n{report.tables(measured)}\n\ntargets:")
    print("\n".join(map(str, found)) or "  none in this section", flush=True)
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    with open(options.json, "w") as out:
        json.dump(report.as_json(measured, settings, missing, found), out, indent=1)
        out.write("\n")
    _say(f"bench: figures written to {options.json}")
    if not any(one.good for one in measured):
        return 1
    return 1 if options.strict and not all(verdict.met for verdict in found) else 0


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)  # unwinds, so that the processes of the run are ended


def _guarded() -> int:
    if sys.platform != "linux":
        _say("bench: it needs Linux, for /proc and exact accounting of processes")
        return 1
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return wan.main(sys.argv[2:]) if sys.argv[1:2] == ["wan"] else main(sys.argv[1:])
    except KeyboardInterrupt:
        _say("bench: interrupted, nothing was written")
        return 130
    except (BenchError, OSError) as error:
        _say(f"bench: {error}")
        return 2


if __name__ == "__main__":
    sys.exit(_guarded())
