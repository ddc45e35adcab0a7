"""What holds for every test: examples are the same each time, and nothing is left behind.

After each test the process must have the children and the file descriptors that it had before. A test
that wants a helper process or a socket for longer than itself cannot have one; that keeps tests apart.
"""

import asyncio
import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest
import uvloop

# Derandomized: a failure on one machine is a failure on all. No deadline: a loaded machine is not a bug. No
# database: what an earlier run found belongs into a test as an @example, not into a folder of this machine.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")


def pytest_configure() -> None:
    """Open what libraries open once and keep for ever, so that no test is blamed for it.

    And let no ignored signal be inherited by the programs under test: a shell starts what runs in the background
    with SIGINT ignored, nohup with SIGHUP. A handler that does nothing ignores it for us, and ends at an exec.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    uvloop.new_event_loop().close()  # libuv's pipe for signals
    asyncio.new_event_loop().close()


def open_descriptors() -> dict[int, str]:
    """What every descriptor of this process refers to; empty where there is no /proc."""
    found = {}
    for entry in Path("/proc/self/fd").glob("*"):
        try:
            found[int(entry.name)] = os.readlink(entry)
        except FileNotFoundError:  # the one that listed the folder
            continue
    return found


def living_children() -> dict[int, str]:
    """Every child of this process, also one that has ended and was not waited for."""
    try:  # asked first, because it is cheap and nearly always says that there is none; reaps nothing
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return {}
    return {child.pid: child.name() for child in psutil.Process().children(recursive=True)}


def left_behind(descriptors: dict[int, str], children: dict[int, str]) -> list[str]:
    """What there is now and was not before, in words."""
    new = [f"process {pid} ({name})" for pid, name in living_children().items() if pid not in children]
    if open_descriptors().keys() - descriptors.keys():
        gc.collect()  # a reference cycle may hold a closed-over socket for a while; that is no leak
    now = open_descriptors()
    return new + [f"descriptor {number} ({now[number]})" for number in sorted(now.keys() - descriptors.keys())]


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail the test that leaves a process or a descriptor behind."""
    descriptors, children = open_descriptors(), living_children()
    yield
    if remains := left_behind(descriptors, children):
        pytest.fail(f"left behind: {', '.join(remains)}")
