"""scripts/bench: what it parses, how it counts, what it concludes, and a run of a few MiB from end to end."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from benchlib import (  # noqa: E402
    THREADS_DEFAULT,
    contenders,
    pipeline,
    processes,
    report,
    rounds,
)
from benchlib import __main__ as command  # noqa: E402
from benchlib.contenders import BenchError, Contender, Shape, ours_name  # noqa: E402
from benchlib.pipeline import Run, Source  # noqa: E402
from benchlib.processes import RunFailed, Side  # noqa: E402
from benchlib.rounds import Job, Measurement, Summary, interleave  # noqa: E402

from viamillipede import settings  # noqa: E402
from viamillipede.config import RxConfig, TxConfig  # noqa: E402

MIB = 1 << 20
TIMEOUT_S = 20.0
MINE = ours_name(THREADS_DEFAULT)

PEER = """
import os, socket, sys
role, port, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if role == "rx":
    with socket.create_server(("127.0.0.1", port)) as server:
        connection = server.accept()[0]
    room = bytearray(100 << 20) if how == "large" else b""
    kept = b""
    while piece := connection.recv(1 << 16):
        piece, kept = kept + piece, b""
        if how == "lossy":
            piece, kept = piece[:-1], piece[-1:]
        while piece:
            piece = piece[os.write(1, piece):]
elif how == "failing":
    sys.exit("no route to anywhere")
elif how == "hanging":
    sys.stdin.read()
    import signal
    signal.pause()
else:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while piece := os.read(0, 1 << 16):
            connection.sendall(piece)
"""


def peer(how: str = "good") -> Contender:
    """A program of a few lines that moves a pipe over one connection, well or badly."""
    program = (sys.executable, "-S", "-c", PEER)
    return Contender(f"peer-{how}", (*program, "rx", "{port}", how), (*program, "tx", "{port}", how))


def measurement(
    name: str, seconds: Sequence[float], cpu_s: float = 1.0, section: str = report.THROUGHPUT
) -> Measurement:
    """As if `name` had moved 1 GB in each of these times, `cpu_s` on each side."""
    legs = int(name.split("-")[1]) if name.startswith(contenders.OURS) else None
    runs = [Run(s, 10**9, Side(cpu_s, 7 * MIB), Side(cpu_s, 9 * MIB)) for s in seconds]
    return Measurement(Job(section, Contender(name, legs=legs), Source("zeros", (), 10**9)), runs)


def verdict(measured: Sequence[Measurement], part: str) -> report.Verdict:
    """The one whose target reads so."""
    (found,) = (one for one in report.verdicts(measured) if one.target.endswith(part))
    return found


def no_children_left() -> bool:
    """Whether this process has no child, dead or alive."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def bench(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command as scripts/bench runs it, in `directory`."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"}
    argv = [sys.executable, "-m", "benchlib", *words]
    return subprocess.run(argv, cwd=directory, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_listening_ports_are_those_in_state_listen() -> None:
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue\n"
        "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0\n"
        "   1: 0100007F:1F91 0100007F:0016 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4\n"
        "   2: 00000000000000000000000001000000:0016 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 3\n"
    )
    assert processes.parse_listening(table) == {8080, 22}
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert port in processes.listening_ports()
    assert port not in processes.listening_ports()


def test_count_of_the_sink() -> None:
    assert pipeline.parse_count("0+3 records in\n0+3 records out\n1234 bytes (1.2 kB) copied, 1 s\n") == 1234
    with pytest.raises(RunFailed, match="no count"):
        pipeline.parse_count("dd: failed to open")


def test_summary_is_median_and_extremes() -> None:
    assert Summary.of([5.0, 1.0, 2.0]) == Summary(2.0, 1.0, 5.0)
    assert Summary.of([1.0, 2.0]).median == 1.5


