"""ZFS, and the programs that replicate it, over viamillipede. See zfs.py for what kind of ZFS it is."""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from signal import SIGTERM

import pytest

from tests.e2e.helpers import eventually
from tests.e2e.ssh import free_port
from tests.recipes.book import recipe
from tests.recipes.helpers import Hosts, missing, needs
from tests.recipes.zfs import Zfs, lacking, pools

pytestmark = [pytest.mark.slow, needs(lacking())]
SNAPSHOT, SEED = recipe("A ZFS snapshot"), recipe("syncoid, the first stream")
DIRECT, AUTOBACKUP = recipe("syncoid, all streams"), recipe("zfs_autobackup")
FILL = "cd /run/{0} && head -c 3M /dev/urandom > bulk && mkdir folder && echo hello > folder/file"
MORE = "cd /run/{0} && head -c 1M /dev/urandom > more && rm folder/file"
HAVE_SYNCOID = needs(missing(syncoid="sanoid"))
# An ssh that runs what it is told on this host, without ssh, which is not what is tested here.
SSH = """while :; do
    case $1 in
    -O | -M) exit 0 ;;
    -S | -o | -p | -i) shift 2 ;;
    -*) shift ;;
    *) break ;;
    esac
done
shift
exec sh -c "$*\""""


@pytest.fixture
def zfs(tmp_path_factory: pytest.TempPathFactory, hosts: Hosts) -> Iterator[Zfs]:
    """A zfs-fuse with empty pools `pool` and `tank`, but for pool/fs, which has contents; the hosts see them."""
    with pools(tmp_path_factory.mktemp("zfs")) as zfs:
        zfs.lend(hosts)
        zfs.call("zfs create pool/fs")
        zfs.call(FILL.format("pool/fs"))
        yield zfs


def received_tree(zfs: Zfs, dataset: str) -> str:
    """What is in a file system that was received and not mounted."""
    zfs.call(f"zfs mount {dataset}", check=False)  # it may be
    return zfs.tree(dataset)


def test_a_snapshot(hosts: Hosts, zfs: Zfs) -> None:
    zfs.call("zfs create pool/fs/child && echo child > /run/pool/fs/child/file && zfs snapshot -r pool/fs@now")
    expected = zfs.tree("pool/fs")
    assert expected.count("\n") == 2
    zfs.call("rm /run/pool/fs/bulk")  # after the snapshot
    hosts.succeed(SNAPSHOT, {}, {})
    zfs.call("zfs mount tank/fs; zfs mount tank/fs/child", check=False)
    assert zfs.tree("tank/fs") == expected
    assert zfs.call("zfs list -H -o name -t snapshot -r tank/fs").split() == ["tank/fs@now", "tank/fs/child@now"]


def test_a_file_system_that_has_changed_is_refused(hosts: Hosts, zfs: Zfs) -> None:
    """And tx says what zfs said; with -F it is rolled back."""
    zfs.call("zfs snapshot pool/fs@now && zfs create tank/fs && echo mine > /run/tank/fs/mine")
    zfs.call("zfs snapshot tank/fs@mine")
    received, sent = hosts.cook(SNAPSHOT, {}, {})
    assert (received.status, sent.status) == (7, 8), received.said + sent.said
    assert re.search(r"cannot receive new file ?system stream: destination .* exists|has snapshots", sent.said), (
        sent.said
    )
    zfs.call("zfs destroy tank/fs@mine")
    hosts.succeed(SNAPSHOT, {"zfs receive": "zfs receive -F"}, {})
    assert received_tree(zfs, "tank/fs") == zfs.tree("pool/fs")


def test_a_send_that_fails_leaves_nothing(hosts: Hosts, zfs: Zfs) -> None:
    zfs.call("zfs snapshot pool/fs@now")
    cut = {"zfs send -R pool/fs@now": "sh -c 'zfs send -R pool/fs@now | head -c 1M; exit 3'"}
    received, sent = hosts.cook(SNAPSHOT, {}, cut)
    assert (sent.status, received.status) == (7, 8), sent.said + received.said
    # The daemon takes back what it has when its client has gone.
    eventually(lambda: "tank/fs" not in zfs.call("zfs list -H -o name -t all").split(), "nothing is left")


@HAVE_SYNCOID
def test_syncoid_goes_on_from_a_stream_sent_by_hand(hosts: Hosts, zfs: Zfs) -> None:
    rx = hosts.shell("receiver", hosts.on(SEED.receiver, {}))
    by_hand, _, syncoid = SEED.sender.rpartition("\n")
    sent = hosts.shell("by hand", hosts.on(by_hand, {})).ended()
    assert (rx.ended().status, sent.status) == (0, 0), sent.said
    zfs.call(MORE.format("pool/fs"))
    hosts.program("ssh", SSH)
    ended = hosts.shell("syncoid", hosts.on(syncoid, {})).ended()
    assert ended.status == 0, ended.said
    assert "Sending incremental pool/fs@seed" in ended.out, "not all of it again"
    assert received_tree(zfs, "tank/fs") == zfs.tree("pool/fs")


@needs(missing(syncoid="sanoid", socat="socat", mbuffer="mbuffer"))
def test_syncoid_directly(hosts: Hosts, zfs: Zfs) -> None:
    """Three streams: two of pool/fs, since it has a snapshot already, and one of its child."""
    if "--insecure-direct-connection" not in hosts.call("syncoid", "--help", check=False).stdout:
        pytest.skip("needs syncoid 2.2 or later")
    hosts.program("ssh", SSH)
    zfs.call("zfs snapshot pool/fs@one && zfs create pool/fs/child && echo child > /run/pool/fs/child/file")
    with ExitStack() as stack:
        here, there = (str(stack.enter_context(closing(free_port())).getsockname()[1]) for _ in range(2))
        both = {"127.0.0.1:9001,127.0.0.1:9001": f"127.0.0.1:{here},127.0.0.1:{there}", "9001": here}
        receiver, sender = hosts.start(DIRECT, {"9001": there}, {"syncoid": "syncoid -r", **both})
        ended = sender.ended()
        assert ended.status == 0, ended.out + ended.said + receiver.said
        receiver.signal(SIGTERM)
        assert receiver.ended().status == 128 + SIGTERM
    assert "3 streams served" in receiver.said
    zfs.call("zfs mount tank/fs; zfs mount tank/fs/child", check=False)
    assert zfs.tree("tank/fs") == zfs.tree("pool/fs")


@needs(missing(zfs_autobackup="zfs-autobackup"))
def test_zfs_autobackup(hosts: Hosts, zfs: Zfs) -> None:
    zfs.call("zfs create tank/backup && zfs set autobackup:offsite=true pool/fs")
    hosts.program("ssh", SSH)
    for number in range(2):
        began = int(time.time())
        ended = hosts.shell(f"run{number}", hosts.on(AUTOBACKUP.sender, {})).ended()
        assert ended.status == 0, ended.out + ended.said
        assert received_tree(zfs, "tank/backup/pool/fs") == zfs.tree("pool/fs")
        zfs.call(MORE.format("pool/fs"), check=number == 0)
        eventually(lambda: int(time.time()) > began, "the next second, after which its snapshots are called")  # noqa: B023
