"""Trees of files: tar behind --, and tar in a pipeline."""

import os

import pytest

from tests.e2e.helpers import MIB
from tests.recipes.book import recipe
from tests.recipes.helpers import Hosts
from tests.recipes.trees import SPARSE_BYTES, assert_same, plant

pytestmark = pytest.mark.slow
FULL, CHANGING = recipe("A tree of files"), recipe("A tree of files", 1)
PIPELINE = recipe("A tree of files, in a pipeline")
APPEND = "--checkpoint=50 --checkpoint-action=exec=date>>growing"  # tar reads a file that grows under its hands


def test_a_tree(hosts: Hosts) -> None:
    plant(hosts.source)
    hosts.succeed(FULL, {"/restore": str(hosts.target)}, {"/srv": str(hosts.source)})
    assert_same(hosts.source, hosts.target, attributes=True)
    assert os.stat(hosts.target / "sparse").st_blocks * 512 < SPARSE_BYTES // 4, "-S keeps the holes"


def test_a_tree_in_a_pipeline(hosts: Hosts) -> None:
    plant(hosts.source)
    hosts.succeed(PIPELINE, {"/restore": str(hosts.target)}, {"/srv": str(hosts.source)})
    assert_same(hosts.source, hosts.target)


@pytest.mark.parametrize("tolerated", [False, True], ids=["refused", "tolerated"])
def test_a_file_that_changes_while_it_is_read(hosts: Hosts, tolerated: bool) -> None:
    (hosts.source / "growing").write_bytes(bytes(MIB))
    hosts.env["TAR_OPTIONS"] = APPEND.replace("growing", str(hosts.source / "growing"))
    receiver = hosts.shell("receiver", hosts.on(FULL.receiver, {"/restore": str(hosts.target)}), TAR_OPTIONS="")
    sender = hosts.shell("sender", hosts.on(CHANGING.sender if tolerated else FULL.sender, {"/srv": str(hosts.source)}))
    sent, received = sender.ended(), receiver.ended()
    assert "file changed as we read it" in sent.said
    assert (sent.status, received.status) == ((0, 0) if tolerated else (7, 8)), sent.said + received.said


@pytest.mark.parametrize("pipefail", [False, True], ids=["without", "with"])
def test_a_tar_that_fails_in_a_pipeline(hosts: Hosts, pipefail: bool) -> None:
    """What the page warns of: without pipefail both sides are content with a tree that is not whole."""
    plant(hosts.source, bulk_bytes=MIB)
    sender = PIPELINE.sender if pipefail else PIPELINE.sender.replace("set -o pipefail\n", "")
    assert pipefail or sender != PIPELINE.sender
    receiver = hosts.shell("receiver", hosts.on(PIPELINE.receiver, {"/restore": str(hosts.target)}))
    sent = hosts.shell("sender", hosts.on(sender, {"/srv .": f"{hosts.source} . ./not-there"})).ended()
    assert "not-there" in sent.said
    assert (sent.status, receiver.ended().status) == (2 if pipefail else 0, 0)


def test_a_tar_that_fails_behind_dashes(hosts: Hosts) -> None:
    plant(hosts.source, bulk_bytes=MIB)
    received, sent = hosts.cook(FULL, {"/restore": str(hosts.target)}, {"/srv .": f"{hosts.source} . ./not-there"})
    assert (sent.status, received.status) == (7, 8), sent.said + received.said
