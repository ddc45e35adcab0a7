"""ZFS in user space, for tests: zfs-fuse with two pools in files, in a mount namespace that nobody else sees.

It is an old ZFS (pool version 23): real enough to send and receive, too old for some questions that newer tools ask
it. SHIMS answers those.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.helpers import MIB, PATIENCE_S
from tests.recipes.helpers import Hosts, Prefix, missing, search_path

POOL_BYTES = 128 * MIB  # a sparse file each
DEVICE = Path("/dev/fuse")
# Its sockets, locks and list of pools are in fixed places: they are this namespace's own.
START = (
    "mount -t tmpfs none /run && mkdir /run/lock && mount -t tmpfs none /var/lib/zfs && exec zfs-fuse --no-daemon"
    " --no-kstat-mount -m 16"
)
# What syncoid and zfs-autobackup ask and zfs-fuse cannot answer: properties of file systems only (and tank, which is
# meant to be on another host, is left out), how much was written since a snapshot (something), what holds one, some
# properties of newer versions, and what a pool can do.
SHIMS = {
    "zfs": """case "$*" in
'get -t volume,filesystem '*) shift 3; {real} get "$@" | grep -v -e @ -e ^tank ;;
'get -Hpd 1 -t snapshot guid,creation '*) {real} get -Hpd 1 "$6" "$7" | grep @ ;;
'holds -H '*) {real} holds "$3" | sed 1d | tr -s ' ' '\\t' ;;
*written@*) echo 1048576 ;;
'get -H -o property,value -p all '*)
    {real} "$@" && printf 'encryption\\toff\\nwritten\\t0\\nguid\\t%s\\n' "$({real} get -H -o value guid "$7")" ;;
*) exec {real} "$@" ;;
esac""",
    "zpool": """case "$*" in
'get -H -p all '*) {real} get all "$5" | sed 1d | tr -s ' ' '\\t' ;;
*) exec {real} "$@" ;;
esac""",
}


def lacking() -> str:
    """Why there can be no zfs-fuse here; "" if it can."""
    if reason := missing(zfs_fuse="zfs-fuse", zfs="zfs-fuse", unshare="util-linux", nsenter="util-linux"):
        return reason
    if os.geteuid() != 0:
        return "needs root, for zfs-fuse"
    if not DEVICE.exists():
        return f"needs {DEVICE}, for zfs-fuse"
    if subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/run"], capture_output=True).returncode:
        return "needs a mount namespace, for zfs-fuse"
    return ""


@dataclass(frozen=True, slots=True)
class Zfs:
    """The pools `pool` and `tank`, mounted at /run/pool and /run/tank; `prefix` before a command lets it see them."""

    prefix: Prefix

    def call(self, command: str, check: bool = True) -> str:
        """Run a line of shell where the pools are; its output."""
        argv = [*self.prefix, "sh", "-c", command]
        env = os.environ | {"PATH": search_path()}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=PATIENCE_S)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def lend(self, hosts: Hosts) -> None:
        """Let the hosts' shells run there, with SHIMS in their PATH."""
        hosts.prefix = self.prefix
        for name, text in SHIMS.items():
            hosts.program(name, text.format(real=shutil.which(name, path=search_path())))

    def tree(self, dataset: str) -> str:
        """A digest of all names and contents in a dataset that is mounted below /run."""
        return self.call(f"cd /run/{dataset} && find . -type f | sort | xargs sha256sum")


@contextlib.contextmanager
def pools(folder: Path) -> Iterator[Zfs]:
    """Start it, and make the pools."""
    with (folder / "zfs-fuse.log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", START], env=os.environ | {"PATH": search_path()},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
        )  # fmt: skip
    zfs = Zfs(("nsenter", "--mount", f"--target={process.pid}"))
    try:
        deadline = time.monotonic() + PATIENCE_S
        while "no pools" not in zfs.call("zpool list 2>&1", check=False):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "zfs-fuse.log").read_text()
            time.sleep(0.05)
        for name in ("pool", "tank"):
            with (folder / name).open("wb") as file:
                file.truncate(POOL_BYTES)
            zfs.call(f"zpool create -O atime=off -m /run/{name} {name} {folder / name}")
        yield zfs
    finally:
        process.kill()  # what is mounted goes with the namespace, which goes with its last process
        process.wait(PATIENCE_S)
