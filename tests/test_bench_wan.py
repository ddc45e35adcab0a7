"""scripts/bench wan: what it selects, what it calls ideal, what it concludes, and runs of a MiB from end to end."""

import dataclasses
import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from benchlib import wan, wan_pipe, wan_report, wan_run, wan_scenarios  # noqa: E402
from benchlib.contenders import BenchError, Contender  # noqa: E402
from benchlib.pipeline import Source  # noqa: E402
from benchlib.processes import RunFailed, Side  # noqa: E402
from benchlib.rounds import Job, Measurement  # noqa: E402
from benchlib.wan_run import WanRun  # noqa: E402
from benchlib.wan_scenarios import AUTO, MPTCP, NC, SCENARIOS, Event, Scenario, Target, iperf3, ours  # noqa: E402

from tests.netlab import Link, missing  # noqa: E402
from viamillipede import settings  # noqa: E402
from viamillipede.config import THREADS_AUTO_MAX, RxConfig, TxConfig  # noqa: E402

MIB = 1 << 20
needs_root = pytest.mark.skipif(bool(missing()), reason=f"needs {missing()}")
SMALL = Scenario("small", "two links", (Link(100, 1), Link(50, 1)), MIB, (AUTO, ours(2), MPTCP))


def scenario(name: str) -> Scenario:
    """The one of that name."""
    (found,) = (one for one in SCENARIOS if one.name == name)
    return found


def measurement(name: str, seconds: Sequence[float], failures: Sequence[str] = (), **figures: float) -> Measurement:
    """As if a contender had needed these times for SMALL."""
    one = Measurement(Job(SMALL.name, Contender(name), Source("random", (), MIB)), failures=list(failures))
    side = Side(1.0, MIB)
    one.runs += [WanRun(each, MIB, side, side, (("share", 0.5), *figures.items())) for each in seconds]
    return one


# What is ideal ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "ideal_s"),
    [
        ("lossy", 5.6),
        ("unequal", 3.2),
        ("one-down", 5.4),
        ("only-down", 10.6),
        ("per-connection", 20),
        ("slow-tail", 10),
    ],
)
def test_what_is_ideal_for_a_scenario(name: str, ideal_s: float) -> None:
    assert scenario(name).ideal_s == pytest.approx(ideal_s, abs=0.05)


def test_a_slow_source_sets_the_ideal() -> None:
    assert scenario("preference").ideal_s == pytest.approx(256 * MIB * 8 / 300e6)


def test_what_links_carry_while_they_change() -> None:
    rate = 1e6 * 125_000 / 1e6 * wan_scenarios.PAYLOAD  # of one Mbit/s
    one = dataclasses.replace(
        SMALL, events=(Event(1, 0, up=False), Event(2, 1, rate_mbit=10), Event(3, 0, up=True), Event(4, 0, rate_mbit=1))
    )
    expected = [150 * 1, 150 + 50, 150 + 50 + 10, 150 + 50 + 10 + 110, 150 + 50 + 10 + 110 + 11]
    for second, total in enumerate(expected, 1):
        assert one.carried_until(second) == pytest.approx(total * rate)
    assert one.carried_until(0.5) == pytest.approx(75 * rate)
    later = dataclasses.replace(one, total_bytes=round((150 + 50 + 10 + 110 + 5.5) * rate))
    assert later.ideal_s == pytest.approx(4.5)


def test_links_that_never_carry_it_all_are_an_error() -> None:
    with pytest.raises(ValueError, match="never"):
        _ = dataclasses.replace(SMALL, links=(Link(1),), events=(Event(0, 0, up=False),)).ideal_s


@pytest.mark.parametrize("one", SCENARIOS, ids=lambda one: one.name)
def test_scenarios_are_consistent(one: Scenario) -> None:
    assert 0 < one.ideal_s < one.timeout_s
    assert {*one.once, *one.first_only} <= set(one.contenders)
    assert [event.at_s for event in one.events] == sorted(event.at_s for event in one.events)
    assert all(event.link < len(one.links) for event in one.events)
    for target in wan_report.targets_of(one):
        assert {target.contender, *target.beside} <= set(one.contenders)
    assert len({wan_run.contender(name, one).name for name in one.contenders}) == len(one.contenders)
    assert all(map(wan_run.is_contender, one.contenders))


@pytest.mark.parametrize("one", SCENARIOS, ids=lambda one: one.name)
def test_our_commands_are_what_our_command_line_takes(one: Scenario) -> None:
    for name in filter(wan_report.is_ours, one.contenders):
        rx, tx = wan_run.contender(name, one).commands(8834)
        port = wan_run.PROXY_PORT if one.proxy else wan_run.PORT
        parsed = settings.parse(tx[3:], {})
        assert isinstance(parsed, TxConfig) and isinstance(settings.parse(rx[3:], {}), RxConfig)
        assert len(parsed.addresses) == (1 if name.endswith("-first") else len(one.links))
        assert {address.port for address in parsed.addresses} == {port}


