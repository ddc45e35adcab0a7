"""Who is shown what: the way that suits the words and the terminal, when it is time, and taken back in the end."""

import itertools
import json
import os
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from tests.views.snapshots import stalled_snapshot, tx_snapshot
from viamillipede.aio import observer as module
from viamillipede.aio.log import WARNING
from viamillipede.aio.observer import PICTURE_US, STALL_TOLD_EVERY_US, STALL_TOLD_FIRST_US, Observer
from viamillipede.config import INTERVAL_US_DEFAULT, MS_US, S_US, Address, TxConfig
from viamillipede.errors import NoContact
from viamillipede.views.dashboard import ENTER, LEAVE
from viamillipede.views.snapshot import Snapshot

BEGUN_US = 7 * S_US
TICK_US = 100 * MS_US


class Log:
    """Takes down what it is asked to show, as (how, text)."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, str]] = []
        self.owner: Any = None

    def raw(self, line: str) -> None:
        """See aio.log.Log."""
        self.shown.append(("raw", line))

    def live(self, text: str) -> None:
        """See aio.log.Log."""
        self.shown.append(("live", text))

    def draw(self, text: str) -> None:
        """See aio.log.Log."""
        self.shown.append(("draw", text))

    def screen(self, show: Any) -> None:
        """See aio.log.Log."""
        self.owner = show

    def say(self, level: int, text: str) -> None:
        """See aio.log.Log."""
        assert level == WARNING
        self.shown.append(("say", text))

    def ways(self) -> set[str]:
        """How something was shown so far."""
        return {how for how, _ in self.shown}


class Stage:
    """An observer, the log that it writes to, and what it looks at."""

    def __init__(self, config: TxConfig, **others: Any) -> None:
        self.log, self.snapshot, self.looks = Log(), tx_snapshot(), 0
        self.observer = Observer(config, self.log, self.look, BEGUN_US, **others)  # type: ignore[arg-type]
        self.now = BEGUN_US

    def look(self) -> Snapshot:
        """The snapshot of the moment."""
        self.looks += 1
        return self.snapshot

    def run(self, seconds: float) -> None:
        """Tick for so long."""
        for _ in range(round(seconds * S_US / TICK_US)):
            self.now += TICK_US
            self.observer.on_tick(self.now)


@pytest.fixture(params=[True, False], ids=["terminal", "pipe"])
def is_terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether standard error is one."""
    monkeypatch.setattr(os, "isatty", lambda fd: request.param)
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((80, 24)))
    return bool(request.param)


