"""Through tunnels of ssh."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.e2e.helpers import MIB
from tests.e2e.ssh import Sshd, free_port, missing
from tests.recipes.book import recipe
from tests.recipes.helpers import Hosts, needs
from tests.recipes.trees import assert_same, plant

pytestmark = [pytest.mark.slow, needs(missing())]
TUNNELS = recipe("Through ssh")
OPTIONS = (
    "IdentitiesOnly yes", "IdentityAgent none", "StrictHostKeyChecking no", "UserKnownHostsFile /dev/null",
    "GlobalKnownHostsFile /dev/null", "BatchMode yes", "LogLevel ERROR",
)  # fmt: skip


@pytest.fixture
def sshd(tmp_path_factory: pytest.TempPathFactory, hosts: Hosts) -> Iterator[Sshd]:
    """A server on this machine, and an `ssh` that knows how to reach it: what an administrator has in ~/.ssh."""
    folder = Path(tmp_path_factory.mktemp("sshd"))
    folder.chmod(0o700)
    with Sshd(folder) as sshd:
        lines = [f"Port {sshd.port}", f"IdentityFile {folder / 'client'}", *OPTIONS]
        (hosts.folder / "ssh_config").write_text("\n".join(["Host *", *lines, ""]))
        found = hosts.call("sh", "-c", "command -v ssh").stdout.strip()
        hosts.program("ssh", f'exec {found} -F {hosts.folder / "ssh_config"} "$@"')
        yield sshd


def test_through_two_tunnels(hosts: Hosts, sshd: Sshd) -> None:
    plant(hosts.source, bulk_bytes=16 * MIB)
    with ExitStack() as stack:
        ports = [str(stack.enter_context(closing(free_port())).getsockname()[1]) for _ in range(2)]
        _, sent = hosts.succeed(
            TUNNELS,
            {"/restore": str(hosts.target)},
            {"/srv": str(hosts.source), "8841": ports[0], "8842": ports[1]},
        )
    assert_same(hosts.source, hosts.target)
    for port in ports:
        assert f"localhost:{port}" in sent.said, f"the closing line gives the bytes of each path:\n{sent.said}"