def test_rounds_are_interleaved_and_failures_never_averaged_in() -> None:
    jobs = [Job("s", Contender(name), Source("zeros", (), 10**9)) for name in ("a", "flaky", "broken")]
    order: list[str] = []

    def run_once(job: Job) -> Run:
        order.append(job.contender.name)
        if job.contender.name == "broken" or (job.contender.name == "flaky" and len(order) > 3):
            raise RunFailed("lost it")
        return Run(2.0, 10**9)

    said: list[str] = []
    good, flaky, broken = interleave(jobs, 3, run_once, said.append)
    assert order == ["a", "flaky", "broken", "a", "flaky", "broken", "a", "flaky"], "the hopeless one is left out"
    rate = good.gb_per_s()
    assert rate is not None and rate.median == 0.5
    assert len(flaky.runs) == 1 and flaky.gb_per_s() is None and flaky.cpu_s_per_gb("tx") is None
    assert broken.failures == ["lost it", "lost it"] and any("lost it" in line for line in said)


def test_costs_are_per_gb_and_memory_is_the_worst() -> None:
    one = Measurement(Job("s", Contender("a"), Source("zeros", (), 2 * 10**9)))
    one.runs = [Run(1.0, 2 * 10**9, Side(1.0, peak * MIB), Side(3.0, MIB)) for peak in (5, 8, 6)]
    assert [one.cpu_s_per_gb(*sides) for sides in (["tx"], ["rx"], ["tx", "rx"])] == [
        Summary(cost, cost, cost) for cost in (0.5, 1.5, 2.0)
    ]
    assert one.peak_mib("tx") == 8.0


def test_targets_are_compared_with_the_right_contender() -> None:
    measured = [
        measurement(MINE, [0.5, 0.4, 9.0], cpu_s=0.3),
        measurement(f"{MINE}-checksum", [1.0]),
        measurement("nc", [1.0]),
        measurement("mbuffer", [0.75], cpu_s=0.5),
        measurement("pipe", [0.2]),
        measurement("iperf3", [0.2]),
    ]
    expected = {
        "throughput / nc": (2.0, True),
        "throughput / mbuffer": (1.5, True),
        "composite limit": (0.8, False),
        "CPU of tx plus rx / mbuffer": (0.6, True),
        "checksum / mbuffer": (0.75, False),
    }
    for part, (figure, met) in expected.items():
        found = verdict(measured, part)
        assert found.measured == pytest.approx(figure) and found.met is met, found
        assert ("met" if met else "missed") in str(found)
    measured[3].failures.append("once")
    assert verdict(measured, "throughput / mbuffer").measured is None
    assert not verdict(measured, "throughput / mbuffer").met


def test_targets_of_the_other_sections() -> None:
    many = [
        measurement(ours_name(8), [1.0], section=report.MANY),
        measurement(ours_name(200), [1.3], section=report.MANY),
    ]
    assert verdict(many, "200 legs / 8 legs").measured == pytest.approx(1 / 1.3)
    assert not verdict(many, "200 legs / 8 legs").met
    start = [
        measurement(MINE, [0.2, 0.6, 0.4], section=report.STARTUP),
        measurement("nc", [9.0], section=report.STARTUP),
    ]
    assert verdict(start, "seconds").measured == 0.4 and verdict(start, "seconds").met
    sizes = [measurement(MINE, [1.0], cpu, report.SIZES) for cpu in (2.0, 1.0)]
    sizes[1].job = Job(report.SIZES, sizes[1].job.contender, Source("zeros", (), 10**8))
    assert verdict(sizes, "shortest stream").measured == 2.0 / 1.0 / 1.0, "sorted by size, not by order"


def test_table_has_a_column_per_peer_and_says_who_failed() -> None:
    failed = measurement("mbuffer", [1.0])
    failed.failures.append("tx exited 3: no")
    text = report.tables([measurement(MINE, [0.5, 0.4]), measurement("nc", [1.0]), failed])
    head, mine, *_ = text.splitlines()[1:]
    assert head.split() == ["GB/s", "min-max", "/nc", "/mbuffer", *"tx s/GB rx s/GB both tx MiB rx MiB".split()]
    assert mine.split() == [MINE, "2.25", "2.00-2.50", "2.25", "-", "1.000", "1.000", "2.000", "7", "9"]
    assert "FAILED 1 of 2: tx exited 3: no" in text


