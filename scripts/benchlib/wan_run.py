"""One run of one contender over emulated links: the network, the processes, what happens meanwhile, what came of it.

    source --pipe--> tx ==links== rx --pipe--> check

The clock runs from the start of tx until tx and rx have both exited. The last stage compares every byte with what
was sent, and the run failed unless they are the same. iperf3 sends bytes of its own; it stops when all are handed
to the kernel, and does not count what is on its way then: its time is a little too short, its goodput is not.
"""

import json
import re
import select
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.netlab import Lab

from . import wan_pipe
from .contenders import OURS, Contender, Shape
from .pipeline import Run, Source
from .processes import LISTEN_TIMEOUT_S, Crew, NotListening, RunFailed, Stage, new_crew, pipe
from .rounds import MIB
from .wan_scenarios import MBUFFER, MPTCP, NC, Event, Scenario

PORT, PROXY_PORT = 8834, 8835  # nobody else is in the namespaces
LISTEN_POLL_S = 0.01
SAMPLE_S = 0.05
WINDOW_S = 0.5  # over which a rate is measured
FULL = 0.9  # of what is expected: the link, or the source, is served again
RECEIVED_MIN = 0.5  # of what iperf3 was told to send; the rest was on its way at the end
HELPER = (sys.executable, "-S", str(Path(wan_pipe.__file__)))

_NAMES = re.compile(r"ours(-[1-9]\d*(-first)?)?|nc|mbuffer|mptcp|iperf3-[1-9]\d*")

Samples = list[tuple[float, tuple[int, ...]]]  # seconds since the start of tx, bytes so far on each link


@dataclass(frozen=True, slots=True)
class WanRun(Run):
    """A run with what the links have carried. `figures`: what the targets ask for, by name."""

    figures: tuple[tuple[str, float], ...] = ()
    link_bytes: tuple[int, ...] = ()
    late_us: float = 0.0

    def figure(self, name: str) -> float | None:
        """One of the figures; None if there is none of that name."""
        return self.seconds if name == "seconds" else dict(self.figures).get(name)


def is_contender(name: str) -> bool:
    """Whether `contender` knows this name."""
    return _NAMES.fullmatch(name) is not None


def contender(name: str, scenario: Scenario) -> Contender:
    """The commands of a contender over the links of a scenario."""
    addresses = [f"10.88.{number}.2" for number in range(len(scenario.links))]
    dialled = str(PROXY_PORT if scenario.proxy else PORT)
    kind, _, number = name.removesuffix("-first").partition("-")
    first, port = addresses[0], "{port}"
    match kind:
        case "ours":
            program = (sys.executable, "-m", OURS)
            told = addresses[:1] if name in scenario.first_only else addresses
            places = [word for address in told for word in ("tx", address, dialled)]
            threads = ("threads", number) if number else ()
            legs = int(number) if number else None
            return Contender(name, (*program, "rx", port), (*program, *places, *threads), legs=legs)
        case "nc":
            return Contender(name, ("nc", "-l", port), ("nc", "-N", first, dialled))
        case "mbuffer":
            mbuffer = ("mbuffer", "-q", "-s", "1M", "-m", "16M")
            return Contender(name, (*mbuffer, "-I", port), (*mbuffer, "-O", f"{first}:{dialled}"))
        case "mptcp":
            return Contender(name, (*HELPER, "mptcp-rx", port), (*HELPER, "mptcp-tx", first, dialled))
        case "iperf3":
            server = ("iperf3", "-s", "-1", "-4", "-p", port)
            client = ("iperf3", "-c", first, "-p", dialled, "-J", "-P", number, "-n", str(scenario.total_bytes))
            return Contender(name, server, client, Shape.IPERF3)
    raise AssertionError(f"no contender is called {name}")


def program_of(name: str) -> str:
    """The program that a contender needs, empty if it comes with this one."""
    return {NC: "nc", MBUFFER: "mbuffer", "iperf3": "iperf3"}.get(name.partition("-")[0], "")


def run(scenario: Scenario, one: Contender, source: Source, seed: int) -> WanRun:
    """Make the network, move the stream once. Raises RunFailed."""
    with Lab(scenario.links, seed, scenario.congestion) as lab, new_crew() as crew:
        if one.name == MPTCP:
            lab.enable_mptcp()
        if scenario.proxy:
            _start_proxy(lab, scenario)
        with tempfile.TemporaryFile() as answer:
            rx = _start_rx(lab, crew, one, source)
            samples: Samples = []
            begin = time.perf_counter()
            tx = _start_tx(lab, crew, one, scenario, source, answer.fileno())
            with _meanwhile(lab, scenario, begin, samples):
                crew.wait(scenario.timeout_s)
            assert tx.exit_at is not None and rx.exit_at is not None
            seconds = max(tx.exit_at, rx.exit_at) - begin
            total = source.total_bytes
            if one.shape is Shape.IPERF3:
                answer.seek(0)
                total = _received(json.load(answer), source.total_bytes)
        samples.append((seconds, _carried(lab)))
        peak_mib = max(tx.side.peak_bytes, rx.side.peak_bytes) / MIB
        figures = tuple(_figures(scenario, seconds, total, samples, peak_mib).items())
        return WanRun(seconds, total, tx.side, rx.side, figures, samples[-1][1], lab.late_us()[0])


