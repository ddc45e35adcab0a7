"""What a person is told: a wrong outcome with all that is known of it, and the summary at the end."""

import time
from collections import Counter
from typing import Any

UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
GROUPS = (("run", "runs"), ("fault", "faults"), ("outcome", "outcomes"), ("source", "sources"), ("sink", "sinks"),
          ("dials", "who dials"))  # fmt: skip


def spell_bytes(count: int) -> str:
    """`1.5 GiB`."""
    for size, unit in UNITS:
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def failure(answer: dict[str, Any], again: str) -> str:
    """A wrong outcome, in full; `again`: the command that does it once more."""
    seed = answer["seed"]
    parts = [f"WRONG OUTCOME, seed {seed}", *(f"  {line}" for line in answer["wrong"])]
    parts += ["", "the plan:", *(f"  {line}" for line in answer.get("plan", ()))]
    parts += ["", "what happened:", *(f"  {line}" for line in answer.get("story", ()))]
    parts += ["", f"ended with {answer.get('ended')}; {answer.get('bytes')}"]
    for role, lines in answer.get("said", {}).items():
        parts += ["", f"standard error of {role}:", *(f"  {line}" for line in lines)]
    return "\n".join([*parts, "", f"logs: {answer.get('folder')}", f"again: {again}"])


class Tally:
    """What all runs add up to."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.runs = self.wrong = 0
        self.began_s = time.monotonic()
        self.seeds: list[int] = []

    def add(self, answer: dict[str, Any]) -> None:
        """One run more."""
        self.runs += 1
        self.wrong += bool(answer["wrong"])
        self.counts.update(answer["counts"])
        self.seeds.append(answer["seed"])

    def line(self) -> str:
        """How far it is."""
        minutes = (time.monotonic() - self.began_s) / 60
        faults = sum(number for what, number in self.counts.items() if what.startswith("fault: "))
        moved = spell_bytes(self.counts["bytes"])
        return f"{minutes:6.1f} min  {self.runs} runs, {faults} faults, {moved}, {self.wrong} wrong"

    def summary(self, versions: str, jobs: int, missing: dict[str, str]) -> str:
        """All of it."""
        minutes = (time.monotonic() - self.began_s) / 60
        faults = sum(number for what, number in self.counts.items() if what.startswith("fault: "))
        seeds = f", seeds {min(self.seeds)} to {max(self.seeds)}" if self.seeds else ""
        lines = [
            f"scripts/torture on {time.strftime('%Y-%m-%d')}: {minutes:.1f} minutes, {jobs} at a time{seeds}",
            versions,
            f"{self.runs} runs with {faults} faults from outside, {spell_bytes(self.counts['bytes'])} delivered, "
            f"{self.wrong} wrong outcomes",
        ]
        for prefix, name in GROUPS:
            found = {what.partition(": ")[2]: n for what, n in self.counts.items() if what.startswith(f"{prefix}: ")}
            told = ", ".join(f"{what} {n}" for what, n in sorted(found.items(), key=lambda item: (-item[1], item[0])))
            lines.append(f"{name}: {told or 'none'}")
        lines.append(f"legs broken by chaos in {self.counts['word: chaos']} runs; "
                     f"{self.counts['fault, too late']} faults came after the end")  # fmt: skip
        lines += [f"not tried: {name}: {why}" for name, why in missing.items()]
        return "\n".join(lines)
