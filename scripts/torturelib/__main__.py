"""The command line of `scripts/torture`."""

import argparse
import itertools
import random
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from . import host, report
from .crew import Crew, WorkerLost

JOBS_DEFAULT, JOBS_MAX = 2, 64
MINUTES_MAX = 100_000
TOLD_EVERY_S = 60.0

DESCRIPTION = """\
Real transfers between real processes on this machine, with faults from outside: processes that are stopped and
killed, legs that are cut, readers that die, disks that are full, strangers. Everything follows from a seed, and the
outcome that each seed must have is known beforehand. Stops at the first wrong one and says how to do it again.
As root it does more: it cuts legs with `ss -K` and fills small file systems, in a mount namespace of its own."""

EPILOG = """\
exit status: 0 all outcomes were right, 1 one was wrong, 2 usage, 130 interrupted"""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options; bad ones end the program with status 2 and a line that says why."""
    parser = argparse.ArgumentParser(
        prog="scripts/torture", description=DESCRIPTION, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [option ...] MINUTES\n       %(prog)s [option ...] seed N ...",
    )  # fmt: skip
    add = parser.add_argument
    add("words", nargs="+", metavar="MINUTES | seed N ...", help="how long, or which seeds")
    add("--jobs", type=int, default=JOBS_DEFAULT, metavar="N", help=f"runs at a time (default {JOBS_DEFAULT})")
    add("--first", type=int, metavar="SEED", help="the first seed of those that follow each other (default: any)")
    add("--times", type=int, default=1, metavar="N", help="do each seed so many times")
    add("--program", metavar="COMMAND", help="what to run instead of this checkout's viamillipede")
    add("--without", default="", metavar="NAMES", help=f"what not to try: {', '.join(host.ABILITIES)}; with commas")
    options = parser.parse_args(argv)
    options.without = [name for name in options.without.split(",") if name]
    if unknown := [name for name in options.without if name not in host.ABILITIES]:
        parser.error(f"--without {unknown[0]}: there is {', '.join(host.ABILITIES)}")
    if not 1 <= options.jobs <= JOBS_MAX or options.times < 1:
        parser.error(f"--jobs is from 1 to {JOBS_MAX}, --times at least 1")
    options.seeds, options.minutes = [], 0.0
    try:
        if options.words[0] == "seed":
            options.seeds = [int(word) for word in options.words[1:]]
        else:
            (minutes,) = options.words
            options.minutes = float(minutes)
    except ValueError:
        parser.error(f"{' '.join(options.words)!r} is neither a number of minutes nor 'seed N ...'")
    if not options.seeds and not 0 < options.minutes <= MINUTES_MAX:
        parser.error("say how many minutes, or 'seed' and at least one number")
    if any(seed < 0 for seed in options.seeds):
        parser.error("seeds are not negative")
    return options


def again(options: argparse.Namespace, seed: int) -> str:
    """The command that runs a seed once more."""
    words = ["--program", options.program] * bool(options.program)
    words += ["--without", ",".join(options.without)] * bool(options.without)
    return shlex.join(["scripts/torture", *words, "seed", str(seed)])


def _say(text: str) -> None:
    print(text, flush=True)


def _seeds(options: argparse.Namespace) -> Iterator[int]:
    if options.seeds:
        return itertools.chain.from_iterable(itertools.repeat(options.seeds, options.times))
    first = random.SystemRandom().randrange(10**9) if options.first is None else options.first
    _say(f"from seed {first} on")
    return (seed for seed in itertools.count(first) for _ in range(options.times))


def torture(options: argparse.Namespace, base: Path) -> int:
    """Run, tell, sum up; the exit status. Raises HostError, WorkerLost."""
    program = shlex.split(options.program) if options.program else [sys.executable, "-m", "viamillipede"]
    can, missing = host.probe(program, options.without, base)
    for name, why in missing.items():
        _say(f"not tried: {name}: {why}")
    alone = len(options.seeds) * options.times == 1
    tally, told_s, status, kept = report.Tally(), time.monotonic(), 0, ""
    end_s = tally.began_s + options.minutes * 60
    seeds = _seeds(options)
    jobs = min(options.jobs, max(1, len(options.seeds) * options.times)) if options.seeds else options.jobs
    try:
        with Crew(jobs, can, program, base, alone) as crew:
            for answer in crew.work(seeds, lambda: bool(options.seeds) or time.monotonic() < end_s, _say):
                tally.add(answer)
                if answer["wrong"]:
                    _say(report.failure(answer, again(options, answer["seed"])))
                    status, kept = 1, f"seed-{answer['seed']}"
                    break
                if alone:
                    _tell(answer)
                if time.monotonic() - told_s >= TOLD_EVERY_S:
                    told_s = time.monotonic()
                    _say(tally.line())
    except KeyboardInterrupt:
        _say("interrupted")
        status = 130
    for folder in base.iterdir():  # runs that were under way
        if folder.name != kept:
            shutil.rmtree(folder, ignore_errors=True)
    if not alone or status:
        _say(tally.summary(host.versions(program), jobs, missing))
    return status


def _tell(answer: dict[str, object]) -> None:
    """A single run that went well."""
    plan, said = answer["plan"], answer["said"]
    assert isinstance(plan, list) and isinstance(said, dict)
    _say("\n".join(["", *plan]))
    for role, lines in said.items():
        _say("\n".join(["", f"standard error of {role}:", *(f"  {line}" for line in lines)]))
    _say(f"\nended with {answer['ended']}; {answer['bytes']}: all well")


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main(argv: Sequence[str]) -> int:
    """The exit status."""
    if sys.platform != "linux":
        _say("torture: it needs Linux, for /proc and exact accounting of processes")
        return 2
    options = parse(argv)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    base = Path(tempfile.mkdtemp(prefix="torture-"))
    status = 1
    try:
        status = torture(options, base)
    except (host.HostError, WorkerLost) as error:
        print(f"torture: {error}", file=sys.stderr)
        status = 2 if isinstance(error, host.HostError) else 1
    finally:
        if status != 1:  # else there are logs in it
            shutil.rmtree(base, ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
