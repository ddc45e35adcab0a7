"""Simulate seeds: COUNT runs so many of them, `seed N` runs one and tells its story.

usage: sim COUNT [FIRST]     so many seeds from FIRST on (default 1), on all cores
       sim seed N            one seed, every event
"""

import concurrent.futures
import os
import sys
import time
from collections import Counter

from tests.sim.world import COVERED, run_seed

FIRST_DEFAULT = 1


def _attempt(seed: int) -> tuple[int, Counter[str], str]:
    try:
        return seed, run_seed(seed), ""
    except Exception as error:  # whatever it is, the seed is the report
        return seed, Counter(), f"{type(error).__name__}: {error}"


def run_many(count: int, first: int) -> int:
    """Run the seeds first ..= first + count - 1; prints what was covered and what failed. 1 if any failed."""
    begun = time.monotonic()
    covered: Counter[str] = Counter()
    failed = 0
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
        for seed, counts, error in pool.map(_attempt, range(first, first + count), chunksize=4):
            covered.update(counts)
            if error:
                failed += 1
                print(f"seed {seed} failed: {error}\n    again: scripts/sim seed {seed}", flush=True)
    for what, number in sorted(covered.items()):
        print(f"{number:10} {what}")
    for what in COVERED:
        if not covered[what]:
            print(f"never happened: {what}")
    print(f"{count} seeds from {first} on, {failed} failed, {time.monotonic() - begun:.1f} s")
    return 1 if failed else 0


def main(words: list[str]) -> int:
    """The exit status: 0 all well, 1 a seed failed, 2 usage."""
    try:
        numbers = [int(word) for word in words if word != "seed"]
        if any(n < 0 for n in numbers) or not numbers or len(numbers) > (1 if "seed" in words else 2):
            raise ValueError
        if words[0] == "seed":
            run_seed(numbers[0], lambda line: print(line, flush=True))
            print("all well")
            return 0
        if "seed" in words:
            raise ValueError
    except ValueError:
        print((__doc__ or "").strip(), file=sys.stderr)
        return 2
    return run_many(numbers[0], numbers[1] if len(numbers) > 1 else FIRST_DEFAULT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