def test_by_itself_it_is_compared_with_what_it_may_choose() -> None:
    for one in SCENARIOS:
        tuned = [target for target in wan_report.targets_of(one) if target.goal == wan_report.TUNED_WITHIN]
        for target in tuned:
            assert target.beside and all(int(name.removeprefix("ours-")) <= THREADS_AUTO_MAX for name in target.beside)
    assert any(ours(200) in one.contenders for one in SCENARIOS), "too many for the tuner, so not in a comparison"


# What is concluded ------------------------------------------------------------------------------------------


def test_targets_are_met_or_missed() -> None:
    targets = (
        Target(AUTO, "seconds", 2.0),
        Target(AUTO, "seconds", 1.0, beside=(NC, iperf3(4))),
        Target(AUTO, "seconds", 1.0, beside=(MPTCP,)),
        Target(AUTO, "share", 0.6, at_least=True),
        Target(AUTO, "spill_s", 2.0),
    )
    one = dataclasses.replace(SMALL, targets=targets, contenders=(AUTO, NC, iperf3(4), MPTCP))
    measured = [
        measurement(AUTO, (1.9, 9.0, 1.8), spill_s=0.5),
        measurement(NC, (4.0,)),
        measurement(iperf3(4), (1.0,)),
        measurement(MPTCP, (0.1,), failures=["it broke"]),
    ]
    verdicts = [(verdict.measured, verdict.met) for _, verdict in wan_report.verdicts(measured, one)]
    assert verdicts == [(1.9, True), (1.9, False), (None, False), (0.5, False), (0.5, True)]


def test_a_figure_that_one_run_lacks_is_no_figure() -> None:
    one = measurement(AUTO, (1.0, 1.0), spill_s=0.5)
    assert wan_report.figure(one, "spill_s") == 0.5
    one.runs[0] = WanRun(1.0, MIB)
    assert wan_report.figure(one, "spill_s") is None


def test_the_table_shows_times_ratios_and_failures() -> None:
    one = dataclasses.replace(SMALL, targets=(Target(AUTO, "seconds", 1.0),), contenders=(AUTO, ours(2), NC, MPTCP))
    measured = [
        measurement(AUTO, (1.0, 3.0, 2.0)),
        measurement(ours(2), ()),
        measurement(NC, (4.0,)),
        measurement(MPTCP, (0.1,), failures=["check exited 1: corrupted"]),
    ]
    rows = wan_report.table(measured, [one]).splitlines()
    assert rows[0].split() == " ".join(wan_report.HEAD).split()
    assert rows[1].split() == ["small", "ours", "2.00", "1.00-3.00", "4.2", "50", "%", "0.50", "no"]
    assert rows[3].split() == ["nc", "4.00", "4.00-4.00", "2.1", "50", "%", "1.00"]
    assert rows[4].split(maxsplit=1) == ["mptcp", "FAILED 1 of 2: check exited 1: corrupted"]


def samples(*legs: tuple[float, int, int]) -> wan_run.Samples:
    """Phases of so many seconds, with the bytes per second of two links in each."""
    at, links = 0.0, [0, 0]
    found: wan_run.Samples = [(at, (0, 0))]
    for seconds, *rates in legs:
        for _ in range(round(seconds / wan_run.SAMPLE_S)):
            at += wan_run.SAMPLE_S
            links = [link + round(rate * wan_run.SAMPLE_S) for link, rate in zip(links, rates, strict=True)]
            found.append((at, (links[0], links[1])))
    return found


def test_recovery_is_seen_in_the_counters() -> None:
    # Throttled at 3: nothing takes over for a second. Restored at 6: the first link is used again two seconds later.
    seen = samples((3, 1000, 0), (1, 100, 0), (2, 100, 900), (2, 100, 900), (2, 1000, 0))
    found = wan_run.recovery(seen, 3, 6, 1000)
    assert found["spill_s"] == pytest.approx(1, abs=0.15)
    assert found["return_s"] == pytest.approx(2, abs=0.15)


def test_what_does_not_recover_has_no_figure() -> None:
    seen = samples((3, 1000, 0), (3, 100, 0), (4, 100, 900))
    assert wan_run.recovery(seen, 3, 6, 1000) == {}


# What is selected -------------------------------------------------------------------------------------------


def test_scenarios_and_contenders_are_selected() -> None:
    chosen = wan.selected(wan.parse(["unequal", "lossy", "--only", "ours-1*,nc", "--with", "ours-12"]))
    assert {one.name: one.contenders for one in chosen} == {
        "lossy": (ours(16), NC, ours(12)),
        "unequal": (ours(16), NC, ours(12)),
    }
    assert wan.selected(wan.parse([])) == list(SCENARIOS)


