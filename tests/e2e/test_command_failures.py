"""Commands that fail, and failures that commands hear of: the statuses, the reasons, and no clean end for a sink."""

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.aio.drive import greeting
from tests.e2e.commands import Command, Family, Marks, end_with, python, run, sh
from tests.e2e.helpers import KIB, LOOPBACK, MIB, Side, Stage, eventually, read_exactly
from viamillipede.config import COMMAND_END_US, S_US
from viamillipede.protocol.wire import Kind, encode_reason

END_S = COMMAND_END_US / S_US  # how long a command has after SIGTERM
SOON_S = 4  # on a busy machine too, and less than END_S
ENDLESS = "cat /dev/zero"


def begun(stage: Stage, marks: Marks, source: Command, sink: Command, *words: object) -> tuple[Side, Side, Family]:
    """rx and tx whose sink has got something, and what belongs to them. `words` are for both."""
    rx, tx = run(stage, source, sink, words, words)
    marks.appears("begun")
    eventually(lambda: marks.has("data") and marks["data"].stat().st_size > 0, "the first bytes")
    return rx, tx, Family(rx, tx)


# ---- a source that fails -----------------------------------------------------------------------------------

WHEN = {"before": "", "in": "head -c 300000 /dev/zero;", "after": "echo all; exec >&-; sleep 0.3;"}
HOW = {
    "status 1": ("exit 1", "exited with status 1"),
    "status 127": ("exit 127", "exited with status 127"),
    "SIGKILL": ("kill -KILL $$", "was ended by SIGKILL"),
}


@pytest.mark.parametrize("when, how", [*((when, "status 1") for when in WHEN), ("in", "status 127"), ("in", "SIGKILL")])
def test_a_source_that_fails(stage: Stage, marks: Marks, when: str, how: str) -> None:
    """Whatever it has written, its sink is not told that this was all."""
    script, words = HOW[how]
    rx, tx = run(stage, sh(f"{WHEN[when]} echo why >&2; {script}"), marks.keeping())
    of_rx, of_tx = end_with(rx, 8, tx, 7)
    assert not marks.has("eof")
    assert f"viamillipede tx: the source 'sh -c {WHEN[when]}" in of_tx and f" {words}" in of_tx
    assert "the transmitter gave up at byte" in of_rx and f" {words}\n" in of_rx
    assert of_rx.endswith("viamillipede rx:   | why")
    assert of_tx.splitlines().count("why") == 1 and "| why" not in of_tx, "its own side has passed it on already"


def test_what_a_failed_source_has_started_ends_with_it(stage: Stage, marks: Marks) -> None:
    """It holds the pipe, too; that is not waited for."""
    source = sh('sleep 60 & : >"$1/started"; while [ ! -e "$1/go" ]; do sleep 0.05; done; exit 3', marks.folder)
    rx, tx = run(stage, source, marks.keeping())
    marks.appears("started")
    eventually(lambda: len(Family(tx).guardians()) == 1, "its guardian")
    family = Family(tx)
    marks["go"].touch()
    end_with(rx, 8, tx, 7)
    assert len(family) >= 4 and not family.living()
    assert not marks.has("eof")


def test_a_sink_is_not_run_for_a_stream_that_is_given_up_at_once(stage: Stage, marks: Marks) -> None:
    """It would make a file of nothing, and nobody would end it."""
    rx = stage.rx(*marks.keeping())
    with socket.create_connection((LOOPBACK, rx.port)) as leg:
        leg.sendall(greeting() + encode_reason(Kind.ABORT, "no more"))
        began_s = time.monotonic()
        assert "the transmitter gave up at byte 0: no more" in rx.ends(8)
    assert time.monotonic() - began_s < SOON_S
    assert not marks.has("begun")


# ---- a sink that fails -------------------------------------------------------------------------------------

EARLY = {
    "exits 0 before it reads": ("exit 0", "exited with status 0 before it had read the whole stream"),
    "exits 0 with bytes left": ("head -c 10 >/dev/null", "exited with status 0 before it had read the whole stream"),
    "closes its input and lives on": (
        "head -c 10 >/dev/null; exec <&-; sleep 60", "closed its input before the end of the stream",
    ),
    "closes its input at once": ("exec <&-; sleep 60", "closed its input before the end of the stream"),
    "fails in the middle": ("head -c 1000000 >/dev/null; exit 3", "exited with status 3"),
    "is killed in the middle": ("head -c 1000000 >/dev/null; kill -SEGV $$", "was ended by SIGSEGV"),
}  # fmt: skip


