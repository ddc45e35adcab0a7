"""Simulated roads: a few fixed worlds of every kind, and what the model of TCP itself must be like."""

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.sim import plot, road_world
from tests.sim.__main__ import main
from tests.sim.agenda import Agenda
from tests.sim.ideal import Endless
from tests.sim.record import Record, Sample
from tests.sim.road_options import KINDS, MBIT, draw
from tests.sim.road_world import Outcome
from tests.sim.roads import Road, RoadPlan
from viamillipede.config import MIB, MS_US, S_US

SVG = "{http://www.w3.org/2000/svg}"
EACH = 2  # worlds of each kind, the first ones in order
NOTICING = (6, 52, 69)  # and those that notice when dead legs are not given up, or nothing is hedged


def _seeds() -> list[int]:
    left = dict.fromkeys(KINDS, EACH)
    seeds = []
    for seed in range(1, 1000):
        kind = draw(seed).kind
        if left[kind]:
            left[kind] -= 1
            seeds.append(seed)
    return sorted({*seeds, *NOTICING})


SEEDS = _seeds()


def test_every_kind_is_there() -> None:
    """The seeds below cover all kinds, with fixed numbers of legs and without."""
    worlds = [draw(seed) for seed in SEEDS]
    assert {world.kind for world in worlds} == set(KINDS) and len(worlds) >= EACH * len(KINDS)
    assert any(world.threads for world in worlds) and any(not world.threads for world in worlds)


@pytest.mark.parametrize("seed", SEEDS)
def test_world(seed: int) -> None:
    """The stream is whole, and as fast as the roads permit; nothing is silent, the end is as fast as the middle."""
    try:
        road_world.run_seed(seed)
    except AssertionError as error:
        error.add_note(f"again: scripts/sim roads seed {seed}")
        raise


@pytest.mark.parametrize(
    ("kind", "ours_us", "tail_us", "silent_us", "first", "replaced", "wrong"),
    [
        ("clean", 10 * S_US, 1 * S_US, 1 * S_US, 0.1, 0, []),
        ("clean", 14 * S_US, 1 * S_US, 1 * S_US, 0.1, 0, ["slow"]),
        ("clean", 10 * S_US, 3 * S_US, 1 * S_US, 0.1, 0, ["tail"]),
        ("clean", 10 * S_US, 1 * S_US, 4 * S_US, 0.1, 0, ["silent"]),
        ("preferred", 10 * S_US, 1 * S_US, 1 * S_US, 0.1, 0, ["not over the first road"]),
        ("clean", 10 * S_US, 1 * S_US, 1 * S_US, 0.1, 1, ["a leg was replaced"]),
        ("outage", 10 * S_US, 1 * S_US, 1 * S_US, 0.1, 1, []),
    ],
)
def test_demands(kind: str, ours_us: int, tail_us: int, silent_us: int, first: float, replaced: int,
                 wrong: list[str]) -> None:  # fmt: skip
    """Each demand can fail."""
    outcome = Outcome(kind, 0.85, ours_us, 10 * S_US, tail_us, S_US, silent_us, first, Counter(replaced=replaced))
    assert road_world.complaints(outcome) == wrong


# ---- the model ----------------------------------------------------------------------------------
def _carried(plan: RoadPlan, flows: int, seconds: int) -> list[int]:
    """How many bytes the flows deliver in each second."""
    agenda = Agenda()
    road = Road(agenda, random.Random(1), plan)
    each = [Endless(road, road.there, road.back) for _ in range(flows)]
    begin_us, found = agenda.now_us, [0]
    for flow in each:
        flow.start()
    for second in range(1, seconds + 1):
        while agenda.now_us < begin_us + second * S_US:
            agenda.step()
        found.append(sum(flow.delivered() for flow in each))
    return [after - before for before, after in pairwise(found)]


def _plan(mbit: int, delay_ms: int, queue_ms: int, loss: float = 0) -> RoadPlan:
    return RoadPlan(mbit * MBIT, delay_ms * MS_US, queue_ms * MS_US, loss, mbit * MBIT)


@pytest.mark.parametrize(
    ("flows", "least", "most"),
    [(1, 5, 10), (4, 22, 40), (16, 75, 92)],
)
def test_flows_are_as_fast_as_on_a_real_road(flows: int, least: int, most: int) -> None:
    """100 mbit, 100 ms, one segment in a thousand lost: CUBIC in a real kernel was seen at 6.4, 38 and 83 mbit."""
    mbit = sum(_carried(_plan(100, 50, 100, 0.001), flows, 22)) * 8 / 22 / 1e6
    assert least < mbit < most


def test_a_clean_road_is_filled() -> None:
    """The rate, but for headers."""
    for flows in (1, 16):
        carried = _carried(_plan(100, 5, 50), flows, 4)
        assert sum(carried[1:]) > 0.98 * 3 * 100 * MBIT * 1448 / 1500


def test_a_cap_holds_each_flow() -> None:
    """Three flows get three times the cap, whatever the road could carry."""
    carried = _carried(replace(_plan(100, 5, 50), cap=30_000), 3, 6)
    assert 0.9 * 90_000 < carried[-1] < 90_000


def test_a_road_that_returns_is_used_at_the_next_timeout() -> None:
    """Down from 2 to 7 s: a kernel tried again 1.6 to 2.8 s later; with a limit on its patience, sooner."""
    down = replace(_plan(200, 1, 50), downs=((2 * S_US, 7 * S_US),))
    carried = _carried(down, 1, 12)
    assert not any(carried[3:7]) and carried[7] < carried[1] // 10 and carried[10] > 0.9 * carried[1]
    patient = _carried(replace(down, rto_us_max=S_US), 1, 12)
    assert not any(patient[3:7]) and patient[7] > carried[7] + MIB


# ---- the picture --------------------------------------------------------------------------------
def test_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is XML, has a row for each leg and a bar for each copy of a frame, and tells what it was drawn for."""
    seed = next(seed for seed in SEEDS if draw(seed).kind == "outage")
    picture = tmp_path / "seed.svg"
    assert main(["--plot", str(picture), "roads", "seed", str(seed)]) == 0
    assert "all well" in capsys.readouterr().out
    document = ElementTree.parse(picture)
    titles = [node.text or "" for node in document.iter(f"{SVG}title")]
    record = Record()
    road_world.run_seed(seed, None, record)
    bars = [title for title in titles if title.startswith("frame ")]
    assert len(bars) == len(record.sent) > 10
    assert sum("hedged" in bar for bar in bars) == sum(sent.how == "hedged" for sent in record.sent)
    assert f"seed = {seed}" in titles[0] and any("down" in title for title in titles)
    rows = {node.text for node in document.iter(f"{SVG}text")}
    assert {f"leg {sent.leg}" for sent in record.sent} <= rows


def test_stalls() -> None:
    """Only what lasts, and not what came before the first byte."""
    record = Record()
    for at, written in ((0, 0), (900, 0), (1000, 5), (1200, 9), (1700, 9), (2000, 20)):
        record.samples.append(Sample(at * MS_US, written, 99, 99, 99, written, 1, {}))
    assert plot.stalls(record.samples) == [(1200 * MS_US, 2000 * MS_US, 9)]
