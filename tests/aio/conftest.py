"""Tests of the shell that are coroutines run in both event loops, in debug mode, and leave nothing running.

A coroutine test fails for what its loop's exception handler heard, for tasks that it left running, and for
threads; the daemons of `descriptors.Worker` live as long as their process, and are allowed to.
"""

import asyncio
import inspect
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from tests.aio.drive import Pipe, tcp_pair
from viamillipede.aio.poller import EpollPoller, Poller

TEST_S = 20  # a test that waits for longer waits for something that does not come
WORKERS = frozenset({"input", "output", "resolve", "source", "sink", "digest"})
LOOPS = [
    pytest.param(asyncio.new_event_loop, id="asyncio"),
    pytest.param(uvloop.new_event_loop, id="uvloop"),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A coroutine test runs once in each loop."""
    if inspect.iscoroutinefunction(metafunc.function):
        metafunc.fixturenames.append("new_loop")
        metafunc.parametrize("new_loop", LOOPS)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    new_loop: Any = pyfuncitem.callspec.params["new_loop"]
    complaints = play(pyfuncitem.obj, arguments, new_loop)
    if complaints:
        pytest.fail("; ".join(complaints))
    return True


def play(test: Any, arguments: dict[str, Any], new_loop: Callable[[], asyncio.AbstractEventLoop]) -> list[str]:
    """Run it; what must not have happened besides, in words."""
    complaints: list[str] = []

    async def bounded() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(f"unhandled in the loop: {context}"))
        async with asyncio.timeout(TEST_S):
            await test(**arguments)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        complaints.extend(f"left running: {task}" for task in left)

    threads = set(threading.enumerate())
    with asyncio.Runner(debug=True, loop_factory=new_loop) as runner:
        runner.run(bounded())
    for thread in set(threading.enumerate()) - threads:
        if not (thread.daemon and thread.name in WORKERS):
            complaints.append(f"left behind: {thread}")
    return complaints


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe whose two ends are closed at the end."""
    made = Pipe(*os.pipe())
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[Any]:
    """The two non-blocking ends of a TCP connection."""
    one, other = tcp_pair()
    with one, other:
        yield one, other


@pytest.fixture(params=[EpollPoller, Poller])
def poller_type(request: pytest.FixtureRequest) -> type[Poller]:
    """Both kinds must do the same."""
    kind: type[Poller] = request.param
    return kind
