"""Commands at both ends when all goes well: run as they stand, at the first contact, and their end is what counts."""

import os
import subprocess
from signal import SIG_IGN, SIGPIPE, SIGXFSZ, Signals, getsignal

import psutil
import pytest

from tests.e2e.commands import Family, Marks, end_with, python, run, sh
from tests.e2e.helpers import LOOPBACK, MIB, Side, Stage, eventually, read_all, read_some, some_bytes
from tests.e2e.turned import listening

# ---- the stream --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 5, 3 * MIB + 1])
def test_from_a_command_to_a_command(stage: Stage, marks: Marks, size: int) -> None:
    marks["input"].write_bytes(some_bytes(size))
    rx, tx = run(stage, ("--", "cat", marks["input"]), marks.keeping(after="echo content"))
    end_with(rx, 0, tx, 0)
    assert marks["data"].read_bytes() == some_bytes(size)
    assert marks.has("eof") and read_all(rx.output) == b"content\n"


def test_a_command_at_one_end_and_a_pipe_at_the_other(stage: Stage, marks: Marks) -> None:
    rx, tx = run(stage, None, marks.keeping())
    tx.feed([b"from a pipe"])
    end_with(rx, 0, tx, 0)
    assert marks.text("data") == "from a pipe"
    rx, tx = run(stage, sh("echo to a pipe"), None)
    assert read_all(rx.output) == b"to a pipe\n"
    end_with(rx, 0, tx, 0)


def test_who_dials_does_not_matter(stage: Stage, marks: Marks) -> None:
    """rx HOST PORT with a sink, tx listen with a source."""
    tx = listening(stage, *sh('echo "$VIAMILLIPEDE_PEER"'), stdin=subprocess.DEVNULL)
    rx = Side("rx", ["rx", LOOPBACK, tx.port, *marks.keeping('echo "$VIAMILLIPEDE_PEER" >peer')], -3, -1, None, [])
    stage._sides.append(rx)
    end_with(rx, 0, tx, 0)
    assert marks.text("data").startswith(f"{LOOPBACK}:")
    assert marks.text("peer") == f"{LOOPBACK}:{tx.port}\n"


def test_a_byte_of_the_source_reaches_the_sink_at_once(stage: Stage) -> None:
    """No end is needed, no block must be full."""
    rx = stage.rx(*sh("cat"))
    tx = stage.tx(rx, *sh("cat"))  # our input is the source's, our output the sink's
    for byte in (b"x", b"y"):
        tx.write(byte)
        assert read_some(rx.output) == byte
    tx.end_input()
    end_with(rx, 0, tx, 0)


# ---- what is waited for ------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["exit 0", "sleep 0.7; exit 0"], ids=["at once", "later"])
def test_a_source_that_closes_its_output_and_goes_on_is_waited_for(stage: Stage, marks: Marks, end: str) -> None:
    source = sh(f'cd "$1"; echo early; exec >&-; sleep 0.5; : >over; {end}', marks.folder)
    rx, tx = run(stage, source, sh('cat; cd "$1"; [ -e over ] && echo the source was done', marks.folder))
    end_with(rx, 0, tx, 0)
    assert read_all(rx.output) == b"early\nthe source was done\n"


def test_what_the_source_has_left_behind_may_write_on(stage: Stage, marks: Marks) -> None:
    """As in a shell's pipeline the stream ends when nobody can write any more."""
    rx, tx = run(stage, sh("(sleep 0.5; echo late) & echo early"), marks.keeping())
    end_with(rx, 0, tx, 0)
    assert marks.text("data") == "early\nlate\n"


def test_a_sink_may_work_on_after_its_last_byte(stage: Stage, marks: Marks) -> None:
    rx, tx = run(stage, sh("echo x"), marks.keeping(after="sleep 1.3; : >over"))
    tx.ends(0)
    assert marks.has("over"), "tx must not be content before the sink is"
    rx.ends(0)


@pytest.mark.parametrize("then", ["", "time.sleep(1.6); "], ids=["ends", "works on"])
def test_a_sink_that_knows_the_length_need_not_see_the_end(stage: Stage, marks: Marks, then: str) -> None:
    """It leaves, or closes its input, before the end of the stream is known to anybody; but it has read everything."""
    sink = python(
        f"import os, sys, time; print(os.read(0, 5)); os.close(0); {then}open(sys.argv[1], 'w')", marks["over"]
    )
    rx, tx = run(stage, sh("printf hello; sleep 0.3"), sink)
    tx.ends(0)
    assert marks.has("over")
    rx.ends(0)


def test_head_is_content_with_exactly_all(stage: Stage) -> None:
    rx, tx = run(stage, sh("head -c 3000000 /dev/zero"), sh("exec head -c 3000000"))
    assert len(read_all(rx.output)) == 3_000_000
    end_with(rx, 0, tx, 0)


# ---- how they are run --------------------------------------------------------------------------------------


def test_nothing_in_a_command_is_expanded(stage: Stage) -> None:
    arguments = [
        "two words",
        "*",
        "",
        "$HOME",
        "a|b",
        "new\nline",
        "--",
        "threads",
        "-h",
        "ü",
        os.fsdecode(b"\xff\xfe"),
    ]
    sink = python("import os, sys; os.read(0, 9); print(*map(os.fsencode, sys.argv[1:]), sep='|')", *arguments)
    rx, tx = run(stage, sh("echo"), sink)
    assert read_all(rx.output).decode() == "|".join(str(os.fsencode(each)) for each in arguments) + "\n"
    end_with(rx, 0, tx, 0)