def test_only_selects_by_pattern_and_knows_what_there_is() -> None:
    others, _ = contenders.installed()
    options = command.parse(["--only", f"{MINE}*,pipe", "--data", "zeros"])
    jobs = command.plan(options, others, (), rounds.zeros)
    names = [job.contender.name for job in jobs if job.section == report.THROUGHPUT]
    assert names == [MINE, f"{MINE}-checksum", "pipe"]
    with pytest.raises(BenchError, match="rsync"):
        command.plan(command.parse(["--only", "rsync"]), others, (), rounds.zeros)


def test_random_source_has_the_announced_length_and_repeats_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "RANDOM_FILE_BYTES_MAX", MIB)
    with rounds.random_file() as make:
        for total in (1000, 3 * MIB):
            source = make(total)
            out = subprocess.run(source.argv, capture_output=True, check=True).stdout
            assert len(out) == total == source.total_bytes
    assert out[:MIB] == out[MIB : 2 * MIB] and len(set(out[:4096])) > 200
    assert rounds.whole_bytes(2.5 / 1024) == 3 * MIB


def test_our_command_lines_mean_what_their_names_say() -> None:
    own = contenders.ours(200, checksum=True)
    rx, tx = (settings.parse(argv[3:], {}) for argv in own.commands(8834))
    assert isinstance(rx, RxConfig) and (rx.port, rx.bind, rx.checksum) == (8834, "127.0.0.1", True)
    assert isinstance(tx, TxConfig) and (tx.threads, tx.checksum) == (200, True)
    assert [str(address) for address in tx.addresses] == ["127.0.0.1:8834"]
    assert own.name == "viamillipede-200-checksum"


def test_settings_in_the_environment_do_not_reach_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIAMILLIPEDE_THREADS", "1")
    assert "VIAMILLIPEDE_THREADS" not in processes.child_env()
    assert processes.child_env()["PYTHONPATH"] == str(ROOT)


def test_each_side_is_accounted_by_itself() -> None:
    run = pipeline.throughput(peer("large"), rounds.zeros(8 * MIB), TIMEOUT_S)
    assert run.total_bytes == 8 * MIB and run.tx is not None and run.rx is not None
    assert run.rx.peak_bytes > 100 * MIB > run.tx.peak_bytes > MIB
    assert run.tx.cpu_s > 0 and run.rx.cpu_s > 0
    assert no_children_left()


@pytest.mark.parametrize(
    ("how", "reason", "timeout_s"),
    [
        ("lossy", r"delivered 1048575 of 1048576 bytes", TIMEOUT_S),
        ("failing", r"tx exited 1: no route to anywhere", TIMEOUT_S),
        ("hanging", r"not over after 1 s: .*tx", 1.0),
    ],
)
def test_a_run_that_went_wrong_has_no_figure(how: str, reason: str, timeout_s: float) -> None:
    with pytest.raises(RunFailed, match=reason):
        pipeline.throughput(peer(how), rounds.zeros(MIB), timeout_s)
    assert no_children_left()


def test_a_receiver_that_never_listens_is_reported_with_its_words() -> None:
    mute = Contender("mute", (sys.executable, "-c", "raise SystemExit('bad port {port}')"), peer().tx)
    with pytest.raises(RunFailed, match=r"rx exited 1: bad port \d+, before it listened"):
        pipeline.throughput(mute, rounds.zeros(MIB), TIMEOUT_S)
    with pytest.raises(RunFailed, match="cannot be started"):
        pipeline.throughput(Contender("none", ("/nonexistent",), ("/nonexistent",)), rounds.zeros(MIB), TIMEOUT_S)
    assert no_children_left()


def test_first_byte_is_timed_and_the_rest_still_verified() -> None:
    run = pipeline.first_byte(peer(), rounds.zeros(MIB), TIMEOUT_S)
    assert 0 < run.seconds < TIMEOUT_S
    with pytest.raises(RunFailed, match="delivered"):
        pipeline.first_byte(peer("lossy"), rounds.zeros(MIB), TIMEOUT_S)
    assert no_children_left()