@pytest.mark.parametrize("how", EARLY)
def test_a_sink_that_leaves_early(stage: Stage, how: str) -> None:
    script, words = EARLY[how]
    rx, tx = run(stage, sh(ENDLESS), sh(f"echo why >&2; {script}"))
    of_rx, of_tx = end_with(rx, 7, tx, 8)
    assert f"viamillipede rx: the sink 'sh -c echo why >&2; {script}" in of_rx
    assert f" {words}" in of_rx.splitlines()[-1]
    assert "viamillipede tx: the receiver gave up: the sink" in of_tx and f" {words}" in of_tx
    assert ("viamillipede tx:   | why" in of_tx) == ("closed" not in words)


@pytest.mark.parametrize("ends_input", [True, False], ids=["its input ends", "its input pauses"])
def test_a_sink_that_leaves_while_nothing_moves(stage: Stage, ends_input: bool) -> None:
    """It has read all there was; the end of the stream is waited for, but not for long."""
    rx = stage.rx(*sh("exec head -c 5"))
    tx = stage.tx(rx)
    tx.write(b"hello")
    assert read_exactly(rx.output, 5) == b"hello"
    if ends_input:
        tx.end_input()
        end_with(rx, 0, tx, 0)
    else:
        assert "exited with status 0 before it had read the whole stream" in end_with(rx, 7, tx, 8)[1]


def test_a_sink_that_fails_at_the_end_is_told_of_on_the_other_side(stage: Stage) -> None:
    rx, tx = run(stage, sh("echo x"), sh("cat >/dev/null; seq 20 >&2; exit 4"))
    of_rx, of_tx = end_with(rx, 7, tx, 8)
    assert [line for line in of_rx.splitlines() if line.isdecimal()] == [str(number) for number in range(1, 21)]
    told = next(line for line in of_tx.splitlines() if "gave up" in line)
    assert told.startswith("viamillipede tx: the receiver gave up: the sink 'sh -c cat") and "status 4" in told
    assert of_tx.splitlines()[-8:] == [f"viamillipede tx:   | {number}" for number in range(13, 21)], "the last lines"


@pytest.mark.parametrize("letter", [b"a", "ü".encode(), b"\xff", b"\x1b"], ids=repr)
def test_of_long_lines_the_last_are_quoted_and_of_these_the_ends(stage: Stage, letter: bytes) -> None:
    """However many bytes a letter has on its way, what is cut off is what was said first."""
    say = f"os.write(2, {letter!r} * 300 + b' %d.\\n' % number)"
    code = f"import os, sys; os.read(0, 9); [{say} for number in range(9)]; sys.exit(4)"
    rx, tx = run(stage, sh("echo x"), python(code, "ü" * 500))
    of_tx = end_with(rx, 7, tx, 8)[1]
    quoted = [line.partition("| ")[2] for line in of_tx.splitlines() if line.startswith("viamillipede tx:   |")]
    assert 3 <= len(quoted) <= 5 and 1000 < sum(len(line.encode()) for line in quoted) <= 1500
    assert [line[-2:] for line in quoted] == [f"{number}." for number in range(9 - len(quoted), 9)]
    assert "\x1b" not in of_tx


def test_a_sink_that_cannot_be_run_although_it_exists(stage: Stage, marks: Marks) -> None:
    marks["sink"].write_text("#!/there/is/no/such/interpreter\n")
    marks["sink"].chmod(0o755)
    rx, tx = run(stage, sh("echo x"), ("--", marks["sink"]))
    of_rx, of_tx = end_with(rx, 7, tx, 8)
    assert f"cannot run the sink '{marks['sink']}': No such file or directory" in of_rx
    assert "the receiver gave up: cannot run the sink" in of_tx


def test_a_source_that_cannot_be_run_although_it_exists(stage: Stage, marks: Marks) -> None:
    marks["source"].write_text("#!/there/is/no/such/interpreter\n")
    marks["source"].chmod(0o755)
    rx, tx = run(stage, ("--", marks["source"]), marks.keeping())
    of_rx, of_tx = end_with(rx, 8, tx, 7)
    assert f"cannot run the source '{marks['source']}': No such file or directory" in of_tx
    assert "the transmitter gave up at byte 0: cannot run the source" in of_rx
    assert not marks.has("eof")


# ---- signals -----------------------------------------------------------------------------------------------

