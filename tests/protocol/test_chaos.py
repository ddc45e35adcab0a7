"""Faults on purpose: how many, which, when; the same each time."""

import pytest

from viamillipede.config import CHAOS_KINDS
from viamillipede.protocol.chaos import KINDS, Chaos


def faults(chaos: Chaos, operations: int) -> list[str | None]:
    """What each of so many operations suffers."""
    return [chaos.next_fault() for _ in range(operations)]


def test_without_chaos_nothing_ever_breaks() -> None:
    chaos = Chaos(0, "all", checksum=True)
    assert not any(faults(chaos, 10_000)) and chaos.faults == 0


@pytest.mark.parametrize("every", [1, 2, 7, 1731])
@pytest.mark.parametrize("kind", KINDS)
def test_exactly_every_nth_operation_breaks(every: int, kind: str) -> None:
    chaos = Chaos(every, kind, checksum=True)
    suffered = faults(chaos, 5 * every + every // 2)
    at = [number for number, fault in enumerate(suffered, 1) if fault]
    assert at == [every * count for count in range(1, len(at) + 1)] and len(at) >= 5
    assert {fault for fault in suffered if fault} == {kind}
    assert chaos.faults == len(at)


@pytest.mark.parametrize(("checksum", "kinds"), [(True, KINDS), (False, KINDS[:-1])])
def test_all_takes_the_kinds_in_turn(checksum: bool, kinds: tuple[str, ...]) -> None:
    """And damages only what a checksum mends."""
    assert "corrupt" == KINDS[-1]
    suffered = [fault for fault in faults(Chaos(3, "all", checksum), 3 * 2 * len(kinds)) if fault]
    assert suffered == [*kinds, *kinds]


def test_two_runs_suffer_the_same() -> None:
    one, other = (Chaos(5, "all", checksum=True) for _ in range(2))
    assert faults(one, 100) == faults(other, 100)


def test_the_command_line_offers_exactly_these() -> None:
    assert CHAOS_KINDS == (*KINDS, "all")
