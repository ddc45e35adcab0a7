"""The frame around a session: one outcome, signals, an alarm, a bounded farewell, and nothing left running."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.aio.drive import turns, until
from viamillipede.aio import program as module
from viamillipede.aio.clock import now_us
from viamillipede.aio.observer import Observer
from viamillipede.aio.poller import WRITE
from viamillipede.aio.program import Program
from viamillipede.config import MS_US, S_US, RxConfig, TxConfig
from viamillipede.errors import HungUp, Interrupted, LocalIOError, PeerLost, Terminated
from viamillipede.protocol.presence import Presence


class MadeUp(Program):
    """A program without a session: its parts do what the test gives it."""

    def __init__(self, verbose: int = 0) -> None:
        super().__init__("tx", TxConfig(verbose=verbose))
        self.observer = Observer(TxConfig(), self.log, None, now_us())
        self.presence = Presence(None, 10 * S_US, 900 * S_US, now_us())
        self.on_start: Callable[[], None] = lambda: None
        self.ticking: Callable[[], None] = lambda: None
        self.alarming: Callable[[], None] = lambda: None
        self.saying: Callable[[], Awaitable[None]] = _nothing
        self.farewells: list[BaseException | None] = []
        self.ticks = self.alarms = 0

    def start(self) -> None:
        """See Program."""
        self.on_start()

    def on_tick(self, now: int) -> None:
        """See Program."""
        self.ticks += 1
        self.ticking()

    def on_alarm(self) -> None:
        """See Program."""
        self.alarms += 1
        self.alarming()

    async def farewell(self, failure: BaseException | None) -> None:
        """See Program."""
        self.farewells.append(failure)
        await self.saying()

    def dump(self) -> str:
        """See Program."""
        return "how things stand\n"


async def _nothing() -> None:
    pass


async def _forever() -> None:
    await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def running(program: MadeUp) -> AsyncIterator["asyncio.Task[None]"]:
    """The program runs, and has begun."""
    task = asyncio.create_task(program.run())
    await turns(2)
    try:
        yield task
    finally:
        program.fail(PeerLost("the test is over"))
        program.hurry.set()
        await asyncio.gather(task, return_exceptions=True)


# The outcome ------------------------------------------------------------------------------------------------


async def test_success_says_farewell_and_ends() -> None:
    program = MadeUp()
    async with running(program) as task:
        program.outcome.set_result(None)
        await task
    assert program.farewells == [None]


async def test_a_failure_says_why_and_is_raised() -> None:
    program, failure = MadeUp(), LocalIOError("disk full")
    async with running(program) as task:
        program.fail(failure)
        with pytest.raises(LocalIOError) as caught:
            await task
    assert caught.value is failure and program.farewells == [failure]


async def test_the_first_failure_counts() -> None:
    program = MadeUp()
    async with running(program) as task:
        program.fail(LocalIOError("first"))
        program.fail(PeerLost("second"))
        with pytest.raises(LocalIOError, match="first"):
            await task


async def test_a_success_cannot_be_spoilt_afterwards() -> None:
    program = MadeUp()
    async with running(program) as task:
        program.outcome.set_result(None)
        program.fail(PeerLost("too late"))
        await task


async def test_a_start_that_fails() -> None:
    program = MadeUp()

    def fail() -> None:
        raise LocalIOError("no start")

    program.on_start = fail
    with pytest.raises(LocalIOError, match="no start"):
        await program.run()


@pytest.mark.parametrize("where", ["task", "callback", "poller", "tick", "alarm"])
async def test_an_exception_anywhere_ends_the_program(where: str) -> None:
    program = MadeUp()

    def fail() -> None:
        raise ZeroDivisionError(where)

    async def failing() -> None:
        fail()

    async with running(program) as task:
        if where == "task":
            program.spawn(failing())
        elif where == "callback":
            program.loop.call_soon(fail)
        elif where == "poller":
            with contextlib.ExitStack() as stack:
                read_fd, write_fd = os.pipe()
                stack.callback(os.close, read_fd)
                stack.callback(os.close, write_fd)

                def forget_and_fail() -> None:
                    program.poller.forget(watch)
                    fail()

                watch = program.poller.watch(write_fd, fail, forget_and_fail)
                program.poller.want(watch, WRITE)
                await until(program.outcome.done)
        elif where == "tick":
            program.ticking = fail
        else:
            program.alarming = fail
            program.set_alarm(now_us())
        with pytest.raises(ZeroDivisionError, match=where):
            await task


async def test_a_complaint_of_the_loop_without_exception_ends_it_too() -> None:
    program = MadeUp()
    async with running(program) as task:
        program.loop.call_exception_handler({"message": "something is wrong"})
        with pytest.raises(RuntimeError, match="something is wrong"):
            await task


async def test_a_task_that_ends_well_is_forgotten() -> None:
    program = MadeUp()
    async with running(program):
        before = len(program._tasks)
        task = program.spawn(_nothing())
        assert task is not None
        await task
        await turns(1)
        assert len(program._tasks) == before


async def test_no_task_outlives_the_program() -> None:
    program, cancelled = MadeUp(), []

    async def stay() -> None:
        try:
            await _forever()
        except asyncio.CancelledError:
            cancelled.append(1)
            raise

    async with running(program) as task:
        tasks = [program.spawn(stay()) for _ in range(3)]
        await turns(1)
        program.outcome.set_result(None)
        await task
    assert len(cancelled) == 3 and all(each is not None and each.done() for each in tasks)
    assert program.spawn(stay()) is None  # nothing new begins once the end has begun


# Farewell ---------------------------------------------------------------------------------------------------


async def test_a_failing_side_does_not_say_farewell_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FAREWELL_US", 30 * MS_US)
    program = MadeUp()
    program.saying = _forever
    async with running(program) as task:
        began_us = now_us()
        program.fail(PeerLost("gone"))
        with pytest.raises(PeerLost):
            await task
    assert 30 * MS_US <= now_us() - began_us < 5 * S_US


async def test_a_succeeding_side_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FAREWELL_US", 0)
    program, gate = MadeUp(), asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    program.saying = wait
    async with running(program) as task:
        program.outcome.set_result(None)
        await turns()
        assert not task.done()
        gate.set()
        await task


async def test_a_farewell_that_fails_does_not_hide_the_reason() -> None:
    program = MadeUp()

    async def fail() -> None:
        raise OSError("no way to say it")

    program.saying = fail
    async with running(program) as task:
        program.fail(PeerLost("the reason"))
        with pytest.raises(PeerLost, match="the reason"):
            await task


async def test_a_farewell_that_fails_after_success_is_the_outcome() -> None:
    program = MadeUp()

    async def fail() -> None:
        raise ZeroDivisionError("a bug")

    program.saying = fail
    async with running(program) as task:
        program.outcome.set_result(None)
        with pytest.raises(ZeroDivisionError, match="a bug"):  # itself, not in a group
            await task


# Signals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "outcome"),
    [(signal.SIGINT, Interrupted), (signal.SIGTERM, Terminated), (signal.SIGHUP, HungUp)],
)
async def test_a_signal_ends_it_and_says_farewell(number: signal.Signals, outcome: type[Exception]) -> None:
    program = MadeUp()
    async with running(program) as task:
        os.kill(os.getpid(), number)
        with pytest.raises(outcome):
            await task
    assert isinstance(program.farewells[0], outcome)


@pytest.mark.parametrize("first", ["success", "failure", "signal"])
async def test_a_signal_while_saying_farewell_is_heeded(first: str) -> None:
    program = MadeUp()
    program.saying = _forever
    async with running(program) as task:
        if first == "success":
            program.outcome.set_result(None)
        elif first == "failure":
            program.fail(PeerLost("gone"))
        else:
            os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: program.farewells)
        assert not program.hurry.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        await until(task.done)
        outcome = task.exception()
        assert program.hurry.is_set()
        if first == "failure":
            assert isinstance(outcome, PeerLost)
        if first == "signal":
            assert isinstance(outcome, Terminated)  # the first one counts


async def test_a_dump_and_a_step_disturb_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    program = MadeUp(verbose=1)
    async with running(program) as task:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)
        await until(lambda: program.log.verbose == 2)
        await turns()
        assert not task.done()
    told = capfd.readouterr().err.splitlines()
    assert sorted(told) == ["how things stand", "viamillipede tx: verbose 2"]


# Time -------------------------------------------------------------------------------------------------------


async def test_it_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_US", 2 * MS_US)
    program = MadeUp()
    async with running(program):
        await until(lambda: program.ticks >= 3)


async def test_the_alarm_rings_once_and_not_before_its_time() -> None:
    program = MadeUp()
    async with running(program):
        deadline_us = now_us() + 30 * MS_US
        program.set_alarm(deadline_us)
        await until(lambda: program.alarms)
        assert now_us() >= deadline_us - 2 * MS_US  # the loop's clock moves in steps of a millisecond
        await turns()
        assert program.alarms == 1


async def test_an_earlier_alarm_takes_the_place_of_a_later_one() -> None:
    program = MadeUp()
    async with running(program):
        program.set_alarm(now_us() + 3600 * S_US)
        program.set_alarm(now_us() + MS_US)
        await until(lambda: program.alarms)
        program.set_alarm(now_us())  # and after it rang another can be set
        await until(lambda: program.alarms == 2)


async def test_a_later_alarm_may_ring_early_but_never_late() -> None:
    program = MadeUp()
    async with running(program):
        program.set_alarm(now_us() + 5 * MS_US)
        program.set_alarm(now_us() + 3600 * S_US)
        await until(lambda: program.alarms)


async def test_an_alarm_can_be_taken_back() -> None:
    program = MadeUp()
    async with running(program):
        program.set_alarm(now_us() + 2 * MS_US)
        program.set_alarm(None)
        await asyncio.sleep(0.01)
        assert program.alarms == 0


def outage(program: MadeUp, for_us: int, gone: bool = False) -> None:
    """All legs were lost that long ago."""
    program.presence.on_leg_up()
    program.presence.on_useful()
    program.presence.on_leg_lost(gone, now_us() - for_us)


async def test_an_outage_is_told_with_what_is_left(capfd: pytest.CaptureFixture[str]) -> None:
    program = MadeUp(verbose=1)
    for for_us in (9 * S_US, 300 * S_US, 301 * S_US):
        outage(program, for_us)
        program._tell_outage(now_us())
        if for_us == 9 * S_US:
            assert capfd.readouterr().err == ""  # too short to speak of
    assert capfd.readouterr().err == "viamillipede tx: no connection for 5m00s, giving up in 10m00s\n"  # told once
    program._tell_outage(now_us() + module.OUTAGE_TOLD_EVERY_US)
    assert "no connection for 6m01s, giving up in 8m59s" in capfd.readouterr().err
    program.presence.on_leg_up()
    program.presence.on_useful()
    program._tell_outage(now_us())
    program.presence.on_leg_lost(False, now_us() - 20 * S_US)
    program._tell_outage(now_us())
    assert "no connection for 20.00 s" in capfd.readouterr().err  # a new outage is news
    program.poller.close()


async def test_before_the_first_contact_there_is_no_outage(capfd: pytest.CaptureFixture[str]) -> None:
    program = MadeUp(verbose=1)
    program._tell_outage(now_us() + 3600 * S_US)
    assert capfd.readouterr().err == ""
    program.poller.close()


async def test_what_the_roles_must_fill_in() -> None:
    program = Program("rx", RxConfig(verbose=0))
    for call in (program.start, lambda: program.on_tick(0), program.on_alarm, program.dump):
        with pytest.raises(NotImplementedError):
            call()
    with pytest.raises(NotImplementedError):
        await program.farewell(None)
    program.poller.close()
