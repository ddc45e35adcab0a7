"""A process that was stopped, and a clock that jumps: nobody takes that for the other side's death."""

import ast
import signal
import time
from collections.abc import Iterator

import pytest

from tests.e2e.helpers import MIB, ROOT, Stage, read_all, read_exactly, some_bytes

STOPPED_S = 12  # longer than any silence that a leg survives
# What knows the time of day. `strftime` is not among them: it tells people when a dump was made, and drives nothing.
WALL_CLOCK = {"time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.ctime", "time.asctime", "time.mktime",
              "time.clock_gettime", "time.clock_gettime_ns", "time.CLOCK_REALTIME"}  # fmt: skip

# Modules that may ask all the same, since they only write it down for somebody to read.
WRITTEN_DOWN = {
    "aio/log.py": "the time of each line of JSON",
    "aio/log_outputs.py": "the time of each line of a log file",
    "standard_streams.py": "the time of a failure's line of JSON",
}


@pytest.mark.slow
@pytest.mark.parametrize("role", ["rx", "tx"])
def test_a_process_that_is_stopped_and_continued(stage: Stage, role: str) -> None:
    """One in the middle of a stream, with all legs busy, and one that waits for input; both longer than `regroup`."""
    pairs = [(rx, stage.tx(rx, "threads", 4, "verbose", 2)) for rx in (stage.rx(), stage.rx())]
    (rx, tx), (idle_rx, idle_tx) = pairs
    idle_tx.write(b"before")
    assert read_exactly(idle_rx.output, 6) == b"before"
    data = some_bytes(96 * MIB)
    tx.feed([data])
    assert read_exactly(rx.output, 4 * MIB) == data[: 4 * MIB]
    stopped = [pair[role == "tx"] for pair in pairs]
    for side in stopped:
        side.signal(signal.SIGSTOP)
    time.sleep(STOPPED_S)
    for side in stopped:
        side.signal(signal.SIGCONT)
    assert read_all(rx.output) == data[4 * MIB :]
    idle_tx.write(b"after")
    idle_tx.end_input()
    assert read_all(idle_rx.output) == b"after"
    for pair in pairs:
        for side in pair:
            side.ends(0)


# ---- the time of day -----------------------------------------------------------------------------------------


def wall_clocks(source: str) -> Iterator[str]:
    """Where `source` asks for the time of day."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in WALL_CLOCK:
            yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            names = [f"{module}.{alias.name}" if module else alias.name for alias in node.names]
            bad = [name for name in names if name in WALL_CLOCK or name.partition(".")[0] == "datetime"]
            yield from (f"line {node.lineno}: {name}" for name in bad)


def test_nothing_asks_for_the_time_of_day() -> None:
    """So it may jump as it likes. What is excused must need that."""
    package = ROOT / "viamillipede"
    asking = {str(path.relative_to(package)): list(wall_clocks(path.read_text())) for path in package.rglob("*.py")}
    assert asking
    assert {module: said for module, said in asking.items() if said and module not in WRITTEN_DOWN} == {}
    assert all(asking.get(module) for module in WRITTEN_DOWN)


@pytest.mark.parametrize(
    "source",
    ["import time\nx = time.time()", "from time import time_ns", "import datetime", "from datetime import datetime",
     "def f():\n    import time\n    return time.clock_gettime(time.CLOCK_REALTIME)"],
)  # fmt: skip
def test_asking_for_the_time_of_day_is_noticed(source: str) -> None:
    assert list(wall_clocks(source))


def test_a_clock_that_does_not_jump_may_be_asked() -> None:
    source = "import time\nfrom time import monotonic\nx = time.monotonic_ns(), time.strftime('%H')"
    assert list(wall_clocks(source)) == []
