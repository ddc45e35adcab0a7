"""Prometheus asks a real server over a real socket, which shows what the snapshots say and leaves nothing behind."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.views.scraping import HOST, ask, serving
from tests.views.snapshots import SESSION, many_legs, rx_snapshot, tx_snapshot, waiting_snapshot
from viamillipede import __version__
from viamillipede.config import GIB, LEGS_MAX, MIB, Address
from viamillipede.views.metrics import METRICS, STREAM_LABELS, STREAMS_NAME, MetricsServer
from viamillipede.views.snapshot import Snapshot

OUTCOMES = {0: 3, 7: 1}

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]  # by name, by labels in order


def samples(text: str) -> Samples:
    """What the client library's own parser finds."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            series = found.setdefault(sample.name, {})
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in series, f"{sample.name} {labels} is there twice"
            series[labels] = sample.value
    return found


def scrape(*snapshots: Snapshot, **others: Any) -> Samples:
    """What Prometheus gets."""
    with serving(*snapshots, **others) as server:
        status, text = ask(server)
    assert status == 200
    return samples(text)


def of(name: str, found: Samples, *labels: str) -> dict[tuple[str, ...], float]:
    """Values by those of these labels."""
    return {tuple(dict(series)[label] for label in labels): value for series, value in found[name].items()}


def value(name: str, found: Samples) -> float:
    """That of the only sample."""
    (only,) = found[name].values()
    return only


# What is told -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("viamillipede_elapsed_seconds", 12.3),
        ("viamillipede_moved_bytes_total", 6 * GIB),
        ("viamillipede_read_bytes_total", 6 * GIB + 12 * MIB),
        ("viamillipede_expected_bytes", 16 * GIB),
        ("viamillipede_left_seconds", pytest.approx(10 * 1024 / 499, abs=1e-6)),
        ("viamillipede_window_used_bytes", 12 * MIB),
        ("viamillipede_window_bytes", 64 * MIB),
        ("viamillipede_legs", 7),
        ("viamillipede_restarts_total", 3),
        ("viamillipede_retransmitted_frames_total", 4),
        ("viamillipede_retransmitted_bytes_total", 5 * MIB),
        ("viamillipede_hedges_total", 2),
        ("viamillipede_corrupted_frames_total", 6),
        ("viamillipede_refused_connections_total", 1),
        ("viamillipede_idle_seconds", 0.02),
        ("viamillipede_stalled", 1),
        ("viamillipede_cpu_ratio", 0.87),
    ],
)
def test_a_figure_of_the_stream(name: str, expected: float) -> None:
    found = scrape(tx_snapshot(corrupted=6, retransmitted_bytes=5 * MIB, stalled=True))
    assert of(name, found, "session", "name") == {(SESSION, "db1"): expected}


def test_what_kind_of_stream_it_is() -> None:
    found = scrape(tx_snapshot())
    assert of("viamillipede_info", found, "version", "role", "session", "name") == {
        (__version__, "tx", SESSION, "db1"): 1
    }
    states = {("waiting",): 0, ("running",): 1, ("complete",): 0, ("failed",): 0}
    assert of("viamillipede_state", found, "state") == states
    for state in ("waiting", "complete", "failed"):
        assert of("viamillipede_state", scrape(tx_snapshot(state=state)), "state")[state,] == 1


def test_what_was_waited_for() -> None:
    shares = {("source",): 0.11, ("network",): 0.78, ("core",): 0.05, ("sink",): 0.02, ("limit",): 0}
    assert of("viamillipede_wait_ratio", scrape(tx_snapshot()), "for") == shares


def test_figures_of_paths_and_legs() -> None:
    sent = tx_snapshot()
    found = scrape(sent)
    addresses = {(str(rank), path.address): 1.0 for rank, path in enumerate(sent.paths)}
    assert of("viamillipede_path_info", found, "path", "address") == addresses
    assert of("viamillipede_path_moved_bytes_total", found, "path") == {("0",): 4 * GIB, ("1",): 2 * GIB}
    assert of("viamillipede_path_legs", found, "path") == {("0",): 4, ("1",): 3}
    assert of("viamillipede_path_legs_wanted", found, "path") == {("0",): 4, ("1",): 4}
    expected: dict[str, Callable[[Any], float]] = {
        "viamillipede_leg_up": lambda leg: leg.state != "down",
        "viamillipede_leg_moved_bytes_total": lambda leg: leg.moved_bytes,
        "viamillipede_leg_retransmissions_total": lambda leg: leg.retransmissions,
        "viamillipede_leg_in_flight_bytes": lambda leg: leg.in_flight_bytes,
        "viamillipede_leg_hedged_frames_total": lambda leg: leg.hedged,
        "viamillipede_leg_restarts_total": lambda leg: leg.restarts,
    }
    for name, figure in expected.items():
        assert of(name, found, "leg", "path") == {(str(leg.number), str(leg.path)): figure(leg) for leg in sent.legs}
    round_trips = of("viamillipede_leg_rtt_seconds", found, "leg", "path")
    assert (round_trips["5", "1"], len(round_trips)) == (0.10575, 7), "leg 7 is down"