SIGNALS = {"HUP": 129, "INT": 130, "TERM": 143}
TELLING = """
import os, signal, sys
os.chdir(sys.argv[1])
def tell(number, _):
    open(f"got {signal.Signals(number).name}", "w").close()
    os._exit(0)  # that it was asked to end counts more than that it succeeds then
for name in ("SIGHUP", "SIGINT", "SIGTERM"):
    signal.signal(getattr(signal, name), tell)
while True:
    os.write(1, bytes(1000)) if len(sys.argv) > 2 else os.read(0, 1000) or os._exit(1)
"""


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_to_tx_reaches_the_source_and_ends_the_sink(stage: Stage, marks: Marks, name: str) -> None:
    rx, tx, family = begun(stage, marks, python(TELLING, marks.folder, "writes"), marks.keeping())
    tx.signal(getattr(signal, f"SIG{name}"))
    end_with(rx, 8, tx, SIGNALS[name])
    assert [mark.name for mark in marks.folder.glob("got *")] == [f"got SIG{name}"]
    assert not marks.has("eof")
    family.ends(SOON_S)


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_to_rx_ends_both_commands_by_sigterm(stage: Stage, marks: Marks, name: str) -> None:
    source = sh('trap ": >\\"$1/source asked\\"; exit" TERM; while :; do head -c 100000 /dev/zero; done', marks.folder)
    begin = 'open("begun", "w").close(); open("data", "w").write("x")\n'
    sink = python(TELLING.replace("while True", f"{begin}while True"), marks.folder)
    rx, tx, family = begun(stage, marks, source, sink)
    rx.signal(getattr(signal, f"SIG{name}"))
    end_with(rx, SIGNALS[name], tx, 8)
    assert marks.has("got SIGTERM") and marks.has("source asked")
    assert len([*marks.folder.glob("got *")]) == 1
    family.ends(SOON_S)


def test_a_sink_has_time_to_undo_its_work(stage: Stage, marks: Marks) -> None:
    """Its input stays open meanwhile."""
    sink = sh(
        'cd "$1"; trap "sleep 1.5; : >undone; exit 1" TERM; : >begun; exec 3<&0; cat <&3 >>data & wait; : >eof',
        marks.folder,
    )
    rx, tx, family = begun(stage, marks, sh(ENDLESS), sink)
    tx.signal(signal.SIGTERM)
    end_with(rx, 8, tx, 143)
    assert marks.has("undone") and not marks.has("eof")
    family.ends(SOON_S)


@pytest.mark.slow
def test_a_sink_that_ignores_sigterm_is_killed_and_never_sees_the_end(stage: Stage, marks: Marks) -> None:
    rx, tx, family = begun(stage, marks, sh(ENDLESS), marks.stubborn())
    tx.signal(signal.SIGTERM)
    marks.appears("asked")
    asked_s = time.monotonic()
    end_with(rx, 8, tx, 143)
    assert END_S - 1 <= time.monotonic() - asked_s <= END_S + SOON_S
    family.ends(SOON_S)
    assert not marks.has("eof")


@pytest.mark.parametrize("end", ["source", "sink"])
def test_a_second_signal_does_not_wait_for_a_stubborn_command(stage: Stage, marks: Marks, end: str) -> None:
    source = sh('trap ": >\\"$1/source asked\\"" TERM; while :; do head -c 1000 /dev/zero; done', marks.folder)
    rx, tx, family = begun(stage, marks, source, marks.stubborn())
    (side, status), (other, of_other) = ((tx, 143), (rx, 8)) if end == "source" else ((rx, 143), (tx, 8))
    for each, number in ((side, status), (other, of_other)):
        if each is side:
            each.signal(signal.SIGTERM)
        marks.appears("source asked" if each is tx else "asked")
        again_s = time.monotonic()
        each.signal(signal.SIGTERM)
        each.ends(number)
        assert time.monotonic() - again_s < SOON_S
    family.ends(SOON_S)
    assert not marks.has("eof")


@pytest.mark.slow
def test_all_that_a_sink_has_started_ends_with_it(stage: Stage, marks: Marks) -> None:
    """A pipeline with a stubborn part in it, and a process in the background: one group."""
    script = 'cd "$1"; sleep 60 & : >begun; (trap "" TERM; cat >>data; : >eof) | cat | cat; : >eof'
    rx, tx, family = begun(stage, marks, sh(ENDLESS), sh(script, marks.folder))
    assert len(family) >= 2 + 2 + 2 + 6
    tx.signal(signal.SIGTERM)
    end_with(rx, 8, tx, 143)
    family.ends(SOON_S)
    assert not marks.has("eof")


# ---- kill -9 -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("sink", ["keeping", "stubborn"])
def test_kill_9_of_rx_ends_its_sink_without_an_end(stage: Stage, marks: Marks, sink: str) -> None:
    """The guardian does what rx would have done."""
    command = marks.keeping() if sink == "keeping" else marks.stubborn()
    rx, tx, family = begun(stage, marks, sh(ENDLESS), command, "regroup", "1s")
    began_s = time.monotonic()
    rx.kill()
    tx.ends(5)
    family.ends(END_S + SOON_S)
    if sink == "stubborn":
        assert END_S - 1 <= time.monotonic() - began_s
    assert not marks.has("eof")


