"""JSON lines: every figure is in them, under a name that the manual explains, and whatever a text holds is harmless."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.views.snapshots import rx_snapshot, tx_snapshot, waiting_snapshot
from viamillipede.config import GIB, MIB, S_US
from viamillipede.views.json_lines import VERSION, message_line, snapshot_line
from viamillipede.views.snapshot import Leg, Snapshot, Waits
from viamillipede.views.snapshot import Path as PathView

TIME = "2026-11-20T15:03:12.345Z"
NOT_NUMBERS = (float("nan"), float("inf"), float("-inf"))
EVERY, FIGURES, AT_THE_END, MESSAGES = "Every line", "Progress and end", "End", "Messages"


def parsed(line: str) -> dict[str, Any]:
    """The object of a line that is one; NaN and its like are not JSON."""
    assert "\n" not in line and line.isascii() and line.isprintable()

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    found = json.loads(line, parse_constant=refuse)
    assert isinstance(found, dict)
    return found


def shown(snapshot: Snapshot) -> dict[str, Any]:
    """What its line says."""
    return parsed(snapshot_line(snapshot, TIME))


def message(text: str) -> dict[str, Any]:
    """What the line of a message says."""
    return parsed(message_line(1, text, time=TIME, role="tx", pid=7))


def named(value: dict[str, Any], prefix: str = "") -> set[str]:
    """The names of all fields, as the manual writes them: `legs[].number`."""
    found = set()
    for key, inner in value.items():
        found.add(prefix + key)
        if isinstance(inner, dict):
            found |= named(inner, f"{prefix}{key}.")
        elif isinstance(inner, list):
            found |= named(inner[0], f"{prefix}{key}[].")
    return found


# What is in them --------------------------------------------------------------------------------------------


def test_a_line_of_progress() -> None:
    line = shown(tx_snapshot())
    assert {key: line[key] for key in ("type", "version", "time", "role", "pid", "name", "peer", "state")} == {
        "type": "progress", "version": VERSION, "time": TIME, "role": "tx", "pid": 4711, "name": "db1",
        "peer": "10.0.0.2:8834", "state": "running",
    }  # fmt: skip
    assert (line["elapsed_seconds"], line["moved_bytes"], line["size_bytes"]) == (12.3, 6 * GIB, 16 * GIB)
    assert line["left_seconds"] == pytest.approx(10 * 1024 / 499, abs=1e-6)
    assert line["waits"]["network"] == 0.78
    assert [leg["number"] for leg in line["legs"]] == list(range(1, 9))
    assert line["legs"][4]["rtt_seconds"] == 0.10575 and line["legs"][6]["rtt_seconds"] is None
    assert [path["number"] for path in line["paths"]] == [0, 1]


def test_the_last_line() -> None:
    failed = shown(tx_snapshot(state="failed", exit_status=5, reason="the receiver is gone"))
    assert (failed["type"], failed["exit_status"], failed["reason"]) == ("end", 5, "the receiver is gone")
    complete = shown(rx_snapshot(state="complete", exit_status=0, cipher="AES-256-GCM", digest="xxh3-128 0f"))
    assert (complete["type"], complete["exit_status"], complete["reason"]) == ("end", 0, "")
    assert (complete["cipher"], complete["digest"]) == ("AES-256-GCM", "xxh3-128 0f")


def test_what_is_not_known_is_null() -> None:
    unknown = ("size_bytes", "left_seconds")
    assert [shown(rx_snapshot())[key] for key in unknown] == [None, None]
    assert shown(rx_snapshot())["paths"][0]["legs_wanted"] is None
    assert shown(waiting_snapshot())["left_seconds"] is None


def test_what_a_hedge_counts_is_told_by_its_name() -> None:
    assert [(leg["hedged_frames"], leg["vain_bytes"]) for leg in shown(tx_snapshot())["legs"]][2] == (2, None)
    assert [(leg["hedged_frames"], leg["vain_bytes"]) for leg in shown(rx_snapshot())["legs"]][2] == (None, 2 * MIB)


def other(value: Any) -> Any:
    """A value of the same type that is another one."""
    if isinstance(value, bool):
        return not value
    return value + "x" if isinstance(value, str) else value + 1


@pytest.mark.parametrize("kind", [Snapshot, Leg, PathView, Waits])
def test_every_figure_is_shown(kind: type) -> None:
    end = tx_snapshot(exit_status=1)
    whole: dict[type, Any] = {Snapshot: end, Leg: end.legs[0], PathView: end.paths[0], Waits: end.waits}
    for field in fields(kind):
        value = getattr(whole[kind], field.name)
        if isinstance(value, tuple | Waits):
            continue  # its fields are looked at on their own
        part = replace(whole[kind], **{field.name: other(value)})
        places: dict[type, dict[str, Any]] = {
            Leg: {"legs": (part, *end.legs[1:])},
            PathView: {"paths": (part, *end.paths[1:])},
            Waits: {"waits": part},
        }
        changed = part if kind is Snapshot else replace(end, **places[kind])
        assert shown(changed) != shown(end), field.name


def test_durations_are_seconds_and_numbers() -> None:
    line = shown(tx_snapshot(elapsed_us=1, idle_us=3 * S_US))
    assert (line["elapsed_seconds"], line["idle_seconds"]) == (0.000001, 3)
    durations = [line[key] for key in line if key.endswith("_seconds")]
    assert len(durations) == 3 and all(isinstance(value, int | float) for value in durations)


def test_a_name_tells_the_unit() -> None:
    names = {name.rpartition(".")[2] for name in named(shown(tx_snapshot(exit_status=0)))}
    sizes = {name for name in names if re.search("bytes|moved|read|size|window|in_flight|vain", name)}
    rates = {name for name in names if re.search("rate|average", name)}
    assert len(sizes) >= 8 and all(re.search("_bytes(_per_second)?$", name) for name in sizes)
    assert len(rates) >= 2 and all(name.endswith("_bytes_per_second") for name in rates)
    assert not {name for name in names if name.endswith("_us")}


# What is in the texts ---------------------------------------------------------------------------------------


@given(st.text())
def test_a_text_comes_through_whole(text: str) -> None:
    assert message(text)["text"] == text
    assert shown(tx_snapshot(reason=text, exit_status=1))["reason"] == text


@pytest.mark.parametrize("text", ["\n\r\v\f\x85\u2028\u2029", "\x00\x1b[2J\x7f\x9b", '"\\', "\U0001f41b", "ä"])
def test_what_could_end_a_line_or_move_a_cursor_is_escaped(text: str) -> None:
    assert message(text)["text"] == text
    assert shown(tx_snapshot(name=text, waiting=text))["waiting"] == text


def test_bytes_that_are_no_utf8_read_as_everywhere_else() -> None:
    assert message("ä \udcff \U0001f41b")["text"] == "ä \\udcff \U0001f41b"
    legs = tuple(replace(leg, address="\udcff") for leg in tx_snapshot().legs)
    assert {leg["address"] for leg in shown(tx_snapshot(legs=legs, name="\udcfe"))["legs"]} == {"\\udcff"}


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_a_share_that_is_no_number_is_null(value: float) -> None:
    line = shown(tx_snapshot(cpu_share=value, waits=Waits(value, value, value, value, value)))
    assert line["cpu_share"] is None
    assert [line["waits"][key] for key in ("source", "network", "core", "sink", "limit")] == [None] * 5


def test_a_message_says_who_speaks() -> None:
    line = parsed(message_line(2, "up\ndown", time=TIME, role="rx", pid=9, label="db1"))
    assert line == {
        "type": "message", "version": VERSION, "time": TIME, "role": "rx", "pid": 9, "level": 2, "label": "db1",
        "text": "up\ndown",
    }  # fmt: skip


# The manual -------------------------------------------------------------------------------------------------


def manual() -> str:
    """The section JSON of viamillipede(1)."""
    page = Path(__file__).parents[2] / "man" / "viamillipede.1"
    match = re.search(r"^\.Sh JSON\n(.*?)(?=^\.Sh |\Z)", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert match is not None, "viamillipede(1) has no section JSON"
    return match[1]


def explained(text: str) -> dict[str, list[str]]:
    """The fields of each subsection, in order."""
    parts = re.split(r"^\.Ss (.+)\n", text, flags=re.M)
    return {
        title: re.findall(r"^\.It Va (\S+)$", part, flags=re.M)
        for title, part in zip(parts[1::2], parts[2::2], strict=True)
    }


def test_the_manual_explains_every_field_and_no_other() -> None:
    progress, end, said = named(shown(tx_snapshot())), named(shown(tx_snapshot(exit_status=0))), named(message(""))
    every = progress & said
    sections = explained(manual())
    assert {title: set(names) for title, names in sections.items()} == {
        EVERY: every, FIGURES: progress - every, AT_THE_END: end - progress, MESSAGES: said - every,
    }  # fmt: skip
    for title, names in sections.items():
        assert len(names) == len(set(names)), f"{title} explains a field twice"


def test_the_manual_explains_them_in_the_order_of_the_line() -> None:
    order = [*shown(tx_snapshot(exit_status=0))]
    names = [name for title in (EVERY, FIGURES, AT_THE_END) for name in explained(manual())[title]]
    assert [name for name in names if "." not in name] == order


def test_the_manual_says_the_version() -> None:
    assert f".It Va version\nOf these fields: {VERSION}.\n" in manual()


def test_the_states_of_the_manual_are_those_of_the_snapshot() -> None:
    source = Path(__file__).parents[2] / "viamillipede" / "views" / "snapshot.py"
    comments = re.search(r"state: str  # tx: (.*); rx: (.*)", source.read_text(encoding="utf-8"))
    entry = manual().partition(".It Va legs[].state\n")[2].partition(".It ")[0]
    assert comments is not None
    states = [re.findall(r"^\.Ql (\w+)", part, flags=re.M) for part in entry.split(".Cm rx")]
    assert states == [part.split(", ") for part in comments.groups()]


def test_a_field_that_is_missing_from_the_table_is_noticed() -> None:
    table = ".Ss Every line\n.Bl -tag\n.It Va type\nKind.\n.It Va time\nNow.\n.El\n.Ss End\n.It Va reason\nWhy.\n"
    assert explained(table) == {EVERY: ["type", "time"], AT_THE_END: ["reason"]}
