"""scripts/torture: the same seed gives the same plan, the oracle is sharp, and a few real runs end as they must."""

import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from torturelib import __main__ as command  # noqa: E402
from torturelib import report  # noqa: E402
from torturelib.content import BLOCK_BYTES, Content  # noqa: E402
from torturelib.draw import Abilities, draw  # noqa: E402
from torturelib.oracle import Ended, Result, expected, judge, limit_s  # noqa: E402
from torturelib.plan import BENIGN, FATAL, MIB, NEVER, Fault, Hop, Kind, Plan, Sink, Source  # noqa: E402

from tests.e2e.helpers import eventually  # noqa: E402

ALL = Abilities(disks=True, ss=True, ipv6=True, congestions=("reno",), commands=True, digest=True)
SEEDS = range(2000)
KIND_WORDS = {Kind.TRANSFER: 0.8, Kind.ALONE: 0.01, Kind.STRANGE: 0.005, Kind.USAGE: 0.005}  # at least such shares

# What these seeds are follows from what can be done, so what not every machine can do is left out. One that is left in
# peace, a wrong word, SIGTERM to tx, rx killed, a reader that dies, commands at both ends and tx killed, a full device.
PLAIN = "disks,ss,ipv6,congestions"
SHORT_SEEDS = (5, 56, 178, 153, 88, 275, 117)


# ---- the stream --------------------------------------------------------------------------------------------


def test_the_stream_is_the_same_from_wherever_it_is_read() -> None:
    whole = b"".join(Content(7).pieces(0, 3 * BLOCK_BYTES + 10))
    assert len(whole) == 3 * BLOCK_BYTES + 10
    start = 2 * BLOCK_BYTES - 3
    assert b"".join(Content(7).pieces(start, start + 7)) == whole[start : start + 7]
    assert b"".join(Content(8).pieces(0, 100)) != whole[:100]
    assert whole[:BLOCK_BYTES] != whole[BLOCK_BYTES : 2 * BLOCK_BYTES]


@pytest.mark.parametrize("at", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 5])
def test_one_wrong_byte_is_found(at: int) -> None:
    data = bytearray(b"".join(Content(3).pieces(0, 2 * BLOCK_BYTES + 6)))
    assert Content(3).differs(0, bytes(data)) is None
    data[at] ^= 1
    assert Content(3).differs(0, bytes(data)) == at


# ---- plans -------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_plan() -> None:
    for seed in range(300):
        assert draw(seed, ALL) == draw(seed, ALL)
    assert len({draw(seed, ALL).describe()[1] for seed in range(300)}) > 10


def test_plans_are_of_every_kind_and_make_sense() -> None:
    seen: Counter[str] = Counter()
    for seed in SEEDS:
        plan = draw(seed, ALL)
        seen[plan.kind.name] += 1
        seen.update({fault.kind for fault in plan.faults} | {plan.source.kind, plan.sink.kind, plan.dials})
        assert all(plan.describe())
        assert expected(plan) and 0 < limit_s(plan) < 1800
        if plan.kind is Kind.TRANSFER:
            coherent(plan)
    for kind, share in KIND_WORDS.items():
        assert seen[kind.name] >= share * len(SEEDS), seen
    for what in (*BENIGN, *FATAL, "pipe", "file", "command", "append", "full", "/dev/full", "tx", "rx"):
        assert seen[what], f"never drawn: {what}"


def coherent(plan: Plan) -> None:
    """Faults stand in order, inside of what comes out, and at most one of them ends the transfer: the last."""
    top = min(plan.size, plan.sink.capacity)
    before = 0
    for number, fault in enumerate(plan.faults):
        assert before <= fault.at <= top, plan.describe()
        assert fault.kind not in FATAL or number == len(plan.faults) - 1
        assert fault.at <= fault.gate <= top or fault.hold in ("race", "self")
        assert fault.hold != "feed" or plan.source.kind != "file"
        assert fault.hold != "read" or plan.sink.kind in ("pipe", "command")
        before = fault.gate
    stopped_s = max((fault.lasts_s for fault in plan.faults), default=0.0)
    assert plan.regroup_s > stopped_s or stopped_s < 1, "a side that sleeps must not be taken for dead"
    assert plan.outage_s > stopped_s


def test_what_cannot_be_done_is_not_drawn() -> None:
    for seed in range(500):
        plan = draw(seed, Abilities())
        assert plan.source.kind != "command" and plan.sink.kind not in ("command", "full") and not plan.digest
        assert "--" not in (*plan.tx_words, *plan.rx_words)
        assert not any(fault.kind in ("cut legs", "sink killed") for fault in plan.faults)
        assert all(hop.host != "::1" for hop in plan.hops)


# ---- the oracle --------------------------------------------------------------------------------------------