def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error is one."""
    monkeypatch.setattr(os, "isatty", lambda fd: True)
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((80, 24)))


# Which way --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "on_terminal", "on_pipe"),
    [
        ({}, "live", ""),
        ({"progress": True}, "live", "raw"),
        ({"interval_us": S_US}, "live", "raw"),
        ({"verbose": 0}, "", ""),
        ({"verbose": 0, "progress": True}, "raw", "raw"),
        ({"json": True}, "raw", "raw"),
        ({"json": True, "verbose": 0}, "raw", "raw"),
        ({"dashboard": True}, "draw", "draw"),
    ],
)
def test_the_way_that_suits_the_words(words: dict[str, Any], on_terminal: str, on_pipe: str, is_terminal: bool) -> None:
    stage = Stage(TxConfig(**words))
    stage.run(3)
    assert stage.log.ways() == {on_terminal if is_terminal else on_pipe} - {""}
    if not stage.log.shown:
        assert not stage.looks, "who shows nothing need not look"


@pytest.mark.parametrize("words", [{}, {"dashboard": False, "progress": True}])
def test_one_of_several_on_a_terminal_does_not_draw_on_it(
    words: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal(monkeypatch)
    stage = Stage(TxConfig(**words), alone=False)
    stage.snapshot = replace(stage.snapshot, name="")
    stage.run(1)
    stage.snapshot = replace(stage.snapshot, name="db1")
    stage.run(1)
    lines = [line.partition(": ")[0] for _, line in stage.log.shown]
    assert lines == (["viamillipede tx 3f2a9c01", "viamillipede tx db1"] if words else [])


def test_who_has_nothing_to_show(is_terminal: bool) -> None:
    log = Log()
    observer = Observer(TxConfig(json=True), log, None, BEGUN_US)  # type: ignore[arg-type]
    observer.on_tick(BEGUN_US + 10 * S_US)
    observer.on_idle(60 * S_US, True, BEGUN_US + 60 * S_US)
    observer.clear()
    observer.stop()
    assert log.shown == []


def test_colours_and_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal(monkeypatch)
    monkeypatch.setenv("TERM", "xterm-256color")
    pictures = {}
    for name, environ in {
        "both": {"LANG": "de_DE.UTF-8"}, "no colour": {"NO_COLOR": "1", "LC_ALL": "C.utf8"}, "plain": {"LC_ALL": "C"},
        "order": {"LC_ALL": "", "LC_CTYPE": "POSIX", "LANG": "C.UTF-8"},
    }.items():  # fmt: skip
        for variable in ("NO_COLOR", "LC_ALL", "LC_CTYPE", "LANG"):
            monkeypatch.delenv(variable, raising=False)
        for variable, value in environ.items():
            monkeypatch.setenv(variable, value)
        stage = Stage(TxConfig())
        stage.run(1)
        pictures[name] = stage.log.shown[0][1]
    assert "\x1b[" in pictures["both"] and not pictures["both"].isascii()
    assert "\x1b[" not in pictures["no colour"] and not pictures["no colour"].isascii()
    assert pictures["plain"].isascii() and pictures["order"].isascii()


# When -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "first_us", "every_us"),
    [
        ({"json": True}, INTERVAL_US_DEFAULT, INTERVAL_US_DEFAULT),
        ({"json": True, "interval_us": 300 * MS_US}, 300 * MS_US, 300 * MS_US),
        ({"progress": True}, INTERVAL_US_DEFAULT, INTERVAL_US_DEFAULT),
        ({"interval_us": 3 * S_US}, 3 * S_US, 3 * S_US),
        ({"dashboard": True}, PICTURE_US, PICTURE_US),
    ],
)
def test_when_it_is_time(words: dict[str, Any], first_us: int, every_us: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda fd: False)
    stage, shown = Stage(TxConfig(**words)), []
    for _ in range(100):
        before = stage.looks
        stage.run(0.1)
        if stage.looks > before:
            shown.append(stage.now - BEGUN_US)
    assert shown[0] == first_us and {b - a for a, b in itertools.pairwise(shown)} <= {every_us}
    assert len(shown) == 10 * S_US // every_us


@pytest.mark.parametrize(("interval_us", "every_us"), [(0, PICTURE_US), (200 * MS_US, 200 * MS_US), (S_US, S_US)])
def test_a_short_transfer_has_no_live_line(interval_us: int, every_us: int, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal(monkeypatch)
    stage = Stage(TxConfig(interval_us=interval_us))
    stage.run(0.9)
    assert not stage.log.shown
    stage.run(0.1 + 4 * every_us / S_US)
    assert len(stage.log.shown) == 5


# The end ----------------------------------------------------------------------------------------------------


def test_the_live_line_is_gone_before_the_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal(monkeypatch)
    stage = Stage(TxConfig())
    stage.run(1)
    how, line = stage.log.shown[0]
    assert how == "live" and "MiB/s" in line
    stage.observer.clear()
    assert stage.log.shown[-1] == ("live", "") and len(stage.log.shown) == 2
    stage.observer.clear()
    stage.observer.stop()
    stage.run(3)
    assert len(stage.log.shown) == 2


def test_the_dashboard_has_the_screen_as_long_as_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal(monkeypatch)
    stage = Stage(TxConfig(dashboard=True))
    stage.run(2 * PICTURE_US / S_US)
    drawn = [text for how, text in stage.log.shown if how == "draw"]
    assert drawn[0] == ENTER and len(drawn) == 3 and all("delivered" in text for text in drawn[1:])
    assert stage.log.owner is not None
    stage.log.owner("something was said")
    stage.run(PICTURE_US / S_US)
    assert "something was said" in stage.log.shown[-1][1]
    stage.observer.clear()
    assert stage.log.shown[-1] == ("draw", LEAVE) and stage.log.owner is None
    stage.observer.stop()
    assert [text for _, text in stage.log.shown].count(LEAVE) == 1


def test_a_dashboard_that_never_came_is_not_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal(monkeypatch)
    stage = Stage(TxConfig(dashboard=True))
    stage.observer.stop()
    assert stage.log.shown == []


def test_the_terminal_may_change_its_size_and_go_away(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    stage, sizes = Stage(TxConfig()), []
    for columns in (80, 30, 0):

        def size(fd: int, columns: int = columns) -> os.terminal_size:
            if not columns:
                raise OSError("gone")
            return os.terminal_size((columns, 24))

        monkeypatch.setattr(os, "get_terminal_size", size)
        stage.run(1)
        sizes.append(len(stage.log.shown[-1][1]))
    assert sizes[1] < 30 < sizes[0] < 80 and sizes[2] < 80


def test_a_tick_between_the_outcome_and_the_end_says_no_second_end() -> None:
    stage = Stage(TxConfig(json=True))
    stage.snapshot = tx_snapshot(state="complete", exit_status=0)
    stage.run(3)
    stage.observer.stop()
    assert [json.loads(line)["type"] for _, line in stage.log.shown] == ["end"]


def test_the_last_line_of_json_is_the_end() -> None:
    stage = Stage(TxConfig(json=True))
    stage.run(1)
    stage.snapshot = replace(stage.snapshot, state="failed", exit_status=5, reason="gone")
    stage.observer.clear()
    stage.observer.stop()
    stage.observer.stop()
    stage.run(5)
    lines = [json.loads(line) for _, line in stage.log.shown]
    assert [line["type"] for line in lines] == ["progress", "end"]
    assert (lines[1]["exit_status"], lines[1]["reason"]) == (5, "gone")


# Stalls -----------------------------------------------------------------------------------------------------


def idle(stage: Stage, seconds: int, stalled: bool, moved_us: int = BEGUN_US) -> None:
    """So many seconds in which nothing moves, nor has since `moved_us`."""
    for _ in range(seconds * S_US // TICK_US):
        stage.now += TICK_US
        stage.observer.on_idle(stage.now - moved_us, stalled, stage.now)


def test_a_stall_is_said_after_a_while_and_then_seldom() -> None:
    stage = Stage(TxConfig())
    stage.snapshot = stalled_snapshot()
    idle(stage, STALL_TOLD_FIRST_US // S_US - 1, True)
    assert stage.log.shown == []
    idle(stage, 2, True)
    assert stage.log.shown == [("say", "STALLED 12 s: waiting for frame 8812 on leg 3 (10.0.0.2)")]
    idle(stage, STALL_TOLD_EVERY_US // S_US - 2, True)
    assert len(stage.log.shown) == 1
    idle(stage, 2, True)
    assert len(stage.log.shown) == 2
    idle(stage, 1, False)  # for a moment there was no leg
    idle(stage, 1, True)
    assert len(stage.log.shown) == 2, "that is no other one"
    idle(stage, STALL_TOLD_FIRST_US // S_US + 1, True, stage.now)
    assert len(stage.log.shown) == 3, "something has moved before this one"


def test_what_only_looked_like_a_stall_is_not_said() -> None:
    """The snapshot knows better: it is the first frame after a long pause of the input."""
    stage = Stage(TxConfig())
    idle(stage, 20, True)
    assert stage.log.shown == []
    stage.snapshot = stalled_snapshot()
    idle(stage, 1, True)
    assert len(stage.log.shown) == 1


def test_a_machine_that_was_started_just_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.aio.test_observer.BEGUN_US", 0)
    stage = Stage(TxConfig())
    stage.snapshot = stalled_snapshot()
    idle(stage, 11, True, 0)
    assert len(stage.log.shown) == 1, "its clock says less than the time between two such lines"


# Others who want to know ------------------------------------------------------------------------------------


class Server:
    """In the place of MetricsServer."""

    made: ClassVar[list[Any]] = []
    error: OSError | None = None

    def __init__(self, address: Address, latest: Any, streams: Any) -> None:
        self.address, self.latest, self.streams, self.port, self.state = address, latest, streams, 4711, "made"
        Server.made.append(self)

    def start(self) -> None:
        """See MetricsServer."""
        if Server.error is not None:
            raise Server.error
        self.state = "started"

    def stop(self) -> None:
        """See MetricsServer."""
        self.state = "stopped"


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> list[Server]:
    """Those that are made."""
    monkeypatch.setattr("viamillipede.views.metrics.MetricsServer", Server)
    monkeypatch.setattr(Server, "made", [])
    monkeypatch.setattr(Server, "error", None)
    return Server.made


METRICS = TxConfig(metrics=Address("127.0.0.1", 0))


def test_metrics_have_the_latest_snapshot(servers: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda fd: False)
    stage = Stage(METRICS)
    stage.observer.start()
    (server,) = servers
    assert server.state == "started" and stage.log.shown == [("say", "metrics at http://127.0.0.1:4711/metrics")]
    assert server.latest() == ()
    stage.run(1)
    assert server.latest() == (stage.snapshot,)
    stage.snapshot = replace(stage.snapshot, moved_bytes=5)
    stage.run(0.9)
    assert server.latest()[0].moved_bytes != 5
    stage.run(0.1)
    assert server.latest()[0].moved_bytes == 5
    stage.observer.stop()
    assert server.state == "stopped" and len(stage.log.shown) == 1


def test_metrics_that_cannot_be_served(servers: list[Server]) -> None:
    Server.error = OSError(98, "Address already in use")
    stage = Stage(METRICS)
    with pytest.raises(NoContact, match=r"cannot serve metrics at 127\.0\.0\.1:0: Address already in use"):
        stage.observer.start()
    stage.observer.stop()
    assert servers[0].state == "made" and stage.log.shown == []


def test_metrics_of_others(servers: list[Server]) -> None:
    others, streams = (tx_snapshot(), tx_snapshot(name="db2")), {0: 3}
    observer = Observer(METRICS, Log(), None, BEGUN_US, streams=streams, latest=lambda: others)  # type: ignore[arg-type]
    observer.start()
    observer.on_tick(BEGUN_US + 10 * S_US)
    assert servers[0].latest() == others and servers[0].streams is streams
    observer.stop()


def test_who_is_to_know_as_well_is_told_each_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda fd: False)
    stage = Stage(TxConfig())
    told: list[Snapshot] = []
    stage.observer.share = told.append
    stage.run(3)
    assert told == [stage.snapshot] * 3 and stage.log.shown == []


def test_the_size_of_a_terminal_that_is_none() -> None:
    assert module._size().columns > 0
