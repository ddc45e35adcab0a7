"""scripts/bench --encrypted and --cores: who takes part, on which processors, what is concluded, and short runs."""

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from benchlib import THREADS_DEFAULT, pipeline, report, rounds, sealed  # noqa: E402
from benchlib import __main__ as command  # noqa: E402
from benchlib.contenders import BenchError, Contender, by_cores, ours, ours_name  # noqa: E402
from benchlib.pipeline import Run, Source  # noqa: E402
from benchlib.processes import RunFailed, Side, new_crew, pipe  # noqa: E402
from benchlib.rounds import Job, Measurement  # noqa: E402

from tests.test_bench import MIB, TIMEOUT_S, no_children_left  # noqa: E402
from viamillipede import cli, settings  # noqa: E402
from viamillipede.aio import keys  # noqa: E402
from viamillipede.config import RxConfig, TxConfig  # noqa: E402

MINE = ours_name(THREADS_DEFAULT)
Made = tuple[list[Contender], list[str]]


@pytest.fixture(scope="module")
def made() -> Iterator[Made]:
    """All that this machine can run, and why not the others."""
    with sealed.contenders() as found:
        yield found


def measurement(contender: Contender, section: str, seconds: float) -> Measurement:
    """As if it had moved 1 GB in this time."""
    run = Run(seconds, 10**9, Side(1.0, MIB), Side(1.0, MIB))
    return Measurement(Job(section, contender, Source("zeros", (), 10**9)), [run])


def figures(measured: Sequence[Measurement]) -> list[tuple[float | None, float, bool]]:
    """What the targets say."""
    return [
        (verdict.measured and round(verdict.measured, 3), verdict.goal, verdict.met)
        for verdict in report.verdicts(measured)
    ]


def test_ours_reads_the_key_that_was_made_for_it(made: Made) -> None:
    keyed = made[0][0]
    rx, tx = (settings.parse(argv[3:], {}) for argv in keyed.commands(8834))
    assert isinstance(rx, RxConfig) and isinstance(tx, TxConfig)
    assert rx.key is not None and rx.key == tx.key and tx.threads == THREADS_DEFAULT == keyed.legs


def test_the_keys_lie_in_a_private_folder_that_goes_again() -> None:
    with sealed.contenders() as (found, _):
        key = Path(found[0].rx[-1])
        assert stat.S_IMODE(key.stat().st_mode) == 0o600 and stat.S_IMODE(key.parent.stat().st_mode) == 0o700
        secrets = [key, *key.parent.glob("*.key"), *key.parent.glob("*.pem"), *key.parent.glob("client")]
        assert all(stat.S_IMODE(each.stat().st_mode) == 0o600 for each in secrets)
    assert not key.parent.exists()


def test_the_other_suite_is_forced(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    (chacha,) = (one for one in made[0] if one.name == sealed.CHACHA)
    offered: list[int] = []

    def main(argv: Sequence[str]) -> int:
        config = settings.parse(argv, {})
        assert isinstance(config, RxConfig)
        offered.append(keys.Keys(config)._suites)
        return 0

    monkeypatch.setattr(cli, "main", main)
    monkeypatch.setattr(keys, "trial_ns", lambda: {1: 1000, 2: 2000})
    monkeypatch.setattr(sys, "argv", ["-c", *chacha.commands(8834)[0][3:]])
    assert chacha.rx[1] == "-c"
    with pytest.raises(SystemExit) as left:
        exec(chacha.rx[2], {})
    assert left.value.code == 0 and offered == [2]


@pytest.mark.parametrize("name", [sealed.KEYED, sealed.CHACHA, sealed.SSH, sealed.SOCAT_TLS])
def test_everybody_delivers_and_is_accounted(made: Made, name: str) -> None:
    found = [one for one in made[0] if one.name == name]
    if not found:
        pytest.skip(next(line for line in made[1] if line.startswith(name)))
    run = pipeline.throughput(found[0], rounds.zeros(16 * MIB), TIMEOUT_S)
    assert run.total_bytes == 16 * MIB and run.gb_per_s > 0
    assert run.tx is not None and run.rx is not None
    assert run.tx.cpu_s > 0 < run.rx.cpu_s < TIMEOUT_S and run.rx.peak_bytes > MIB
    assert no_children_left()


def test_what_cannot_be_made_is_left_out_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "SSHD", None)

    def broken(folder: Path) -> Contender:
        raise BenchError("no key could be made: openssl exited 1: no")

    monkeypatch.setattr(sealed, "_socat_missing", lambda: "")
    monkeypatch.setattr(sealed, "_socat", broken)
    with sealed.contenders() as (found, reasons):
        assert [one.name for one in found] == [sealed.KEYED, sealed.CHACHA]
    assert reasons[0].startswith(f"{sealed.SSH} needs sshd")
    assert reasons[1] == f"{sealed.SOCAT_TLS}: no key could be made: openssl exited 1: no"


