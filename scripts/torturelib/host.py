"""What can be done on this machine, and what the program under test can do: probed, not believed."""

import contextlib
import dataclasses
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .draw import Abilities

UNSHARE = ("unshare", "--mount", "--propagation", "private")  # mounts in it are seen by nobody else, and end with it
PATIENCE_S = 60
ABILITIES = tuple(field.name for field in dataclasses.fields(Abilities))


class HostError(Exception):
    """Something is missing without which nothing can be run; the message says what to do."""


def _runs(argv: Sequence[str]) -> tuple[bool, str]:
    """Whether a command succeeds, and what it says."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, str(error)
    return done.returncode == 0, done.stdout + done.stderr


def _disks(folder: Path) -> str:
    """Why no small file system can be mounted; "" if it can."""
    if not shutil.which("unshare"):
        return "needs unshare (util-linux)"
    works, said = _runs([*UNSHARE, "mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(folder)])
    return "" if works else f"needs root: {said.strip()}"


def _ss() -> str:
    """Why ss cannot cut a connection; "" if it can."""
    if not shutil.which("ss"):
        return "needs ss (iproute2)"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        peer, _ = server.accept()
        with peer:
            _runs(["ss", "-KHtn", "state", "established", f"sport = :{sock.getsockname()[1]}"])
            sock.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                with contextlib.suppress(ConnectionError):
                    sock.recv(1)
                return ""  # it was aborted, or the end came
    return "needs root, and a kernel with CONFIG_INET_DIAG_DESTROY"


def _ipv6() -> str:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        return str(error)
    return ""


def _congestions() -> tuple[str, ...]:
    """What anybody may choose."""
    with contextlib.suppress(OSError):
        return tuple(Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_text().split())
    return ()


def probe(program: Sequence[str], without: Sequence[str], folder: Path) -> tuple[Abilities, dict[str, str]]:
    """What is possible, and why the rest is not. Raises HostError if the program does not run."""
    works, said = _runs([*program, "--help"])
    if not works:
        raise HostError(f"the program does not run: {said.strip() or ' '.join(program)}")
    missing = {"disks": _disks(folder), "ss": _ss(), "ipv6": _ipv6()}
    for name, word in (("commands", "-- COMMAND"), ("digest", "--digest"), ("keys", "--key")):
        missing[name] = "" if word in said else "the program does not know it"
    congestions = _congestions()
    missing["congestions"] = "" if congestions else "the system does not tell"
    missing |= {name: "not wanted" for name in without}
    able = {name: not reason for name, reason in missing.items() if name != "congestions"}
    allowed = congestions if not missing["congestions"] else ()
    return Abilities(congestions=allowed, **able), {name: why for name, why in missing.items() if why}


def versions(program: Sequence[str]) -> str:
    """Of everything that matters, on one line."""
    ours = _runs([*program, "--version"])[1].strip()
    return f"{ours}; Python {platform.python_version()}, Linux {platform.release()}, {os.cpu_count()} cores"
