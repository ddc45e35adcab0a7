"""Simulate seeds: COUNT runs so many of them, `seed N` runs one and tells its story.

usage: sim COUNT [FIRST]             so many seeds from FIRST on (default 1), on all cores
       sim seed N                    one seed, every event
       sim roads COUNT [FIRST]       the same with roads that legs share: rate, delay, queue, loss, outages
       sim roads seed N
       sim --plot FILE [roads] seed N      ... and a picture of it, as SVG
"""

import concurrent.futures
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.sim import options, plot, road_options, road_world, world
from tests.sim.record import Record

FIRST_DEFAULT = 1

Attempt = tuple[int, Counter[str], str, str, float]


def _attempt(seed: int) -> Attempt:
    try:
        return seed, world.run_seed(seed), "", "", 0
    except Exception as error:  # whatever it is, the seed is the report
        return seed, Counter(), f"{type(error).__name__}: {error}", "", 0


def _attempt_roads(seed: int) -> Attempt:
    kind = road_options.draw(seed).kind
    try:
        outcome = road_world.run_seed(seed)
    except Exception as error:  # whatever it is, the seed is the report
        return seed, Counter(), f"{type(error).__name__}: {error}", kind, 0
    return seed, outcome.counts, "", kind, outcome.efficiency()


def run_many(count: int, first: int, roads: bool) -> int:
    """Run the seeds first ..= first + count - 1; prints what was covered and what failed. 1 if any failed."""
    begun = time.monotonic()
    covered: Counter[str] = Counter()
    kinds: dict[str, list[float]] = {}
    failed = 0
    attempt: Callable[[int], Attempt] = _attempt_roads if roads else _attempt
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
        for seed, counts, error, kind, efficiency in pool.map(attempt, range(first, first + count), chunksize=4):
            covered.update(counts)
            if error:
                failed += 1
                again = f"scripts/sim {'roads ' if roads else ''}seed {seed}"
                print(f"seed {seed} failed: {error}\n    again: {again}", flush=True)
            elif kind:
                kinds.setdefault(kind, []).append(efficiency)
    for what, number in sorted(covered.items()):
        print(f"{number:14} {what}")
    for what in () if roads else world.COVERED:
        if not covered[what]:
            print(f"never happened: {what}")
    for kind, found in sorted(kinds.items()):
        print(
            f"{kind:10} {len(found):6} seeds  efficiency: least {min(found):.2f}, median {statistics.median(found):.2f}"
        )
    print(f"{count} seeds from {first} on, {failed} failed, {time.monotonic() - begun:.1f} s")
    return 1 if failed else 0


def run_one(seed: int, roads: bool, picture: Path | None) -> None:
    """Run one seed and tell every event; with `picture`, draw it too, also when it fails. Raises what is wrong."""
    record = None if picture is None else Record()
    run = road_world.run_seed if roads else world.run_seed
    try:
        run(seed, lambda line: print(line, flush=True), record)
        print("all well")
    finally:
        if picture is not None and record is not None:
            options_text = (road_options if roads else options).draw(seed).describe()
            name = f"{'roads, ' if roads else ''}seed {seed}"
            picture.write_text(plot.draw(record, name, options_text))


def main(words: list[str]) -> int:
    """The exit status: 0 all well, 1 a seed failed, 2 usage."""
    words, picture = list(words), None
    try:
        if "--plot" in words:
            at = words.index("--plot")
            picture = Path(words[at + 1])
            del words[at : at + 2]
        roads = words[:1] == ["roads"]
        words = words[roads:]
        one = words[:1] == ["seed"]
        numbers = [int(word) for word in words[one:]]
        if not 1 <= len(numbers) <= (1 if one else 2) or any(n < 0 for n in numbers) or (picture and not one):
            raise ValueError
    except (ValueError, IndexError):
        print((__doc__ or "").strip(), file=sys.stderr)
        return 2
    if one:
        run_one(numbers[0], roads, picture)
        return 0
    return run_many(numbers[0], numbers[1] if len(numbers) > 1 else FIRST_DEFAULT, roads)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
