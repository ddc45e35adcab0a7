"""Each exit status of the manual, produced by real processes. One that no case here produces is a defect."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.e2e.commands import Marks, sh
from tests.e2e.helpers import ROOT, Side, Stage, read_exactly, some_bytes
from tests.e2e.test_contact import NOBODY
from tests.e2e.test_digest import flipping
from tests.e2e.turned import dialling, listening
from viamillipede.errors import Exit

Players = tuple[Side | None, Side | None]  # rx and tx; None: it is not in the play


@dataclass(frozen=True)
class Case:
    """How both end, and a word of the reason that the one who is in the table's focus gives."""

    rx: Exit | None
    tx: Exit | None
    play: Callable[[Stage, Marks], Players]


CASES: dict[str, Case] = {}


def case(*, rx: Exit | None = None, tx: Exit | None = None) -> Callable[[Callable[[Stage, Marks], Players]], object]:
    """Make a case of a play."""

    def add(play: Callable[[Stage, Marks], Players]) -> object:
        CASES[play.__name__.strip("_")] = Case(rx, tx, play)
        return play

    return add


def idle(stage: Stage, *words: object) -> tuple[Side, Side]:
    """rx and tx in the middle of a stream."""
    rx = stage.rx(*words)
    tx = stage.tx(rx, *words)
    tx.write(b"hello")
    assert read_exactly(rx.output, 5) == b"hello"
    return rx, tx


@case(rx=Exit.COMPLETE, tx=Exit.COMPLETE)
def _both_commands_exit_0(stage: Stage, marks: Marks) -> Players:
    rx = stage.rx(*marks.keeping())
    return rx, stage.tx(rx, *sh("echo x"), stdin=subprocess.DEVNULL)


@case(rx=Exit.USAGE, tx=Exit.USAGE)
def _there_is_no_such_command(stage: Stage, marks: Marks) -> Players:
    rx = Side("rx", ["rx", 0, "--", marks["none"]], subprocess.DEVNULL, subprocess.PIPE, None, [])
    stage._sides.append(rx)
    return rx, stage.tx(1, "--", marks["none"], host=NOBODY)


@case(rx=Exit.NO_CONTACT, tx=Exit.NO_CONTACT)
def _the_port_is_taken_and_the_address_does_not_answer(stage: Stage, marks: Marks) -> Players:
    first = stage.rx()
    rx = Side("rx", ["rx", first.port], subprocess.DEVNULL, subprocess.PIPE, None, [])
    stage._sides.append(rx)
    return rx, stage.tx(1, "wait", "500ms", host=NOBODY)


@case(rx=Exit.TERMINATED, tx=Exit.REFUSED)
def _the_name_is_refused_and_the_receiver_stays(stage: Stage, marks: Marks) -> Players:
    rx = stage.rx("names", "db*")
    tx = stage.tx(rx, "name", "web1")
    tx.ends(Exit.REFUSED)
    rx.signal(signal.SIGTERM)
    return rx, tx


@case(rx=Exit.REFUSED, tx=Exit.TERMINATED)
def _the_checkphrase_is_another_one_for_an_rx_that_dials(stage: Stage, marks: Marks) -> Players:
    tx = listening(stage, "checkphrase", "true")
    rx = dialling(stage, tx, "checkphrase", "else")
    rx.ends(Exit.REFUSED)
    tx.signal(signal.SIGTERM)
    return rx, tx


@case(rx=Exit.PEER_LOST)
def _tx_is_killed(stage: Stage, marks: Marks) -> Players:
    rx, tx = idle(stage, "regroup", "300ms")
    tx.kill()
    return rx, None


@case(tx=Exit.PEER_LOST)
def _rx_is_killed(stage: Stage, marks: Marks) -> Players:
    rx, tx = idle(stage, "regroup", "300ms")
    rx.kill()
    return None, tx


@case(rx=Exit.INTEGRITY, tx=Exit.INTEGRITY)
def _a_byte_is_damaged_on_the_way(stage: Stage, marks: Marks) -> Players:
    rx = stage.rx(stdout=stage.hold(marks["out"].open("wb")))
    tx = stage.tx(flipping(stage.proxy(rx)), "threads", 1)
    tx.feed([some_bytes(100_000)])
    return rx, tx


@case(rx=Exit.LOCAL_IO, tx=Exit.REMOTE_FAILED)
def _the_sink_fails(stage: Stage, marks: Marks) -> Players:
    rx = stage.rx(*sh("cat >/dev/null; exit 4"))
    return rx, stage.tx(rx, *sh("echo x"), stdin=subprocess.DEVNULL)


@case(rx=Exit.REMOTE_FAILED, tx=Exit.LOCAL_IO)
def _the_source_fails(stage: Stage, marks: Marks) -> Players:
    rx = stage.rx(*marks.keeping())
    return rx, stage.tx(rx, *sh("echo x; exit 3"), stdin=subprocess.DEVNULL)


@case(rx=Exit.LIMIT)
def _nobody_comes(stage: Stage, marks: Marks) -> Players:
    return stage.rx("wait", "300ms"), None


@case(rx=Exit.REMOTE_FAILED, tx=Exit.HUNG_UP)
def _tx_is_hung_up(stage: Stage, marks: Marks) -> Players:
    rx, tx = idle(stage)
    tx.signal(signal.SIGHUP)
    return rx, tx


@case(rx=Exit.INTERRUPTED, tx=Exit.REMOTE_FAILED)
def _rx_is_interrupted(stage: Stage, marks: Marks) -> Players:
    rx, tx = idle(stage)
    rx.signal(signal.SIGINT)
    return rx, tx


@case(rx=Exit.TERMINATED, tx=Exit.REMOTE_FAILED)
def _rx_is_terminated(stage: Stage, marks: Marks) -> Players:
    rx, tx = idle(stage)
    rx.signal(signal.SIGTERM)
    return rx, tx


@pytest.mark.parametrize("name", CASES)
def test_both_sides_end_as_the_manual_says(stage: Stage, marks: Marks, name: str) -> None:
    each = CASES[name]
    rx, tx = each.play(stage, marks)
    for side, status in ((rx, each.rx), (tx, each.tx)):
        assert (side is None) == (status is None)
        if side is not None and status is not None:
            side.ends(status)


BUG = """
import sys
from viamillipede import cli
from viamillipede.aio import {module}
def broken(*_):
    raise ZeroDivisionError("made by a test")
{module}.check_congestion = broken
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("role, module", [("tx", "tx"), ("rx", "receive")])
def test_a_bug_is_status_1(role: str, module: str) -> None:
    """One is put into a real process, since there is none to be had otherwise."""
    words = ["tx", "127.0.0.1", "1"] if role == "tx" else ["rx", "0"]
    done = subprocess.run(
        [sys.executable, "-c", BUG.format(module=module), *words],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == Exit.UNEXPECTED
    assert done.stderr.startswith(f"viamillipede {role}: unexpected ZeroDivisionError: made by a test (a bug; please")


def test_there_is_a_case_for_each_status_of_the_manual() -> None:
    text = (ROOT / "man/viamillipede.1").read_text()
    table = text[text.index(".Sh EXIT STATUS") : text.index(".Sh EXAMPLES")]
    promised = {int(status) for status in re.findall(r"^\.It (\d+)$", table, re.MULTILINE)}
    produced = {status for each in CASES.values() for status in (each.rx, each.tx) if status is not None}
    assert promised == set(Exit) == produced | {Exit.UNEXPECTED}, "1 is test_a_bug_is_status_1"
