"""One run: a plan carried out on real processes, and what was seen of it."""

import asyncio
import contextlib
import os
import random
import shlex
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from .content import Content
from .director import Director
from .draw import Abilities
from .ends import Ends
from .flow import Flow
from .oracle import Result, limit_s
from .plan import Kind, Plan
from .proxy import Proxy
from .side import Side, outlived

HOST = "127.0.0.1"
PORTS = range(10_000, 30_000)  # which no kernel gives to those who dial, and who would then be in the way
LEFT_S = 3.0  # how long a process may outlive both sides, which have ended by themselves
LEFT_KILLED_S = 12.0  # ... when one of them was killed: SIGTERM, 5 s, SIGKILL, and somebody must notice
ENDED_S = 10.0  # for what a dead process had written to be read


class Run:
    """Everything that a run needs. `say`: told what happens, for those who watch. `counts`: what has happened."""

    def __init__(
        self, plan: Plan, can: Abilities, program: list[str], folder: Path, say: Callable[[str], None]
    ) -> None:
        self.plan, self.can, self.program, self.folder = plan, can, program, folder
        self.began = time.monotonic()
        self._say = say
        self.story: list[str] = []
        self.counts: Counter[str] = Counter()
        self.result = Result()
        self.flow = Flow()
        self.ends = Ends(plan, folder, Content(plan.seed), self.flow)
        self.sides: dict[str, Side] = {}
        self.others: list[tuple[Side, int]] = []  # and the status that each must end with
        self.held: list[socket.socket] = []
        self.proxies: list[Proxy] = []
        self.port = 0

    def note(self, text: str) -> None:
        """A line of the story."""
        self.story.append(f"{time.monotonic() - self.began:8.3f} s  {text}")
        self._say(self.story[-1])

    # ---- from start to end ----------------------------------------------------------------------
    async def perform(self) -> Result:
        """Carry it out. Whatever happens, nothing is left behind."""
        self._reserve()
        try:
            director = Director(self)  # it holds the ends back from the beginning
            await self.ends.open()
            async with asyncio.timeout(limit_s(self.plan)):
                await self._perform(director)
        except TimeoutError:
            await self._hung()
        finally:
            await self._release()
        return self.result

    async def _perform(self, director: Director) -> None:
        await self._start()
        directing = asyncio.create_task(director.direct())
        try:
            await self._all_ended()
            self.flow.tell()
            await directing
        finally:
            directing.cancel()
            await asyncio.gather(directing, return_exceptions=True)
        for side, status in self.others:
            found = await side.end()
            if found != status:
                self.result.wrong.append(f"{side.name} ended with {found}, not {status}:\n{side.said}")
        killed = any(side.ended.result() < 0 for side in self.sides.values())
        await self.ends.settle(LEFT_KILLED_S if killed else ENDED_S, self.result)
        await self._put_away()
        self.result.left = await outlived(LEFT_KILLED_S if killed else LEFT_S)
        self._collect()

    def _collect(self) -> None:
        self.result.tx, self.result.rx = (
            self.sides[role].outcome() if role in self.sides else None for role in ("tx", "rx")
        )

    async def _all_ended(self) -> None:
        """Wait for both sides; their ends are told as they come."""

        async def one(side: Side) -> None:
            status = await side.end()
            self.note(f"{side.name} ended with {status}")
            if side.name == "rx":
                self.ends.let_go()
            self.flow.tell()
            await side.last_words(ENDED_S)

        await asyncio.gather(*map(one, self.sides.values()))

    async def _hung(self) -> None:
        """Ask who is still there how things stand, before it is killed."""
        living = [side for side in self.sides.values() if side.living] + [s for s, _ in self.others if s.living]
        names = ", ".join(side.name for side in living) or "a process that one of them has started"
        self.result.hung = f"{names}, after {time.monotonic() - self.began:.0f} s"
        self.note(f"hung: {names}")
        for side in living:
            side.signal(signal.SIGCONT)
            side.signal(signal.SIGUSR1)
        await asyncio.sleep(1)
        self.result.fed, self.result.arrived, self.result.differs = self.flow.fed, self.flow.arrived, self.flow.differs
        self._collect()

    # ---- the processes --------------------------------------------------------------------------
    def _reserve(self) -> None:
        """A port that refuses until one of ours listens there: bound, so that nobody else gets it."""
        dice = random.SystemRandom()  # other workers look for one as well
        for _ in range(1000):
            port = dice.choice(PORTS)
            with contextlib.suppress(OSError):
                socket.create_server(("", port), reuse_port=False).close()  # of no address of this machine
                sock = socket.socket()
                self.held.append(sock)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((HOST, port))
                self.port = port
                return
        raise RuntimeError("no port is free")

    def with_secrets(self, words: Sequence[str]) -> list[str]:
        """The words, with the path of a file for each secret in them, which is made when it is wanted."""
        found = list(words)
        for at, word in enumerate(words):
            if word.startswith("@"):
                path = self.folder / f"{words[at - 1]}{word}"
                found[at] = str(path)
                if not path.exists():
                    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                        text = f"the phrase {word} of {self.plan.seed}\n".encode()
                        file.write(subprocess.check_output([*self.program, "key"]) if words[at - 1] == "key" else text)
        return found

    def argv(self, role: str) -> list[str]:
        """A side's command line."""
        plan = self.plan
        words = self.with_secrets(plan.tx_words if role == "tx" else plan.rx_words)
        command = self.ends.source_command() if role == "tx" else self.ends.sink_command()
        if "--" in words:  # it has one that does not exist
            words, command = words[: words.index("--")], words[words.index("--") :]
        if role != plan.dials:
            where = ["tx", "listen", str(self.port)] if role == "tx" else ["rx", str(self.port)]
            return [*self.program, *where, *words, *command]
        proxies = iter(self.proxies)
        paths: list[str] = []
        for hop in plan.hops:
            port = next(proxies).port if hop.proxied else 1 if hop.refusing else self.port
            paths += [role, hop.host, str(port), *hop.terms]
        return [*self.program, *words, *paths, *command]

    def _spawn(self, role: str) -> None:
        argv = self.argv(role)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            stdin = self.ends.stdin if role == "tx" and self.plan.source.kind != "command" else null
            stdout = self.ends.stdout if role == "rx" and self.plan.sink.kind != "command" else null
            self.sides[role] = Side(role, argv, self.folder, stdin, stdout)
        finally:
            os.close(null)
        self.note(f"{role} started, process {self.sides[role].pid}: {shlex.join(argv)}")

    async def _start(self) -> None:
        """Start both sides, or the one there is, in the order that the plan wants."""
        plan = self.plan
        for hop in plan.hops:
            if hop.proxied:
                proxy = Proxy((HOST, self.port), hop.breaks, self._on_break)
                proxy.start()
                self.proxies.append(proxy)
        if plan.kind in (Kind.ALONE, Kind.USAGE):
            self._spawn("rx" if plan.missing == "tx" else "tx")
            self.ends.started()
            return
        first = plan.listens if plan.first in ("listening", "both") else plan.first
        self._spawn(first)
        if plan.first == "listening":
            verbose = plan.verbose[0 if first == "tx" else 1]
            if not verbose:  # it will not tell
                await asyncio.sleep(plan.late_s)
            elif not await self.sides[first].hear(r"listening on port"):
                self.note(f"{first} does not listen")
        elif plan.first != "both":
            await asyncio.sleep(plan.late_s)
        self._spawn("tx" if first == "rx" else "rx")
        self.ends.started()

    def _on_break(self, kind: str) -> None:
        self.counts[f"leg broken by a proxy: {kind}"] += 1
        self.note(f"the proxy: {kind}")

    # ---- afterwards -----------------------------------------------------------------------------
    async def _put_away(self) -> None:
        """Sockets and proxies."""
        for proxy in self.proxies:
            await proxy.stop()
        for sock in self.held:
            sock.close()

    async def _release(self) -> None:
        for side in (*self.sides.values(), *(side for side, _ in self.others)):
            await side.release()
        await self._put_away()
        await self.ends.close()
        await outlived(0)
