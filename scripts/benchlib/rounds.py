"""Many runs: every contender once, then every contender again, so that a drifting machine hurts all alike."""

import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from .contenders import Contender
from .pipeline import Run, Source
from .processes import RunFailed, Side

GB = 1e9
MIB = 1 << 20
RANDOM_FILE_BYTES_MAX = 256 * MIB  # more than a cache holds; longer streams repeat it
TIMEOUT_START_S = 30.0
TIMEOUT_BYTES_PER_S = 50e6  # slower than this is not worth waiting for
HOPELESS_FAILURES = 2  # who has failed this often and never succeeded is not started again


@dataclass(frozen=True, slots=True)
class Summary:
    """The median of some runs and the extremes around it."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Summary":
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Job:
    """What is run once per round. `section` keeps groups apart that are compared among themselves only."""

    section: str
    contender: Contender
    source: Source

    @property
    def timeout_s(self) -> float:
        """How long one run may take."""
        return TIMEOUT_START_S + self.source.total_bytes / TIMEOUT_BYTES_PER_S


@dataclass(slots=True)
class Measurement:
    """What came of a job. One failure spoils it: there is no figure of a contender that loses streams."""

    job: Job
    runs: list[Run] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether it ran, and never failed."""
        return bool(self.runs) and not self.failures

    @property
    def hopeless(self) -> bool:
        """Whether another attempt would only cost time."""
        return not self.runs and len(self.failures) >= HOPELESS_FAILURES

    def gb_per_s(self) -> Summary | None:
        """Throughput in 1e9 bytes per second."""
        return self._summary(lambda run: run.gb_per_s)

    def seconds(self) -> Summary | None:
        """Duration, or time to the first byte."""
        return self._summary(lambda run: run.seconds)

    def cpu_s_per_gb(self, *sides: str) -> Summary | None:
        """CPU seconds per 1e9 bytes of `tx`, `rx`, or the sum of both."""
        return self._summary(lambda run: sum(_side(run, side).cpu_s for side in sides) / (run.total_bytes / GB), sides)

    def peak_mib(self, side: str) -> float | None:
        """The most memory that `tx` or `rx` took in any run, in MiB."""
        peak = self._summary(lambda run: _side(run, side).peak_bytes / MIB, (side,))
        return peak.most if peak else None

    def _summary(self, figure: Callable[[Run], float], sides: Sequence[str] = ()) -> Summary | None:
        if not self.good or any(getattr(run, side) is None for run in self.runs for side in sides):
            return None
        return Summary.of([figure(run) for run in self.runs])


def _side(run: Run, name: str) -> Side:
    side: Side = getattr(run, name)
    return side


def interleave(
    jobs: Sequence[Job], rounds: int, run_once: Callable[[Job], Run], say: Callable[[str], None]
) -> list[Measurement]:
    """Run all jobs `rounds` times in turn. Failures are kept, not raised; `say` is told what goes on."""
    measured = [Measurement(job) for job in jobs]
    for number in range(1, rounds + 1):
        for one in measured:
            if one.hopeless:
                continue
            what = f"{one.job.section} {number}/{rounds} {one.job.source.data} {one.job.contender.name}"
            try:
                run = run_once(one.job)
            except RunFailed as failure:
                one.failures.append(str(failure))
                say(f"{what}: FAILED, {failure}" + ("; it is not tried again" if one.hopeless else ""))
            else:
                one.runs.append(run)
                say(f"{what}: {run.seconds:.3f} s")
    return measured


def whole_bytes(gib: float) -> int:
    """Bytes in so many GiB; rounded up to a whole number of random files where one is repeated."""
    total = max(1, round(gib * 1024 * MIB))
    return total if total <= RANDOM_FILE_BYTES_MAX else -(-total // RANDOM_FILE_BYTES_MAX) * RANDOM_FILE_BYTES_MAX


def zeros(total_bytes: int) -> Source:
    """A source that costs little: zeros from the kernel."""
    return Source("zeros", ("head", "-c", str(total_bytes), "/dev/zero"), total_bytes)


@contextmanager
def random_file() -> Iterator[Callable[[int], Source]]:
    """Makes sources of random bytes, read from one file in memory that has no name and goes with us."""
    fd = os.memfd_create("bench-random")
    try:
        path = f"/proc/{os.getpid()}/fd/{fd}"
        size = 0

        def source(total_bytes: int) -> Source:
            nonlocal size
            if total_bytes <= RANDOM_FILE_BYTES_MAX:
                _fill(fd, size, total_bytes)
                size = max(size, total_bytes)
                return Source("random", ("head", "-c", str(total_bytes), path), total_bytes)
            assert total_bytes % RANDOM_FILE_BYTES_MAX == 0
            _fill(fd, size, RANDOM_FILE_BYTES_MAX)
            size = RANDOM_FILE_BYTES_MAX
            return Source("random", ("cat", *[path] * (total_bytes // RANDOM_FILE_BYTES_MAX)), total_bytes)

        yield source
    finally:
        os.close(fd)


def _fill(fd: int, size: int, wanted: int) -> None:
    while size < wanted:
        size += os.pwrite(fd, os.urandom(min(MIB, wanted - size)), size)