def plan_with(fault: Fault | None = None, **changes: object) -> Plan:
    """A plain transfer of 1000 bytes with this fault."""
    faults = () if fault is None else (fault,)
    return dataclasses.replace(Plan(5, size=1000, faults=faults), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("plan", "pairs"),
    [
        (plan_with(), {(0, 0)}),
        (plan_with(Fault("stop", 5, gate=5, who="rx", lasts_s=9.0)), {(0, 0)}),
        (plan_with(Fault("kill", 5, gate=5, who="tx")), {(-9, 5)}),
        (plan_with(Fault("kill", 5, gate=5, who="rx")), {(5, -9)}),
        (plan_with(Fault("kill", 5, "read", who="tx")), {(-9, 5), (-9, 0)}),
        (plan_with(Fault("kill", 5, "read", who="rx")), {(5, -9)}),
        (plan_with(Fault("term", 5, gate=5, who="tx")), {(143, 8)}),
        (plan_with(Fault("int", 5, gate=5, who="rx")), {(8, 130)}),
        (plan_with(Fault("hup", 5, "race", who="rx")), {(8, 129), (0, 0), (0, 129)}),
        (plan_with(Fault("reader dies", 5, "read")), {(8, 7)}),
        (plan_with(Fault("reader dies", 1000, "read")), {(8, 7), (0, 0)}),
        (plan_with(Fault("kill", 990, "read", who="rx"), sink=Sink("command")), {(5, -9), (0, 0), (0, -9)}),
        (plan_with(Fault("source fails", 5, gate=5, number=3)), {(7, 8)}),
        (plan_with(Fault("sink fails", 1000, "self", number=3), sink=Sink("command")), {(8, 7)}),
        (plan_with(sink=Sink("full", capacity=999)), {(8, 7)}),
        (plan_with(sink=Sink("full", capacity=1000)), {(0, 0)}),
        (plan_with(size=0, sink=Sink("/dev/full", capacity=0)), {(0, 0)}),
        (plan_with(Fault("term", 5, gate=5, who="tx"), tx_words=("chaos", "20")), {(143, 8), (143, 5)}),
        (plan_with(kind=Kind.ALONE, missing="rx"), {(3, None)}),
        (plan_with(kind=Kind.ALONE, missing="tx"), {(None, 9)}),
        (plan_with(Fault("int", 0, "race", who="rx"), kind=Kind.ALONE, missing="tx"), {(None, 130)}),
        (plan_with(kind=Kind.STRANGE), {(4, 9)}),
        (plan_with(kind=Kind.STRANGE, dials="rx"), {(3, 4)}),
        (plan_with(kind=Kind.USAGE, missing="tx"), {(None, 2)}),
    ],
    ids=lambda value: "" if isinstance(value, set) else value.describe()[-1].replace("rx: ", "no fault"),
)
def test_the_outcome_is_known_beforehand(plan: Plan, pairs: set[tuple[int | None, int | None]]) -> None:
    assert expected(plan) == pairs


def test_a_fault_right_after_the_legs_were_cut_may_not_be_told() -> None:
    cut = Fault("cut legs", 5, gate=9, who="rx")
    term = Fault("term", 10, gate=10, who="tx")
    assert expected(plan_with(faults=(cut, term))) == {(143, 8)}, "byte 10 came over a leg that was up again"
    assert expected(plan_with(faults=(cut, dataclasses.replace(term, at=9)))) == {(143, 8), (143, 5)}


def ended(status: int | None, said: str = "viamillipede tx: 1000 B in 1.00 s, 1 leg", **more: object) -> Ended:
    """A side that ended like this."""
    return dataclasses.replace(Ended(status, said), **more)  # type: ignore[arg-type]


GOOD = Result(ended(0), ended(0), fed=1000, arrived=1000)
WRONG: list[tuple[str, dict[str, object]]] = [
    ("ended with", {"tx": ended(5)}),
    ("hung", {"hung": "rx"}),
    ("is not the one that was sent", {"differs": 17}),
    ("999 bytes of 1000 arrived", {"arrived": 999}),
    ("1001 bytes arrived", {"arrived": 1001}),
    ("Traceback", {"rx": ended(0, noise=["Traceback (most recent call last):"])}),
    ("MiB of memory", {"tx": ended(0, peak_bytes=129 * MIB)}),
    ("without a closing line", {"tx": ended(0, "")}),
    ("closing line that is wrong", {"tx": ended(0, "viamillipede tx: 999 B in 1.00 s, 1 leg")}),
    ("closing line that is wrong", {"tx": ended(0, "viamillipede tx: incomplete, 1000 B in 1.00 s, 1 leg")}),
    ("told the digest", {"tx": ended(0, "viamillipede tx: 1000 B in 1.00 s, 1 leg, sha256 00ff")}),
    ("left behind", {"left": ["process 7: sleep 1000"]}),
    ("did not come to its end", {"clean": False}),
    ("other0 ended with", {"wrong": ["other0 ended with 0, not 3"]}),
]