@pytest.mark.parametrize("words", [["nosuch"], ["--rounds", "0"], ["--rounds", "x"], ["--seed", "-1"]])
def test_bad_words_are_usage_errors(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        wan.parse(words)
    assert end.value.code == 2
    assert words[-1] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"), [(["--only", "nosuch"], "no such contender"), (["--with", "ours-0"], "ours-0")]
)
def test_unknown_contenders_are_told(words: list[str], said: str) -> None:
    with pytest.raises(BenchError, match=said):
        wan.selected(wan.parse(words))


def test_what_is_lacking_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(wan, "missing", lambda: "root")
    with pytest.raises(BenchError, match="wan needs root"):
        wan.main([])
    monkeypatch.setattr(wan, "missing", lambda: "")
    with pytest.raises(BenchError, match="cannot be written"):
        wan.main(["--json", str(tmp_path)])


# The ends of the pipe ---------------------------------------------------------------------------------------


def checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sent: bytes, arrived: bytes) -> None:
    """What `check` says about a stream."""
    expected, stream = tmp_path / "expected", tmp_path / "stream"
    expected.write_bytes(sent)
    stream.write_bytes(arrived)
    with stream.open("rb") as file:
        monkeypatch.setattr("os.read", lambda fd, count: file.read(min(count, 7)))
        wan_pipe.check(str(expected))


def test_check_compares_every_byte(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    checked(monkeypatch, tmp_path, b"0123456789", b"0123456789")
    for wrong, said in ((b"0123456789x", "corrupted"), (b"0123456x89", "between bytes 7 and 10"), (b"0123", "short")):
        with pytest.raises(SystemExit, match=said):
            checked(monkeypatch, tmp_path, b"0123456789", wrong)


# From end to end --------------------------------------------------------------------------------------------


@pytest.fixture
def small_run() -> Callable[[Contender], WanRun]:
    """Runs a contender over SMALL."""

    def run(one: Contender) -> WanRun:
        with wan.random_file(SMALL.total_bytes) as path:
            return wan_run.run(SMALL, one, Source("random", (*wan_run.HELPER, "source", path, "0"), MIB), 1)

    return run


@needs_root
def test_mptcp_uses_both_links(small_run: Callable[[Contender], WanRun]) -> None:
    run = small_run(wan_run.contender(MPTCP, SMALL))
    assert run.total_bytes == MIB
    assert min(run.link_bytes) > MIB / 20
    assert 0.5 * SMALL.ideal_s < run.seconds < 10


@needs_root
@pytest.mark.parametrize(
    ("filter", "said"), [("tr A B", "check exited 1: corrupted"), ("head -c 1000000", "check exited 1: short")]
)
def test_a_transfer_that_is_not_whole_has_failed(
    small_run: Callable[[Contender], WanRun], filter: str, said: str
) -> None:
    good = wan_run.contender(MPTCP, SMALL)
    with pytest.raises(RunFailed, match=said):
        small_run(dataclasses.replace(good, tx=("sh", "-c", f'{filter} | "$@"', "sh", *good.tx)))


@needs_root
def test_a_receiver_that_does_not_start_is_told(small_run: Callable[[Contender], WanRun]) -> None:
    with pytest.raises(RunFailed, match="rx exited 3: no luck, before it listened"):
        small_run(Contender("unlucky", ("sh", "-c", "echo no luck >&2; exit 3"), ("true",)))


@needs_root
@pytest.mark.slow
def test_the_command_prints_a_table_and_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    event = Event(0.05, 1, up=False)
    paced = dataclasses.replace(SMALL, name="paced", source_mbit=80, events=(event,), contenders=(ours(2),))
    proxied = dataclasses.replace(SMALL, name="proxied", proxy=wan_scenarios.Proxy(4e6, 8e6), ceiling=8e6)
    proxied = dataclasses.replace(proxied, links=(Link(100, 1),), contenders=(ours(2),))
    monkeypatch.setattr(wan, "SCENARIOS", (SMALL, paced, proxied))
    target = tmp_path / "wan.json"
    assert wan.main(["--rounds", "1", "--json", str(target)]) == 0
    out = capsys.readouterr().out
    for name in ("small", "paced", "proxied"):
        assert name in out
    assert "FAILED" not in out
    told = json.load(io.StringIO(target.read_text()))
    runs = {(one["scenario"], one["contender"]): one["runs"] for one in told["measurements"]}
    assert runs.keys() == {*(("small", name) for name in SMALL.contenders), ("paced", "ours-2"), ("proxied", "ours-2")}
    assert all(len(each) == 1 and each[0]["total_bytes"] == MIB for each in runs.values())
    assert runs["proxied", "ours-2"][0]["seconds"] > 0.8 * MIB / 8e6
    assert runs["paced", "ours-2"][0]["seconds"] > 0.8 * MIB * 8 / 80e6