@pytest.mark.parametrize("name", [*contenders.PEERS, contenders.IPERF3, contenders.PIPE])
def test_every_peer_that_is_installed_delivers(name: str) -> None:
    if name != contenders.PIPE and not shutil.which(name):
        pytest.skip(f"{name} is not installed")
    (contender,) = (one for one in contenders.installed()[0] if one.name == name)
    run = pipeline.throughput(contender, rounds.zeros(16 * MIB), TIMEOUT_S)
    assert run.gb_per_s > 0 and (run.total_bytes == 16 * MIB or contender.shape is Shape.IPERF3)
    if contender.shape is Shape.TRANSFER:
        assert run.rx is not None and run.rx.cpu_s > 0
    if name == "nc":
        assert run.rx is not None and run.rx.peak_bytes < 8 * MIB, "ours, inherited, not nc's own"
    assert no_children_left()


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    good, lossy = peer(), peer("lossy")
    words = [
        word
        for one in (good, lossy)
        for word in ("--contender", f"{one.name}={shlex.join(one.rx)}", shlex.join(one.tx))
    ]
    done = bench(tmp_path, "--only", "peer-*,pipe", "--gib", "0.01", "--rounds", "2", *words)
    assert done.returncode == 0, done.stderr
    assert "throughput: random" in done.stdout and "FAILED 2 of 2" in done.stdout and "not measured" in done.stdout
    figures = json.loads((tmp_path / "bench.json").read_text())
    by_name = {(one["section"], one["data"], one["contender"]): one for one in figures["measurements"]}
    one = by_name["throughput", "random", "peer-good"]
    assert one["bytes"] == round(0.01 * 1024 * MIB) and len(one["runs"]) == 2
    assert one["gb_per_s"]["least"] <= one["gb_per_s"]["median"] <= one["gb_per_s"]["most"]
    assert by_name["throughput", "zeros", "peer-lossy"]["gb_per_s"] is None
    assert by_name["startup", "zeros", "peer-good"]["seconds"]["median"] > 0
    assert bench(tmp_path, "--only", "pipe", "--gib", "0.01", "--rounds", "1", "--strict").returncode == 1


def test_a_terminated_benchmark_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    one = peer("hanging")
    argv = [sys.executable, "-m", "benchlib", "--only", one.name, "--gib", "0.01", "--contender"]
    argv += [f"{one.name}={shlex.join(one.rx)}", shlex.join(one.tx)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"}
    with subprocess.Popen(argv, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) as running:
        try:
            watched = psutil.Process(running.pid)
            deadline = time.monotonic() + TIMEOUT_S
            while len(children := watched.children()) < 4:  # sink, rx, source, tx
                assert running.poll() is None and time.monotonic() < deadline
            running.send_signal(signal.SIGTERM)
            assert running.wait(TIMEOUT_S) == 128 + signal.SIGTERM
        finally:
            running.kill()
    assert not psutil.wait_procs(children, TIMEOUT_S)[1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--only", "rsync"], "--only rsync: no such contender"),
        (["--gib", "0"], "--gib: 0 is not between"),
        (["--legs", "1,9999"], "--legs: 9999 is not between"),
        (["--legs", "many"], "--legs"),
        (["--contender", "x", "cat {port}"], "--contender takes NAME="),
        (["--contender", "x=cat {port}", "cat"], "must contain {port}"),
        (["--contender", "x=/nonexistent {port}", "cat {port}"], "no program"),
        (["--contender", "x='cat {port}", "cat {port}"], "check the quotes"),
        (["--contender", "nc=cat {port}", "cat {port}"], "is taken"),
        (["--json", "/nonexistent/bench.json", "--only", "pipe"], "--json /nonexistent/bench.json: cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path: Path, words: list[str], reason: str) -> None:
    done = bench(tmp_path, *words)
    assert done.returncode == 2 and reason in done.stderr.splitlines()[-1], done.stderr
    assert "Traceback" not in done.stderr