def test_what_is_not_known_or_not_its_own_has_no_sample() -> None:
    received = scrape(rx_snapshot())
    unknown = {"viamillipede_expected_bytes", "viamillipede_left_seconds", "viamillipede_path_legs_wanted"}
    of_tx = {"viamillipede_leg_in_flight_bytes", "viamillipede_leg_hedged_frames_total"}
    of_rx = {"viamillipede_leg_vain_bytes_total"}
    every = {metric.name for metric in METRICS}
    assert every - received.keys() == unknown | of_tx
    assert every - scrape(tx_snapshot()).keys() == of_rx
    assert of("viamillipede_leg_vain_bytes_total", received, "leg")["3",] == 2 * MIB


def test_before_the_first_contact() -> None:
    found = scrape(waiting_snapshot(session=""))
    assert value("viamillipede_legs", found) == 0
    assert of("viamillipede_state", found, "session", "state")["", "waiting"] == 1


def test_several_streams_are_told_apart_and_none_twice() -> None:
    first, second = rx_snapshot(session="a" * 32), rx_snapshot(session="b" * 32, name='q"\n\\', moved_bytes=5)
    found = scrape(first, second, replace(first, moved_bytes=7))
    moved = of("viamillipede_moved_bytes_total", found, "session", "name")
    assert moved == {("a" * 32, "db1"): 7, ("b" * 32, 'q"\n\\'): 5}


def test_ended_streams_are_counted_by_outcome() -> None:
    outcomes = dict(OUTCOMES)
    with serving(streams=outcomes) as server:
        assert of(STREAMS_NAME, samples(ask(server)[1]), "outcome") == {("0",): 3, ("7",): 1}
        outcomes[0] += 1
        assert of(STREAMS_NAME, samples(ask(server)[1]), "outcome") == {("0",): 4, ("7",): 1}
    assert STREAMS_NAME not in scrape(tx_snapshot())


def test_labels_are_bounded_whatever_a_snapshot_holds() -> None:
    found = scrape(tx_snapshot(legs=many_legs(LEGS_MAX + 5)))
    assert len(found["viamillipede_leg_up"]) == LEGS_MAX


def test_every_scrape_shows_the_latest() -> None:
    moved = iter(range(1, 10))
    server = MetricsServer(Address(HOST, 0), lambda: (tx_snapshot(moved_bytes=next(moved)),))
    server.start()
    try:
        seen = [value("viamillipede_moved_bytes_total", samples(ask(server)[1])) for _ in range(3)]
    finally:
        server.stop()
    assert seen == [1, 2, 3], "and nothing asks for figures in between, or at the start"


def test_nothing_else_is_told() -> None:
    found = scrape(tx_snapshot(), streams=OUTCOMES)
    assert all(name.startswith("viamillipede_") for name in found), "the library's own registry has more"


# The manual, the conventions --------------------------------------------------------------------------------


def manual() -> str:
    """The section METRICS of viamillipede(1)."""
    page = Path(__file__).parents[2] / "man" / "viamillipede.1"
    match = re.search(r"^\.Sh METRICS\n(.*?)(?=^\.Sh |\Z)", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert match is not None, "viamillipede(1) has no section METRICS"
    return match[1]


def explained(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """Each metric and its own labels, in order."""
    items = re.findall(r"^\.It Va (\S+)(?: Brq (.+))?$", text, flags=re.M)
    return [(name, tuple(labels.split(" , ")) if labels else ()) for name, labels in items]


def test_the_manual_explains_every_metric_and_no_other() -> None:
    code = [(metric.name, metric.labels) for metric in METRICS]
    assert explained(manual()) == [*code, (STREAMS_NAME, ("outcome",))]


def test_the_table_is_what_is_served() -> None:
    found = scrape(tx_snapshot(), rx_snapshot(session="b" * 32), streams=OUTCOMES)
    served = {name: {label for label, _ in next(iter(series))} for name, series in found.items()}
    assert served == {metric.name: {*STREAM_LABELS, *metric.labels} for metric in METRICS} | {STREAMS_NAME: {"outcome"}}


def test_states_and_causes_of_the_manual_are_those_of_the_program() -> None:
    found = scrape(tx_snapshot())
    for name, label in (("viamillipede_state", "state"), ("viamillipede_wait_ratio", "for")):
        entry = manual().partition(f".It Va {name} ")[2].partition(".It ")[0]
        named = re.findall(r"^\.Ql (\w+)", entry, flags=re.M)
        assert [(each,) for each in named] == [*of(name, found, label)]


def test_names_follow_the_conventions() -> None:
    for metric in METRICS:
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.name.endswith("_info") == (metric.kind == "info"), metric.name
        assert metric.help.endswith("."), metric.name
    with serving(tx_snapshot()) as server:
        text = ask(server)[1]
    assert text.count("# HELP ") == text.count("# TYPE ") == len(METRICS)