@pytest.mark.parametrize(("status", "expected"), [(0, 0), (255, 0), (3, 1)])
def test_an_sshd_serves_one_connection(status: int, expected: int) -> None:
    port = pipeline.free_port()
    serving = f"read line; echo got $line; exit {status}"
    with new_crew() as crew:
        argv = [sys.executable, "-S", sealed.SSHD_ONCE, str(port), "/bin/sh", "-c", serving]
        rx = crew.start("rx", argv, subprocess.DEVNULL, subprocess.DEVNULL)
        crew.wait_listening(rx, port)
        with socket.create_connection(("127.0.0.1", port)) as client, client.makefile("rwb") as lines:
            lines.write(b"this\n")
            lines.flush()
            assert lines.read() == b"got this\n"
        if expected:
            with pytest.raises(RunFailed, match="rx exited 1"):
                crew.wait(TIMEOUT_S)
        else:
            crew.wait(TIMEOUT_S)
        assert rx.status == expected


def test_times_of_the_sink() -> None:
    said = "1 bytes copied\n0m0.00s 0m1.00s\n1m2.500s 0m0.25s\n"
    assert pipeline.parse_times(said) == 62.75
    with pytest.raises(RunFailed, match="no times"):
        pipeline.parse_times("dd: failed")


def test_by_cores_goes_up_to_all_and_has_one_for_each_side() -> None:
    one = ours(8)
    spread = {each.name: (each.tx_cores, each.rx_cores) for each in by_cores(one, [4, 5, 6])}
    assert spread == {
        "viamillipede-8@1": ((4,), (4,)),
        "viamillipede-8@2": ((4, 5), (4, 5)),
        "viamillipede-8@3": ((4, 5, 6), (4, 5, 6)),
        "viamillipede-8@1+1": ((4,), (5,)),
    }
    assert [each.name for each in by_cores(one, [0])] == ["viamillipede-8@1"]
    assert [len(each.rx_cores) for each in by_cores(one, range(8))] == [1, 2, 4, 8, 1]


def test_a_process_is_confined_and_we_are_not() -> None:
    own = os.sched_getaffinity(0)
    core = max(own)
    with new_crew() as crew:
        with pipe() as (reads, writes):
            crew.start(
                "x", ["sh", "-c", "grep Cpus_allowed_list /proc/self/status"], subprocess.DEVNULL, writes, [core]
            )
            reader = os.dup(reads)
        crew.wait(TIMEOUT_S)
        with open(reader) as said:
            assert said.read().split() == ["Cpus_allowed_list:", str(core)]
    assert os.sched_getaffinity(0) == own


def test_targets_of_encrypted_transfers() -> None:
    names = (MINE, sealed.KEYED, sealed.SSH, sealed.SOCAT_TLS)
    seconds = (0.5, 0.625, 1.875, 0.75)
    measured = [measurement(Contender(name), report.ENCRYPTED, each) for name, each in zip(names, seconds, strict=True)]
    assert figures(measured) == [
        (0.8, 0.75, True),
        (3.0, 2.0, True),
        (1.2, 1.5, False),
    ]
    assert figures([measured[0], measured[1]])[1:] == [(None, 2.0, False), (None, 1.5, False)]
    head = report.tables(measured).splitlines()[1]
    assert f"/{MINE} " in head and f"/{sealed.SSH} " in head and f"/{sealed.SOCAT_TLS} " in head


def test_target_of_the_cores() -> None:
    keyed = by_cores(Contender(sealed.KEYED), [0, 1])
    measured = [measurement(each, report.CORES, seconds) for each, seconds in zip(keyed, (1.0, 0.8, 0.1), strict=True)]
    assert figures(measured) == [(1.25, 1.1, True)]
    assert figures([measured[0], measurement(keyed[1], report.CORES, 1.0)]) == [(1.0, 1.1, False)]
    assert figures(measured[:1]) == []


def test_sections_have_who_belongs_there(made: Made) -> None:
    encrypted = made[0]
    options = command.parse(["--encrypted", "--cores", "--data", "both"])
    jobs = command.plan(options, [], encrypted, rounds.zeros)
    for data, name in (("zeros", report.ENCRYPTED), ("zeros", report.CORES)):
        group = [job.contender for job in jobs if job.section == name and job.source.data == data]
        if name == report.ENCRYPTED:
            assert [one.name for one in group] == [MINE, *(one.name for one in encrypted)] * 2
        else:
            assert {one.name.partition("@")[0] for one in group} == {MINE, sealed.KEYED}
            assert all(one.tx_cores and one.rx_cores for one in group)
    assert {job.section for job in jobs} == {report.ENCRYPTED, report.CORES}
    everything = {job.section for job in command.plan(command.parse([]), [], encrypted, rounds.zeros)}
    assert {report.ENCRYPTED, report.CORES, report.THROUGHPUT} <= everything
