"""The command line of `scripts/bench wan`."""

import argparse
import dataclasses
import fnmatch
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random

from tests.netlab import LabError, missing

from . import wan_report, wan_run
from .contenders import BenchError
from .pipeline import Run, Source
from .processes import RunFailed
from .rounds import MIB, Job, Measurement, interleave
from .wan_scenarios import SCENARIOS, Scenario

ROUNDS_DEFAULT = 3
LATE_US_MAX = 1000.0  # on average; above it the links were not what they should have been
DATA_SEED = 1

DESCRIPTION = """\
Moves the same random bytes through viamillipede and through nc, mbuffer, iperf3 and the kernel's MPTCP, over
links with a rate, a delay, loss and a queue, some of which fail meanwhile. The links join two network namespaces
and are emulated on this machine, which needs root. Without a scenario it runs all of them, which takes
long: name those that you want. Leave the machine alone meanwhile."""

EPILOG = """\
contenders: `ours` decides itself how many legs it takes, `ours-N` is `threads N`; `-first` is told of the first
link only; iperf3-N is iperf3 -P N. nc, mbuffer and iperf3 use the first link, mptcp all of them. What is
ideal is the payload at 96.5 % of the links' rates, or what a proxy or the source allows, without any handshake.
iperf3 stops before its last bytes have arrived: its time is a little too short. Exit status: 0 measured, 1 nothing
could be measured, or with --strict a target was missed, 2 usage."""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options; bad ones end the program with status 2 and a line that says why."""
    scenarios = "\n".join(f"  {one.name:15s} {one.about}" for one in SCENARIOS)
    parser = argparse.ArgumentParser(
        prog="scripts/bench wan",
        description=DESCRIPTION,
        epilog=f"scenarios:\n{scenarios}\n\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [one.name for one in SCENARIOS]
    add = parser.add_argument
    add("scenario", nargs="*", metavar="SCENARIO", help="those listed below; all unless given")
    add("--rounds", type=int, default=ROUNDS_DEFAULT, metavar="N", help=f"default {ROUNDS_DEFAULT}")
    add("--only", metavar="NAMES", help="these contenders, with commas; * stands for anything")
    add("--with", dest="more", default="", metavar="NAMES", help="further contenders, like ours-24,iperf3-8")
    add("--seed", type=int, default=1, metavar="N", help="of the first round; the next one has the next (default 1)")
    add("--json", default="wan.json", metavar="FILE", help="where the figures go (default wan.json)")
    add("--strict", action="store_true", help="exit 1 if a target is missed or could not be measured")
    options = parser.parse_args(argv)
    for name in options.scenario:
        if name not in names:
            parser.error(f"no scenario is called {name}; there are {', '.join(names)}")
    if not 1 <= options.rounds <= 1000:
        parser.error(f"--rounds {options.rounds} is not between 1 and 1000")
    if not 0 <= options.seed < 1 << 32:
        parser.error(f"--seed {options.seed} is not between 0 and {(1 << 32) - 1}")
    return options


def selected(options: argparse.Namespace) -> list[Scenario]:
    """The scenarios, with the contenders that were asked for. Raises BenchError."""
    chosen = [one for one in SCENARIOS if not options.scenario or one.name in options.scenario]
    more = tuple(name for name in options.more.split(",") if name)
    for name in more:
        if not wan_run.is_contender(name):
            raise BenchError(f"--with {name}: no such contender; ours-N, iperf3-N, nc, mbuffer and mptcp are")
    chosen = [dataclasses.replace(one, contenders=tuple(dict.fromkeys((*one.contenders, *more)))) for one in chosen]
    if options.only is None:
        return chosen
    patterns = [name for name in options.only.split(",") if name]
    found = []
    for one in chosen:
        names = [name for name in one.contenders if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
        if names:
            found.append(dataclasses.replace(one, contenders=tuple(names)))
    if not found:
        known = dict.fromkeys(name for one in chosen for name in one.contenders)
        raise BenchError(f"--only {options.only}: no such contender here; there are {', '.join(known)}")
    return found


@contextmanager
def random_file(total_bytes: int) -> Iterator[str]:
    """The path of a file in memory with the same random bytes each time; it goes with us."""
    fd = os.memfd_create("wan-random")
    try:
        dice = Random(DATA_SEED)
        for at in range(0, total_bytes, MIB):
            os.pwrite(fd, dice.randbytes(min(MIB, total_bytes - at)), at)
        yield f"/proc/{os.getpid()}/fd/{fd}"
    finally:
        os.close(fd)


def measure(scenario: Scenario, rounds: int, seed: int) -> list[Measurement]:
    """All contenders of a scenario in turn; those that need only one run, once, at the end."""
    rounds_of: Counter[str] = Counter()
    with random_file(scenario.total_bytes) as path:
        rate = scenario.source_mbit * 125_000
        source = Source("random", (*wan_run.HELPER, "source", path, f"{rate:g}"), scenario.total_bytes)
        jobs = {name: Job(scenario.name, wan_run.contender(name, scenario), source) for name in scenario.contenders}

        def run_once(job: Job) -> Run:
            rounds_of[job.contender.name] += 1
            try:
                run = wan_run.run(scenario, job.contender, source, seed + rounds_of[job.contender.name] - 1)
            except LabError as error:
                raise RunFailed(str(error)) from error
            if run.late_us > LATE_US_MAX:
                say(f"bench: the machine was too busy: packets were {run.late_us / 1e3:.1f} ms late on average")
            return run

        often = [job for name, job in jobs.items() if name not in scenario.once]
        seldom = [job for name, job in jobs.items() if name in scenario.once]
        return interleave(often, rounds, run_once, say) + interleave(seldom, 1, run_once, say)


def say(line: str) -> None:
    """Progress and warnings, beside the table."""
    print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str]) -> int:
    """Measure, print, write; returns the exit status. Raises BenchError or OSError for the user to mend."""
    options = parse(argv)
    if lacking := missing():
        raise BenchError(f"wan needs {lacking}")
    scenarios = selected(options)
    programs = {name: wan_run.program_of(name) for one in scenarios for name in one.contenders}
    absent = sorted({program for program in programs.values() if program and not shutil.which(program)})
    if absent:
        say(f"bench: not installed, so not compared with: {', '.join(absent)}")
    scenarios = [
        dataclasses.replace(one, contenders=tuple(name for name in one.contenders if programs[name] not in absent))
        for one in scenarios
    ]
    target = options.json if os.path.exists(options.json) else os.path.dirname(os.path.abspath(options.json))
    if os.path.isdir(options.json) or not os.access(target, os.W_OK):  # better to know now than in an hour
        raise BenchError(f"--json {options.json}: cannot be written")
    measured: list[Measurement] = []
    for one in scenarios:
        say(f"{one.name}: {one.about}; {one.total_bytes / MIB:.0f} MiB, ideal {one.ideal_s:.2f} s")
        measured += measure(one, options.rounds, options.seed)
        print(f"\n{wan_report.table(measured, [one])}\n", flush=True)
    found = [verdict for one in scenarios for _, verdict in wan_report.verdicts(measured, one)]
    if len(scenarios) > 1:
        print(wan_report.table(measured, scenarios))
    print("targets:")
    print("\n".join(map(str, found)) or "  none", flush=True)
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    with open(options.json, "w") as out:
        json.dump(wan_report.as_json(measured, scenarios, settings, absent), out, indent=1)
        out.write("\n")
    say(f"bench: figures written to {options.json}")
    if not any(one.good for one in measured):
        return 1
    return 1 if options.strict and not all(verdict.met for verdict in found) else 0