def _start_proxy(lab: Lab, scenario: Scenario) -> None:
    caps = scenario.proxy
    assert caps is not None
    words = ["--listen", f"{lab.links[0].right}:{PROXY_PORT}", "--to", f"127.0.0.1:{PORT}"]
    words += ["--connection", str(caps.connection), "--line", str(caps.line)]
    words += ["--slow-every", str(caps.slow_every), "--slow", str(caps.slow)]
    proxy = lab.right.popen([sys.executable, "-m", "tests.netlab.throttle", *words], stdout=subprocess.PIPE)
    assert proxy.stdout is not None
    if not proxy.stdout.readline():
        raise RunFailed("the proxy did not start")


def _start_rx(lab: Lab, crew: Crew, one: Contender, source: Source) -> Stage:
    command = lab.right.command(one.commands(PORT)[0])
    if one.shape is Shape.IPERF3:
        rx = crew.start("rx", command, subprocess.DEVNULL, subprocess.DEVNULL)
    else:
        with pipe() as (reads, writes):
            crew.start("check", [*HELPER, "check", source.argv[-2]], reads, subprocess.DEVNULL)
            rx = crew.start("rx", command, subprocess.DEVNULL, writes)
    deadline = time.perf_counter() + LISTEN_TIMEOUT_S
    ended = select.poll()
    ended.register(rx.pidfd, select.POLLIN)
    while PORT not in lab.right.listening():
        if ended.poll(LISTEN_POLL_S * 1000):
            rx.reap()
            raise NotListening(f"{rx.failure()}, before it listened")
        if time.perf_counter() > deadline:
            raise RunFailed(f"rx did not listen within {LISTEN_TIMEOUT_S:.0f} s")
    return rx


def _start_tx(lab: Lab, crew: Crew, one: Contender, scenario: Scenario, source: Source, answer: int) -> Stage:
    command = lab.left.command(one.commands(PORT)[1])
    if one.shape is Shape.IPERF3:
        return crew.start("tx", command, subprocess.DEVNULL, answer)
    with pipe() as (reads, writes):
        crew.start("source", source.argv, subprocess.DEVNULL, writes)
        return crew.start("tx", command, reads, subprocess.DEVNULL)


def _carried(lab: Lab) -> tuple[int, ...]:
    return tuple(link.counters().bytes for link in lab.links)


@contextmanager
def _meanwhile(lab: Lab, scenario: Scenario, begin: float, samples: Samples) -> Iterator[None]:
    """Let the events happen, each at its time, and look at the counters, until the end of the block."""
    over = threading.Event()

    def happen() -> None:
        events = list(scenario.events)
        while not over.is_set():
            now = time.perf_counter() - begin
            while events and events[0].at_s <= now:
                _happen(lab, events.pop(0))
            samples.append((now, _carried(lab)))
            until_s = min(SAMPLE_S, events[0].at_s - now) if events else SAMPLE_S
            over.wait(max(0.0, until_s))

    with ThreadPoolExecutor(1) as executor:
        happening = executor.submit(happen)
        try:
            yield
        finally:
            over.set()
            happening.result()


def _happen(lab: Lab, event: Event) -> None:
    link = lab.links[event.link]
    if event.rate_mbit is not None:
        link.set(rate_mbit=event.rate_mbit)
    if event.up is not None:
        link.up() if event.up else link.down()


def _received(answer: dict[str, Any], wanted: int) -> int:
    """What iperf3's server says it has got. Raises RunFailed if that is far from what was sent."""
    received = int(answer["end"]["sum_received"]["bytes"])
    if received < RECEIVED_MIN * wanted:
        raise RunFailed(f"iperf3 received {received} of {wanted} bytes")
    return received


# ---- what came of it ---------------------------------------------------------------------------------------


def _figures(
    scenario: Scenario, seconds: float, total_bytes: int, samples: Samples, peak_mib: float
) -> dict[str, float]:
    """By the names that targets use; share and carried are parts of 1."""
    links = samples[-1][1]
    possible = scenario.ceiling * seconds if scenario.ceiling else scenario.carried_until(seconds)
    figures = {
        "share": scenario.ideal_s / seconds,
        "beyond_s": seconds - scenario.ideal_s,
        "carried": total_bytes / possible,
        "first_share": links[0] / max(1, sum(links)),
        "peak_mib": peak_mib,
    }
    changes = [event for event in scenario.events if event.rate_mbit is not None]
    if scenario.source_mbit and len(changes) == 2:
        figures |= recovery(samples, changes[0].at_s, changes[1].at_s, scenario.source_mbit * 125_000)
    return figures


def recovery(samples: Samples, throttled_s: float, restored_s: float, source_rate: float) -> dict[str, float]:
    """Seconds until all links together carry the source again, and until the first one carries it alone again.

    What does not happen before the next event, or the end, is left out.
    """
    times = [at for at, _ in samples]

    def grown(at: float) -> tuple[list[int], float] | None:
        first, last = bisect_left(times, at), bisect_left(times, at + WINDOW_S)
        if last >= len(samples) or last == first:
            return None
        growth = [after - before for before, after in zip(samples[first][1], samples[last][1], strict=True)]
        return growth, times[last] - times[first]

    def waited(since: float, until: float, is_served: Callable[[list[int], float], bool]) -> float | None:
        for at in times[bisect_left(times, since) : bisect_left(times, until - WINDOW_S)]:
            window = grown(at)
            if window is not None and is_served(*window):
                return at - since
        return None

    found = {
        "spill_s": waited(throttled_s, restored_s, lambda links, took_s: sum(links) >= FULL * source_rate * took_s),
        "return_s": waited(restored_s, times[-1], lambda links, _: links[0] >= FULL * sum(links) > 0),
    }
    return {name: value for name, value in found.items() if value is not None}