@pytest.mark.slow
def test_kill_9_of_rx_and_of_everything_that_bears_its_name(stage: Stage, marks: Marks) -> None:
    """The guardian has another one, or `pkill -9 -f viamillipede` would give the sink an end."""
    rx, tx, family = begun(stage, marks, sh(ENDLESS), marks.stubborn(), "regroup", "1s")
    for guardian in family.guardians():
        assert "viamillipede" not in " ".join(guardian.cmdline())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            guardian.send_signal(number)
    rx.kill()
    tx.ends(5)
    family.ends(END_S + SOON_S)
    assert not marks.has("eof")


@pytest.mark.slow
@pytest.mark.parametrize("stubborn", [False, True], ids=["mild", "stubborn"])
def test_kill_9_of_tx_ends_its_source_and_the_sink_of_rx(stage: Stage, marks: Marks, stubborn: bool) -> None:
    trap = "trap '' TERM PIPE;" if stubborn else ""
    source = sh(f"{trap} while :; do echo x; sleep 0.01; done 2>/dev/null")
    rx, tx, family = begun(stage, marks, source, marks.keeping(), "regroup", "1s")
    tx.kill()
    rx.ends(5)
    family.ends(END_S + SOON_S)
    assert not marks.has("eof")


def test_a_stream_without_its_guardians_is_none_the_worse(stage: Stage, marks: Marks) -> None:
    rx = stage.rx(*marks.keeping())
    tx = stage.tx(rx, *sh("cat"))
    tx.write(b"x")
    marks.appears("begun")
    eventually(lambda: marks.text("data") == "x", "the first byte")
    guardians = Family(rx, tx).guardians()
    assert len(guardians) == 2
    for guardian in guardians:
        guardian.kill()
    tx.end_input()
    end_with(rx, 0, tx, 0)
    assert marks.has("eof")


# ---- the way between them ----------------------------------------------------------------------------------


def test_an_outage_ends_both_commands_without_an_end(stage: Stage, marks: Marks) -> None:
    rx = stage.rx("outage", "1s", "regroup", "1s", *marks.keeping())
    proxy = stage.proxy(rx)
    tx = stage.tx(proxy, "outage", "1s", "regroup", "1s", *sh(ENDLESS), stdin=subprocess.DEVNULL)
    marks.appears("begun")
    eventually(lambda: marks.has("data") and marks["data"].stat().st_size > MIB, "a part of the stream")
    family = Family(rx, tx)
    proxy.cut()
    proxy.strike("reset")
    tx.ends(5)
    rx.ends(5)
    family.ends(SOON_S)
    assert not marks.has("eof")


# ---- a sink that is not ours to end ------------------------------------------------------------------------


NO_RIGHT_TO_KILL = ["setpriv", "--bounding-set=-kill", "--inh-caps=-kill"]
ANOTHER_USER = ["setpriv", "--reuid=65534", "--clear-groups"]


@pytest.mark.slow
@pytest.mark.parametrize("end", ["tx is ended", "rx is killed"])
def test_a_sink_of_another_user_is_left_with_its_input_open(stage: Stage, end: str) -> None:
    """It cannot be signalled: that is said, nobody waits for it for ever, and it sees no end either."""
    if not shutil.which("setpriv") or subprocess.run([*NO_RIGHT_TO_KILL, *ANOTHER_USER, "true"]).returncode:
        pytest.skip("needs setpriv, and the right to become another user")
    folder = Path(stage.exit.enter_context(tempfile.TemporaryDirectory()))
    folder.chmod(0o777)
    marks = Marks(folder)
    rx = stage.rx("regroup", "1s", "--", *ANOTHER_USER, *marks.keeping()[1:], wrapper=NO_RIGHT_TO_KILL)
    tx = stage.tx(rx, "regroup", "1s", *sh(ENDLESS), stdin=subprocess.DEVNULL)
    marks.appears("begun")
    eventually(lambda: marks.has("data") and marks["data"].stat().st_size > KIB, "a part of the stream")
    family = Family(rx, tx)
    try:
        if end == "tx is ended":
            tx.signal(signal.SIGTERM)
            tx.ends(143)
            assert "runs as another user and cannot be ended from here" in rx.ends(8)
        else:
            rx.kill()
            tx.ends(5)
            time.sleep(END_S + 1)  # what is tested is that nothing happens then
        assert not marks.has("eof")
        assert len(family.living()) >= 3, "the shell, its cat and the guardian that holds their input open"
    finally:
        family.kill()
    family.ends(SOON_S)