@pytest.mark.parametrize("name", ["", "db1.example:5432+x@y_-"])
def test_both_commands_know_the_stream(stage: Stage, name: str) -> None:
    show = "env | grep '^VIAMILLIPEDE_' | sort"
    rx, tx = run(stage, sh(show), sh(f"cat; {show}"), tx=["name", name] if name else [])
    lines = read_all(rx.output).decode().splitlines()
    end_with(rx, 0, tx, 0)
    of_source, of_sink = (dict(line.partition("=")[::2] for line in part) for part in (lines[:3], lines[3:]))
    assert of_source.keys() == of_sink.keys() == {f"VIAMILLIPEDE_{each}" for each in ("NAME", "PEER", "SESSION")}
    assert of_source["VIAMILLIPEDE_NAME"] == of_sink["VIAMILLIPEDE_NAME"] == name
    assert of_source["VIAMILLIPEDE_SESSION"] == of_sink["VIAMILLIPEDE_SESSION"]
    assert len(bytes.fromhex(of_sink["VIAMILLIPEDE_SESSION"])) == 16
    assert of_source["VIAMILLIPEDE_PEER"] == f"{LOOPBACK}:{rx.port}"
    assert of_sink["VIAMILLIPEDE_PEER"].startswith(f"{LOOPBACK}:")


ABOUT_ITSELF = """
import os, signal
while os.read(0, 99): pass
ignored = [int(number) for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN]
print(os.getsid(0) == os.getpgid(0) == os.getpid(), sorted(map(int, os.listdir("/proc/self/fd"))),
      sorted(ignored), signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""


@pytest.mark.parametrize("end", ["source", "sink", "sink of keep"])
def test_a_command_has_a_session_of_its_own_and_nothing_of_ours(stage: Stage, end: str) -> None:
    """No descriptor but the standard ones, no signal blocked or ignored.

    Descriptor 3 is the folder that it lists them from; Python itself ignores SIGPIPE and SIGXFSZ.
    """
    about, plain = python(ABOUT_ITSELF), sh("cat")
    source, sink = (about, plain) if end == "source" else (plain, about)
    rx, tx = run(stage, source, sink, rx=["keep"] if "keep" in end else [])
    tx.ends(0)
    ignored = {SIGPIPE, SIGXFSZ} | {each for each in Signals if getsignal(each) is SIG_IGN}  # SIGHUP below nohup, say
    assert read_some(rx.output) == f"True [0, 1, 2, 3] {sorted(map(int, ignored))} set()\n".encode()


def test_nothing_is_run_before_the_first_contact(stage: Stage, marks: Marks) -> None:
    rx = stage.rx(*marks.keeping())
    tx = stage.tx(1, "wait", "1s", *sh(': >"$1"', marks["source"]), stdin=subprocess.DEVNULL)
    tx.ends(3)
    assert not marks.has("source") and not marks.has("begun")
    assert len(Family(rx)) == 1
    rx.signal(2)
    rx.ends(130)
    assert not marks.has("begun")


# ---- what it says on its standard error --------------------------------------------------------------------


def test_what_a_command_says_is_passed_on_line_by_line(stage: Stage) -> None:
    rx, tx = run(
        stage, sh("echo from the source >&2; printf unfinished >&2"), sh(r"cat; printf '\033[31mred\007\n' >&2")
    )
    end_with(rx, 0, tx, 0)
    assert tx.said.splitlines()[:2] == ["from the source", "unfinished"]
    assert r"\x1b[31mred\x07" in rx.said.splitlines()


@pytest.mark.parametrize("end", ["source", "sink"])
def test_megabytes_on_standard_error_hold_up_nothing(stage: Stage, marks: Marks, end: str) -> None:
    noise = "yes 'a line of some length that nobody wants to read' | head -c 3000000 >&2"
    source = sh(f"echo x; {noise if end == 'source' else ':'}")
    rx, tx = run(stage, source, marks.keeping(before=f"{noise};" if end == "sink" else ""))
    end_with(rx, 0, tx, 0)
    assert marks.text("data") == "x\n"


def test_a_standard_error_that_is_closed_holds_up_nothing(stage: Stage) -> None:
    rx, tx = run(stage, sh("exec 2>&-; echo x"), sh("exec 2>&-; cat"))
    assert read_all(rx.output) == b"x\n"
    end_with(rx, 0, tx, 0)


def test_a_standard_error_that_is_held_open_holds_up_nothing(stage: Stage) -> None:
    """Whatever a source leaves behind is nobody's business after a success."""
    rx, tx = run(stage, sh("sleep 60 >/dev/null & echo $!"), sh("cat"))
    pid = int(read_all(rx.output))
    end_with(rx, 0, tx, 0)
    psutil.Process(pid).kill()


# ---- what is left ------------------------------------------------------------------------------------------


def test_nothing_of_ours_is_left_after_success(stage: Stage, marks: Marks) -> None:
    """Each command has one guardian, and that goes with it."""
    rx = stage.rx(*marks.keeping())
    tx = stage.tx(rx, *sh("cat"))
    tx.write(b"x")
    marks.appears("begun")
    eventually(lambda: marks.text("data") == "x", "the first byte")
    family = Family(rx, tx)
    assert len(family.guardians()) == 2
    tx.end_input()
    end_with(rx, 0, tx, 0)
    family.ends(5)


def test_what_a_sink_leaves_behind_after_success_is_left_alone(stage: Stage, marks: Marks) -> None:
    """A daemon that it has started, say; also when it holds on to all that it was given."""
    rx, tx = run(stage, sh("echo x"), marks.keeping(after="(sleep 0.7; : >late) & :"))
    end_with(rx, 0, tx, 0)
    assert not marks.has("late")
    marks.appears("late")
