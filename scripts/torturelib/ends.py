"""What stands at the two ends of a run: the source's and the sink's descriptors, files and commands."""

import asyncio
import contextlib
import fcntl
import os
import subprocess
import sys
from pathlib import Path

from . import flow
from .content import Content
from .flow import Flow
from .oracle import Result
from .plan import HELD_BYTES, Plan, Sink
from .side import run_quietly

# head(1) keeps back what does not fill its buffer.
HEAD = "import os,sys\nn=int(sys.argv[1])\nwhile n and (d:=os.read(0,min(n,65536))): n-=os.write(1,d)"
HELPER = "sleep 1000 & h=$!"  # nobody may forget it when the command is ended
BEFORE = b"what was there before\n"  # in a file that rx appends to


def _script(steps: list[str]) -> str:
    """What sh does, step by step."""
    return "\n".join(steps)


class Ends:
    """Gives tx its input and rx its output, and moves the bytes. To be opened, and closed in any case."""

    def __init__(self, plan: Plan, folder: Path, content: Content, stream: Flow) -> None:
        self.plan, self.folder, self.content, self.flow = plan, folder, content, stream
        self.ended = False  # both sides have ended
        self.stdin = self.stdout = subprocess.DEVNULL
        self._open: list[int] = []  # ours, to be closed when both sides were started
        self._tasks: list[asyncio.Task[None]] = []
        self._reading: asyncio.Task[None] | None = None
        self._last_writer = -1  # of a named pipe: without one its reader would see an end before the beginning
        self._mounted = False
        self._file = folder / "disk" / "out" if plan.sink.kind == "full" else folder / "out"

    # ---- commands -------------------------------------------------------------------------------
    @property
    def source_pipe(self) -> Path:
        """The named pipe that the source's command reads."""
        return self.folder / "source"

    @property
    def sink_pipe(self) -> Path:
        """The named pipe that the sink's command writes."""
        return self.folder / "sink"

    def source_command(self) -> list[str]:
        """The words behind tx's; none: it reads its standard input."""
        source = self.plan.source
        if source.kind != "command":
            return []
        fault = self.plan.fatal
        status = fault.number if fault is not None and fault.kind == "source fails" else 0
        steps = ['trap "" TERM'] * source.stubborn + [HELPER] * source.helper + ['cat "$0"']
        steps += ["kill -s KILL $h"] * source.helper
        steps += [f"exec >&-; sleep {source.linger_s:.3f}"] * bool(source.linger_s)
        return ["--", "sh", "-c", _script([*steps, f"exit {status}"]), str(self.source_pipe)]

    def sink_command(self) -> list[str]:
        """The words behind rx's; none: it writes to its standard output."""
        sink, fault = self.plan.sink, self.plan.fatal
        if sink.kind != "command":
            return []
        fails = fault if fault is not None and fault.kind == "sink fails" else None
        some = fails is not None and fails.at < self.plan.size
        read = f'"$1" -ISc "$2" {fails.at} > "$0"' if fails and some else 'cat > "$0"'
        steps = ['trap "" TERM'] * sink.stubborn + [HELPER] * sink.helper + [f"{read} || exit"]
        steps += ["kill -s KILL $h"] * sink.helper
        steps += [f"exec <&-; sleep {sink.linger_s:.3f}"] * bool(sink.linger_s)
        steps += [f"exit {fails.number}"] if fails else [': > "$0.clean"']
        return ["--", "sh", "-c", _script(steps), str(self.sink_pipe), *([sys.executable, HEAD] if some else [])]

    # ---- before ---------------------------------------------------------------------------------
    async def open(self) -> None:
        """Make what both sides are to be given."""
        source, sink = self.plan.source, self.plan.sink
        if source.kind == "command":
            os.mkfifo(self.source_pipe)
            self._tasks.append(asyncio.create_task(self._feed_command()))
        elif source.kind == "file":
            with (self.folder / "in").open("wb") as file:
                for piece in self.content.pieces(0, self.plan.size):
                    file.write(piece)
            self.stdin = self._keep(os.open(self.folder / "in", os.O_RDONLY | os.O_CLOEXEC))
        else:
            reader, writer = os.pipe()
            self.stdin = self._keep(reader)
            self._feed(writer)
        if sink.kind == "command":
            os.mkfifo(self.sink_pipe)
            reader = os.open(self.sink_pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if any(fault.hold == "read" for fault in self.plan.faults):
                fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, HELD_BYTES)
            self._read(reader, sink)
            self._last_writer = os.open(self.sink_pipe, os.O_WRONLY | os.O_CLOEXEC)
        elif sink.kind == "pipe":
            reader, writer = os.pipe()
            self.stdout = self._keep(writer)
            self._read(reader, sink)
        elif sink.kind == "/dev/full":
            self.stdout = self._keep(os.open(sink.kind, os.O_WRONLY | os.O_CLOEXEC))
        else:
            await self._open_file(sink)

    async def _open_file(self, sink: Sink) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        before = b""
        if sink.kind == "full":
            disk = self._file.parent
            disk.mkdir()
            size = f"size={sink.capacity}"
            status, said = await run_quietly(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(disk)])
            if status:
                raise RuntimeError(f"cannot mount a small file system: {said.strip()}")
            self._mounted = True
        elif sink.kind == "append":
            before = BEFORE
            self._file.write_bytes(before)
            flags |= os.O_APPEND
        self.stdout = self._keep(os.open(self._file, flags, 0o600))
        self._tasks.append(asyncio.create_task(flow.watch(self._file, len(before), self.flow)))

    def _keep(self, fd: int) -> int:
        self._open.append(fd)
        return fd

    def _feed(self, fd: int) -> None:
        plan = self.plan
        self._tasks.append(asyncio.create_task(flow.feed(fd, self.content, plan.size, plan.source.pace, self.flow)))

    async def _feed_command(self) -> None:
        fd = await flow.open_for_writing(self.source_pipe, lambda: self.ended)
        if fd is not None:
            await flow.feed(fd, self.content, self.plan.size, self.plan.source.pace, self.flow)

    def _read(self, fd: int, sink: Sink) -> None:
        self._reading = asyncio.create_task(flow.drain(fd, self.content, sink, self.flow))

    def started(self) -> None:
        """Both sides have what they were given; without ours they see each other's ends. Idempotent."""
        while self._open:
            os.close(self._open.pop())

    # ---- afterwards -----------------------------------------------------------------------------
    def let_go(self) -> None:
        """rx has ended: only a process of its can still write into a named pipe. Idempotent."""
        if self._last_writer >= 0:
            os.close(self._last_writer)
            self._last_writer = -1

    async def settle(self, patience_s: float, result: Result) -> None:
        """Both sides have ended: take what there still is, and see how it came out."""
        self.ended = True
        self.let_go()
        self.flow.read_limit = 1 << 62
        self.flow.tell()
        if self._reading is not None:
            done, _ = await asyncio.wait({self._reading}, timeout=patience_s)
            if not done:
                result.wrong.append("both sides have ended, and somebody still holds the output open")
            elif (error := self._reading.exception()) is not None:
                raise error
        await self._cancel()
        if self.plan.sink.kind in ("file", "append", "full"):
            flow.read_file(self._file, BEFORE if self.plan.sink.kind == "append" else b"", self.content, self.flow)
        fault = self.plan.fatal
        if self.plan.sink.kind == "command" and not (fault and fault.kind == "sink fails"):
            result.clean = os.access(f"{self.sink_pipe}.clean", os.F_OK)
        result.fed, result.arrived, result.differs = self.flow.fed, self.flow.arrived, self.flow.differs

    async def _cancel(self) -> None:
        """End what moves bytes; what went wrong there, and was not expected, is raised."""
        tasks = [*self._tasks, *([self._reading] if self._reading else [])]
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def close(self) -> None:
        """Give everything back. Idempotent."""
        self.started()
        self.let_go()
        with contextlib.suppress(OSError):  # `settle` has raised it, if it came so far
            await self._cancel()
        if self._mounted:
            self._mounted = False
            status, said = await run_quietly(["umount", "-l", str(self._file.parent)])
            if status:
                raise RuntimeError(f"cannot unmount: {said.strip()}")
