"""Block devices and their images."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.helpers import KIB, MIB, some_bytes
from tests.recipes.book import recipe
from tests.recipes.helpers import Hosts

pytestmark = pytest.mark.slow
DISK = recipe("A disk, or its image")
DISK_BYTES = 16 * MIB
Loop = Callable[[Path], str]


def make_disk(path: Path, count: int = DISK_BYTES) -> None:
    """An image with data, a long run of zeros, and data up to its last byte."""
    data = some_bytes(count // 4)
    path.write_bytes(data + bytes(count - 2 * len(data)) + data)


@pytest.fixture
def loop() -> Iterator[Loop]:
    """Makes a block device of a file; skips where that cannot be done."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    devices: list[str] = []

    def attach(path: Path) -> str:
        done = subprocess.run(["losetup", "--find", "--show", path], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"needs loop devices: {done.stderr.strip()}")
        devices.append(done.stdout.strip())
        return devices[-1]

    yield attach
    for device in devices:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_an_image(hosts: Hosts) -> None:
    source, target = hosts.source / "sda", hosts.target / "sdb"
    make_disk(source, DISK_BYTES + 3)  # not a multiple of anything
    hosts.succeed(DISK, {"/dev/sdb": str(target)}, {"/dev/sda": str(source)})
    assert target.read_bytes() == source.read_bytes()


def test_a_block_device(hosts: Hosts, loop: Loop) -> None:
    source, target = hosts.source / "sda", hosts.target / "sdb"
    make_disk(source)
    target.write_bytes(b"\xff" * DISK_BYTES)
    hosts.succeed(DISK, {"/dev/sdb": loop(target)}, {"/dev/sda": loop(source)})
    assert target.read_bytes() == source.read_bytes()


def test_a_target_that_is_too_small(hosts: Hosts, loop: Loop) -> None:
    source, target = hosts.source / "sda", hosts.target / "sdb"
    make_disk(source)
    target.write_bytes(bytes(DISK_BYTES // 2 - 4 * KIB))
    received, sent = hosts.cook(DISK, {"/dev/sdb": loop(target)}, {"/dev/sda": loop(source)})
    assert (received.status, sent.status) == (7, 8), received.said + sent.said
    assert "No space left on device" in sent.said, "tx says what dd said"


def test_a_disk_that_is_full(hosts: Hosts) -> None:
    make_disk(hosts.source / "sda")
    received, sent = hosts.cook(DISK, {"/dev/sdb": "/dev/full"}, {"/dev/sda": str(hosts.source / "sda")})
    assert (received.status, sent.status) == (7, 8), received.said + sent.said
    assert "No space left on device" in sent.said


def test_a_source_that_does_not_exist(hosts: Hosts) -> None:
    received, sent = hosts.cook(
        DISK, {"/dev/sdb": str(hosts.target / "sdb")}, {"/dev/sda": str(hosts.source / "not-there")}
    )
    assert (sent.status, received.status) == (7, 8), sent.said + received.said
    assert "not-there" in sent.said
