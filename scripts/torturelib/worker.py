"""A worker: a process of its own that does one run after another, seeds in, results out, a line each.

It is the parent of everything that a run starts, at last also of orphans. When its input ends it ends what it has
begun, so nothing outlives the crew, however that ends.
"""

import asyncio
import dataclasses
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from .draw import Abilities, draw
from .oracle import counts_as_race, judge, spell
from .plan import Kind, Plan
from .run import Run
from .side import adopt_orphans, reap_orphans

TOLD_LINES = 60  # of a standard error, in a report; the rest is in the folder


def _write(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _tally(plan: Plan, run: Run, pair: str) -> dict[str, int]:
    """What this run adds to the summary."""
    counts: Counter[str] = Counter()
    for what, number in run.counts.items():
        counts[f"fault: {what}"] += number
    counts["fault, too late"] += len(run.result.late)
    counts[f"outcome: {pair}"] += 1
    kind = plan.kind.value if plan.kind is not Kind.TRANSFER else "race" if counts_as_race(plan) else "transfer"
    counts[f"run: {kind}"] += 1
    if plan.kind is Kind.TRANSFER:
        counts[f"source: {plan.source.kind}"] += 1
        counts[f"sink: {plan.sink.kind}"] += 1
        counts[f"dials: {plan.dials}"] += 1
        counts["bytes"] += run.result.arrived
        counts["word: chaos"] += "chaos" in plan.tx_words
    return +counts


async def one(seed: int, can: Abilities, program: list[str], base: Path, verbose: bool) -> dict[str, Any]:
    """Run a seed. The answer: what was wrong, what there is to tell, and the tally."""
    plan = draw(seed, can)
    folder = base / f"seed-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run = Run(plan, can, program, folder, (lambda text: _write({"story": text})) if verbose else lambda text: None)
    try:
        result = await run.perform()
        wrong = judge(plan, result)
    except Exception:  # ours, not the program's; it must be looked at all the same
        result, wrong = run.result, [f"the torture itself failed:\n{traceback.format_exc()}"]
    answer: dict[str, Any] = {
        "seed": seed,
        "wrong": wrong,
        "seconds": time.monotonic() - run.began,
        "counts": _tally(plan, run, spell(result.pair)),
    }
    if wrong or verbose:
        answer |= {"plan": plan.describe(), "story": run.story, "folder": str(folder), "ended": spell(result.pair)}
        answer["bytes"] = f"{result.fed} fed, {result.arrived} of {plan.size} arrived"
        answer["said"] = {
            role: ended.said.splitlines()[-TOLD_LINES:]
            for role, ended in (("tx", result.tx), ("rx", result.rx))
            if ended is not None
        }
    if wrong:
        (folder / "story").write_text("\n".join([*wrong, "", *plan.describe(), "", *run.story]) + "\n")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return answer


class _Input:
    """Lines from the crew."""

    def __init__(self) -> None:
        self._rest = b""
        self.lines: asyncio.Queue[str | None] = asyncio.Queue()
        self.over = asyncio.Event()
        asyncio.get_running_loop().add_reader(0, self._read)

    def _read(self) -> None:
        data = os.read(0, 1 << 16)
        if not data:
            self.end()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self.lines.put_nowait(line.decode())

    def end(self) -> None:
        """No more."""
        asyncio.get_running_loop().remove_reader(0)
        self.over.set()
        self.lines.put_nowait(None)


async def _work(can: Abilities, program: list[str], base: Path, verbose: bool) -> None:
    orders = _Input()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, orders.end)
    asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, reap_orphans)
    while (line := await orders.lines.get()) is not None:
        run = asyncio.create_task(one(int(line), can, program, base, verbose))
        over = asyncio.create_task(orders.over.wait())
        await asyncio.wait({run, over}, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        if not run.done():
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
            return
        _write(run.result())


def main(order: str) -> None:
    """`order`: JSON, from `order_for`."""
    settings = json.loads(order)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the crew starts us with some of them held, and ours inherit that
    adopt_orphans()
    can = Abilities(**settings["can"] | {"congestions": tuple(settings["can"]["congestions"])})
    asyncio.run(_work(can, settings["program"], Path(settings["base"]), settings["verbose"]))


def order_for(can: Abilities, program: list[str], base: Path, verbose: bool) -> str:
    """What a worker is told when it is started."""
    settings = {"can": dataclasses.asdict(can), "program": program, "base": str(base), "verbose": verbose}
    return json.dumps(settings)
