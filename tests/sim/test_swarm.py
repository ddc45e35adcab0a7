"""500 simulated worlds, always the same ones, in chunks that can run side by side."""

from collections import Counter

import pytest

from tests.sim.world import COVERED, run_seed

FIRST = 1
CHUNK = 125
CHUNKS = 4


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_swarm(chunk: int) -> None:
    """Every world ends well, and each chunk has seen every case that the design must get right."""
    covered: Counter[str] = Counter()
    for seed in range(FIRST + chunk * CHUNK, FIRST + (chunk + 1) * CHUNK):
        try:
            covered.update(run_seed(seed))
        except Exception as error:
            error.add_note(f"again: scripts/sim seed {seed}")
            raise
    assert not [what for what in COVERED if not covered[what]], "the seeds do not cover this any more"
