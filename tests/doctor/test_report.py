"""The report: its width, its colours, what it repeats and what it leaves out; and the JSON."""

import json
import re
from pathlib import Path

import pytest

from tests.doctor.hosts import host
from tests.doctor.test_advice import rates, road
from tests.doctor.test_checks import BAD
from viamillipede.doctor import check
from viamillipede.doctor.advice import recommend
from viamillipede.doctor.finding import Finding, Keep, State
from viamillipede.doctor.host import Host
from viamillipede.doctor.report import COLUMNS, as_json, host_text, peer_as_json, peer_text
from viamillipede.doctor.words import format_bits, plural

COLOUR = re.compile("\033\\[[0-9;]*m")


def narrow(text: str) -> str:
    """The text, of which no line is too wide."""
    assert max(map(len, COLOUR.sub("", text).splitlines())) <= COLUMNS, text
    return text


def test_a_host_that_is_fine_has_a_line_for_each_check_and_no_advice(tmp_path: Path) -> None:
    text = narrow(host_text(check(host(tmp_path)), colour=False))
    assert text.endswith("\nNothing that could be read limits a transfer here.\n")
    assert "to keep them" not in text and "Cannot be told" not in text and "\033" not in text
    assert re.search(r"^  ok    pipe size +1.0 MiB: ", text, re.MULTILINE)


@pytest.mark.parametrize("case", BAD, ids=lambda case: f"{case.check.__name__}-{case.value}")
def test_what_limits_stands_above_its_commands(tmp_path: Path, case: object) -> None:
    made = host(tmp_path, case.changes, **case.questions)  # type: ignore[attr-defined]
    text = narrow(host_text(check(made), colour=False))
    mend, kept = case.mend, case.kept  # type: ignore[attr-defined]
    assert f"          {mend}\n" in text if mend else True
    assert text.count(f"    {kept}\n") == 1 if kept else "to keep them" not in text
    label = {State.LIMITS: "LIMIT", State.NOTE: "note"}[case.state]  # type: ignore[attr-defined]
    assert re.search(rf"^  {label} ", text, re.MULTILINE)


def test_a_host_that_tells_nothing_is_one_paragraph(tmp_path: Path) -> None:
    empty = Host(tmp_path, "darwin", 4096, lambda: None, lambda: True, lambda name: None)
    text = narrow(host_text(check(empty), colour=False))
    assert "Cannot be told here\n  processors (" in text
    assert text.endswith("No limit here, and 1 note for some networks and streams.\n")


def test_lines_for_one_file_stand_together_and_once() -> None:
    def limit(name: str, *lines: str) -> Finding:
        return Finding(name, "1", State.LIMITS, "why", ("do",), tuple(Keep("/etc/file", line) for line in lines))

    text = host_text([("One", [limit("a", "x", "y")]), ("Two", [limit("b", "x")])], colour=False)
    assert "to keep them\n  /etc/file:\n    x\n    y\n\n2 limits here.\n" in text


def test_colours_change_nothing_else(tmp_path: Path) -> None:
    sections = check(host(tmp_path, {"/proc/sys/net/ipv4/tcp_sack": "0", "/proc/sys/net/core/somaxconn": "5"}))
    plain, coloured = (host_text(sections, colour) for colour in (False, True))
    assert COLOUR.sub("", coloured) == plain != coloured
    assert "\033[1;31mLIMIT\033[0m selective acks" in coloured


def test_the_peer_has_facts_a_table_and_advice() -> None:
    measured = road(rates(2, 4, 8, 16, 33, lost_share=0.012), interface_mbit=0)
    text = narrow(peer_text(measured, recommend(measured), colour=False))
    assert text.startswith("The way to host:8834\n  round trip          100.0 ms, median 101.0 ms of 2 connects\n")
    assert "eth0, MTU 1500, its speed unknown" in text
    assert re.search(r"^    16 +3.9 MiB/s +33 Mbit/s +1.20 % +100.0 ms   the network$", text, re.MULTILINE)
    assert "\nRecommended\n  - threads auto, the default, or threads 32 or more" in text
    assert "\n  - congestion bbr on tx" in text


def test_what_is_unknown_of_the_peer_is_called_so() -> None:
    steps = rates(2, lost_share=None, rtt_us=0)
    measured = road(
        steps, connects_us=(), mss=0, path_mtu=0, interface="", interface_mtu=0, interface_mbit=0, congestion=""
    )
    text = narrow(peer_text(measured, recommend(measured), colour=False))
    assert text.count("unknown") == 7


def test_json_says_the_same(tmp_path: Path) -> None:
    sections = check(host(tmp_path, {"/proc/sys/net/ipv4/tcp_sack": "0", "/proc/meminfo": None}))
    measured = road(rates(2, 4))
    text = as_json(sections, peer_as_json(measured, recommend(measured)))
    assert text.count("\n") == 1
    told = json.loads(text)
    assert [each["name"] for each in told["checks"] if each["state"] == "unknown"] == ["free memory"]
    (limit,) = (each for each in told["checks"] if each["state"] == "limits")
    assert limit["section"] == "TCP" and limit["mend"] == ["sysctl -w net.ipv4.tcp_sack=1"]
    assert limit["keep"] == [{"where": "/etc/sysctl.d/90-viamillipede.conf", "line": "net.ipv4.tcp_sack = 1"}]
    assert [(each["legs"], each["rate"]) for each in told["peer"]["steps"]] == [(1, 250_000), (2, 500_000)]
    assert told["peer"]["advice"][0]["text"].startswith("threads auto")
    assert json.loads(as_json(sections, None))["peer"] is None


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0, "0 bit/s"), (12, "96 bit/s"), (125_000, "1 Mbit/s"), (21_000_000, "168 Mbit/s"), (1.34e9, "10.7 Gbit/s")],
)
def test_rates_in_bits(rate: float, text: str) -> None:
    assert format_bits(rate) == text


def test_plurals() -> None:
    assert [plural(1, "leg"), plural(2, "leg"), plural(0, "path")] == ["1 leg", "2 legs", "0 paths"]