def test_a_result_that_is_right() -> None:
    assert judge(plan_with(), GOOD) == []


@pytest.mark.parametrize(("complaint", "changes"), WRONG, ids=[complaint for complaint, _ in WRONG])
def test_a_result_that_is_wrong(complaint: str, changes: dict[str, object]) -> None:
    found = judge(plan_with(), dataclasses.replace(GOOD, **changes))  # type: ignore[arg-type]
    assert any(complaint in each for each in found), found


def test_a_failure_must_leave_a_prefix_a_reason_and_no_clean_end() -> None:
    plan = plan_with(Fault("term", 5, gate=5, who="tx"), sink=Sink("command"))
    said = ended(143, "viamillipede tx: terminated")
    result = Result(said, ended(8, "viamillipede rx: the transmitter gave up"), arrived=5, clean=False)
    assert judge(plan, result) == []
    for changes, complaint in (
        ({"clean": True}, "for a success"),
        ({"rx": ended(8, "")}, "without a reason"),
        ({"rx": ended(0)}, "but 5 bytes of 1000 arrived"),
        ({"differs": 3}, "not the one that was sent"),
    ):
        found = judge(plan, dataclasses.replace(result, **changes))
        assert any(complaint in each for each in found), found


def test_a_full_disk_takes_exactly_what_it_has_room_for() -> None:
    plan = plan_with(sink=Sink("full", capacity=999))
    sides = ended(8, "viamillipede tx: x"), ended(7, "viamillipede rx: x")
    assert judge(plan, Result(*sides, arrived=999)) == []
    assert judge(plan, Result(*sides, arrived=998))


def test_the_summary_counts() -> None:
    tally = report.Tally()
    tally.add({"seed": 3, "wrong": [], "counts": {"fault: stop tx": 2, "bytes": 5 << 20, "outcome: tx 0, rx 0": 1}})
    tally.add({"seed": 9, "wrong": ["x"], "counts": {"fault: stop tx": 1, "outcome: tx 5, rx 0": 1}})
    text = tally.summary("viamillipede 1", 2, {"ss": "needs root"})
    assert "2 runs with 3 faults from outside, 5.0 MiB delivered, 1 wrong outcomes" in text
    assert "seeds 3 to 9" in text and "faults: stop tx 3" in text and "not tried: ss: needs root" in text


# ---- the command -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", ["", "x", "0", "-1", "seed", "seed x", "1 2", "--jobs 0 1", "--without cake 1", "--times 0 seed 1"]
)
def test_usage(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.parse(shlex.split(words))
    assert caught.value.code == 2
    assert "usage: scripts/torture" in capsys.readouterr().err


def torture(tmp_path: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """The command, with its folders below `tmp_path`."""
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}", "TMPDIR": str(tmp_path)}
    argv = [sys.executable, "-m", "torturelib", *map(str, words)]
    return subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True, timeout=150)


@pytest.mark.slow
def test_a_few_real_runs(tmp_path: Path) -> None:
    began = time.monotonic()
    done = torture(tmp_path, "--jobs", 2, "--without", PLAIN, "seed", *SHORT_SEEDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(SHORT_SEEDS)} runs with " in done.stdout and " 0 wrong outcomes" in done.stdout
    assert not list(tmp_path.iterdir()), "folders are left behind"
    assert time.monotonic() - began < 100


@pytest.mark.slow
def test_a_program_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    """One that says nothing and succeeds, without moving a byte: everything about it is to be found."""
    liar = tmp_path / "liar"
    liar.write_text('#!/bin/sh\nif [ "$1" = --help ]; then echo liar; fi\n')
    liar.chmod(0o755)
    done = torture(tmp_path, "--program", liar, "--without", PLAIN, "seed", 50)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "WRONG OUTCOME, seed 50\n" in done.stdout
    assert f"again: scripts/torture --program {liar} --without {PLAIN} seed 50" in done.stdout
    assert "but 0 bytes of" in done.stdout and "without a closing line" in done.stdout
    logs = next(line for line in done.stdout.splitlines() if line.startswith("logs: ")).removeprefix("logs: ")
    assert (Path(logs) / "story").is_file()


@pytest.mark.slow
def test_control_c_ends_it_with_the_summary_so_far(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}", "TMPDIR": str(tmp_path)}
    argv = [sys.executable, "-m", "torturelib", "--first", "5", "10"]
    with subprocess.Popen(argv, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("from seed 5 "):
                break
        eventually(lambda: any(tmp_path.glob("*/seed-*/rx.stderr")), "a run has begun")
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
    assert process.returncode == 130
    assert said.startswith("interrupted\nscripts/torture on ") and "runs with" in said
    assert not list(tmp_path.iterdir())


def test_defaults_are_the_plain_ones() -> None:
    plan = Plan(1)
    assert plan.sink.capacity == NEVER and plan.hops == (Hop("127.0.0.1"),) and plan.source == Source()
