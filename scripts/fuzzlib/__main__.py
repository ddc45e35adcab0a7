"""The command line of `scripts/fuzz`."""

import argparse
import importlib.util
import itertools
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import targets

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".cache" / "fuzz"
MINUTES_MAX = 100_000
ROUND_S = 120.0  # of one target, then comes the next one
RSS_MIB_MAX = 2048
INPUT_S_MAX = 20

DESCRIPTION = """\
Coverage-guided fuzzing of what hears bytes from a peer or reads a file: both parsers of a leg, in clear and sealed,
greetings, hellos and handshakes, key files and configurations. One process at a time, each target in its turn. What
was found to be interesting is kept in .cache/fuzz and built upon by the next run."""

EPILOG = f"""\
targets: {", ".join(targets.TARGETS)} (default: all of them)
exit status: 0 nothing was found, 1 something was, 2 usage, 130 interrupted"""


@dataclass(slots=True)
class Tally:
    """Of one target: inputs so far, edges covered, and files with inputs that it does not survive."""

    runs: int = 0
    edges: int = 0
    features: int = 0
    corpus: int = 0
    found: tuple[Path, ...] = ()


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options; bad ones end the program with status 2 and a line that says why."""
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz", description=DESCRIPTION, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s MINUTES [target ...]\n       %(prog)s again TARGET FILE",
    )  # fmt: skip
    parser.add_argument("words", nargs="+", metavar="MINUTES | again", help="how long, of all targets together")
    options = parser.parse_args(argv)
    first, *rest = options.words
    options.again = None
    if first == "again":
        if len(rest) != 2:
            parser.error("say: again TARGET FILE")
        options.again, rest = Path(rest[1]), rest[:1]
        if not options.again.is_file():
            parser.error(f"{options.again}: no such file")
    else:
        try:
            options.minutes = float(first)
        except ValueError:
            parser.error(f"{first!r} is no number of minutes")
        if not 0 < options.minutes <= MINUTES_MAX:
            parser.error("say how many minutes, more than 0")
    if unknown := [name for name in rest if name not in targets.TARGETS]:
        parser.error(f"{unknown[0]!r} is no target; there is {', '.join(targets.TARGETS)}")
    options.targets = list(dict.fromkeys(rest)) or list(targets.TARGETS)
    return options


def again(name: str, path: Path) -> int:
    """Play one input, without the engine; what it raises is what was found."""
    targets.TARGETS[name](path.read_bytes())
    print(f"fuzz: {name} survives {path}")
    return 0


def prepare(name: str) -> tuple[Path, Path]:
    """The folders of a target: of inputs to begin with, and of what was found."""
    corpus, found = KEPT / "corpus" / name, KEPT / "found" / name
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(targets.seeds(name)):
        (corpus / f"seed-{number}").write_bytes(data)
    return corpus, found


def fuzz(name: str, seconds: float, tally: Tally) -> None:
    """Run a target for so long, or until it fails."""
    corpus, found = prepare(name)
    before = set(found.iterdir())
    command = [
        sys.executable, "-m", "fuzzlib.engine", name, f"-max_total_time={max(1, round(seconds))}",
        f"-max_len={targets.SCRIPT_BYTES_MAX}", f"-rss_limit_mb={RSS_MIB_MAX}", f"-timeout={INPUT_S_MAX}",
        f"-artifact_prefix={found}/", "-print_final_stats=1", "-verbosity=1", str(corpus),
    ]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if runs := re.search(r"number_of_executed_units: (\d+)", done.stdout):
        tally.runs += int(runs[1])
    for at in re.finditer(r"cov: (\d+) ft: (\d+) corp: (\d+)", done.stdout):
        tally.edges, tally.features = max(tally.edges, int(at[1])), max(tally.features, int(at[2]))
        tally.corpus = int(at[3])
    new = sorted(set(found.iterdir()) - before)
    tally.found += tuple(new)
    if done.returncode or new:
        print("\n".join(line for line in done.stdout.splitlines() if not re.match(r"#\d+\t", line)))
        for path in new:
            print(
                f"fuzz: {name} does not survive this; again: {shlex.join(['scripts/fuzz', 'again', name, str(path)])}"
            )
        if not new:
            raise SystemExit(f"fuzz: the engine ended with {done.returncode}; the lines above say why")


def line(name: str, tally: Tally) -> str:
    """How a target stands."""
    found = f", {len(tally.found)} FOUND" if tally.found else ""
    return (
        f"fuzz: {name}: {tally.runs} runs, {tally.edges} edges, {tally.features} features, "
        f"{tally.corpus} inputs kept{found}"
    )


def main(argv: Sequence[str]) -> int:
    """The exit status."""
    options = parse(argv)
    if options.again is not None:
        return again(options.targets[0], options.again)
    if importlib.util.find_spec("atheris") is None:
        pip = shlex.join([sys.executable, "-m", "pip", "install", "--editable", f"{ROOT}[fuzz]"])
        print(f"scripts/fuzz: it needs atheris, which is not installed; say: {pip}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell starts what runs in the background with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    tallies = {name: Tally() for name in options.targets}
    end_s = time.monotonic() + options.minutes * 60
    share_s = min(ROUND_S, options.minutes * 60 / len(options.targets))
    status = 0
    try:
        for name in itertools.cycle(tallies):
            left_s = end_s - time.monotonic()
            if left_s < 1 or all(tally.found for tally in tallies.values()):
                break
            if not tallies[name].found:  # it would find the same again
                fuzz(name, min(share_s, left_s), tallies[name])
                print(line(name, tallies[name]), flush=True)
    except KeyboardInterrupt:
        status = 130
    print("\n".join(["", *(line(name, tally) for name, tally in tallies.items())]), flush=True)
    return status or int(any(tally.found for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
