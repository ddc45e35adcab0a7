"""Seeds that once failed, each with what was wrong. A change of what a seed draws makes them plain seeds."""

import pytest

from tests.sim import road_world
from tests.sim.__main__ import main
from tests.sim.world import run_seed

FOUND = {
    4: "rx set its alarm into the past, again and again, once the stream was done",
    6: "a leg that waits while another one brings the same frame is not forgotten",
    43: "before the first round trip was measured, every frame was late after 100 ms",
    172: "a leg that became very slow made every frame of the others look in time: nothing was hedged",
    330: "a slow link must not look stuck between two packets",
    409: "a frame in one piece was torn when the ring grew to a size that was no multiple of the old one",
    931: "a leg in a black hole was kept, because others had delivered its frames",
    1874: "a leg in a black hole was kept, because what others delivered counted as its progress",
}

FOUND_ON_ROADS = {
    31: "the tuner took another number for its bound and stayed with one leg for ever",
}


@pytest.mark.parametrize("seed", FOUND_ON_ROADS)
def test_found_on_roads(seed: int) -> None:
    """It does not come back."""
    road_world.run_seed(seed)


@pytest.mark.parametrize("seed", FOUND)
def test_found(seed: int) -> None:
    """It does not come back."""
    run_seed(seed)


def test_a_run_is_reproducible() -> None:
    """The same seed gives the same story, event by event."""
    stories: list[list[str]] = [[], []]
    counts = [run_seed(11, story.append) for story in stories]
    assert counts[0] == counts[1] and stories[0] == stories[1] and len(stories[0]) > 20
    outcomes = [road_world.run_seed(13, story.append) for story in stories]
    assert outcomes[0] == outcomes[1] and stories[0] == stories[1]


WRONG = (
    "|x|-1|seed|seed 1 2|1 2 3|1 seed|roads|roads x|roads seed|seed roads 1|--plot|--plot f|--plot f 1|seed 1 --plot"
)


@pytest.mark.parametrize("words", [words.split() for words in WRONG.split("|")])
def test_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be understood is answered with the usage."""
    assert main(words) == 2
    assert "usage: sim COUNT" in capsys.readouterr().err
