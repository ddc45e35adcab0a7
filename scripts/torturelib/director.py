"""Does to a run what its plan says, at the bytes that it says, and holds both ends back until it is done."""

import asyncio
import contextlib
import os
import random
import signal
import socket
import struct
from typing import TYPE_CHECKING

from .oracle import SIGNALLED
from .plan import FATAL, NEVER, Fault, Kind
from .side import Side, children, command_line, run_quietly

if TYPE_CHECKING:
    from .run import Run

NUMBERS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT, "hup": signal.SIGHUP}
CROWD = 40
DUMP_PAUSE_S = 0.02


class Director:
    """The faults of a run, one after the other."""

    def __init__(self, run: "Run") -> None:
        self.run, self.plan, self.flow = run, run.plan, run.flow
        self._dice = random.Random(f"director {self.plan.seed}")
        self._pending = list(self.plan.faults)
        self._hold()

    def _hold(self) -> None:
        """How far both ends may go now."""
        held = [fault for fault in self._pending if fault.hold == "feed"]
        read = [fault.at for fault in self._pending if fault.hold == "read"]
        self.flow.feed_limit = min((fault.gate for fault in held), default=NEVER)
        self.flow.may_end = not held
        self.flow.read_limit = min(read, default=NEVER)
        self.flow.tell()

    async def direct(self) -> None:
        """Until all is done, or nothing can be done any more. Raises what we have done wrong."""
        while self._pending:
            fault = self._pending[0]
            if fault.hold != "self":
                await self._moment(fault)
                if self._over():
                    self.run.result.late.append(fault)
                    self.run.note(f"too late: {fault}")
                else:
                    self.run.note(str(fault))
                    await self._strike(fault)
                    self.run.counts[f"{fault.kind} {fault.who}".strip()] += 1
                    if fault.kind in FATAL and fault.hold != "race":  # else the end might overtake it
                        await self.flow.until(self._over)
            else:
                self.run.counts[fault.kind] += 1
            self._pending.pop(0)
            self._hold()

    def _over(self) -> bool:
        return not all(side.living for side in self.run.sides.values())

    async def _moment(self, fault: Fault) -> None:
        """Wait until the fault is due, or a process has ended."""
        if self.plan.kind is not Kind.TRANSFER:
            for side in self.run.sides.values():
                await side.hear("listening on port|no (transmitter|receiver) yet")
        elif fault.at == 0:
            for side in self.run.sides.values():
                await side.hear("first contact")
        elif fault.kind == "source fails":
            await self.flow.until(lambda: self.flow.fed >= fault.at or self._over())
        else:
            await self.flow.until(lambda: self.flow.arrived >= fault.at or self._over())
        if fault.delay_s and not self._over():
            await asyncio.sleep(fault.delay_s)

    async def _strike(self, fault: Fault) -> None:
        side = self.run.sides.get(fault.who)
        if fault.kind in NUMBERS:
            assert side is not None and (fault.kind == "kill" or fault.kind in SIGNALLED)
            side.signal(NUMBERS[fault.kind])
        elif fault.kind == "stop":
            assert side is not None
            await self._stop(side, fault.lasts_s)
        elif fault.kind in ("dump", "verbose"):
            assert side is not None
            for _ in range(fault.number):
                side.signal(signal.SIGUSR1 if fault.kind == "dump" else signal.SIGUSR2)
                await asyncio.sleep(DUMP_PAUSE_S * self._dice.random())
        elif fault.kind == "cut legs":
            await self._cut_legs(fault)
        elif fault.kind.startswith("proxy"):
            await self._proxies(fault)
        elif fault.kind == "stranger":
            self._stranger(fault.number)
        elif fault.kind == "another":
            self._another()
        elif fault.kind == "reader dies":
            self.flow.reader_dies = True
            self.flow.tell()
        elif fault.kind == "source fails":
            self.flow.break_off = True
            self.flow.tell()
        else:
            assert fault.kind in ("source killed", "sink killed"), fault.kind
            self._kill_command("tx" if fault.kind == "source killed" else "rx")

    async def _stop(self, side: Side, lasts_s: float) -> None:
        """As a suspended machine does, or somebody with Control-Z."""
        side.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(lasts_s)
        finally:
            side.signal(signal.SIGCONT)

    # ---- legs -----------------------------------------------------------------------------------
    async def _cut_legs(self, fault: Fault) -> None:
        """As an administrator does with ss -K: the kernel closes a connection under the hands of its process."""
        near = "dport" if fault.who == self.plan.dials else "sport"
        which = f"{near} = :{self.run.port}"
        status, said = await run_quietly(["ss", "-Htn", "state", "established", which])
        if status:
            raise RuntimeError(f"ss does not work: {said.strip()}")
        column = 2 if near == "dport" else 3
        connections = [line.split() for line in said.splitlines()]
        ours = sorted(int(words[column].rpartition(":")[2]) for words in connections if len(words) > 3)
        if fault.number:
            ours = self._dice.sample(ours, min(fault.number, len(ours)))
        if not ours:
            return
        other = "sport" if near == "dport" else "dport"
        chosen = " or ".join(f"{other} = :{port}" for port in ours)
        status, said = await run_quietly(["ss", "-KHtn", "state", "established", f"{which} and ( {chosen} )"])
        if status:
            raise RuntimeError(f"ss -K does not work: {said.strip()}")
        self.run.note(f"{len(said.splitlines())} connections cut")
        self.run.counts["leg cut by ss -K"] += len(said.splitlines())

    async def _proxies(self, fault: Fault) -> None:
        """All proxies of the run at once."""
        proxies = self.run.proxies
        if fault.kind == "proxy reset":
            cut = sum(proxy.reset(fault.number) for proxy in proxies)
            self.run.counts["leg broken by a proxy: reset"] += cut
            return
        for proxy in proxies:
            if fault.kind == "proxy dies":
                await proxy.stop()
            else:
                proxy.hold(True)
        await asyncio.sleep(fault.lasts_s)
        for proxy in proxies:
            if fault.kind == "proxy dies":
                proxy.start()
            else:
                proxy.hold(False)

    # ---- others ---------------------------------------------------------------------------------
    def _stranger(self, kind: int) -> None:
        """Somebody connects who does not belong here. What it says cannot be a greeting."""
        said = (
            b"",
            self._dice.randbytes(4096),
            b"v",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"vmlp\x01" * 9,
            b"",
            b"vm",
        )
        for _ in range(CROWD if kind == 5 else 1):
            sock = socket.socket()
            self.run.held.append(sock)  # it stays until the end, unless it leaves at once
            sock.settimeout(1)
            with contextlib.suppress(OSError):  # nobody listens there any more
                sock.connect(("127.0.0.1", self.run.port))
                sock.sendall(said[kind])
            if kind == 6:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if kind in (0, 2, 6):
                sock.close()

    def _another(self) -> None:
        """Somebody else's transfer comes to the wrong port: it is told that ours is busy, and gives up."""
        role, words = self.plan.dials, ["wait", "1s"]
        if "checkphrase" in self.plan.tx_words:
            words += ["checkphrase", "mill"]
        words += self.run.with_secrets(self.plan.secret)
        argv = [*self.run.program, role, "127.0.0.1", str(self.run.port), *words]
        number = len(self.run.others)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        out = os.open(self.run.folder / f"other{number}.out", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            side = Side(f"other{number}", argv, self.run.folder, null, out)
        finally:
            os.close(null)
            os.close(out)
        self.run.others.append((side, 3 if role == "tx" else 9))

    def _kill_command(self, role: str) -> None:
        """kill -9 of the shell that is the command, not of what it has started."""
        pipe = self.run.ends.source_pipe if role == "tx" else self.run.ends.sink_pipe
        for pid in children(self.run.sides[role].pid):
            line = command_line(pid)
            if line.startswith("sh -c") and str(pipe) in line:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                self.run.note(f"killed {line}")
                return
        self.run.note(f"{role} has no command to kill")
