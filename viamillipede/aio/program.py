"""What both programs are made of: an outcome, an alarm, a tick, signals, and an orderly end.

One event loop owns all state. Whatever goes wrong anywhere (in a task, in a callback) ends up in
`fail`, the first failure wins, and `farewell` gets a bounded time to tell the other side.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from viamillipede.aio.clock import now_us
from viamillipede.aio.command import Command
from viamillipede.aio.command_ends import CommandSink, CommandSource
from viamillipede.aio.doorway import Doorway
from viamillipede.aio.handshake import open_keys
from viamillipede.aio.listener import Listener
from viamillipede.aio.log import ERROR, WARNING, Log
from viamillipede.aio.meter import Meter
from viamillipede.aio.observer import Observer
from viamillipede.aio.poller import open_poller
from viamillipede.aio.systemd import Service
from viamillipede.config import FAREWELL_US, LINGER_US, S_US, TICK_US, Config
from viamillipede.errors import Failure, HungUp, Interrupted, LocalIOError, Terminated, UsageError
from viamillipede.protocol.presence import Presence
from viamillipede.units import format_duration_us

OUTAGE_TOLD_FIRST_US = 10 * S_US
OUTAGE_TOLD_EVERY_US = 60 * S_US


class Program:
    """The frame around a session. The two roles fill in `start`, `on_tick`, `on_alarm`, `farewell`, `dump`."""

    def __init__(self, role: str, config: Config, label: str = "", service: Service | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.log = Log(role, config.verbose, label=label, json=config.json, file=config.log, syslog=config.syslog)
        self.poller = open_poller(self.loop)
        self.outcome: asyncio.Future[None] = self.loop.create_future()
        self.hurry = asyncio.Event()  # a second signal: no farewell
        self.began_us = now_us()
        self.presence: Presence
        self.observer: Observer
        self.meter = Meter()
        self.contact_us = 0
        self.doorway: Doorway | None = None  # of a stream for which another process listens
        self.listener: Listener | None = None  # of the side that does not dial
        self.command: Command | None = None  # the source or the sink
        self.command_end: CommandSource | CommandSink | None = None  # our end of it
        self._group: asyncio.TaskGroup
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = False  # no new task: nobody would cancel it
        self.keys = open_keys(config)
        self.cipher = ""  # of the legs, in words; "": in clear, or no leg was up yet
        self.service = service or Service.taken(os.environ)
        self._ping_us = self.began_us
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_us = 0
        self._outage_told_us = 0

    # ---- what the roles fill in -----------------------------------------------------------------
    def start(self) -> None:
        """Begin: spawn tasks, register callbacks."""
        raise NotImplementedError

    def on_tick(self, now: int) -> None:
        """Every TICK_US."""
        raise NotImplementedError

    def on_alarm(self) -> None:
        """The deadline given to `set_alarm` has come."""
        raise NotImplementedError

    async def farewell(self, failure: BaseException | None) -> None:
        """Tell the other side how it ended; cancelled after FAREWELL_US."""
        raise NotImplementedError

    def stop(self) -> None:
        """The farewell is over: begin nothing new. Idempotent, and called in any case."""
        for entrance in (self.listener, self.doorway):
            if entrance is not None:
                entrance.stop()

    def idle(self, now: int) -> tuple[int, bool]:
        """For how long nothing has moved, in microseconds, and whether that is a stall, which is worth a word."""
        return 0, False

    def wants_legs(self) -> bool:
        """Whether a new leg would be of use."""
        return not self.outcome.done()

    def dump(self) -> str:
        """How things stand, as text of several lines."""
        raise NotImplementedError

    @property
    def strangers(self) -> int:
        """How many connections were refused."""
        return 0 if self.listener is None else self.listener.strangers

    # ---- life -----------------------------------------------------------------------------------
    async def run(self) -> None:
        """From start to end; raises what the outcome is."""
        self.loop.set_exception_handler(self._on_loop_error)
        self._handle_signals()
        failure: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as self._group:
                self.spawn(self._tick())
                try:
                    self.observer.start()
                    self.start()
                    self.service.notifier.ready()
                    await self.outcome
                except Exception as error:
                    self.fail(error)  # it may not be the outcome yet: `start` has raised it
                    failure = error
                try:
                    failure = await self._end(failure) or failure
                finally:
                    self._ending = True
                    self.stop()
                    self.set_alarm(None)
                    for task in self._tasks:
                        task.cancel()
        finally:
            self.poller.close()
        if failure is not None:
            raise failure

    async def _end(self, failure: BaseException | None) -> BaseException | None:
        """Say farewell, and after a failure end the command. What went wrong with that, if it is the first thing."""
        self.service.notifier.stopping()
        if failure is not None and self.command is not None:
            self.command.signal(self.ending_signal(failure))
        further = await self._bounded_farewell(failure)
        if failure is not None and self.command is not None:
            await self.command.end(self.hurry)
        return further

    def start_command(self, environ: dict[str, str]) -> None:
        """There is contact: run the command, if there is one. That it cannot be run is no fault of the new leg's."""
        if self.command_end is None or self.outcome.done():
            return
        try:
            self.command_end.start(environ)
        except LocalIOError as error:
            self.fail(error)

    def environment(self, session: bytes, peer: str, name: str) -> dict[str, str]:
        """What a command finds in its environment besides ours."""
        return {"VIAMILLIPEDE_SESSION": session.hex(), "VIAMILLIPEDE_PEER": peer, "VIAMILLIPEDE_NAME": name}

    def ending_signal(self, failure: BaseException) -> int:
        """What a command is sent after this failure."""
        return signal.SIGTERM

    async def _bounded_farewell(self, failure: BaseException | None) -> BaseException | None:
        """What went wrong in saying farewell, if that is the first thing that did."""
        farewell = asyncio.create_task(self.farewell(failure))
        hurry = asyncio.create_task(self.hurry.wait())
        timeout_s = (LINGER_US if failure is None else 0) / S_US + FAREWELL_US / S_US
        await asyncio.wait({farewell, hurry}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for task in (farewell, hurry):
            task.cancel()
        results = await asyncio.gather(farewell, hurry, return_exceptions=True)
        return results[0] if isinstance(results[0], Exception) and failure is None else None

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """A task of this program, whose failure is the program's; None when the program is ending."""
        if self._ending:
            coroutine.close()
            return None
        task = self._group.create_task(self._guard(coroutine))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: coroutine.close())  # it never began when the task was cancelled first
        return task

    async def _guard(self, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        except Exception as error:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """The transfer cannot go on. The first reason counts."""
        if not self.outcome.done():
            self.outcome.set_exception(error)
            self.outcome.exception()  # looked at: asyncio need not warn when farewell is under way already

    def _on_loop_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.fail(context.get("exception") or RuntimeError(context["message"]))

    def close(self, closing: Callable[[], str]) -> None:
        """The last words, and everything is given back. `closing`: how far it came, asked for when all is over."""
        self.stop()
        self.observer.clear()
        if line := closing():
            self.log.say(WARNING, line)
        failure = self.failure()
        if isinstance(failure, Failure) and not isinstance(failure, UsageError):
            message, *quoted = str(failure).splitlines()
            if isinstance(failure, LocalIOError):
                quoted = []  # our own command's standard error was passed on already
            self.log.say(ERROR, "\n".join([message, *(f"  | {line}" for line in quoted)]))
            failure.told = True
        self.observer.stop()
        self.log.close()
        self.service.close()

    def failure(self) -> BaseException | None:
        """Why the program ends, if that is known and no success."""
        outcome = self.outcome
        return outcome.exception() if outcome.done() and not outcome.cancelled() else None

    # ---- time -----------------------------------------------------------------------------------
    async def _tick(self) -> None:
        now = now_us()
        while True:
            await asyncio.sleep(TICK_US / S_US)
            before, now = now, now_us()
            if now - before > S_US:
                self.presence.on_slept(now - before - TICK_US)
            self._tell_outage(now)
            self.on_tick(now)
            self.observer.on_tick(now)
            self.observer.on_idle(*self.idle(now), now)
            if self.service.notifier.watchdog_us and now - self._ping_us >= self.service.notifier.watchdog_us:
                self._ping_us = now
                self.service.notifier.ping()

    def _tell_outage(self, now: int) -> None:
        since_us = self.presence.alone_since_us if self.presence.contacted else None
        if since_us is None:
            self._outage_told_us = 0
        elif now - since_us >= OUTAGE_TOLD_FIRST_US and now - self._outage_told_us >= OUTAGE_TOLD_EVERY_US:
            self._outage_told_us = now
            left_us = (self.presence.deadline_us() or now) - now
            if left_us >= S_US:
                down, left = format_duration_us(now - since_us), format_duration_us(left_us)
                self.log.say(WARNING, f"no connection for {down}, giving up in {left}")

    def set_alarm(self, deadline_us: int | None) -> None:
        """Call `on_alarm` at this time, or never."""
        if self._alarm is not None:
            if deadline_us is not None and self._alarm_us <= deadline_us:
                return  # it will ring early and be set again: cheaper than a new timer each time
            self._alarm.cancel()
            self._alarm = None
        if deadline_us is not None:
            self._alarm_us = deadline_us
            self._alarm = self.loop.call_later(max(0, deadline_us - now_us()) / S_US, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self.on_alarm()

    # ---- signals --------------------------------------------------------------------------------
    def _handle_signals(self) -> None:
        handlers: dict[str, Callable[[], None]] = {
            "SIGINT": lambda: self._on_stop(Interrupted("interrupted")),
            "SIGTERM": lambda: self._on_stop(Terminated("terminated")),
            "SIGHUP": lambda: self._on_stop(HungUp("hung up")),
            "SIGUSR1": self._on_dump,
            "SIGINFO": self._on_dump,
            "SIGUSR2": self.on_step,
        }
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup: we are to go on without the terminal
            del handlers["SIGHUP"]
        for name, handler in handlers.items():
            number = getattr(signal, name, None)
            if number is not None:
                self.loop.add_signal_handler(number, handler)

    def _on_stop(self, failure: Failure) -> None:
        if self.outcome.done():
            self.hurry.set()
        self.fail(failure)

    def on_step(self) -> None:
        """Say more, or after the most, least."""
        self.log.step()

    def _on_dump(self) -> None:
        try:
            self.log.write(self.dump())
        except (OSError, ImportError) as error:  # no descriptor left, say: a dump must not end the stream
            self.log.write(f"no dump: {error}\n")
